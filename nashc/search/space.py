"""The declared accelerator space, in one place.

A network is partitioned into *slots*: one chunk for each unit and role that it needs. Each slot chooses an unrolling, a
lane kind and a buffer level; the accelerator adds a memory size, DRAM shares and a batch. `explain` prints the space.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np

from nashc.board import Board
from nashc.core.design import Chunk, Extra, Work
from nashc.core.loops import Unroll
from nashc.core.network import Layer, Network, Unit
from nashc.core.number import Ints
from nashc.core.options import Options
from nashc.hw.machine import PARTIAL_SUM_BITS, Machine
from nashc.hw.resources import (
    ACTIVATION_BITS,
    DRAIN_BITS,
    MAC_LANES,
    chunk_buffers,
    machine_of,
    usable,
)

CHANNEL_FACTORS = (1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
PIXEL_FACTORS = (1, 2, 4, 7, 8, 14, 16, 28)
BUFFER_LEVELS = ((8, 8, 16), (16, 16, 32), (32, 32, 64), (64, 64, 128))
"""KiB of one half of the input, weight and output buffer; wide ports may need more."""
MEMORY_EIGHTHS = (0, 2, 3, 4, 5, 6)
"""On-chip memory, in eighths of the usable BRAM."""
SHARE_SIXTEENTHS = 16
"""DRAM shares are whole sixteenths of the bandwidth and sum to the whole."""
BATCHES = (1, 2, 4, 8, 16)
VECTOR_UNROLLS = tuple(Unroll(g=g, ox=x) for g in (4, 8, 16) for x in (1, 2, 4))
POST_LANES = (16, 32, 64)
"""Requantising lanes of a chunk; an array with fewer accumulators has one for each."""
DUAL_PRICES = (0.0, 49.0, 60.0, 140.0, 228.0, 1e4)
"""LUTs a DSP is worth: at each price, the cheapest lanes give a lower bound of the LUTs of all mac chunks together."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A chunk that the network needs: its unit and role, the lane kinds it may use, the layers it serves."""

    unit: Unit
    role: str
    lanes: tuple[str, ...]
    weight_bits: int
    layers: tuple[int, ...]

    @property
    def name(self) -> str:
        bits = "4" if self.unit is Unit.CONV and self.weight_bits <= 4 else ""
        return f"{self.unit}{bits}" + ("" if self.role == "all" else f"-{self.role}")


def work_of(network: Network, layer: Layer, batch: int) -> Work:
    """What the cost of a layer depends on."""
    output = network.tensor[layer.output]
    full = layer.nest.g * layer.nest.k * layer.nest.oy * layer.nest.ox
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
    choices = []
    for (unit, _), members in groups.items():
        bits = max(weights.bits if (weights := network.layers[i].weights) else 1 for i in members)
        lanes = lane_kinds(unit, bits)
        whole: tuple[Slot, ...] = (Slot(unit, "all", lanes, bits, tuple(members)),)
        depthwise = tuple(i for i in members if network.layers[i].nest.depthwise)
        dense = tuple(i for i in members if not network.layers[i].nest.depthwise)
        if unit is Unit.VECTOR or not depthwise or not dense or merged_only:
            choices.append([whole])
        else:
            split = (Slot(unit, "dense", lanes, bits, dense), Slot(unit, "depthwise", lanes, bits, depthwise))
            choices.append([split, whole])
    return list(dict.fromkeys(tuple(slot for found in choices for slot in found[end]) for end in (0, -1)))


def _width_class(layer: Layer) -> int:
    """4-bit conv layers may have lanes of their own; every other unit has one chunk width."""
    return 4 if layer.unit is Unit.CONV and layer.weights is not None and layer.weights.bits <= 4 else 8


