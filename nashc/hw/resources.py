"""LUT, FF, DSP and BRAM of chunks and of the on-chip memory, from the per-lane costs of the board file.

8x8 MAC lanes ("mac") are the same function on a DSP, on half a packed DSP and in LUTs, so all mac chunks share the
DSPs where they save most LUTs: a packed DSP frees two LUT lanes, and once none is left, DSPs that are still free
unpack pairs. A packed DSP multiplies one activation with the weights of two output channels (in [-127, 127]), so it
needs an even unrolling of k.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from nashc.board import Board, LaneCost
from nashc.core.design import Buffers, Chunk, Resources
from nashc.core.loops import Unroll
from nashc.core.network import Unit
from nashc.core.number import ceil_div
from nashc.hw.machine import PAGE_BANKS, PARTIAL_SUM_BITS, Machine

MAC_LANES = "mac"
ACTIVATION_BITS = 8
BRAM18_WIDTH, BRAM18_DEPTH = 36, 512
DRAIN_BITS = 24
"""An array with more accumulators than requantisers drains them through a shift register with parallel load: one LUT
and one FF for each of the 24 accumulator bits that were synthesised."""


@dataclass(frozen=True, slots=True)
class MacLanes:
    """How the lanes of one mac chunk are built."""

    plain_dsp: int
    packed_pairs: int
    lut: int


def lane_luts(lane: LaneCost, reduction: int) -> float:
    """LUTs of one lane of an array that sums `reduction` lanes into one accumulator.

    The two measured points are a lane with its own accumulator and a lane of a 16-wide tree; the accumulator's share
    falls with 1 / reduction between them.
    """
    return lane.lut_tree + (lane.lut_scalar - lane.lut_tree) / reduction


def lane_ffs(lane: LaneCost, reduction: int) -> float:
    return lane.ff_tree + (lane.ff_scalar - lane.ff_tree) / reduction


def packable(unroll: Unroll) -> bool:
    """Whether lanes pair up on one DSP: two output channels that share an activation."""
    return unroll.k % 2 == 0


def buffer_bram18(port_bits: int, bits: int) -> int:
    """BRAM18 of one double buffer that delivers `port_bits` a cycle and holds `bits` in each half."""
    columns = ceil_div(port_bits, BRAM18_WIDTH)
    return 2 * columns * max(1, ceil_div(bits, columns * BRAM18_WIDTH * BRAM18_DEPTH))


def port_widths(lanes: int, unroll: Unroll, weight_bits: int) -> tuple[int, int, int]:
    """Bits a cycle that the array takes from the input and weight buffers and exchanges with the output buffer."""
    return (
        unroll.input_words * ACTIVATION_BITS,
        max(1, unroll.weight_words * weight_bits),
        lanes * PARTIAL_SUM_BITS,
    )


def chunk_buffers(lanes: int, unroll: Unroll, weight_bits: int, kib: tuple[int, int, int]) -> Buffers:
    """Buffers of at least `kib` KiB a half, enlarged to the BRAMs that their port widths need anyway."""
    halves = []
    for port, size in zip(port_widths(lanes, unroll, weight_bits), kib, strict=True):
        halves.append(buffer_bram18(port, size * 8192) // 2 * BRAM18_WIDTH * BRAM18_DEPTH)
    return Buffers(*halves)


def buffers_bram18(lanes: int, unroll: Unroll, weight_bits: int, buffers: Buffers) -> int:
    sizes = (buffers.input_bits, buffers.weight_bits, buffers.output_bits)
    return sum(buffer_bram18(p, s) for p, s in zip(port_widths(lanes, unroll, weight_bits), sizes, strict=True))


def chunk_overhead(board: Board, lanes: int, unroll: Unroll) -> tuple[float, float]:
    """(LUT, FF) of control, DMA, accumulators and `lanes` requantisers of a chunk."""
    cost = board.template
    chain = DRAIN_BITS * unroll.outputs if unroll.outputs > lanes else 0
    return (
        cost.lut_chunk_base + cost.lut_per_output_lane * lanes + chain,
        cost.ff_chunk_base + cost.ff_per_output_lane * lanes + chain,
    )


def split_mac_lanes(board: Board, chunks: tuple[Chunk, ...], dsp: int) -> tuple[MacLanes | None, ...]:
    """Distribute `dsp` DSPs over the lanes of all mac chunks so that the LUT count is least; None for other chunks."""
    packed, plain, fabric = board.lanes["dsp_packed"], board.lanes["dsp"], board.lanes["lut8x8"]
    moves: list[tuple[float, int, str, int]] = []
    for i, chunk in enumerate(chunks):
        if chunk.lanes != MAC_LANES:
            continue
        lanes, reduction = chunk.unroll.lanes, chunk.unroll.reduction
        in_lut, on_plain = lane_luts(fabric, reduction), lane_luts(plain, reduction)
        if packable(chunk.unroll) and lanes >= 2:
            on_packed = lane_luts(packed, reduction)
            moves.append((2 * (in_lut - on_packed), i, "pair", lanes // 2))
            moves.append((2 * (on_packed - on_plain), i, "unpair", lanes // 2))
            moves.append((in_lut - on_plain, i, "plain", lanes % 2))
        else:
            moves.append((in_lut - on_plain, i, "plain", lanes))
    pairs, singles = [0] * len(chunks), [0] * len(chunks)
    for _, i, kind, most in sorted(moves, key=lambda m: (-m[0], m[1])):
        taken = min(most, dsp, pairs[i]) if kind == "unpair" else min(most, dsp)
        dsp -= taken
        if kind == "pair":
            pairs[i] += taken
        elif kind == "plain":
            singles[i] += taken
        else:
            pairs[i] -= taken
            singles[i] += 2 * taken
    return tuple(
        MacLanes(singles[i], pairs[i], chunk.unroll.lanes - singles[i] - 2 * pairs[i])
        if chunk.lanes == MAC_LANES
        else None
        for i, chunk in enumerate(chunks)
    )


def fixed_dsp(board: Board, chunk: Chunk) -> int:
    """DSPs of a chunk beside its mac lanes: its other lanes and its requantisers (a vector lane has its own)."""
    if chunk.lanes == MAC_LANES:
        return ceil(chunk.post_lanes * board.template.dsp_per_output_lane)
    post = 0 if chunk.unit is Unit.VECTOR else chunk.post_lanes * board.template.dsp_per_output_lane
    return ceil(chunk.unroll.lanes * board.lanes[chunk.lanes].dsp_per_lane + post)


def chunk_resources(board: Board, chunks: tuple[Chunk, ...], dsp: int) -> tuple[Resources, ...]:
    """Resources of each chunk, lanes, overhead and buffers; `dsp` is the number of DSPs that they may share."""
    found = []
    free = max(0, dsp - sum(fixed_dsp(board, chunk) for chunk in chunks))
    for chunk, mac in zip(chunks, split_mac_lanes(board, chunks, free), strict=True):
        reduction, lanes = chunk.unroll.reduction, chunk.unroll.lanes
        lut, ff = chunk_overhead(board, chunk.post_lanes, chunk.unroll)
        parts = [("dsp", mac.plain_dsp), ("dsp_packed", 2 * mac.packed_pairs), ("lut8x8", mac.lut)] if mac else []
        for kind, count in parts or [(chunk.lanes, lanes)]:
            lut += count * lane_luts(board.lanes[kind], reduction)
            ff += count * lane_ffs(board.lanes[kind], reduction)
        used = fixed_dsp(board, chunk) + (mac.plain_dsp + mac.packed_pairs if mac else 0)
        bram = buffers_bram18(chunk.post_lanes, chunk.unroll, chunk.weight_bits, chunk.buffers)
        found.append(Resources(lut=ceil(lut), ff=ceil(ff), dsp=used, bram18=bram))
    return tuple(found)


def read_ports(units: Iterable[Unit]) -> int:
    """Read ports of the on-chip memory: one for activations a chunk, and one for weights where it has any."""
    return sum(1 if unit is Unit.VECTOR else 2 for unit in units)


def memory_resources(board: Board, pages: int, ports: int) -> Resources:
    """The shared on-chip memory: its banks and, for each read port, a multiplexer over all of them."""
    banks = pages * PAGE_BANKS
    return Resources(lut=ceil(banks * ports * board.template.lut_mux_per_bank), bram18=2 * banks)


def usable(board: Board, lut: int | None, dsp: int | None, bram36: int | None) -> Resources:
    """What a design may use: the usable share of the board, or less where the user says so."""

    def least(limit: int, own: int | None) -> int:
        return limit if own is None else min(limit, own)

    return Resources(
        lut=least(board.usable_lut, lut),
        ff=board.usable_ff,
        dsp=least(board.usable_dsp, dsp),
        bram18=2 * least(board.usable_bram36, bram36),
        uram=board.usable_uram,
    )


def machine_of(board: Board) -> Machine:
    """The template's timing constants with the DRAM bursts of a board."""
    return Machine(burst_bits=board.dram.burst_bytes * 8, burst_latency=board.burst_latency_cycles)
