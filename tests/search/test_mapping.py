"""The mapping search finds the true optimum of its declared space, by brute force with the step-by-step simulation."""

import sys
from itertools import product
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from nashc.core.design import Buffers, Tile
from nashc.hw.dataflows import DATAFLOWS
from nashc.hw.tiles import Extents, Tiles, fits
from nashc.hw.traffic import spills
from nashc.search.mapping import MAX_COLUMN_TILES, best_mapping, channel_tiles, group_tiles, pixel_tiles

sys.path.insert(0, str(Path(__file__).parents[1] / "hw"))
from simulator import simulate
from strategies import machines, placements, unrolls, works


def declared(work, unroll, buffers):
    """Every declared (tile, dataflow), written out with plain loops."""
    nest = work.nest
    for n in [d for d in range(1, work.batch + 1) if work.batch % d == 0]:
        for g in group_tiles(work, unroll.g):
            ks = channel_tiles(nest.k, unroll.k) if g == 1 else [nest.k]
            cs = channel_tiles(nest.c, unroll.c) if g == 1 else [nest.c]
            rows = pixel_tiles(nest.oy, unroll.oy, nest.oy)
            columns = pixel_tiles(nest.ox, unroll.ox, MAX_COLUMN_TILES)
            for k, c, oy, ox in product(ks, cs, rows, columns):
                tile = Tile(n, g, k, c, oy, ox)
                tiles = Tiles.of([tile])
                extents = Extents.of(work, tiles)
                if fits(work, buffers, tiles, extents)[0]:
                    flows = DATAFLOWS.values()
                    yield from ((tile, f) for f in flows if not (work.extras and spills(extents, f)[0]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_best_mapping_is_the_simulated_optimum(data):
    work = data.draw(works().filter(lambda w: w.nest.macs * w.batch < 200_000))
    unroll, machine = data.draw(unrolls), data.draw(machines)
    placement, dram_bits = data.draw(placements(work)), data.draw(st.integers(8, 500))
    buffers = Buffers(*(data.draw(st.sampled_from([1 << 13, 1 << 15, 1 << 18])) for _ in range(3)))
    choices = list(declared(work, unroll, buffers))
    if len(choices) > 400:
        choices = []
    best = best_mapping(work, unroll, buffers, dram_bits, machine, placement)
    if best is None:
        assert not choices
        return
    for tile, flow in choices:
        assert simulate(work, unroll, dram_bits, machine, placement, tile, flow.loops).cycles >= best.cycles
    own = simulate(
        work, unroll, dram_bits, machine, placement, best.mapping.tile, DATAFLOWS.get(best.mapping.dataflow).loops
    )
    assert own.cycles == best.cycles
