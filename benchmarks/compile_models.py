"""Compile every real model on every board: FPS, certificate and search time, as a markdown table.

python benchmarks/compile_models.py MODELS_DIR [--boards fpga-zc706,...] [--models NAME,...] [--budget SECONDS]

MODELS_DIR is what examples/fetch_models.py fills. One process; search s are CPU seconds of the search alone,
which starts each time with empty memos.
"""

from __future__ import annotations

import argparse
import resource
from functools import partial
from pathlib import Path

from machine import heading
from measure import per_cent, timed

from nashc.board import board_names, load_board
from nashc.core.network import COMPUTE_UNITS, Unit
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.importer import import_model
from nashc.search.solve import solve

SHAPES = {
    "pp-lcnet-orientation": {"x": (1, 3, 224, 224)},
    "text-cls": {"x": (1, 3, 48, 192)},
    "centerface": {"input.1": (1, 3, 480, 640)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--boards", default=",".join(board_names()))
    parser.add_argument("--models", default="")
    parser.add_argument("--budget", type=float, default=None)
    args = parser.parse_args()
    print(heading(), "\n")
    print("| model | board | MMAC | layers (conv, vector, host) | FPS | batch | GOPS | latency ms | gap | LUT | DSP | "
          "BRAM36 | on chip | pinned | search s | stopped |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for path in sorted(args.folder.glob("*.onnx"), key=lambda p: p.stat().st_size):
        if args.models and path.stem not in args.models.split(","):
            continue
        network = import_model(path, SHAPES.get(path.stem, {})).network
        units = [layer.unit for layer in network.layers]
        counts = (sum(u in COMPUTE_UNITS for u in units), units.count(Unit.VECTOR), units.count(Unit.HOST))
        for name in args.boards.split(","):
            options = Options(budget_seconds=args.budget)
            try:
                d, seconds = timed(partial(solve, network, load_board(name), options))
            except NashcError as error:
                print(f"| {path.stem} | {name} | {network.macs / 1e6:.1f} | {counts} | {error} |", flush=True)
                continue
            gap = per_cent(d.certificate.gap)
            chip = f"{len(d.plan.resident)}/{len(network.producers)} | {len(d.plan.pinned)}"
            print(
                f"| {path.stem} | {name} | {network.macs / 1e6:.1f} | {counts} | "
                f"{d.fps:,.1f} | {d.accelerator.batch} | {d.gops:,.1f} | {d.latency_ms:.2f} | {gap} | "
                f"{d.resources.lut:,} | {d.resources.dsp} | {d.resources.bram18 / 2:g} | {chip} | "
                f"{seconds:.1f} | {d.certificate.stopped} |",
                flush=True,
            )
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
