"""Other pictures of the same things, for training without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def moved_and_flipped(batch: Array, rng: np.random.Generator) -> Array:
    """Images [N, C, H, W] or [N, H, W, C], each moved by up to an eighth, its edge repeated, and mirrored or not.

    The teacher sees the same picture, so nothing about its class is assumed.
    """
    if batch.ndim != 4:
        return batch
    first = 1 if batch.shape[-1] in (1, 3, 4) and batch.shape[1] not in (1, 3, 4) else 2
    h, w = batch.shape[first : first + 2]
    n = len(batch)
    rows = np.arange(h) + rng.integers(-(h // 8), h // 8 + 1, (n, 1))
    columns = np.arange(w) + rng.integers(-(w // 8), w // 8 + 1, (n, 1))
    columns = np.where(rng.random((n, 1)) < 0.5, columns[:, ::-1], columns)
    index = np.arange(n)[:, None, None], rows.clip(0, h - 1)[:, :, None], columns.clip(0, w - 1)[:, None, :]
    if first == 1:
        return np.ascontiguousarray(batch[index])
    return np.ascontiguousarray(batch.transpose(0, 2, 3, 1)[index].transpose(0, 3, 1, 2))
