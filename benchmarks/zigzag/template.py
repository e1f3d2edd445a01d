"""The accelerator of the peers' runs, and in closed form what ZigZag 3.9.1 charges a mapping on it.

An R x C array; each PE has registers for inputs, weights and partial sums; one global buffer with a read and a write
port; DRAM with one shared port. This is no model of nashc's own chunk (double-buffered tiles, bursts): it is the
test-only template that gives both tools the same memories *and the same clock rules*, so that mappings are compared
and not models. The rules, with the names of ZigZag's source (cost_model.py, mapping.py, memory_allocator.py):

- each memory holds a prefix of the loops for each operand, as much as fits; the global buffer is shared out so that
  the fewest elements cross its upper side; loops on top that an operand does not depend on cost it no more room;
- every transfer link repeats with the period of the loops below it. It may use the whole period if the memory above
  half-empty can double-buffer, else only the part in which the data below is not in use;
- a port with one link stalls by what does not fit in that window; links of one port add up;
- first loads and last stores are paid outside, but for data moved only once, which fills bandwidth left over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from orders import DIMS, Orders, Spatial, all_orders, split

from nashc.core.loops import LoopNest

Floats = NDArray[np.float64]
"""Whole numbers below 2**53: divisions round as ZigZag's do, and are faster than those of int64."""

OPERAND_BITS = 8
FINAL_BITS = 8
OPERANDS = ("I", "W", "O")
IRRELEVANT = {"I": frozenset("k"), "W": frozenset({"oy", "ox"}), "O": frozenset({"c", "fy", "fx"})}
RELEVANT = {"I": frozenset("gc"), "W": frozenset({"g", "k", "c", "fy", "fx"}), "O": frozenset({"g", "k", "oy", "ox"})}
"""Loops that an operand does (not) depend on; the filter and pixel loops are neither for the inputs (halo)."""


@dataclass(frozen=True, slots=True)
class Template:
    """Sizes of the array and of the memories; one register file of each kind in every PE."""

    rows: int = 16
    columns: int = 16
    input_register_bits: int = 16 * 8
    weight_register_bits: int = 128 * 8
    output_registers: int = 16
    psum_bits: int = 32
    buffer_bits: int = 256 * 1024 * 8
    buffer_port_bits: int = 1024
    dram_bits_per_cycle: int = 64


ROOMY = Template()
TIGHT = replace(
    ROOMY,
    input_register_bits=8,
    weight_register_bits=8,
    output_registers=1,
    buffer_bits=32 * 1024 * 8,
    buffer_port_bits=256,
)
TEMPLATES = {"roomy": ROOMY, "tight": TIGHT}


def window(stride: int, outputs: Floats, taps: Floats) -> Floats:
    """Distinct input positions under all pairs of an output and a tap."""
    return outputs * taps - np.maximum(0, taps - stride) * (outputs - 1)


@dataclass(frozen=True, slots=True)
class States:
    """One unrolling of a layer: its loops as (dim, factor, how often), their orders, and tables over the states.

    table [11, states]: see `_tables`; totals: cycles without stalls; elements of I, W, O that the array takes at
    once; whether it sums; iterations of reduction loops.
    """

    kinds: tuple[tuple[str, int, int], ...]
    orders: Orders
    table: Floats
    totals: list[float]

    @staticmethod
    def of(nest: LoopNest, spatial: Spatial, limit: int) -> States:
        kinds = split(spatial.left, limit)
        orders = all_orders(tuple(count for _, _, count in kinds))
        table = _tables(nest, spatial, kinds, orders.inside)
        totals = [table[0, -1], *table[4:7, 0], float(spatial.unroll.reduction > 1), table[7, -1]]
        return States(kinds, orders, table, totals)


