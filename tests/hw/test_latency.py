"""The closed form equals the step-by-step simulation, to the cycle and to the bit."""

from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import simulate
from strategies import machines, placements, tiles, unrolls, works

from nashc.hw.dataflows import DATAFLOWS
from nashc.hw.latency import Site, layer_cycles
from nashc.hw.tiles import Tiles


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_closed_form_is_the_simulation(data):
    """Five mappings a case, so at least 5,000 (layer, chunk, mapping, placement) cases a run."""
    work = data.draw(works())
    site = Site(data.draw(unrolls), data.draw(st.integers(1, 600)), data.draw(machines), data.draw(placements(work)))
    chosen = [data.draw(tiles(work)) for _ in range(5)]
    flow = DATAFLOWS.get(data.draw(st.sampled_from(list(DATAFLOWS))))
    cycles = layer_cycles(work, site, Tiles.of(chosen), flow)
    for tile, value in zip(chosen, cycles, strict=True):
        oracle = simulate(work, site.unroll, site.dram_bits, site.machine, site.placement, tile, flow.loops)
        assert value == oracle.cycles
