"""Choices of types against a linear program and brute force."""

from itertools import product

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from made import MODELS

from nashc.board import load_board
from nashc.core.network import Unit
from nashc.core.options import Options
from nashc.hw.resources import usable
from nashc.hybridize.choose import (
    CHUNK_COST,
    Candidate,
    Choosable,
    candidates,
    frontier,
    lane_price,
    least_cycles,
    retyped,
    shortlist,
)
from nashc.hybridize.layer_types import TYPES
from nashc.hybridize.original import original
from nashc.hybridize.pipeline import DEFAULT_TYPES

BOARD = load_board("fpga-zc706")
OPTIONS = Options()


@st.composite
def layers(draw, most=4):
    """Layers with losses by type; more bits lose less, as a rule."""
    found = []
    for i in range(draw(st.integers(1, most))):
        names = draw(st.lists(st.sampled_from(list(TYPES)), min_size=1, max_size=4, unique=True))
        losses = {n: draw(st.floats(0, 10, allow_subnormal=False)) for n in names}
        found.append(Choosable(f"l{i}", draw(st.integers(1, 10**9)), draw(st.booleans()), losses))
    return found


@st.composite
def typed(draw):
    given = draw(layers())
    return given, [draw(st.sampled_from(list(layer.losses))) for layer in given]


@settings(deadline=None)
@given(typed(), st.integers(0, 10**9), st.sampled_from([None, 0, 10, 300]), st.sampled_from([None, 20_000]))
def test_least_cycles_is_a_linear_program(case, fixed, most_dsp, most_lut):
    """Minimise t with shares of each type's work in LUTs and on DSPs, all of them busy all the time."""
    given, names = case
    options = Options(max_dsp=most_dsp, max_lut=most_lut)
    limit = usable(BOARD, most_lut, most_dsp, None)
    work = [("conv8", fixed), *((n, layer.macs) for layer, n in zip(given, names, strict=True))]
    in_luts = np.array([macs * lane_price(n, BOARD) for n, macs in work]) / limit.lut  # cycles
    on_dsps = np.array([macs * (TYPES.get(n).terms if "shift" in n else 0.5) for n, macs in work])
    most, count = in_luts.sum(), len(work)  # all in LUTs: the unit of t
    solved = scipy.optimize.linprog(
        c=[1.0, *[0.0] * 2 * count],  # t, then the shares in LUTs and on DSPs
        A_ub=[[-1.0, *in_luts / most, *[0.0] * count], [-float(limit.dsp), *[0.0] * count, *on_dsps / most]],
        b_ub=[0.0, 0.0],
        A_eq=np.hstack([np.zeros((count, 1)), np.eye(count), np.eye(count)]),
        b_eq=np.ones(count),
    )
    assert solved.success
    assert least_cycles(given, names, fixed, BOARD, options) == pytest.approx(solved.x[0] * most, rel=1e-5)


def test_lane_prices_follow_terms_and_bits():
    assert lane_price("shift2", BOARD) == 2 * lane_price("shift1", BOARD)
    assert lane_price("shift3", BOARD) == 3 * lane_price("shift1", BOARD)
    assert lane_price("conv4", BOARD) < lane_price("conv8", BOARD)
    assert all(lane_price(name, BOARD) > 0 for name in TYPES)


@settings(deadline=None, max_examples=20)
@given(layers(3), st.integers(0, 10**8))
def test_candidates_are_what_they_say_and_not_dominated(given, fixed):
    found = candidates(given, fixed, BOARD, OPTIONS)
    assert found
    assert len({tuple(c.choice.values()) for c in found}) == len(found)
    for c in found:
        names = [c.choice[layer.node] for layer in given]
        assert all(name in layer.losses for layer, name in zip(given, names, strict=True))
        assert c.loss == pytest.approx(sum(layer.losses[n] for layer, n in zip(given, names, strict=True)))
        assert c.cycles == least_cycles(given, names, fixed, BOARD, OPTIONS)
        assert c.chunks == {(n, layer.depthwise) for layer, n in zip(given, names, strict=True)}
        assert not any(o is not c and o.chunks == c.chunks and o.loss <= c.loss and o.cycles <= c.cycles for o in found)
    assert [c.cycles for c in found] == sorted(c.cycles for c in found)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 10, allow_subnormal=False), min_size=4, max_size=4), st.integers(1, 10**9), st.booleans())
def test_of_one_layer_every_type_is_a_candidate(losses, macs, depthwise):
    """Each is a mixture of its own."""
    layer = Choosable("a", macs, depthwise, dict(zip(DEFAULT_TYPES, losses, strict=True)))
    found = candidates([layer], 0, BOARD, OPTIONS)
    assert {c.choice["a"] for c in found} == set(DEFAULT_TYPES)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.01, 10)), min_size=1, max_size=4))
