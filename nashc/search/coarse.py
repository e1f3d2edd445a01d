"""Coarse stage: a true lower bound for every accelerator of the space, and the least one under all resources.

An accelerator's interval is at least the busy time of each of its chunks with every operand on chip, and at least the
DRAM time of traffic that no memory plan of its size avoids. Both are computed for all options at once. The least
bound over the whole product space comes from a search over intervals: at interval X each slot may use the options
that need at most X cycles, and X is feasible if some choice of one option a slot fits the board; only options that no
other one beats in every resource matter, so the product is never written out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from nashc.core.design import Buffers, Placement, Work
from nashc.core.loops import Unroll
from nashc.core.network import Network
from nashc.core.number import Ints
from nashc.hw.latency import Site, first_load
from nashc.hw.machine import Machine
from nashc.hw.tiles import weight_tile_bits
from nashc.search.mapping import Best, best_mapping, candidate_tiles
from nashc.search.space import BUFFER_LEVELS, SlotOptions, work_of


@dataclass(eq=False)
class BoundedSlot:
    """A slot's options with a lower bound of the busy cycles of each; `exact` marks bounds that were refined."""

    options: SlotOptions
    works: tuple[tuple[Work, int], ...]
    machine: Machine
    dram_bits: int
    cycles: Ints = field(init=False)
    exact: np.ndarray = field(init=False)
    each: dict[int, dict[Work, int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.cycles = sum(
            (count * busy_bound(self.options, work, self.machine, self.dram_bits) for work, count in self.works),
            start=np.zeros(len(self.options), dtype=np.int64),
        )
        self.exact = np.zeros(len(self.options), dtype=bool)

    def work_cycles(self, i: int) -> dict[Work, int]:
        """The bound of each work on option i."""
        if i not in self.each:
            only = self.options.only(i)
            self.each[i] = {w: int(busy_bound(only, w, self.machine, self.dram_bits)[0]) for w, _ in self.works}
        return self.each[i]

    def refine(self, i: int) -> None:
        """Replace the bound of option i by its exact busy time in the best case: largest buffers, all on chip."""
        if self.exact[i]:
            return
        self.exact[i] = True
        chunk = self.options.chunk(i, len(BUFFER_LEVELS) - 1, self.dram_bits)
        machine = replace(self.machine, post_lanes=chunk.post_lanes)
        total = 0
        for work, count in self.works:
            best = best_case(work, chunk.unroll, chunk.buffers, self.dram_bits, machine)
            if best is None:
                self.cycles[i] = np.iinfo(np.int64).max // 4
                return
            total += count * best.cycles
        self.cycles[i] = total


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


def bounded_slot(options: SlotOptions, network: Network, batch: int, machine: Machine, dram_bits: int) -> BoundedSlot:
    """The slot's options with the bounds of their busy time."""
    works = Counter(work_of(network, network.layers[i], batch) for i in options.slot.layers)
    return BoundedSlot(options, tuple(works.items()), machine, dram_bits)


def busy_bound(options: SlotOptions, work: Work, machine: Machine, dram_bits: int) -> Ints:
    """Fewest cycles of a layer on each option, whatever the mapping and placement."""
    work, nest, factors = without_extras(work), work.nest, options.factors
    machine = replace(machine, port_bits=max(machine.port_bits, dram_bits))
    passes = np.full(len(options), work.batch, dtype=np.int64)
    taken = np.full(len(options), work.terms, dtype=np.int64)
    for column, d in enumerate(("g", "k", "c", "oy", "ox", "fy", "fx")):
        loop = taken if d in ("c", "fy", "fx") else passes
        loop *= -(-getattr(nest, d) // factors[:, column])
    reduction = factors[:, 2] * factors[:, 5] * factors[:, 6]
    depth = machine.pipeline_depth + np.ceil(np.log2(reduction)).astype(np.int64)
    outputs = work.batch * nest.g * nest.k * nest.oy * nest.ox
    lanes = options.post
    one = np.ones(1, dtype=np.int64)
    weights = int(weight_tile_bits(work, one * nest.g, one * nest.k, one * nest.c)[0])
    accumulators = factors[:, 0] * factors[:, 1] * factors[:, 3] * factors[:, 4]
    issue = passes * np.maximum(taken, -(-accumulators // lanes))
    levels, level_of = np.unique(depth, return_inverse=True)
    tiling = np.array([least_tiling_cost(work, machine, int(d)) for d in levels])[level_of]
    stores = -(-outputs // lanes) + 3 * machine.step_overhead + 1
    loads = -(-weights // machine.port_bits) + 3 * machine.step_overhead + 1
    busy: Ints = np.maximum(issue + tiling, np.maximum(stores, loads)) + machine.layer_overhead
    return busy


@lru_cache(maxsize=100_000)
def least_tiling_cost(work: Work, machine: Machine, depth: int) -> int:
    """Least cost of cutting a layer into tiles, over all tilings: the exposed first load, each step's overhead, fill
    and drain, one cycle of last store.

    For a given number of tiles along a loop the balanced tile has the least first load, so the balanced tiles of
    single lanes and boundless buffers bound every unrolling.
    """
    endless = 1 << 60
    _, extents = candidate_tiles(work, Unroll(), Buffers(endless, endless, endless))
    site = Site(Unroll(), machine.port_bits, machine, ON_CHIP)
    first = first_load(work, site, extents)
    steps = extents.steps()
    return int((first + steps * (depth + machine.step_overhead)).min()) + 2 * machine.step_overhead + 1


def front(costs: np.ndarray) -> Ints:
    """Indices of the columns of [resources, options] that no other column beats in every row."""
    scale = np.maximum(costs.max(axis=1, keepdims=True), 1)
    order = np.argsort((costs / scale).sum(axis=0), kind="stable")
    kept: list[int] = []
    while len(order):
        best = order[0]
        kept.append(int(best))
        order = order[(costs[:, order] < costs[:, [best]]).any(axis=0)]
    return np.array(kept, dtype=np.int64)


def cheapest_choice(costs: list[np.ndarray], limits: np.ndarray) -> list[int] | None:
    """One column of each [resources, options] table with all sums within the limits, the leanest such; or None."""
    total = np.zeros((len(limits), 1))
    picks = np.zeros((1, 0), dtype=np.int64)
    for table in costs:
        lean = front(table)
        sums = (total[:, :, None] + table[:, None, lean]).reshape(len(limits), -1)
        fits = np.flatnonzero((sums <= limits[:, None]).all(axis=0))
        if not len(fits):
            return None
        fits = fits[front(sums[:, fits])]
        total = sums[:, fits]
        picks = np.column_stack([picks[fits // len(lean)], lean[fits % len(lean)]])
    return [int(p) for p in picks[0]]


def least_interval(
    slots: list[BoundedSlot], costs: list[np.ndarray], limits: np.ndarray, at_least: int = 0
) -> tuple[int, list[int]] | None:
    """The least X for which every slot has an option of at most X cycles and all fit together, with the options.

    `at_least` is a value that X is known not to fall below; the search gallops up from there.
    """
    floor = max(at_least, *(int(s.cycles.min()) for s in slots))
    levels = np.unique(np.concatenate([[floor], *(s.cycles[s.cycles > floor] for s in slots)]))

    def choice(level: int) -> list[int] | None:
        allowed = [np.flatnonzero(s.cycles <= levels[level]) for s in slots]
        found = cheapest_choice([c[:, a] for c, a in zip(costs, allowed, strict=True)], limits)
        return None if found is None else [int(a[f]) for a, f in zip(allowed, found, strict=True)]

    low, high, best = 0, 0, choice(0)
    while best is None:
        if high == len(levels) - 1:
            return None
        low, high = high + 1, min(2 * high + 2, len(levels) - 1)
        best = choice(high)
    while low < high:
        middle = (low + high) // 2
        found = choice(middle)
        if found is None:
            low = middle + 1
        else:
            high, best = middle, found
    return max(int(s.cycles[i]) for s, i in zip(slots, best, strict=True)), best


def use_leftover(slots: list[BoundedSlot], costs: list[np.ndarray], limits: np.ndarray, choice: list[int]) -> list[int]:
    """The choice with every slot, slowest first, moved to its fastest option that what is left of the board allows."""
    choice = list(choice)
    for n in sorted(range(len(slots)), key=lambda n: -int(slots[n].cycles[choice[n]])):
        others = sum((costs[m][:, i] for m, i in enumerate(choice) if m != n), start=np.zeros(len(limits)))
        fits = np.flatnonzero((costs[n] <= (limits - others)[:, None]).all(axis=0))
        cycles = slots[n].cycles[fits]
        best = fits[cycles == cycles.min()]
        choice[n] = int(best[np.argmin(costs[n][:, best].sum(axis=0))])
    return choice


def slot_costs(options: SlotOptions, level: int) -> np.ndarray:
    """Resource table of a slot: a row of LUTs for each DSP price, then BRAM18 at a buffer level."""
    return np.vstack([options.prices, options.bram18[level][None, :]])
