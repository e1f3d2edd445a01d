"""Cycles of one layer on its chunk: the closed form of the template's schedule, vectorised over mappings.

Tiles run in slots. In slot i the array computes tile i while the DMA loads what tile i+1 needs and has not got and
stores tile i-1 if its outputs are complete or must make room; slot -1 only loads, slot T only stores. A slot ends when
its slowest part ends:

    slot(i) = max(compute(i), DRAM load(i+1) + DRAM store(i-1), port loads(i+1), port store(i-1), post(i-1)) + overhead
    cycles  = layer overhead + sum of slot(i) over i = -1 .. T

compute(i) holds the issue cycles and the array's fill and drain. The cost of a slot depends only on the sizes of three
neighbouring tiles, so along each loop at most five positions differ (first, second, middle, next to last, last), and
the sum over all slots is a weighted sum over their products. tests/hw/simulator.py walks the same schedule step by
step; both agree to the cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nashc.core.design import Placement, Work
from nashc.core.loops import Unroll
from nashc.core.number import Ints, ceil_div, ceil_log2
from nashc.hw.dataflows import INPUT_DIMS, OUTPUT_DIMS, WEIGHT_DIMS, Dataflow
from nashc.hw.machine import CHANNEL_BLOCK, PARTIAL_SUM_BITS, Machine
from nashc.hw.tiles import Extent, Extents, Tiles, weight_tile_bits


@dataclass(frozen=True, slots=True)
class Site:
    """Where a work runs: the chunk's array and DRAM share, the template, and where the operands are."""

    unroll: Unroll
    dram_bits: int
    machine: Machine
    placement: Placement


ONE = np.ones(1, dtype=np.int64)

QUANTITIES = {"n": "n", "g": "g", "k": "k", "c": "c", "oy": "oy", "ox": "ox", "iy": "oy", "ix": "ox"}
"""Tile sizes that costs depend on, each with the loop that changes it."""

Values = dict[str, Ints]
"""Quantity -> its value at some tile; arrays broadcast over (mapping, position of each active loop)."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """One quantity along its loop: values at each position, at the next tile and at the one before; [mappings, P]."""

    here: Ints
    after: Ints
    before: Ints


def layer_cycles(work: Work, site: Site, tiles: Tiles, flow: Dataflow) -> Ints:
    """Cycles of the layer for each mapping, all with the same dataflow."""
    extents = Extents.of(work, tiles)
    active = np.stack([getattr(extents, d).count > 1 for d in flow.loops])
    signature = (active * (1 << np.arange(6))[:, None]).sum(axis=0)
    cycles = np.zeros(len(tiles), dtype=np.int64)
    for code in np.unique(signature):
        chosen = np.flatnonzero(signature == code)
        loops = tuple(d for bit, d in enumerate(flow.loops) if code >> bit & 1)
        cycles[chosen] = _Schedule(work, site, extents.take(chosen), loops).cycles()
    return cycles


def exposed_cycles(work: Work, site: Site, extents: Extents) -> Ints:
    """Cycles of the first load and of the last store, in which the array stands still."""
    schedule = _Schedule(work, site, extents, ())
    last = {q: _last(getattr(extents, q)) for q in QUANTITIES}
    return _longest(schedule.load_ports(schedule.fixed)) + _longest(schedule.store_ports(last))


def first_load(work: Work, site: Site, extents: Extents) -> Ints:
    """Cycles of slot -1 without its overhead."""
    schedule = _Schedule(work, site, extents, ())
    return _longest(schedule.load_ports(schedule.fixed))


def issue_cycles(work: Work, site: Site, tile: Values) -> Ints:
    """Cycles in which the array works on one tile.

    Each pass computes one output per accumulator: it takes operands for the whole reduction of the tile while the
    results of the pass before it drain into the output buffer, `post_lanes` a cycle.
    """
    unroll = site.unroll
    reduction = ceil_div(tile["c"], unroll.c) * reduction_taps(work, unroll)
    cycles = tile["n"] * np.maximum(reduction, drain_cycles(site.machine, unroll))
    for d in ("g", "k", "oy", "ox"):
        cycles = cycles * ceil_div(tile[d], getattr(unroll, d))
    return cycles


def reduction_taps(work: Work, unroll: Unroll) -> int:
    """Cycles of a pass for each group of input channels: filter taps and terms that are not unrolled."""
    return ceil_div(work.nest.fy, unroll.fy) * ceil_div(work.nest.fx, unroll.fx) * work.terms


def drain_cycles(machine: Machine, unroll: Unroll) -> int:
    """Cycles to move one pass's results out of the array."""
    return ceil_div(unroll.outputs, post_lanes(machine, unroll))


