"""No bound is above a plan of what it bounds: the program of an accelerator, every bound of a node of the search."""

import random
from dataclasses import replace
from itertools import product
from math import inf

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small import BOARD, TRIES, accelerators, fits, plans, searches, tables_of

from nashc.core.options import OBJECTIVES
from nashc.hw.machine import PAGE_BITS
from nashc.hw.schedule import busy, latency
from nashc.search import nodes
from nashc.search.bound import Operand, least_product, unheld_pj
from nashc.search.coarse import BoundedSlot
from nashc.search.finish import objective_of
from nashc.search.memory import least_interval
from nashc.search.objectives import planned as planned_for
from nashc.search.objectives import relaxed as relaxed_for
from nashc.search.plan import plan


@settings(max_examples=60, deadline=None)
@given(searches(), st.integers(0, 10**9), st.integers(0, 12))
def test_program_is_below_every_plan_of_an_accelerator(search, seed, pages):
    """The pages are any, not those that the board has left: little memory is where the program has most to say."""
    chance, all_nodes = random.Random(seed), search.nodes()
    assume(all_nodes)
    for tables in accelerators(search, chance.choice(all_nodes), chance, 2):
        tables = tables_of(search, tables.accelerator, pages, chance.choice([0, 0, 1, 2]))  # noqa: PLW2901
        loose = least_interval(tables, tables.room, integer=False)
        exact = least_interval(tables, tables.room, integer=True, at_least=loose.interval, exact=True)
        assert loose.interval <= exact.interval
        for made in [*plans(tables, chance), plan(tables, exact, TRIES)]:
            assert fits(made, tables)
            assert exact.interval <= made.interval


def alone(slot, i):
    """A slot with option i only."""
    return BoundedSlot(
        slot.options.only(i), slot.works, slot.row_of_layer, slot.bounds[:, [i]], slot.machine, slot.dram_bits
    )


def value_of(search, made):
    parts = search.resources(made.accelerator)
    return objective_of(search.options.objective, search.network, search.board, search.machine, made, parts)


@pytest.mark.parametrize("objective", OBJECTIVES)
@settings(max_examples=30, deadline=None)
@given(st.data(), st.integers(0, 10**9))
def test_nodes_are_below_every_plan_of_their_accelerators(objective, data, seed):
    """The first bound, the one with memory and DRAM, and the one with exact mappings; each looked for below values on
    both sides of what there is."""
    search, chance = data.draw(searches(objective)), random.Random(seed)
    all_nodes = search.nodes()
    assume(all_nodes)
    node = chance.choice(all_nodes)
    if chance.random() < 0.6:  # less memory than the board has: more than the first bytes of it is contended
        node = replace(node, least_pages=0, most_pages=chance.randint(0, 9), interval=0, bound=0.0)
    if chance.random() < 0.6:  # one option a slot, so that shares and memory are all that is left between the two
        node = replace(node, slots=[alone(slot, chance.randrange(len(slot.options))) for slot in node.slots])
    assume(search.rebound(node))
    values = []
    for tables in accelerators(search, node, chance, 3):
        start = relaxed_for(objective, tables, tables.room, integer=True)
        for made in [*plans(tables, chance), planned_for(objective, tables, start, TRIES)]:
            values.append(value_of(search, made))
    assume(values)
    least = min(values)
    assert node.bound <= least * (1 + 1e-9)
    search.strengthen(node, chance.choice([inf, least * chance.uniform(0.9, 1.2)]))
    assert node.bound <= least * (1 + 1e-9)
    if node.picks is not None:
        for tables in accelerators(search, node, chance, 1):
            start = relaxed_for(objective, tables, tables.room, integer=True)
            made = planned_for(objective, tables, start, TRIES)
            least = min(
                least,
                value_of(search, made),
            )
        assert node.bound <= least * (1 + 1e-9)
    if objective == "fps":
        search.sharpen(node, least * chance.choice([0.9, 1.0, 1.1]))
        assert node.bound <= least


OPTIONS = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=6)


