"""Which buffers can hold some declared tile of every layer of a slot: others make no accelerator."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from nashc.core.design import Work
from nashc.core.loops import Unroll
from nashc.core.number import Ints
from nashc.hw.machine import PARTIAL_SUM_BITS
from nashc.hw.tiles import Extent, input_extent, split, weight_tile_bits
from nashc.search.mapping import tile_lists


@lru_cache(maxsize=100_000)
def least_halves(work: Work, oy: int, ox: int) -> tuple[int, int, int]:
    """Bits that a half of the input, weight and output buffer has at least, whatever the tile, on an array with `oy` x
    `ox` lanes along the pixels. The least of each factor is taken by itself, so this is necessary, and where the
    smallest tile has them all enough."""
    _, blocks, rows, columns = tile_lists(work, Unroll(oy=oy, ox=ox))
    g, k, c = np.array(blocks, dtype=np.int64).reshape(-1, 3).T
    window = int(_least_window(work, 0, rows) * _least_window(work, 1, columns))
    channels = int((g * k).min())
    outputs = channels * min(rows) * min(columns)
    extras = sum((outputs if extra.full else channels) * extra.bits for extra in work.extras)
    return (
        int((g * c).min()) * window * work.input_bits + extras,
        int(weight_tile_bits(work, g, k, c).min()),
        outputs * PARTIAL_SUM_BITS,
    )


def _least_window(work: Work, axis: int, tiles: tuple[int, ...]) -> int:
    outputs: Extent = split((work.nest.oy, work.nest.ox)[axis], np.array(tiles, dtype=np.int64))
    return int(input_extent(work.nest, axis, outputs).largest.min())


def slot_halves(works: tuple[Work, ...], factors: Ints) -> Ints:
    """Bits that the halves have at least for all layers, 0 where there are none: a row for each buffer and a column for
    each unrolling (columns g k c oy ox fy fx of `factors`)."""
    wide = factors[:, 4].max(initial=0) + 1
    pairs, pair_of = np.unique(factors[:, 3] * wide + factors[:, 4], return_inverse=True)
    least = np.array([[least_halves(w, *divmod(int(pair), int(wide))) for w in works] for pair in pairs], np.int64)
    halves: Ints = least.reshape(len(pairs), len(works), 3).max(axis=1, initial=0).T[:, pair_of]
    return halves
