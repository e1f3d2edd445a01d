"""Tables are exact; plans are legal, hold what they say and cost what they say, cycle by cycle."""

import random
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small import TRIES, accelerators, fits, plans, random_tables, searches, tables_of

from nashc.core.network import Unit
from nashc.hw.machine import PAGE_BITS, URAM_PAGES
from nashc.hw.schedule import busy
from nashc.search import compiled
from nashc.search.mapping import best_mapping
from nashc.search.memory import least_interval
from nashc.search.objectives import planned as planned_for
from nashc.search.objectives import relaxed as relaxed_for
from nashc.search.plan import QUICK, drawn, one_by_one, plan, plan_further, plan_near

sys.path.insert(0, str(Path(__file__).parents[1] / "hw"))
from test_schedule import simulate


def simulated_peaks(made):
    """Most pages and most URAM groups in use in a period long after the start, of feature maps alone; asserts that the
    schedule is legal."""
    span = max(s + t.cycles for s, t in zip(made.schedule.starts, made.tasks, strict=True))
    warm = span // made.interval + 2
    peaks = []
    for amounts in (
        [max(0, life.pages - URAM_PAGES * g) for (_, life), g in zip(made.lifetimes, made.groups, strict=True)],
        made.groups,
    ):
        lives = [replace(life, pages=n) for (_, life), n in zip(made.lifetimes, amounts, strict=True)]
        used, _ = simulate(made.schedule, made.tasks, lives, 2 * warm + 2)
        peaks.append(max(used[cycle] for cycle in range(warm * made.interval, (warm + 1) * made.interval)))
    return tuple(peaks)


def check_fits(made, tables):
    """The plan fits BRAM and URAM, cycle by cycle, and says what it takes of them, with a shorter pipeline too: pinned
    weights stay where they are then."""
    pages, groups = simulated_peaks(made)
    pinned = tables.pinned(made.on, tables.uram_groups - groups)
    assert (made.peak_pages, made.peak_groups, made.pinned_groups) == (pages + pinned[0], groups, pinned[1])
    assert fits(made, tables)
    short = drawn(made)
    pages, groups = simulated_peaks(short)
    assert (short.peak_pages, short.peak_groups, short.pinned_groups) == (pages + pinned[0], groups, pinned[1])
    assert fits(short, tables)


@settings(max_examples=100, deadline=None)
@given(random_tables(most_layers=8))
def test_plans_are_legal_and_fit_the_memory(tables):
    made = plan(tables, least_interval(tables, tables.room, integer=True), QUICK)
    assert made.interval >= max(busy(made.tasks).values())
    check_fits(made, tables)
    assert {name for name, _ in made.lifetimes} == set(made.resident)


@settings(max_examples=60, deadline=None)
@given(random_tables(most_layers=8))
def test_a_search_from_a_known_plan_ends_no_worse_and_keeps_only_what_fits(tables):
    start = least_interval(tables, tables.room, integer=True)
    known = plan(tables, start, QUICK)
    further = plan_further(tables, start, known)
    assert further.interval <= known.interval
    check_fits(further, tables)


@settings(max_examples=50, deadline=None)
@given(searches(), st.integers(0, 10**9), st.integers(0, 12))
def test_a_plan_near_that_of_another_accelerator_is_one_of_its_own(search, seed, pages):
    """Other cycles, less or more memory: it fits, and is above its own program; from its own plan it is found again."""
    chance, nodes = random.Random(seed), search.nodes()
    assume(nodes)
    found = [t.accelerator for t in accelerators(search, chance.choice(nodes), chance, 2)]
    assume(found)
    first, other = (tables_of(search, a, chance.choice([pages, 2 * pages])) for a in (found[0], found[-1]))
    known = plan(first, least_interval(first, first.room, integer=False), TRIES)
    bound = least_interval(other, other.room, integer=False)
    made = plan_near(other, bound, known, TRIES)
    if made is not None:
        assert made.accelerator == other.accelerator
        assert made.interval >= bound.interval
        assert fits(made, other)
    again = plan_near(first, least_interval(first, first.room, integer=False), known, TRIES)
    if first.switches and known.interval < one_by_one(first.tasks(frozenset())).interval:
        assert again is not None
        assert again.interval <= known.interval


@settings(max_examples=100, deadline=None)
@given(random_tables(most_layers=8))
def test_plans_without_compiled_parts_are_legal_and_fit_the_memory(tables):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "library", lambda: None)
        made = plan(tables, least_interval(tables, tables.room, integer=True), QUICK)
    check_fits(made, tables)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["fps", "latency", "energy"]).flatmap(searches), st.integers(0, 10**9), st.integers(0, 12))
def test_a_layer_costs_its_best_mapping_under_the_placement(search, seed, pages):
    """The table, the plans that the search makes of it, and any other plan."""
    chance, nodes = random.Random(seed), search.nodes()
    assume(nodes)
    objective = search.options.objective
    for found in accelerators(search, chance.choice(nodes), chance, 1):
        tables = tables_of(search, found.accelerator, pages)
        start = relaxed_for(objective, tables, pages, integer=True)
        for made in [planned_for(objective, tables, start, TRIES), *plans(tables, chance, 2)]:
            for i, layer in enumerate(search.network.layers):
                assert made.tasks[i].cycles == tables.cycles[i][tables.mask(i, made.on)]
                if layer.unit is Unit.HOST:
                    assert made.best[i] is None
                    continue
                chunk = tables.accelerator.chunks[made.chunk_of[i]]
                placement = made.placements[i]
                assert placement.inputs == tuple(name in made.resident for name in layer.inputs)
                assert (placement.output, placement.weights) == (
                    layer.output in made.resident,
                    layer.name in made.pinned,
                )
                machine = replace(search.machine, post_lanes=chunk.post_lanes)
                best = best_mapping(made.works[i], chunk.unroll, chunk.buffers, chunk.dram_bits, machine, placement)
                assert (best, best.cycles) == (made.best[i], made.tasks[i].cycles)


@settings(max_examples=100, deadline=None)
@given(random_tables(most_layers=6), st.data())
def test_weights_take_as_few_pages_as_any_deal_of_the_urams_leaves(tables, data):
    on = data.draw(st.sets(st.integers(0, len(tables.switches) - 1))) if tables.switches else set()
    bits = [0] * len(tables.accelerator.chunks)
    for n in on:
        if not tables.switches[n].tensor:
            bits[tables.switches[n].chunk] += tables.switches[n].bits
    spare = data.draw(st.integers(0, tables.uram_groups))
    pages, groups = tables.pinned(on, spare)
    deals = product(range(spare + 1), repeat=len(bits))
    left = [
        sum(max(0, -(-(b - g * URAM_PAGES * PAGE_BITS) // PAGE_BITS)) for b, g in zip(bits, deal, strict=True))
        for deal in deals
        if sum(deal) <= spare
    ]
    assert pages == min(left)
    assert groups <= spare
