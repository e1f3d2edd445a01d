"""What follows a convolution and can run in its kernel: clamp(y * scale + shift), and QuantizeLinear.

A chain is BatchNormalization, Mul, Add, Sub, Div by constants of one value a channel or one in all, in any number; then
Relu and Clip; then, where asked for, QuantizeLinear with one scale. Each value of it but the last has one reader.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nashc.passes.batchnorm import affine
from nashc.passes.graph import array, is_op, sole_consumer

Channels = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Step:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear of whole tensors to or from int8 or uint8."""

    scale: float
    zero_point: NDArray[np.int8] | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Chain:
    """`end` = min(max(y * scale + shift, lowest), highest), rounded by `step` if there is one; `nodes` compute it."""

    end: ir.Value
    scale: Channels
    shift: Channels
    lowest: float = -math.inf
    highest: float = math.inf
    step: Step | None = None
    nodes: tuple[ir.Node, ...] = ()

    @property
    def clamps(self) -> bool:
        return (self.lowest, self.highest) != (-math.inf, math.inf)


def follow(y: ir.Value, channels: int, rank: int, *, quantise: bool) -> Chain:
    """The longest chain after `y` [N, channels, ...] of that many axes."""
    chain = Chain(y, np.ones(channels), np.zeros(channels))
    while True:
        node = sole_consumer(chain.end)
        longer = None if node is None else _extended(chain, node, rank, quantise)
        if node is None or longer is None or not all(np.isfinite(v).all() for v in (longer.scale, longer.shift)):
            return chain
        chain = replace(longer, end=node.outputs[0], nodes=(*chain.nodes, node))
        if chain.step is not None:
            return chain


def _extended(chain: Chain, node: ir.Node, rank: int, quantise: bool) -> Chain | None:
    if any(out.uses() or out.is_graph_output() for out in node.outputs[1:]):
        return None
    if quantise and is_op(node, "QuantizeLinear"):
        step = step_of(node)
        return None if step is None or node.inputs[0] is not chain.end else replace(chain, step=step)
    bounds = _bounds(node, chain.end)
    if bounds is not None:
        lowest, highest = (min(max(v, bounds[0]), bounds[1]) for v in (chain.lowest, chain.highest))
        return replace(chain, lowest=lowest, highest=highest)
    if chain.clamps:
        return None
    found = _affine(node, chain.end, rank, chain.scale.size)
    if found is None:
        return None
    scale, shift = found
    with np.errstate(over="ignore", invalid="ignore"):
        return replace(chain, scale=chain.scale * scale, shift=chain.shift * scale + shift)


def _bounds(node: ir.Node, value: ir.Value) -> tuple[float, float] | None:
    """Limits of a Relu or Clip."""
    if is_op(node, "Relu"):
        return 0.0, math.inf
    if not is_op(node, "Clip") or node.inputs[0] is not value:
        return None
    limits = [node.attributes.get_float("min", -math.inf), node.attributes.get_float("max", math.inf)]
    for i, operand in enumerate(node.inputs[1:3]):
        if operand is not None:
            stored = array(operand)
            if stored is None or stored.size != 1 or stored.dtype != np.float32:
                return None
            limits[i] = float(stored.reshape(()))
    lowest, highest = limits
    return (lowest, highest) if lowest <= highest else None  # NaN, or limits that cross: left to onnxruntime


ARITHMETIC: dict[str, Callable[[Channels], tuple[Channels, Channels]]] = {
    "Mul": lambda c: (c, np.zeros_like(c)),
    "Div": lambda c: (1 / c, np.zeros_like(c)),
    "Add": lambda c: (np.ones_like(c), c),
    "Sub": lambda c: (np.ones_like(c), -c),
}


def _affine(node: ir.Node, value: ir.Value, rank: int, channels: int) -> tuple[Channels, Channels] | None:
    """(scale, shift) of a node that computes value * scale + shift."""
    if is_op(node, "BatchNormalization"):
        found = affine(node) if node.inputs[0] is value else None
        return found if found is not None and found[0].shape == (channels,) else None
    if not is_op(node, *ARITHMETIC) or len(node.inputs) != 2:
        return None
    first = node.inputs[0] is value
    constant = array(node.inputs[1 if first else 0])
    if constant is None or constant.dtype != np.float32 or not (first or node.op_type in ("Mul", "Add")):
        return None
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if len(shape) != rank or shape[1] not in (1, channels) or any(size != 1 for i, size in enumerate(shape) if i != 1):
        return None
    with np.errstate(divide="ignore"):
        return ARITHMETIC[node.op_type](np.broadcast_to(constant.reshape(-1), channels).astype(np.float64))


def step_of(node: ir.Node) -> Step | None:
    """The scale and zero point of a QuantizeLinear or DequantizeLinear; None where they are not of the simple kind."""
    scale, zero = array(node.inputs[1]), None if len(node.inputs) < 3 else node.inputs[2]
    if scale is None or scale.size != 1 or scale.dtype != np.float32 or node.attributes.get_int("block_size", 0) != 0:
        return None
    stored = array(zero)
    if zero is not None and (stored is None or stored.size != 1 or stored.dtype not in (np.int8, np.uint8)):
        return None
    number = float(scale.reshape(()))
    kind = _type_of(node) if stored is None else stored.dtype
    if kind is None or not (math.isfinite(number) and number > 0):
        return None
    return Step(number, np.zeros((), kind) if stored is None else stored.reshape(()))


def _type_of(node: ir.Node) -> np.dtype | None:
    """The integer type where no zero point says it; None for another one than a byte's."""
    if node.op_type == "QuantizeLinear":
        asked = node.attributes.get_int("output_dtype", 0)
        known: ir.DataType | None = ir.DataType(asked) if asked else ir.DataType.UINT8
    else:
        known = None if node.inputs[0] is None else node.inputs[0].dtype
    return known.numpy() if known in (ir.DataType.INT8, ir.DataType.UINT8) else None
