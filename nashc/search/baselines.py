"""What users compare a hybrid with, on the same board, cost model and search.

conv-only: every shift and adder layer as an 8-bit convolution, on DSPs and LUT MACs; convolutions that the model has
in 4 bits keep them. conv-only-dsp: all in 8 bits, without LUT MACs. single-chunk: all in 8 bits, with one chunk for
dense and depthwise layers. nasa-f: the forerunner's fixed split of processing elements and row-stationary arrays, one
image at a time, everything in DRAM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from nashc.board import Board
from nashc.core.design import Design
from nashc.core.network import Layer, Network, Unit, Weights
from nashc.core.options import Options
from nashc.registry import Registry
from nashc.search.nasa import nasa_f
from nashc.search.nodes import Progress
from nashc.search.solve import Search, solve
from nashc.search.space import partitions

Baseline = Callable[[Network, Board, Options, Progress | None], Design]
BASELINES: Registry[Baseline] = Registry("baseline")
LUT_MACS = ("lut8x8", "lut8x4")
NO_LUT_MAC = 1e9
"""LUTs of a MAC that a design may not use."""


def baseline(name: str, network: Network, board: Board, options: Options, progress: Progress | None = None) -> Design:
    """The design of a named baseline; raises NashcError for an unknown name or when it does not fit."""
    return BASELINES.get(name)(network, board, options, progress)


def multiplication_only(network: Network) -> Network:
    """The same network with every shift and adder layer as an 8-bit convolution."""

    def converted(layer: Layer) -> Layer:
        if layer.unit not in (Unit.SHIFT, Unit.ADDER) or layer.weights is None:
            return layer
        return replace(layer, unit=Unit.CONV, weights=Weights(layer.weights.name, 8, 1))

    return replace(network, layers=tuple(converted(layer) for layer in network.layers))


def eight_bits(network: Network) -> Network:
    """The same network with no narrower convolutions, so that they all share the same lanes."""

    def widened(layer: Layer) -> Layer:
        if layer.unit is not Unit.CONV or layer.weights is None:
            return layer
        return replace(layer, weights=replace(layer.weights, bits=max(layer.weights.bits, 8)))

    return replace(network, layers=tuple(map(widened, network.layers)))


def without_lut_macs(board: Board) -> Board:
    dear = {name: replace(board.lanes[name], lut_scalar=NO_LUT_MAC, lut_tree=NO_LUT_MAC) for name in LUT_MACS}
    return replace(board, lanes={**board.lanes, **dear})


def _conv_only(
    network: Network, board: Board, options: Options, progress: Progress | None, *, lut_macs: bool
) -> Design:
    plain = multiplication_only(network)
    if not lut_macs:
        plain, board = eight_bits(plain), without_lut_macs(board)
    return solve(plain, board, options, progress)


def _single_chunk(network: Network, board: Board, options: Options, progress: Progress | None) -> Design:
    plain = eight_bits(multiplication_only(network))
    return Search(plain, board, options, progress, partitions(plain, merged_only=True)).run()


BASELINES.add("conv-only", partial(_conv_only, lut_macs=True))
BASELINES.add("conv-only-dsp", partial(_conv_only, lut_macs=False))
BASELINES.add("nasa-f", nasa_f)
BASELINES.add("single-chunk", _single_chunk)