def lane_kinds(unit: Unit, bits: int) -> tuple[str, ...]:
    if unit is Unit.CONV:
        return ("lut8x4", MAC_LANES) if bits <= 4 else (MAC_LANES,)
    if unit is Unit.SHIFT:
        return ("shift",) if bits <= 4 else ("shift5",)
    if unit is Unit.ADDER:
        return ("adder6",) if bits <= 6 else ("adder",)
    return ("vector",)


@dataclass(frozen=True)
class SlotOptions:
    """All choices of a slot but its buffer level, as vectors: one unrolling and lane kind an entry.

    `factors` holds the unrolling as columns g k c oy ox fy fx, `post` the requantising lanes; `prices[p]` the LUTs
    when a DSP costs DUAL_PRICES[p]; `bram18[b]` the buffers at level b.
    """

    slot: Slot
    machine: Machine
    factors: Ints
    post: Ints
    kind: Ints
    prices: np.ndarray
    bram18: Ints

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def lanes(self) -> Ints:
        lanes: Ints = self.factors.prod(axis=1)
        return lanes

    def take(self, index: Ints) -> SlotOptions:
        """The slot with some of its options."""
        return SlotOptions(
            self.slot, self.machine, self.factors[index], self.post[index], self.kind[index], self.prices[:, index],
            self.bram18[:, index],
        )  # fmt: skip

    def only(self, i: int) -> SlotOptions:
        """The slot with option i alone."""
        return self.take(np.array([i]))

    def unroll(self, i: int) -> Unroll:
        return Unroll(*(int(v) for v in self.factors[i]))

    def chunk(self, i: int, level: int, dram_bits: int) -> Chunk:
        slot, unroll, post = self.slot, self.unroll(i), int(self.post[i])
        buffers = chunk_buffers(post, unroll, slot.weight_bits, BUFFER_LEVELS[level])
        lanes = slot.lanes[int(self.kind[i])]
        return Chunk(slot.unit, slot.role, lanes, unroll, slot.weight_bits, post, buffers, dram_bits)


def useful(factors: tuple[int, ...], bounds: set[int]) -> list[int]:
    """Factors up to the first that covers the largest bound in one go."""
    largest = max(bounds)
    exact = {b for b in bounds if b <= factors[-1]}
    covering = min((f for f in factors if f >= largest), default=factors[-1])
    return sorted(f for f in {*factors, *(e for e in exact if e == largest)} if f <= covering and f <= largest)


def slot_options(slot: Slot, network: Network, board: Board, machine: Machine, options: Options) -> SlotOptions:
    """Every unrolling of the declared factors whose chunk fits on the board alone."""
    limit = usable(board, options.max_lut, options.max_dsp, options.max_bram36)
    nests = [network.layers[i].nest for i in slot.layers]
    bounds = {d: {getattr(n, d) for n in nests} for d in ("g", "k", "c", "oy", "ox", "fy", "fx")}
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
        table = np.stack([a.reshape(-1) for a in np.meshgrid(*map(np.array, axes), indexing="ij")], axis=1)
    return _priced(slot, table.astype(np.int64), board, machine, limit.lut, limit.dsp, limit.bram18)


