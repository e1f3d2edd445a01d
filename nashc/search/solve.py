"""Coarse-to-fine search: the best accelerator, memory plan and mappings of a network on a board, with a certificate.

A node of the search is a partition, a batch and a range of memory sizes. Its bound is the least objective that any choice
of unrollings reaches (coarse stage, refined until the options that attain it are exact), or what the traffic costs that
no plan of its memory avoids. Nodes are tuned in the order of their estimates (nashc.search.tune): each gets an
accelerator and a bound of the plans on it; the most promising ones get a plan (fine stage). The certificate's bound is
the least over all nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np

from nashc.board import Board
from nashc.core.design import Accelerator, Certificate, Design, Resources
from nashc.core.network import Layer, Network, Tensor, Unit
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.machine import PAGE_BANKS, PAGE_BITS, Machine, pages
from nashc.hw.resources import chunk_resources, machine_of, memory_resources, read_ports, usable
from nashc.search.bound import Priced, least_possible, operands, priced
from nashc.search.coarse import BoundedSlot, bounded_slot, least_interval, slot_costs
from nashc.search.finish import design_of, objective_of
from nashc.search.memory import Relaxed
from nashc.search.plan import QUICK, THOROUGH, Planned, plan
from nashc.search.space import (
    BATCHES,
    BUFFER_LEVELS,
    DUAL_PRICES,
    MEMORY_EIGHTHS,
    Slot,
    SlotOptions,
    partitions,
    slot_options,
)
from nashc.search.tune import Tuned, Tuner

Progress = Callable[[str, float], None]
GALLOP = 1.3
"""How far above a node's bound the better bound is looked for at first."""
RELIEFS = (1.0, 1.12, 1.3)
SURVEYED, PLANNED, REBALANCED = 5, 2, 3
"""Accelerators that get a quick plan; those of them that get a thorough one; and how often their buffers and shares are
chosen again for the plan that came out."""
MOST_COUNTED = 2**63 - 1
"""A larger space is reported as this many: design.json keeps to 64-bit integers."""


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


def solve(network: Network, board: Board, options: Options, progress: Progress | None = None) -> Design:
    """The best design found, with its certificate; raises NashcError when nothing fits."""
    return Search(network, board, options, progress).run()


