"""Reconstruction against plain rounding, brute force, and what it promises of the outputs."""

from functools import partial
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nashc.hybridize import reconstruct as module
from nashc.hybridize.layer_types import TYPES
from nashc.hybridize.reconstruct import (
    LARGEST_BIAS,
    SHRINK,
    Rounded,
    integer_bias,
    plain,
    with_integer_bias,
)
from nashc.hybridize.statistics import Moments

KINDS = list(TYPES.values())
DAMPED, MANY = 0.01, 10**9
"""What is tested is the optimisation, on the windows that it was made for: little damping, images enough."""
reconstruct = partial(module.reconstruct, damping=DAMPED)
SEEDS = st.integers(0, 2**32 - 1)
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)


def case(seed, inputs, channels=4, groups=1, noise=0.05):
    """Correlated windows of both streams [group, n, K], and weights [group * channels, K]."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(groups, inputs, inputs)) * rng.choice([0.1, 1, 3], size=(groups, 1, inputs))
    x = rng.normal(size=(groups, max(50, 3 * inputs), inputs)) @ mix + rng.normal(size=(groups, 1, inputs))
    q = x + noise * x.std() * rng.normal(size=x.shape)
    w = rng.normal(size=(groups * channels, inputs)) * rng.choice([0.2, 1, 2], size=(groups * channels, 1))
    return x, q, w.astype(np.float32)


def moments(x, q):
    dx, dq = x - x.mean(axis=1, keepdims=True), q - q.mean(axis=1, keepdims=True)
    n = x.shape[1]
    return Moments(dq.swapaxes(1, 2) @ dq / n, dx.swapaxes(1, 2) @ dq / n, x.mean(axis=1), q.mean(axis=1), images=MANY)


def output_error(weights, made, x, q):
    """E|Wx - sQx'|^2 of each channel, both centred."""
    shape = (len(x), -1, x.shape[2])
    wanted = np.einsum("gmk,gnk->gmn", weights.astype(np.float64).reshape(shape), x)
    found = np.einsum("gmk,gnk->gmn", made.weights.astype(np.float64).reshape(shape), q)
    difference = wanted - found
    return difference.var(axis=2).reshape(-1)


@each_kind
@pytest.mark.parametrize(("inputs", "allowed"), [(1, 1), (2, 1.01), (3, 1.05), (9, 1), (27, 1), (70, 1), (150, 1)])
def test_outputs_are_closer_than_those_of_nearest_weights(kind, inputs, allowed):
    """In what it minimises, E|Wx - sQx'|^2, for each channel. Very small filters have few choices: there plain rounding
    may be the better one by the damping and by the scales that are not tried."""
    for seed in range(25 if inputs < 50 else 2):
        x, q, w = case(seed, inputs)
        made = reconstruct(kind, w, None, moments(x, q))
        assert (output_error(w, made, x, q) <= allowed * output_error(w, plain(kind, w, None), x, q) + 1e-12).all()


@pytest.mark.parametrize("name", ["conv4", "shift1", "shift2"])
def test_large_filters_gain_much(name):
    x, q, w = case(0, 150, channels=16)
    kind = TYPES.get(name)
    gain = output_error(w, reconstruct(kind, w, None, moments(x, q)), x, q).sum()
    assert gain < 0.7 * output_error(w, plain(kind, w, None), x, q).sum()


