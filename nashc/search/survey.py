"""The coarse stage for many networks of one family on one board: what a joint search asks of every candidate.

The options of a slot are those that no other option beats on some sample network; the busy bound of a layer shape on
all of them is computed once and kept. A network then costs a sum of vectors and one search over intervals
(nashc.search.coarse). The result is the least interval of these accelerators, and of what no memory plan keeps on chip:
no plan of any of them at that batch gets below. How near designs come depends on the network: measured in
benchmarks/README.md, "Joint search".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nashc.board import Board
from nashc.core.design import Work
from nashc.core.network import Network, Unit
from nashc.core.number import Ints
from nashc.core.options import Options
from nashc.hw.machine import PAGE_BANKS
from nashc.hw.resources import usable
from nashc.search.coarse import (
    BoundedSlot,
    busy_bound,
    front,
    least_interval,
    slot_costs,
    slot_limits,
    without_extras,
)
from nashc.search.nodes import Node, Nodes
from nashc.search.space import Slot, SlotOptions, partitions, priced, work_of

DEFAULT_BATCH = 16
"""The largest that the search tries: the more images share weights and overheads, the fewer cycles for each."""
Key = tuple[Unit, str, int]
"""Unit, role and weight bits of a slot."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """Cycles of an image at the least interval, and the lanes of each chunk there, by its name."""

    cycles: float
    lanes: dict[str, int]


@dataclass(eq=False)
class Table:
    """Options of all slots of one kind, what they cost, and the busy bound of each layer shape met so far on them."""

    options: SlotOptions
    costs: np.ndarray
    bounds: dict[Work, Ints] = field(default_factory=dict)


class Survey:
    """Least intervals of networks like the samples, each with one chunk for dense and one for depthwise layers of a
    unit. A kind of slot that no sample has is looked into when it comes."""

    def __init__(self, board: Board, options: Options, samples: Sequence[Network]) -> None:
        self.board = board if options.clock_mhz is None else replace(board, clock_mhz=options.clock_mhz)
        self.batch = options.batch or DEFAULT_BATCH
        self.options = replace(options, batch=self.batch, clock_mhz=None)
        self.tables: dict[Key, Table] = {}
        found: dict[Key, list[SlotOptions]] = {}
        for network in samples:
            for slot in self._bounded(network, partitions(network)[0]):
                if len(slot.options):
                    found.setdefault(_key(slot.options.slot), []).append(slot.options)
        for key, parts in found.items():
            self.tables[key] = self._table(parts)

    def fps(self, network: Network) -> float:
        """Frames a second at the least interval; 0 where nothing fits the board."""
        found = self.survey(network)
        return 0.0 if found is None else self.board.clock_mhz * 1e6 / found.cycles

    def survey(self, network: Network) -> Surveyed | None:
        """The least interval and the lanes that reach it; None where nothing fits the board."""
        nodes = Nodes(network, self.board, self.options)
        slots, costs = [], []
        for slot in partitions(network)[0]:
            table = self._table_of(slot, network)
            if table is None:
                return None
            bounded, cost = _lean(table, slot, network, self.batch, nodes)
            slots.append(bounded)
            costs.append(cost)
        found = least_interval(slots, costs, slot_limits(self.board, nodes.limit, slots, 0, nodes.uram_groups))
        if found is None or not found[1]:
            return None
        most_pages = nodes.limit.bram18 // 2 // PAGE_BANKS if self.options.memory_plan else 0
        node = Node((0, 0, 0), slots, self.batch, 0, most_pages)
        cycles = max(found[0], nodes.unavoidable(node), nodes.host_cycles * self.batch) / self.batch
        return Surveyed(
            cycles, {s.options.slot.name: int(s.options.lanes[i]) for s, i in zip(slots, found[1], strict=True)}
        )

    def _table_of(self, slot: Slot, network: Network) -> Table | None:
        """The table of a slot's kind; None where nothing of it fits the board."""
        key = _key(slot)
        if key not in self.tables:
            options = self._bounded(network, (slot,))[0].options
            if not len(options):
                return None
            self.tables[key] = self._table([options])
        return self.tables[key]

    def _bounded(self, network: Network, slots: Sequence[Slot]) -> list[BoundedSlot]:
        nodes = Nodes(network, self.board, self.options)
        return [nodes.bounded(slot, self.batch) for slot in slots]

    def _table(self, parts: Sequence[SlotOptions]) -> Table:
        """All options of the parts, each once, with buffers for the most second operands of any."""
        first = parts[0]
        slot = replace(
            first.slot,
            activation_bits=max(p.slot.activation_bits for p in parts),
            extra_bits=max(p.slot.extra_bits for p in parts),
            symmetric=all(p.slot.symmetric for p in parts),
        )
        rows = np.concatenate([np.column_stack([p.factors, p.post]) for p in parts if p.lane_kind == first.lane_kind])
        wanted = {tuple(row) for row in rows.tolist()}
        unrollings = np.unique(rows[:, :7], axis=0)
        limit = usable(self.board, self.options.max_lut, self.options.max_dsp, self.options.max_bram36)
        options = priced(slot, first.lane_kind, (), unrollings, self.board, first.machine, limit)
        keys = np.column_stack([options.factors, options.post]).tolist()
        options = options.take(np.flatnonzero([tuple(key) in wanted for key in keys]))
        return Table(options, slot_costs(options, range(len(options.luts))))


def _lean(table: Table, slot: Slot, network: Network, batch: int, nodes: Nodes) -> tuple[BoundedSlot, np.ndarray]:
    """The slot's options that no other one beats on this network, and what they cost."""
    total = np.zeros(len(table.options), dtype=np.int64)
    for i in slot.layers:
        work = without_extras(work_of(network, network.layers[i], batch))
        if work not in table.bounds:
            table.bounds[work] = busy_bound(table.options, work, nodes.machine, nodes.dram_bits)
        total += table.bounds[work]
    lean = np.sort(front(np.vstack([table.costs, total[None, :]])))
    options = replace(table.options.take(lean), slot=slot)
    return BoundedSlot(options, (), (0,), total[None, lean], nodes.machine, nodes.dram_bits), table.costs[:, lean]


def _key(slot: Slot) -> Key:
    return slot.unit, slot.role, slot.weight_bits
