"""What bad input must give: exit code 2 and one clear line, quickly, with no file left behind."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nashc.cli import run

SECONDS, GROWTH_KIB, CHARACTERS = 20, 1024 * 1024, 2000
"""Limits of one command: time, memory beyond what the process had used before, message beyond the command line."""
RESULTS = {"design.json", "model.onnx", "report.html", "report.txt"}
UNFORESEEN = "cannot be imported ("
"""How a message of the importer's safety net reads: an error, but not one that was written for the case."""
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """One command line. `prepare` writes its files into an empty folder and returns the arguments.

    code: the exit code that is right. words: what the message (of code 2) or the output (of code 0) must say.
    """

    kind: str
    name: str
    prepare: Callable[[Path], Sequence[str]]
    words: str = ""
    code: int = 2


@dataclass(frozen=True)
class Verdict:
    """What a command did: `faults` say what was wrong with that."""

    code: int
    seconds: float
    message: str
    faults: tuple[str, ...]


class Hang(BaseException):
    """The time limit; no handler of nashc catches it."""


def judge(case: Case, folder: Path, *, process: bool = False, codes: tuple[int, ...] = ()) -> Verdict:
    """Run one case in an empty `folder`, in this process or a new one, and look at everything it did.

    codes: the exit codes that are right, instead of the case's own.
    """
    args = [str(a) for a in case.prepare(folder)]
    before = snapshot(folder)
    start, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, out, err = (in_new_process if process else in_this_process)(args)
    seconds = time.monotonic() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    if code == 0 and "-o" in args:
        clear_results(Path(args[args.index("-o") + 1]))
    faults = [
        *([f"exit code {code}"] if code not in (codes or (case.code,)) else []),
        *wrong_text(code, out, err, CHARACTERS + sum(map(len, args))),
        *([f"{seconds:.0f} s"] if seconds > SECONDS else []),
        *([f"{grown / 1024:,.0f} MiB more memory"] if grown > GROWTH_KIB and not process else []),
        *([f"no word of '{case.words}'"] if case.words not in (out if code == 0 else err) else []),
        *(f"file changed: {name}" for name in changes(before, snapshot(folder))),
    ]
    return Verdict(code, seconds, err, tuple(faults))


def wrong_text(code: int, out: str, err: str, longest: int) -> Iterator[str]:
    """Faults of what a command printed."""
    if "Traceback" in out + err:
        yield "traceback"
    if code == 2:
        if not err.startswith("error: ") or err.count("\n") != 1 or len(err) < len("error: x\n"):
            yield "the message is not one line 'error: ...'"
        if out:
            yield "text on stdout beside an error"
        if len(err) > longest:
            yield f"a message of {len(err):,} characters"
    raw = {c for c in out + err if c != "\n" and (c == "\x1b" or unicodedata.category(c) in ("Cc", "Cf"))}
    if raw:
        yield f"raw control characters {sorted(map(ascii, raw))}"


def in_this_process(args: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line."""

    def stop(signum: int, frame: object) -> None:
        raise Hang

    out, err = io.StringIO(), io.StringIO()
    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS + 1)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(args)
    except Hang:
        code = -signal.SIGALRM
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    return code, out.getvalue(), err.getvalue()


def in_new_process(args: Sequence[str]) -> tuple[int, str, str]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "nashc.cli", *args]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=SECONDS + 5, check=False)
    except subprocess.TimeoutExpired as late:
        return -signal.SIGALRM, "", (late.stderr or b"").decode()
    except ValueError:  # no process takes an argument with a NUL
        return in_this_process(args)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def snapshot(folder: Path) -> dict[str, str]:
    """Everything below a folder: kind, size and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = f"link to {os.readlink(path)}"
        elif path.is_file():
            small = path.stat().st_size < 2**24
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if small else str(path.stat().st_size)
        else:
            found[str(path)] = oct(path.stat().st_mode)
    return found


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [Path(name).name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]


def clear_results(out: Path) -> None:
    """Remove what a successful compile writes; anything else is left to be found."""
    if {p.name for p in out.iterdir()} == RESULTS:
        shutil.rmtree(out)
