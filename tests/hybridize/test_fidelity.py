"""How close outputs are, against scipy and hand-picked numbers."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from nashc.hybridize.fidelity import (
    LEAST_DB,
    Fidelity,
    class_output,
    divergence,
    fidelity,
    fidelity_of,
    loss,
    sqnr_db,
)
from nashc.hybridize.pipeline import keeps
from nashc.runtime.accuracy import _Tally

SEEDS = st.integers(0, 2**32 - 1)


def scores(seed, images=5, names=7):
    return np.random.default_rng(seed).normal(0, 3, size=(images, 1, names)).astype(np.float32)


@given(SEEDS, st.booleans())
def test_divergence_is_scipys(seed, probabilities):
    a, b = scores(seed), scores(seed + 1)
    p, q = scipy.special.softmax(a.astype(np.float64), axis=-1), scipy.special.softmax(b.astype(np.float64), axis=-1)
    wanted = np.mean([scipy.stats.entropy(x[0], y[0]) for x, y in zip(p, q, strict=True)])
    given = (p.astype(np.float32), q.astype(np.float32)) if probabilities else (a, b)
    assert divergence(*given) == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    assert loss({"y": given[0]}, {"y": given[1]}) == divergence(*given)


@given(SEEDS)
def test_equal_outputs_lose_nothing(seed):
    a = scores(seed)
    assert loss({"y": a}, {"y": a}) == 0
    assert loss({"y": a, "z": a}, {"y": a, "z": a}) == 0
    same = fidelity({"y": a}, {"y": a}, np.zeros(5, int))
    assert (same.agreement, same.drop, same.least_sqnr_db) == (1.0, 0.0, math.inf)


def test_scores_that_only_differ_by_a_constant_are_the_same_classes():
    a = scores(0)
    assert divergence(a, a + 5) == pytest.approx(0, abs=1e-9)


def test_probabilities_of_zero_are_no_infinity():
    sure, other = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    assert 0 < divergence(sure, other) < 100


@given(SEEDS)
def test_loss_of_maps_is_noise_over_variance(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(3, 2, size=(4, 1, 3, 5, 5)).astype(np.float32) for _ in range(2))
    one = np.mean((a.astype(np.float64) - b) ** 2) / a.astype(np.float64).var()
    assert loss({"y": a}, {"y": b}) == pytest.approx(one)
    assert loss({"y": a, "z": a}, {"y": b, "z": a}) == pytest.approx(one)
    assert loss({"y": a, "n": np.arange(4)}, {"y": b, "n": np.arange(4) + 1}) == pytest.approx(one)


def test_sqnr_by_hand():
    assert sqnr_db(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(20.0)
    assert sqnr_db(np.array([1.0]), np.array([1.0])) == math.inf
    assert math.isfinite(sqnr_db(np.zeros(3), np.ones(3)))


def test_drop_with_and_without_labels():
    wanted = np.eye(4, dtype=np.float32)  # classes 0 1 2 3
    found = wanted[[0, 1, 3, 2]]
    plain = fidelity({"y": wanted}, {"y": found})
    assert (plain.images, plain.agreement, plain.accuracy, plain.float_accuracy) == (4, 0.5, None, None)
    assert plain.drop == 0.5
    labelled = fidelity({"y": wanted}, {"y": found}, np.array([0, 0, 2, 2]))
    assert (labelled.agreement, labelled.accuracy, labelled.float_accuracy) == (0.5, 0.5, 0.5)
    assert labelled.drop == 0
    better = fidelity({"y": wanted}, {"y": found}, np.array([0, 1, 3, 2]))
    assert better.drop == -0.5


@given(SEEDS)
def test_without_labels_the_drop_bounds_that_with_them(seed):
    a, b = scores(seed, 30, 4), scores(seed + 1, 30, 4)
    labels = np.random.default_rng(seed).integers(0, 4, 30)
    assert fidelity({"y": a}, {"y": b}, labels).drop <= fidelity({"y": a}, {"y": b}).drop


def test_what_scores_classes():
    def output(*shape, dtype=np.float32):
        return np.zeros((6, *shape), dtype)

    assert class_output({"y": output(1, 10)}) == "y"
    assert class_output({"y": output(1, 10, 1, 1)}) == "y"
    assert class_output({"y": output(1, 10, 4, 4)}) is None
    assert class_output({"y": output(1, 1)}) is None
    assert class_output({"y": output(1, 10, dtype=np.int64)}) is None
    assert class_output({"y": output(1, 10), "z": output(1, 10)}) is None


def test_ties_take_the_first_class():
    tied = np.array([[[1.0, 3.0, 3.0]], [[0.0, 0.0, 0.0]]], np.float32)
    first = np.array([[[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]]], np.float32)
    found = fidelity({"y": first}, {"y": tied}, np.array([1, 0]))
    assert (found.agreement, found.accuracy) == (1.0, 1.0)


def test_nan_is_wrong_and_all_noise():
    wanted, found = scores(0), scores(0)
    found[2, 0, 3] = np.nan
    lost = fidelity({"y": wanted}, {"y": found}, wanted[:, 0].argmax(axis=1))
    assert (lost.agreement, lost.accuracy, lost.float_accuracy) == (0.8, 0.8, 1.0)
    for outputs in ({"a": wanted, "b": found}, {"b": found, "a": wanted}):
        both = fidelity({"a": wanted, "b": wanted}, outputs)
        assert both.least_sqnr_db == LEAST_DB
        assert not keeps(both, 1.0, 20.0)


@given(SEEDS, st.booleans())
def test_what_a_data_set_gives_is_what_arrays_give(seed, labelled):
    """Measured in batches by the runtime, or at once here."""
    a, b = scores(seed, 9), scores(seed + 1, 9)
    labels = np.random.default_rng(seed).integers(0, 7, 9) if labelled else None
    tally = _Tally()
    for part in (slice(0, 4), slice(4, 9)):
        own = None if labels is None else labels[part]
        tally.add(len(a[part]), own, {"y": b[part]}, {"y": a[part]})
    found, wanted = fidelity_of(tally.result(1.0)), fidelity({"y": a}, {"y": b}, labels)
    assert found.least_sqnr_db == pytest.approx(wanted.least_sqnr_db)
    assert replace(found, sqnr_db={}) == replace(wanted, sqnr_db={})


def test_outputs_that_score_no_classes():
    a = np.ones((3, 1, 2, 2), np.float32)
    found = fidelity({"y": a, "z": a}, {"y": a * 1.1, "z": a * 1.01})
    assert found.drop is None
    assert found.least_sqnr_db == pytest.approx(20, abs=1e-3)
    assert found.sqnr_db["z"] == pytest.approx(40, abs=1e-2)
    assert Fidelity(1, None, None, None, {"a": 3.0, "b": -2.0}).least_sqnr_db == -2
