"""A guess of what nobody has computed yet: a Gaussian process over the encodings of architectures.

Scoring a network takes far longer than guessing its score, and guesses from a few dozen order the later candidates of a
search nearly as their scores do (benchmarks/README.md, "Joint search"). So the guesses say which of many children to
look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import log

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from nashc.nas.architecture import Architecture
from nashc.nas.space import LETTERS, Space

LINEAR = 0.3
"""Weight of the linear kernel beside the squared exponential of length 1, both by mean squares over the axes."""
NOISE = 0.1
"""Variance of a value that the encoding does not explain, in units of the values' variance."""
STILL = 1e-9
"""Standard deviations up to here are rounding errors of what never changes, which says nothing."""


@lru_cache(maxsize=20_000)
def encoded(architecture: Architecture, space: Space) -> tuple[float, ...]:
    """The choices of an architecture as numbers: sizes by their logarithms, operators by how many blocks have them and
    which."""
    row = [log(architecture.stem), log(max(1, architecture.head))]
    for choice, stage in zip(architecture.stages, space.stages, strict=True):
        names = [block.operator for block in choice.blocks]
        row += [log(choice.width), len(names), *(names.count(name) for name in LETTERS)]
        for block in choice.blocks:
            row += [*(block.operator == name for name in LETTERS), log(block.kernel), log(block.expansion)]
        row += [0.0] * (len(LETTERS) + 2) * (max(stage.depths) - len(names))
    return tuple(map(float, row))


class Surrogate:
    """Guesses of values [architectures, kinds] of which `values` [n, kinds] are those of the rows `known` [n, axes]."""

    def __init__(self, known: Sequence[Sequence[float]], values: np.ndarray) -> None:
        rows = np.asarray(known, dtype=np.float64)
        self._middle, spread = rows.mean(axis=0), rows.std(axis=0)
        moves = spread > STILL
        self._scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=moves)
        self._axes = max(1, int(moves.sum()))
        self._rows = (rows - self._middle) * self._scale
        unit = values.std(axis=0)
        self._mean, self._unit = values.mean(axis=0), np.where(unit > STILL, unit, 1.0)
        self._factor = cho_factor(self._kernel(self._rows, self._rows) + NOISE * np.eye(len(rows)), lower=True)
        self._weights = cho_solve(self._factor, (values - self._mean) / self._unit)

    def guess(self, asked: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
        """(mean, standard deviation) of the values of each row asked for, [m, kinds] both."""
        rows = (np.asarray(asked, dtype=np.float64) - self._middle) * self._scale
        shared = self._kernel(rows, self._rows)
        own = 1.0 + LINEAR * (rows**2).sum(axis=1) / self._axes
        left = own - (shared * cho_solve(self._factor, shared.T).T).sum(axis=1)
        return self._mean + self._unit * (shared @ self._weights), np.sqrt(np.maximum(left, 0.0))[:, None] * self._unit

    def _kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        product = a @ b.T / self._axes
        squares = (a**2).sum(axis=1)[:, None] / self._axes + (b**2).sum(axis=1)[None, :] / self._axes
        kernel: np.ndarray = np.exp(product - squares / 2) + LINEAR * product
        return kernel
