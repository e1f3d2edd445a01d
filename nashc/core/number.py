"""Integer arithmetic of the cost model."""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
"""A vector of integers, one entry a candidate."""


@overload
def ceil_div(a: int, b: int) -> int: ...
@overload
def ceil_div(a: int, b: Ints) -> Ints: ...
@overload
def ceil_div(a: Ints, b: int | Ints) -> Ints: ...
def ceil_div(a: int | Ints, b: int | Ints) -> int | Ints:
    """The least integer that is at least a / b; element-wise on arrays."""
    return -(-a // b)


def ceil_log2(n: int) -> int:
    """Levels of a binary tree over n leaves; 0 for one leaf."""
    return (n - 1).bit_length()
