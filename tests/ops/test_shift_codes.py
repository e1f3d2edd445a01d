"""Codes of shift weights: every code, nearest terms, scales, round trips."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nashc.ops import MAX_CODE, PMAX, decode_shift, encode_shift
from nashc.ops.shift_conv_integer import accumulator_bits, integer_weights

from nashc.errors import NashcError

weights = hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.floats(-4, 4))


def test_every_code_has_the_value_of_the_formula() -> None:
    for code in range(-MAX_CODE, MAX_CODE + 1):
        value = 0.0 if code == 0 else (1 if code > 0 else -1) * 2.0 ** (1 - abs(code))
        assert decode_shift(np.array([[code]], np.int8)) == np.float32(value)


def test_terms_are_summed_and_scaled_by_channel() -> None:
    codes = np.array([[[1, 2], [-3, 0]], [[2, -2], [-3, 15]]], np.int8)
    np.testing.assert_array_equal(decode_shift(codes), [[1.5, 0.0], [-0.5, 2.0**-14]])
    np.testing.assert_array_equal(decode_shift(codes, [2.0, 4.0]), [[3.0, 0.0], [-2.0, 2.0**-12]])


@pytest.mark.parametrize("code", range(-MAX_CODE, MAX_CODE + 1))
@pytest.mark.parametrize("rounding", ["nearest", "log"])
def test_encoding_a_code_value_gives_the_code(code: int, rounding: str) -> None:
    codes = np.array([[code]], np.int8)
    found, scale = encode_shift(decode_shift(codes), scale=1.0, rounding=rounding)
    np.testing.assert_array_equal(found, codes)
    assert scale == 1


@pytest.mark.parametrize(("terms", "pmax"), [(1, 14), (1, 3), (2, 6), (3, 4)])
@given(w=weights)
def test_greedy_terms_are_the_nearest_sum(terms: int, pmax: int, w: np.ndarray) -> None:
    codes, _ = encode_shift(w, terms, scale=1.0, pmax=pmax)
    powers = [0.0, *(s * 2.0**-p for s in (1, -1) for p in range(pmax + 1))]
    sums = np.unique([sum(t) for t in itertools.combinations_with_replacement(powers, terms)])
    best = np.abs(w[..., None] - sums).min(axis=-1)
    np.testing.assert_array_equal(np.abs(w - decode_shift(codes).astype(np.float64)), best)


@given(w=weights, terms=st.integers(1, 4))
def test_error_shrinks_with_every_term(w: np.ndarray, terms: int) -> None:
    """Within its channel's largest magnitude a weight is a third off after one term, and each term takes two thirds."""
    codes, scale = encode_shift(w, terms)
    assert codes.shape == (terms, *w.shape)
    exact = decode_shift(codes).astype(np.float64) * scale.astype(np.float64)[:, None]
    allowed = np.abs(w) / 3**terms + scale[:, None] * 2.0 ** -(PMAX + 1)
    assert (np.abs(exact - w) <= allowed * (1 + 1e-5)).all()


def test_log_rounding_is_deepshift() -> None:
    w = np.array([[0.72, 0.70, -0.36, 3.0, 2.0**-20, 0.0]])
    codes, _ = encode_shift(w, scale=1.0, rounding="log")
    np.testing.assert_array_equal(decode_shift(codes)[0], [1.0, 0.5, -0.5, 1.0, 2.0**-14, 0.0])


def test_default_scale_is_the_largest_weight_of_each_channel() -> None:
    codes, scale = encode_shift([[0.5, -3.0], [0.0, 0.0]])
    np.testing.assert_array_equal(scale, np.array([3.0, 1.0], np.float32))
    assert codes[0, 0, 1] == -1
    assert not codes[0, 1].any()


@given(codes=hnp.arrays(np.int8, (2, 3, 4), elements=st.integers(-MAX_CODE, MAX_CODE)))
def test_integer_weights_are_exact(codes: np.ndarray) -> None:
    np.testing.assert_array_equal(integer_weights(codes, PMAX) * 2.0**-PMAX, decode_shift(codes))


def test_accumulator_width() -> None:
    ones = np.ones((1, 1, 1, 3, 3), np.int8)
    assert accumulator_bits(ones, pmax=0, x_magnitude=127) == (9 * 127).bit_length() + 1
    assert accumulator_bits(np.ones((1, 1, 512), np.int8)) == 32
    assert accumulator_bits(np.ones((1, 1, 515), np.int8)) == 33


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([[np.nan]],), "weights hold NaN"),
        (([[1.0]], 0), "terms >= 1"),
        (([[1.0, 2.0]], 1, {"scale": [1.0, 1.0, 1.0]}), "give [1] or [1] values"),
        (([[1.0]], 1, {"scale": 0.0}), "scale must be positive"),
        (([[1.0]], 1, {"pmax": 15}), "pmax in 0..14"),
        (([[1.0]], 1, {"rounding": "up"}), "rounding 'nearest' or 'log'"),
    ],
)
def test_bad_requests_are_refused(arguments: tuple[Any, ...], text: str) -> None:
    options = arguments[2] if len(arguments) > 2 else {}
    with pytest.raises(NashcError) as refusal:
        encode_shift(*arguments[:2], **options)
    assert text in str(refusal.value)


def test_a_code_out_of_range_is_refused() -> None:
    with pytest.raises(NashcError, match=r"code of magnitude 16; codes must lie in -15\.\.15"):
        decode_shift(np.array([[-16]], np.int8))
    with pytest.raises(NashcError, match=r"codes must lie in -4\.\.4"):
        integer_weights(np.array([[5]], np.int8), 3)
