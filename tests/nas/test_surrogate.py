"""Guesses are those of the Gaussian process written out, and order networks that were never scored."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from tiny import WIDER

from nashc.nas.architecture import mutate, sample
from nashc.nas.surrogate import LINEAR, NOISE, Surrogate, encoded

SEEDS = st.integers(0, 10**9)


@given(SEEDS)
def test_different_architectures_have_different_encodings(seed):
    chance = Random(seed)
    one = sample(WIDER, chance)
    assert encoded(one, WIDER) == encoded(one, WIDER)
    assert encoded(one, WIDER) != encoded(mutate(one, WIDER, chance), WIDER)


@given(SEEDS, st.integers(1, 12), st.integers(1, 5), st.integers(1, 4))
def test_guesses_are_those_of_the_process_written_out(seed, known, asked, axes):
    draw = np.random.default_rng(seed)
    rows, wanted = draw.normal(size=(known, axes)), draw.normal(size=(asked, axes))
    values = draw.normal(size=(known, 2)) * (1.0, 50.0)
    middle, spread = rows.mean(axis=0), rows.std(axis=0)
    live = spread > 0
    assert live.all() == (known > 1)

    def kernel(a, b):
        a, b = (a - middle)[live] / spread[live], (b - middle)[live] / spread[live]
        return np.exp(-np.mean((a - b) ** 2) / 2) + LINEAR * np.mean(a * b) if live.any() else 1.0

    table = np.array([[kernel(a, b) for b in rows] for a in rows]) + NOISE * np.eye(known)
    shared = np.array([[kernel(a, b) for b in rows] for a in wanted])
    mean, unit = values.mean(axis=0), np.where(known > 1, values.std(axis=0), 1.0)
    guessed, error = Surrogate(rows, values).guess(wanted)
    assert guessed == pytest.approx(mean + shared @ np.linalg.inv(table) @ (values - mean))
    left = [kernel(a, a) - s @ np.linalg.inv(table) @ s for a, s in zip(wanted, shared, strict=True)]
    assert error == pytest.approx(np.sqrt(np.maximum(left, 0))[:, None] * unit, abs=1e-6)


@given(st.integers(2, 60), st.sampled_from([8, 16, 24, 48]))
def test_a_choice_that_never_changed_says_nothing(known, width):
    """Its standard deviation need not come out as zero."""
    draw = np.random.default_rng(known)
    rows, wanted, values = draw.normal(size=(known, 3)), draw.normal(size=(5, 3)), draw.normal(size=(known, 1))
    still, other = np.full((known, 1), np.log(width)), np.full((5, 1), np.log(32))
    without = Surrogate(rows, values).guess(wanted)
    beside = Surrogate(np.hstack([rows, still]), values).guess(np.hstack([wanted, other]))
    for one, two in zip(without, beside, strict=True):
        assert two == pytest.approx(one)


def test_unseen_networks_are_ordered_nearly_as_they_are():
    """A value that no single axis tells: the work of a network, mostly that of its last stages."""
    chance = Random(0)
    drawn = [sample(WIDER, chance) for _ in range(400)]
    values = np.array([np.log(sum(s.width**2 * len(s.blocks) for s in a.stages)) for a in drawn])
    rows = [encoded(a, WIDER) for a in drawn]
    guessed, _ = Surrogate(rows[:60], values[:60, None]).guess(rows[60:])
    assert spearmanr(guessed[:, 0], values[60:]).statistic > 0.9