def test_the_least_loss_and_the_least_cycles_are_among_them(sizes):
    """Against every choice of two types, with the losses that a coarser type has."""
    given = [Choosable(f"l{i}", m, False, {"conv8": 0.0, "conv4": s}) for i, (m, s) in enumerate(sizes)]
    found = candidates(given, 0, BOARD, OPTIONS)
    every = list(product(["conv8", "conv4"], repeat=len(given)))
    cycles = [least_cycles(given, names, 0, BOARD, OPTIONS) for names in every]
    assert min(c.loss for c in found) == 0
    fastest = min(c.cycles for c in found)
    assert fastest >= min(cycles) * (1 - 1e-9)
    assert fastest <= cycles[every.index(("conv4",) * len(given))]
    assert fastest <= cycles[every.index(("conv8",) * len(given))]


def test_a_layer_that_can_be_no_type_of_a_mixture_keeps_its_own():
    given = [
        Choosable("forced", 1000, False, {"shift1": 1.0}),
        Choosable("free", 1000, False, {"conv8": 0.0, "conv4": 0.1}),
    ]
    found = candidates(given, 0, BOARD, OPTIONS)
    assert {c.choice["forced"] for c in found} == {"shift1"}
    assert {c.choice["free"] for c in found} == {"conv8", "conv4"}


def some(seed, count=30):
    rng = np.random.default_rng(seed)
    chunks = [frozenset({("conv4", False)}), frozenset({("conv8", False), ("conv4", True)}), frozenset()]
    return [
        Candidate({"a": str(i)}, float(rng.integers(0, 20)), float(rng.integers(1, 20)), chunks[rng.integers(3)])
        for i in range(count)
    ]


@given(st.integers(0, 2**32 - 1))
def test_frontier_is_what_nothing_beats(seed):
    found = some(seed)
    line = frontier(found)
    losses, cycles = [c.loss for c in line], [c.cycles for c in line]
    assert losses == sorted(set(losses))
    assert cycles == sorted(set(cycles), reverse=True)
    beaten = [
        c for c in found
        if any((o.loss <= c.loss and o.cycles < c.cycles) or (o.loss < c.loss and o.cycles <= c.cycles) for o in found)
    ]  # fmt: skip
    assert not any(c in beaten for c in line)
    assert {(c.loss, c.cycles) for c in found if c not in beaten} == {(c.loss, c.cycles) for c in line}


@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.integers(1, 4))
def test_shortlist_has_the_fastest_of_each_set_of_chunks(seed, most_loss, count):
    found = some(seed)
    short = shortlist(found, most_loss, count)
    allowed = [c for c in found if c.loss <= most_loss]
    assert len(short) == min(count, len({c.chunks for c in allowed}))
    assert len({c.chunks for c in short}) == len(short)
    for c in short:
        assert c in allowed
        assert c.cycles == min(o.cycles for o in allowed if o.chunks == c.chunks)
    costs = [c.cycles * (1 + CHUNK_COST * len(c.chunks)) for c in short]
    assert costs == sorted(costs)


def test_retyped_changes_what_was_chosen_and_nothing_else():
    network = original(MODELS["residual"], {}, "net", "net").network
    node = network.layers[1].nodes[0]
    changed = retyped(network, {node: TYPES.get("shift2")})
    assert (changed.layers[1].unit, changed.layers[1].weights.terms, changed.layers[1].weights.bits) == (
        Unit.SHIFT, 2, 4,
    )  # fmt: skip
    assert [a == b for a, b in zip(changed.layers, network.layers, strict=True)] == [True, False, True, True]
    assert changed.tensors == network.tensors
    assert retyped(network, {}) == network
    assert changed.macs == network.macs


def test_dense_and_depthwise_layers_have_types_of_their_own():
    """One layer each: every pair of types is a set of chunks of its own."""
    losses = {"conv8": 0.0, "conv4": 1.0, "shift2": 2.0, "shift1": 3.0}
    given = [Choosable("dense", 10_000, False, losses), Choosable("depthwise", 1_000, True, losses)]
    found = candidates(given, 0, BOARD, OPTIONS)
    assert {tuple(c.choice.values()) for c in found} == set(product(losses, losses))


def test_two_types_are_mixed_at_every_price():
    """The layer that loses least for what it saves is the first to change."""
    given = [Choosable(f"l{i}", 1000, False, {"conv8": 0.0, "conv4": loss}) for i, loss in enumerate((1.0, 4.0, 2.0))]
    found = {tuple(c.choice.values()) for c in candidates(given, 0, BOARD, OPTIONS)}
    assert {("conv4", "conv8", "conv8"), ("conv4", "conv8", "conv4"), ("conv4",) * 3, ("conv8",) * 3} == found
