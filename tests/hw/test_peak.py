"""The most lanes of a board: above every design that fits, and as many as some distribution over DSPs and LUTs has."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nashc.board import board_names, load_board
from nashc.core.design import Buffers, Chunk, Resources
from nashc.core.loops import Unroll
from nashc.core.network import Unit
from nashc.hw.peak import peak_lanes
from nashc.hw.resources import MIXED_LANES, chunk_resources

BOARDS = [load_board(name) for name in board_names()]
UNITS = {"mac": Unit.CONV, "mac4": Unit.CONV, "shift_mac": Unit.SHIFT, "adder": Unit.ADDER, "adder6": Unit.ADDER}

boards = st.sampled_from(BOARDS)
unrolls = st.builds(Unroll, *(st.sampled_from([1, 1, 2, 3, 4, 7, 16]) for _ in range(7)))


def kinds(lanes: str) -> tuple[str, ...]:
    return MIXED_LANES[lanes].kinds if lanes in MIXED_LANES else (lanes,)


@settings(max_examples=200, deadline=None)
@given(boards, st.lists(st.tuples(st.sampled_from(list(UNITS)), unrolls), min_size=1, max_size=4), st.booleans())
def test_no_design_has_more_lanes_than_its_resources_have_room_for(board, drawn, symmetric):
    chunks = tuple(
        Chunk(UNITS[lanes], "all", lanes, unroll, 4, 16, Buffers(1 << 14, 1 << 14, 1 << 14), 64, 0, symmetric)
        for lanes, unroll in drawn
    )
    parts = chunk_resources(board, chunks, board.usable_dsp)
    limit = Resources(lut=sum(p.lut for p in parts), dsp=sum(p.dsp for p in parts))
    own = [chunk.unroll.lanes for chunk in chunks]
    units = [kinds(chunk.lanes) for chunk in chunks]
    mixed = peak_lanes(board, limit, units, [lanes / sum(own) for lanes in own])
    assert all(most >= lanes * (1 - 1e-9) for most, lanes in zip(mixed, own, strict=True))
    assert sum(peak_lanes(board, limit, units)) >= sum(mixed) * (1 - 1e-9)


@given(boards, st.sampled_from(list(MIXED_LANES)), st.integers(0, 60), st.integers(0, 6_000))
def test_the_most_lanes_are_those_of_the_best_distribution(board, lanes, dsps, luts):
    fabric, plain, *packed = (board.lanes[kind] for kind in MIXED_LANES[lanes].kinds)
    each = [min(lane.lut_scalar, lane.lut_tree) for lane in (fabric, plain, *packed)]
    best = 0.0
    for alone in range(dsps + 1):
        for pairs in range(dsps - alone + 1) if packed else (0,):
            left = luts - alone * each[1] - (2 * pairs * each[2] if packed else 0)
            if left >= 0:
                best = max(best, alone + 2 * pairs + left / each[0])
    (most,) = peak_lanes(board, Resources(lut=luts, dsp=dsps), [MIXED_LANES[lanes].kinds])
    assert best * (1 - 1e-9) <= most <= best + 2


@given(boards, st.integers(0, 100))
def test_lanes_have_the_shares_of_the_operations(board, percent):
    shares = [percent / 100, 1 - percent / 100]
    mixed = peak_lanes(board, Resources(lut=10_000, dsp=100), [kinds("mac"), kinds("adder")], shares)
    assert mixed == pytest.approx([share * sum(mixed) for share in shares])


def test_shares_that_are_not_of_a_whole_are_refused():
    with pytest.raises(ValueError, match="shares"):
        peak_lanes(BOARDS[0], Resources(lut=100, dsp=1), [kinds("mac"), kinds("adder")], [0.5, -0.5])
