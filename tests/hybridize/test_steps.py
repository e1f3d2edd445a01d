"""Scale and zero point of activations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nashc.errors import NashcError
from nashc.hybridize.steps import (
    CALIBRATIONS,
    MOST_SAMPLES,
    adder_codes,
    adder_step,
    codes,
    real,
    rounded,
    seen,
    step_for,
)

NORMAL = st.floats(-1e6, 1e6, width=32)


@given(NORMAL, NORMAL)
def test_zero_is_a_level(a, b):
    step = step_for(min(a, b), max(a, b))
    assert step.scale > 0
    assert 0 <= int(step.zero_point) <= 255
    assert rounded(np.zeros(1, np.float32), step) == 0


@given(NORMAL, NORMAL, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_values_in_the_range_round_by_half_a_step(a, b, shares):
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    step = step_for(low, high)
    values = np.array([low, high, *(low + (high - low) * s for s in shares)], np.float32)
    error = np.abs(rounded(values, step) - values)
    assert error.max() <= step.scale * (0.5 + 1e-4) or step.scale == 1.0


@given(NORMAL, NORMAL)
def test_every_byte_comes_back(a, b):
    step = step_for(min(a, b), max(a, b))
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(codes(real(every, step), step), every)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (1e-45, 2e-45), (-1e-42, 0), (-1e-39, 1e-39)])
def test_ranges_that_are_almost_nothing_have_a_step(low, high):
    step = step_for(low, high)
    assert np.float32(step.scale) >= np.finfo(np.float32).tiny
    assert np.isfinite(rounded(np.array([low, high], np.float32), step)).all()


def test_values_beyond_the_range_are_clipped():
    step = step_for(-1.0, 1.55)
    assert step.scale == pytest.approx(0.01)
    assert int(step.zero_point) == 100
    np.testing.assert_array_equal(codes(np.array([-1e9, -1, 0, 0.02, 1.55, 1e9], np.float32), step),
                                  [0, 0, 100, 102, 255, 255])  # fmt: skip


CASES = {
    "zeros": np.zeros(100),
    "constant": np.full(100, 3.5),
    "negative constant": np.full(100, -3.5),
    "one": np.array([0.25]),
    "all negative": -np.linspace(1, 2, 1000),
    "positive": np.linspace(0, 7, 1000),
    "outlier": np.append(np.random.default_rng(0).normal(size=100_000), 400.0),
    "tiny": np.linspace(-1e-40, 1e-40, 50),
}


@pytest.mark.parametrize("rule", list(CALIBRATIONS))
@pytest.mark.parametrize("name", CASES)
def test_rules_stay_in_what_was_seen(rule, name):
    values = CASES[name].astype(np.float32)
    found = seen(values)
    low, high = CALIBRATIONS.get(rule)(found)
    assert values.min() <= low <= high <= values.max() or (min(low, 0) >= values.min() and max(high, 0) <= values.max())
    error = rounded(values, step_for(low, high)) - values
    assert np.isfinite(error).all()
    if name not in ("outlier", "tiny"):
        assert np.abs(error).max() <= np.abs(values).max() * 0.01


def test_rules_differ_on_an_outlier():
    values = CASES["outlier"].astype(np.float32)
    ranges = {rule: CALIBRATIONS.get(rule)(seen(values)) for rule in CALIBRATIONS}
    assert ranges["min-max"] == (values.min(), 400.0)
    assert ranges["percentile"] == pytest.approx(np.percentile(values, [0.01, 99.99]))
    errors = {rule: np.mean((rounded(values, step_for(*r)) - values) ** 2) for rule, r in ranges.items()}
    assert errors["mse"] <= errors["min-max"]


@given(st.integers(0, 2**32 - 1))
def test_mse_is_no_worse_than_the_whole_range(seed):
    rng = np.random.default_rng(seed)
    values = (rng.standard_t(3, size=500) * 10.0 ** rng.integers(-3, 3) + rng.integers(-3, 3)).astype(np.float32)
    error = {
        rule: np.mean((rounded(values, step_for(*CALIBRATIONS.get(rule)(seen(values)))) - values) ** 2)
        for rule in ("mse", "min-max")
    }
    assert error["mse"] <= error["min-max"] * (1 + 1e-6)


def test_seen_joins():
    a, b = np.array([1, 2, 3], np.float32), np.array([[-4.0, 9.0]], np.float32)
    both = seen(a).joined(seen(b))
    assert (both.lowest, both.highest) == (-4, 9)
    np.testing.assert_array_equal(both.sample, [1, 2, 3, -4, 9])
    many = np.arange(2 * MOST_SAMPLES, dtype=np.float32)
    assert seen(many).sample.size == MOST_SAMPLES
    assert (seen(many).lowest, seen(many).highest) == (0, many[-1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_adder_step_has_zero_point_0_and_serves_both(seed, signed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=300).astype(np.float32) * 10.0 ** rng.integers(-2, 2)
    x = x if signed else np.abs(x)
    weights = tuple(rng.normal(size=(3, 5)).astype(np.float32) for _ in range(2))
    step = adder_step(seen(x), weights)
    assert step.zero_point == 0
    assert step.zero_point.dtype == (np.int8 if x.min() < 0 else np.uint8)
    largest = max(np.abs(x).max() / (127 if signed else 255), *(np.abs(w).max() / 127 for w in weights))
    assert largest * 0.099 <= step.scale <= largest * 1.0001

    def error(scale):
        low, high = (-128, 127) if x.min() < 0 else (0, 255)
        a = np.clip(np.rint(x / scale), low, high) * scale - x
        b = [np.mean((np.clip(np.rint(w / scale), -127, 127) * scale - w) ** 2) for w in weights]
        return np.mean(a**2) + np.mean(b)

    # the error is jagged: a grid of its own finds no scale with half of it
    best = min(error(s) for s in np.linspace(0.1, 1.0, 91) * largest)
    assert error(step.scale) <= 2 * best


@pytest.mark.parametrize("lowest", [-1.0, 0.0])
def test_adder_step_of_fine_tuning_is_taken_as_it_is(lowest):
    x, w = np.array([lowest, 1.0], np.float32), np.array([[0.5]], np.float32)
    assert adder_step(seen(x), (w,), 0.125).scale == 0.125
    assert adder_codes(np.array([0.5, -0.25, 99, -99], np.float32), adder_step(seen(x), (w,), 0.125)).tolist() == [
        4, -2, 127, -127,
    ]  # fmt: skip


def test_adder_step_of_nothing():
    step = adder_step(seen(np.zeros(4, np.float32)), (np.zeros((2, 2), np.float32),))
    assert step.scale > 0
    step = adder_step(seen(np.full(4, 1e-44, np.float32)), (np.zeros((2, 2), np.float32),))
    assert np.float32(step.scale) >= np.finfo(np.float32).tiny


def test_unknown_rule():
    with pytest.raises(NashcError, match="unknown calibration 'msee'; did you mean 'mse'"):
        CALIBRATIONS.get("msee")