@pytest.mark.parametrize("name", ["conv4", "shift1"])
@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_small_filters_against_every_choice(name, inputs):
    """Every choice of levels at every scale that is tried: never more than 10 % worse plus 0.1 % of the power, and for
    most channels as good."""
    kind = TYPES.get(name)
    choices = np.array(list(product(kind.levels, repeat=inputs)))
    as_good = []
    for seed in range(6):
        x, q, w = case(seed, inputs)
        m = moments(x, q)
        made = reconstruct(kind, w, None, m)
        a = m.integer[0] + DAMPED * np.trace(m.integer[0]) / inputs * np.eye(inputs)
        best = w + w @ (m.cross[0] - m.integer[0]) @ np.linalg.inv(a)
        powers = np.einsum("ck,kl,cl->c", choices, a, choices)
        for target, found in zip(best, made.weights.astype(np.float64), strict=True):
            scales = np.abs(target).max() / kind.largest * SHRINK
            power = target @ a @ target
            costs = power - 2 * np.outer(scales, choices @ a @ target) + np.outer(scales**2, powers)
            cost = (target - found) @ a @ (target - found)
            assert cost <= 1.1 * costs.min() + 1e-3 * power
            as_good.append(cost <= costs.min() * (1 + 1e-6) + 1e-6 * power)
    assert np.mean(as_good) > 0.7


@each_kind
@pytest.mark.parametrize("inputs", [3, 9, 80])
def test_weights_that_the_type_can_hold_are_kept(kind, inputs):
    """With the same inputs in both streams, nothing is to make good: the levels and the scale come back."""
    rng = np.random.default_rng(0)
    x, _, _ = case(1, inputs)
    levels = rng.integers(0, len(kind.levels), size=(5, inputs))
    levels[:, 0] = len(kind.levels) - 1  # the largest weight is the largest level
    w = (kind.grid[levels] * rng.uniform(0.1, 2, size=(5, 1))).astype(np.float32)
    bias = rng.normal(size=5).astype(np.float32)
    made = reconstruct(kind, w, bias, moments(x, x))
    np.testing.assert_array_equal(made.levels, levels)
    np.testing.assert_allclose(made.weights, w, rtol=1e-5)
    np.testing.assert_allclose(made.bias, bias, rtol=1e-4, atol=1e-4)
    assert np.array_equal(plain(kind, w, bias).levels, levels)


@each_kind
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=st.integers(1, 3), inputs=st.integers(1, 30))
def test_the_bias_makes_mean_outputs_equal(kind, seed, groups, inputs):
    x, q, w = case(seed, inputs, 3, groups, noise=0.5)
    bias = np.random.default_rng(seed).normal(size=len(w)).astype(np.float32)
    made = reconstruct(kind, w, bias, moments(x, q))
    wanted = np.einsum("gmk,gk->gm", w.reshape(groups, 3, inputs), x.mean(axis=1)).reshape(-1) + bias
    found = np.einsum("gmk,gk->gm", made.weights.reshape(groups, 3, inputs), q.mean(axis=1)).reshape(-1) + made.bias
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@each_kind
@pytest.mark.parametrize("inputs", [1, 9, 70])
@pytest.mark.parametrize("dead", ["all inputs", "one input", "weights", "tiny weights", "constant inputs"])
def test_nothing_is_not_a_number(kind, inputs, dead):
    x, q, w = case(0, inputs)
    bias = np.full(4, 2.5, np.float32)
    if dead in ("all inputs", "constant inputs"):
        x, q = (np.full_like(v, 3.0 if dead == "constant inputs" else 0.0) for v in (x, q))
    elif dead == "one input":
        x[:, :, 0] = q[:, :, 0] = 0
    else:
        w = w * np.float32(0 if dead == "weights" else 1e-38)
    made = reconstruct(kind, w, bias, moments(x, q))
    for values in (made.weights, made.scale, made.bias):
        assert np.isfinite(values).all()
    assert (made.scale >= 0).all()
    assert made.levels.min() >= 0
    assert made.levels.max() < len(kind.levels)
    if "weights" in dead:
        np.testing.assert_allclose(made.bias, bias, atol=1e-6)
    if dead == "constant inputs":  # the bias says it all
        np.testing.assert_allclose(made.weights.sum(axis=1) * 3 + made.bias, w.sum(axis=1) * 3 + bias, rtol=1e-3)