@dataclass(frozen=True, slots=True)
class Nests:
    """All orders of all given unrollings of one layer side by side, one a column, padded to equally many loops.

    spatial, column: which unrolling, and which of its orders; states [loops + 1, columns]; marks [columns]: for each
    operand a byte whose bit i says that the operand does not depend on loop i from inside, then for each a byte that
    says that it does, padding counts as both; tables, totals: those of all unrollings.
    """

    spatial: NDArray[np.int64]
    column: NDArray[np.int64]
    states: NDArray[np.int64]
    marks: NDArray[np.int64]
    tables: Floats
    totals: Floats

    @staticmethod
    def of(states: list[States]) -> Nests:
        depth = max(len(s.orders.kinds) for s in states)
        blocks, marks, sizes, start = [], [], [], 0
        for found in states:
            loops, width = found.orders.kinds.shape
            block = np.empty((depth + 1, width), dtype=np.int64)
            np.add(found.orders.states, start, out=block[: loops + 1])
            block[loops + 1 :] = block[loops]
            blocks.append(block)
            padding = sum(0x010101010101 << p for p in range(loops, depth))
            mark = np.array([_mark(dim) for dim, _, _ in found.kinds], dtype=np.int64)
            marks.append((mark[found.orders.kinds] << np.arange(loops)[:, None]).sum(axis=0) + padding)
            sizes.append(width)
            start += found.table.shape[1]
        return Nests(
            np.repeat(np.arange(len(states)), sizes),
            np.concatenate([np.arange(n) for n in sizes]),
            np.concatenate(blocks, axis=1),
            np.concatenate(marks),
            np.concatenate([s.table for s in states], axis=1),
            np.array([s.totals for s in states], dtype=np.float64).T.copy(),
        )

    def take(self, index: NDArray[np.int64]) -> Nests:
        """Some of the columns."""
        return replace(
            self,
            spatial=self.spatial[index],
            column=self.column[index],
            states=self.states[:, index],
            marks=self.marks[index],
        )


@lru_cache(maxsize=64)
def _mark(dim: str) -> int:
    bits = [dim in table[op] for table in (IRRELEVANT, RELEVANT) for op in OPERANDS]
    return sum(bit << 8 * i for i, bit in enumerate(bits))


def _tables(nest: LoopNest, spatial: Spatial, kinds: tuple[tuple[str, int, int], ...], inside: NDArray) -> Floats:
    """[11, states]: iterations; elements of I, W, O in a PE; in the array; reduction iterations; room of I, W, O.

    The room in the global buffer is that of the elements in the array, but for truncated unrollings, for which
    ZigZag takes the room of all channels.
    """
    one = np.ones(inside.shape[1])
    time = dict.fromkeys(DIMS, one)
    for (dim, factor, _), count in zip(kinds, inside, strict=True):
        time[dim] = time[dim] * np.float64(factor) ** count
    unroll = spatial.unroll
    both = {dim: time[dim] * getattr(unroll, dim) for dim in DIMS}
    reduction = time["c"] * time["fy"] * time["fx"]
    pixels = time["oy"] * time["ox"]
    iterations = time["g"] * time["k"] * pixels * reduction
    elements = _elements(nest, both)
    room = elements
    if spatial.computed != 1:
        cut = spatial.axes[0][0]
        room = _elements(nest, {**both, cut: both[cut] / float(spatial.computed)})
    return np.array([iterations, *_elements(nest, time), *elements, reduction, *room])


def _elements(nest: LoopNest, size: dict[str, Floats]) -> list[Floats]:
    """Elements of I, W, O under loops of these sizes."""
    span = size["g"] * size["c"]
    for axis, (outputs, taps, real) in enumerate((("oy", "fy", nest.iy), ("ox", "fx", nest.ix))):
        stride = nest.stride[axis]
        whole = window(stride, np.float64(getattr(nest, outputs)), np.float64(getattr(nest, taps)))
        most = real if any(nest.pad) else whole
        span = span * np.minimum(most, window(stride, size[outputs], size[taps]))
    channels = size["g"] * size["k"]
    return [span, channels * size["c"] * size["fy"] * size["fx"], channels * size["oy"] * size["ox"]]
