"""What a layer with weights may become, and the weights that each type can hold, as data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from nashc.core.network import Unit
from nashc.ops.shift_codes import term_values
from nashc.registry import Registry

Values = NDArray[np.float64]
SHIFT_CODES = 7
"""Largest |code| of converted shift layers: a sign and three bits of exponent, 4 bits a term."""
LARGEST_SHIFT = 127
"""Largest sum of terms in units of the smallest power: the integer weight of the native kernel stays in a byte."""


@dataclass(frozen=True)
class LayerType:
    """A type of layer: `levels` are the weights that it holds, up to a positive scale for each output channel.

    bits: stored width of one term of one weight.
    """

    name: str
    unit: Unit
    bits: int
    terms: int
    levels: tuple[float, ...]

    @cached_property
    def grid(self) -> Values:
        return np.array(self.levels)

    @cached_property
    def _middles(self) -> Values:
        return (self.grid[1:] + self.grid[:-1]) / 2

    @property
    def largest(self) -> float:
        return self.levels[-1]

    def nearest(self, values: Values) -> NDArray[np.intp]:
        """Index of the nearest level of each value."""
        return np.searchsorted(self._middles, values)


def _shift_terms(terms: int) -> dict[int, tuple[int, ...]]:
    """Every sum of powers of two, as a multiple of the smallest power -> the codes that make it, fewest terms first."""
    codes = range(-SHIFT_CODES, SHIFT_CODES + 1)
    unit = 2 ** (SHIFT_CODES - 1)
    found: dict[int, tuple[int, ...]] = {}
    for choice in sorted(product(codes, repeat=terms), key=lambda c: (sum(map(bool, c)), c)):
        total = round(float(term_values(np.array(choice)).sum()) * unit)
        if abs(total) <= LARGEST_SHIFT:
            found.setdefault(total, choice)
    return found


def shift_codes(kind: LayerType, levels: NDArray[np.int16]) -> NDArray[np.int8]:
    """Codes [terms, ...] of the levels of a shift type."""
    made = _shift_terms(kind.terms)
    table = np.array([made[round(v * 2 ** (SHIFT_CODES - 1))] for v in kind.levels], np.int8)
    return np.moveaxis(table[levels], -1, 0)


def _conv(bits: int) -> LayerType:
    largest = 2 ** (bits - 1) - 1
    return LayerType(f"conv{bits}", Unit.CONV, bits, 1, tuple(float(v) for v in range(-largest, largest + 1)))


def _shift(terms: int) -> LayerType:
    unit = 2.0 ** (1 - SHIFT_CODES)
    return LayerType(f"shift{terms}", Unit.SHIFT, 4, terms, tuple(v * unit for v in sorted(_shift_terms(terms))))


TYPES: Registry[LayerType] = Registry("layer type")
for _kind in (_conv(8), _conv(4), _shift(1), _shift(2), _shift(3)):
    TYPES.add(_kind.name, _kind)
