"""A node's bound with memory and DRAM in it: what the coarse stage leaves out.

At an interval X, a slot's option i with a share s of the DRAM keeps its layers busy for at least the sum of
max(compute, DRAM cycles at s). What is not moved must be on chip, and takes pages x time there: a feature map at least
while its layer runs, pinned weights for the whole interval. For any price w of a page-cycle,

    busy + w x (page-cycles)  >=  L(w) = sum over layers of the least of max(compute, DRAM cycles) + w x page-cycles

over all placements of that layer. Busy is at most X, so the slot needs at least (L(w) - X) / w page-cycles; all slots
together have memory x X. Shares and page-cycles are then two more resources beside LUTs, DSPs and BRAM, and X is
possible only if some choice of options and shares keeps within all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import linprog

from nashc.board import Energy
from nashc.core.network import Layer, Network
from nashc.hw.energy import operation_pj
from nashc.hw.machine import PAGE_BITS, PARTIAL_SUM_BITS, Machine, pages
from nashc.hw.resources import ACTIVATION_BITS
from nashc.search.coarse import BoundedSlot, choose, front, issue_bound
from nashc.search.memory import TOLERANCE, quiet

PAGE_PRICES = (0.6, 1.2, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
"""Prices of a page-cycle that are tried, in units of the DRAM cycles that a page takes over one interval."""
HALVINGS, PRECISION = 9, 0.003
"""Bisections end after so many halvings, or when what is impossible and what is possible are as near as that."""


@dataclass(frozen=True, slots=True)
class Operand:
    """What a layer moves once at least: `bits` if it is in DRAM, `pages` while the layer runs if it is on chip, or
    `pinned` pages for good. Neither: it cannot be on chip."""

    bits: int
    pages: float = 0.0
    pinned: float = 0.0

    @property
    def optional(self) -> bool:
        return self.pages > 0 or self.pinned > 0


def operands(
    network: Network, layer: Layer, batch: int, room: int, slot_of: Sequence[int], *, reads_input: bool
) -> list[Operand]:
    """The operands of a layer that no design moves less than once; what takes at most `room` pages may be on chip."""
    found = []

    def stays(name: str) -> bool:
        ends = name in network.inputs or name in network.outputs
        layers = (*network.producers.get(name, ()), *network.consumers.get(name, ()))
        on_chunks = all(slot_of[i] >= 0 for i in layers) and bool(network.consumers.get(name))
        return not ends and on_chunks and pages(network.tensor[name].total_bits * batch) <= room

    if reads_input:
        tensor = network.tensor[layer.inputs[0]]
        bits = tensor.total_bits * batch
        found.append(Operand(bits, float(pages(bits)) if stays(tensor.name) else 0.0))
    tensor = network.tensor[layer.output]
    nest = layer.nest
    written = nest.g * nest.k * nest.oy * nest.ox * tensor.bits * batch
    writers = len({slot_of[i] for i in network.producers[tensor.name]})
    copies = max(1, len({slot_of[i] for i in network.consumers.get(tensor.name, ())}))
    held = pages(tensor.total_bits * batch) * copies / writers
    found.append(Operand(written, held if stays(tensor.name) else 0.0))
    if layer.weights is not None:
        bits = nest.weights * layer.weights.bits * layer.weights.terms
        found.append(Operand(bits, 0.0, bits / PAGE_BITS if pages(bits) <= room else 0.0))
    return found


@dataclass(frozen=True)
class Priced:
    """One slot at an interval not below `at_least`: over options and shares, busy cycles at the least, and L(w)."""

    index: np.ndarray
    costs: np.ndarray
    shares: np.ndarray
    busy: np.ndarray
    with_pages: np.ndarray
    prices: np.ndarray

    def columns(self, interval: float, spared: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Resources, share and page-cycles of every (option, share) that can keep within an interval, and which they
        are. With `spared`, every other share alone, which takes so much less than it is."""
        first, step = (1, 2) if spared else (0, 1)
        options, shares = np.nonzero(self.busy[:, first::step] <= interval)
        shares = first + step * shares
        need = ((self.with_pages[:, options, shares] - interval) / self.prices[:, None]).max(axis=0, initial=0.0)
        table = np.vstack([self.costs[:, options], self.shares[shares][None, :] - spared, need[None, :]])
        return table, np.stack([self.index[options], shares])


