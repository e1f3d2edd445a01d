"""The coarse stage of many networks says no more cycles than the exact search of one, and what its options say."""

from dataclasses import replace
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SPACE, WIDER

from nashc.board import load_board
from nashc.core.options import Options
from nashc.hw.resources import machine_of, usable
from nashc.nas.architecture import parse, sample, with_operator
from nashc.nas.network import network_of
from nashc.nas.space import load_space
from nashc.search.baselines import without_lut_macs
from nashc.search.coarse import busy_bound, slot_limits
from nashc.search.nodes import Nodes
from nashc.search.solve import solve
from nashc.search.space import partitions, work_of
from nashc.search.survey import Survey

BOARD = load_board("fpga-pynq-z2")
SLOW, QUICK = (replace(BOARD, dram=replace(BOARD.dram, bytes_per_second=x)) for x in (2e8, 1e10))
"""DRAMs that rule all, or nothing that is so small."""
SPACES = {"resnet-cifar": load_space("resnet-cifar"), "mobilenet-cifar": load_space("mobilenet-cifar"), "wider": WIDER}
SEEDS = st.integers(0, 10**9)
FEW = settings(max_examples=8, deadline=None)
OPTIONS = Options(batch=8, max_lut=25_000)


def drawn(space, seed, operator=None):
    architecture = sample(space, Random(seed))
    return network_of(with_operator(architecture, operator) if operator else architecture, space)


@given(
    st.sampled_from(sorted(SPACES)),
    SEEDS,
    st.sampled_from([BOARD, SLOW]),
    st.sampled_from([None, 12_000, 25_000]),
    st.booleans(),
)
@FEW
def test_with_all_lean_options_it_is_not_above_the_bound_of_the_exact_search(name, seed, board, most, plan):
    """Of the same partition; the exact search's options are in the tables, as the network is the only sample."""
    network = drawn(SPACES[name], seed)
    options = Options(batch=8, max_lut=most, memory_plan=plan)
    exact = Nodes(network, board, options, parts=partitions(network)[:1]).nodes()
    found = Survey(board, options, [network]).survey(network)
    assert (found is None) <= (not exact)
    assert not exact or found.cycles <= min(node.bound for node in exact) * (1 + 1e-9)


@pytest.mark.parametrize("plan", [True, False])
def test_where_the_dram_rules_it_is_the_bound_of_the_exact_search(plan):
    """A tenth of the weights stays on chip: what else must move is the same for both."""
    network = network_of(parse("8/24:c3/48:c3/96:c3,c3,c3", SPACES["resnet-cifar"]), SPACES["resnet-cifar"])
    options = Options(batch=1, max_bram36=24, memory_plan=plan)
    exact = min(node.bound for node in Nodes(network, SLOW, options).nodes())
    assert Survey(SLOW, options, [network]).survey(network).cycles == exact
    assert exact > 1.5 * min(node.bound for node in Nodes(network, BOARD, options).nodes())


def test_no_design_is_faster():
    network = drawn(SPACE, 1)
    made = solve(network, BOARD, replace(OPTIONS, budget_seconds=1.0))
    assert made.fps <= Survey(BOARD, OPTIONS, [network]).fps(network) * (1 + 1e-9)


@given(SEEDS, st.sampled_from(["conv", "shift", "adder"]))
@FEW
def test_it_is_the_least_of_all_choices_of_options(seed, operator):
    """Every choice written out: one option of the tables for each slot, as busy as its layers, within the limits."""
    network, chance = drawn(SPACE, seed, operator), np.random.default_rng(seed)
    survey = Survey(QUICK, replace(OPTIONS, max_lut=8_000), [drawn(SPACE, seed + 1, operator), network])
    machine, dram_bits = machine_of(QUICK), int(QUICK.dram_bytes_per_cycle * 8)
    parts = partitions(network)[0]
    for table in survey.tables.values():  # few enough for a product
        some = np.sort(chance.permutation(len(table.options))[:25])
        table.options, table.costs, table.bounds = table.options.take(some), table.costs[:, some], {}
    tables = [survey.tables[slot.unit, slot.role, slot.weight_bits] for slot in parts]
    busy = [
        sum(busy_bound(t.options, work_of(network, network.layers[i], 8), machine, dram_bits) for i in slot.layers)
        for slot, t in zip(parts, tables, strict=True)
    ]
    limits = slot_limits(QUICK, usable(QUICK, 8_000, None, None), parts, 0)
    fitting = [
        max(b[i] for b, i in zip(busy, choice, strict=True))
        for choice in product(*(range(len(t.options)) for t in tables))
        if (sum(t.costs[:, i] for t, i in zip(tables, choice, strict=True)) <= limits * (1 + 1e-9)).all()
    ]
    found = survey.survey(network)
    assert (found is None) == (not fitting)
    assert found is None or 8 * found.cycles == min(fitting)


@given(st.lists(SEEDS, min_size=2, max_size=4))
@FEW
def test_what_was_asked_before_makes_no_difference(seeds):
    networks = [drawn(SPACES["wider"], seed, "shift") for seed in seeds]
    survey = Survey(BOARD, OPTIONS, networks)
    found = [survey.survey(n) for n in (*networks, *reversed(networks))]
    alone = [Survey(BOARD, OPTIONS, networks).survey(n) for n in networks]
    assert found == [*alone, *reversed(alone)]


@given(SEEDS)
@FEW
def test_a_slot_that_no_sample_had_gets_options_when_it_comes(seed):
    network = drawn(SPACES["mobilenet-cifar"], seed)
    assert Survey(BOARD, OPTIONS, []).survey(network) == Survey(BOARD, OPTIONS, [network]).survey(network)
    found = Survey(BOARD, OPTIONS, [drawn(SPACE, seed, "conv")]).survey(network)
    assert set(found.lanes) == {slot.name for slot in partitions(network)[0]}


@pytest.mark.parametrize("samples", [[], [drawn(SPACE, 0, "shift")]])
@pytest.mark.parametrize("limits", [{"max_lut": 100}, {"max_bram36": 0, "max_lut": 2_000}])
def test_what_fits_no_board_has_no_speed(samples, limits):
    survey = Survey(BOARD, Options(batch=8, **limits), samples)
    assert survey.survey(drawn(SPACE, 1)) is None
    assert survey.fps(drawn(SPACE, 1)) == 0


def test_a_faster_clock_is_faster():
    network = drawn(SPACE, 1)
    slow, fast = (Survey(BOARD, replace(OPTIONS, clock_mhz=mhz), [network]).fps(network) for mhz in (50.0, 100.0))
    assert slow < fast <= 2 * slow * (1 + 1e-9)


def test_macs_in_luts_cost_no_speed():
    """Designs of DSPs alone are among those that may use LUTs too."""
    network = network_of(parse("24/24:c3/32:c3/96:c3,c3", SPACES["resnet-cifar"]), SPACES["resnet-cifar"])
    board = load_board("fpga-kv260")
    assert solve(network, board, Options()).fps >= solve(network, without_lut_macs(board), Options()).fps
