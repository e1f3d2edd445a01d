"""Nodes that move or rename data: views cost nothing, the rest are layers of the vector unit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from nashc.core.network import Unit
from nashc.importer.builder import Builder
from nashc.importer.group import Group, stored_bits
from nashc.importer.layout import Layout, split
from nashc.importer.nests import pixel_nest
from nashc.importer.ops import RELABELLING, UNARY, has_weights, is_product
from nashc.importer.views import same_data
from nashc.passes.graph import array, elements, is_op, operand, shape_of, static_shape

ALIGN = 16
"""Channels of one stored word: a part that starts elsewhere is written in pieces."""

REORDERS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "DepthToSpace", "SpaceToDepth", "Gather")
"""Moves that store pixels or channels in another order than they read them."""


def move(b: Builder, group: Group) -> None:
    """A view or the layers of a data movement."""
    node = group.head
    if is_op(node, "Concat"):
        _concat(b, group)
    elif is_op(node, "Split"):
        _split(b, node)
    elif len(group.nodes) == 1 and (reason := view_reason(node, b.layout)):
        b.view(node, operand(node, 0), reason)
    else:
        _plain(b, group)


def quantise(b: Builder, node: ir.Node) -> None:
    """Q and DQ only rename stored integers, unless the value is stored with another width or scale."""
    x = operand(node, 0)
    if is_op(node, "DequantizeLinear"):
        b.view(node, x, "DequantizeLinear: the integers are what is stored")
        return
    bits = stored_bits(node.outputs[0])
    source = b.read(x)
    t = b.tensors[source]
    if t.bits == bits and _same_scale(node, x):
        b.view(node, x, f"{node.op_type}: the value is stored with this width")
    else:
        size = (t.channels, t.rows, t.columns)
        b.emit(node, Unit.VECTOR, pixel_nest(size), [source], b.define(node.outputs[0], size, bits))


def _same_scale(node: ir.Node, x: ir.Value) -> bool:
    """What the QuantizeLinear reads is stored as floats, or as integers with the same scale and zero point."""
    before = x.producer()
    while before is not None and is_op(before, *RELABELLING, "Transpose"):
        before = operand(before, 0).producer()
    if before is None or not is_op(before, "DequantizeLinear"):
        return True
    pairs = [(array(_optional(node, i)), array(_optional(before, i))) for i in (1, 2)]
    return all((a is None and b is None) or np.array_equal(_zero(a), _zero(b)) for a, b in pairs)


def _optional(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _zero(stored: np.ndarray | None) -> np.ndarray:
    """A zero point that is not given is 0."""
    return np.zeros(()) if stored is None else stored.reshape(-1) if stored.size > 1 else stored.reshape(())


def view_reason(node: ir.Node, layout: Layout) -> str:
    """Why the node moves no data, or ''."""
    reason = same_data(node, layout)
    if not reason and is_op(node, *RELABELLING) and _feeds_products_only(node.outputs[0]):
        return f"{node.op_type} before a matrix product: the weights are permuted offline instead"
    return reason


def _feeds_products_only(value: ir.Value) -> bool:
    """Every reader, behind functions of one element, is a matrix product of the whole value with constant weights."""
    shape = static_shape(value) or (0,)
    if elements(shape) != shape[-1]:
        return False
    pending, found = [value], False
    while pending:
        v = pending.pop()
        if v.is_graph_output():
            return False
        for use in v.uses():
            node = use.node
            if is_product(node) and has_weights(node) and use.idx == 0:
                found = True
            elif is_op(node, *UNARY, "QuantizeLinear", "DequantizeLinear") and use.idx == 0:
                pending.append(node.outputs[0])
            else:
                return False
    return found


def _plain(b: Builder, group: Group) -> None:
    """Output elements are copied one by one. A Slice reads what it keeps, every other move its whole input."""
    node = group.head
    x, out = operand(node, 0), node.outputs[0]
    source = b.read(x)
    size = b.layout.size(out)
    nest = pixel_nest(size) if is_op(node, "Slice") else pixel_nest(size, b.layout.size(x))
    scattered = is_op(node, *REORDERS) or (is_op(node, "Slice") and _slice_offset(node, b.layout) % ALIGN != 0)
    output = b.define(group.output, size, _bits(b, group, [source]))
    b.emit(node, Unit.VECTOR, nest, [source], output, nodes=group.nodes, scattered=scattered, note="moves data")


def _bits(b: Builder, group: Group, inputs: list[str]) -> int:
    """Moved data keeps its width unless it is requantised on the way."""
    if len(group.nodes) > 1:
        return stored_bits(group.output)
    return max(b.tensors[name].bits for name in inputs)


def _slice_offset(node: ir.Node, layout: Layout) -> int:
    """First channel that a Slice keeps; 1 where that is not known."""
    x = operand(node, 0)
    shape = shape_of(x, node)
    starts = node.attributes.get_ints("starts")
    axes = node.attributes.get_ints("axes")
    if starts is None:
        stored = array(node.inputs[1] if len(node.inputs) > 1 else None)
        given = array(node.inputs[3] if len(node.inputs) > 3 else None)
        if stored is None:
            return 1
        starts = [int(s) for s in stored]
        axes = None if given is None else [int(a) for a in given]
    for axis, start in zip(axes or range(len(starts)), starts, strict=False):
        if axis % len(shape) in layout.axes(x):
            return start % shape[axis] if abs(start) < shape[axis] else 0
    return 0


def _concat(b: Builder, group: Group) -> None:
    """One layer a part, all writing the same tensor."""
    node = group.head
    out = node.outputs[0]
    axes = b.layout.axes(out)
    channelwise = node.attributes.get_int("axis", 1) % len(shape_of(out, node)) in axes
    parts = [(b.read(v, axes), split(shape_of(v, node), axes)) for v in node.inputs if v is not None]
    target = b.define(group.output, b.layout.size(out), _bits(b, group, [name for name, _ in parts]))
    offset = 0
    for source, size in parts:
        scattered = channelwise and offset % ALIGN != 0
        b.emit(
            node, Unit.VECTOR, pixel_nest(size), [source], target,
            nodes=group.nodes, scattered=scattered, note="one part of the concat",
        )  # fmt: skip
        offset += size[0]


def _split(b: Builder, node: ir.Node) -> None:
    """One layer a part that somebody reads."""
    x = operand(node, 0)
    channelwise = node.attributes.get_int("axis", 0) % len(shape_of(x, node)) in b.layout.axes(x)
    source = b.read(x)
    offset = 0
    for out in node.outputs:
        size = split(shape_of(out, node), b.layout.axes(x))
        if out.uses() or out.is_graph_output():
            target = b.define(out, size, b.tensors[source].bits)
            scattered = channelwise and offset % ALIGN != 0
            b.emit(
                node, Unit.VECTOR, pixel_nest(size), [source], target,
                scattered=scattered, note="one part of the split",
            )  # fmt: skip
        offset += size[0]
