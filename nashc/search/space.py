"""The declared accelerator space, in one place.

A network is partitioned into *slots*: one chunk for each unit and role that it needs. Each slot chooses an unrolling, a
lane kind and a buffer level; the accelerator adds a memory size, DRAM shares and a batch. `explain` prints the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import comb, prod

import numpy as np

from nashc.board import Board, LaneCost
from nashc.core.design import Chunk, Extra, Resources, Work
from nashc.core.loops import LOOP_DIMS, LoopNest, Unroll
from nashc.core.network import Layer, Network, Unit
from nashc.core.number import Ints, ceil_div
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.machine import Machine
from nashc.hw.resources import (
    MIXED_LANES,
    buffer_ports,
    chunk_buffers,
    chunk_overhead,
    lane_luts,
    packable,
    usable,
)
from nashc.search.holding import slot_halves

CHANNEL_FACTORS = (1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
PIXEL_FACTORS = (1, 2, 4, 7, 8, 14, 16, 28)
BUFFER_LEVELS = ((2, 2, 4), (4, 4, 8), (8, 8, 16), (16, 16, 32), (32, 32, 64), (64, 64, 128))
"""KiB of one half of the input, weight and output buffer; memories may hold more."""
FIRST_LEVEL = 2
"""Where tuning for latency and energy starts: the least level that needs no distributed RAM on most ports."""
MEMORY_EIGHTHS = (0, 2, 3, 4, 5, 6)
"""On-chip memory, in eighths of the usable BRAM."""
SHARES = 32
"""The bandwidth of the DRAM is dealt out in so many equal shares."""
BATCHES = (1, 2, 4, 8, 16)
VECTOR_UNROLLS = tuple(Unroll(g=g, ox=x) for g in (4, 8, 16) for x in (1, 2, 4))
POST_LANES = (16, 32, 64)
"""Requantising lanes of a chunk; an array with fewer accumulators has one for each."""


@dataclass(frozen=True, slots=True)
class Space:
    """The choices beside the unrollings: buffer levels (indices of BUFFER_LEVELS), eighths of the BRAM for on-chip
    memory (each up to the next), equal DRAM shares, batches, and at most so many unrollings a slot."""

    levels: tuple[int, ...] = tuple(range(len(BUFFER_LEVELS)))
    memory_eighths: tuple[int, ...] = MEMORY_EIGHTHS
    shares: int = SHARES
    batches: tuple[int, ...] = BATCHES
    unrollings: int | None = None

    @property
    def first_level(self) -> int:
        return min(self.levels, key=lambda level: abs(level - FIRST_LEVEL))

    def accelerators(self, options: Sequence[int], least_share: int = 1) -> int:
        """How many accelerators there are with so many options in each slot, for one batch and memory."""
        free = self.shares - least_share * len(options)
        dealt = comb(free + len(options) - 1, len(options) - 1) if free >= 0 else 0
        return prod(n * len(self.levels) for n in options) * dealt

    def least_share(self, dram_bits: int) -> int:
        """Fewest shares that are a bit a cycle, the least that a chunk can be built for."""
        return ceil_div(self.shares, dram_bits)


LANE_KINDS = {
    Unit.CONV: ("mac4", "mac"),
    Unit.SHIFT: ("shift_mac", "shift5"),
    Unit.ADDER: ("adder6", "adder"),
    Unit.VECTOR: ("vector",),
}
"""Lane kinds of each unit, the narrowest first."""
DUAL_PRICES = (0.0, 25.0, 49.0, 60.0, 140.0, 228.0, 1e4)
"""LUTs a DSP is worth: at each price, the cheapest lanes give a lower bound of the LUTs of all mixed lanes together."""
BRAM_PRICES = (0.0, 40.0)
"""LUTs a BRAM18 is worth: at each price, the cheapest buffers of a slot bound what its buffers cost."""


NO_BUFFERS = 10**9
"""LUTs and BRAM18 of buffers that cannot hold some layer of their slot: no board has them."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A chunk that the network needs: its unit and role, the layers it serves and what they ask of it.

    `weight_bits`, `activation_bits` and `extra_bits` (all second operands of an output together) are the widest of
    any layer; `symmetric`: no layer has a weight outside [-127, 127].
    """

    unit: Unit
    role: str
    layers: tuple[int, ...]
    weight_bits: int
    activation_bits: int
    extra_bits: int
    symmetric: bool

    @property
    def name(self) -> str:
        bits = "4" if self.unit is Unit.CONV and self.weight_bits <= 4 else ""
        return f"{self.unit}{bits}" + ("" if self.role == "all" else f"-{self.role}")


def work_of(network: Network, layer: Layer, batch: int) -> Work:
    """What the cost of a layer depends on."""
    output = network.tensor[layer.output]
    # a map that a concat has other parts of is larger than what the layer computes, a cropped one is smaller
    full = min(layer.nest.g * layer.nest.k * layer.nest.oy * layer.nest.ox, output.elements)
    extras = tuple(Extra(network.tensor[name].bits, network.tensor[name].elements >= full) for name in layer.inputs[1:])
    weights = layer.weights
    return Work(
        layer.nest,
        batch,
        network.tensor[layer.inputs[0]].bits,
        output.bits,
        weights.bits if weights else 0,
        weights.terms if weights else 1,
        extras,
        layer.scattered,
    )


def partitions(network: Network, *, merged_only: bool = False) -> list[tuple[Slot, ...]]:
    """The partitions of the network into slots: every unit that has both kinds with one chunk for dense and one for
    depthwise layers, or every unit with one chunk for all its layers."""
    groups: dict[tuple[Unit, int], list[int]] = {}
    for i, layer in enumerate(network.layers):
        if layer.unit is Unit.HOST:
            continue
        groups.setdefault((layer.unit, _width_class(layer)), []).append(i)
    choices: list[list[tuple[Slot, ...]]] = []
    for (unit, _), members in groups.items():
        depthwise = [i for i in members if network.layers[i].nest.depthwise]
        dense = [i for i in members if not network.layers[i].nest.depthwise]
        whole = (_slot(network, unit, "all", members),)
        if unit is Unit.VECTOR or not depthwise or not dense or merged_only:
            choices.append([whole])
        else:
            split = (_slot(network, unit, "dense", dense), _slot(network, unit, "depthwise", depthwise))
            choices.append([split, whole])
    return list(dict.fromkeys(tuple(slot for found in choices for slot in found[end]) for end in (0, -1)))


def _slot(network: Network, unit: Unit, role: str, members: list[int]) -> Slot:
    layers = [network.layers[i] for i in members]
    weights = [layer.weights for layer in layers if layer.weights is not None]
    # a vector lane takes every operand; other lanes take the first one, post lanes the others
    read = [name for layer in layers for name in layer.inputs[: None if unit is Unit.VECTOR else 1]]
    return Slot(
        unit,
        role,
        tuple(members),
        weight_bits=max((w.bits for w in weights), default=0),
        activation_bits=max(network.tensor[name].bits for name in read),
        extra_bits=max(sum(network.tensor[name].bits for name in layer.inputs[1:]) for layer in layers),
        symmetric=all(w.symmetric for w in weights),
    )


def _width_class(layer: Layer) -> int:
    """4-bit conv layers may have lanes of their own; every other unit has one chunk width."""
    return 4 if layer.unit is Unit.CONV and layer.weights is not None and layer.weights.bits <= 4 else 8


def lanes_of(slot: Slot, board: Board, objective: str) -> str:
    """The narrowest lane kind that holds the weights and activations of a slot's layers; "" if none does. Where energy
    counts, shift lanes stay off the DSPs, whose multipliers take more of it."""

    def holds(kind: str) -> bool:
        lane = lane_of(board, kind)
        # a vector layer's weights are scale and bias together, a lane's are the scale alone
        return slot.activation_bits <= lane.activation_bits and (
            slot.unit is Unit.VECTOR or slot.weight_bits <= lane.weight_bits_max
        )

    found = next(filter(holds, LANE_KINDS[slot.unit]), "")
    return MIXED_LANES[found].fabric if found == "shift_mac" and objective in ("energy", "edp") else found


def lane_of(board: Board, kind: str) -> LaneCost:
    """A lane of that kind in LUTs."""
    return board.lanes[MIXED_LANES[kind].fabric if kind in MIXED_LANES else kind]


@dataclass(frozen=True)
class SlotOptions:
    """All choices of a slot but its buffer level, as vectors: one unrolling an entry.

    `factors` holds the unrolling as columns g k c oy ox fy fx, `post` the requantising lanes; `prices[p]` the LUTs when
    a DSP costs DUAL_PRICES[p], without buffers; `luts[b]` and `bram18[b]` those of the buffers at level b.
    """

    slot: Slot
    board: Board
    machine: Machine
    lane_kind: str
    factors: Ints
    post: Ints
    prices: np.ndarray
    luts: Ints
    bram18: Ints

    def __len__(self) -> int:
        return len(self.post)

    @property
    def lanes(self) -> Ints:
        lanes: Ints = self.factors.prod(axis=1)
        return lanes

    @cached_property
    def distinct(self) -> dict[str, tuple[Ints, Ints]]:
        """Of each factor, of `post` and of the levels of the array's adder trees: the values that there are, and which
        of them each option has."""
        columns = dict(zip(LOOP_DIMS, self.factors.T, strict=True))
        reduction = columns["c"] * columns["fy"] * columns["fx"]
        columns |= {"post": self.post, "adder levels": np.ceil(np.log2(reduction)).astype(np.int64)}
        return {name: np.unique(column, return_inverse=True) for name, column in columns.items()}

    def rounds(self, name: str, count: int) -> Ints:
        """How often each option goes through its factor (or `post`) for a count, without a division for each."""
        values, at = self.distinct[name]
        return ceil_div(count, values)[at]

    @cached_property
    def drain(self) -> Ints:
        """Cycles in which the results of a pass leave the array."""
        return ceil_div(self.factors[:, [0, 1, 3, 4]].prod(axis=1), self.post)

    @cached_property
    def issue_of_image(self) -> dict[tuple[LoopNest, int], Ints]:
        """What issue_bound has found, of layers and terms: batches differ by a factor."""
        return {}

    def take(self, index: Ints) -> SlotOptions:
        """The slot with some of its options."""
        return replace(
            self, factors=self.factors[index], post=self.post[index], prices=self.prices[:, index],
            luts=self.luts[:, index], bram18=self.bram18[:, index],
        )  # fmt: skip

    def only(self, i: int) -> SlotOptions:
        """The slot with option i alone."""
        return self.take(np.array([i]))

    def unroll(self, i: int) -> Unroll:
        return Unroll(*(int(v) for v in self.factors[i]))

    def chunk(self, i: int, level: int, dram_bits: int) -> Chunk:
        slot, unroll, post = self.slot, self.unroll(i), int(self.post[i])
        return Chunk(
            unit=slot.unit,
            role=slot.role,
            lanes=self.lane_kind,
            unroll=unroll,
            weight_bits=slot.weight_bits,
            post_lanes=post,
            buffers=chunk_buffers(self.board, post, unroll, slot.weight_bits, slot.extra_bits, BUFFER_LEVELS[level]),
            dram_bits=dram_bits,
            extra_bits=slot.extra_bits,
            symmetric=slot.symmetric,
        )


def useful(factors: tuple[int, ...], bounds: set[int]) -> list[int]:
    """Factors up to the first that covers the largest bound in one go."""
    largest = max(bounds)
    exact = {b for b in bounds if b <= factors[-1]}
    covering = min((f for f in factors if f >= largest), default=factors[-1])
    return sorted(f for f in {*factors, *(e for e in exact if e == largest)} if f <= covering and f <= largest)


def slot_options(slot: Slot, network: Network, board: Board, machine: Machine, options: Options) -> SlotOptions:
    """Every unrolling of the declared factors whose chunk fits on the board alone."""
    lanes = lanes_of(slot, board, options.objective)
    if not lanes:
        raise _no_lanes(slot, network, board)
    limit = usable(board, options.max_lut, options.max_dsp, options.max_bram36)
    nests = [network.layers[i].nest for i in slot.layers]
    bounds = {d: {getattr(n, d) for n in nests} for d in LOOP_DIMS}
    if slot.unit is Unit.VECTOR:
        table = np.array([(u.g, u.k, u.c, u.oy, u.ox, u.fy, u.fx) for u in VECTOR_UNROLLS], dtype=np.int64)
    else:
        grouped = any(n.g > 1 for n in nests)
        axes = [
            useful(CHANNEL_FACTORS, bounds["g"]) if grouped else [1],
            useful(CHANNEL_FACTORS, bounds["k"]),
            useful(CHANNEL_FACTORS, bounds["c"]),
            useful(PIXEL_FACTORS, bounds["oy"]),
            useful(PIXEL_FACTORS, bounds["ox"]),
            sorted({1, max(bounds["fy"])}),
            sorted({1, max(bounds["fx"])}),
        ]
        if slot.role == "all" and grouped:
            # One array for dense and depthwise layers: lanes over groups idle in dense layers, so keep them few.
            axes[0] = [g for g in axes[0] if g <= 16]
        table = products(axes, most_lanes(board, [lanes], limit))
    works = tuple(dict.fromkeys(work_of(network, network.layers[i], 1) for i in slot.layers))
    return priced(slot, lanes, works, table, board, machine, limit)


def products(axes: Sequence[Sequence[int]], most: int) -> Ints:
    """The choices of one value of each axis whose product is at most that, the last axis fastest: [choices, axes]."""
    table, product = np.empty((1, 0), dtype=np.int64), np.ones(1, dtype=np.int64)
    for axis in axes:
        values = np.array(axis, dtype=np.int64)
        product = np.outer(product, values).reshape(-1)
        keep = np.flatnonzero(product <= most)
        table = np.column_stack([table[keep // len(values)], values[keep % len(values)]])
        product = product[keep]
    return table


def _no_lanes(slot: Slot, network: Network, board: Board) -> NashcError:
    alone = (i for i in slot.layers if not lanes_of(_slot(network, slot.unit, slot.role, [i]), board, "fps"))
    layer = network.layers[next(alone, slot.layers[0])]
    widest = lane_of(board, LANE_KINDS[slot.unit][-1])
    most = f"{widest.activation_bits}-bit activations"
    found = f"reads {slot.activation_bits} bits"
    if slot.unit is not Unit.VECTOR:
        most += f" and {widest.weight_bits_max}-bit weights"
        found += f" and has {slot.weight_bits}-bit weights"
    return NashcError(
        f"no {slot.unit} lane of {board.name} is wide enough: it takes {most}, the network {found}",
        where=f"layer '{layer.name}'",
        hint="quantise the model to narrower types",
    )


def priced(
    slot: Slot, kind: str, works: tuple[Work, ...], table: Ints, board: Board, machine: Machine, limit: Resources
) -> SlotOptions:
    """The unrollings of a table on lanes of a kind, with their costs: those whose chunk fits on the board alone."""
    table, post = _with_post_lanes(table[table.prod(axis=1) <= most_lanes(board, [kind], limit)])
    lanes, outputs = table.prod(axis=1), table[:, [0, 1, 3, 4]].prod(axis=1)
    reduction = table[:, [2, 5, 6]].prod(axis=1)
    overhead = chunk_overhead(board, post, outputs)[0]
    fixed = post * (0 if slot.unit is Unit.VECTOR else board.template.dsp_per_output_lane)
    mixed = MIXED_LANES.get(kind)
    if mixed is None:
        luts = overhead + lanes * lane_luts(board.lanes[kind], reduction)
        used = fixed + np.ceil(lanes * board.lanes[kind].dsp_per_lane)
        costs = np.stack([luts + price * used for price in DUAL_PRICES])
    else:
        fabric, plain = (lane_luts(board.lanes[own], reduction) for own in (mixed.fabric, mixed.plain))
        packed = np.full(len(table), np.inf)
        if mixed.packed:
            in_pairs = packable(table[:, 1], slot.symmetric)
            packed = np.where(in_pairs, lane_luts(board.lanes[mixed.packed], reduction), np.inf)
        cheapest = (np.minimum(np.minimum(fabric, plain + price), packed + price / 2) for price in DUAL_PRICES)
        costs = np.stack([overhead + p * fixed + lanes * each for p, each in zip(DUAL_PRICES, cheapest, strict=True)])
    luts, bram18 = _buffers(slot, works, table, post, board)
    limits = np.array([limit.lut + p * limit.dsp for p in DUAL_PRICES])[:, None]
    keep = np.flatnonzero((costs + luts.min(axis=0) <= limits).all(axis=0) & (bram18.min(axis=0) <= limit.bram18))
    return SlotOptions(
        slot, board, machine, kind, table[keep], post[keep], costs[:, keep], luts[:, keep], bram18[:, keep]
    )


def most_lanes(board: Board, kinds: Sequence[str], limit: Resources) -> int:
    """A bound of the lanes of one chunk: what the LUTs hold, and those on DSPs."""

    def most(kind: str) -> float:
        lane, mixed = lane_of(board, kind), MIXED_LANES.get(kind)
        return limit.lut / min(lane.lut_scalar, lane.lut_tree) + (mixed.on_a_dsp * limit.dsp if mixed else 0)

    return int(max(most(kind) for kind in kinds))


def _with_post_lanes(table: Ints) -> tuple[Ints, Ints]:
    """Unrollings with each distinct number of post lanes."""
    accumulators = table[:, [0, 1, 3, 4]].prod(axis=1)
    variants = [np.minimum(most, accumulators) for most in POST_LANES]
    distinct = [np.ones(len(table), dtype=bool)] + [a < b for a, b in pairwise(variants)]
    post = np.concatenate([v[d] for v, d in zip(variants, distinct, strict=True)])
    return np.concatenate([table[d] for d in distinct]), post


def _buffers(slot: Slot, works: tuple[Work, ...], table: Ints, post: Ints, board: Board) -> tuple[Ints, Ints]:
    """(LUTs, BRAM18) of the buffers, a row for each buffer level; NO_BUFFERS of both where they cannot hold a layer."""
    inputs, weights = table[:, [0, 2, 3, 4, 5, 6]].prod(axis=1), table[:, [0, 1, 2, 5, 6]].prod(axis=1)
    wide = buffer_ports(board, post, inputs, weights, slot.weight_bits, slot.extra_bits)
    bits, where = zip(*(np.unique(port.bits, return_inverse=True) for port in wide), strict=True)  # few of them
    ports = [replace(port, bits=own) for port, own in zip(wide, bits, strict=True)]
    luts, bram18 = np.zeros((2, len(BUFFER_LEVELS), len(table)), dtype=np.int64)
    least = slot_halves(works, table)
    for row, level in enumerate(BUFFER_LEVELS):
        holds = np.ones(len(table), dtype=bool)
        for port, at, kib, half in zip(ports, where, level, least, strict=True):
            distributed = port.distributed(kib * 8192)
            luts[row] += np.where(distributed, port.lut(kib * 8192), 0)[at]
            bram18[row] += np.where(distributed, 0, port.bram18(kib * 8192))[at]
            holds &= port.half_bits(kib * 8192)[at] >= half
        luts[row, ~holds] = bram18[row, ~holds] = NO_BUFFERS
    return luts, bram18
