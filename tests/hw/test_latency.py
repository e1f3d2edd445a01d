"""The closed form equals the step-by-step simulation, to the cycle and to the bit."""

from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import simulate
from strategies import machines, placements, tiles, unrolls, works

from nashc.hw.dataflows import DATAFLOWS
from nashc.hw.latency import Site, layer_cycles
from nashc.hw.tiles import Extents, Tiles
from nashc.hw.traffic import cycles_bound, issue_total, traffic


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_closed_form_is_the_simulation(data):
    """Five mappings a case, so at least 5,000 (layer, chunk, mapping, placement) cases a run."""
    work = data.draw(works())
    site = Site(data.draw(unrolls), data.draw(st.integers(1, 600)), data.draw(machines), data.draw(placements(work)))
    chosen = [data.draw(tiles(work)) for _ in range(5)]
    flow = DATAFLOWS.get(data.draw(st.sampled_from(list(DATAFLOWS))))
    extents = Extents.of(work, Tiles.of(chosen))
    cycles = layer_cycles(work, site, Tiles.of(chosen), flow)
    bounds = cycles_bound(work, site, extents, flow)
    issues = issue_total(work, site, extents)
    for i, (tile, value) in enumerate(zip(chosen, cycles, strict=True)):
        oracle = simulate(work, site.unroll, site.dram_bits, site.machine, site.placement, tile, flow.loops)
        assert value == oracle.cycles
        assert bounds[i] <= value
        assert issues[i] == oracle.compute
        moved = traffic(work, site, Tiles.of([tile]), flow)
        assert (moved.dram_read, moved.dram_write) == (oracle.dram_read, oracle.dram_write)
        assert (moved.chip_read, moved.chip_write) == (oracle.chip_read, oracle.chip_write)
