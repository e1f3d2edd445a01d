"""Measures what the board files state of each lane: LUT sites, flip-flops and DSPs, by Yosys for Xilinx 7-series.

    pip install pyosys            # 0.70 gave the figures of targets/families; --check also needs iverilog
    python benchmarks/synthesis/synth.py [--check] [LANE ...]

prints one line a netlist, per lane: LUT low..high (with..without combining the remaining LUTs), FF, DSP. `--check`
simulates every netlist against the arithmetic of lanes.py.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from lanes import LANES, Lane
from sites import Usage, usage

HERE = Path(__file__).resolve().parent


def synthesise(
    stem: Path, source: Path, top: str, parameters: Mapping[str, int], *, dsp: bool, options: str = ""
) -> Path:
    """Runs synth_xilinx on one module; returns the JSON netlist, with the same netlist as Verilog next to it."""
    chosen = "".join(f" -chparam {key} {value}" for key, value in parameters.items())
    options = f"{options} -flatten -noiopad -noclkbuf {'' if dsp else '-nodsp'}"
    commands = [
        f"read_verilog -sv {source}",
        f"hierarchy -top {top}{chosen}",
        f"synth_xilinx -family xc7 {options} -top {top}",
        f"rename -top {top}",
        f"write_json {stem}.json",
        f"write_verilog -noattr {stem}.v",
    ]
    stem.with_suffix(".ys").write_text("\n".join(commands) + "\n")
    code = f"from pyosys import libyosys as y; y.Design().run_pass('tee -q script {stem}.ys')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode or not stem.with_suffix(".json").exists():
        raise RuntimeError(f"{stem.name}: {(done.stdout + done.stderr)[-800:]}")
    return stem.with_suffix(".json")


def netlist_agrees(lane: Lane, netlist: Path, words: int = 400) -> bool:
    """Plays random operands through the Verilog netlist in Icarus Verilog."""
    import pyosys  # noqa: PLC0415  only for the simulation models that come with it

    cells = Path(pyosys.__file__).parent / "share" / "xilinx" / "cells_sim.v"
    stimulus = lane.stimulus(words)
    words_file, program = netlist.with_suffix(".hex"), netlist.with_suffix(".vvp")
    words_file.write_text("\n".join(f"{x << lane.w_bits | w:x}" for x, w in stimulus))
    defines = {
        "TOP": lane.top, "PARAMS": "", "X": lane.x_bits, "W": lane.w_bits, "Y": lane.y_bits,
        "COUNT": len(stimulus), "STIMULUS": f'"{words_file}"',
    }  # fmt: skip
    compile_ = ["iverilog", "-g2012", "-s", "check", "-o", str(program)]
    compile_ += [f"-D{key}={value}" for key, value in defines.items()]
    subprocess.run([*compile_, str(HERE / "check.sv"), str(netlist.with_suffix(".v")), str(cells)], check=True)
    lines = subprocess.run(["vvp", str(program)], capture_output=True, text=True, check=True).stdout.split()
    outputs = [int(line, 16) if set(line) <= set("0123456789abcdef") else -1 for line in lines]
    return lane.agrees(stimulus, outputs)


def measure(lane: Lane, folder: Path, check: bool) -> tuple[Usage, str]:
    stem = folder / lane.name.replace(" ", "_")
    source = HERE / "lanes.sv"
    netlist = synthesise(stem, source, lane.top, lane.parameters, dsp=lane.dsp, options=lane.options)
    verdict = "" if not check else "agrees" if netlist_agrees(lane, netlist) else "WRONG"
    return usage(netlist), verdict


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lanes", nargs="*", metavar="LANE", help="only lanes whose name starts so")
    parser.add_argument("--check", action="store_true", help="simulate the netlists")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    chosen = [lane for lane in LANES if lane.name.startswith(tuple(arguments.lanes) or "")]
    print(f"{'per lane':20} {'LUT':>13} {'FF':>6} {'DSP':>5}")
    wrong = 0
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool,
    ):
        # lanes hold lambdas, so a worker gets the index
        indices = [LANES.index(lane) for lane in chosen]
        work = partial(_measure_index, folder=Path(folder), check=arguments.check)
        for lane, (used, verdict) in zip(chosen, pool.map(work, indices), strict=True):
            low, high, ff, dsp = (n / lane.count for n in (used.lut_low, used.lut_high, used.ff, used.dsp))
            print(f"{lane.name:20} {low:5.1f} ..{high:6.1f} {ff:6.1f} {dsp:5.2f} {verdict}", flush=True)
            wrong += verdict == "WRONG"
    return 1 if wrong else 0


def _measure_index(index: int, folder: Path, check: bool) -> tuple[Usage, str]:
    return measure(LANES[index], folder, check)


if __name__ == "__main__":
    sys.exit(main())