@each_kind
@pytest.mark.parametrize("shape", [(4, 2, 3, 3), (6, 1, 3, 3), (1, 1, 1, 1), (3, 5)])
def test_groups_are_reconstructed_apart(kind, shape):
    """Depthwise layers (one input channel a group) as much as dense ones: groups of the same inputs and weights as one
    of them alone."""
    groups = shape[0] if shape[1:2] == (1,) else 1
    inputs = int(np.prod(shape[1:]))
    x, q, w = case(2, inputs, shape[0] // groups)
    x, q, w = (np.tile(v, (groups, *(1,) * (v.ndim - 1))) for v in (x, q, w))
    made = reconstruct(kind, w.reshape(shape), None, moments(x, q))
    assert made.levels.shape == made.weights.shape == shape
    assert made.levels.dtype == np.int16
    assert made.scale.dtype == made.bias.dtype == np.float32
    each = shape[0] // groups
    for g in range(groups):
        own = slice(g * each, (g + 1) * each)
        alone = reconstruct(kind, w.reshape(shape)[own], None, moments(x[g : g + 1], q[g : g + 1]))
        np.testing.assert_allclose(made.weights[own], alone.weights, rtol=1e-5)


@each_kind
@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_plain_rounding_is_nearest_at_its_scale(kind, seed):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(3, 2, 2)).astype(np.float32)
    made = plain(kind, w, None)
    for channel in range(3):
        s = float(made.scale[channel])
        nearest = np.abs(w[channel].reshape(-1, 1) - s * kind.grid).min(axis=1)
        np.testing.assert_allclose(np.abs(made.weights - w)[channel].reshape(-1), nearest, atol=1e-6)
        tried = np.abs(w[channel]).max() / kind.largest * SHRINK
        errors = [np.square(np.abs(w[channel].reshape(-1, 1) - t * kind.grid).min(axis=1)).sum() for t in tried]
        assert np.square(made.weights - w)[channel].sum() <= min(errors) * (1 + 1e-4) + 1e-9
    assert (made.bias == 0).all()


@settings(deadline=None)
@given(SEEDS, st.floats(-40, 5), st.floats(-8, 8), st.floats(-6, 2), st.sampled_from(["conv8", "conv4"]))
def test_integer_biases_fit_and_stay_what_they_are(seed, weight, bias, step, name):
    """Whatever the size of weights, bias and input step."""
    rng = np.random.default_rng(seed)
    w = (rng.normal(size=(3, 9)) * 10.0**weight).astype(np.float32)
    b = (rng.normal(size=3) * 10.0**bias).astype(np.float32)
    x_scale = float(np.float32(10.0**step))
    first = plain(TYPES.get(name), w, b)
    made = with_integer_bias(first, x_scale)
    stored, unit = integer_bias(made, x_scale)
    assert (np.abs(stored.astype(np.int64)) <= LARGEST_BIAS * 1.001).all()
    assert (unit > 0).all()
    np.testing.assert_allclose(stored * unit.astype(np.float64), b, rtol=1e-6, atol=float(unit.max()) * 0.51)
    np.testing.assert_allclose(made.bias, stored * unit.astype(np.float64), rtol=1e-6)
    # the weights change by no more than what 255 steps of all inputs need to be no 1e-6 of the bias
    change = np.abs(made.weights - first.weights).sum(axis=1) * 255 * x_scale
    assert (change <= 1e-5 * np.abs(b) + 1e-30).all()
    again = with_integer_bias(made, x_scale)
    np.testing.assert_array_equal(again.levels, made.levels)
    np.testing.assert_array_equal(again.bias, made.bias)


def test_an_integer_bias_by_hand():
    kind = TYPES.get("conv8")
    rounded = Rounded(kind, np.array([[254]], np.int16), np.array([0.5], np.float32), np.array([1.1], np.float32))
    assert rounded.weights.tolist() == [[63.5]]
    made = with_integer_bias(rounded, 0.25)
    assert made.bias.tolist() == [1.125]
    assert integer_bias(made, 0.25)[0].tolist() == [9]
