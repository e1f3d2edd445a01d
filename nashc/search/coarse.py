"""Coarse stage: a true lower bound for every accelerator of the space, and the least one under all resources.

An accelerator's interval is at least the busy time of each of its chunks with every operand on chip. It is computed for
all options at once. The least bound over the whole product space comes from a search over intervals: at interval X
each slot may use the options that need at most X cycles, and X is possible if some choice of one option a slot fits the
board. `choose` finds such a choice or proves that there is none; the product is never written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from nashc.board import Board
from nashc.core.design import Buffers, Placement, Resources, Work
from nashc.core.loops import LOOP_DIMS, Unroll
from nashc.core.network import Network
from nashc.core.number import Ints
from nashc.hw.latency import Site, first_load
from nashc.hw.machine import Machine
from nashc.hw.resources import memory_resources
from nashc.hw.tiles import weight_tile_bits
from nashc.search import compiled
from nashc.search.mapping import Best, best_mapping, candidate_tiles
from nashc.search.space import BRAM_PRICES, BUFFER_LEVELS, DUAL_PRICES, SlotOptions, Space, work_of

MOST_SUMS = 20_000
"""Sums of costs that `choose` writes out at once; beyond, it keeps the leanest and proves by prices instead."""
MOST_LEAN = 250
PRICE_ROUNDS = 60


@dataclass(eq=False)
class BoundedSlot:
    """A slot's options for one batch, with a lower bound of the busy cycles of each of its layers: `bounds` is
    [distinct works, options], `row_of_layer` the row of each layer."""

    options: SlotOptions
    works: tuple[Work, ...]
    row_of_layer: tuple[int, ...]
    bounds: Ints
    machine: Machine
    dram_bits: int
    exact: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.exact = np.zeros(len(self.options), dtype=bool)

    @property
    def cycles(self) -> Ints:
        """The bound of each option's busy cycles."""
        total: Ints = self.bounds[list(self.row_of_layer)].sum(axis=0)
        return total

    def sharpen(self, index: Ints) -> None:
        """Replace the bounds of some options by the best case: the exact best mapping with everything on chip, the
        largest buffers and the whole DRAM. Options on which some layer has no mapping are never chosen."""
        for i in index[~self.exact[index]]:
            chunk = self.options.chunk(int(i), len(BUFFER_LEVELS) - 1, self.dram_bits)
            machine = replace(self.machine, post_lanes=chunk.post_lanes)
            for row, work in enumerate(self.works):
                best = best_case(work, chunk.unroll, chunk.buffers, self.dram_bits, machine)
                self.bounds[row, i] = NEVER if best is None else best.cycles
            self.exact[i] = True


NEVER = np.iinfo(np.int64).max // 10**6


ON_CHIP = Placement((True,), True, True)


def without_extras(work: Work) -> Work:
    """The work with its main input alone. Input and extras share a read port on chip, so having them all there is not
    the best case; leaving the extras out is below every placement of them."""
    return replace(work, extras=())


def best_case(work: Work, unroll: Unroll, buffers: Buffers, dram_bits: int, machine: Machine) -> Best | None:
    """The mapping that no placement, smaller buffers or smaller DRAM share gets below.

    Every operand has an on-chip port of its own then, each at least as fast as the whole DRAM.
    """
    ideal = replace(machine, port_bits=max(machine.port_bits, dram_bits))
    return best_mapping(without_extras(work), unroll, buffers, dram_bits, ideal, ON_CHIP)


def bounded_slot(
    options: SlotOptions, network: Network, batch: int, machine: Machine, dram_bits: int, space: Space
) -> BoundedSlot:
    """The declared options of a slot for a batch: those that no other one beats in the bound of the busy time and every
    resource."""
    of_layer = [work_of(network, network.layers[i], batch) for i in options.slot.layers]
    works = tuple(dict.fromkeys(of_layer))
    rows = tuple(works.index(work) for work in of_layer)
    if not len(options):
        return BoundedSlot(options, works, rows, np.zeros((len(works), 0), dtype=np.int64), machine, dram_bits)
    bounds = np.stack([busy_bound(options, work, machine, dram_bits) for work in works])
    cycles = bounds[list(rows)].sum(axis=0)
    lean = np.sort(front(np.vstack([slot_costs(options, space.levels), cycles[None, :]])))
    if space.unrollings is not None and len(lean) > space.unrollings:
        lean = lean[np.linspace(0, len(lean) - 1, space.unrollings).round().astype(np.int64)]
    return BoundedSlot(options.take(lean), works, rows, bounds[:, lean], machine, dram_bits)


