"""LUT sites of a Yosys netlist for Xilinx 7-series.

`stat -tech xilinx` undercounts carry-heavy logic: it pairs LUTs that feed CARRY4.S, each of which needs a site of its
own. Here every live carry bit is one site; the LUT that drives its DI input shares that site if both together have at
most five inputs. The remaining LUTs give a range: `high` with a site each, `low` with pairs combined that share an
input and have at most five inputs together. Shift-register LUTs count one site each, RAM32M and RAM64M
four. Not calibrated against the vendor's tool.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Inputs = frozenset[Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a netlist takes: LUT sites from `lut_low` to `lut_high`, flip-flops, DSP slices."""

    lut_low: int
    lut_high: int
    ff: int
    dsp: int


def usage(netlist: Path) -> Usage:
    """Counts the top module of a netlist written by `write_json`."""
    modules = json.loads(netlist.read_text())["modules"].values()
    cells = next(m for m in modules if m["attributes"].get("top"))["cells"].values()
    count = Counter(cell["type"] for cell in cells)
    luts = dict(_luts(cells))
    carry_sites, absorbed = _carry_sites(cells, luts)
    rest = [inputs for output, inputs in luts.items() if output not in absorbed]
    shift_registers = sum(n for kind, n in count.items() if kind.startswith("SRL"))
    memories = 4 * (count["RAM32M"] + count["RAM64M"])
    fixed = carry_sites + shift_registers + memories
    return Usage(
        lut_low=fixed + len(rest) - _pairs(rest),
        lut_high=fixed + len(rest),
        ff=sum(n for kind, n in count.items() if kind.startswith("FD")),
        dsp=count["DSP48E1"],
    )


def _luts(cells: Any) -> Any:
    """(output net, input nets) of every LUT; an inverter is a LUT with one input."""
    for cell in cells:
        pins = cell["connections"]
        if cell["type"] == "INV":
            yield pins["O"][0], frozenset(pins["I"])
        elif match := re.fullmatch(r"LUT([1-6])", cell["type"]):
            yield pins["O"][0], frozenset(pins[f"I{i}"][0] for i in range(int(match[1])))


def _carry_sites(cells: Any, luts: dict[Any, Inputs]) -> tuple[int, set[Any]]:
    """How many LUT sites the carry chains take, and the outputs of the LUTs that sit in them."""
    sites, absorbed = 0, set()
    for cell in cells:
        if cell["type"] != "CARRY4":
            continue
        for select, generate in zip(cell["connections"]["S"], cell["connections"]["DI"], strict=True):
            if isinstance(select, str):  # a constant needs no LUT
                continue
            sites += 1
            inputs: Inputs = frozenset([select])
            if select in luts and select not in absorbed:
                absorbed.add(select)
                inputs = luts[select]
            if generate in luts and generate not in absorbed and len(inputs | luts[generate]) <= 5:
                absorbed.add(generate)
    return sites, absorbed


def _pairs(luts: list[Inputs]) -> int:
    """Greedy: how many pairs of LUTs fit one site (O5 and O6), widest first, best shared partner first."""
    small = sorted((lut for lut in luts if len(lut) <= 5), key=len, reverse=True)
    users = defaultdict(set)
    for i, inputs in enumerate(small):
        for net in inputs:
            users[net].add(i)
    taken: set[int] = set()
    pairs = 0
    for i, inputs in enumerate(small):
        if i in taken:
            continue
        taken.add(i)
        partners = {j for net in inputs for j in users[net]} - taken
        fitting = [j for j in partners if len(inputs | small[j]) <= 5]
        if fitting:
            taken.add(max(fitting, key=lambda j: (len(inputs & small[j]), -len(inputs | small[j]), -j)))
            pairs += 1
    return pairs
