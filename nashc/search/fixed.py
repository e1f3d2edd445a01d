"""Networks on one given accelerator: its chunks, batch and memory stay, plan and mappings are searched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from nashc.board import Board
from nashc.core.design import Accelerator, Certificate, Chunk, Design, Work, accepts
from nashc.core.network import Layer, Network, Unit
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.machine import PAGE_BANKS
from nashc.hw.resources import MIXED_LANES, chunk_resources, machine_of, usable
from nashc.search.coarse import best_case
from nashc.search.finish import design_of, objective_of
from nashc.search.objectives import planned, relaxed, relaxed_value
from nashc.search.plan import PARTS, QUICK, WORTHWHILE, plan_further
from nashc.search.space import lane_of, work_of
from nashc.search.tables import NoMapping, Tables


@dataclass(eq=False)
class Fixed:
    """The accelerator of a design, for other networks. Its clock is the design's."""

    board: Board
    options: Options
    accelerator: Accelerator
    memory_pages: int
    uram_groups: int

    def __post_init__(self) -> None:
        self.machine = machine_of(self.board)
        self.best = lru_cache(maxsize=100_000)(self._best)

    @staticmethod
    def of(design: Design, board: Board, options: Options) -> Fixed:
        """The accelerator of `design`, which was made for `board`."""
        return Fixed(
            replace(board, clock_mhz=design.clock_mhz), options, design.accelerator,
            design.plan.banks // PAGE_BANKS, design.resources.uram // PAGE_BANKS,
        )  # fmt: skip

    def fps(self, network: Network) -> float:
        """Frames a second that no plan on the accelerator gets above: the busiest chunk with everything on chip; 0
        where it cannot run some layer."""
        busy = [0] * len(self.accelerator.chunks)
        for layer in network.layers:
            if layer.unit is Unit.HOST:
                continue
            chunk = self._chunk(network, layer)
            if chunk is None:
                return 0.0
            cycles = self.best(work_of(network, layer, self.accelerator.batch), self.accelerator.chunks[chunk])
            if cycles is None:
                return 0.0
            busy[chunk] += cycles
        return self.accelerator.batch * self.board.clock_mhz * 1e6 / max(busy)

    def design(self, network: Network) -> Design:
        """The best plan and mappings found; the certificate's bound is over all plans on this accelerator.

        Raises NashcError where it cannot run some layer.
        """
        for layer in network.layers:
            if layer.unit is not Unit.HOST and self._chunk(network, layer) is None:
                raise NashcError(
                    f"no chunk of the accelerator runs layer '{layer.name}'", where=network.name,
                    hint="search the accelerator with the network",
                )  # fmt: skip
        try:
            tables = Tables(network, self.board, self.machine, self.accelerator, self.memory_pages, self.uram_groups)
        except NoMapping as error:
            raise NashcError(
                f"a layer fits no buffer of the accelerator: {error}", where=network.name,
                hint="search the accelerator with the network",
            ) from None  # fmt: skip
        objective = self.options.objective
        start = relaxed(objective, tables, tables.room, integer=False)
        made = planned(objective, tables, start, QUICK)
        if objective == "fps":
            for _ in range(PARTS):
                before, made = made, plan_further(tables, start, made)
                if made.interval > before.interval * WORTHWHILE:
                    break
        limit = usable(self.board, self.options.max_lut, self.options.max_dsp, self.options.max_bram36)
        parts = chunk_resources(self.board, self.accelerator.chunks, limit.dsp)
        value = objective_of(objective, network, self.board, self.machine, made, parts)
        bound = min(relaxed_value(objective, tables, start), value) if objective == "fps" else 0.0
        certificate = Certificate(
            objective, value, bound, value <= bound, 1, 1, "proven" if value <= bound else "plans"
        )
        return design_of(network, self.board, self.machine, made, certificate, parts)

    def _chunk(self, network: Network, layer: Layer) -> int | None:
        """The chunk that runs a layer, the one of the narrowest weights; None where there is none, or where its lanes
        or its buffers are made for less."""
        found = [(chunk.weight_bits, i) for i, chunk in enumerate(self.accelerator.chunks) if accepts(chunk, layer)]
        if not found:
            return None
        chosen = min(found)[1]
        return chosen if self._holds(self.accelerator.chunks[chosen], network, layer) else None

    def _holds(self, chunk: Chunk, network: Network, layer: Layer) -> bool:
        """Whether the lanes take the activations and all weights, and the input buffer what comes beside them."""
        first, *beside = (network.tensor[name].bits for name in layer.inputs)
        widest = lane_of(self.board, chunk.lanes).activation_bits
        if layer.unit is Unit.VECTOR:
            return max(first, *beside, 0) <= widest
        paired = chunk.lanes in MIXED_LANES and chunk.symmetric
        whole = layer.weights is None or layer.weights.symmetric or not paired
        return whole and first <= widest and sum(beside) <= chunk.extra_bits

    def _best(self, work: Work, chunk: Chunk) -> int | None:
        machine = replace(self.machine, post_lanes=chunk.post_lanes)
        dram_bits = int(self.board.dram_bytes_per_cycle * 8)
        found = best_case(work, chunk.unroll, chunk.buffers, dram_bits, machine)
        return None if found is None else found.cycles
