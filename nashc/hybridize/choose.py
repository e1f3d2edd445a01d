"""Which type each layer gets: candidates on the frontier of speed and loss, for exact searches to decide between.

A choice is bounded by the lanes that it needs: the LUTs of the board, and its DSPs for multiplications, all busy all
the time. Along that bound and the sum of sensitivities, candidates are the best trades: for each mixture of types and
for prices of loss from nothing to everything, the cheapest type of each layer. Mixtures count by the chunks that they
ask for, as each chunk idles when its layers are done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, product
from math import inf

import numpy as np

from nashc.board import Board
from nashc.core.network import Layer, Network, Unit, Weights
from nashc.core.options import Options
from nashc.hw.resources import MIXED_LANES, MixedLanes, usable
from nashc.hybridize.layer_types import TYPES, LayerType

LANES = {"conv8": "mac", "conv4": "mac4"}
"""Lanes of the convolutions; shift types have those of shifts, once for each term."""
MOST_KINDS = 2
"""Types in a mixture, for dense and for depthwise layers each."""
PRICES_OF_LOSS = np.concatenate([[0.0], np.geomspace(1e-3, 1e6, 73)])
DSP_SHARES = (0.25, 0.5, 1.0)
"""What an 8-bit multiplication costs, as a share of its LUT lane: DSPs that are there anyway do some of them."""
CHUNK_COST = 0.15
"""For the order of candidates: chunks beside the first ones cost buffers and idle time."""


@dataclass(frozen=True, slots=True)
class Choosable:
    """A layer that may have one of several types; `losses` by type name, `macs` of one image."""

    node: str
    macs: int
    depthwise: bool
    losses: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Type name of each node. loss: sum of sensitivities. cycles: of an image at least, whatever the accelerator.
    chunks: pairs of a type and whether its layers are depthwise, about what the accelerator has a chunk for."""

    choice: Mapping[str, str]
    loss: float
    cycles: float
    chunks: frozenset[tuple[str, bool]]


def candidates(layers: Sequence[Choosable], fixed_macs: int, board: Board, options: Options) -> list[Candidate]:
    """No candidate is worse in loss and cycles than another one with the same types; the fastest first. fixed_macs: of
    8-bit convolutions besides."""
    found: dict[tuple[str, ...], Candidate] = {}
    for palette in _palettes(layers):
        for names in _trades(layers, palette, board):
            if names not in found:
                pairs = list(zip(layers, names, strict=True))
                found[names] = Candidate(
                    {layer.node: name for layer, name in pairs},
                    sum(layer.losses[name] for layer, name in pairs),
                    least_cycles(layers, names, fixed_macs, board, options),
                    frozenset((name, layer.depthwise) for layer, name in pairs),
                )
    best: list[Candidate] = []
    for one in sorted(found.values(), key=lambda c: (c.cycles, c.loss)):
        if not any(o.loss <= one.loss and o.chunks == one.chunks for o in best):
            best.append(one)
    return best


def _palettes(layers: Sequence[Choosable]) -> Iterator[tuple[frozenset[str], frozenset[str]]]:
    """Types for dense layers and for depthwise ones."""
    roles = [dict.fromkeys(n for layer in layers if layer.depthwise == role for n in layer.losses) for role in (0, 1)]
    subsets = [
        list(map(frozenset, chain.from_iterable(combinations(names, k) for k in range(1, MOST_KINDS + 1))))
        or [frozenset()]
        for names in roles
    ]
    yield from product(*subsets)


