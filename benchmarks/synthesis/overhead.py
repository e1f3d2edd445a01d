"""Measures what a chunk costs beyond its lanes: `chunk.sv` with N x N lanes, less N of its dot products.

    python benchmarks/synthesis/overhead.py [--jobs J]        # about five minutes on two cores

prints LUT low..high and FF of the remainder (control, DMA, accumulators, requantise) for 4, 8 and 16 output lanes. FF
is meaningful on DSPs only: elsewhere the dot products share operand registers, and the remainder is understated.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sites import Usage, usage
from synth import HERE, synthesise

# operator of chunk.sv, weight bits, on DSPs
OPERATORS = {"dsp": (0, 8, True), "lut8x8": (0, 8, False), "shift": (1, 4, False), "adder": (2, 8, False)}
SIZES = (4, 8, 16)


def remainder(kind: str, size: int, folder: Path) -> Usage:
    """The chunk of `size` x `size` lanes less `size` dot products of `size` lanes, end of range by end of range."""
    op, weight_bits, dsp = OPERATORS[kind]
    parameters = {"OP": op, "WW": weight_bits, "P": size}

    def used(top: str, **more: int) -> Usage:
        stem = folder / f"{top}_{kind}_{size}"
        return usage(synthesise(stem, HERE / "chunk.sv", top, parameters | more, dsp=dsp))

    chunk, dot = used("chunk", Q=size), used("dot")
    return Usage(
        lut_low=chunk.lut_low - size * dot.lut_low,
        lut_high=chunk.lut_high - size * dot.lut_high,
        ff=chunk.ff - size * dot.ff,
        dsp=chunk.dsp - size * dot.dsp,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    jobs = parser.parse_args().jobs
    cases = [(kind, size) for kind in OPERATORS for size in SIZES]
    print(f"{'chunk less its lanes':24} {'LUT':>13} {'FF':>6} {'DSP':>4}")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        work = pool.map(lambda case: remainder(case[0], case[1], Path(folder)), cases)
        for (kind, size), left in zip(cases, work, strict=True):
            name = f"{kind} {size}x{size}"
            print(f"{name:24} {left.lut_low:5d} ..{left.lut_high:6d} {left.ff:6d} {left.dsp:4d}", flush=True)


if __name__ == "__main__":
    main()
