"""Integer arithmetic of the cost model."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
IntLike = TypeVar("IntLike", int, Ints)


def ceil_div(a: IntLike, b: IntLike) -> IntLike:
    """The least integer that is at least a / b; element-wise on arrays."""
    return -(-a // b)


def ceil_log2(n: int) -> int:
    """Levels of a binary tree over n leaves; 0 for one leaf."""
    return (n - 1).bit_length()