@dataclass
class Search:
    """State of one search; `run` is its outline."""

    network: Network
    board: Board
    options: Options
    progress: Progress | None = None
    parts: list[tuple[Slot, ...]] | None = None
    table: Callable[[Slot], SlotOptions] | None = None

    def __post_init__(self) -> None:
        if self.options.clock_mhz is not None:
            self.board = replace(self.board, clock_mhz=self.options.clock_mhz)
        self.machine: Machine = machine_of(self.board)
        self.dram_bits = int(self.board.dram_bytes_per_cycle * 8)
        self.limit = usable(self.board, self.options.max_lut, self.options.max_dsp, self.options.max_bram36)
        self.started = time.monotonic()
        self.least_ms = float("inf")
        self.space = 0
        self.refined = 0

    def run(self) -> Design:
        if not any(layer.unit is not Unit.HOST for layer in self.network.layers):
            raise NashcError("no node of the model runs on the accelerator", hint="see 'nashc inspect MODEL'")
        nodes = self.nodes()
        best, best_value = self.descend(nodes)
        if best is None and self.least_ms < float("inf"):
            raise NashcError(
                f"no design found keeps --max-latency-ms {self.options.max_latency_ms:g}",
                hint=f"the least latency found is {self.least_ms:.4g} ms",
            )
        if best is None:
            raise NashcError(
                f"no accelerator for '{self.network.name}' fits on {self.board.name}",
                hint="try a larger board, smaller --batch, or relax --max-* limits",
            )
        bound, stopped = self.prove(nodes, best_value)
        certificate = Certificate(
            objective=self.options.objective,
            value=best_value,
            bound=bound,
            optimal=best_value <= bound,
            space=min(self.space, MOST_COUNTED),
            refined=self.refined,
            stopped=stopped,
        )
        return design_of(self.network, self.board, self.machine, best, certificate, self.resources(best.accelerator))

    def descend(self, nodes: list[Node]) -> tuple[Planned | None, float]:
        """The best plan. Nodes are bounded and tuned in the order of their bounds until those are no better than the best
        tuned accelerator; then the best accelerators get plans."""
        tuned: list[tuple[float, tuple[int, int, int], Tuner, Tuned]] = []
        least = float("inf")
        while open_nodes := [n for n in nodes if not n.tuned and n.bound < least]:
            if tuned and self.out_of_time():
                break
            node = min(open_nodes, key=lambda n: (n.bound, n.key))
            self.report("accelerators", min(1.0, node.bound / least))
            if not node.final:
                self.strengthen(node, least)
                continue
            node.tuned = True
            if node.picks is None:
                continue
            tuner = Tuner(
                self.network, self.board, self.machine, self.limit, node.slots, node.batch,
                (node.least_pages, node.most_pages),
            )  # fmt: skip
            made = tuner.best([i for i, _ in node.picks], [part for _, part in node.picks], self.out_of_time)
            if made is not None:
                tuned.append((made.interval / node.batch, node.key, tuner, made))
                least = min(least, tuned[-1][0])
        return self.plans(tuned)

    def plans(
        self, tuned: list[tuple[float, tuple[int, int, int], Tuner, Tuned]]
    ) -> tuple[Planned | None, float]:
        """The best plan of the best tuned accelerators."""
        quick: list[tuple[float, int, Tuner, Tuned, Planned]] = []
        for _, _, tuner, first in sorted(tuned, key=lambda t: t[:2])[:SURVEYED]:
            for relief in RELIEFS:
                if quick and self.out_of_time():
                    break
                self.report("first plans", len(quick) / SURVEYED / len(RELIEFS))
                made = first if relief == 1 else tuner.relieved(first, relief)
                if made is None:
                    continue
                whole = tuner.whole(made)
                planned = plan(whole.tables, whole.relaxed, QUICK)
                quick.append((self.value(planned), len(quick), tuner, whole, planned))
        best: Planned | None = None
        best_value = float("inf")
        for count, (value, _, tuner, made, planned) in enumerate(sorted(quick, key=lambda t: t[:2])[:PLANNED]):
            self.report("thorough plans", count / PLANNED)
            for _ in range(REBALANCED):
                if self.out_of_time():
                    break
                other = tuner.tuned(tuner.rebalanced(replace(made, relaxed=Relaxed(made.interval, planned.on))))
                if other is None or other.candidate == made.candidate:
                    break
                whole = tuner.whole(other)
                again = plan(whole.tables, whole.relaxed, QUICK)
                if self.value(again) >= value:
                    break
                value, made, planned = self.value(again), whole, again
            for found in (planned, *([] if self.out_of_time() else [plan(made.tables, made.relaxed, THOROUGH)])):
                if self.value(found) < best_value:
                    best, best_value = found, self.value(found)
        return best, best_value

    def prove(self, nodes: list[Node], value: float) -> tuple[float, str]:
        """(a bound of the objective over the whole space, why it is no better): the loosest nodes are bounded better."""
        while True:
            node = min(nodes, key=lambda n: (n.bound, n.key))
            if node.bound >= value:
                return value, "proven"
            if node.final:
                return node.bound, "plans"
            if self.out_of_time():
                return node.bound, "budget"
            self.report("proof", min(1.0, node.bound / value))
            self.strengthen(node, value)

    def strengthen(self, node: Node, value: float) -> None:
        """The node's last bound, looked for below `value`, and the choice of options and DRAM parts that attains it."""
        node.final = True
        if self.options.objective != "fps":
            node.picks = [(i, 1 / len(node.slots)) for i in node.choice]
            return
        low = node.bound * node.batch
        high = min(value * node.batch, GALLOP * low) if value < float("inf") else GALLOP * low
        slot_of = [-1] * len(self.network.layers)
        for n, slot in enumerate(node.slots):
            for i in slot.options.slot.layers:
                slot_of[i] = n
        costs, limits = self.costs(node)
        while True:
            made = [
                self.priced(node, slot, cost, slot_of, low, high) for slot, cost in zip(node.slots, costs, strict=True)
            ]
            bound, node.picks = least_possible(made, limits, node.most_pages, low, high)
            if node.picks is not None or high >= value * node.batch:
                break
            low, high = high, min(value * node.batch, GALLOP * high)
        node.bound = max(node.bound, bound / node.batch)

    def priced(
        self, node: Node, slot: BoundedSlot, costs: np.ndarray, slot_of: list[int], low: float, high: float
    ) -> Priced:
        moved = []
        for i in slot.options.slot.layers:
            layer = self.network.layers[i]
            whole = reads_all(layer, self.network.tensor[layer.inputs[0]])
            moved.append(operands(self.network, layer, node.batch, node.most_pages, slot_of, reads_input=whole))
        index = np.flatnonzero(slot.cycles <= high)
        return priced(slot, index, costs[:, index], moved, self.dram_bits, node.most_pages, low)

    def value(self, planned: Planned) -> float:
        if self.options.max_latency_ms is not None:
            milliseconds = planned.latency / self.board.clock_mhz / 1e3
            if milliseconds > self.options.max_latency_ms:
                self.least_ms = min(self.least_ms, milliseconds)
                return float("inf")
        return objective_of(self.options.objective, self.network, self.board, self.machine, planned)

    def report(self, stage: str, share: float) -> None:
        if self.progress is not None:
            self.progress(stage, share)

    def out_of_time(self) -> bool:
        budget = self.options.budget_seconds
        return budget is not None and time.monotonic() - self.started > budget

    def nodes(self) -> list[Node]:
        """All nodes with their coarse bounds."""
        total_pages = self.limit.bram18 // 2 // PAGE_BANKS
        batches = BATCHES if self.options.batch is None else (self.options.batch,)
        eighths = MEMORY_EIGHTHS if self.options.memory_plan else (0,)
        found: list[Node] = []
        bounded: dict[tuple[Slot, int], BoundedSlot] = {}
        parts = self.parts or partitions(self.network)
        for slot in dict.fromkeys(slot for partition in parts for slot in partition):
            table = self.options_of(slot)
            for batch in batches:
                bounded[slot, batch] = bounded_slot(table, self.network, batch, self.machine, self.dram_bits)
        for p, partition in enumerate(parts):
            for b, batch in enumerate(batches):
                slots = [bounded[slot, batch] for slot in partition]
                unrollings = prod(len(slot.options) * len(BUFFER_LEVELS) for slot in slots)
                interval = 0
                for m, least in enumerate(eighths if unrollings else ()):
                    self.space += unrollings
                    most = total_pages * eighths[m + 1] // 8 - 1 if m + 1 < len(eighths) else total_pages
                    if not self.options.memory_plan:
                        most = 0
                    node = Node((p, b, m), slots, batch, total_pages * least // 8, most, interval)
                    if self.rebound(node):
                        interval = node.interval  # more memory leaves fewer resources, so the next is no less
                        found.append(node)
        return found

    def options_of(self, slot: Slot) -> SlotOptions:
        if self.table is not None:
            return self.table(slot)
        return slot_options(slot, self.network, self.board, self.machine, self.options)

    def rebound(self, node: Node) -> bool:
        """Recompute a node's bound from its slots' present bounds; False if nothing fits the board."""
        found = least_interval(node.slots, *self.costs(node), at_least=node.interval)
        if found is None:
            return False
        node.interval, node.choice = found
        node.bound = self.objective_bound(node, max(node.interval, self.unavoidable(node)))
        return True

    def objective_bound(self, node: Node, interval: int) -> float:
        """A bound of the objective from the bound of the interval."""
        if self.options.objective == "fps":
            return interval / node.batch
        return 0.0

    def costs(self, node: Node) -> tuple[list[np.ndarray], np.ndarray]:
        memory = memory_resources(self.board, node.least_pages, read_ports(s.options.slot.unit for s in node.slots))
        luts = [self.limit.lut - memory.lut + price * self.limit.dsp for price in DUAL_PRICES]
        limits = np.array([*luts, self.limit.bram18 - memory.bram18], dtype=np.float64)
        return [slot_costs(s.options, 0) for s in node.slots], limits

    def unavoidable(self, node: Node) -> int:
        """DRAM cycles of a period that no memory plan avoids: both ends of the network, tensors larger than the
        memory, and the weights that cannot be pinned."""
        bits = sum(
            tensor.total_bits * node.batch * self.chunk_moves[tensor.name]
            for tensor in self.network.tensors
            if not self.may_stay(tensor, node)
        )
        bits += max(0, self.all_weight_bits - node.most_pages * PAGE_BITS)
        return -(-bits // self.dram_bits)

    def may_stay(self, tensor: Tensor, node: Node) -> bool:
        ends = tensor.name in self.network.inputs or tensor.name in self.network.outputs
        return not ends and pages(tensor.total_bits * node.batch) <= node.most_pages

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

    def resources(self, accelerator: Accelerator) -> tuple[Resources, ...]:
        return chunk_resources(self.board, accelerator.chunks, self.limit.dsp)


def reads_all(layer: Layer, tensor: Tensor) -> bool:
    """Whether the windows of a layer cover its whole main input (other operands do not count, they may broadcast)."""
    nest = layer.nest
    covered = all(
        nest.stride[axis] <= nest.span(axis, 1) and nest.span(axis, outputs) - nest.pad[axis] >= size
        for axis, outputs, size in ((0, nest.oy, nest.iy), (1, nest.ox, nest.ix))
    )
    return layer.inputs[0] == tensor.name and covered and nest.g * nest.c * nest.iy * nest.ix == tensor.elements
