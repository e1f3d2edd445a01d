"""Resources against the machine of docs/microarchitecture.md: measured points, ports of memories, packing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nashc.board import board_names, load_board
from nashc.core.design import Chunk, Resources
from nashc.core.loops import Unroll
from nashc.core.network import Unit
from nashc.hw.energy import operation_pj
from nashc.hw.machine import PARTIAL_SUM_BITS
from nashc.hw.resources import (
    ACTIVATION_BITS,
    MIXED_LANES,
    BufferPort,
    buffer_ports,
    buffer_resources,
    chunk_buffers,
    chunk_resources,
    fixed_dsp,
    lane_ffs,
    lane_luts,
    machine_of,
    multiplied_share,
    packable,
    split_lanes,
)

BOARDS = [load_board(name) for name in board_names()]
BOARD = load_board("fpga-zc706")
COLUMN_BITS, COLUMN_WORDS = 32, 512

unrolls = st.builds(Unroll, *(st.sampled_from([1, 1, 2, 3, 4, 7, 16]) for _ in range(7)))


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: b.name)
def test_lanes_cost_what_was_measured_and_nothing_less_between_or_beyond(board):
    for lane in board.lanes.values():
        for cost, scalar, tree in (
            (lane_luts, lane.lut_scalar, lane.lut_tree),
            (lane_ffs, lane.ff_scalar, lane.ff_tree),
        ):
            assert cost(lane, 1) == pytest.approx(scalar)
            assert cost(lane, 16) == pytest.approx(tree)
            many = np.arange(1, 100)
            each = cost(lane, many)
            assert each == pytest.approx([cost(lane, int(r)) for r in many])
            assert (np.diff(each) * np.sign(tree - scalar) >= 0).all()
            assert each[16:] == pytest.approx(tree)


# Who uses which half of a buffer in one slot, as (half, way): the array works on half 0.
# docs/microarchitecture.md, "Buffers" and "Output buffer".
ACCESSES = {
    "input": [(0, "read"), (1, "write")],
    "input with extras": [(0, "read"), (1, "write"), (1, "read")],
    "weight": [(0, "read"), (1, "write")],
    "output": [(0, "read"), (0, "write"), (1, "read"), (1, "write")],
}


@given(unrolls, st.sampled_from([1, 4, 16, 64]), st.sampled_from([4, 8]), st.sampled_from([0, 8, 16]))
def test_every_memory_has_a_port_for_each_access(unroll, post_lanes, weight_bits, extra_bits):
    names = ("input with extras" if extra_bits else "input", "weight", "output")
    ports = buffer_ports(BOARD, post_lanes, unroll.input_words, unroll.weight_words, weight_bits, extra_bits)
    for name, port in zip(names, ports, strict=True):
        memory_of = {0: 0, 1: port.memories - 1}
        used = [(memory_of[half], way) for half, way in ACCESSES[name]]
        assert len(set(used)) == len(used), name


@given(
    st.sampled_from(BOARDS), unrolls, st.sampled_from([1, 4, 16, 64]), st.sampled_from([4, 8]),
    st.sampled_from([0, 8, 16]), st.tuples(*[st.integers(1, 200)] * 3),
)  # fmt: skip
def test_buffers_hold_their_halves_and_take_every_access(board, unroll, post_lanes, weight_bits, extra_bits, kib):
    ports = buffer_ports(board, post_lanes, unroll.input_words, unroll.weight_words, weight_bits, extra_bits)
    bus, chip = int(board.dram_bytes_per_cycle * 8), machine_of(board).port_bits
    widths = (
        (unroll.input_words * ACTIVATION_BITS, post_lanes * extra_bits, bus, chip),
        (unroll.weight_words * weight_bits, bus, chip),
        (post_lanes * PARTIAL_SUM_BITS, bus),
    )
    buffers = chunk_buffers(board, post_lanes, unroll, weight_bits, extra_bits, kib)
    halves = (buffers.input_bits, buffers.weight_bits, buffers.output_bits)
    lut = lutram = ff = bram18 = 0
    for port, half, least, width, distributed in zip(ports, halves, kib, widths, buffers.distributed, strict=True):
        assert half >= least * 8192
        assert distributed == port.distributed(least * 8192) == port.distributed(half), "the same memories again"
        cost = port.lut if distributed else port.bram18
        assert cost(least * 8192) == cost(half) < cost(half + 1), "a half takes all that its memories hold"
        if distributed:
            deep, rest = divmod(2 * half, port.memories * int(port.bits))
            assert rest == 0
            assert deep in {32, 64, 128, 192, 256}
            assert port.bits >= max(width)
            lut += int(port.lut(half))
            lutram += int(port.lutram(half))
            ff += int(port.bits) * port.memories
            assert 2 * port.lut(half) / board.usable_lut < port.bram18(half) / board.usable_bram36 / 2
        else:
            count = int(port.bram18(half))
            bram18 += count
            assert 2 * half <= count * COLUMN_BITS * COLUMN_WORDS
            assert count % port.memories == 0
            assert (count // port.memories) * COLUMN_BITS >= max(width)
    chunk = Chunk(Unit.CONV, "all", "mac", unroll, weight_bits, post_lanes, buffers, 8, extra_bits)
    assert buffer_resources(board, chunk) == Resources(lut=lut, lutram=lutram, ff=ff, bram18=bram18)


@pytest.mark.parametrize("depth", [32, 64, 128, 256])
def test_distributed_ram_costs_what_was_measured(depth):
    """66 bits wide, by benchmarks/synthesis/synth.py: RAM32M or RAM64M (4 LUTs each), and all LUTs."""
    measured = {32: (44, 44), 64: (88, 88), 128: (176, 244), 256: (352, 424)}[depth]
    port = BufferPort(BOARD, 66, 1)
    assert port.lutram(33 * depth) == measured[0]
    assert measured[1] <= port.lut(33 * depth) <= measured[1] + 2


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: b.name)
def test_small_buffers_are_distributed_and_large_ones_are_not(board):
    """A 512-bit port asks for 16 BRAM18, which hold two halves of 16 KiB."""
    small, large = ([p.distributed(kib * 8192) for p in buffer_ports(board, 16, 1, 1, 8, 0)] for kib in (2, 64))
    assert all(small)
    assert not any(large)
    without = replace(board, lutram=0)
    assert not any(p.distributed(2 * 8192) for p in buffer_ports(without, 16, 1, 1, 8, 0))


def test_one_memory_holds_both_halves():
    """8 KiB halves behind a 512-bit port: 16 columns once, not once a half; 32 data bits a column, no parity."""
    source, weight, output = buffer_ports(BOARD, 16, 1, 1, 8, 0)
    assert [port.bram18(8 * 8192) for port in (source, weight, output)] == [16, 16, 32]
    assert [port.bram18(64 * 8192) for port in (source, weight, output)] == [64, 64, 64]
    assert buffer_ports(BOARD, 16, 1, 1, 8, 8)[0].bram18(8 * 8192) == 32


def test_a_chunk_without_weights_has_no_weight_buffer():
    buffers = chunk_buffers(BOARD, 16, Unroll(g=16), 0, 0, (8, 8, 16))
    assert buffers.weight_bits == 0
    chunk = Chunk(Unit.VECTOR, "all", "vector", Unroll(g=16), 0, 16, replace(buffers, distributed=(False,) * 3), 8)
    assert buffer_resources(BOARD, chunk) == Resources(bram18=16 + 32)


def mac_chunk(k, symmetric):
    unroll = Unroll(k=k, c=8)
    buffers = chunk_buffers(BOARD, 16, unroll, 8, 0, (8, 8, 16))
    return Chunk(Unit.CONV, "all", "mac", unroll, 8, 16, buffers, 8, symmetric=symmetric)


def test_only_symmetric_weights_and_even_k_share_a_dsp():
    dsp = 40
    assert split_lanes(BOARD, (mac_chunk(16, True),), dsp)[0].packed_pairs == dsp
    for chunk in (mac_chunk(16, False), mac_chunk(15, True)):
        lanes = split_lanes(BOARD, (chunk,), dsp)[0]
        assert (lanes.packed_pairs, lanes.plain_dsp) == (0, dsp)
        assert lanes.lut == chunk.unroll.lanes - dsp


@st.composite
def mixed_chunks(draw):
    lanes = draw(st.sampled_from([*MIXED_LANES, "adder"]))
    unroll = Unroll(k=draw(st.integers(1, 4)), c=draw(st.sampled_from([1, 2, 5])))
    unit = {"shift_mac": Unit.SHIFT, "adder": Unit.ADDER}.get(lanes, Unit.CONV)
    chunk = replace(mac_chunk(2, draw(st.booleans())), unit=unit, lanes=lanes, unroll=unroll)
    return replace(chunk, post_lanes=1)


@settings(deadline=None)
@given(st.lists(mixed_chunks(), min_size=1, max_size=3), st.integers(0, 30))
def test_dsps_go_where_they_save_most_luts(chunks, dsp):
    """Of all ways to put lanes on the DSPs none takes fewer LUTs."""
    splits = split_lanes(BOARD, tuple(chunks), dsp)
    assert [split is None for split in splits] == [chunk.lanes == "adder" for chunk in chunks]

    def luts(chunk, pairs, singles):
        mixed, reduction = MIXED_LANES[chunk.lanes], chunk.unroll.reduction
        costs = [lane_luts(BOARD.lanes[kind], reduction) for kind in (mixed.fabric, mixed.plain)]
        both = 2 * lane_luts(BOARD.lanes[mixed.packed], reduction) if pairs else 0
        return (chunk.unroll.lanes - 2 * pairs - singles) * costs[0] + singles * costs[1] + pairs * both

    least = {0: 0.0}  # LUTs by DSPs used
    for chunk in chunks:
        if chunk.lanes == "adder":
            continue
        lanes = chunk.unroll.lanes
        paired = MIXED_LANES[chunk.lanes].packed and packable(chunk.unroll.k, chunk.symmetric)
        ways = [(p, s) for p in range(lanes // 2 + 1 if paired else 1) for s in range(lanes - 2 * p + 1)]
        sums = [(used + p + s, cost + luts(chunk, p, s)) for used, cost in least.items() for p, s in ways]
        least = {n: min(cost for used, cost in sums if used == n) for n in {used for used, _ in sums} if n <= dsp}
    found = [
        (luts(chunk, split.packed_pairs, split.plain_dsp), split.packed_pairs + split.plain_dsp)
        for chunk, split in zip(chunks, splits, strict=True)
        if split is not None
    ]
    assert sum(used for _, used in found) <= dsp
    assert sum(cost for cost, _ in found) == pytest.approx(min(least.values()))


def test_shift_lanes_on_dsps_are_counted_there_and_multiply():
    """Beside a chunk whose lanes leave DSPs over, a shift chunk has the rest, at the energy of a multiplier."""
    shift = replace(mac_chunk(16, True), unit=Unit.SHIFT, lanes="shift_mac", weight_bits=4)
    conv, least = mac_chunk(16, True), fixed_dsp(BOARD, mac_chunk(16, True)) + fixed_dsp(BOARD, shift)
    for dsp, taken in ((least, 0), (least + 64, 0), (least + 128, 0), (least + 160, 32), (least + 1000, 128)):
        used = chunk_resources(BOARD, (conv, shift), dsp)
        assert used[1].dsp == fixed_dsp(BOARD, shift) + taken
        assert multiplied_share(BOARD, shift, used[1]) == taken / 128
        assert multiplied_share(BOARD, conv, used[0]) == 0
        in_luts = chunk_resources(BOARD, (conv, replace(shift, lanes="shift")), dsp)[1]
        saved = lane_luts(BOARD.lanes["shift"], 8) - lane_luts(BOARD.lanes["shift_dsp"], 8)
        assert in_luts.lut - used[1].lut == pytest.approx(taken * saved, abs=1)
    assert operation_pj(BOARD.energy, Unit.SHIFT, 4, 0.25) == pytest.approx(
        0.75 * BOARD.energy.shift_pj + 0.25 * BOARD.energy.conv8_pj
    )


def test_what_symmetric_weights_save():
    chunks = mac_chunk(16, True), mac_chunk(16, False)
    packed, plain = (chunk_resources(BOARD, (c,), 40 + fixed_dsp(BOARD, c))[0] for c in chunks)
    assert packed.dsp == plain.dsp
    assert packed.lut < plain.lut
    assert chunk_resources(BOARD, (replace(chunks[1], symmetric=True),), packed.dsp) == (packed,)
