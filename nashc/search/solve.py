"""Coarse-to-fine search: the best accelerator, memory plan and mappings of a network on a board, with a certificate.

A node of the search is a partition, a batch and a range of memory sizes. Its bound is the least objective that any
choice of unrollings reaches (nashc.search.coarse), then with DRAM shares and memory in it (nashc.search.bound). In the
order of their bounds, nodes get their best accelerator (nashc.search.tune); the most promising accelerators get a plan
(nashc.search.plan). At last the loosest nodes are bounded with exact mappings, and small ones written out. The
certificate's bound is the least over all nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

import numpy as np

from nashc.board import Board
from nashc.core.design import Accelerator, Certificate, Design, Resources
from nashc.core.network import Layer, Network, Tensor, Unit
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.machine import PAGE_BANKS, PAGE_BITS, Machine, pages
from nashc.hw.resources import chunk_resources, machine_of, memory_resources, read_ports, usable
from nashc.hw.schedule import latency
from nashc.search.bound import Operand, energies, least_possible, least_sum, operands, path_cycles, priced
from nashc.search.coarse import BoundedSlot, bounded_slot, least_interval, slot_costs
from nashc.search.finish import design_of, objective_of
from nashc.search.memory import Relaxed
from nashc.search.objectives import planned as planned_for
from nashc.search.objectives import relaxed_value
from nashc.search.plan import QUICK, THOROUGH, Planned
from nashc.search.space import (
    BUFFER_LEVELS,
    CHANNEL_FACTORS,
    DUAL_PRICES,
    PIXEL_FACTORS,
    Slot,
    SlotOptions,
    Space,
    partitions,
    slot_options,
)
from nashc.search.tune import Candidate, Tuned, Tuner

Progress = Callable[[str, float], None]
SPREAD = 1.5
"""How much worse the best node of a batch may be than the best accelerator so far and still be tuned: plans come nearer
to their bounds where the memory is less contended, with small batches or much memory."""
GALLOP = 1.3
"""How far above a node's bound the better bound is looked for at first."""
RELIEFS = (1.0, 1.25)
"""How much longer than their bounds the chunks beside the main one are taken to need, in accelerators to be planned."""
WRITTEN_OUT = 2_000
"""A node of at most so many accelerators is written out where that may close its gap."""
TUNED, SURVEYED, PLANNED, REBALANCED = 10, 4, 2, 3
"""Nodes that are tuned; accelerators that get a quick plan; those of them that get a thorough one; and how often their
buffers and shares are chosen again for the plan that came out."""
NEAR = 1.05
"""Quick plans this near to the best one are worth finding too, as a thorough one may make up for it."""
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
    sharp: bool = False
    closed: bool = False


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
    space: Space = field(default_factory=Space)

    def __post_init__(self) -> None:
        if self.options.clock_mhz is not None:
            self.board = replace(self.board, clock_mhz=self.options.clock_mhz)
        self.machine: Machine = machine_of(self.board)
        self.dram_bits = int(self.board.dram_bytes_per_cycle * 8)
        self.limit = usable(self.board, self.options.max_lut, self.options.max_dsp, self.options.max_bram36)
        self.started = time.monotonic()
        self.least_ms = float("inf")
        self.accelerators = 0
        self.tuners: list[Tuner] = []

    def run(self) -> Design:
        if not any(layer.unit is not Unit.HOST for layer in self.network.layers):
            raise NashcError("no node of the model runs on the accelerator", hint="see 'nashc inspect MODEL'")
        nodes = self.nodes()
        best, value = self.descend(nodes)
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
        best, value, bound, stopped = self.prove(nodes, best, value)
        certificate = Certificate(
            objective=self.options.objective,
            value=value,
            bound=bound,
            optimal=value <= bound,
            space=min(self.accelerators, MOST_COUNTED),
            refined=sum(len(tuner.seen) for tuner in self.tuners),
            stopped=stopped,
        )
        return design_of(self.network, self.board, self.machine, best, certificate, self.resources(best.accelerator))

    def descend(self, nodes: list[Node]) -> tuple[Planned | None, float]:
        """The best plan. Nodes are bounded and tuned in the order of their bounds until those are no better than the
        best tuned accelerator, one of each batch in any case; then the best get plans. Accelerators on which no plan
        keeps the latency limit get some only if there are no others."""
        tuned: list[tuple[float, tuple[int, int, int], Tuner, Tuned]] = []
        late: list[tuple[float, tuple[int, int, int], Tuner, Tuned]] = []
        least = float("inf")
        batches: set[tuple[int, int]] = set()
        while open_nodes := [
            n for n in nodes if not n.tuned and n.bound < least * (SPREAD if n.key[:2] not in batches else 1.0)
        ]:
            if len(tuned) >= TUNED:
                open_nodes = [n for n in open_nodes if n.key[:2] not in batches]
            if not open_nodes or ((tuned or late) and self.out_of_time(0.5)):
                break
            node = min(open_nodes, key=lambda n: (n.bound, n.key))
            self.report("accelerators", min(1.0, node.bound / least))
            if not node.final:
                self.strengthen(node, least * SPREAD)
                continue
            node.tuned = True
            batches.add(node.key[:2])
            if node.picks is None:
                continue
            tuner = self.tuner(node)
            made = tuner.best([i for i, _ in node.picks], [part for _, part in node.picks], self.out_of_time)
            if made is None:
                continue
            soonest = latency(made.tables.fastest) / self.board.clock_mhz / 1e3
            if self.options.max_latency_ms is not None and soonest > self.options.max_latency_ms:
                late.append((soonest, node.key, tuner, made))
                continue
            score = relaxed_value(self.options.objective, made.tables, made.relaxed)
            tuned.append((score, node.key, tuner, made))
            least = min(least, score)
        return self.plans(tuned or late)

    def tuner(self, node: Node) -> Tuner:
        self.tuners.append(
            Tuner(
                self.network, self.board, self.machine, self.limit, node.slots, node.batch,
                (node.least_pages, node.most_pages), self.options.objective, self.space,
            )
        )  # fmt: skip
        return self.tuners[-1]

    def plans(self, tuned: list[tuple[float, tuple[int, int, int], Tuner, Tuned]]) -> tuple[Planned | None, float]:
        """The best plan of the best tuned accelerators."""
        quick: list[tuple[float, int, Tuner, Tuned, Planned]] = []
        order = sorted(tuned, key=lambda t: t[:2])
        leaders = [next(t for t in order if t[1][:2] == group) for group in dict.fromkeys(t[1][:2] for t in order)]
        for _, _, tuner, first in [*leaders[:SURVEYED], *(t for t in order if t not in leaders)][: SURVEYED + 1]:
            for relief in RELIEFS if self.options.objective == "fps" else (1.0,):
                if quick and self.out_of_time():
                    break
                self.report("first plans", len(quick) / SURVEYED / len(RELIEFS))
                made = first if relief == 1 else tuner.relieved(first, relief)
                if made is None:
                    continue
                whole = tuner.whole(made)
                below = min((value for value, *_ in quick), default=float("inf"))
                if relaxed_value(self.options.objective, whole.tables, whole.relaxed) >= below:
                    continue
                planned = planned_for(self.options.objective, whole.tables, whole.relaxed, QUICK, below * NEAR)
                quick.append((self.value(planned), len(quick), tuner, whole, planned))
        best: Planned | None = None
        least = float("inf")
        for count, (_, _, tuner, made, planned) in enumerate(sorted(quick, key=lambda t: t[:2])[:PLANNED]):
            self.report("thorough plans", count / PLANNED)
            for found in self.thorough(tuner, made, planned):
                if self.value(found) < least:
                    best, least = found, self.value(found)
        return best, least

    def thorough(self, tuner: Tuner, made: Tuned, planned: Planned) -> Iterator[Planned]:
        """A quick plan and better ones: buffers and shares chosen again for it, then a longer search."""
        objective = self.options.objective
        for _ in range(REBALANCED if objective == "fps" else 0):
            if self.out_of_time():
                break
            other = tuner.tuned(tuner.rebalanced(replace(made, relaxed=Relaxed(made.interval, planned.on))))
            if other is None or other.candidate == made.candidate:
                break
            whole = tuner.whole(other)
            again = planned_for(objective, whole.tables, whole.relaxed, QUICK, self.value(planned))
            if self.value(again) >= self.value(planned):
                break
            made, planned = whole, again
        yield planned
        if not self.out_of_time():
            yield planned_for(objective, made.tables, made.relaxed, THOROUGH, self.value(planned))

    def prove(self, nodes: list[Node], best: Planned, value: float) -> tuple[Planned, float, float, str]:
        """(best plan, its value, a bound over the whole space, why it is no better): the loosest nodes are bounded
        better, and written out where they are small."""
        while True:
            node = min(nodes, key=lambda n: (n.bound, n.key))
            if node.bound >= value:
                return best, value, value, "proven"
            if node.closed:
                return best, value, node.bound, "plans"
            if self.out_of_time():
                return best, value, node.bound, "budget"
            self.report("proof", min(1.0, node.bound / value))
            if not node.final:
                self.strengthen(node, value)
            elif not node.sharp and self.options.objective == "fps":
                self.sharpen(node, value)
            elif self.size(node) > WRITTEN_OUT or self.options.objective != "fps":
                node.closed = True
            else:
                best, value = self.write_out(node, best, value)

    def sharpen(self, node: Node, value: float) -> None:
        """Bound a node once more, with the exact best case of every option that the best accelerator may have."""
        node.sharp = True
        for slot in node.slots:
            slot.sharpen(np.flatnonzero(slot.cycles <= value * node.batch))
        if self.rebound(node):
            self.strengthen(node, value)
        else:
            node.bound = float("inf")

    def size(self, node: Node) -> int:
        return self.space.accelerators([len(slot.options) for slot in node.slots])

    def write_out(self, node: Node, best: Planned, value: float) -> tuple[Planned, float]:
        """Bound and, where that may pay, plan every accelerator of a node, in the order of their busy bounds."""
        node.closed = True
        tuner = self.tuner(node)
        least = value
        candidates = sorted(
            (max(int(s.cycles[i]) for s, i in zip(node.slots, choice, strict=True)), choice)
            for choice in product(*(range(len(slot.options)) for slot in node.slots))
        )
        for busy, choice in candidates:
            if busy / node.batch >= min(least, value):
                break
            for levels in product(self.space.levels, repeat=len(choice)):
                for shares in compositions(self.space.shares, len(choice)):
                    if self.out_of_time():
                        return best, value
                    made = tuner.tuned(Candidate(choice, levels, shares, node.least_pages))
                    if made is None or made.interval / node.batch >= value:
                        continue
                    whole = tuner.whole(made, exact=True)
                    bound = whole.interval / node.batch
                    if bound < value:
                        found = planned_for(self.options.objective, whole.tables, whole.relaxed, QUICK, value)
                        if self.value(found) < value:
                            best, value = found, self.value(found)
                    least = min(least, bound)
        node.bound = max(node.bound, min(least, value))
        return best, value

    def strengthen(self, node: Node, value: float) -> None:
        """The node's last bound, with DRAM and memory in it, looked for below `value`; and the options and parts of the
        DRAM that attain it."""
        node.final = True
        costs, limits = self.costs(node)
        slot_of = [-1] * len(self.network.layers)
        for n, slot in enumerate(node.slots):
            for i in slot.options.slot.layers:
                slot_of[i] = n
        moved = [
            [
                operands(self.network, layer, node.batch, node.most_pages, slot_of, reads_input=whole)
                for layer, whole in (self.reading[i] for i in slot.options.slot.layers)
            ]
            for slot in node.slots
        ]
        if self.options.objective != "fps":
            self.bound_total(node, costs, limits, moved)
            return
        low = node.bound * node.batch
        most = value * node.batch
        high = min(most, GALLOP * low)
        while True:
            made = []
            for slot, cost, layers in zip(node.slots, costs, moved, strict=True):
                index = np.flatnonzero(slot.cycles <= high)
                made.append(priced(slot, index, cost[:, index], layers, self.dram_bits, node.most_pages, low))
            bound, node.picks = least_possible(made, limits, node.most_pages, low, high)
            if node.picks is not None or high >= most or bound < high:
                break
            low, high = high, min(most, GALLOP * high)
        node.bound = max(node.bound, bound / node.batch)

    def bound_total(
        self, node: Node, costs: list[np.ndarray], limits: np.ndarray, moved: list[list[list[Operand]]]
    ) -> None:
        """Bounds of latency, energy or their product; shares start equal."""
        cycles = path_cycles(node.slots, moved, self.longest_path, self.dram_bits)
        least_cycles, picks = least_sum(cycles, costs, limits)
        least_cycles = max(least_cycles, float(node.interval))
        node.bound = least_cycles
        if self.options.objective != "latency":
            least_pj, thrifty = least_sum(energies(node.slots, moved, self.board.energy), costs, limits)
            node.bound = least_pj / node.batch
            if self.options.objective == "edp":
                node.bound *= least_cycles / self.board.clock_mhz / 1e3
            else:
                picks = thrifty
        node.picks = None if picks is None else [(i, 1 / len(picks)) for i in picks]

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

    def out_of_time(self, share: float = 1.0) -> bool:
        """Whether that share of the budget is spent."""
        budget = self.options.budget_seconds
        return budget is not None and time.monotonic() - self.started > budget * share

    def nodes(self) -> list[Node]:
        """All nodes with their coarse bounds."""
        total_pages = self.limit.bram18 // 2 // PAGE_BANKS
        batches = self.space.batches if self.options.batch is None else (self.options.batch,)
        eighths = self.space.memory_eighths if self.options.memory_plan else (0,)
        found: list[Node] = []
        bounded: dict[tuple[Slot, int], BoundedSlot] = {}
        parts = self.parts or partitions(self.network)
        for slot in dict.fromkeys(slot for partition in parts for slot in partition):
            table = self.options_of(slot)
            for batch in batches:
                bounded[slot, batch] = bounded_slot(
                    table, self.network, batch, self.machine, self.dram_bits, self.space
                )
        for p, partition in enumerate(parts):
            for b, batch in enumerate(batches):
                slots = [bounded[slot, batch] for slot in partition]
                count = self.space.accelerators([len(slot.options) for slot in slots])
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
        node.interval, node.choice = max(found[0], self.host_cycles * node.batch), found[1]
        if self.options.objective == "fps":
            node.bound = max(node.interval, self.unavoidable(node)) / node.batch
        elif self.options.objective == "latency":
            node.bound = float(node.interval)
        return True

    def costs(self, node: Node) -> tuple[list[np.ndarray], np.ndarray]:
        memory = memory_resources(self.board, node.least_pages, read_ports(s.options.slot.unit for s in node.slots))
        luts = [self.limit.lut - memory.lut + price * self.limit.dsp for price in DUAL_PRICES]
        limits = np.array([*luts, self.limit.bram18 - memory.bram18], dtype=np.float64)
        least = min(self.space.levels)
        return [slot_costs(s.options, least) for s in node.slots], limits

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


def compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write a total as that many positive parts in order."""
    if parts == 1:
        yield (total,)
        return
    for first in range(1, total - parts + 2):
        for rest in compositions(total - first, parts - 1):
            yield (first, *rest)


def explain(network: Network, board: Board, options: Options) -> str:
    """The declared space for a network on a board, in words and numbers."""
    search = Search(network, board, options)
    lines, space = ["accelerator space"], search.space
    batches = space.batches if options.batch is None else (options.batch,)
    for partition in partitions(network):
        sizes = {}
        for slot in partition:
            table = search.options_of(slot)
            bounded = bounded_slot(table, network, batches[0], search.machine, search.dram_bits, space)
            sizes[slot.name] = (len(bounded.options), len(table))
        total = space.accelerators([lean for lean, _ in sizes.values()]) * len(space.memory_eighths) * len(batches)
        parts = ", ".join(f"{name} {lean:,} (of {whole:,})" for name, (lean, whole) in sizes.items())
        lines.append(
            f"  unrollings that none beats in busy time and every resource, at batch {batches[0]}: {parts}; "
            f"about {total:.3g} accelerators"
        )
    lines.append(f"  channel factors {CHANNEL_FACTORS}, pixel factors {PIXEL_FACTORS}, filter factors 1 or all taps")
    levels = ", ".join("/".join(map(str, BUFFER_LEVELS[level])) for level in space.levels)
    lines.append(f"  buffers (input/weight/output KiB a half) of each chunk {levels}")
    lines.append(
        f"  memory from {', '.join(map(str, space.memory_eighths))} eighths of the BRAM up; "
        f"DRAM in {space.shares} shares; batch {', '.join(map(str, batches))}"
    )
    return "\n".join(lines)
