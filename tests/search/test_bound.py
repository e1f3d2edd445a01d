"""No bound is above a plan of what it bounds: the program of an accelerator, every bound of a node of the search."""

import random
from math import inf

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small import networks

from nashc.board import load_board
from nashc.core.design import Accelerator
from nashc.core.network import Unit
from nashc.core.options import OBJECTIVES, Options
from nashc.hw.schedule import busy, first_fit, latency, periodic
from nashc.search.finish import objective_of
from nashc.search.memory import least_interval
from nashc.search.objectives import planned as planned_for
from nashc.search.objectives import relaxed as relaxed_for
from nashc.search.plan import Effort, finished, in_order, one_by_one, plan
from nashc.search.solve import Search, compositions
from nashc.search.space import Space
from nashc.search.tables import NoMapping, Tables
from nashc.search.tune import Candidate

BOARD = load_board("fpga-pynq-z2")
EFFORT = Effort(2_000, 2)
KINDS = ["dense", "dense", "dense", "depthwise", "vector", "fork", "fork", "host"]
LIMITS = [(None, None), (None, 90), (None, 60), (25_000, 100)]
"""(LUT, BRAM36) of the whole design."""


@st.composite
def searches(draw, objective="fps"):
    """A search on a small board, whose memory holds all, some or none of a random network."""
    network = draw(networks(rows=(8, 16, 28), channels=(3, 16, 32, 64), kinds=KINDS))
    assume(any(layer.unit is not Unit.HOST for layer in network.layers))
    lut, bram36 = draw(st.sampled_from(LIMITS))
    options = Options(objective=objective, batch=draw(st.sampled_from([1, 2, 8])), max_lut=lut, max_bram36=bram36)
    return Search(network, BOARD, options, space=Space(unrollings=draw(st.sampled_from([3, 12]))))


def accelerators(search, node, chance, count):
    """Tables of random accelerators of a node: any options, buffers and shares that fit the board."""
    tuner, slots = search.tuner(node), len(node.slots)
    shares = list(compositions(search.space.shares, slots)) if slots < 4 else [(search.space.shares // slots,) * slots]
    found = 0
    for _ in range(20 * count):
        choice = tuple(chance.randrange(len(slot.options)) for slot in node.slots)
        levels = tuple(chance.choice(search.space.levels) for _ in node.slots)
        candidate = tuner.filled(Candidate(choice, levels, chance.choice(shares), node.least_pages))
        chunks = tuner.chunks(candidate)
        if tuner.used(chunks, candidate.memory_pages).fits(search.limit):
            try:
                yield tables_of(search, Accelerator(chunks, node.batch), candidate.memory_pages)
            except NoMapping:
                continue
            if (found := found + 1) == count:
                return
    if node.picks is not None:  # what the search itself would take
        best = tuner.best([i for i, _ in node.picks], [part for _, part in node.picks], lambda *_: False)
        if best is not None:
            yield best.tables


def tables_of(search, accelerator, pages):
    return Tables(search.network, search.board, search.machine, accelerator, pages)


def plans(tables, chance, count=12):
    """Random plans with every kind of schedule that fit the memory."""
    for _ in range(count):
        often = chance.choice([0.0, 0.3, 0.7, 1.0])
        on = frozenset(n for n in range(len(tables.switches)) if chance.random() < often)
        tasks = tables.tasks(on)
        ways = [one_by_one(tasks), first_fit(tasks), in_order(tasks)]
        ways += [periodic(tasks, segments) for segments in range(1, len(tasks))]
        made = (finished(tables, on, way) for way in dict.fromkeys(ways))
        yield from (m for m in made if m.peak_pages <= tables.memory_pages)


@settings(max_examples=60, deadline=None)
@given(searches(), st.integers(0, 10**9), st.integers(0, 12))
def test_program_is_below_every_plan_of_an_accelerator(search, seed, pages):
    """The pages are any, not those that the board has left: little memory is where the program has most to say."""
    chance, nodes = random.Random(seed), search.nodes()
    assume(nodes)
    for tables in accelerators(search, chance.choice(nodes), chance, 2):
        tables = tables_of(search, tables.accelerator, pages)  # noqa: PLW2901
        loose = least_interval(tables, pages, integer=False)
        exact = least_interval(tables, pages, integer=True, at_least=loose.interval, exact=True)
        assert loose.interval <= exact.interval
        for made in [*plans(tables, chance), plan(tables, exact, EFFORT)]:
            assert made.peak_pages <= pages
            assert exact.interval <= made.interval


@pytest.mark.parametrize("objective", OBJECTIVES)
@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(0, 10**9))
def test_nodes_are_below_every_plan_of_their_accelerators(objective, data, seed):
    """The first bound, the one with memory and DRAM, and the one with exact mappings; each looked for below values on
    both sides of what there is."""
    search, chance = data.draw(searches(objective)), random.Random(seed)
    nodes = search.nodes()
    assume(nodes)
    node = chance.choice(nodes)
    values = []
    for tables in accelerators(search, node, chance, 3):
        start = relaxed_for(objective, tables, tables.memory_pages, integer=True)
        for made in [*plans(tables, chance), planned_for(objective, tables, start, EFFORT)]:
            values.append(objective_of(objective, search.network, search.board, search.machine, made))
    assume(values)
    least = min(values)
    assert node.bound <= least * (1 + 1e-9)
    search.strengthen(node, chance.choice([inf, least * chance.uniform(0.9, 1.2)]))
    assert node.bound <= least * (1 + 1e-9)
    if node.picks is not None:
        for tables in accelerators(search, node, chance, 1):
            start = relaxed_for(objective, tables, tables.memory_pages, integer=True)
            made = planned_for(objective, tables, start, EFFORT)
            least = min(least, objective_of(objective, search.network, search.board, search.machine, made))
        assert node.bound <= least * (1 + 1e-9)
    if objective == "fps":
        search.sharpen(node, least * chance.choice([0.9, 1.0, 1.1]))
        assert node.bound <= least


@settings(max_examples=30, deadline=None)
@given(searches(), st.integers(0, 10**9))
def test_fastest_tasks_are_below_those_of_every_plan(search, seed):
    chance, nodes = random.Random(seed), search.nodes()
    assume(nodes)
    for tables in accelerators(search, nodes[0], chance, 1):
        for made in plans(tables, chance):
            assert latency(tables.fastest) <= made.latency
            least = busy(tables.fastest)
            assert all(least[chunk] <= cycles for chunk, cycles in busy(made.tasks).items())