def array_depth(machine: Machine, unroll: Unroll) -> int:
    """Cycles from the last operand into the array to its result in the output buffer."""
    return machine.pipeline_depth + ceil_log2(unroll.reduction)


def post_lanes(machine: Machine, unroll: Unroll) -> int:
    return min(machine.post_lanes, unroll.outputs)


def map_runs(
    channels: Ints, rows: Ints, columns: Ints, shape: tuple[int, int], bits: int, scattered: bool = False
) -> list[tuple[Ints, Ints]]:
    """Contiguous runs of a region of a feature map, as (number, bits of each) pairs, for one image.

    The map has `shape` rows and columns; the region starts at a channel block and ends at one or with the map.
    """
    blocks, rest = channels // CHANNEL_BLOCK, channels % CHANNEL_BLOCK
    pixels = rows * columns
    if scattered:
        return [(pixels * blocks, np.full(1, CHANNEL_BLOCK * bits)), (pixels * (rest > 0), rest * bits)]
    wide = columns == shape[1]
    whole = wide & (rows == shape[0])
    lines = np.where(wide, 1, rows)
    length = np.where(wide, pixels, columns) * bits
    return [
        (np.where(whole, 0, lines * blocks), length * CHANNEL_BLOCK),
        (np.where(whole, 1, lines * (rest > 0)), np.where(whole, pixels * channels * bits, length * rest)),
    ]


def run_cycles(bits: Ints, machine: Machine, dram_bits: int) -> Ints:
    """DRAM cycles of one contiguous run behind others: its bursts, each held up by its beats or by the latency."""

    def burst(size: Ints) -> Ints:
        beats = ceil_div(size, dram_bits)
        return np.maximum(
            beats + machine.burst_overhead, ceil_div(beats + machine.burst_latency, machine.bursts_in_flight)
        )

    rest = bits % machine.burst_bits
    cycles: Ints = bits // machine.burst_bits * burst(machine.burst_bits * ONE) + (rest > 0) * burst(rest)
    return cycles