def priced(
    slot: BoundedSlot, index: np.ndarray, costs: np.ndarray, moved: list[list[Operand]], dram_bits: int,
    shares: int, room: int, at_least: float,
) -> Priced:  # fmt: skip
    """The options `index` of a slot whose layers move `moved`; `costs` are the resources of those options."""
    known = [(share / shares, dram_bits * share // shares) for share in range(1, shares + 1)]
    taken, rates = np.array([one for one in known if one[1]], dtype=np.float64).T
    page_prices = np.array(PAGE_PRICES) * PAGE_BITS / dram_bits / at_least
    busy = np.zeros((len(index), len(rates)))
    with_pages = np.zeros((len(page_prices), len(index), len(rates)))
    for row, layer in zip(slot.row_of_layer, moved, strict=True):
        compute = slot.bounds[row, index].astype(np.float64)[:, None]
        always = [o for o in layer if not o.optional]
        choices = [o for o in layer if o.optional]
        busy += np.maximum(compute, dram_cycles(always, rates, slot.machine))
        least = np.full(with_pages.shape, np.inf)
        for kept in product((False, True), repeat=len(choices)):
            running = sum(o.pages for o, on in zip(choices, kept, strict=True) if on)
            if running > room:
                continue
            away = always + [o for o, on in zip(choices, kept, strict=True) if not on]
            pinned = sum(o.pinned for o, on in zip(choices, kept, strict=True) if on) * at_least
            cycles = np.maximum(compute, dram_cycles(away, rates, slot.machine))
            np.minimum(least, cycles + page_prices[:, None, None] * (running * cycles + pinned), out=least)
        with_pages += least
    return Priced(index, costs, taken, busy, with_pages, page_prices)


def dram_cycles(away: list[Operand], rates: np.ndarray, machine: Machine) -> np.ndarray:
    """Fewest cycles of a layer whose operands in DRAM are these, at each rate: each is a transfer of its own at least
    (the DRAM's part of nashc/hw/traffic.py:cycles_bound)."""
    bits = sum(o.bits for o in away)
    if not bits:
        return np.zeros_like(rates)
    bursts = max(len(away), bits // machine.burst_bits)
    waits = machine.burst_overhead * bursts + machine.burst_latency * len(away)
    cycles: np.ndarray = bits / rates + waits + 3 * machine.step_overhead + machine.layer_overhead
    return cycles


def least_possible(
    slots: list[Priced], limits: np.ndarray, memory: float, low: float, high: float, spared: float = 0.0
) -> tuple[float, list[tuple[int, float]] | None]:
    """(the largest interval found to be impossible, an option and a share for each slot just above it).

    `low` is a bound already. No choice: even `high` is impossible, or none was found.
    """
    found = None
    impossible = low
    for turn in range(HALVINGS):
        middle = high if turn == 0 else (low + high) / 2
        rows = [slot.columns(middle, spared) for slot in slots]
        choice = choose([table for table, _ in rows], np.concatenate([limits, [1.0, memory * middle]]))
        if choice.picks is None:
            if choice.impossible:
                impossible = middle
            if turn == 0:
                return impossible, None
            low = middle
        else:
            high = middle
            found = [
                (int(own[0, p]), float(slot.shares[own[1, p]]))
                for slot, (_, own), p in zip(slots, rows, choice.picks, strict=True)
            ]
        if high <= low * (1 + PRECISION):
            break
    return impossible, found


def least_sum(values: list[np.ndarray], costs: list[np.ndarray], limits: np.ndarray) -> tuple[float, list[int] | None]:
    """(a bound of the least sum of one value a slot whose options fit together, the options of the least found)."""
    low = float(sum(v.min() for v in values))
    high, found = float(sum(v.max() for v in values)), None
    tables = [np.vstack([cost, value[None, :]]) for cost, value in zip(costs, values, strict=True)]
    fronts = [front(table) for table in tables]  # the limits change, the options that others beat do not
    lean = [table[:, kept] for table, kept in zip(tables, fronts, strict=True)]
    for turn in range(2 * HALVINGS):
        middle = high if turn == 0 else (low + high) / 2
        choice = choose(lean, np.append(limits, middle), leanest=False)
        if choice.picks is not None:
            found = [int(kept[p]) for kept, p in zip(fronts, choice.picks, strict=True)]
            high = min(middle, float(sum(value[p] for value, p in zip(values, found, strict=True))))
        elif not choice.impossible:
            break
        elif turn == 0:
            return high, None
        else:
            low = middle
        if high <= low * (1 + PRECISION / 2):
            break
    return low, found


def least_product(least_sum_of_both: float) -> float:
    """The least product of energy and cycles, each in units of its least, from the least of their sum.

    No design is below the line `energy + cycles = least sum`. On it the product is concave, so least at an end, where
    one of them is 1.
    """
    return max(1.0, least_sum_of_both - 1)


def path_cycles(
    slots: list[BoundedSlot], moved: list[list[list[Operand]]], path: set[int], dram_bits: float
) -> list[np.ndarray]:
    """For each slot, the least cycles of its layers on a path of dependencies, on each option."""
    values, whole = [], np.array([float(dram_bits)])
    for slot, layers in zip(slots, moved, strict=True):
        total = np.zeros(len(slot.options))
        for i, row, operands_ in zip(slot.options.slot.layers, slot.row_of_layer, layers, strict=True):
            if i in path:
                always = [o for o in operands_ if not o.optional]
                total += np.maximum(slot.bounds[row], dram_cycles(always, whole, slot.machine))
        values.append(total)
    return values


def energies(slots: list[BoundedSlot], moved: list[list[list[Operand]]], energy: Energy) -> list[np.ndarray]:
    """For each slot, the least energy of its layers on each option: operations and array once, each operand once, from
    the on-chip memory where it may be there."""
    values = []
    for slot, layers in zip(slots, moved, strict=True):
        total = np.zeros(len(slot.options))
        factors = slot.options.factors
        words = factors[:, [0, 2, 3, 4, 5, 6]].prod(axis=1)
        weight_words = factors[:, [0, 1, 2, 5, 6]].prod(axis=1)
        outputs = factors[:, [0, 1, 3, 4]].prod(axis=1)
        for row, operands_ in zip(slot.row_of_layer, layers, strict=True):
            work = slot.works[row]
            delivered = words * ACTIVATION_BITS + weight_words * work.weight_bits
            cycle = delivered * energy.buffer_pj_per_bit + outputs * 2 * PARTIAL_SUM_BITS * energy.rf_pj_per_bit
            unit = slot.options.slot.unit
            operation = min(operation_pj(energy, unit, work.weight_bits, share) for share in (0.0, 1.0))
            total += work.batch * work.nest.macs * work.terms * operation + issue_bound(slot.options, work) * cycle
            for o in operands_:
                total += o.bits * (least_bit_pj(energy) if o.optional else energy.dram_pj_per_bit)
        values.append(total)
    return values


def unheld_pj(moved: list[list[list[Operand]]], room: float, energy: Energy) -> float:
    """What it takes more than `energies` that the memory has so many pages: for the weights that are pinned and, while
    a layer runs, for its feature maps beside them. A linear program, parts of operands on chip."""
    layers = [[o for o in layer if o.optional] for slot in moved for layer in slot]
    kept = [o for layer in layers for o in layer]
    bits = np.array([o.bits for o in kept], dtype=np.float64)
    owner = np.repeat(np.arange(len(layers)), [len(layer) for layer in layers])
    rows = np.zeros((len(layers) + 1, len(kept) + 1))  # the last row and column: pinned pages
    rows[owner, np.arange(len(kept))] = [o.pages for o in kept]
    rows[:-1, -1] = room
    rows[-1] = [*(o.pinned for o in kept), -room]
    if rows[:-1].sum(axis=1).max(initial=0) - room + sum(o.pinned for o in kept) <= room:
        return 0.0
    limits, unit = np.append(np.full(len(layers), room), 0.0), max(room, 1.0)
    with quiet():
        found = linprog(np.append(-bits / bits.sum(), 0.0), A_ub=rows / unit, b_ub=limits / unit, bounds=(0, 1))
    if found.x is None:  # the solver failed, and proves nothing
        return 0.0
    saved = energy.dram_pj_per_bit - least_bit_pj(energy)
    return max(0.0, float(bits.sum() - bits @ found.x[:-1] * (1 + TOLERANCE))) * saved


def least_bit_pj(energy: Energy) -> float:
    """Energy of a bit that may be on chip, wherever it is."""
    return min(energy.buffer_pj_per_bit + energy.noc_pj_per_bit, energy.dram_pj_per_bit)
