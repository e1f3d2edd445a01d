"""Group a node with the nodes behind it that its post-processing lane does in the same pass.

The lane computes, in this order and each at most once but the first: scale and bias per channel, requantise,
residual add, activation, requantise (DESIGN.md section 4). Every value inside a group is read by the group alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from nashc.importer.activation import find_activation
from nashc.importer.layout import Layout
from nashc.passes.graph import array, elements, is_constant, is_op, sole_consumer, static_shape


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
    while (node := _next(group, claimed)) is not None and _is_affine(node, group.output, layout):
        _take(group, node)
    _requantise(group, claimed)
    if residual and (node := _next(group, claimed)) is not None and is_sum(node):
        other = node.inputs[1] if node.inputs[0] is group.output else node.inputs[0]
        if (
            other is not None
            and other is not group.output
            and _fits(other, node)
            and static_shape(group.output) == static_shape(node.outputs[0])
        ):
            group.extra.append(other)
            _take(group, node)
    found = find_activation(group.output, closed=True)
    if found is not None and not any(n in claimed for n in found.nodes):
        group.activation = found.name
        group.nodes += found.nodes
        group.output = found.output
    _requantise(group, claimed)
    return group


def requantised(group: Group, claimed: set[ir.Node]) -> Group:
    """The group with a QuantizeLinear behind it, if there is one."""
    _requantise(group, claimed)
    return group


def start_activation(x: ir.Value, node: ir.Node, claimed: set[ir.Node]) -> Group | None:
    """A group of its own for the activation of `x` that `node` starts, if it is a known one."""
    found = find_activation(x, closed=False)
    if found is None or node not in found.nodes or any(n in claimed for n in found.nodes):
        return None
    group = Group(node, found.output, list(found.nodes), [], found.name)
    _requantise(group, claimed)
    return group


def is_sum(node: ir.Node) -> bool:
    """An Add, also spelled Sum."""
    return is_op(node, "Add") or (is_op(node, "Sum") and len(node.inputs) == 2)


def _next(group: Group, claimed: set[ir.Node]) -> ir.Node | None:
    node = sole_consumer(group.output)
    return None if node is None or node in claimed else node


def _take(group: Group, node: ir.Node) -> None:
    group.nodes.append(node)
    group.output = node.outputs[0]


def _is_affine(node: ir.Node, x: ir.Value, layout: Layout) -> bool:
    """y = a x + b with a and b per channel, or a change of number format on the way."""
    if is_op(node, "Cast"):
        return node.outputs[0].dtype is not None and node.outputs[0].dtype.is_floating_point()
    if is_op(node, "BatchNormalization"):
        return (
            node.inputs[0] is x
            and all(v is not None and is_constant(v) for v in node.inputs[1:])
            and not any(o.uses() for o in node.outputs[1:])
        )
    if not is_op(node, "Add", "Sub", "Mul", "Div") or static_shape(node.outputs[0]) != static_shape(x):
        return False
    if is_op(node, "Div") and node.inputs[0] is not x:
        return False
    others = [v for v in node.inputs if v is not x]
    return len(others) == 1 and others[0] is not None and is_constant(others[0]) and per_channel(others[0], x, layout)


def per_channel(constant: ir.Value, x: ir.Value, layout: Layout) -> bool:
    """The constant differs along the channel axes of `x` only."""
    shape, full = static_shape(constant), static_shape(x)
    if shape is None or full is None or len(shape) > len(full):
        return False
    padded = (1,) * (len(full) - len(shape)) + shape
    axes = layout.axes(x)
    return all(d == 1 or a in axes for a, d in enumerate(padded))


def _fits(other: ir.Value, node: ir.Node) -> bool:
    """A residual: a computed map that is as large as the sum, or broadcast to it."""
    shape, out = static_shape(other), static_shape(node.outputs[0])
    return shape is not None and out is not None and not is_constant(other) and elements(shape) <= elements(out)


def _requantise(group: Group, claimed: set[ir.Node]) -> None:
    """Take a QuantizeLinear behind the group, and the DequantizeLinear that alone reads it."""
    node = _next(group, claimed)
    if (
        node is None
        or not is_op(node, "QuantizeLinear")
        or any(v is None or not is_constant(v) for v in node.inputs[1:])
    ):
        return
    _take(group, node)
    node = _next(group, claimed)
    if node is not None and is_op(node, "DequantizeLinear"):
        _take(group, node)


def stored_bits(value: ir.Value) -> int:
    """Bits of one element where the value lives: its integer type, or that of its quantised form; floats count 8."""
    while True:
        bits = INTEGER_BITS.get(value.dtype) if value.dtype is not None else None
        if bits is not None:
            return bits
        node = value.producer()
        if node is None or not node.inputs or node.inputs[0] is None:
            return 8
        passes_on = is_op(node, "DequantizeLinear") or (is_constant(value) and array(value) is None)
        if not passes_on:
            return 8
        value = node.inputs[0]


INTEGER_BITS = {kind: kind.bitwidth for kind in ir.DataType if kind.is_integer()} | {ir.DataType.BOOL: 8}
