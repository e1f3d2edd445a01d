"""Run the commands of the documentation, page by page, so that what a reader copies is known to work.

    python docs/run_commands.py [PAGE ...]      all pages: README.md, examples/README.md and docs/*.md

Every fenced block of `sh` is run, in the order of the page, by one `bash -euo pipefail` whose working directory is a
fresh copy of the checkout. So a page may rely on its own earlier blocks and on nothing else. Comments of their own:

    <!-- setup: COMMANDS -->         run there, hidden from the reader (data that the page takes for granted)
    <!-- not run: REASON -->         the block that follows is left out, and the list at the end says why
    <!-- ci: NAME -->                the block that follows is a stage of .ci/run of its own

Exit code 0: all commands ran. 1: one failed; its line and the end of the output are printed. 2: a page cannot be read.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMENT = re.compile(r"<!-- (setup|not run|ci): (.*?) -->", re.DOTALL)
SHOWN = 40
"""Lines of output that are printed when a page fails."""


class PageError(Exception):
    """A page whose commands cannot be told; the message says where and why."""


@dataclass(frozen=True)
class Commands:
    """A page as a script with the same line numbers, so that bash names the line of the page; what was left out."""

    script: str
    blocks: int
    left_out: tuple[tuple[int, str], ...]


def commands_of(text: str) -> Commands:
    """The commands of a page. Raises PageError."""
    lines = text.split("\n")
    script = [""] * len(lines)
    blocks, left_out = 0, []
    reason, pending = "", 0  # of the comment that the next block belongs to, and its line
    number = 0
    while number < len(lines):
        line = lines[number]
        if line.startswith("```"):
            fence = re.match(r"`+", line)[0]  # type: ignore[index]
            end = next((n for n in range(number + 1, len(lines)) if lines[n].rstrip() == fence), None)
            if end is None:
                raise PageError(f"line {number + 1}: the block has no end")
            if line == f"{fence}sh" and reason:
                left_out.append((number + 1, reason))
            elif line == f"{fence}sh":
                script[number + 1 : end] = lines[number + 1 : end]
                blocks += 1
            elif reason:
                raise PageError(f"line {pending}: no block of sh follows")
            reason, number = "", end
        elif line.startswith("<!-- ") and (comment := COMMENT.match("\n".join(lines[number:]))):
            kind, body = comment.groups()
            last = number + comment[0].count("\n")
            if kind == "setup":
                script[number : last + 1] = body.split("\n")
            else:
                reason, pending = (body if kind == "not run" else f"stage of .ci/run ({body})"), number + 1
            number = last
        elif line.strip() and reason:
            raise PageError(f"line {pending}: no block of sh follows")
        number += 1
    if reason:
        raise PageError(f"line {pending}: no block of sh follows")
    return Commands("\n".join(script), blocks, tuple(left_out))


def run(script: str, folder: Path, limit: float, threads: int) -> tuple[int, str]:
    """Exit code and output of a script in a folder; 124 where it ran longer than `limit` seconds."""
    page, log = folder.with_suffix(".sh"), folder.with_suffix(".log")
    page.write_text(f"{script}\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `nashc` is that of this environment
    told = 'trap \'echo "line $LINENO: $BASH_COMMAND"\' ERR; . "$0"'
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bash", "-E", "-euo", "pipefail", "-c", told, str(page)], cwd=folder, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env={"OMP_NUM_THREADS": str(threads), **os.environ, "PATH": path, "COLUMNS": "100"},
        )  # fmt: skip
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = 124
            output.write(f"longer than {limit:g} s\n")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what a page left running, too
            process.wait()
    return code, log.read_text(errors="replace")


def copy_of_checkout(folder: Path) -> None:
    """The checkout without what .gitignore names, at any depth."""
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", *ignored), symlinks=True)


def run_page(path: Path, limit: float, threads: int) -> tuple[bool, Commands]:
    """Run the commands of a page and print how it went. Raises PageError."""
    name = os.path.relpath(path, ROOT)
    try:
        commands = commands_of(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, PageError) as error:
        raise PageError(f"{name}: {error}") from None
    if not commands.blocks:
        return True, commands
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "checkout"
        copy_of_checkout(folder)
        code, output = run(commands.script, folder, limit, threads)
    verdict = f"FAILED ({code})" if code else "ok"
    lines = [f"{name:28} {commands.blocks:3} blocks {time.monotonic() - begin:6.1f} s  {verdict}"]
    lines += [f"    {line}" for line in output.splitlines()[-SHOWN:]] if code else []
    print("\n".join(lines), flush=True)
    return code == 0, commands


def main() -> int:
    """Run the pages that were asked for; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="pages at a time (1)")
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS", help="of one page (300)")
    options = parser.parse_args()
    pages = [page.resolve() for page in options.pages]
    pages = pages or [ROOT / "README.md", ROOT / "examples/README.md", *sorted((ROOT / "docs").glob("*.md"))]
    threads = max(1, (os.cpu_count() or 1) // options.jobs)  # torch's, so that pages do not wait for each other
    try:
        with ThreadPoolExecutor(options.jobs) as pool:
            done = dict(zip(pages, pool.map(lambda page: run_page(page, options.limit, threads), pages), strict=True))
    except PageError as error:
        print(error, file=sys.stderr)
        return 2
    left_out = [(page, *what) for page, (_, commands) in done.items() for what in commands.left_out]
    if left_out:
        print("\nnot run here")
    for page, line, reason in left_out:
        print(f"{os.path.relpath(page, ROOT)}:{line}: {' '.join(reason.split())}")
    return 0 if all(passed for passed, _ in done.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
