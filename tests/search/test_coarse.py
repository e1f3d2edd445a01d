"""Coarse bounds never exceed exact results, and the least interval is the optimum of the product space."""

import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nashc.board import load_board
from nashc.core.design import Buffers, Placement
from nashc.core.loops import LoopNest
from nashc.core.network import Layer, Network, Tensor, Unit, Weights
from nashc.core.options import Options
from nashc.hw.resources import buffer_resources, chunk_resources, machine_of, usable
from nashc.search import coarse, compiled
from nashc.search.coarse import (
    BoundedSlot,
    best_case,
    bounded_slot,
    busy_bound,
    by_prices,
    choose,
    front,
    least_interval,
)
from nashc.search.mapping import best_mapping
from nashc.search.space import (
    BRAM_PRICES,
    BUFFER_LEVELS,
    DUAL_PRICES,
    NO_BUFFERS,
    Space,
    partitions,
    slot_options,
    work_of,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "hw"))
from strategies import machines, placements, unrolls, works

BOARD = load_board("fpga-pynq-z2")
MACHINE = machine_of(BOARD)
DRAM_BITS = int(BOARD.dram_bytes_per_cycle * 8)
LEVELS = tuple(range(len(BUFFER_LEVELS)))


def conv(name, source, target, nest, unit=Unit.CONV):
    return Layer(name, "Conv", unit, nest, (source,), target, Weights(f"{name}.w"))


def small_network(unit=Unit.CONV):
    nests = [LoopNest(1, 24, 3, 16, 16, 3, 3, 32, 32, (2, 2), (1, 1), (1, 1, 1, 1)),
             LoopNest(24, 1, 1, 16, 16, 3, 3, 16, 16, (1, 1), (1, 1), (1, 1, 1, 1)),
             LoopNest(1, 40, 24, 16, 16, 1, 1, 16, 16)]  # fmt: skip
    maps = [(3, 32), (24, 16), (24, 16), (40, 16)]
    tensors = tuple(Tensor(f"t{i}", c, s, s) for i, (c, s) in enumerate(maps))
    layers = tuple(conv(f"l{i}", f"t{i}", f"t{i + 1}", n, unit) for i, n in enumerate(nests))
    return Network("small", layers, tensors, ("t0",), ("t3",))


