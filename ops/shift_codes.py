"""Shift weights as codes: code 0 is weight 0, otherwise weight = sign(code) * 2^(1 - |code|), |code| in 1..15.

The exponent of a code is p = |code| - 1, so weights lie in +-[2^-14, 1]; T terms are summed, times a channel scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nashc.errors import NashcError

MAX_CODE = 15
PMAX = MAX_CODE - 1
"""The largest right shift p that a code can say."""


def term_values(codes: NDArray[Any]) -> NDArray[np.float64]:
    """The value of every single code, exact."""
    wide = np.asarray(codes).astype(np.int64)
    return np.where(wide == 0, 0.0, np.sign(wide) * np.exp2(1.0 - np.abs(wide)))


def check_codes(codes: NDArray[Any], pmax: int, where: str) -> None:
    """Raise NashcError for a code whose exponent is above pmax."""
    wide = np.abs(np.asarray(codes).astype(np.int64))
    if wide.size and wide.max() > pmax + 1:
        raise NashcError(
            f"W holds a code of magnitude {wide.max()}", where=where, hint=f"codes must lie in -{pmax + 1}..{pmax + 1}"
        )


def decode_shift(codes: NDArray[Any], scale: ArrayLike = 1.0) -> NDArray[np.float32]:
    """Codes [T, M, ...] and a scale ([M], [1] or scalar) -> float32 weights [M, ...]; the sum of terms is exact."""
    check_codes(codes, PMAX, "decode_shift")
    total: NDArray[np.float64] = term_values(codes).sum(axis=0)
    return (total * _per_channel(scale, total.shape)).astype(np.float32)


def encode_shift(
    weights: ArrayLike, terms: int = 1, *, scale: ArrayLike | None = None, pmax: int = PMAX, rounding: str = "nearest"
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights [M, ...] -> (codes int8 [terms, M, ...], scale float32 [M] or [1]).

    scale None takes max |w| of each output channel, so that its largest weight is exactly one code (1 for a channel
    of zeros or float32 subnormals). Terms are greedy: each takes the power of two nearest to what the earlier ones
    left. rounding "nearest" minimises |error| and may round to 0; "log" rounds log2|w| as DeepShift does
    (arXiv 1905.13298), the first term to 0 for exact zeros alone. A value beyond the range saturates.
    """
    w = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(w).all():
        raise NashcError("weights hold NaN or infinity", where="encode_shift", hint="check the source of the weights")
    if terms < 1 or not 0 <= pmax <= PMAX or rounding not in ("nearest", "log") or w.ndim < 1:
        raise NashcError(
            f"terms={terms}, pmax={pmax}, rounding='{rounding}', {w.ndim} axes",
            where="encode_shift",
            hint=f"terms >= 1, pmax in 0..{PMAX}, rounding 'nearest' or 'log', weights [M, ...]",
        )
    if scale is None:
        largest = np.abs(w).reshape(w.shape[0], -1).max(axis=1, initial=0.0)
        scale = np.where(largest >= np.finfo(np.float32).tiny, largest, 1.0)
    scale32 = np.atleast_1d(np.asarray(scale, dtype=np.float32))
    if not (np.isfinite(scale32) & (scale32 > 0)).all():
        raise NashcError("scale must be positive and finite", where="encode_shift", hint="pass scale=None for max |w|")
    rest = w / _per_channel(scale32, w.shape)
    codes = np.zeros((terms, *w.shape), dtype=np.int8)
    for term in range(terms):
        codes[term] = _nearest_codes(rest, pmax, rounding, first=term == 0)
        rest = rest - term_values(codes[term])
    return codes, scale32


def _nearest_codes(values: NDArray[np.float64], pmax: int, rounding: str, *, first: bool) -> NDArray[np.int8]:
    magnitude = np.abs(values)
    if rounding == "log":
        with np.errstate(divide="ignore"):
            exponent = np.rint(np.log2(magnitude))
    else:
        # magnitude = fraction * 2^e with fraction in [0.5, 1); the midpoint of 2^(e-1) and 2^e is 0.75 * 2^e.
        fraction, e = np.frexp(magnitude)
        exponent = np.where(fraction < 0.75, e - 1, e).astype(np.float64)
    p = np.clip(-exponent, 0, pmax)
    zero = magnitude == 0 if rounding == "log" and first else magnitude < 0.5 * 2.0**-pmax
    return np.where(zero, 0, np.sign(values) * (p + 1)).astype(np.int8)


def _per_channel(scale: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    flat = np.atleast_1d(np.asarray(scale, dtype=np.float64))
    if flat.ndim != 1 or flat.size not in (1, shape[0]):
        raise NashcError(
            f"scale has shape {list(np.shape(scale))}", where="shift codes", hint=f"give [1] or [{shape[0]}] values"
        )
    return flat.reshape(-1, *(1,) * (len(shape) - 1))
