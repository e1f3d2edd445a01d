"""Tiles of one layer: how many there are along each loop, how large the edge ones are, what fits in the buffers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nashc.core.design import Buffers, Tile, Work
from nashc.core.loops import LoopNest
from nashc.core.number import Ints, ceil_div
from nashc.hw.machine import CHANNEL_PARAMETER_BITS, PARTIAL_SUM_BITS


@dataclass(frozen=True, slots=True)
class Tiles:
    """Many tiles of one layer as equally long int64 vectors, one mapping an entry."""

    n: Ints
    g: Ints
    k: Ints
    c: Ints
    oy: Ints
    ox: Ints

    @staticmethod
    def of(tiles: list[Tile]) -> Tiles:
        table = np.array([(t.n, t.g, t.k, t.c, t.oy, t.ox) for t in tiles], dtype=np.int64).reshape(-1, 6)
        return Tiles(*table.T.copy())

    def __len__(self) -> int:
        return len(self.n)

    def __getitem__(self, index: Ints | slice) -> Tiles:
        return Tiles(*(getattr(self, d)[index] for d in TILE_DIMS))

    def tile(self, i: int) -> Tile:
        return Tile(*(int(getattr(self, d)[i]) for d in TILE_DIMS))


TILE_DIMS = ("n", "g", "k", "c", "oy", "ox")


@dataclass(frozen=True, slots=True)
class Extent:
    """Size of the first, a middle and the last of `count` tiles along one loop; `first` is right for a single tile."""

    count: Ints
    first: Ints
    middle: Ints
    last: Ints

    def take(self, index: Ints) -> Extent:
        return Extent(self.count[index], self.first[index], self.middle[index], self.last[index])

    @property
    def total(self) -> Ints:
        """Sum over all tiles."""
        many = self.first + (self.count - 2) * self.middle + self.last
        return np.where(self.count == 1, self.first, many)

    @property
    def largest(self) -> Ints:
        return np.where(self.count == 1, self.first, np.maximum(self.first, np.maximum(self.middle, self.last)))


def split(bound: int, tile: Ints) -> Extent:
    """Tiles of a loop that has no halo: all full but the last."""
    count = ceil_div(bound, tile)
    last = bound - (count - 1) * tile
    full = np.minimum(tile, bound)
    return Extent(count, full, full, last)


def input_extent(nest: LoopNest, axis: int, outputs: Extent) -> Extent:
    """Input rows (axis 0) or columns (axis 1) that the DMA fetches for each output tile along that axis.

    Only the first tile leaves out the padding before the map and only the last the padding behind it; a middle tile
    whose window reaches over a border fetches clamped dummy rows instead, so that its descriptor stays constant.
    """
    size = (nest.iy, nest.ix)[axis]
    bound = (nest.oy, nest.ox)[axis]
    before = nest.pad[axis]
    behind = max(0, nest.span(axis, bound) - before - size)
    stride = nest.stride[axis]
    halo = nest.span(axis, 1)

    def span(outs: Ints) -> Ints:
        return (outs - 1) * stride + halo

    first = span(outputs.first) - before - np.where(outputs.count == 1, behind, 0)
    return Extent(
        outputs.count,
        np.clip(first, 1, size),
        np.clip(span(outputs.middle), 1, size),
        np.clip(span(outputs.last) - behind, 1, size),
    )


@dataclass(frozen=True, slots=True)
class Extents:
    """Extents of all tile loops and of the input window."""

    n: Extent
    g: Extent
    k: Extent
    c: Extent
    oy: Extent
    ox: Extent
    iy: Extent
    ix: Extent

    @staticmethod
    def of(work: Work, tiles: Tiles) -> Extents:
        nest = work.nest
        oy, ox = split(nest.oy, tiles.oy), split(nest.ox, tiles.ox)
        return Extents(
            split(work.batch, tiles.n),
            split(nest.g, tiles.g),
            split(nest.k, tiles.k),
            split(nest.c, tiles.c),
            oy,
            ox,
            input_extent(nest, 0, oy),
            input_extent(nest, 1, ox),
        )

    def take(self, index: Ints) -> Extents:
        """The extents of some of the mappings."""
        return Extents(*(getattr(self, q).take(index) for q in ("n", "g", "k", "c", "oy", "ox", "iy", "ix")))

    def steps(self) -> Ints:
        return self.n.count * self.g.count * self.k.count * self.c.count * self.oy.count * self.ox.count


def weight_tile_bits(work: Work, g: Ints, k: Ints, c: Ints) -> Ints:
    """Bits of the weights of a tile, with bias and scale of its output channels; 0 for a layer without weights."""
    if not work.weight_bits:
        return np.zeros_like(g)
    taps = work.nest.fy * work.nest.fx
    return g * k * (c * (taps * work.weight_bits * work.terms) + CHANNEL_PARAMETER_BITS)


def fits(work: Work, buffers: Buffers, tiles: Tiles, extents: Extents) -> np.ndarray:
    """Whether one half of each double buffer holds the largest tile."""
    outputs = tiles.n * tiles.g * tiles.k * tiles.oy * tiles.ox
    channels = tiles.n * tiles.g * tiles.k
    inputs = tiles.n * tiles.g * tiles.c * extents.iy.largest * extents.ix.largest * work.input_bits
    for extra in work.extras:
        inputs = inputs + (outputs if extra.full else channels) * extra.bits
    return (
        (inputs <= buffers.input_bits)
        & (weight_tile_bits(work, tiles.g, tiles.k, tiles.c) <= buffers.weight_bits)
        & (outputs * PARTIAL_SUM_BITS <= buffers.output_bits)
    )
