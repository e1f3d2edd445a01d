"""Fine stage for one accelerator: exact mappings, the memory plan and the schedule, chosen together.

For several ways to schedule, a small integer program chooses what stays on chip; its answer is priced with the exact
best mapping of every layer and with the true occupancy of its schedule, and solved again for that schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from nashc.board import Board
from nashc.core.design import Accelerator, Chunk, Placement, Work, accepts
from nashc.core.network import Network, Unit
from nashc.hw.latency import run_cycles
from nashc.hw.machine import CHANNEL_BLOCK, PAGE_BITS, Machine, pages
from nashc.hw.schedule import Lifetime, Schedule, Task, alive, first_fit, latency, occupancy, periodic
from nashc.search.mapping import Best, best_mapping
from nashc.search.memory import LayerTimes, choose
from nashc.search.space import work_of

FIRST_FIT = 0
SEGMENTS_PER_CHUNK = (1.0, 1.6, 0.0, 0.7, 2.3)
"""Ways to schedule that a plan tries: segments for each chunk (balanced chunks need a batch each to be busy all the
time, and some more where their layers differ); 0 is first fit."""
PLAN_ROUNDS = 3
BURST_SHARE = 1.1
"""What bursts and halos add to the bare DRAM time in the integer program; exact mappings price the result."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A complete answer for one accelerator: placements, best mappings, schedule and pages."""

    accelerator: Accelerator
    chunk_of: tuple[int, ...]
    works: tuple[Work | None, ...]
    placements: tuple[Placement, ...]
    best: tuple[Best | None, ...]
    tasks: tuple[Task, ...]
    schedule: Schedule
    lifetimes: tuple[tuple[str, Lifetime], ...]
    resident: tuple[str, ...]
    pinned: tuple[str, ...]
    copies: tuple[int, ...]
    memory_pages: int
    peak_pages: int
    method: int

    @property
    def interval(self) -> int:
        return self.schedule.interval

    @property
    def latency(self) -> int:
        return latency(self.tasks)


def methods_for(chunks: int) -> tuple[int, ...]:
    """Numbers of segments to try for an accelerator of that many chunks, and FIRST_FIT."""
    counts = (max(2, round(f * chunks)) if f else FIRST_FIT for f in SEGMENTS_PER_CHUNK)
    return tuple(dict.fromkeys(counts))


class NoMapping(Exception):
    """Some layer has no mapping that fits the accelerator's buffers."""


