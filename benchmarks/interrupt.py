"""Kill `nashc compile` at random moments while it replaces a result: what is in out/ afterwards, as a table.

python benchmarks/interrupt.py [--kills 50] [--seed 0]

Before each kill out/ holds an earlier result and a file of the user. A third of the kills fall anywhere in the run, a
third between the first temporary file and the end, and a third at once when the first file of out/ is replaced, with
SIGKILL, SIGINT and SIGTERM in turn. No --budget: without it equal commands give equal bytes. Right is: out/ is byte
for byte the earlier result or the new one, never a mixture, with the user's file as it was; the exit code is 130 or
143 for a handled signal, 0 where the run was done, minus the signal before and after Python handles any; what a kill
left beside out/ is gone after a later run, made to look two hours older for that (nashc leaves younger ones alone:
they may belong to a command that still runs). Exit code 1 when anything was not right.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from machine import heading

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "examples/models/mnist-conv.onnx"
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
EARLIER, NEW = ("--batch", "1", "--max-lut", "100000"), ("--batch", "1")
Files = dict[str, bytes]


@dataclass
class Tally:
    """What kills of one signal at one kind of moment led to."""

    kills: int = 0
    earlier: int = 0
    new: int = 0
    left: int = 0
    cleaned: int = 0
    codes: set[int] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


def command(out: Path, options: tuple[str, ...]) -> list[str]:
    program = [sys.executable, "-m", "nashc.cli", "compile", str(MODEL)]
    return [*program, "--target", "fpga-zc706", "-o", str(out), *options]


def start(out: Path, options: tuple[str, ...]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(out, options), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def files(folder: Path) -> Files:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def beside(folder: Path) -> list[Path]:
    """Whatever lies beside or in out/ and is neither a result nor the user's."""
    return [p for p in (*folder.iterdir(), *(folder / "out").iterdir()) if p.name.startswith(".")]


def wait(
    process: subprocess.Popen[bytes], folder: Path, moment: str, share: float, length: float, write: float
) -> None:
    """Until the moment of the kill, or the end of the process."""
    if moment == "anywhere":
        time.sleep(share * length)
        return
    if moment == "replacing":
        first = folder / "out/report.txt"
        before = first.stat().st_ino
        while process.poll() is None and first.stat().st_ino == before:
            pass
        return
    while process.poll() is None and not beside(folder):
        pass
    time.sleep(share * write)


def one_kill(
    folder: Path,
    tally: Tally,
    number: int,
    moment: str,
    share: float,
    results: tuple[Files, Files],
    times: tuple[float, float],
) -> None:
    """Start over the earlier result, kill, look."""
    out = folder / "out"
    out.mkdir()
    for name, content in results[0].items():
        (out / name).write_bytes(content)
    process = start(out, NEW)
    wait(process, folder, moment, share, *times)
    process.send_signal(number)
    message = process.communicate(timeout=60)[1].decode()
    tally.kills += 1
    tally.codes.add(process.returncode)
    now = files(out)
    tally.earlier += now == results[0]
    tally.new += now == results[1]
    if now not in results:
        kinds = {name: [r.get(name) == now.get(name) for r in results] for name in now.keys() | results[0].keys()}
        tally.faults.append(f"mixture (file: [earlier, new]): {dict(sorted(kinds.items()))}")
    if process.returncode not in (0, -number, 128 + number):
        tally.faults.append(f"exit code {process.returncode}: {message.strip()[-200:]}")
    elif "Traceback" in message:
        tally.faults.append(f"traceback: {message.strip().splitlines()[-1][:200]}")
    left = beside(folder)
    if left and number != signal.SIGKILL and process.returncode != -number:
        tally.faults.append(f"left behind: {[p.name for p in left]}")
    if left:
        tally.left += 1
        for path in left:
            os.utime(path, (time.time() - 7200,) * 2)
        subprocess.run(command(out, NEW), cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        tally.cleaned += not beside(folder)
        if beside(folder) or files(out) != results[1]:
            tally.faults.append("the next run does not clean up")


def measure(folder: Path) -> tuple[tuple[Files, Files], tuple[float, float]]:
    """The two results, with the user's file, and the seconds of a run and of its writing."""
    found = []
    for options in (EARLIER, NEW, NEW):
        out = folder / "out"
        out.mkdir()
        (out / "notes.txt").write_text("the user's")
        begin = time.monotonic()
        process = start(out, options)
        while process.poll() is None and not beside(folder):
            time.sleep(0.002)  # a busy wait would slow down the run that is measured
        writing = time.monotonic()
        process.communicate()
        if process.returncode:
            raise SystemExit(f"the compile itself fails with exit code {process.returncode}")
        found.append((files(out), time.monotonic() - begin, time.monotonic() - writing))
        shutil.rmtree(out)
    (earlier, *_), (new, *one), (again, *two) = found
    length, write = map(min, one, two)
    if new != again or any(earlier[name] == content for name, content in new.items() if name != "notes.txt"):
        raise SystemExit("equal commands give other bytes, or the two results share a file: nothing can be told apart")
    return (earlier, new), (length, write)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    print(heading(), "\n")
    tallies: dict[tuple[str, signal.Signals], Tally] = defaultdict(Tally)
    with tempfile.TemporaryDirectory() as made:
        results, times = measure(Path(made))
        print(f"a run takes {times[0]:.2f} s, from its first temporary file on {times[1]:.2f} s\n")
        for i in range(args.kills):
            moment, number = ("anywhere", "writing", "replacing")[i // 3 % 3], SIGNALS[i % 3]
            folder = Path(made) / str(i)
            folder.mkdir()
            one_kill(folder, tallies[moment, number], number, moment, rng.random(), results, times)
            shutil.rmtree(folder)
        if measure(Path(made))[0] != results:
            raise SystemExit("nashc itself changed while it was measured")
    print("| moment | signal | kills | earlier result | new result | mixture | exit codes | left behind | cleaned |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (moment, number), t in sorted(tallies.items()):
        mixed = t.kills - t.earlier - t.new
        codes = ", ".join(map(str, sorted(t.codes)))
        row = (moment, number.name, t.kills, t.earlier, t.new, mixed, codes, t.left, t.cleaned)
        print(f"| {' | '.join(map(str, row))} |")
    faults = [f"- {moment}, {n.name}: {fault}" for (moment, n), t in sorted(tallies.items()) for fault in t.faults]
    print("\nNot right:\n" if faults else "\nEvery one as it should be.", *faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