def _priced(slot: Slot, table: Ints, board: Board, machine: Machine, lut: int, dsp: int, bram18: int) -> SlotOptions:
    lanes = table.prod(axis=1)
    cheapest = min(board.lanes[k].lut_tree for k in ("dsp", "dsp_packed", *(x for x in slot.lanes if x != MAC_LANES)))
    table = table[lanes * cheapest <= lut]
    accumulators = table[:, 0] * table[:, 1] * table[:, 3] * table[:, 4]
    variants = [np.minimum(most, accumulators) for most in POST_LANES]
    distinct = [np.ones(len(table), dtype=bool)] + [a < b for a, b in pairwise(variants)]
    post = np.concatenate([v[d] for v, d in zip(variants, distinct, strict=True)])
    table = np.concatenate([table[d] for d in distinct])
    lanes = table.prod(axis=1)
    reduction = table[:, 2] * table[:, 5] * table[:, 6]
    outputs = table[:, 0] * table[:, 1] * table[:, 3] * table[:, 4]
    template = board.template
    overhead = template.lut_chunk_base + template.lut_per_output_lane * post
    overhead = overhead + np.where(outputs > post, DRAIN_BITS * outputs, 0)
    pairs = table[:, 1] % 2 == 0
    fixed = np.zeros(len(table)) if slot.unit is Unit.VECTOR else post * template.dsp_per_output_lane
    ports = (
        table[:, 0] * table[:, 2] * table[:, 3] * table[:, 4] * table[:, 5] * table[:, 6] * ACTIVATION_BITS,
        np.maximum(1, table[:, 0] * table[:, 1] * table[:, 2] * table[:, 5] * table[:, 6] * slot.weight_bits),
        post * PARTIAL_SUM_BITS,
    )
    memory = np.stack(
        [
            sum(
                2 * (columns := -(-port // 36)) * np.maximum(1, -(-(kib * 8192) // (columns * 36 * 512)))
                for port, kib in zip(ports, level, strict=True)
            )
            for level in BUFFER_LEVELS
        ]
    )
    kinds, prices = [], []
    for number, kind in enumerate(slot.lanes):
        if kind == MAC_LANES:
            fabric, packed, plain = (_each(board, k, reduction) for k in ("lut8x8", "dsp_packed", "dsp"))
            in_pairs = np.where(pairs, lanes // 2 * 2, 0)
            rows = []
            for price in DUAL_PRICES:
                alone = np.minimum(fabric, plain + price)
                paired = np.minimum(alone, packed + price / 2)
                rows.append(overhead + price * fixed + in_pairs * paired + (lanes - in_pairs) * alone)
            prices.append(np.stack(rows))
        else:
            luts = overhead + lanes * _each(board, kind, reduction)
            used = fixed + np.ceil(lanes * board.lanes[kind].dsp_per_lane)
            prices.append(np.stack([luts + price * used for price in DUAL_PRICES]))
        kinds.append(np.full(len(table), number))
    repeated = np.tile(table, (len(slot.lanes), 1))
    posts = np.tile(post, len(slot.lanes))
    costs, kind_of = np.concatenate(prices, axis=1), np.concatenate(kinds)
    memory = np.tile(memory, (1, len(slot.lanes)))
    limits = np.array([lut + p * dsp for p in DUAL_PRICES])[:, None]
    keep = np.flatnonzero((costs <= limits).all(axis=0) & (memory[0] <= bram18))
    return SlotOptions(slot, machine, repeated[keep], posts[keep], kind_of[keep], costs[:, keep], memory[:, keep])


def _each(board: Board, kind: str, reduction: Ints) -> np.ndarray:
    lane = board.lanes[kind]
    return lane.lut_tree + (lane.lut_scalar - lane.lut_tree) / reduction


def explain(network: Network, board: Board, options: Options) -> str:
    """The declared space for a network on a board, in words and numbers."""
    machine = machine_of(board)
    lines = ["accelerator space"]
    for partition in partitions(network):
        sizes = {s.name: len(slot_options(s, network, board, machine, options)) for s in partition}
        total = prod(sizes.values()) * len(BUFFER_LEVELS) ** len(sizes) * len(MEMORY_EIGHTHS)
        parts = ", ".join(f"{name}: {count:,} unrollings" for name, count in sizes.items())
        lines.append(
            f"  {parts}; x {len(BUFFER_LEVELS)} buffer levels each x {len(MEMORY_EIGHTHS)} memory sizes = {total:.3g}"
        )
    lines.append(f"  channel factors {CHANNEL_FACTORS}, pixel factors {PIXEL_FACTORS}, filter factors 1 or all taps")
    lines.append(f"  DRAM shares in {SHARE_SIXTEENTHS}ths, batch {options.batch or BATCHES}")
    return "\n".join(lines)
