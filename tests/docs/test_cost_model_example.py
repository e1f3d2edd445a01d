"""Every number of the worked example in docs/cost-model.md, recomputed."""

import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nashc.board import load_board
from nashc.core.design import Chunk, Extra, Placement, Tile, Work
from nashc.core.loops import LoopNest, Unroll
from nashc.core.network import Unit
from nashc.hw.dataflows import DATAFLOWS
from nashc.hw.energy import layer_pj, operation_pj
from nashc.hw.latency import Site, array_depth, drain_cycles, issue_cycles, layer_cycles, reduction_taps
from nashc.hw.machine import pages
from nashc.hw.resources import (
    BufferPort,
    chunk_buffers,
    chunk_overhead,
    chunk_resources,
    fixed_dsp,
    lane_luts,
    machine_of,
    memory_resources,
    split_lanes,
)
from nashc.hw.schedule import Lifetime, Task, latency, occupancy, periodic
from nashc.hw.tiles import TILE_DIMS, Extents, Tiles, fits, weight_tile_bits
from nashc.hw.traffic import cycles_bound, issue_total, traffic

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "hw"))
from simulator import simulate  # noqa: E402

PAGE = (ROOT / "docs" / "cost-model.md").read_text()
EXAMPLE = tomllib.loads(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL).group(1))
SETTING = EXAMPLE["setting"]

BOARD = load_board(SETTING["board"])
MACHINE = replace(machine_of(BOARD), post_lanes=SETTING["post_lanes"])
UNROLL = Unroll(**SETTING["unroll"])
BITS = SETTING["bits"]
NEST = LoopNest(**{**SETTING["nest"], "pad": tuple(SETTING["nest"]["pad"])})
WORK = Work(NEST, 1, BITS["input"], BITS["output"], BITS["weight"], 1, (Extra(BITS["residual"], full=True),))
BUFFERS = chunk_buffers(
    BOARD, SETTING["post_lanes"], UNROLL, BITS["weight"], BITS["residual"], tuple(SETTING["buffer_kib"])
)
CHUNK = Chunk(
    Unit.CONV, "all", "mac", UNROLL, BITS["weight"], SETTING["post_lanes"], BUFFERS, SETTING["dram_bits"],
    extra_bits=BITS["residual"],
)  # fmt: skip
SITE = Site(UNROLL, CHUNK.dram_bits, MACHINE, Placement((True, False), output=False, weights=True))
TILES = Tiles.of([Tile(**SETTING["tile"])])
EXTENTS = Extents.of(WORK, TILES)


def table_rows():
    """The slot table: slot number -> (compute, DRAM, read, pinned, post, length)."""
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
    return {int(row[0]): tuple(map(int, row[4:])) for row in cells if re.fullmatch(r"-?\d+", row[0])}


def test_the_machine_is_the_boards():
    assert {name: getattr(MACHINE, name) for name in EXAMPLE["machine"]} == EXAMPLE["machine"]
    assert SETTING["dram_bits"] == int(BOARD.dram_bytes_per_cycle * 8) * 4 // 16
    assert fits(WORK, BUFFERS, TILES, EXTENTS).all()


