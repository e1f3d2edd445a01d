"""The compiled mapping search is the NumPy one: every mapping to the cycle, every answer the same."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nashc.board import load_board
from nashc.core.design import Buffers, Placement, Work
from nashc.core.loops import LoopNest, Unroll
from nashc.hw.dataflows import DATAFLOWS
from nashc.hw.latency import Site, layer_cycles
from nashc.hw.resources import machine_of
from nashc.hw.tiles import TILE_DIMS, Extents, Tiles
from nashc.hw.traffic import cycles_bound
from nashc.search import compiled
from nashc.search.mapping import best_mapping, layer_on, search_with_numpy

sys.path.insert(0, str(Path(__file__).parents[1] / "hw"))
from strategies import machines, placements, tiles, unrolls, works

NATIVE = compiled.library()
pytestmark = pytest.mark.skipif(NATIVE is None, reason="this install has no compiled parts (no C++ compiler)")
ENDLESS = Buffers(1 << 60, 1 << 60, 1 << 60)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_cycles_and_bounds_are_those_of_the_closed_form(data):
    work = data.draw(works())
    site = Site(data.draw(unrolls), data.draw(st.integers(1, 600)), data.draw(machines), data.draw(placements(work)))
    chosen = [data.draw(tiles(work)) for _ in range(5)]
    number = data.draw(st.integers(0, len(DATAFLOWS.values()) - 1))
    flow = DATAFLOWS.values()[number]
    asked = compiled.problem(work, site.unroll, ENDLESS, site.dram_bits, site.machine)
    compiled.place(asked, site.placement)
    sizes = [tuple(getattr(tile, d) for d in TILE_DIMS) for tile in chosen]
    cycles, bounds = compiled.price(NATIVE, asked, sizes, [number] * len(chosen))
    assert cycles == layer_cycles(work, site, Tiles.of(chosen), flow).tolist()
    assert bounds == cycles_bound(work, site, Extents.of(work, Tiles.of(chosen)), flow).tolist()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_best_mappings_are_the_same_ones(data):
    work = data.draw(works())
    buffers = Buffers(*(data.draw(st.sampled_from([1 << 13, 1 << 15, 1 << 18])) for _ in range(3)))
    chunk = data.draw(unrolls), buffers, data.draw(st.integers(8, 500)), data.draw(machines)
    placement = data.draw(placements(work))
    found, expected = (search(work, *chunk, placement) for search in (best_mapping, search_with_numpy))
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert (found.mapping, found.cycles) == (expected.mapping, expected.cycles)
        assert found.considered == expected.considered


def test_threads_share_what_is_known_of_a_layer() -> None:
    work = Work(LoopNest(1, 64, 64, 28, 28, 3, 3, 30, 30, (1, 1), (1, 1), (1, 1, 1, 1)), 1, 8, 8, 8, 1)
    places = [Placement((a,), b, c) for a in (False, True) for b in (False, True) for c in (False, True)]
    chunk = (Unroll(k=16, c=8), Buffers(65536, 65536, 131072), 64, machine_of(load_board("fpga-zc706")))
    alone = [best_mapping(work, *chunk, place) for place in places]
    for _ in range(5):
        layer_on.cache_clear()
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda place: best_mapping(work, *chunk, place), places)) == alone
