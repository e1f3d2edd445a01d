"""What each type can hold, against brute force."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nashc.ops import decode_shift
from nashc.ops.shift_codes import term_values

from nashc.core.network import Unit
from nashc.errors import NashcError
from nashc.hybridize.layer_types import LARGEST_SHIFT, SHIFT_CODES, TYPES, shift_codes
from nashc.hybridize.pipeline import DEFAULT_TYPES

SHIFTS = [kind for kind in TYPES.values() if kind.unit is Unit.SHIFT]


def every(kind):
    return np.arange(len(kind.levels), dtype=np.int16)


@pytest.mark.parametrize("kind", SHIFTS, ids=lambda k: k.name)
def test_codes_are_the_levels_exactly(kind):
    codes = shift_codes(kind, every(kind).reshape(-1, 1))
    assert codes.shape == (kind.terms, len(kind.levels), 1)
    assert codes.dtype == np.int8
    assert np.abs(codes).max() <= SHIFT_CODES < 2 ** (kind.bits - 1)
    np.testing.assert_array_equal(decode_shift(codes)[:, 0], kind.grid)


@pytest.mark.parametrize("kind", SHIFTS, ids=lambda k: k.name)
def test_codes_have_the_fewest_terms(kind):
    """Of all codes that make a level: each of the (2 * 7 + 1)^T combinations."""
    least = {}
    for choice in product(range(-SHIFT_CODES, SHIFT_CODES + 1), repeat=kind.terms):
        value, terms = float(term_values(np.array(choice)).sum()), sum(map(bool, choice))
        least[value] = min(least.get(value, 99), terms)
    used = np.count_nonzero(shift_codes(kind, every(kind)), axis=0)
    np.testing.assert_array_equal(used, [least[v] for v in kind.levels])
    # every sum is a level, unless its integer is more than a byte
    unit = 2.0 ** (1 - SHIFT_CODES)
    assert set(kind.levels) == {v for v in least if abs(v) <= LARGEST_SHIFT * unit}


def test_hand_picked_shift_levels():
    one, two = TYPES.get("shift1"), TYPES.get("shift2")
    assert [v for v in one.levels if v > 0] == [2.0**-p for p in range(6, -1, -1)]
    assert 0.75 in two.levels
    assert 0.6875 not in two.levels  # 11/16 = 1/2 + 1/8 + 1/16
    assert 0.6875 in TYPES.get("shift3").levels
    assert tuple(map(abs, shift_codes(two, two.nearest(np.array([0.25, 0.0]))).sum(axis=0))) == (3, 0)


@pytest.mark.parametrize("kind", TYPES.values(), ids=lambda k: k.name)
def test_levels_are_symmetric_ordered_and_have_zero(kind):
    assert 0.0 in kind.levels
    assert list(kind.levels) == sorted(set(kind.levels))
    assert [-v for v in reversed(kind.levels)] == list(kind.levels)
    assert kind.largest == max(kind.levels)


@pytest.mark.parametrize(("name", "largest", "bits"), [("conv8", 127, 8), ("conv4", 7, 4)])
def test_multiplying_types_hold_integers(name, largest, bits):
    kind = TYPES.get(name)
    assert kind.levels == tuple(range(-largest, largest + 1))
    assert (kind.unit, kind.bits, kind.terms) == (Unit.CONV, bits, 1)


@pytest.mark.parametrize("kind", TYPES.values(), ids=lambda k: k.name)
@given(values=st.lists(st.floats(-300, 300), min_size=1, max_size=20))
def test_nearest_is_the_nearest_level(kind, values):
    found = kind.nearest(np.array(values))
    distance = np.abs(kind.grid[found] - values)
    np.testing.assert_array_equal(distance, np.abs(kind.grid[:, None] - values).min(axis=0))


@pytest.mark.parametrize("kind", TYPES.values(), ids=lambda k: k.name)
def test_a_level_is_nearest_to_itself(kind):
    np.testing.assert_array_equal(kind.nearest(kind.grid), every(kind))


def test_registry():
    assert set(DEFAULT_TYPES) <= set(TYPES)
    assert all(TYPES.get(name).name == name for name in TYPES)
    with pytest.raises(NashcError, match=r"unknown layer type 'conv9'.*did you mean 'conv8'") as error:
        TYPES.get("conv9")
    assert "conv9" in str(error.value)
