"""The exact best mapping of one layer on one chunk: every tile size and dataflow of the declared space.

Declared tile sizes: for each number of tiles the smallest tile that gives it, in whole lanes of the unrolling (channel
tiles also in whole channel blocks, with and without rounding to lanes); columns in at most MAX_COLUMN_TILES tiles;
images in divisors of the batch. A layer with a second operand does not spill partial sums, because the operand's tile
would have to stay in its buffer between visits. All mappings get a lower bound at once; the exact closed form then
runs in the order of the bounds until the next bound is no better than the best exact result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import lcm

import numpy as np

from nashc.core.design import Buffers, Mapping, Placement, Tile, Work
from nashc.core.loops import Unroll
from nashc.core.number import Ints, ceil_div
from nashc.hw.dataflows import DATAFLOWS, Dataflow, distinct_orders
from nashc.hw.latency import Site, layer_cycles
from nashc.hw.machine import CHANNEL_BLOCK, Machine
from nashc.hw.tiles import TILE_DIMS, Extents, Tiles, fits
from nashc.hw.traffic import cycles_bound, spills
from nashc.search import compiled

MAX_COLUMN_TILES = 8
FIRST_BATCH = 12


@dataclass(frozen=True, slots=True)
class Best:
    """The best mapping found, its cycles, and how many mappings were considered and evaluated exactly."""

    mapping: Mapping
    cycles: int
    considered: int
    exact: int


def channel_tiles(channels: int, lanes: int) -> list[int]:
    """Tile sizes of a channel loop: whole channel blocks, or all channels."""
    if channels <= CHANNEL_BLOCK:
        return [channels]
    found = {channels}
    for unit in {CHANNEL_BLOCK, lcm(CHANNEL_BLOCK, lanes)}:
        units = ceil_div(channels, unit)
        found |= {min(channels, unit * ceil_div(units, count)) for count in range(1, units + 1)}
    return sorted(found)


def pixel_tiles(pixels: int, lanes: int, most: int) -> list[int]:
    """Tile sizes of an output row or column loop, in whole lanes; at most `most` tiles."""
    units = ceil_div(pixels, lanes)
    return sorted({min(pixels, lanes * ceil_div(units, count)) for count in range(1, min(units, most) + 1)})


def group_tiles(work: Work, lanes: int) -> list[int]:
    """Tile sizes of the group loop: input and output channels of a tile are whole blocks, or all groups."""
    nest = work.nest
    sizes = channel_tiles(nest.g, lanes) if nest.c == nest.k == 1 else list(range(1, nest.g + 1))
    aligned = [g for g in sizes if g * nest.c % CHANNEL_BLOCK == 0 and g * nest.k % CHANNEL_BLOCK == 0]
    return sorted({*aligned, nest.g})


@lru_cache(maxsize=100_000)
def tile_lists(work: Work, unroll: Unroll) -> compiled.Lists:
    """Declared tile sizes of a layer: images, blocks (g, k, c after one another), rows, columns."""
    nest = work.nest
    images = tuple(n for n in range(1, work.batch + 1) if work.batch % n == 0)
    rows = tuple(pixel_tiles(nest.oy, unroll.oy, nest.oy))
    columns = tuple(pixel_tiles(nest.ox, unroll.ox, MAX_COLUMN_TILES))
    blocks: list[int] = []
    for g in group_tiles(work, unroll.g):
        ks = channel_tiles(nest.k, unroll.k) if g == 1 else [nest.k]
        cs = channel_tiles(nest.c, unroll.c) if g == 1 else [nest.c]
        blocks += [size for k in ks for c in cs for size in (g, k, c)]
    return images, tuple(blocks), rows, columns


@lru_cache(maxsize=4096)
def candidate_tiles(work: Work, unroll: Unroll, buffers: Buffers) -> tuple[Tiles, Extents]:
    """All declared tiles of a layer that fit in the buffers, as vectors with their extents."""
    images, blocks, rows, columns = (np.array(sizes, dtype=np.int64) for sizes in tile_lists(work, unroll))
    gkc = blocks.reshape(-1, 3)
    grid = np.indices((len(images), len(gkc), len(rows), len(columns))).reshape(4, -1)
    g, k, c = gkc[grid[1]].T
    tiles = Tiles(images[grid[0]], g, k, c, rows[grid[2]], columns[grid[3]])
    chosen = tiles[np.flatnonzero(fits(work, buffers, tiles, Extents.of(work, tiles)))]
    return chosen, Extents.of(work, chosen)


def distinct_flows(extents: Extents) -> list[tuple[Dataflow, Ints]]:
    """Each dataflow with the mappings on which no earlier one runs the very same loops in the same order."""
    active = {d: getattr(extents, d).count > 1 for d in TILE_DIMS}
    signature = active["k"] * 1 + active["c"] * 2 + (active["n"] | active["oy"] | active["ox"]) * 4
    flows = DATAFLOWS.values()
    fresh = distinct_orders(flows)
    return [(flow, np.flatnonzero(np.isin(signature, codes))) for flow, codes in zip(flows, fresh, strict=True)]


def best_mapping(
    work: Work, unroll: Unroll, buffers: Buffers, dram_bits: int, machine: Machine, placement: Placement
) -> Best | None:
    """The mapping with the fewest cycles, ties broken by the order of enumeration; None if no tile fits."""
    return layer_on(work, unroll, buffers, dram_bits, machine).best(placement)


class LayerOn:
    """A layer on a chunk: its best mapping under each placement, searched once."""

    def __init__(self, work: Work, unroll: Unroll, buffers: Buffers, dram_bits: int, machine: Machine) -> None:
        self.work, self.unroll, self.rest = work, unroll, (buffers, dram_bits, machine)
        self.native = compiled.library() if len(work.extras) <= compiled.MOST_EXTRAS else None
        self.problem = None if self.native is None else compiled.problem(work, unroll, *self.rest)
        self.found: dict[Placement, Best | None] = {}

    def best(self, placement: Placement) -> Best | None:
        if placement not in self.found:
            self.found[placement] = self._searched(placement)
        return self.found[placement]

    def _searched(self, placement: Placement) -> Best | None:
        if self.native is None or self.problem is None:
            return search_with_numpy(self.work, self.unroll, *self.rest, placement)
        asked = compiled.Problem.from_buffer_copy(self.problem)  # the search lets other threads run
        compiled.place(asked, placement)
        fits = _fitting(self.work, self.unroll, self.rest[0], self.rest[2])
        found = compiled.search(self.native, asked, fits)
        if found is None:
            return None
        flow = DATAFLOWS.values()[found.flow]
        return Best(Mapping(Tile(*found.tile), flow.name), found.cycles, fits.considered, found.exact)


@lru_cache(maxsize=10_000)
def _fitting(work: Work, unroll: Unroll, buffers: Buffers, machine: Machine) -> compiled.Fitting:
    native = compiled.library()
    assert native is not None
    return compiled.fitting(native, compiled.problem(work, unroll, buffers, 1, machine), tile_lists(work, unroll))


@lru_cache(maxsize=100_000)
def layer_on(work: Work, unroll: Unroll, buffers: Buffers, dram_bits: int, machine: Machine) -> LayerOn:
    """The layer on the chunk, with what is known of it."""
    return LayerOn(work, unroll, buffers, dram_bits, machine)


def search_with_numpy(
    work: Work, unroll: Unroll, buffers: Buffers, dram_bits: int, machine: Machine, placement: Placement
) -> Best | None:
    """`best_mapping` where nothing is compiled; the definition of its answer."""
    tiles, extents = candidate_tiles(work, unroll, buffers)
    if not len(tiles):
        return None
    site = Site(unroll, dram_bits, machine, placement)
    bounds, flows, indices = [], [], []
    for number, (flow, distinct) in enumerate(distinct_flows(extents)):
        chosen = distinct[~spills(extents.take(distinct), flow)] if work.extras else distinct
        if len(chosen):
            bounds.append(cycles_bound(work, site, extents.take(chosen), flow))
            flows.append(np.full(len(chosen), number))
            indices.append(chosen)
    if not bounds:
        return None
    bound, flow_of, tile_of = np.concatenate(bounds), np.concatenate(flows), np.concatenate(indices)
    all_flows = DATAFLOWS.values()
    best_cycles, best_entry = np.iinfo(np.int64).max, -1
    exact, size = 0, FIRST_BATCH
    open_entries = np.arange(len(bound))
    while len(open_entries):
        order = open_entries[np.argpartition(bound[open_entries], min(size, len(open_entries)) - 1)[:size]]
        for number in np.unique(flow_of[order]):
            entries = np.sort(order[flow_of[order] == number])
            cycles = layer_cycles(work, site, tiles[tile_of[entries]], all_flows[number])
            least = int(cycles.min())
            entry = int(entries[np.argmin(cycles)])
            if (least, entry) < (best_cycles, best_entry) or best_entry < 0:
                best_cycles, best_entry = least, entry
        exact += len(order)
        left = np.ones(len(bound), dtype=bool)
        left[order] = False
        rest = open_entries[left[open_entries]]
        ties = (bound[rest] == best_cycles) & (rest < best_entry)
        open_entries = rest[(bound[rest] < best_cycles) | ties]
        size *= 4
    mapping = Mapping(tiles.tile(int(tile_of[best_entry])), all_flows[int(flow_of[best_entry])].name)
    return Best(mapping, int(best_cycles), len(bound), exact)
