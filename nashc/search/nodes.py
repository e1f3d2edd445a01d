"""The nodes of a search, partitions x batches x memory ranges, and their bounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

import numpy as np

from nashc.board import Board
from nashc.core.network import Layer, Network, Tensor, Unit
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.machine import PAGE_BANKS, PAGE_BITS, URAM_PAGES, Machine, pages
from nashc.hw.resources import machine_of, usable
from nashc.search.bound import (
    Operand,
    energies,
    least_possible,
    least_product,
    least_sum,
    operands,
    path_cycles,
    priced,
    unheld_pj,
)
from nashc.search.coarse import BoundedSlot, bounded_slot, least_interval, slot_costs, slot_limits
from nashc.search.space import (
    DUAL_PRICES,
    LANE_KINDS,
    Slot,
    SlotOptions,
    Space,
    lanes_of,
    most_lanes,
    partitions,
    slot_options,
)

Progress = Callable[[str, float], None]
GALLOP = 1.3
"""How far above a node's bound the better bound is looked for at first."""
FEW_SLOTS, SPARED = 4, 0.01
"""Whole shares of the DRAM for more slots are hard to find at once. What tuning starts from is then looked for with
half of the shares to choose from, the least of which takes so little."""
ENDLESS = 1e18
"""Cycles of no interval: a node that is impossible up to here is impossible."""
MOST_BOUNDED = 64
_BOUNDED: dict[tuple[object, ...], BoundedSlot] = {}
"""What the last searches know of their slots: as many as a search has, and some more."""


@dataclass(eq=False)
class Node:
    """One (partition, batch, memory from `least_pages` to `most_pages`), with its bound in units of the objective."""

    key: tuple[int, int, int]
    slots: list[BoundedSlot]
    batch: int
    least_pages: int
    most_pages: int
    interval: int = 0
    bound: float = 0.0
    choice: list[int] = field(default_factory=list)
    final: bool = False
    picks: list[tuple[int, float]] | None = None
    tuned: bool = False
    sharp: bool = False
    closed: bool = False