def test_first_tile():
    first = {d: getattr(EXTENTS, d).first for d in (*TILE_DIMS, "iy", "ix")}
    bits = int((first["g"] * first["c"] * first["iy"] * first["ix"])[0]) * WORK.input_bits
    weights = int(weight_tile_bits(WORK, first["g"], first["k"], first["c"])[0])
    outputs = int(np.prod([first[d][0] for d in ("n", "g", "k", "oy", "ox")]))
    assert EXAMPLE["tile"] == {
        "window_rows": int(first["iy"][0]),
        "input_bits": bits,
        "weight_bits": weights,
        "read_port": -(-bits // MACHINE.port_bits),
        "pinned_port": -(-weights // MACHINE.port_bits),
        "reduction": reduction_taps(WORK, UNROLL) * -(-int(first["c"][0]) // UNROLL.c),
        "drain": drain_cycles(MACHINE, UNROLL),
        "issue": int(issue_cycles(WORK, SITE, first)[0]),
        "depth": array_depth(MACHINE, UNROLL),
        "post": -(-outputs // MACHINE.post_lanes),
    }


@pytest.mark.parametrize("name", EXAMPLE["layer"])
def test_layer(name):
    flow = DATAFLOWS.get(name)
    moved = traffic(WORK, SITE, TILES, flow)
    assert moved.chip_write == 0
    assert EXAMPLE["layer"][name] == {
        "issue_cycles": int(issue_total(WORK, SITE, EXTENTS)[0]),
        "cycles": int(layer_cycles(WORK, SITE, TILES, flow)[0]),
        "bound": int(cycles_bound(WORK, SITE, EXTENTS, flow)[0]),
        "dram_read": moved.dram_read,
        "dram_write": moved.dram_write,
        "chip_read": moved.chip_read,
    }


def test_slots():
    flow = DATAFLOWS.get("weight-stationary")
    result = simulate(WORK, UNROLL, CHUNK.dram_bits, MACHINE, SITE.placement, TILES.tile(0), flow.loops)
    walked = {
        i: (s.compute, s.dram, s.act_read, s.weight_read, s.post, s.length()) for i, s in enumerate(result.slots, -1)
    }
    assert table_rows() == walked
    lengths = sum(row[-1] for row in walked.values())
    overheads = len(walked) * MACHINE.step_overhead + MACHINE.layer_overhead
    assert EXAMPLE["layer"]["weight-stationary"]["cycles"] == lengths + overheads


def test_resources():
    dsp = SETTING["dsp"]
    used = chunk_resources(BOARD, (CHUNK,), dsp)[0]
    lanes = split_lanes(BOARD, (CHUNK,), dsp - fixed_dsp(BOARD, CHUNK))[0]
    assert lanes.plain_dsp == 0
    assert EXAMPLE["resources"] == {
        "packed_pairs": lanes.packed_pairs,
        "lut_lanes": lanes.lut,
        "lut": used.lut,
        "ff": used.ff,
        "dsp": used.dsp,
        "lutram": used.lutram,
        "bram18": used.bram18,
        "half_bits": [BUFFERS.input_bits, BUFFERS.weight_bits, BUFFERS.output_bits],
    }


def test_an_operand_of_one_value_a_channel():
    gated = replace(WORK, extras=(Extra(BITS["residual"], full=False),))
    moved = traffic(gated, SITE, TILES, DATAFLOWS.get("output-stationary"))
    assert EXAMPLE["per_channel_extra"] == {"dram_read": moved.dram_read}


def test_lanes_and_overhead():
    found = [float(lane_luts(BOARD.lanes["lut8x8"], shared)) for shared in (1, 4, 16, 64)]
    assert EXAMPLE["lane"] == {"lut8x8": pytest.approx(found)}
    lut, ff = chunk_overhead(BOARD, SETTING["post_lanes"], UNROLL.outputs)
    assert EXAMPLE["overhead"] == {"lut": lut, "ff": ff}


def test_a_buffer_in_distributed_ram():
    port, given = BufferPort(BOARD, MACHINE.port_bits, 1), EXAMPLE["distributed"]
    halves = np.array(given["half_bits"])
    assert given == {
        "half_bits": halves.tolist(),
        "words": port.words(halves).tolist(),
        "lutram": port.lutram(halves).tolist(),
        "lut": port.lut(halves).tolist(),
        "bram18": port.bram18(halves).tolist(),
        "taken": port.distributed(halves).tolist(),
    }


def test_on_chip_memory():
    found = memory_resources(BOARD, 20, 3)
    bits = NEST.k * NEST.oy * NEST.ox * BITS["output"]
    assert EXAMPLE["on_chip"] == {"pages": pages(bits), "bram18": found.bram18, "lut": found.lut}


def test_terms_of_the_energy():
    """The formulas of the page, written anew; their sum is what the code computes."""
    issue, unit = int(issue_total(WORK, SITE, EXTENTS)[0]), BOARD.energy
    moved = traffic(WORK, SITE, TILES, DATAFLOWS.get("weight-stationary"))
    delivered = UNROLL.input_words * 8 + UNROLL.weight_words * BITS["weight"]
    terms = {
        "operations": NEST.macs * operation_pj(unit, Unit.CONV, BITS["weight"]),
        "dram": (moved.dram_read + moved.dram_write) * unit.dram_pj_per_bit,
        "on_chip": (moved.chip_read + moved.chip_write) * (unit.buffer_pj_per_bit + unit.noc_pj_per_bit),
        "buffers": issue * delivered * unit.buffer_pj_per_bit,
        "registers": issue * UNROLL.outputs * 2 * 32 * unit.rf_pj_per_bit,
    }
    assert EXAMPLE["energy_terms_pj"] == pytest.approx(terms)
    assert sum(terms.values()) == pytest.approx(EXAMPLE["energy_pj"]["weight-stationary"])


def test_throughput_and_host():
    cycles, clock = EXAMPLE["layer"]["output-stationary"]["cycles"], BOARD.clock_mhz
    fps = clock * 1e6 / cycles
    found = {"fps": fps, "latency_ms": cycles / clock / 1e3, "gops": 2 * NEST.macs * fps / 1e9}
    assert EXAMPLE["throughput"] == pytest.approx(found, rel=1e-6)
    assert EXAMPLE["host"] == {"cycles": round(10_000 / BOARD.host.elements_per_second * clock * 1e6)}


def test_energy():
    issue = int(issue_total(WORK, SITE, EXTENTS)[0])
    for name, value in EXAMPLE["energy_pj"].items():
        moved = traffic(WORK, SITE, TILES, DATAFLOWS.get(name))
        assert layer_pj(BOARD.energy, WORK, CHUNK, issue, moved) == pytest.approx(value, rel=1e-12)


def test_schedule():
    given = EXAMPLE["schedule"]
    tasks = tuple(Task(chunk, cycles, tuple(after)) for chunk, cycles, after in given["tasks"])
    resident = given["resident"]
    life = Lifetime(tuple(resident["writers"]), tuple(resident["readers"]), resident["pages"])
    assert latency(tasks) == given["latency"]
    for row in given["segments"]:
        schedule = periodic(tasks, row["segments"])
        peak, copies = occupancy(schedule, tasks, (life,))
        assert (schedule.interval, peak, copies) == (row["interval"], row["peak_pages"], [row["copies"]])
