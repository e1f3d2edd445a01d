"""Whole small spaces by brute force: the certificate holds, and what it calls optimal no design of the space beats.

The oracle writes out every accelerator, every set of operands on chip and a few rules of scheduling, with plain loops
and the definitions of nashc.hw alone: it knows nothing of bounds, of the program or of the local search. What it finds
is a design that exists, so no bound may be above it; what no schedule gets below is the busiest chunk's time of the
fastest plan whose operands fit the memory one layer at a time, so no answer may be below that.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import inf

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from small import COMPUTE, networks, slower_memory

from nashc.board import load_board
from nashc.core.design import Placement, accepts
from nashc.core.loops import LoopNest
from nashc.core.network import Layer, Network, Tensor, Unit, Weights
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.machine import CHANNEL_PARAMETER_BITS, PAGE_BANKS, PAGE_BITS, URAM_PAGES, pages
from nashc.hw.resources import chunk_resources, machine_of, memory_resources, usable
from nashc.hw.schedule import Lifetime, Schedule, Task, first_fit, occupancy, periodic
from nashc.search.coarse import bounded_slot
from nashc.search.mapping import best_mapping
from nashc.search.solve import Search
from nashc.search.space import Space, partitions, slot_options, work_of

BOARD = load_board("fpga-pynq-z2")
SPACE = Space(levels=(0, 2), memory_eighths=(0, 3), shares=4, batches=(1, 2), unrollings=3)
CASES = 200
PROVEN = 0.9
"""Share of fixed cases that must come out optimal. About 0.95 do; the others lack a plan, or schedules in their bound.
Of random ones the share says less: what hypothesis draws in one run is alike (0.86 to 0.98)."""


@dataclass
class Oracle:
    """All designs of SPACE for a network: `best` cycles an image of one that exists, `floor` below all there are."""

    network: object
    board: object
    options: Options
    best: float = inf
    floor: float = inf
    accelerators: int = 0

    def run(self):
        board, machine, dram_bits = self.board, machine_of(self.board), int(self.board.dram_bytes_per_cycle * 8)
        limit = usable(board, self.options.max_lut, self.options.max_dsp, self.options.max_bram36)
        for partition in partitions(self.network):
            for batch in SPACE.batches:
                slots = [
                    bounded_slot(
                        slot_options(slot, self.network, board, machine, self.options),
                        self.network, batch, machine, dram_bits, SPACE,
                    ).options
                    for slot in partition
                ]  # fmt: skip
                choices = product(*(product(range(len(s)), SPACE.levels, range(1, SPACE.shares + 1)) for s in slots))
                for made in choices:
                    if sum(share for *_, share in made) != SPACE.shares:
                        continue
                    self.accelerators += len(SPACE.memory_eighths)
                    chunks = tuple(
                        slot.chunk(i, level, dram_bits * share // SPACE.shares)
                        for slot, (i, level, share) in zip(slots, made, strict=True)
                    )
                    room = most_pages(board, chunks, limit)
                    if room is not None:
                        self.price(chunks, batch, room)
        return self

    def price(self, chunks, batch, room):
        """Every plan of an accelerator. More memory lets more plans fit, so only the most that is left counts."""
        urams = usable(self.board, None, None, None).uram // PAGE_BANKS
        accelerator = Plans(self.network, machine_of(self.board), chunks, batch, room, urams)
        least = accelerator.least_busy
        if least / batch >= self.best and least / batch >= self.floor:
            return
        busy = [(max(accelerator.busy(on)), on) for on in accelerator.plans]
        for cycles, on in sorted(busy, key=lambda b: b[0]):
            if cycles / batch >= self.best and cycles / batch >= self.floor:
                break
            if accelerator.fits_layer_by_layer(on):
                self.floor = min(self.floor, cycles / batch)
                self.best = min(self.best, accelerator.interval(on, self.best * batch) / batch)


def most_pages(board, chunks, limit):
    """Pages of memory that fit beside the chunks; None if the chunks alone do not."""
    used = sum(chunk_resources(board, chunks, limit.dsp), start=memory_resources(board, 0, 0))
    urams = limit.uram // PAGE_BANKS
    fitting = [
        count
        for count in range(limit.bram18 // 2 // PAGE_BANKS + 1)
        if (used + memory_resources(board, count, len(chunks), urams)).fits(limit)
    ]
    return max(fitting, default=None)


@dataclass(frozen=True)
class Plans:
    """One accelerator with a `room` of pages and `urams` groups: a plan is a set of tensors (by name) and of layers
    with pinned weights (by number) on chip."""

    network: object
    machine: object
    chunks: tuple
    batch: int
    room: int
    urams: int

    @cached_property
    def chunk_of(self):
        """The chunk with the narrowest weights that takes each layer."""
        return [
            min((c.weight_bits, n) for n, c in enumerate(self.chunks) if accepts(c, layer))[1]
            for layer in self.network.layers
        ]

    @cached_property
    def plans(self):
        inner = {t.name for t in self.network.tensors} - {*self.network.inputs, *self.network.outputs}
        pinnable = [i for i, layer in enumerate(self.network.layers) if layer.weights]
        things = [*sorted(inner), *pinnable]
        return [frozenset(t for t, on in zip(things, kept, strict=True) if on)
                for kept in product((False, True), repeat=len(things))]  # fmt: skip

    def cycles(self, i, on):
        layer = self.network.layers[i]
        chunk = self.chunks[self.chunk_of[i]]
        placement = Placement(tuple(name in on for name in layer.inputs), layer.output in on, i in on)
        machine = replace(self.machine, post_lanes=chunk.post_lanes)
        work = work_of(self.network, layer, self.batch)
        found = best_mapping(work, chunk.unroll, chunk.buffers, chunk.dram_bits, machine, placement)
        return inf if found is None else found.cycles

    @cached_property
    def table(self):
        """Cycles of each layer for each state of its operands."""
        return {}

    def priced(self, i, on):
        layer = self.network.layers[i]
        key = (i, frozenset(on & {*layer.inputs, layer.output, i}))
        if key not in self.table:
            self.table[key] = self.cycles(*key)
        return self.table[key]

    def busy(self, on):
        total = [0.0] * len(self.chunks)
        for i in range(len(self.network.layers)):
            total[self.chunk_of[i]] += self.priced(i, on)
        return total

    @property
    def least_busy(self):
        """With the fastest placement of each layer by itself."""
        total = [0.0] * len(self.chunks)
        for i, layer in enumerate(self.network.layers):
            own = {frozenset(on & {*layer.inputs, layer.output, i}) for on in self.plans}
            total[self.chunk_of[i]] += min(self.priced(i, on) for on in own)
        return max(total)

    def copies(self, name):
        return len({self.chunk_of[i] for i in self.network.consumers[name]})

    def pinned(self, on, urams):
        """Pages of pinned weights, in the best of all ways to deal groups to the chunks."""
        bits = Counter()
        for i in on:
            if isinstance(i, int):
                layer = self.network.layers[i]
                own = layer.nest.weights * layer.weights.bits * layer.weights.terms
                bits[self.chunk_of[i]] += own + CHANNEL_PARAMETER_BITS * layer.nest.g * layer.nest.k
        return min(
            sum(max(0, -(-b // PAGE_BITS) - n * URAM_PAGES) for b, n in zip(bits.values(), deal, strict=True))
            for deal in product(range(urams + 1), repeat=len(bits))
            if sum(deal) <= urams
        )

    def size(self, name):
        return pages(self.network.tensor[name].total_bits * self.batch)

    def fits_layer_by_layer(self, on):
        """What is on chip while a layer runs, at the least: URAM as if it were pages."""
        held = [
            sum(self.size(n) * self.copies(n) for n in {*layer.inputs, layer.output} & on)
            for layer in self.network.layers
        ]
        return max(held) + self.pinned(on, 0) <= self.room + self.urams * URAM_PAGES

    def interval(self, on, most):
        """The least interval of a few schedules whose occupancy fits; inf if none does below `most`."""
        network = self.network
        after = [{p for name in layer.inputs for p in network.producers.get(name, ())} for layer in network.layers]
        tasks = tuple(
            Task(self.chunk_of[i], int(self.priced(i, on)), tuple(sorted(after[i]))) for i in range(len(after))
        )
        kept = [n for n in on if isinstance(n, str)]
        deals = (
            list(product(*(range(-(-self.size(n) // URAM_PAGES) + 1) for n in kept)))
            if self.urams
            else [[0] * len(kept)]
        )
        ends = [sum(t.cycles for t in tasks[: n + 1]) for n in range(len(tasks))]
        made = [periodic(tasks, n) for n in range(1, len(tasks) + 1)]
        made += [first_fit(tasks), Schedule(ends[-1], (0, *ends[:-1]), 1)]
        for schedule in sorted(made, key=lambda s: s.interval):
            if schedule.interval >= most:
                break
            if any(self.holds(on, kept, deal, schedule, tasks) for deal in deals):
                return schedule.interval
        return inf

    def holds(self, on, kept, deal, schedule, tasks):
        """Whether BRAM and URAM hold it all where `deal` groups of a copy of each tensor are in URAM."""

        def peak(amounts):
            network = self.network
            lives = [
                Lifetime(network.producers[n], network.consumers[n], a) for n, a in zip(kept, amounts, strict=True)
            ]
            return occupancy(schedule, tasks, lives)[0]

        taken = peak(deal)
        held = peak([max(0, self.size(n) - URAM_PAGES * u) for n, u in zip(kept, deal, strict=True)])
        return taken <= self.urams and held + self.pinned(on, self.urams - taken) <= self.room


@st.composite
def cases(draw):
    """A network of one to three layers on one or two chunks, and limits that leave it much, some or no memory."""
    units = draw(st.sampled_from([COMPUTE[:1], COMPUTE[1:2], COMPUTE[:2], COMPUTE[1:]]))
    kinds = draw(st.sampled_from([["dense"], ["dense", "vector"], ["dense", "depthwise"], ["dense", "fork"]]))
    network = draw(networks(most_layers=3, rows=(8, 16, 28), channels=(16, 32), units=units, kinds=kinds))
    assume(len(network.layers) <= 3 and max(map(len, partitions(network))) <= 2)
    board = replace(slower_memory(BOARD, draw(st.sampled_from([0.8, 0.25]))), uram=draw(st.sampled_from([0, 0, 18])))
    return network, board, Options(max_bram36=draw(st.sampled_from([None, 100, 70, 50, 35])))


def test_an_accelerator_that_tuning_misses_is_found():
    vector = LoopNest(32, 1, 1, 8, 8, 3, 3, 8, 8, pad=(1, 1, 1, 1))
    conv = LoopNest(1, 16, 32, 8, 8, 3, 3, 8, 8, pad=(1, 1, 1, 1))
    network = Network(
        "two layers",
        (Layer("l0", "Conv", Unit.VECTOR, vector, ("t0",), "t1"),
         Layer("l1", "Conv", Unit.CONV, conv, ("t1",), "t2", Weights("w1"))),
        (Tensor("t0", 32, 8, 8), Tensor("t1", 32, 8, 8), Tensor("t2", 16, 8, 8)),
        ("t0",), ("t2",),
    )  # fmt: skip
    board, options = slower_memory(BOARD, 0.25), Options(max_bram36=35)
    found = Search(network, board, options, space=SPACE).run()
    assert found.certificate.value == Oracle(network, board, options).run().best


def answer(case):
    """Check the search against the oracle, and say what its certificate claims."""
    network, board, options = case
    oracle = Oracle(network, board, options).run()
    try:
        design = Search(network, board, options, space=SPACE).run()
    except NashcError:
        assert oracle.best == inf, "some accelerator fits"
        return "nothing fits"
    certificate = design.certificate
    assert certificate.space == oracle.accelerators
    assert certificate.bound <= oracle.best
    assert oracle.floor <= certificate.value
    assert certificate.value == design.interval_cycles / design.accelerator.batch
    if certificate.optimal:
        assert certificate.value <= oracle.best
    return "optimal" if certificate.optimal else "open"


FILTERED = settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


@pytest.mark.filterwarnings("error")
@settings(FILTERED, max_examples=CASES)
@given(cases())
def test_certificates_of_small_spaces(case):
    answer(case)


def test_most_small_spaces_are_solved_to_the_optimum():
    seen = Counter()

    @settings(FILTERED, max_examples=CASES // 2, derandomize=True)
    @given(cases())
    def check(case):
        seen[answer(case)] += 1

    check()
    assert seen["optimal"] >= PROVEN * (seen["optimal"] + seen["open"]), seen
