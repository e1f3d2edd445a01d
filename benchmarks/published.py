"""Our estimates next to published FPGA designs of MobileNetV1 and V2, as a markdown table.

python benchmarks/published.py [--target fpga-zc706] [--dsp 392] [--clock 200] [--versions 1,2] [--budget SECONDS]

The published designs run on the ZC706 at 200 MHz with 392 DSPs, two 8x8 products a DSP: 209 FPS for V1, 250 for V2.
Ours is held to the same clock and DSPs and to lanes on DSPs alone; it is an estimate, nothing was measured on a board.
A ratio near 1 is what to look for; the columns beside it say what makes it differ.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

from machine import heading
from measure import example, per_cent, timed

from nashc.board import load_board
from nashc.core.design import Design
from nashc.core.network import COMPUTE_UNITS
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.resources import fixed_dsp
from nashc.search.baselines import without_lut_macs
from nashc.search.solve import solve

PUBLISHED_FPS = {1: 209.0, 2: 250.0}
PRODUCTS_PER_DSP = 2
COLUMNS = (
    "network", "memory plan", "batch", "FPS", "published", "ratio", "bound FPS", "gap", "latency ms", "lanes",
    "peak GMAC/s", "utilisation", "DSP (not lanes)", "LUT", "BRAM36", "DRAM MB/image", "DRAM GB/s (of peak)",
    "search s", "stopped",
)  # fmt: skip


def conv_lanes(design: Design) -> int:
    """MACs a cycle of all arrays."""
    return sum(chunk.unroll.lanes for chunk in design.accelerator.chunks if chunk.unit in COMPUTE_UNITS)


def dram_bytes(design: Design) -> float:
    """DRAM traffic of one image, both directions."""
    bits = sum(layer.traffic.dram_read + layer.traffic.dram_write for layer in design.layers)
    return bits / 8 / design.accelerator.batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="fpga-zc706")
    parser.add_argument("--dsp", type=int, default=392)
    parser.add_argument("--clock", type=float, default=200.0, help="in MHz")
    parser.add_argument("--versions", default="1,2", help="of MobileNet")
    parser.add_argument("--budget", type=float, default=None, help="wall seconds of each search")
    args = parser.parse_args()
    board = without_lut_macs(replace(load_board(args.target), clock_mhz=args.clock))
    peak_gbps = board.dram_bytes_per_cycle * args.clock / 1e3
    print(heading(), "\n")
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" * len(COLUMNS) + "|")
    for version in map(int, args.versions.split(",")):
        network, published = example("mobilenet.py", "--version", str(version)), PUBLISHED_FPS[version]
        name = f"MobileNetV{version}, {network.macs / 1e6:.0f} MMAC"
        peak = args.dsp * PRODUCTS_PER_DSP * args.clock * 1e6
        roof = peak / network.macs
        row = [name, "peak of the DSPs", "-", f"{roof:.1f}", f"{published:g}", f"{roof / published:.2f}"]
        row += ["-"] * 3 + [str(args.dsp * PRODUCTS_PER_DSP), f"{peak / 1e9:.1f}", f"{1:.1%}", f"{args.dsp} (0)"]
        print("| " + " | ".join(row + ["-"] * (len(COLUMNS) - len(row))) + " |", flush=True)
        for plan in (True, False):
            for batch in (1, None):
                options = Options(batch=batch, max_dsp=args.dsp, memory_plan=plan, budget_seconds=args.budget)
                row = [name, "yes" if plan else "no"]
                try:
                    d, seconds = timed(partial(solve, network, board, options))
                except NashcError as error:
                    print(f"| {' | '.join(row)} | {batch or 'auto'} | {error} |", flush=True)
                    continue
                rate = conv_lanes(d) * args.clock * 1e6
                moved, bound = dram_bytes(d), d.certificate.bound
                beside = sum(fixed_dsp(board, chunk) for chunk in d.accelerator.chunks)
                gbps = moved * d.fps / 1e9
                row += [
                    f"{d.accelerator.batch}" + (" (auto)" if batch is None else ""),
                    f"{d.fps:.1f}", f"{published:g}", f"{d.fps / published:.2f}",
                    f"{args.clock * 1e6 / bound:.1f}" if bound else "-", per_cent(d.certificate.gap),
                    f"{d.latency_ms:.2f}", f"{conv_lanes(d)}", f"{rate / 1e9:.1f}",
                    f"{network.macs * d.fps / rate:.1%}", f"{d.resources.dsp} ({beside})", f"{d.resources.lut:,}",
                    f"{d.resources.bram18 / 2:g}", f"{moved / 1e6:.2f}", f"{gbps:.2f} ({gbps / peak_gbps:.0%})",
                    f"{seconds:.1f}", d.certificate.stopped,
                ]  # fmt: skip
                print("| " + " | ".join(row) + " |", flush=True)
    print(f"\nDRAM peak of the board: {peak_gbps:.1f} GB/s. Other DSPs than lanes requantise or serve the vector unit.")


if __name__ == "__main__":
    main()
