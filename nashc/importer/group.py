"""Group a node with the nodes behind it that its post-processing lane does in the same pass.

The lane computes, in this order and each at most once but the first: scale and bias per channel, requantise,
residual add, activation, requantise (DESIGN.md section 4). Every value inside a group is read by the group alone and
stored in one order: a layer that brings the channels of a pixel together stands between groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from nashc.importer.activation import find_activation
from nashc.importer.layout import Layout
from nashc.importer.views import same_data
from nashc.passes.batchnorm import has_own_statistics
from nashc.passes.graph import array, is_constant, is_op, sole_consumer, static_shape
from nashc.passes.qonnx import is_quant, quant_bits


@dataclass
class Group:
    """The nodes of one layer."""

    head: ir.Node
    output: ir.Value
    nodes: list[ir.Node] = field(default_factory=list)
    extra: list[ir.Value] = field(default_factory=list)
    activation: str = ""


def grow(head: ir.Node, layout: Layout, claimed: set[ir.Node], *, residual: bool) -> Group:
    """The group that starts at `head`; `claimed` nodes belong to other groups."""
    group = Group(head, head.outputs[0], [head])
    ahead = _look(group, layout, claimed)
    # a spelling such as Add-Clip-Div starts like a bias, so the activation is asked first
    while not _spelled(ahead.value) and ahead.node is not None and _is_affine(ahead.node, ahead.value, layout):
        ahead = _take(group, ahead, layout, claimed)
    ahead = _requantise(group, ahead, layout, claimed)
    other = _residual(ahead) if residual else None
    if other is not None:
        group.extra.append(other)
        ahead = _take(group, ahead, layout, claimed)
    found = find_activation(ahead.value)
    if (
        found is not None
        and not any(n in claimed for n in found.nodes)
        and layout.keeps_order(ahead.value, found.output)
    ):
        group.activation = found.name
        group.nodes += [*ahead.views, *found.nodes]
        group.output = found.output
        ahead = _look(group, layout, claimed)
    _requantise(group, ahead, layout, claimed)
    return group


def requantised(group: Group, layout: Layout, claimed: set[ir.Node]) -> Group:
    """The group with a QuantizeLinear behind it, if there is one."""
    _requantise(group, _look(group, layout, claimed), layout, claimed)
    return group


def start_activation(x: ir.Value, node: ir.Node, layout: Layout, claimed: set[ir.Node]) -> Group | None:
    """A group of its own for the activation of `x` that `node` starts, if it is a known one."""
    found = find_activation(x, node)
    if found is None or node not in found.nodes or any(n in claimed for n in found.nodes):
        return None
    if not all(layout.keeps_order(n.outputs[0], found.output) for n in found.nodes):
        return None
    return requantised(Group(node, found.output, list(found.nodes), [], found.name), layout, claimed)


@dataclass(frozen=True, slots=True)
class Ahead:
    """What comes behind a group: views, the value behind them, and its only reader if that is free."""

    views: tuple[ir.Node, ...]
    value: ir.Value
    node: ir.Node | None


def _look(group: Group, layout: Layout, claimed: set[ir.Node]) -> Ahead:
    views: list[ir.Node] = []
    value = group.output
    while True:
        node = sole_consumer(value)
        if node is None or node in claimed:
            return Ahead(tuple(views), value, None)
        if not same_data(node, layout):
            return Ahead(tuple(views), value, node if layout.keeps_order(value, node.outputs[0]) else None)
        views.append(node)
        value = node.outputs[0]


def _take(group: Group, ahead: Ahead, layout: Layout, claimed: set[ir.Node]) -> Ahead:
    """Let the group have the node ahead of it, and look again."""
    if ahead.node is not None:
        group.nodes += [*ahead.views, ahead.node]
        group.output = ahead.node.outputs[0]
    return _look(group, layout, claimed)


def _spelled(x: ir.Value) -> bool:
    """An activation of several nodes starts at x."""
    found = find_activation(x)
    return found is not None and len(found.nodes) > 1


def is_quantiser(node: ir.Node) -> bool:
    """QuantizeLinear, or QONNX's Quant."""
    return is_op(node, "QuantizeLinear") or is_quant(node)