@given(st.lists(OPTIONS, min_size=1, max_size=3), st.integers(0, 40))
def test_product_of_energy_and_cycles_is_below_that_of_every_choice(slots, fixed):
    """Options of each slot as (energy, cycles), all of which fit together."""
    made = [(fixed + sum(o[0] for o in picks), sum(o[1] for o in picks)) for picks in product(*slots)]
    least_pj, least_cycles = (float(min(values)) for values in zip(*made, strict=True))
    factor = least_product(min(e / least_pj + c / least_cycles for e, c in made))
    least = min(e * c for e, c in made)
    assert 1 <= factor <= least / least_pj / least_cycles * (1 + 1e-9)


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=4), st.integers(0, 12))
def test_energy_beyond_the_memory_is_below_that_of_every_plan(sizes, room):
    """Layers with so many pages of input, output and weights, 0 of what is never on chip."""
    layers = [
        [Operand(1000 * i, float(i)), Operand(1500 * o, float(o)), Operand(PAGE_BITS * w, 0.0, float(w))]
        for i, o, w in sizes
    ]
    energy = BOARD.energy
    saved = energy.dram_pj_per_bit - energy.buffer_pj_per_bit - energy.noc_pj_per_bit
    maps = [[sum(o.bits for o in layer[:2]) - most for most in most_of(layer[:2])] for layer in layers]
    away = []
    for pinned in product((False, True), repeat=len(layers)):
        left = room - sum(layer[2].pinned for layer, on in zip(layers, pinned, strict=True) if on)
        if left >= 0:
            bits = sum(layer[2].bits for layer, on in zip(layers, pinned, strict=True) if not on)
            away.append(bits + sum(row[min(int(left), 10)] for row in maps))
    found = unheld_pj([layers[:1], layers[1:]], room, energy)
    pinned = sum(layer[2].pinned for layer in layers)
    assert max(0, pinned - room) * PAGE_BITS * (1 - 1e-5) <= found / saved <= min(away) * (1 + 1e-9)


def most_of(maps):
    """The most bits of these maps that so many pages hold, from 0 to 10."""
    ways = [[o for o, on in zip(maps, kept, strict=True) if on] for kept in product((False, True), repeat=len(maps))]
    return [max(sum(o.bits for o in way) for way in ways if sum(o.pages for o in way) <= n) for n in range(11)]


@settings(max_examples=30, deadline=None)
@given(searches(), st.integers(0, 10**9))
def test_fastest_tasks_are_below_those_of_every_plan(search, seed):
    chance, all_nodes = random.Random(seed), search.nodes()
    assume(all_nodes)
    for tables in accelerators(search, all_nodes[0], chance, 1):
        for made in plans(tables, chance):
            assert latency(tables.fastest) <= made.latency
            least = busy(tables.fastest)
            assert all(least[chunk] <= cycles for chunk, cycles in busy(made.tasks).items())


@settings(max_examples=80, deadline=None)
@given(searches(), st.integers(0, 10**9))
def test_shares_and_page_cycles_of_every_plan_are_within_what_there_is(search, seed):
    """Term by term: at a plan's interval, no chunk is said to need more of the DRAM or of the memory than it has."""
    chance, all_nodes = random.Random(seed), search.nodes()
    assume(all_nodes)
    node = chance.choice(all_nodes)
    slots = [alone(slot, chance.randrange(len(slot.options))) for slot in node.slots]
    node = replace(node, slots=slots, least_pages=0, most_pages=chance.randint(0, 9), interval=0, bound=0.0)
    assume(search.rebound(node))
    asked = []
    for tables in accelerators(search, node, chance, 2):
        rates = [search.dram_bits * s // search.space.shares for s in range(1, search.space.shares + 1)]
        dram = [[r for r in rates if r].index(chunk.dram_bits) for chunk in tables.accelerator.chunks]
        start = least_interval(tables, tables.room, integer=True)
        for made in [*plans(tables, chance, 3), plan(tables, start, TRIES)]:
            with pytest.MonkeyPatch.context() as patch:  # the tables that the bound is made of, at this interval
                patch.setattr(nodes, "GALLOP", 1.0)
                patch.setattr(nodes, "least_possible", lambda *args: asked.append(args) or (inf, [(0, 1.0)]))
                search.strengthen(replace(node, bound=made.interval / node.batch), inf)
            priced, _, memory, *_ = asked.pop()
            taken = needed = 0.0
            for slot, step in zip(priced, dram, strict=True):
                table, (_, steps) = slot.columns(made.interval)
                (column,) = np.flatnonzero(steps == step)
                taken, needed = taken + table[-2, column], needed + table[-1, column]
            assert taken <= 1
            assert needed <= memory * made.interval * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["fps", "latency", "energy"]).flatmap(searches), st.integers(0, 10**9))
def test_with_a_limit_of_latency_no_node_is_above_a_plan_that_keeps_it(search, seed):
    chance, all_nodes = random.Random(seed), search.nodes()
    assume(all_nodes)
    node, objective = chance.choice(all_nodes), search.options.objective
    made = []
    for tables in accelerators(search, node, chance, 2):
        start = relaxed_for(objective, tables, tables.room, integer=True)
        made += [*plans(tables, chance), planned_for(objective, tables, start, TRIES)]
    assume(made)
    latest = chance.choice(made).latency
    values = [value_of(search, m) for m in made if m.latency <= latest]
    search.options = replace(search.options, max_latency_ms=latest / search.board.clock_mhz / 1e3)
    node.interval = 0
    assert search.rebound(node)
    search.strengthen(node, inf)
    assert node.bound <= min(values) * (1 + 1e-9)
    search.options = replace(search.options, max_latency_ms=1 / search.board.clock_mhz / 1e3)
    node.interval = 0
    assert not search.rebound(node)
    assert search.soonest_ms > search.options.max_latency_ms