@dataclass
class Planner:
    """The memory plan of one accelerator under construction."""

    network: Network
    board: Board
    machine: Machine
    accelerator: Accelerator
    memory_pages: int
    method: int = 1
    resident: set[str] = field(default_factory=set)
    pinned: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        network, chunks = self.network, self.accelerator.chunks
        self.works = tuple(
            None if layer.unit is Unit.HOST else work_of(network, layer, self.accelerator.batch)
            for layer in network.layers
        )
        self.chunk_of = tuple(
            -1
            if layer.unit is Unit.HOST
            else min((c.weight_bits, i) for i, c in enumerate(chunks) if accepts(c, layer))[1]
            for layer in network.layers
        )
        self.after = tuple(
            tuple(sorted({p for name in layer.inputs for p in network.producers.get(name, ())}))
            for layer in network.layers
        )
        self.page_count = {t.name: pages(t.total_bits * self.accelerator.batch) for t in network.tensors}
        self.weight_bits = {
            i: w.nest.weights * w.weight_bits * w.terms + 64 * w.nest.g * w.nest.k
            for i, w in enumerate(self.works)
            if w is not None and w.weight_bits
        }

    def away_cycles(self, i: int, name: str, rate: int) -> float:
        """About the DRAM cycles of a tensor of layer i that is not on chip, for the integer program."""
        layer, tensor = self.network.layers[i], self.network.tensor[name]
        bits = tensor.total_bits * self.accelerator.batch
        if layer.scattered and name == layer.output:
            run = CHANNEL_BLOCK * tensor.bits
            return bits / run * float(run_cycles(np.array([run]), self.machine, rate)[0])
        return bits / rate * BURST_SHARE

    def spillable(self) -> set[str]:
        """Tensors that may live on chip: written and read by chunks, neither end of the network."""
        found = set()
        for name, writers in self.network.producers.items():
            readers = self.network.consumers.get(name, ())
            ends = name in self.network.outputs or name in self.network.inputs
            if readers and not ends and all(self.chunk_of[i] >= 0 for i in (*writers, *readers)):
                found.add(name)
        return found

    def placement(self, i: int, resident: set[str], pinned: bool) -> Placement:
        layer = self.network.layers[i]
        return Placement(tuple(name in resident for name in layer.inputs), layer.output in resident, pinned)

    def best(self, i: int, placement: Placement) -> Best:
        chunk: Chunk = self.accelerator.chunks[self.chunk_of[i]]
        work = self.works[i]
        assert work is not None
        machine = replace(self.machine, post_lanes=chunk.post_lanes)
        found = best_mapping(work, chunk.unroll, chunk.buffers, chunk.dram_bits, machine, placement)
        if found is None:
            raise NoMapping(self.network.layers[i].name)
        return found

    def cycles(self, i: int, resident: set[str], pinned: bool) -> int:
        if self.chunk_of[i] < 0:
            return self.host_cycles(i)
        return self.best(i, self.placement(i, resident, pinned)).cycles

    def host_cycles(self, i: int) -> int:
        """A rough price of a node on the CPU: its output elements at the board's stated rate."""
        elements = self.network.tensor[self.network.layers[i].output].elements * self.accelerator.batch
        seconds = elements / self.board.host.elements_per_second
        return max(1, round(seconds * self.board.clock_mhz * 1e6))

    def tasks(self) -> tuple[Task, ...]:
        return tuple(
            Task(self.chunk_of[i], self.cycles(i, self.resident, i in self.pinned), self.after[i])
            for i in range(len(self.works))
        )

    def lifetimes(self) -> tuple[tuple[str, Lifetime], ...]:
        return tuple((name, self.lifetime(name)) for name in self.network.producers if name in self.resident)

    def pinned_pages(self) -> int:
        """Pages of pinned weights; a page has one read port, so chunks do not share one."""
        bits: dict[int, int] = {}
        for i in self.pinned:
            bits[self.chunk_of[i]] = bits.get(self.chunk_of[i], 0) + self.weight_bits[i]
        return sum(-(-b // PAGE_BITS) for b in bits.values())

    def solve(
        self, methods: tuple[int, ...], value: Callable[[Planned], float], out_of_time: Callable[[], bool]
    ) -> Planned:
        """The plan of least value over some ways to schedule; with none of them everything stays in DRAM."""
        found: Planned | None = None
        for method in methods:
            if found is not None and out_of_time():
                break
            for planned in self.plans(method):
                if found is None or value(planned) < value(found):
                    found = planned
        return found or self.finish_all_away()

    def finish_all_away(self) -> Planned:
        """Everything in DRAM: always possible, with one layer a segment."""
        self.method = len(self.works)
        self.resident, self.pinned = set(), set()
        return self.finish()

    def plans(self, method: int) -> Iterator[Planned]:
        """Plans of one way to schedule. Each round solves the program for the moments of the last schedule, prices
        and schedules its answer anew, and leaves less room where that does not fit."""
        self.method = method
        self.resident, self.pinned = set(self.sizes), set()
        room = float(self.memory_pages)
        lives = tuple((name, self.lifetime(name)) for name in self.sizes)
        schedule, tasks = self.arrange(self.plain_tasks), self.plain_tasks
        for _ in range(PLAN_ROUNDS):
            moments = [
                {lives[n][0]: copies for n, copies in row.items()}
                for row in alive(schedule, tasks, tuple(life for _, life in lives))
            ]
            self.resident, self.pinned = choose(self.layer_times, self.sizes, self.weight_pages, moments, room)
            tasks, schedule, peak, _ = self.settle()
            excess = peak + self.pinned_pages() - self.memory_pages
            if excess <= 0:
                yield self.finish()
            else:
                room -= excess / 2
            if room <= 0:
                return

    def arrange(self, tasks: tuple[Task, ...]) -> Schedule:
        return first_fit(tasks) if self.method == FIRST_FIT else periodic(tasks, min(self.method, len(tasks)))

    def lifetime(self, name: str) -> Lifetime:
        return Lifetime(self.network.producers[name], self.network.consumers[name], self.page_count[name])

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Pages of each tensor that may stay on chip, a copy for each chunk that reads it."""
        found = {}
        for name in sorted(self.spillable(), key=lambda n: self.network.producers[n][0]):
            replicas = len({self.chunk_of[i] for i in self.network.consumers[name]})
            if self.page_count[name] * replicas <= self.memory_pages:
                found[name] = self.page_count[name] * replicas
        return found

    @cached_property
    def plain_tasks(self) -> tuple[Task, ...]:
        """Tasks with every operand on chip."""
        everything = self.spillable() | set(self.network.inputs) | set(self.network.outputs)
        return tuple(
            Task(self.chunk_of[i], self.cycles(i, everything, True), self.after[i]) for i in range(len(self.works))
        )

    @cached_property
    def weight_pages(self) -> tuple[float, ...]:
        return tuple(self.weight_bits.get(i, 0) / PAGE_BITS for i in range(len(self.works)))

    @cached_property
    def layer_times(self) -> tuple[LayerTimes, ...]:
        network, rows = self.network, []
        for i, layer in enumerate(network.layers):
            if self.chunk_of[i] < 0:
                rows.append(LayerTimes(-1, self.plain_tasks[i].cycles, (), 0.0))
                continue
            rate = self.accelerator.chunks[self.chunk_of[i]].dram_bits
            names = dict.fromkeys((*layer.inputs, layer.output))
            operands = tuple((n, self.away_cycles(i, n, rate)) for n in names)
            weight = self.weight_bits.get(i, 0) / rate * BURST_SHARE
            rows.append(LayerTimes(self.chunk_of[i], self.plain_tasks[i].cycles, operands, weight))
        return tuple(rows)

    def settle(self) -> tuple[tuple[Task, ...], Schedule, int, list[int]]:
        """(tasks, schedule, peak pages without pinned weights, copies) of the plan so far."""
        tasks = self.tasks()
        schedule = self.arrange(tasks)
        peak, copies = occupancy(schedule, tasks, tuple(life for _, life in self.lifetimes()))
        return tasks, schedule, peak, copies

    def finish(self) -> Planned:
        tasks, schedule, peak, copies = self.settle()
        layers = range(len(self.works))
        placements = tuple(self.placement(i, self.resident, i in self.pinned) for i in layers)
        lives = self.lifetimes()
        return Planned(
            accelerator=self.accelerator,
            chunk_of=self.chunk_of,
            works=self.works,
            placements=placements,
            best=tuple(None if self.chunk_of[i] < 0 else self.best(i, placements[i]) for i in layers),
            tasks=tasks,
            schedule=schedule,
            lifetimes=lives,
            resident=tuple(name for name, _ in lives),
            pinned=tuple(self.network.layers[i].name for i in sorted(self.pinned)),
            copies=tuple(copies),
            memory_pages=self.memory_pages,
            peak_pages=peak + self.pinned_pages(),
            method=self.method,
        )