def is_sum(node: ir.Node) -> bool:
    """An Add, also spelled Sum."""
    return is_op(node, "Add") or (is_op(node, "Sum") and len(node.inputs) == 2)


def _residual(ahead: Ahead) -> ir.Value | None:
    """The other operand of a sum that the value ahead goes into: a computed map of its size, or broadcast to it."""
    node = ahead.node
    if node is None or not is_sum(node):
        return None
    other = node.inputs[1] if node.inputs[0] is ahead.value else node.inputs[0]
    if other is None or other is ahead.value or is_constant(other):
        return None
    shape, out = static_shape(other), static_shape(node.outputs[0])
    if shape is None or out is None or static_shape(ahead.value) != out:
        return None
    return other


def _requantise(group: Group, ahead: Ahead, layout: Layout, claimed: set[ir.Node]) -> Ahead:
    """Take a QuantizeLinear with constant parameters, and the DequantizeLinear that alone reads it."""
    node = ahead.node
    if node is None or not is_quantiser(node) or any(v is None or not is_constant(v) for v in node.inputs[1:]):
        return ahead
    ahead = _take(group, ahead, layout, claimed)
    if ahead.node is not None and is_op(ahead.node, "DequantizeLinear") and not ahead.views:
        ahead = _take(group, ahead, layout, claimed)
    return ahead


def _is_affine(node: ir.Node, x: ir.Value, layout: Layout) -> bool:
    """y = a x + b with a and b per channel, or a change of number format on the way."""
    if is_op(node, "Cast"):
        return node.outputs[0].dtype is not None and node.outputs[0].dtype.is_floating_point()
    if is_op(node, "BatchNormalization"):
        return node.inputs[0] is x and is_normalisation(node) and not any(o.uses() for o in node.outputs[1:])
    if not is_op(node, "Add", "Sub", "Mul", "Div") or static_shape(node.outputs[0]) != static_shape(x):
        return False
    if is_op(node, "Div") and node.inputs[0] is not x:
        return False
    others = [v for v in node.inputs if v is not x]
    return len(others) == 1 and others[0] is not None and is_constant(others[0]) and per_channel(others[0], x, layout)


def is_normalisation(node: ir.Node) -> bool:
    """BatchNormalization with stored statistics."""
    stored = all(v is not None and is_constant(v) for v in node.inputs[1:])
    return is_op(node, "BatchNormalization") and stored and has_own_statistics(node)


def per_channel(constant: ir.Value, x: ir.Value, layout: Layout) -> bool:
    """The constant differs along the channel axes of `x` only."""
    shape, full = static_shape(constant), static_shape(x)
    if shape is None or full is None or len(shape) > len(full):
        return False
    padded = (1,) * (len(full) - len(shape)) + shape
    axes = layout.axes(x)
    return all(d == 1 or a in axes for a, d in enumerate(padded))


def stored_bits(value: ir.Value) -> int:
    """Bits of one element where the value lives: its integer type, or that of its quantised form; floats count 8."""
    while True:
        bits = INTEGER_BITS.get(value.dtype) if value.dtype is not None else None
        if bits is not None:
            return bits
        node = value.producer()
        if node is None or not node.inputs or node.inputs[0] is None or is_op(node, "ConstantOfShape"):
            return 8
        if is_quant(node):
            return quant_bits(node) or 8
        passes_on = is_op(node, "DequantizeLinear") or (is_constant(value) and array(value) is None)
        if not passes_on:
            return 8
        value = node.inputs[0]


INTEGER_BITS = {kind: kind.bitwidth for kind in ir.DataType if kind.is_integer()} | {ir.DataType.BOOL: 8}
