"""What one accelerator makes of every layer under every placement of its operands.

A *switch* is one thing that may be kept on chip: a feature map between chunks, or the weights of a layer. A layer's
cycles depend on its own switches only, so they are a table over their states, exact for each.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from nashc.board import Board, Energy
from nashc.core.design import Accelerator, Chunk, Mapping, Placement, Work, accepts
from nashc.core.network import Network, Unit
from nashc.hw.dataflows import DATAFLOWS
from nashc.hw.energy import layer_pj
from nashc.hw.latency import Site
from nashc.hw.machine import PAGE_BITS, URAM_PAGES, Machine, pages, stored_weights
from nashc.hw.schedule import Lifetime, Task
from nashc.hw.tiles import Extents, Tiles
from nashc.hw.traffic import Volumes, by_place, issue_total, volumes
from nashc.search.mapping import Best, layer_on
from nashc.search.space import work_of


class NoMapping(Exception):
    """Some layer has no mapping that fits the accelerator's buffers."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A tensor (by name; `pages` of one copy for each chunk that reads it) or the weights of layer `layer` (`bits`,
    read by chunk `chunk`; `pages` if nothing shared them)."""

    tensor: str
    layer: int
    chunk: int
    pages: int
    bits: int


class Tables:
    """The layers of a network on an accelerator with on-chip memory of `memory_pages` of BRAM and `uram_groups`.

    Raises NoMapping if a layer fits no buffers. Host layers are on chunk -1.
    """

    def __init__(
        self, network: Network, board: Board, machine: Machine, accelerator: Accelerator, memory_pages: int,
        uram_groups: int = 0,
    ) -> None:  # fmt: skip
        self.network, self.board, self.machine = network, board, machine
        self.accelerator, self.memory_pages, self.uram_groups = accelerator, memory_pages, uram_groups
        self.works: tuple[Work | None, ...] = tuple(
            None if layer.unit is Unit.HOST else work_of(network, layer, accelerator.batch) for layer in network.layers
        )
        self.chunk_of = tuple(
            -1
            if layer.unit is Unit.HOST
            else min((c.weight_bits, i) for i, c in enumerate(accelerator.chunks) if accepts(c, layer))[1]
            for layer in network.layers
        )
        sites = [
            (c.unroll, c.buffers, c.dram_bits, replace(machine, post_lanes=c.post_lanes)) for c in accelerator.chunks
        ]
        self.layers_on = tuple(
            None if work is None else layer_on(work, *sites[c])
            for work, c in zip(self.works, self.chunk_of, strict=True)
        )
        self.switches = (*self._tensors(), *self._weights())
        self.tensor_count = sum(1 for s in self.switches if s.tensor)
        number = {s.tensor: n for n, s in enumerate(self.switches) if s.tensor}
        weights = {s.layer: n for n, s in enumerate(self.switches) if not s.tensor}
        self.of_layer = tuple(
            tuple(
                [number[t] for t in dict.fromkeys((*layer.inputs, layer.output)) if t in number]
                + ([weights[i]] if i in weights else [])
            )
            for i, layer in enumerate(network.layers)
        )
        self.cycles = tuple(
            tuple(self._host_cycles(i) if best is None else best.cycles for best in self._row(i))
            for i in range(len(network.layers))
        )

    def _tensors(self) -> list[Switch]:
        """Tensors that may live on chip: written and read by chunks, neither end of the network."""
        found = []
        for name, writers in self.network.producers.items():
            readers = self.network.consumers.get(name, ())
            ends = name in self.network.outputs or name in self.network.inputs
            if not readers or ends or any(self.chunk_of[i] < 0 for i in (*writers, *readers)):
                continue
            one = pages(self.network.tensor[name].total_bits * self.accelerator.batch)
            replicas = self.replicas(name)
            if replicas * max(0, one - self.uram_groups // replicas * URAM_PAGES) <= self.memory_pages:
                found.append(Switch(name, -1, -1, one * replicas, 0))
        return found

    def replicas(self, tensor: str) -> int:
        """Chunks that read a tensor: each has a copy of its own."""
        return len({self.chunk_of[i] for i in self.network.consumers[tensor]})

    @property
    def room(self) -> int:
        """Pages of BRAM and URAM together."""
        return self.memory_pages + self.uram_groups * URAM_PAGES

    def _weights(self) -> list[Switch]:
        found = []
        for i, work in enumerate(self.works):
            if work is not None and work.weight_bits:
                bits = stored_weights(work.nest, work.weight_bits, work.terms)
                if pages(bits) <= self.room:
                    found.append(Switch("", i, self.chunk_of[i], pages(bits), bits))
        return found

    @cached_property
    def after(self) -> tuple[tuple[int, ...], ...]:
        """The layers that each layer waits for."""
        network = self.network
        return tuple(
            tuple(sorted({p for name in layer.inputs for p in network.producers.get(name, ())}))
            for layer in network.layers
        )

    @cached_property
    def placements(self) -> tuple[tuple[Placement, ...], ...]:
        """Where each layer's operands are, under each mask of its switches."""
        return tuple(
            _placements(layer.inputs, layer.output, tuple(self.switches[n].tensor for n in own))
            for layer, own in zip(self.network.layers, self.of_layer, strict=True)
        )

    def mask(self, i: int, on: Collection[int]) -> int:
        return sum(1 << j for j, n in enumerate(self.of_layer[i]) if n in on)

    def placement(self, i: int, on: Collection[int]) -> Placement:
        return self.placements[i][self.mask(i, on)]

    def best(self, i: int, on: Collection[int]) -> Best | None:
        """The best mapping of a layer; None on the host."""
        return self._at(i, self.placement(i, on))

    def _at(self, i: int, placement: Placement) -> Best | None:
        layer = self.layers_on[i]
        if layer is None:
            return None
        found = layer.best(placement)
        if found is None:
            raise NoMapping(self.network.layers[i].name)
        return found

    def _row(self, i: int) -> list[Best | None]:
        """The best mappings of a layer under each mask of its switches."""
        return [self._at(i, placement) for placement in self.placements[i]]

    def _host_cycles(self, i: int) -> int:
        """A rough price of a node on the CPU: its output elements at the board's stated rate."""
        elements = self.network.tensor[self.network.layers[i].output].elements * self.accelerator.batch
        seconds = elements / self.board.host.elements_per_second
        return max(1, round(seconds * self.board.clock_mhz * 1e6))

    def away_bits(self, i: int, on: Collection[int]) -> int:
        """DRAM bits of a layer if everything that is not on chip is moved once."""
        layer, work = self.network.layers[i], self.works[i]
        if work is None:
            return 0
        held = {self.switches[n].tensor for n in on}
        names = [n for n in (*layer.inputs, layer.output) if n not in held]
        bits = sum(self.network.tensor[n].total_bits for n in names) * work.batch
        pinned = any(n in on for n in self.of_layer[i] if self.switches[n].layer == i)
        return bits + (0 if pinned else work.nest.weights * work.weight_bits * work.terms)

    @cached_property
    def energies(self) -> tuple[tuple[float, ...], ...]:
        """`cycles` in pJ, of one run with the best mapping; nothing is counted for the host."""
        return tuple(self._energies(i) for i in range(len(self.cycles)))

    def _energies(self, i: int) -> tuple[float, ...]:
        work = self.works[i]
        if work is None:
            return (0.0,) * len(self.cycles[i])
        chunk = self.accelerator.chunks[self.chunk_of[i]]
        chunk = replace(chunk, dram_bits=1)  # no part of it, so that other shares find the answer
        mappings = tuple(best.mapping for best in self._row(i) if best is not None)
        return _row_pj(self.board.energy, work, chunk, self.machine, self.placements[i], mappings)

    def tasks(self, on: Collection[int]) -> tuple[Task, ...]:
        return tuple(
            Task(self.chunk_of[i], self.cycles[i][self.mask(i, on)], self.after[i]) for i in range(len(self.works))
        )

    @property
    def fastest(self) -> tuple[Task, ...]:
        """The layers under the placements of fewest cycles, whatever the memory: below the tasks of every plan."""
        return tuple(Task(*task) for task in zip(self.chunk_of, map(min, self.cycles), self.after, strict=True))

    def lifetime(self, n: int) -> Lifetime:
        """When a tensor's copies are needed; `pages` are those of one copy for one reading chunk."""
        switch = self.switches[n]
        one = switch.pages // self.replicas(switch.tensor)
        return Lifetime(self.network.producers[switch.tensor], self.network.consumers[switch.tensor], one)

    def pinned(self, on: Collection[int], spare: int) -> tuple[int, int]:
        """(pages, URAM groups) of pinned weights, where `spare` groups hold no feature maps. Neither has a read port
        for two chunks, so chunks do not share one; a group goes to the chunk that has most weights left."""
        bits: dict[int, int] = {}
        for n in on:
            switch = self.switches[n]
            if not switch.tensor:
                bits[switch.chunk] = bits.get(switch.chunk, 0) + switch.bits
        groups = 0
        while groups < spare and any(b > 0 for b in bits.values()):
            bits[max(bits, key=lambda c: (bits[c], -c))] -= URAM_PAGES * PAGE_BITS
            groups += 1
        return sum(-(-b // PAGE_BITS) for b in bits.values() if b > 0), groups


@lru_cache(maxsize=100_000)
def _placements(inputs: tuple[str, ...], output: str, switches: tuple[str, ...]) -> tuple[Placement, ...]:
    """Of a layer that reads and writes such tensors, under each mask of its switches: tensors, "" its weights."""
    held = ({name for j, name in enumerate(switches) if mask >> j & 1} for mask in range(1 << len(switches)))
    return tuple(Placement(tuple(name in on for name in inputs), output in on, "" in on) for on in held)


@lru_cache(maxsize=100_000)
def _row_pj(
    energy: Energy,
    work: Work,
    chunk: Chunk,
    machine: Machine,
    row: tuple[Placement, ...],
    mappings: tuple[Mapping, ...],
) -> tuple[float, ...]:
    return tuple(_energy_pj(energy, work, chunk, machine, *each) for each in zip(row, mappings, strict=True))


@lru_cache(maxsize=200_000)
def _energy_pj(
    energy: Energy, work: Work, chunk: Chunk, machine: Machine, placement: Placement, mapping: Mapping
) -> float:
    machine = replace(machine, post_lanes=chunk.post_lanes)
    moved, issue = _moved(work, Site(chunk.unroll, chunk.dram_bits, machine, _AWAY), mapping)
    return layer_pj(energy, work, chunk, issue, by_place(moved, placement))


_AWAY = Placement((), False, False)


@lru_cache(maxsize=100_000)
def _moved(work: Work, site: Site, mapping: Mapping) -> tuple[Volumes, int]:
    """Bits that a mapping moves and its issue cycles, which do not depend on the places of the operands."""
    extents = Extents.of(work, Tiles.of([mapping.tile]))
    moved = volumes(work, extents, DATAFLOWS.get(mapping.dataflow))
    return moved, int(issue_total(work, site, extents)[0])
