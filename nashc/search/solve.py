"""Coarse-to-fine search: the best accelerator, memory plan and mappings of a network on a board, with a certificate.

A node of the search is a partition, a batch and a memory size. Its bound is the least busy time that any choice of
unrollings reaches (coarse stage, refined until the options that attain it are exact), or the DRAM time of traffic that
no plan of its memory avoids. Its estimate says what a plan is likely to reach. The nodes with the best estimates get
a first plan (fine stage), the best of those a thorough one. The certificate's bound is the least over all nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np

from nashc.board import Board
from nashc.core.design import Accelerator, Certificate, Chunk, Design, Resources
from nashc.core.network import Layer, Network, Tensor, Unit
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.machine import PAGE_BANKS, PAGE_BITS, Machine, pages
from nashc.hw.resources import chunk_resources, machine_of, memory_resources, read_ports, usable
from nashc.search.coarse import BoundedSlot, bounded_slot, least_interval, slot_costs, use_leftover
from nashc.search.finish import design_of, objective_of
from nashc.search.plan import NoMapping, Planned, Planner, methods_for
from nashc.search.space import (
    BATCHES,
    BUFFER_LEVELS,
    DUAL_PRICES,
    MEMORY_EIGHTHS,
    SHARE_SIXTEENTHS,
    Slot,
    SlotOptions,
    partitions,
    slot_options,
    work_of,
)

Progress = Callable[[str, float], None]
LISTED, LISTED_PER_BATCH, PLANNED = 10, 4, 3
"""Nodes that get a first plan, at most so many of one batch, and those that get a thorough one."""
REFINED = 150
"""Options made exact at most."""
SHARE_MOVES = 4
LIVE_TENSORS = 3
FITTING_ROUNDS = 16
MOST_COUNTED = 2**63 - 1
"""A larger space is reported as this many: design.json keeps to 64-bit integers."""


@dataclass(eq=False)
class Node:
    """One (partition, batch, memory size), with its bound and estimate in units of the objective."""

    key: tuple[int, int, int]
    slots: list[BoundedSlot]
    batch: int
    memory_pages: int
    interval: int = 0
    bound: float = 0.0
    estimate: float = 0.0
    choice: list[int] = field(default_factory=list)
    shares: tuple[int, ...] = ()


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
        """The best plan: a quick plan of each node on the short list, a thorough one of the most promising."""
        best: Planned | None = None
        best_value = float("inf")
        surveyed: list[tuple[float, tuple[int, int, int], Node]] = []
        listed = self.shortlist(nodes)
        for thorough in (False, True):
            chosen = [n for _, _, n in sorted(surveyed, key=lambda s: s[:2])[:PLANNED]] if thorough else listed
            for count, node in enumerate(chosen):
                if best is not None and self.out_of_time():
                    break
                self.report("thorough plans" if thorough else "first plans", count / len(chosen))
                self.tighten(node)
                if node.bound >= best_value:
                    continue
                methods = methods_for(len(node.slots))
                found = self.plan(node, *((methods, SHARE_MOVES) if thorough else (methods[:1], 0)))
                if found is not None:
                    surveyed.append((self.value(found), node.key, node))
                    if surveyed[-1][0] < best_value:
                        best, best_value = found, surveyed[-1][0]
        return best, best_value

    def shortlist(self, nodes: list[Node]) -> list[Node]:
        """The best node without a memory, which is quick to plan, then those with the best estimates, at most
        LISTED_PER_BATCH a batch."""
        order = sorted(nodes, key=lambda n: (n.estimate, n.key))
        listed = [n for n in order if n.memory_pages == 0][:1]
        for node in order:
            same = sum(n.batch == node.batch for n in listed)
            if node not in listed and same < LISTED_PER_BATCH and len(listed) < LISTED:
                listed.append(node)
        return listed

    def prove(self, nodes: list[Node], value: float) -> tuple[float, str]:
        """(a bound of the objective over the whole space, why it is no better): the loosest nodes are made exact."""
        while True:
            node = min(nodes, key=lambda n: (n.bound, n.key))
            if node.bound >= value:
                return value, "proven"
            if all(s.exact[i] for s, i in zip(node.slots, node.choice, strict=True)):
                return node.bound, "plans"
            if self.refined >= REFINED or self.out_of_time():
                return node.bound, "limit" if self.refined >= REFINED else "budget"
            self.tighten(node)

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
        found: list[Node] = []
        bounded: dict[tuple[Slot, int], BoundedSlot] = {}
        parts = self.parts or partitions(self.network)
        for slot in dict.fromkeys(slot for partition in parts for slot in partition):
            table = self.options_of(slot)
            for batch in batches:
                bounded[slot, batch] = bounded_slot(table, self.network, batch, self.machine, self.dram_bits)
        for p, partition in enumerate(parts):
            unrollings = prod(len(bounded[slot, batches[0]].options) * len(BUFFER_LEVELS) for slot in partition)
            for b, batch in enumerate(batches if unrollings else ()):
                interval = 0
                slots = [bounded[slot, batch] for slot in partition]
                for m in MEMORY_EIGHTHS if self.options.memory_plan else (0,):
                    self.space += unrollings
                    node = Node((p, b, m), slots, batch, total_pages * m // 8, interval)
                    if self.rebound(node):
                        interval = node.interval  # more memory leaves fewer resources, so the next is no less
                        self.guess(node)
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
        interval = node.interval
        node.bound = self.objective_bound(node, max(interval, self.unavoidable(node)))
        return True

    def objective_bound(self, node: Node, interval: int) -> float:
        """A bound of the objective from the bound of the interval."""
        if self.options.objective == "fps":
            return interval / node.batch
        return 0.0

    def costs(self, node: Node) -> tuple[list[np.ndarray], np.ndarray]:
        memory = memory_resources(self.board, node.memory_pages, read_ports(s.options.slot.unit for s in node.slots))
        luts = [self.limit.lut - memory.lut + price * self.limit.dsp for price in DUAL_PRICES]
        limits = np.array([*luts, self.limit.bram18 - memory.bram18], dtype=np.float64)
        return [slot_costs(s.options, 0) for s in node.slots], limits

    def unavoidable(self, node: Node) -> int:
        """DRAM cycles of a period that no memory plan avoids: both ends of the network, tensors larger than the
        memory, and the weights that cannot be pinned."""
        network, bits = self.network, 0
        for tensor in network.tensors:
            size = tensor.total_bits * node.batch
            ends = tensor.name in network.inputs or tensor.name in network.outputs
            if ends or pages(size) > node.memory_pages:
                bits += size * self.chunk_moves[tensor.name]
        weights = sum(
            layer.nest.weights * layer.weights.bits * layer.weights.terms
            for layer in network.layers
            if layer.weights is not None
        )
        bits += max(0, weights - node.memory_pages * PAGE_BITS)
        return -(-bits // self.dram_bits)

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

    def tighten(self, node: Node) -> None:
        """Make the options that attain the node's bound exact, until they stay the same."""
        while not self.out_of_time():
            open_slots = [(s, i) for s, i in zip(node.slots, node.choice, strict=True) if not s.exact[i]]
            if not open_slots:
                return
            for slot, i in open_slots:
                slot.refine(i)
                self.refined += 1
            self.rebound(node)

    def guess(self, node: Node) -> None:
        """Estimate the objective and the DRAM shares: a feature map stays on chip if LIVE_TENSORS of its size fit;
        each layer takes the longer of its busy bound and its DRAM time."""
        network = self.network
        capacity = node.memory_pages / LIVE_TENSORS
        away = {t.name for t in network.tensors if pages(t.total_bits * node.batch) > capacity}
        away |= {*network.inputs, *network.outputs}
        compute, bits = [], []
        for slot, i in zip(node.slots, node.choice, strict=True):
            rows = [network.layers[m] for m in slot.options.slot.layers]
            works = [work_of(network, layer, node.batch) for layer in rows]
            cycles = slot.work_cycles(i)
            compute.append([cycles[w] for w in works])
            bits.append([
                w.nest.weights * w.weight_bits * w.terms
                + sum(network.tensor[n].total_bits for n in (*layer.inputs, layer.output) if n in away) * node.batch
                for w, layer in zip(works, rows, strict=True)
            ])  # fmt: skip
        times = [
            [
                sum(max(c, b * SHARE_SIXTEENTHS // (s * self.dram_bits)) for c, b in zip(cs, bs, strict=True))
                for s in range(1, SHARE_SIXTEENTHS + 1)
            ]
            for cs, bs in zip(compute, bits, strict=True)
        ]
        interval, node.shares = share_out(times)
        node.estimate = interval / node.batch

    def plan(self, node: Node, methods: tuple[int, ...], moves: int) -> Planned | None:
        """The fine stage on a node's best accelerator: buffers, memory plan, schedule, and at most so many moves of
        DRAM shares. Without a memory a plan is quick, so it always gets its moves."""
        made = self.fitting(node)
        if made is None:
            return None
        chunks, node_pages = made
        shares = node.shares
        if not self.options.memory_plan or not node.memory_pages:
            methods, moves = (), SHARE_MOVES
        found = self.planned(chunks, shares, node.batch, node_pages, methods)
        for _ in range(moves if found else 0):
            assert found is not None
            moved = self.better_shares(found, shares)
            if moved == shares or self.out_of_time():
                break
            again = (found.method,) if found.method in methods else ()
            other = self.planned(chunks, moved, node.batch, node_pages, again)
            if other is None or self.value(other) >= self.value(found):
                break
            found, shares = other, moved
        return found

    def fitting(self, node: Node) -> tuple[tuple[Chunk, ...], int] | None:
        """The node's chunks with the largest buffers that fit; the coarse limits are optimistic about DSPs, so the
        options are chosen again under tighter ones until the exact count fits."""
        costs, limits = self.costs(node)
        choice = use_leftover(node.slots, costs, limits, node.choice)
        for _ in range(FITTING_ROUNDS):
            for level in reversed(range(len(BUFFER_LEVELS))):
                chunks = tuple(
                    s.options.chunk(i, level, self.dram_bits) for s, i in zip(node.slots, choice, strict=True)
                )
                used = self.total(chunks, node.memory_pages)
                if used.fits(self.limit):
                    return chunks, node.memory_pages
            excess = max(used.lut - self.limit.lut, 0) + max(used.ff - self.limit.ff, 0) // 2
            excess += 200 * max(used.dsp - self.limit.dsp, 0)
            limits = limits.copy()
            limits[: len(DUAL_PRICES)] -= min(max(excess, 200), self.limit.lut // 20)
            found = least_interval(node.slots, costs, limits)
            if found is None:
                return None
            choice = use_leftover(node.slots, costs, limits, found[1])
        return None

    def total(self, chunks: tuple[Chunk, ...], memory_pages: int) -> Resources:
        used = memory_resources(self.board, memory_pages, read_ports(c.unit for c in chunks))
        for part in chunk_resources(self.board, chunks, self.limit.dsp):
            used = used + part
        return used

    def resources(self, accelerator: Accelerator) -> tuple[Resources, ...]:
        return chunk_resources(self.board, accelerator.chunks, self.limit.dsp)

    def better_shares(self, found: Planned, shares: tuple[int, ...]) -> tuple[int, ...]:
        """Move a sixteenth from the least loaded chunk that has more than one to the most loaded."""
        load = [0] * len(shares)
        for task in found.tasks:
            if task.chunk >= 0:
                load[task.chunk] += task.cycles
        to = max(range(len(load)), key=lambda c: load[c])
        givers = [c for c in range(len(load)) if c != to and shares[c] > 1]
        if not givers:
            return shares
        giver = min(givers, key=lambda c: load[c])
        moved = list(shares)
        moved[giver] -= 1
        moved[to] += 1
        return tuple(moved)

    def planned(
        self,
        chunks: tuple[Chunk, ...],
        shares: tuple[int, ...],
        batch: int,
        memory_pages: int,
        methods: tuple[int, ...],
    ) -> Planned | None:
        sized = tuple(
            replace(c, dram_bits=max(1, self.dram_bits * s // SHARE_SIXTEENTHS))
            for c, s in zip(chunks, shares, strict=True)
        )
        planner = Planner(self.network, self.board, self.machine, Accelerator(sized, batch), memory_pages)
        try:
            return planner.solve(methods, self.value, self.out_of_time)
        except NoMapping:
            return None


def reads_all(layer: Layer, tensor: Tensor) -> bool:
    """Whether the windows of a layer cover its whole main input (other operands do not count, they may broadcast)."""
    nest = layer.nest
    covered = all(
        nest.stride[axis] <= nest.span(axis, 1) and nest.span(axis, outputs) - nest.pad[axis] >= size
        for axis, outputs, size in ((0, nest.oy, nest.iy), (1, nest.ox, nest.ix))
    )
    return layer.inputs[0] == tensor.name and covered and nest.g * nest.c * nest.iy * nest.ix == tensor.elements


def share_out(times: list[list[int]]) -> tuple[int, tuple[int, ...]]:
    """The least interval, and shares, when chunk i needs times[i][s-1] cycles with s of the SHARE_SIXTEENTHS shares."""
    for interval in sorted({t for row in times for t in row}):
        need = [next((s for s, t in enumerate(row, 1) if t <= interval), None) for row in times]
        shares = [s for s in need if s is not None]
        if len(shares) == len(times) and sum(shares) <= SHARE_SIXTEENTHS:
            spare = SHARE_SIXTEENTHS - sum(shares)
            shares[max(range(len(shares)), key=lambda i: times[i][shares[i] - 1])] += spare
            return interval, tuple(shares)
    equal = max(1, SHARE_SIXTEENTHS // len(times))
    return max(row[equal - 1] for row in times), (equal,) * len(times)