@dataclass
class Nodes:
    """What a search knows of its nodes. `parts` and `table` replace the partitions and the options of a slot;
    `accelerators` counts the space."""

    network: Network
    board: Board
    options: Options
    progress: Progress | None = None
    parts: list[tuple[Slot, ...]] | None = None
    table: Callable[[Slot], SlotOptions] | None = None
    space: Space = field(default_factory=Space)

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        if self.options.clock_mhz is not None:
            self.board = replace(self.board, clock_mhz=self.options.clock_mhz)
        self.machine: Machine = machine_of(self.board)
        self.dram_bits = int(self.board.dram_bytes_per_cycle * 8)
        if self.dram_bits < 1:
            raise NashcError(
                f"the DRAM of {self.board.name} delivers less than a bit a cycle at {self.board.clock_mhz:g} MHz",
                hint="check [dram] of the board file, or lower --clock",
            )
        self.limit = usable(self.board, self.options.max_lut, self.options.max_dsp, self.options.max_bram36)
        self.accelerators = 0
        self.tables: dict[Slot, SlotOptions] = {}
        self.soonest_ms = float("inf")
        self.uram_groups = self.limit.uram // PAGE_BANKS if self.options.memory_plan else 0

    def nodes(self) -> list[Node]:
        """All nodes with their coarse bounds; once half of the budget is spent, the rest of them with bounds that cost
        nothing, and without slots."""
        total_pages = self.limit.bram18 // 2 // PAGE_BANKS
        batches = self.space.batches if self.options.batch is None else (self.options.batch,)
        eighths = self.space.memory_eighths if self.options.memory_plan else (0,)
        least_share = self.space.least_share(self.dram_bits)
        found: list[Node] = []
        bounded: dict[tuple[Slot, int], BoundedSlot] = {}
        parts = self.parts or partitions(self.network)
        for (b, batch), (p, partition) in product(enumerate(batches), enumerate(parts)):
            if found and self.out_of_time(0.5):
                found.append(self.unseen((p, b, 0), batch, total_pages))
                continue
            for slot in partition:
                if (slot, batch) not in bounded:
                    bounded[slot, batch] = self.bounded(slot, batch)
            slots = [bounded[slot, batch] for slot in partition]
            count = self.space.accelerators([len(slot.options) for slot in slots], least_share)
            interval = 0
            for m, least in enumerate(eighths if count else ()):
                self.accelerators += count
                most = total_pages * eighths[m + 1] // 8 - 1 if m + 1 < len(eighths) else total_pages
                if not self.options.memory_plan:
                    most = 0
                node = Node((p, b, m), slots, batch, total_pages * least // 8, most, interval)
                if self.rebound(node):
                    interval = node.interval  # more memory leaves fewer resources, so the next is no less
                    found.append(node)
        self.tables.clear()  # large, and few of the options were kept
        return found

    def unseen(self, key: tuple[int, int, int], batch: int, most_pages: int) -> Node:
        """All memory ranges of a partition and batch in one node that is not looked into: every operation takes a lane
        for a cycle, and what no plan avoids goes through the DRAM."""
        node = Node(key, [], batch, 0, most_pages if self.options.memory_plan else 0)
        layers = [layer for layer in self.network.layers if layer.unit is not Unit.HOST]
        work = sum(x.nest.macs * (x.weights.terms if x.weights else 1) for x in layers) * batch
        kinds = tuple(kind for kinds in LANE_KINDS.values() for kind in kinds)
        lanes = most_lanes(self.board, kinds, self.limit) + 2 * self.limit.dsp  # of all chunks, whatever their kinds
        node.interval = max(work // lanes, self.host_cycles * batch)
        if self.too_late(node.interval):
            node.bound = float("inf")
        elif self.options.objective == "fps":
            node.bound = max(node.interval, self.unavoidable(node)) / batch
        elif self.options.objective == "latency":
            node.bound = float(node.interval)
        return node

    def out_of_time(self, share: float = 1.0) -> bool:
        """Whether that share of the budget is spent."""
        budget = self.options.budget_seconds
        return budget is not None and time.monotonic() - self.started > budget * share

    def bounded(self, slot: Slot, batch: int) -> BoundedSlot:
        """A slot's options with their bounds. Another search of the network, with another objective or budget, has them
        from the first."""
        if self.table is not None:
            return self._bounded(slot, batch)
        limits = (self.options.max_lut, self.options.max_dsp, self.options.max_bram36)
        lanes = lanes_of(slot, self.board, self.options.objective)
        key = (slot, self.network, self.board, *limits, lanes, batch, self.space)
        known = _BOUNDED.get(key)
        if known is None:
            for oldest in list(_BOUNDED)[: max(0, len(_BOUNDED) + 1 - MOST_BOUNDED)]:  # threads may search at once
                _BOUNDED.pop(oldest, None)
            known = _BOUNDED[key] = self._bounded(slot, batch)
        return replace(known, bounds=known.bounds.copy())  # a search sharpens its own

    def _bounded(self, slot: Slot, batch: int) -> BoundedSlot:
        table = self.options_of(slot)
        return bounded_slot(table, self.network, batch, self.machine, self.dram_bits, self.space)

    def options_of(self, slot: Slot) -> SlotOptions:
        if slot not in self.tables:
            make = self.table or (lambda s: slot_options(s, self.network, self.board, self.machine, self.options))
            self.tables[slot] = make(slot)
        return self.tables[slot]

    def rebound(self, node: Node) -> bool:
        """Recompute a node's bound from its slots' present bounds; False if nothing fits the board and the limit of
        latency: a chunk works as long on a batch as in a period."""
        found = least_interval(node.slots, *self.costs(node), at_least=node.interval)
        if found is None:
            return False
        node.interval, node.choice = max(found[0], self.host_cycles * node.batch), found[1]
        if self.too_late(node.interval):
            return False
        if self.options.objective == "fps":
            node.bound = max(node.interval, self.unavoidable(node)) / node.batch
        elif self.options.objective == "latency":
            node.bound = float(node.interval)
        return True

    def milliseconds(self, cycles: float) -> float:
        return cycles / self.board.clock_mhz / 1e3

    def keeps_limit(self, cycles: float) -> bool:
        """Whether a latency of so many cycles is within the limit, if there is one."""
        return self.options.max_latency_ms is None or self.milliseconds(cycles) <= self.options.max_latency_ms

    def too_late(self, cycles: float) -> bool:
        """Whether no design keeps the limit of latency that takes `cycles` at least; if so, they are noted."""
        late = not self.keeps_limit(cycles)
        if late:
            self.soonest_ms = min(self.soonest_ms, self.milliseconds(cycles))
        return late

    def costs(self, node: Node) -> tuple[list[np.ndarray], np.ndarray]:
        limits = slot_limits(self.board, self.limit, node.slots, node.least_pages, self.uram_groups)
        return [slot_costs(s.options, self.space.levels) for s in node.slots], limits

    def unavoidable(self, node: Node) -> int:
        """DRAM cycles of a period that no memory plan avoids: both ends of the network, tensors larger than the
        memory, and the weights that cannot be pinned."""
        bits = sum(
            tensor.total_bits * node.batch * self.chunk_moves[tensor.name]
            for tensor in self.network.tensors
            if not self.may_stay(tensor, node)
        )
        bits += max(0, self.all_weight_bits - self.room(node) * PAGE_BITS)
        return -(-bits // self.dram_bits)

    def room(self, node: Node) -> int:
        """Pages of BRAM and URAM together, at the most."""
        return node.most_pages + self.uram_groups * URAM_PAGES

    def may_stay(self, tensor: Tensor, node: Node) -> bool:
        ends = tensor.name in self.network.inputs or tensor.name in self.network.outputs
        return not ends and pages(tensor.total_bits * node.batch) <= self.room(node)

    @cached_property
    def all_weight_bits(self) -> int:
        return sum(
            layer.nest.weights * layer.weights.bits * layer.weights.terms
            for layer in self.network.layers
            if layer.weights is not None
        )

    @cached_property
    def chunk_moves(self) -> dict[str, int]:
        """How often chunks move the whole of each tensor at the least: written by one chunk layer, and read if some
        chunk layer needs all of it. The host's transfers are not the chunks'."""
        network, moves = self.network, dict.fromkeys((t.name for t in self.network.tensors), 0)
        for layer in network.layers:
            if layer.unit is Unit.HOST:
                continue
            if len(network.producers[layer.output]) == 1:
                moves[layer.output] = 1 + moves[layer.output]
        for tensor in network.tensors:
            readers = (network.layers[i] for i in network.consumers.get(tensor.name, ()))
            moves[tensor.name] += any(layer.unit is not Unit.HOST and reads_all(layer, tensor) for layer in readers)
        return moves

    @cached_property
    def host_cycles(self) -> int:
        """Cycles of an image on the host, which does one thing at a time, rounded down."""
        return sum(
            int(
                self.network.tensor[layer.output].elements
                / self.board.host.elements_per_second
                * self.board.clock_mhz
                * 1e6
            )
            for layer in self.network.layers
            if layer.unit is Unit.HOST
        )

    def strengthen(self, node: Node, value: float, *, twice: bool = False) -> None:
        """The node's last bound, with DRAM and memory in it, looked for below `value`; and the options and parts of the
        DRAM that attain it. `twice`: also with half of the shares, each of which takes less than any that gives as
        much; that bound is lower, but is found where the other is not."""
        node.final = True
        costs, limits = self.costs(node)
        slot_of = [-1] * len(self.network.layers)
        for n, slot in enumerate(node.slots):
            for i in slot.options.slot.layers:
                slot_of[i] = n
        moved = [
            [
                operands(self.network, layer, node.batch, self.room(node), slot_of, reads_input=whole)
                for layer, whole in (self.reading[i] for i in slot.options.slot.layers)
            ]
            for slot in node.slots
        ]
        if self.options.objective != "fps":
            self.bound_total(node, costs, limits, moved)
            return
        if self.options.max_latency_ms is not None:
            cycles = path_cycles(node.slots, moved, self.longest_path, self.dram_bits)
            if self.too_late(least_sum(cycles, costs, limits)[0]):
                node.bound = float("inf")
                return
        low = node.bound * node.batch
        most = value * node.batch
        high = min(most, GALLOP * low)
        while True:
            made = []
            for slot, cost, layers in zip(node.slots, costs, moved, strict=True):
                index = np.flatnonzero(slot.cycles <= high)
                made.append(
                    priced(slot, index, cost[:, index], layers, self.dram_bits, self.space.shares, self.room(node), low)
                )
            bound, node.picks = least_possible(made, limits, self.room(node), low, high)
            if node.picks is not None or high >= most or bound < high:
                break
            if high > ENDLESS:
                node.bound = float("inf")
                return
            low, high = high, min(most, GALLOP * high)
        start = node.picks is None or len(node.slots) > FEW_SLOTS
        if bound < high and (start or twice):
            spared = (2 - SPARED) / self.space.shares
            again, picks = least_possible(made, limits, self.room(node), bound, high, spared)
            if start:
                node.picks = picks or node.picks
            if twice and made[0].busy.shape[1] % 2 == 0:  # else the whole DRAM is not among them
                bound = again
        node.bound = max(node.bound, bound / node.batch)

    def bound_total(
        self, node: Node, costs: list[np.ndarray], limits: np.ndarray, moved: list[list[list[Operand]]]
    ) -> None:
        """Bounds of latency, energy or their product; shares start equal. The options to start from are those of the
        least sum with the buffers that tuning starts from."""
        level = self.space.first_level
        rows = [*range(len(DUAL_PRICES)), -1]  # the others only compare levels
        starting = [slot_costs(s.options, [level])[rows] for s in node.slots]
        values = cycles = path_cycles(node.slots, moved, self.longest_path, self.dram_bits)
        least_cycles, picks = least_sum(cycles, costs, limits)
        least_cycles = max(least_cycles, float(node.interval))
        if self.too_late(least_cycles):
            node.bound = float("inf")
            return
        node.bound = least_cycles
        if self.options.objective != "latency":
            pj = energies(node.slots, moved, self.board.energy)
            unheld = unheld_pj(moved, self.room(node), self.board.energy)
            least_pj, thrifty = least_sum(pj, costs, limits)
            least_pj += unheld
            node.bound = least_pj / node.batch
            if self.options.objective == "edp":
                values = [e / least_pj + c / least_cycles for e, c in zip(pj, cycles, strict=True)]
                least, picks = least_sum(values, costs, limits)
                node.bound *= least_product(least + unheld / least_pj) * least_cycles / self.board.clock_mhz / 1e3
            else:
                values, picks = pj, thrifty
        picks = least_sum(values, starting, limits[rows])[1] or picks
        node.picks = None if picks is None else [(i, 1 / len(picks)) for i in picks]

    def sharpen(self, node: Node, value: float) -> None:
        """Bound a node once more, with the exact best case of every option that the best accelerator may have."""
        node.sharp = True
        for slot in node.slots:
            slot.sharpen(np.flatnonzero(slot.cycles <= value * node.batch))
        if self.rebound(node):
            self.strengthen(node, value, twice=True)
        else:
            node.bound = float("inf")

    @cached_property
    def reading(self) -> list[tuple[Layer, bool]]:
        """Each layer, and whether it reads all of its main input."""
        network = self.network
        return [(layer, reads_all(layer, network.tensor[layer.inputs[0]])) for layer in network.layers]

    @cached_property
    def longest_path(self) -> set[int]:
        """The layers of the chain of dependencies with most operations: a batch alone takes at least their time."""
        network = self.network
        most: list[tuple[int, int]] = []
        for layer in network.layers:
            before = [(most[p][0], p) for name in layer.inputs for p in network.producers.get(name, ())]
            work, last = max(before, default=(0, -1))
            most.append((work + (0 if layer.unit is Unit.HOST else layer.nest.macs + 1), last))
        at = max(range(len(most)), key=lambda i: most[i][0])
        found = set()
        while at >= 0:
            found.add(at)
            at = most[at][1]
        return found


def reads_all(layer: Layer, tensor: Tensor) -> bool:
    """Whether the windows of a layer cover its whole main input (other operands do not count, they may broadcast)."""
    nest = layer.nest
    covered = all(
        nest.stride[axis] <= nest.span(axis, 1) and nest.span(axis, outputs) - nest.pad[axis] >= size
        for axis, outputs, size in ((0, nest.oy, nest.iy), (1, nest.ox, nest.ix))
    )
    return layer.inputs[0] == tensor.name and covered and nest.g * nest.c * nest.iy * nest.ix == tensor.elements