class _Schedule:
    """The slots of all mappings whose active loops (more than one tile) are `loops`, outermost first."""

    def __init__(self, work: Work, site: Site, extents: Extents, loops: tuple[str, ...]) -> None:
        self.work, self.site, self.machine, self.loops = work, site, site.machine, loops
        self.axes: dict[str, _Axis] = {}
        self.fixed: dict[str, Ints] = {}
        self.weights: list[Ints] = []
        for loop in loops:
            extent: Extent = getattr(extents, loop)
            self.weights.append(_weights(extent.count, pixel=loop in ("oy", "ox")))
        for quantity, loop in QUANTITIES.items():
            extent = getattr(extents, quantity)
            if loop in loops:
                self.axes[quantity] = _axis(extent, pixel=loop in ("oy", "ox"))
            else:
                self.fixed[quantity] = extent.first

    def cycles(self) -> Ints:
        rank = len(self.loops)
        first = self._corner(lambda a: a.here[:, 0])
        last = self._corner(lambda a: a.here[:, -1])
        edges = _longest(self.load_ports(first)) + _longest(self.store_ports(last))
        compute = issue_cycles(self.work, self.site, self._values(lambda a, _: a.here, rank))
        compute = compute + array_depth(self.machine, self.site.unroll)
        grid = np.broadcast_to(compute, (compute.shape[0], *(w.shape[1] for w in self.weights)))
        ports = np.zeros((5, *grid.shape), dtype=np.int64)
        for level in range(rank):
            behind = (slice(None),) * (level + 1)
            load = self._load(self._values(_at_next(level), rank), level)
            ports[(slice(None), *behind, slice(None, -1), *(slice(-1, None),) * (rank - level - 1))] += load
            store = self._store(self._values(_at_last(level), rank), level)
            ports[(slice(None), *behind, slice(1, None), *(slice(0, 1),) * (rank - level - 1))] += store
        slots = np.maximum(grid, ports.max(axis=0)) + self.machine.step_overhead
        for level, weight in reversed(list(enumerate(self.weights))):
            slots = (slots * weight.reshape(weight.shape[0], *(1,) * level, weight.shape[1])).sum(axis=-1)
        cycles: Ints = slots + edges + 2 * self.machine.step_overhead + self.machine.layer_overhead
        return cycles

    def load_ports(self, first: Values) -> Ints:
        """Port cycles of slot -1."""
        return self._load(first, -1)

    def store_ports(self, last: Values) -> Ints:
        """Port cycles of slot T."""
        return self._store(last, -1)

    def _corner(self, pick: Callable[[_Axis], Ints]) -> Values:
        return {**self.fixed, **{q: pick(a) for q, a in self.axes.items()}}

    def _values(self, pick: Callable[[_Axis, int], Ints], rank: int) -> Values:
        """Quantities broadcast over (mapping, positions); `pick` chooses by the level of the quantity's loop."""
        values = {q: v.reshape(-1, *(1,) * rank) for q, v in self.fixed.items()}
        for quantity, axis in self.axes.items():
            level = self.loops.index(QUANTITIES[quantity])
            chosen = pick(axis, level)
            values[quantity] = chosen.reshape(len(chosen), *(1,) * level, -1, *(1,) * (rank - level - 1))
        return values

    def _changes(self, dims: frozenset[str], level: int) -> bool:
        """Whether an operand over `dims` moves on when the loop at `level` steps and all inner ones start again."""
        return level < 0 or any(d in dims for d in self.loops[level:])

    def _c_mask(self, level: int, rank: int, *, at: int, carried: bool, inner: bool) -> Ints | bool:
        """Whether the c loop stands at its first (at=0) or last (at=-1) tile in the neighbour that is moved to.

        `carried` is the answer when c itself steps, `inner` when it starts again; without a c loop it is always so.
        """
        if "c" not in self.loops or level < 0:
            return True
        depth = self.loops.index("c")
        if depth == level:
            return carried
        if depth > level:
            return inner
        mask = np.zeros((1, *(1,) * depth, self.weights[depth].shape[1], *(1,) * (rank - depth - 1)), dtype=np.int64)
        mask.reshape(-1)[at] = 1
        return mask

    def _load(self, tile: Values, rank: int) -> Ints:
        """Port cycles to load what `tile` needs when the loop at level `rank` stepped; rank -1 loads everything."""
        work, site, nest = self.work, self.site, self.work.nest
        shape = np.broadcast_shapes(*(v.shape for v in tile.values()))
        ports = np.zeros((5, *shape), dtype=np.int64)
        dram, read, weight = ports[0], ports[1], ports[2]
        if self._changes(INPUT_DIMS, rank):
            runs = map_runs(tile["g"] * tile["c"], tile["iy"], tile["ix"], (nest.iy, nest.ix), work.input_bits)
            self._move(runs, tile["n"], site.placement.inputs[0], dram, read)
        if work.weight_bits and self._changes(WEIGHT_DIMS, rank):
            bits = weight_tile_bits(work, tile["g"], tile["k"], tile["c"])
            self._move([(ONE, bits)], ONE, site.placement.weights, dram, weight)
        if self._changes(OUTPUT_DIMS, rank):
            channels, area = tile["g"] * tile["k"], (nest.oy, nest.ox)
            begins = self._c_mask(rank, len(self.loops), at=0, carried=False, inner=True)
            for extra, on_chip in zip(work.extras, site.placement.inputs[1:], strict=True):
                runs = (
                    map_runs(channels, tile["oy"], tile["ox"], area, extra.bits)
                    if extra.full
                    else [(ONE, channels * extra.bits)]
                )
                self._move([(begins * count, bits) for count, bits in runs], tile["n"], on_chip, dram, read)
            if begins is not True:
                runs = map_runs(channels, tile["oy"], tile["ox"], area, PARTIAL_SUM_BITS, work.scattered)
                again = [((1 - np.int64(begins)) * count, bits) for count, bits in runs]
                self._move(again, tile["n"], False, dram, read)
        return ports

    def _store(self, tile: Values, rank: int) -> Ints:
        """Port cycles to store `tile` when the loop at level `rank` stepped behind it; rank -1 stores the last one."""
        work, site, nest = self.work, self.site, self.work.nest
        shape = np.broadcast_shapes(*(v.shape for v in tile.values()))
        ports = np.zeros((5, *shape), dtype=np.int64)
        dram, write, post = ports[0], ports[3], ports[4]
        if not self._changes(OUTPUT_DIMS, rank):
            return ports
        channels, area = tile["g"] * tile["k"], (nest.oy, nest.ox)
        done = self._c_mask(rank, len(self.loops), at=-1, carried=False, inner=True)
        runs = map_runs(channels, tile["oy"], tile["ox"], area, work.output_bits, work.scattered)
        finished = [(done * count, bits) for count, bits in runs]
        self._move(finished, tile["n"], site.placement.output, dram, write)
        elements = tile["n"] * channels * tile["oy"] * tile["ox"]
        post += done * ceil_div(elements, post_lanes(self.machine, site.unroll))
        if done is not True:
            runs = map_runs(channels, tile["oy"], tile["ox"], area, PARTIAL_SUM_BITS, work.scattered)
            spilled = [((1 - np.int64(done)) * count, bits) for count, bits in runs]
            self._move(spilled, tile["n"], False, dram, write)
        return ports

    def _move(self, runs: list[tuple[Ints, Ints]], images: Ints, on_chip: bool, dram: Ints, port: Ints) -> None:
        if on_chip:
            for number, bits in runs:
                port += number * images * ceil_div(bits, self.machine.port_bits)
            return
        moved = 0 * ONE
        for number, bits in runs:
            moved = moved + number * images * run_cycles(bits, self.machine, self.site.dram_bits)
        dram += moved + (moved > 0) * self.machine.burst_latency


