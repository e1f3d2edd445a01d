"""Time of our whole search next to NASA-F's, for its 21-block network, as a markdown table.

python benchmarks/nasa_time.py [--target fpga-zc706] [--mixes conv,hybrid] [--budget SECONDS]

NASA-F's mapping search takes 194 s for such a network: it enumerates the tilings (exact divisors) of its one
accelerator, 168 PEs at 250 MHz, row-stationary dataflow only, layers without stem, head, shortcuts and classifier.
Ours covers every layer and chooses unrollings, buffers, memory, batch, memory plan, schedule and mappings in all
dataflows together. The 194 s are not of this run, and speed and energy are of different machines: no comparison.
"""

from __future__ import annotations

import argparse
from functools import partial

from machine import heading
from measure import counted, example, per_cent, timed

from nashc.board import load_board
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.search.solve import solve

NASA_F_SECONDS, NASA_F_MJ, NASA_F_MS = 194.0, 0.134, 1.447
COLUMNS = (
    "search", "network", "layers", "accelerators in the space", "search s", "NASA-F / ours", "FPS", "batch",
    "latency ms", "mJ/image", "gap", "refined", "stopped",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="fpga-zc706")
    parser.add_argument("--mixes", default="conv,hybrid", help="of examples/nasa_f_network.py")
    parser.add_argument("--budget", type=float, default=None, help="wall seconds of each search")
    args = parser.parse_args()
    board = load_board(args.target)
    print(heading(), "\n")
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" * len(COLUMNS) + "|")
    row = ["NASA-F, 168 PEs at 250 MHz", "21 blocks", "-", "1", f"{NASA_F_SECONDS:.0f}", "1.0", "-", "1"]
    print("| " + " | ".join([*row, f"{NASA_F_MS}", f"{NASA_F_MJ}", "-", "-", "exhausted"]) + " |")
    for mix in args.mixes.split(","):
        network = example("nasa_f_network.py", "--mix", mix)
        for batch in (1, None):
            row = [f"nashc, {args.target}, batch {batch or 'auto'}", mix, str(len(network.layers))]
            options = Options(batch=batch, budget_seconds=args.budget)
            try:
                d, seconds = timed(partial(solve, network, board, options))
            except NashcError as error:
                print(f"| {' | '.join(row)} | {error} |", flush=True)
                continue
            row += [
                counted(d.certificate.space), f"{seconds:.1f}", f"{NASA_F_SECONDS / seconds:.1f}", f"{d.fps:,.0f}",
                str(d.accelerator.batch), f"{d.latency_ms:.3f}", f"{d.energy_pj / d.accelerator.batch / 1e9:.3f}",
                per_cent(d.certificate.gap), str(d.certificate.refined), d.certificate.stopped,
            ]  # fmt: skip
            print("| " + " | ".join(row) + " |", flush=True)
    print(
        f"\nNASA-F's {NASA_F_SECONDS:.0f} s cover the tilings of one given accelerator in one dataflow; ours cover the "
        "accelerators of the space, their memory plans and schedules, and all dataflows, with a proven bound."
    )


if __name__ == "__main__":
    main()
