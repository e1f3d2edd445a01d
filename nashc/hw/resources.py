"""LUT, FF, DSP and BRAM of chunks and of the on-chip memory, from the per-lane costs of the board file.

Lanes that multiply ("mac" by 8 bits, "mac4" by 4, "shift_mac" by signed powers of two) are the same function on a DSP
and in LUTs, so all chunks of such lanes share the DSPs where they save most LUTs: a packed DSP frees two LUT lanes, and
once none is left, DSPs that are still free unpack pairs. A packed DSP multiplies one activation with the weights of two
output channels, so it needs an even unrolling of k and weights in [-127, 127].

Formulas that the search also needs for many chunks at once take vectors, one entry a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np

from nashc.board import Board, LaneCost
from nashc.core.design import Buffers, Chunk, Resources
from nashc.core.loops import Unroll
from nashc.core.network import Unit
from nashc.core.number import Ints, ceil_div
from nashc.hw.machine import PAGE_BANKS, PARTIAL_SUM_BITS, Machine

Count = int | Ints
Amount = Any
"""A float for one chunk, a vector of them for many."""


@dataclass(frozen=True, slots=True)
class MixedLanes:
    """Lane kinds of a board that are the same function: in LUTs, alone on a DSP, and two on one ("": never)."""

    fabric: str
    plain: str
    packed: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(kind for kind in (self.fabric, self.plain, self.packed) if kind)

    @property
    def on_a_dsp(self) -> int:
        """Lanes on one DSP at the most."""
        return 2 if self.packed else 1


MIXED_LANES = {
    "mac": MixedLanes("lut8x8", "dsp", "dsp_packed"),
    "mac4": MixedLanes("lut8x4", "dsp", "dsp_packed"),
    "shift_mac": MixedLanes("shift", "shift_dsp"),
}
"""Lanes that may be on DSPs and in LUTs. Two shift lanes on one DSP would take more LUTs than one there and one not."""
ACTIVATION_BITS = 8
BRAM18_WIDTH, BRAM18_DEPTH = 32, 512
"""Data bits of a word and words of one BRAM18 with one write and one read port; its 4 parity bits stay unused."""
RAM_DEPTH = 64
"""Words of a row of distributed RAM."""
DISTRIBUTED_DEPTH = 256
"""Deepest buffer in distributed RAM: four rows, so that one LUT6 multiplexes a bit."""
WRITE_ENABLE = 2
"""LUTs that decode the write enable of a row."""
MEASURED_TREE = 16
"""Lanes of the dot product behind the `tree` figures of the board file."""
KEPT = 1 << 14
"""Results of `chunk_buffers` and `buffer_resources` that are kept: a search asks for the same few again and again."""
DRAIN_BITS = 24
"""An array with more accumulators than requantisers drains them through a shift register with parallel load: one LUT
and one FF for each of the 24 accumulator bits that were synthesised."""


@dataclass(frozen=True, slots=True)
class LaneSplit:
    """How the lanes of one chunk of mixed lanes are built."""

    plain_dsp: int
    packed_pairs: int
    lut: int


def lane_luts(lane: LaneCost, reduction: Count) -> Amount:
    """LUTs of one lane of an array that sums `reduction` lanes into one accumulator."""
    return lane.lut_tree + (lane.lut_scalar - lane.lut_tree) * own_accumulator(reduction)


def lane_ffs(lane: LaneCost, reduction: Count) -> Amount:
    return lane.ff_tree + (lane.ff_scalar - lane.ff_tree) * own_accumulator(reduction)


def own_accumulator(reduction: Count) -> Amount:
    """How far a lane is from the 16-wide tree (0) to an accumulator of its own (1): the accumulator's share falls with
    1 / reduction between the two measured points. A wider tree counts as 16 wide: nothing is measured there, and to
    go on falling would be optimistic."""
    return (1 / np.minimum(reduction, MEASURED_TREE) - 1 / MEASURED_TREE) / (1 - 1 / MEASURED_TREE)


def packable(k: Count, symmetric: bool) -> Amount:
    """Whether lanes pair up on one DSP: two output channels that share an activation, all weights in [-127, 127]."""
    return (k % 2 == 0) & symmetric


@dataclass(frozen=True, slots=True)
class BufferPort:
    """The widest access of a double buffer in bits a cycle, and how many memories its halves are made of.

    A memory has one write and one read port: it holds both halves if never both of them are written or both read in
    the same cycle. No memory: the chunk needs no such buffer.
    """

    board: Board
    bits: Count
    memories: int

    def words(self, half_bits: Count) -> Count:
        """Words of each memory of a buffer with at least `half_bits` in each half."""
        return -(-2 * half_bits // (self.memories * self.bits)) if self.memories else self.bits * 0

    def bram18(self, half_bits: Count) -> Count:
        """BRAM18 of the buffer in BRAM: columns side by side for the port, as deep as the halves ask for. A deep column
        is BRAM18 of fewer bits and more words, which need no multiplexer."""
        row = self.memories * ceil_div(self.bits, BRAM18_WIDTH)
        return row * -(-2 * half_bits // np.maximum(row * BRAM18_WIDTH * BRAM18_DEPTH, 1))

    def lutram(self, half_bits: Count) -> Count:
        """LUTs that are RAM of the buffer in distributed RAM: one row of 32 words, or rows of 64."""
        cost, words = self.board.template, self.words(half_bits)
        flat = ceil_div(self.bits, 2 * cost.ram64_bits)
        rows = ceil_div(words, RAM_DEPTH) * ceil_div(self.bits, cost.ram64_bits)
        return self.memories * cost.ram64_lut * np.where(2 * words <= RAM_DEPTH, flat, rows)

    def lut(self, half_bits: Count) -> Count:
        """All LUTs of the buffer in distributed RAM: beside the RAM, a multiplexer 4:1 for each bit and more than one
        row, and the rows' write enables."""
        rows = ceil_div(self.words(half_bits), RAM_DEPTH)
        return self.lutram(half_bits) + self.memories * (rows > 1) * (self.bits + WRITE_ENABLE * rows)

    def distributed(self, half_bits: Count) -> Any:
        """Whether the buffer is in distributed RAM: it is shallow, and takes less than half the share of the board's
        LUTs, which lanes are made of too, than it would of its BRAM."""
        board, shallow = self.board, self.words(half_bits) <= DISTRIBUTED_DEPTH
        less = 2 * self.lut(half_bits) * 2 * board.usable_bram36 < self.bram18(half_bits) * board.usable_lut
        return shallow & less & (self.lutram(half_bits) <= board.usable_lutram)

    def half_bits(self, at_least: int) -> Any:
        """Bits of a half that the memories for `at_least` bits hold."""
        words = self.words(at_least)
        deep = np.where(2 * words <= RAM_DEPTH, RAM_DEPTH // 2, ceil_div(words, RAM_DEPTH) * RAM_DEPTH)
        blocks = self.bram18(at_least) * BRAM18_WIDTH * BRAM18_DEPTH // 2
        return np.where(self.distributed(at_least), deep * self.bits * self.memories // 2, blocks)


def buffer_ports(
    board: Board, post_lanes: Count, input_words: Count, weight_words: Count, weight_bits: int, extra_bits: int
) -> tuple[BufferPort, BufferPort, BufferPort]:
    """Ports of the input, weight and output buffers of chunks whose arrays read so many words a cycle.

    Input and weight buffers take what the on-chip port or the DRAM delivers, too, and the output buffer what the DRAM
    moves of partial sums. While the array reads one half of the input buffer, the post lanes read second operands from
    the other; while it updates partial sums in one half of the output buffer, they read sums from the other.
    """
    dram = int(board.dram_bytes_per_cycle * 8)
    fill = max(machine_of(board).port_bits, dram)
    array, extras = input_words * ACTIVATION_BITS, post_lanes * extra_bits
    return (
        BufferPort(board, np.maximum(np.maximum(array, extras), fill), 2 if extra_bits else 1),
        BufferPort(board, np.maximum(weight_words * weight_bits, fill), 1 if weight_bits else 0),
        BufferPort(board, np.maximum(post_lanes * PARTIAL_SUM_BITS, dram), 2),
    )


@lru_cache(maxsize=KEPT)
def chunk_buffers(
    board: Board, post_lanes: int, unroll: Unroll, weight_bits: int, extra_bits: int, kib: tuple[int, int, int]
) -> Buffers:
    """Buffers of at least `kib` KiB a half, enlarged to what their memories hold anyway."""
    ports = buffer_ports(board, post_lanes, unroll.input_words, unroll.weight_words, weight_bits, extra_bits)
    asked = [(port, size * 8192) for port, size in zip(ports, kib, strict=True)]
    source, weight, output = ((int(port.half_bits(bits)), bool(port.distributed(bits))) for port, bits in asked)
    return Buffers(source[0], weight[0], output[0], (source[1], weight[1], output[1]))


@lru_cache(maxsize=KEPT)
def buffer_resources(board: Board, chunk: Chunk) -> Resources:
    """LUTs and BRAM18 of the three buffers of a chunk, and FFs of the read registers that BRAM has inside."""
    words = chunk.unroll.input_words, chunk.unroll.weight_words
    ports = buffer_ports(board, chunk.post_lanes, *words, chunk.weight_bits, chunk.extra_bits)
    buffers, total = chunk.buffers, Resources()
    sizes = (buffers.input_bits, buffers.weight_bits, buffers.output_bits)
    for port, size, distributed in zip(ports, sizes, buffers.distributed, strict=True):
        if distributed:
            register = int(port.bits) * port.memories
            total = total + Resources(lut=int(port.lut(size)), ff=register, lutram=int(port.lutram(size)))
        else:
            total = total + Resources(bram18=int(port.bram18(size)))
    return total


def chunk_overhead(board: Board, post_lanes: Count, outputs: Count) -> tuple[Amount, Amount]:
    """(LUT, FF) of control, DMA, `outputs` accumulators and the requantisers of a chunk."""
    cost = board.template
    chain = DRAIN_BITS * outputs * (outputs > post_lanes)
    return (
        cost.lut_chunk_base + cost.lut_per_output_lane * post_lanes + chain,
        cost.ff_chunk_base + cost.ff_per_output_lane * post_lanes + chain,
    )


def split_lanes(board: Board, chunks: tuple[Chunk, ...], dsp: int) -> tuple[LaneSplit | None, ...]:
    """Distribute `dsp` DSPs over all mixed lanes so that the LUT count is least; None for chunks of other lanes."""
    moves: list[tuple[float, int, str, int]] = []
    for i, chunk in enumerate(chunks):
        mixed = MIXED_LANES.get(chunk.lanes)
        if mixed is None:
            continue
        lanes, reduction = chunk.unroll.lanes, chunk.unroll.reduction
        in_lut, on_plain = (lane_luts(board.lanes[kind], reduction) for kind in (mixed.fabric, mixed.plain))
        if mixed.packed and packable(chunk.unroll.k, chunk.symmetric):
            on_packed = lane_luts(board.lanes[mixed.packed], reduction)
            moves.append((2 * (in_lut - on_packed), i, "pair", lanes // 2))
            moves.append((2 * (on_packed - on_plain), i, "unpair", lanes // 2))
        else:
            moves.append((in_lut - on_plain, i, "plain", lanes))
    pairs, singles = [0] * len(chunks), [0] * len(chunks)
    for saved, i, kind, most in sorted(moves, key=lambda m: (-m[0], m[1])):
        if saved <= 0:
            break
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
        LaneSplit(singles[i], pairs[i], chunk.unroll.lanes - singles[i] - 2 * pairs[i])
        if chunk.lanes in MIXED_LANES
        else None
        for i, chunk in enumerate(chunks)
    )


def fixed_dsp(board: Board, chunk: Chunk) -> int:
    """DSPs of a chunk beside its mixed lanes: its other lanes and its requantisers (a vector lane has its own)."""
    if chunk.lanes in MIXED_LANES:
        return ceil(chunk.post_lanes * board.template.dsp_per_output_lane)
    post = 0 if chunk.unit is Unit.VECTOR else chunk.post_lanes * board.template.dsp_per_output_lane
    return ceil(chunk.unroll.lanes * board.lanes[chunk.lanes].dsp_per_lane + post)


def chunk_resources(board: Board, chunks: tuple[Chunk, ...], dsp: int) -> tuple[Resources, ...]:
    """Resources of each chunk, lanes, overhead and buffers; `dsp` is the number of DSPs that they may share."""
    found = []
    free = max(0, dsp - sum(fixed_dsp(board, chunk) for chunk in chunks))
    for chunk, split in zip(chunks, split_lanes(board, chunks, free), strict=True):
        reduction, lanes = chunk.unroll.reduction, chunk.unroll.lanes
        lut, ff = chunk_overhead(board, chunk.post_lanes, chunk.unroll.outputs)
        for kind, count in _built(MIXED_LANES[chunk.lanes], split) if split else [(chunk.lanes, lanes)]:
            lut += count * lane_luts(board.lanes[kind], reduction)
            ff += count * lane_ffs(board.lanes[kind], reduction)
        used = fixed_dsp(board, chunk) + (split.plain_dsp + split.packed_pairs if split else 0)
        found.append(Resources(lut=ceil(lut), ff=ceil(ff), dsp=used) + buffer_resources(board, chunk))
    return tuple(found)


def _built(mixed: MixedLanes, split: LaneSplit) -> list[tuple[str, int]]:
    """Lane kinds of the board that a chunk's lanes are of, and how many of each."""
    counts = [(mixed.plain, split.plain_dsp), (mixed.packed, 2 * split.packed_pairs), (mixed.fabric, split.lut)]
    return [(kind, count) for kind, count in counts if count]


def multiplied_share(board: Board, chunk: Chunk, used: Resources) -> float:
    """The share of a shift chunk's lanes that are on DSPs; 0 for other units. `used`: what the chunk takes."""
    if chunk.unit is not Unit.SHIFT or chunk.lanes not in MIXED_LANES:
        return 0.0
    return (used.dsp - fixed_dsp(board, chunk)) / chunk.unroll.lanes


def memory_resources(board: Board, pages: int, chunks: int, uram_groups: int = 0) -> Resources:
    """The shared on-chip memory: its BRAM and URAM banks and, for each chunk, a multiplexer over all of them. A page
    or a group holds feature maps, which any chunk may read, or pinned weights for good, which one chunk reads."""
    banks, urams = pages * PAGE_BANKS, uram_groups * PAGE_BANKS
    lut = ceil((banks + urams) * chunks * board.template.lut_mux_per_bank)
    return Resources(lut=lut, bram18=2 * banks, uram=urams)


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
        lutram=board.usable_lutram,
    )


def machine_of(board: Board) -> Machine:
    """The template's timing constants with the DRAM bursts of a board."""
    return Machine(burst_bits=board.dram.burst_bytes * 8, burst_latency=board.burst_latency_cycles)
