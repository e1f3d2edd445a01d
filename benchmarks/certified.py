"""One model on one core: time and memory of a certified answer, of further ones, and of the mapping search alone.

python benchmarks/certified.py MODEL [--target fpga-zc706] [--clocks 150,250] [--budget SECONDS] [--repeat 5]

The figures come from a fresh process on one core, with one thread in every library. Its first search starts cold; the
others follow in the same process and keep its memos, as in a session that tries objectives and clocks. Peak memory is
that of the process so far (ru_maxrss). The last table times the exact mapping search alone, memos emptied before each
of its runs: every distinct layer on the chunk that it has in the first design, at that design's memory plan, and at
several placements of its operands.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

from machine import heading
from measure import counted, forget, per_cent

from nashc.board import Board, load_board
from nashc.core.design import Buffers, Design, Placement, Work
from nashc.core.loops import Unroll
from nashc.core.network import Network
from nashc.core.options import OBJECTIVES, Options
from nashc.errors import NashcError
from nashc.hw.machine import Machine
from nashc.hw.resources import machine_of
from nashc.importer import import_model
from nashc.search.compiled import library
from nashc.search.mapping import best_mapping
from nashc.search.solve import solve
from nashc.search.space import work_of

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
COLUMNS = (
    "run", "CPU s", "peak MiB", "FPS", "batch", "latency ms", "mJ/image", "value", "bound", "gap", "space", "refined",
    "stopped",
)  # fmt: skip
UNITS = {"fps": "cycles/image", "latency": "cycles", "energy": "pJ/image", "edp": "pJ ms/image"}
SEVERAL = "plan, all in DRAM, all on chip, weights pinned, feature maps on chip"
Problem = tuple[Work, Unroll, Buffers, int, Machine, Placement]
"""What `best_mapping` is asked."""


def fresh_process() -> int:
    """This command in a process of its own on one core; its exit status."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    command = [sys.executable, *sys.argv, "--here"]
    return subprocess.run(command, env={**os.environ, **ONE_THREAD}, check=False).returncode


def searches(network: Network, board: Board, clocks: str, budget: float | None) -> Design | None:
    """Print a row for each search; the design of the first one."""
    first: Design | None = None
    cases = {f"{o}, memos kept" if o != "fps" else "fps, cold": Options(o, budget_seconds=budget) for o in OBJECTIVES}
    for clock in filter(None, clocks.split(",")):
        cases[f"fps at {clock} MHz, memos kept"] = Options(clock_mhz=float(clock), budget_seconds=budget)
    for name, options in cases.items():
        begin = time.process_time()
        try:
            d = solve(network, board, options)
        except NashcError as error:
            print(f"| {name} | {error} |", flush=True)
            continue
        seconds, c = time.process_time() - begin, d.certificate
        row = [
            name, f"{seconds:.2f}", peak_mib(), f"{d.fps:,.1f}", str(d.accelerator.batch), f"{d.latency_ms:.3f}",
            f"{d.energy_pj / d.accelerator.batch / 1e9:.3f}", f"{c.value:.5g} {UNITS[c.objective]}", f"{c.bound:.5g}",
            per_cent(c.gap), counted(c.space), str(c.refined), c.stopped,
        ]  # fmt: skip
        print("| " + " | ".join(row) + " |", flush=True)
        first = first or d
    return first


def peak_mib() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}"


def placements(planned: Placement) -> Iterator[Placement]:
    """The placement of the plan, then those that SEVERAL names."""
    yield planned
    for maps, weights in ((False, False), (True, True), (False, True), (True, False)):
        yield Placement((maps,) * len(planned.inputs), maps, weights)


def problems(design: Design, board: Board, *, several: bool) -> list[Problem]:
    """The distinct mapping searches of a design's layers on their chunks."""
    machine = machine_of(board)
    found: dict[Problem, None] = {}
    for layer, result in zip(design.network.layers, design.layers, strict=True):
        if result.chunk < 0:
            continue
        chunk, work = design.accelerator.chunks[result.chunk], work_of(design.network, layer, design.accelerator.batch)
        own = replace(machine, post_lanes=chunk.post_lanes)
        for placement in placements(result.placement) if several else (result.placement,):
            found[work, chunk.unroll, chunk.buffers, chunk.dram_bits, own, placement] = None
    return list(found)


def mapping_search(design: Design, board: Board, repeat: int) -> None:
    """Print the time of the exact mapping search alone, the median of `repeat` runs."""
    print(f"\nmapping search ({'NumPy' if library() is None else 'compiled'}) of the first design's accelerator\n")
    print("| placements | searches | mappings | priced exactly | CPU s | mappings a second |")
    print("|---|---|---|---|---|---|")
    for title, several in (("plan", False), (SEVERAL, True)):
        asked, times = problems(design, board, several=several), []
        for _ in range(repeat):
            forget()
            begin = time.process_time()
            found = [best_mapping(*problem) for problem in asked]
            times.append(time.process_time() - begin)
        considered = sum(best.considered for best in found if best)
        exact, seconds = sum(best.exact for best in found if best), median(times)
        print(f"| {title} | {len(asked)} | {considered:,} | {exact:,} | {seconds:.4f} | {considered / seconds:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--target", default="fpga-zc706")
    parser.add_argument("--clocks", default="150,250", help="in MHz, of further searches; none: ''")
    parser.add_argument("--budget", type=float, default=None, help="wall seconds of each search")
    parser.add_argument("--repeat", type=int, default=5, help="runs of the mapping search (default: 5)")
    parser.add_argument("--here", action="store_true", help="in this process, without its heading")
    args = parser.parse_args()
    if not args.here:
        print(heading(), "\n", flush=True)
        sys.exit(fresh_process())
    network, board = import_model(args.model).network, load_board(args.target)
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" * len(COLUMNS) + "|")
    started = ["start and import", f"{time.process_time():.2f}", peak_mib()]
    print("| " + " | ".join(started + ["-"] * (len(COLUMNS) - len(started))) + " |", flush=True)
    design = searches(network, board, args.clocks, args.budget)
    if design is not None:
        mapping_search(design, board, args.repeat)


if __name__ == "__main__":
    main()
