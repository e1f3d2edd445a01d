"""Fine stage for one accelerator: exact mappings, the memory plan and the schedule, chosen together.

The plan starts with every feature map on chip and no weights pinned. While the schedule needs more pages than there
are, the tensor whose spill costs the fewest cycles per freed page-cycle goes to DRAM; pages that are left pin the
weights that save most. Every step prices the affected layers with their exact best mapping.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nashc.board import Board
from nashc.core.design import Accelerator, Chunk, Placement, Work, accepts
from nashc.core.network import Network, Unit
from nashc.hw.machine import PAGE_BITS, Machine, pages
from nashc.hw.schedule import Lifetime, Schedule, Task, busy, latency, occupancy, periodic
from nashc.search.mapping import Best, best_mapping
from nashc.search.space import work_of

MAX_SEGMENTS = 6


@dataclass(frozen=True, slots=True)
class Planned:
    """A complete answer for one accelerator: placements, best mappings, schedule and pages."""

    accelerator: Accelerator
    chunk_of: tuple[int, ...]
    works: tuple[Work, ...]
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

    @property
    def interval(self) -> int:
        return self.schedule.interval

    @property
    def latency(self) -> int:
        return latency(self.tasks)


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
    uram_bits: int = 0
    resident: set[str] = field(default_factory=set)
    pinned: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        network, chunks = self.network, self.accelerator.chunks
        self.works = tuple(
            None if layer.unit is Unit.HOST else work_of(network, layer, self.accelerator.batch)
            for layer in network.layers
        )
        self.chunk_of = tuple(
            -1 if layer.unit is Unit.HOST else next(i for i, c in enumerate(chunks) if accepts(c, layer))
            for layer in network.layers
        )
        self.after = tuple(
            tuple(sorted({p for name in layer.inputs for p in network.producers.get(name, ())}))
            for layer in network.layers
        )
        self.page_count = {
            t.name: pages(t.total_bits * self.accelerator.batch) for t in network.tensors
        }
        self.weight_bits = {
            i: w.nest.weights * w.weight_bits * w.terms + 64 * w.nest.g * w.nest.k
            for i, w in enumerate(self.works)
            if w is not None and w.weight_bits
        }

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
        found = best_mapping(work, chunk.unroll, chunk.buffers, chunk.dram_bits, self.machine, placement)
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
        network = self.network
        return tuple(
            (name, Lifetime(network.producers[name], network.consumers[name], self.page_count[name]))
            for name in network.producers
            if name in self.resident
        )

    def pinned_pages(self) -> int:
        bits = sum(self.weight_bits[i] for i in self.pinned)
        return -(-max(0, bits - self.uram_bits) // PAGE_BITS)

    def solve(self, *, feature_maps: bool = True, weights: bool = True) -> Planned:
        if feature_maps:
            self.resident = {n for n in self.spillable() if self.page_count[n] <= self.memory_pages}
            self.spill()
        if weights:
            self.pin()
        return self.finish()

    def settle(self) -> tuple[tuple[Task, ...], Schedule, int, list[int]]:
        """The schedule with the least interval, and among those the one with the least occupancy."""
        tasks = self.tasks()
        lives = tuple(life for _, life in self.lifetimes())
        found = None
        for segments in (*range(1, MAX_SEGMENTS + 1), len(tasks)):
            if segments > len(tasks):
                continue
            schedule = periodic(tasks, segments)
            peak, copies = occupancy(schedule, tasks, lives)
            key = (schedule.interval, peak)
            if found is None or key < found[0]:
                found = (key, schedule, copies)
            if schedule.interval == max(busy(tasks).values()) and peak + self.pinned_pages() <= self.memory_pages:
                break
        assert found is not None
        return tasks, found[1], found[0][1], found[2]

    def spill(self) -> None:
        """Send tensors to DRAM until the schedule's occupancy fits."""
        tasks, schedule, peak, _ = self.settle()
        while peak > self.memory_pages and self.resident:
            load = busy(tasks)
            worst = max(load.values())
            prices = []
            for name in sorted(self.resident):
                users = {*self.network.producers[name], *self.network.consumers[name]}
                rest = self.resident - {name}
                added: dict[int, int] = {}
                for i in users:
                    more = self.cycles(i, rest, i in self.pinned) - tasks[i].cycles
                    added[self.chunk_of[i]] = added.get(self.chunk_of[i], 0) + more
                longer = max(load[c] + more for c, more in added.items()) - worst
                life = Lifetime(self.network.producers[name], self.network.consumers[name], self.page_count[name])
                held = self.held(schedule, tasks, life)
                prices.append(((max(0, longer) + sum(added.values()) / len(load) + 1) / held, name))
            self.resident.discard(min(prices)[1])
            tasks, schedule, peak, _ = self.settle()

    def held(self, schedule: Schedule, tasks: tuple[Task, ...], life: Lifetime) -> int:
        """Page-cycles of a tensor in a period."""
        first = min(schedule.starts[t] for t in life.writers)
        last = max(schedule.starts[t] + tasks[t].cycles for t in life.readers)
        return (last - first) * life.pages * len({tasks[t].chunk for t in life.readers})

    def pin(self) -> None:
        """Pin weights into the pages that are left, most cycles of the busiest chunk per page first."""
        while True:
            tasks, _, peak, _ = self.settle()
            free = (self.memory_pages - peak) * PAGE_BITS + self.uram_bits
            free -= sum(self.weight_bits[i] for i in self.pinned)
            load = busy(tasks)
            order = sorted(load, key=lambda c: -load[c])
            gains = []
            for i, bits in self.weight_bits.items():
                if i in self.pinned or bits > free:
                    continue
                saved = tasks[i].cycles - self.cycles(i, self.resident, True)
                if saved > 0:
                    gains.append((order.index(self.chunk_of[i]), -saved / bits, i))
            if not gains:
                return
            # A batch of the best candidates of the busiest chunk; the schedule is settled again before the next.
            gains.sort()
            chunk = gains[0][0]
            for rank, _, i in gains:
                if rank == chunk and self.weight_bits[i] <= free:
                    self.pinned.add(i)
                    free -= self.weight_bits[i]
            if self.settle()[2] + self.pinned_pages() > self.memory_pages:
                self.unpin()
                return

    def unpin(self) -> None:
        while self.pinned and self.settle()[2] + self.pinned_pages() > self.memory_pages:
            self.pinned.discard(max(self.pinned, key=lambda i: self.weight_bits[i]))

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
        )