def busy_bound(options: SlotOptions, work: Work, machine: Machine, dram_bits: int) -> Ints:
    """Fewest cycles of a layer on each option, whatever the mapping and placement."""
    work, nest = without_extras(work), work.nest
    machine = replace(machine, port_bits=max(machine.port_bits, dram_bits))
    outputs = work.batch * nest.g * nest.k * nest.oy * nest.ox
    one = np.ones(1, dtype=np.int64)
    weights = int(weight_tile_bits(work, one * nest.g, one * nest.k, one * nest.c)[0])
    adder_levels, at = options.distinct["adder levels"]
    issue = issue_bound(options, work)
    tiling = least_tiling_cost(work, machine, machine.pipeline_depth + adder_levels)[at]
    moved = max(weights, least_input_bits(work), outputs * work.output_bits)  # each has a port of its own
    moves = np.maximum(options.rounds("post", outputs), -(-moved // machine.port_bits)) + 3 * machine.step_overhead + 1
    busy: Ints = np.maximum(issue + tiling, moves) + machine.layer_overhead
    return busy


def least_input_bits(work: Work) -> int:
    """Bits of the main input that a layer loads at least, whatever its tiles: rows and columns that tiles have in
    common once, and none between windows that do not touch."""
    nest, elements = work.nest, work.batch * work.nest.g * work.nest.c
    for axis, outputs, size in ((0, nest.oy, nest.iy), (1, nest.ox, nest.ix)):
        window = nest.span(axis, 1)
        behind = max(0, nest.span(axis, outputs) - nest.pad[axis] - size)
        read = (outputs - 1) * min(nest.stride[axis], window) + window - nest.pad[axis] - behind
        elements *= min(max(read, 1), size)
    return elements * work.input_bits


def issue_bound(options: SlotOptions, work: Work) -> Ints:
    """Issue cycles of the untiled layer on each option: tiling adds to them, as a sum of ceilings is no less."""
    nest = work.nest
    if (nest, work.terms) not in options.issue_of_image:
        passes, taken = np.ones(len(options), dtype=np.int64), np.full(len(options), work.terms, dtype=np.int64)
        for d in LOOP_DIMS:
            loop = taken if d in ("c", "fy", "fx") else passes
            loop *= options.rounds(d, getattr(nest, d))
        options.issue_of_image[nest, work.terms] = passes * np.maximum(taken, options.drain)
    return options.issue_of_image[nest, work.terms] * work.batch


def least_tiling_cost(work: Work, machine: Machine, depth: Ints) -> Ints:
    """Least cost of cutting a layer into tiles, over all tilings, at each depth of the array: the exposed first load,
    each step's overhead, fill and drain, one cycle of last store."""
    first, steps = tilings(work, machine)
    cost: Ints = (first + steps * (depth[:, None] + machine.step_overhead)).min(axis=1)
    return cost + 2 * machine.step_overhead + 1


@lru_cache(maxsize=10_000)
def tilings(work: Work, machine: Machine) -> tuple[Ints, Ints]:
    """(first load, steps) of tilings, of which none is below another in both.

    For a given number of tiles along a loop the balanced tile has the least first load, so the balanced tiles of
    single lanes and boundless buffers bound every unrolling.
    """
    endless = 1 << 60
    _, extents = candidate_tiles(work, Unroll(), Buffers(endless, endless, endless))
    site = Site(Unroll(), machine.port_bits, machine, ON_CHIP)
    costs = np.stack([first_load(work, site, extents), extents.steps()])
    first, steps = costs[:, front(costs)]
    return first, steps


def front(costs: np.ndarray) -> Ints:
    """Indices of the columns of [resources, options] that no other column beats in every row."""
    scale = np.maximum(costs.max(axis=1, keepdims=True), 1)
    order = np.argsort((costs / scale).sum(axis=0), kind="stable")
    native = compiled.library()
    if native is not None:
        return compiled.front(native, costs, order)
    kept: list[int] = []
    while len(order):
        best = order[0]
        kept.append(int(best))
        order = order[(costs[:, order] < costs[:, [best]]).any(axis=0)]
    return np.array(kept, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Choice:
    """One column of each table with all sums within the limits. No picks: none was found; `impossible`: there is
    none."""

    picks: tuple[int, ...] | None
    impossible: bool = False


def choose(costs: list[np.ndarray], limits: np.ndarray, *, leanest: bool = True) -> Choice:
    """A choice of one column of each [resources, options] table within the limits: near the leanest, or any."""
    if any(not table.shape[1] for table in costs):
        return Choice(None, impossible=True)
    scaled = [table / np.maximum(limits, 1e-9)[:, None] for table in costs]
    priced = by_prices(scaled)
    if priced is not None and (priced.impossible or not leanest):
        return priced
    total, picks, whole = np.zeros((len(limits), 1)), np.zeros((1, 0), dtype=np.int64), True
    least = [table.min(axis=1) for table in scaled]
    for n, table in enumerate(scaled):
        rest = sum(least[n + 1 :], start=np.zeros(len(limits)))
        lean = np.flatnonzero(
            (table + (sum(least, start=np.zeros(len(limits))) - least[n])[:, None] <= 1 + 1e-9).all(axis=0)
        )
        if not len(lean):
            return Choice(None, impossible=True)
        lean = lean[front(table[:, lean])]
        if len(lean) * total.shape[1] > MOST_SUMS:
            whole = False
            lean = lean[: max(1, MOST_SUMS // total.shape[1])]
        sums = (total[:, :, None] + table[:, None, lean]).reshape(len(limits), -1)
        fits = np.flatnonzero((sums + rest[:, None] <= 1 + 1e-9).all(axis=0))
        if not len(fits):
            return Choice(None, impossible=whole)
        fits = fits[front(sums[:, fits])]
        if len(fits) > MOST_LEAN and n + 1 < len(scaled):
            whole = False
            fits = fits[:MOST_LEAN]
        total = sums[:, fits]
        picks = np.column_stack([picks[fits // len(lean)], lean[fits % len(lean)]])
    return Choice(tuple(int(p) for p in picks[0]))


def by_prices(tables: list[np.ndarray]) -> Choice | None:
    """A choice within limits of 1 each, or that there is none, if some prices of the resources find that.

    At any prices u, every choice costs at least the sum over tables of the least u x column, and what fits costs at
    most the sum of u. The prices follow the resources that the cheapest choice overdraws (multiplicative weights).
    """
    prices = np.full(len(tables[0]), 1 / len(tables[0]))
    for turn in range(PRICE_ROUNDS):
        picks = [int((prices @ table).argmin()) for table in tables]
        used = sum((table[:, pick] for table, pick in zip(tables, picks, strict=True)), start=np.zeros(len(prices)))
        if prices @ used > 1 + 1e-9:
            return Choice(None, impossible=True)
        if (used <= 1 + 1e-9).all():
            return Choice(tuple(picks))
        prices = prices * np.exp(np.minimum(np.maximum(used - 1, -2), 2) * (1.0 if turn < PRICE_ROUNDS // 2 else 0.3))
        prices /= prices.sum()
    return None


def least_interval(
    slots: list[BoundedSlot], costs: list[np.ndarray], limits: np.ndarray, at_least: int = 0
) -> tuple[int, list[int]] | None:
    """(a bound of the X for which every slot has an option of at most X cycles and all fit together, options for the
    least X found, or no options where it found none and none is proven impossible); None if no X is possible.

    `at_least` is a value that X is known not to fall below; the search gallops up from there.
    """
    if not all(len(s.options) for s in slots):
        return None
    cycles = [s.cycles for s in slots]
    floor = max(at_least, *(int(c.min()) for c in cycles))
    levels = np.unique(np.concatenate([[floor], *(c[c > floor] for c in cycles)]))

    def choice(level: int) -> tuple[Choice, list[int]]:
        allowed = [np.flatnonzero(c <= levels[level]) for c in cycles]
        found = choose([c[:, a] for c, a in zip(costs, allowed, strict=True)], limits)
        picks = found.picks or ()
        return found, [int(a[f]) for a, f in zip(allowed, picks, strict=False)]

    low, high, best = 0, 0, list[int]()
    while True:
        found, picks = choice(high)
        if found.picks is not None:
            best = picks
            break
        if high == len(levels) - 1:
            return None if found.impossible else (int(levels[low]), [])
        low = high + 1 if found.impossible else low
        high = min(2 * high + 2, len(levels) - 1)
    bound = low
    while low < high:
        middle = (low + high) // 2
        found, picks = choice(middle)
        if found.picks is not None:
            high, best = middle, picks
        else:
            low = middle + 1
            bound = low if found.impossible else bound
    return int(levels[min(bound, high)]), best


def slot_costs(options: SlotOptions, levels: Sequence[int]) -> np.ndarray:
    """Resource table of a slot with buffers of any of the levels: rows of LUTs for each BRAM and DSP price, then
    BRAM18. No row is above that of any one level."""
    luts, bram18 = options.luts[list(levels)], options.bram18[list(levels)]
    priced = [options.prices + (luts + price * bram18).min(axis=0) for price in BRAM_PRICES]
    return np.vstack([*priced, bram18.min(axis=0)])


def slot_limits(
    board: Board, limit: Resources, slots: list[BoundedSlot], memory_pages: int, uram_groups: int = 0
) -> np.ndarray:
    """What the rows of `slot_costs` may sum to over all slots beside a memory of so many pages and URAM groups."""
    memory = memory_resources(board, memory_pages, len(slots), uram_groups)
    bram18 = limit.bram18 - memory.bram18
    luts = [limit.lut - memory.lut + b * bram18 + d * limit.dsp for b in BRAM_PRICES for d in DUAL_PRICES]
    return np.array([*luts, bram18], dtype=np.float64)