def _longest(ports: Ints) -> Ints:
    """Cycles of a slot without computation: those of its busiest port."""
    cycles: Ints = ports.max(axis=0)
    return cycles


def _last(extent: Extent) -> Ints:
    return np.where(extent.count == 1, extent.first, extent.last)


def _at_next(level: int) -> Callable[[_Axis, int], Ints]:
    """Values at the tile after one whose step carries at `level`."""

    def pick(axis: _Axis, own: int) -> Ints:
        if own < level:
            return axis.here
        return axis.after[:, :-1] if own == level else axis.here[:, :1]

    return pick


def _at_last(level: int) -> Callable[[_Axis, int], Ints]:
    """Values at the tile before one that was reached by a carry at `level`."""

    def pick(axis: _Axis, own: int) -> Ints:
        if own < level:
            return axis.here
        return axis.before[:, 1:] if own == level else axis.here[:, -1:]

    return pick


def _weights(count: Ints, pixel: bool) -> Ints:
    """How many tiles stand at each position of a loop of `count` >= 2 tiles: [mappings, 5 or 4]."""
    one = np.ones_like(count)
    if pixel:
        columns = [one, count >= 3, np.maximum(count - 4, 0), count >= 4, one]
    else:
        columns = [one, np.maximum(count - 3, 0), count >= 3, one]
    return np.stack([np.asarray(c, dtype=np.int64) for c in columns], axis=1)


def _axis(extent: Extent, pixel: bool) -> _Axis:
    """Values of a quantity at the positions of `_weights`, and at their neighbours."""
    count, first, middle, last = extent.count, extent.first, extent.middle, extent.last
    if pixel:
        here = [first, middle, middle, middle, last]
        after = [np.where(count > 2, middle, last), np.where(count > 3, middle, last), middle, last, last]
        before = [first, first, middle, middle, np.where(count > 2, middle, first)]
    else:
        here = [first, first, first, last]
        after = [np.where(count > 2, first, last), first, last, last]
        before = [first, first, first, first]
    return _Axis(np.stack(here, axis=1), np.stack(after, axis=1), np.stack(before, axis=1))