def test_sharp_cycles_are_never_below_the_bound():
    network = small_network()
    for partition in partitions(network):
        for slot in partition:
            options = slot_options(slot, network, BOARD, MACHINE, Options())
            some = options.take(np.arange(0, len(options), max(1, len(options) // 60)))
            works = [work_of(network, network.layers[i], 2) for i in slot.layers]
            bounds = np.stack([busy_bound(some, work, MACHINE, DRAM_BITS) for work in works])
            sharp = BoundedSlot(some, tuple(works), tuple(range(len(works))), bounds.copy(), MACHINE, DRAM_BITS)
            sharp.sharpen(np.arange(len(some)))
            assert sharp.exact.all()
            assert (sharp.bounds >= bounds).all()


@pytest.mark.parametrize("unrollings", [None, 5, 1])
def test_every_option_is_beaten_by_a_declared_one_or_itself_declared(unrollings):
    network = small_network()
    for slot in partitions(network)[0]:
        options = slot_options(slot, network, BOARD, MACHINE, Options())
        bounded = bounded_slot(options, network, 2, MACHINE, DRAM_BITS, Space(unrollings=unrollings))
        assert not bounded.exact.any()
        if unrollings is not None:
            assert len(bounded.options) == unrollings
            continue
        cycles = sum(
            busy_bound(options, work_of(network, network.layers[i], 2), MACHINE, DRAM_BITS) for i in slot.layers
        )
        every = np.vstack([coarse.slot_costs(options, LEVELS), cycles])
        kept = np.vstack([coarse.slot_costs(bounded.options, LEVELS), bounded.cycles])
        for column in every[:, :: max(1, len(options) // 500)].T:
            assert (kept <= column[:, None]).all(axis=0).any()


def test_dual_prices_bound_the_exact_resources():
    """At every price, LUTs plus price times DSPs of a real lane split are at least the coarse cost."""
    network = small_network()
    limit = usable(BOARD, None, None, None)
    for slot in partitions(network)[0]:
        options = slot_options(slot, network, BOARD, MACHINE, Options())
        for i in range(0, len(options), max(1, len(options) // 200)):
            chunk = options.chunk(i, 0, DRAM_BITS)
            for dsp in (limit.dsp, limit.dsp // 2, 70):
                used = chunk_resources(BOARD, (chunk,), dsp)[0]
                for row, price in enumerate(DUAL_PRICES):
                    assert (
                        options.prices[row, i]
                        <= used.lut - buffer_resources(BOARD, chunk).lut + price * used.dsp + 1e-6
                    )


def test_levels_cost_what_their_buffers_take_and_those_that_hold_a_layer_in_no_way_are_out():
    network = small_network()
    seen = set()
    for slot in partitions(network)[0]:
        options = slot_options(slot, network, BOARD, MACHINE, Options())
        works = [work_of(network, network.layers[i], 2) for i in slot.layers]
        for i in range(0, len(options), max(1, len(options) // 60)):
            for level in LEVELS:
                chunk = options.chunk(i, level, 16)
                machine = replace(MACHINE, post_lanes=chunk.post_lanes)
                away = [Placement((False,) * (1 + len(w.extras)), False, False) for w in works]
                held = all(
                    best_mapping(w, chunk.unroll, chunk.buffers, 16, machine, place)
                    for w, place in zip(works, away, strict=True)
                )
                made = buffer_resources(BOARD, chunk)
                costs = (options.luts[level][i], options.bram18[level][i])
                assert costs == ((made.lut, made.bram18) if held else (NO_BUFFERS, NO_BUFFERS))
                seen.add((held, any(chunk.buffers.distributed)))
    assert {(True, True), (True, False)} <= seen


def test_no_buffers_of_the_levels_cost_less_than_the_coarse_row():
    """At every pair of prices, LUTs and priced DSPs and BRAM18 of a real chunk are at least the row of its option."""
    network = small_network()
    for slot in partitions(network)[0]:
        options = slot_options(slot, network, BOARD, MACHINE, Options())
        for i in range(0, len(options), max(1, len(options) // 100)):
            for levels in (LEVELS, (0,), (1, 3)):
                costs = coarse.slot_costs(options.only(i), levels)[:, 0]
                for level in levels:
                    if options.luts[level][i] == NO_BUFFERS:
                        continue
                    used = chunk_resources(BOARD, (options.chunk(i, level, DRAM_BITS),), 100)[0]
                    real = [used.lut + b * used.bram18 + d * used.dsp for b in BRAM_PRICES for d in DUAL_PRICES]
                    assert (costs <= np.array([*real, used.bram18]) + 1e-6).all()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_placement_buffer_or_share_gets_below_the_best_case(data):
    work = data.draw(works())
    unroll, machine = data.draw(unrolls), data.draw(machines)
    dram_bits = data.draw(st.integers(16, 900))
    halves = [data.draw(st.sampled_from([1 << 14, 1 << 16, 1 << 18])) for _ in range(3)]
    large = Buffers(*(h * data.draw(st.sampled_from([1, 2, 8])) for h in halves))
    real = best_mapping(
        work, unroll, Buffers(*halves), data.draw(st.integers(8, dram_bits)), machine, data.draw(placements(work))
    )
    ideal = best_case(work, unroll, large, dram_bits, machine)
    if real is not None:
        assert ideal is not None
        assert ideal.cycles <= real.cycles


tables = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=3, max_size=3)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(tables, min_size=1, max_size=3), st.lists(st.integers(0, 20), min_size=3, max_size=3))
def test_choice_finds_a_fit_if_there_is_one(costs, limits):
    costs, limit = [np.array(c, dtype=float) for c in costs], np.array(limits, dtype=float)
    found = choose(costs, limit)
    assert (found.picks is not None) == possible(costs, limit)
    assert found.impossible == (found.picks is None)
    assert found.picks is None or (total(costs, found.picks) <= limit).all()


def total(costs, picks):
    return sum(c[:, i] for c, i in zip(costs, picks, strict=True))


def possible(costs, limit):
    return any((total(costs, picks) <= limit).all() for picks in product(*(range(c.shape[1]) for c in costs)))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_choice_that_keeps_the_leanest_proves_nothing_that_is_not_so(data):
    """Tables too large to write out: a choice may be missed, but none is called impossible that is possible."""
    seed, count = data.draw(st.integers(0, 10**9)), data.draw(st.integers(1, 4))
    chance = np.random.default_rng(seed)
    costs = [chance.integers(0, 40, (3, chance.integers(1, 9))).astype(float) for _ in range(count)]
    limit = chance.integers(0, 30 * count, 3).astype(float)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coarse, "MOST_SUMS", data.draw(st.integers(1, 12)))
        patch.setattr(coarse, "MOST_LEAN", data.draw(st.integers(1, 4)))
        found = choose(costs, limit)
    if found.picks is not None:
        assert not found.impossible
        assert (total(costs, found.picks) <= limit).all()
    elif found.impossible:
        assert not possible(costs, limit)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**9))
def test_prices_prove_what_is_impossible_or_find_what_fits(seed):
    chance = np.random.default_rng(seed)
    costs = [chance.random((4, chance.integers(1, 7))) ** 2 for _ in range(chance.integers(1, 4))]
    limit = np.ones(4) * chance.uniform(0.1, 1)
    for found in (by_prices([c / limit[:, None] for c in costs]), choose(costs, limit, leanest=False)):
        if found is not None and found.picks is not None:
            assert (total(costs, found.picks) <= limit * (1 + 1e-9)).all()
        elif found is not None and found.impossible:
            assert not possible(costs, limit)


class FakeSlot:
    def __init__(self, cycles):
        self.cycles = self.options = np.array(cycles, dtype=np.int64)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_least_interval_is_the_brute_force_optimum(data):
    count = data.draw(st.integers(1, 3))
    sizes = [data.draw(st.integers(1, 6)) for _ in range(count)]
    cycles = [data.draw(st.lists(st.integers(1, 30), min_size=n, max_size=n)) for n in sizes]
    costs = [
        np.array(
            data.draw(st.lists(st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=2, max_size=2)), float
        )
        for n in sizes
    ]
    limits = np.array(data.draw(st.lists(st.integers(0, 20), min_size=2, max_size=2)), float)
    best = min(
        (
            max(cycles[s][i] for s, i in enumerate(pick))
            for pick in product(*(range(n) for n in sizes))
            if (sum(costs[s][:, i] for s, i in enumerate(pick)) <= limits).all()
        ),
        default=None,
    )
    slots = [FakeSlot(c) for c in cycles]
    found = least_interval(slots, costs, limits)
    assert (found[0] if found else None) == best
    if found:
        assert max(cycles[s][i] for s, i in enumerate(found[1])) == best
        assert (total(costs, found[1]) <= limits).all()
        assert least_interval(slots, costs, limits, at_least=best + 1)[0] == best + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coarse, "MOST_SUMS", data.draw(st.integers(1, 12)))
        patch.setattr(coarse, "MOST_LEAN", data.draw(st.integers(1, 4)))
        rough = least_interval(slots, costs, limits)
    if best is not None:
        assert rough is not None, "what is not proven impossible stays in the space"
        assert rough[0] <= best


@settings(max_examples=100, deadline=None)
@given(tables)
def test_front_keeps_what_no_other_column_beats(table):
    costs = np.array(table, dtype=float)
    kept = costs[:, front(costs)]
    for column in costs.T:
        assert any((k <= column).all() for k in kept.T)


@pytest.mark.skipif(compiled.library() is None, reason="this install has no compiled parts (no C++ compiler)")
@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 60), st.integers(1, 5), st.sampled_from([2, 10, 10**6]))
def test_compiled_front_is_the_same(seed, columns, rows, most):
    costs = np.random.default_rng(seed).integers(0, most, (rows, columns)).astype(float)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "library", lambda: None)
        expected = front(costs)
    assert front(costs).tolist() == expected.tolist()
