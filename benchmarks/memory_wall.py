"""The table of "the memory wall": one network, multiplication-only and hybrid, with and without a memory plan.

python benchmarks/memory_wall.py [--target fpga-zc706] [--budget SECONDS]

The 21-block network of examples/nasa_f_network.py; each cell is the design that the search found, FPS (gap).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

from machine import heading
from measure import example, per_cent, timed

from nashc.board import Board, load_board
from nashc.core.network import Network, Unit
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.search.baselines import without_lut_macs
from nashc.search.solve import solve

CASES = {
    "no plan, batch 1": Options(batch=1, memory_plan=False),
    "plan, batch 1": Options(batch=1),
    "no plan, auto": Options(memory_plan=False),
    "plan, auto": Options(),
}


def four_bit(network: Network) -> Network:
    """The network with 4-bit convolution weights."""
    layers = tuple(
        replace(x, weights=replace(x.weights, bits=4)) if x.unit is Unit.CONV and x.weights else x
        for x in network.layers
    )
    return replace(network, layers=layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="fpga-zc706")
    parser.add_argument("--budget", type=float, default=None)
    args = parser.parse_args()
    board = load_board(args.target)
    plain, hybrid = (example("nasa_f_network.py", "--mix", mix) for mix in ("conv", "hybrid"))
    rows: dict[str, tuple[Network, Board]] = {
        "conv 8 bit, DSPs only": (plain, without_lut_macs(board)),
        "conv 8 bit, DSPs and LUTs": (plain, board),
        "conv 4 bit, DSPs and LUTs": (four_bit(plain), board),
        "hybrid, a third each": (hybrid, board),
    }
    print(heading(), "\n")
    print(
        f"{plain.macs / 1e6:.1f} MMAC, {sum(x.nest.weights for x in plain.layers if x.weights) / 1e6:.2f} M weights\n"
    )
    print(f"| FPS on {args.target} (proven gap; search s) | " + " | ".join(CASES) + " |")
    print("|---" * (1 + len(CASES)) + "|")
    for name, (network, target) in rows.items():
        cells = []
        for options in CASES.values():
            try:
                d, seconds = timed(partial(solve, network, target, replace(options, budget_seconds=args.budget)))
            except NashcError as error:
                cells.append(str(error))
                continue
            batch, gap = d.accelerator.batch, per_cent(d.certificate.gap)
            cells.append(f"{d.fps:,.0f}, {d.gops:,.0f} GOPS, batch {batch} ({gap}; {seconds:.0f})")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
