"""Coarse bounds never exceed exact results, and the least interval is the optimum of the product space."""

import sys
from itertools import product
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nashc.board import load_board
from nashc.core.design import Buffers
from nashc.core.loops import LoopNest
from nashc.core.network import Layer, Network, Tensor, Unit, Weights
from nashc.core.options import Options
from nashc.hw.resources import chunk_resources, machine_of, usable
from nashc.search.coarse import best_case, bounded_slot, cheapest_choice, front, least_interval
from nashc.search.mapping import best_mapping
from nashc.search.space import BUFFER_LEVELS, DUAL_PRICES, partitions, slot_options

sys.path.insert(0, str(Path(__file__).parents[1] / "hw"))
from strategies import machines, placements, unrolls, works

BOARD = load_board("fpga-pynq-z2")
MACHINE = machine_of(BOARD)
DRAM_BITS = int(BOARD.dram_bytes_per_cycle * 8)


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


def test_refined_cycles_are_never_below_the_bound():
    network = small_network()
    for partition in partitions(network):
        for slot in partition:
            options = slot_options(slot, network, BOARD, MACHINE, Options())
            bounded = bounded_slot(options, network, 2, MACHINE, DRAM_BITS)
            bounds = bounded.cycles.copy()
            for i in range(0, len(options), max(1, len(options) // 60)):
                bounded.refine(i)
                assert bounded.cycles[i] >= bounds[i], options.unroll(i)


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
                    assert options.prices[row, i] <= used.lut + price * used.dsp + 1e-6
            for level in range(len(BUFFER_LEVELS)):
                assert options.bram18[level][i] == chunk_resources(BOARD, (options.chunk(i, level, 1),), 0)[0].bram18


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
def test_cheapest_choice_finds_a_fit_if_there_is_one(costs, limits):
    costs = [np.array(c, dtype=float) for c in costs]
    limit = np.array(limits, dtype=float)
    every = product(*(range(c.shape[1]) for c in costs))
    possible = any((sum(c[:, i] for c, i in zip(costs, pick, strict=True)) <= limit).all() for pick in every)
    found = cheapest_choice(costs, limit)
    assert (found is not None) == possible
    if found:
        assert (sum(c[:, i] for c, i in zip(costs, found, strict=True)) <= limit).all()


class FakeSlot:
    def __init__(self, cycles):
        self.cycles = np.array(cycles, dtype=np.int64)


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
    found = least_interval([FakeSlot(c) for c in cycles], costs, limits)
    assert (found[0] if found else None) == best


@settings(max_examples=100, deadline=None)
@given(tables)
def test_front_keeps_what_no_other_column_beats(table):
    costs = np.array(table, dtype=float)
    kept = costs[:, front(costs)]
    for column in costs.T:
        assert any((k <= column).all() for k in kept.T)