def _trades(
    layers: Sequence[Choosable], palette: tuple[frozenset[str], frozenset[str]], board: Board
) -> Iterator[tuple[str, ...]]:
    """The cheapest types of all layers for each price of loss. A layer that can be no type of the palette is not in it
    by the user's wish and takes the cheapest that it can be."""
    names = [[n for n in layer.losses if n in palette[layer.depthwise]] or list(layer.losses) for layer in layers]
    scale = max(sum(layer.macs for layer in layers), 1) * lane_price("conv8", board)
    for share in DSP_SHARES:
        cost = [
            np.array([layer.macs * lane_price(n, board) * (share if n == "conv8" else 1.0) for n in own]) / scale
            for layer, own in zip(layers, names, strict=True)
        ]
        loss = [np.array([layer.losses[n] for n in own]) for layer, own in zip(layers, names, strict=True)]
        cheapest = [
            np.argmin(c[:, None] + s[:, None] * PRICES_OF_LOSS, axis=0) for c, s in zip(cost, loss, strict=True)
        ]
        for chosen in zip(*(c.tolist() for c in cheapest), strict=True):
            yield tuple(own[i] for own, i in zip(names, chosen, strict=True))


def lane_price(name: str, board: Board) -> float:
    """LUTs that a multiply-accumulate (or what replaces it) takes in one cycle, its lanes in trees."""
    return board.lanes[_lanes(name).fabric].lut_tree * TYPES.get(name).terms


def least_cycles(
    layers: Sequence[Choosable], names: Sequence[str], fixed_macs: int, board: Board, options: Options
) -> float:
    """Cycles of an image at least: t such that the LUTs and DSPs of the board, busy all the time, do all the work."""
    limit = usable(board, options.max_lut, options.max_dsp, options.max_bram36)
    macs: dict[str, float] = {"conv8": fixed_macs}
    for layer, name in zip(layers, names, strict=True):
        macs[name] = macs.get(name, 0) + layer.macs
    work = [(count * lane_price(name, board), count * dsp_price(name)) for name, count in macs.items() if count]
    if not work:
        return 0.0
    # the dual of that linear program: a DSP is worth so many LUTs, and each type takes what is cheaper
    worth = [0.0, *(luts / dsps for luts, dsps in work)]
    costs = [sum(min(luts, own * dsps) for luts, dsps in work) for own in worth]
    room = [limit.lut + own * limit.dsp for own in worth]
    return max(cost / has if has else inf for cost, has in zip(costs, room, strict=True) if cost)


def dsp_price(name: str) -> float:
    """DSPs that a multiply-accumulate (or what replaces it) takes in one cycle where none of it is in LUTs."""
    return TYPES.get(name).terms / _lanes(name).on_a_dsp


def _lanes(name: str) -> MixedLanes:
    return MIXED_LANES["shift_mac" if TYPES.get(name).unit is Unit.SHIFT else LANES[name]]


def retyped(network: Network, choice: Mapping[str, LayerType]) -> Network:
    """The network with other types of its convolutions, by node name: what the importer makes of the integer model."""

    def changed(layer: Layer) -> Layer:
        kind = next((choice[name] for name in layer.nodes if name in choice), None)
        if kind is None or layer.weights is None:
            return layer
        return replace(layer, unit=kind.unit, weights=Weights(layer.weights.name, kind.bits, kind.terms))

    return replace(network, layers=tuple(map(changed, network.layers)))


def frontier(found: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other one beats in both loss and cycles, the least loss first."""
    best: list[Candidate] = []
    for one in sorted(found, key=lambda c: (c.loss, c.cycles)):
        if not best or one.cycles < best[-1].cycles:
            best.append(one)
    return best


def shortlist(found: Sequence[Candidate], most_loss: float, count: int) -> list[Candidate]:
    """The fastest within a loss for each set of chunks; of them so many, those of the least cycles. Every chunk more
    counts as CHUNK_COST of the cycles."""
    fastest: dict[frozenset[tuple[str, bool]], Candidate] = {}
    for one in sorted(found, key=lambda c: (c.cycles, c.loss)):
        if one.loss <= most_loss:
            fastest.setdefault(one.chunks, one)
    return sorted(fastest.values(), key=lambda c: c.cycles * (1 + CHUNK_COST * len(c.chunks)))[:count]
