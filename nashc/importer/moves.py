"""Nodes that move or rename data: views cost nothing, the rest are layers of the vector unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from nashc.core.network import Tensor, Unit
from nashc.importer.builder import Builder
from nashc.importer.group import Group, stored_bits
from nashc.importer.layout import Layout, split
from nashc.importer.nests import Size, pixel_nest
from nashc.importer.ops import RELABELLING, UNARY, has_weights, is_product
from nashc.importer.views import in_order, same_data
from nashc.passes.graph import array, elements, is_op, operand, shape_of, static_shape

ALIGN = 16
"""Channels of one stored word: a part that starts elsewhere is written in pieces."""

SHORT_RUN_BITS = 1024
"""A shorter run costs DRAM more by its start than by its data."""

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
        b.view(node, b.read(operand(node, 0)), reason)
    else:
        _plain(b, group)


def quantise(b: Builder, node: ir.Node) -> None:
    """Q and DQ only rename stored integers, unless the value is stored with another width or scale."""
    x = operand(node, 0)
    source = b.read_for(x, node.outputs[0])
    if is_op(node, "DequantizeLinear"):
        b.view(node, source, "DequantizeLinear: the integers are what is stored")
        return
    bits = stored_bits(node.outputs[0])
    t = b.tensors[source]
    if t.bits == bits and _same_scale(node, x):
        b.view(node, source, f"{node.op_type}: the value is stored with this width")
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
    """Output elements are copied one by one. What changes the map's size reads all of it, the rest what it keeps."""
    node = group.head
    x, out = operand(node, 0), node.outputs[0]
    reorders = is_op(node, *REORDERS)
    source = b.read(x) if reorders else b.read_for(x, out)
    size, t = b.layout.size(out), b.tensors[source]
    nest = pixel_nest(size) if reorders or is_op(node, "Slice") else pixel_nest(size, (t.channels, t.rows, t.columns))
    scattered = _slices_short(node, b, t, size) if is_op(node, "Slice") else reorders and not in_order(node, b.layout)
    output = b.define(group.output, size, _bits(b, group, [source]))
    b.emit(node, Unit.VECTOR, nest, [source], output, nodes=group.nodes, scattered=scattered, note="moves data")


def _bits(b: Builder, group: Group, inputs: list[str]) -> int:
    """Moved data keeps its width unless it is requantised on the way."""
    if len(group.nodes) > 1:
        return stored_bits(group.output)
    return max(b.tensors[name].bits for name in inputs)


def _short_rows(t: Tensor, columns: int) -> bool:
    """`columns` of the tensor are less than its rows, and so few that each row is a short run."""
    return columns < t.columns and columns * min(t.channels, ALIGN) * t.bits < SHORT_RUN_BITS


def _slices_short(node: ir.Node, b: Builder, t: Tensor, size: Size) -> bool:
    """What a Slice keeps lies in short runs: other channels of a stored word, single pixels, or a few columns."""
    x = operand(node, 0)
    shape = shape_of(x, node)
    channels = b.axes_for(x, node.outputs[0]) or b.layout.axes(x)
    columns = max((a for a in range(len(shape)) if a not in channels), default=-1)
    cuts = _cuts(node, shape)
    if cuts is None:
        return True
    for axis, (start, step) in cuts.items():
        if (axis in channels and (start % ALIGN or step != 1)) or (axis == columns and step != 1 and shape[axis] > 1):
            return True
    return _short_rows(t, size[2])


def _cuts(node: ir.Node, shape: tuple[int, ...]) -> dict[int, tuple[int, int]] | None:
    """First element and step along each axis that a Slice cuts; None where that is not known."""

    def numbers(index: int, attribute: str) -> Sequence[int] | None:
        stored = array(_optional(node, index))
        return [int(n) for n in stored.reshape(-1)] if stored is not None else node.attributes.get_ints(attribute)

    starts, axes, steps = numbers(1, "starts"), numbers(3, "axes"), numbers(4, "steps")
    if starts is None:
        return None
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    found = {}
    for axis, start, step in zip(axes, starts, steps, strict=False):
        d = shape[axis % len(shape)]
        found[axis % len(shape)] = (min(max(start + d if start < 0 else start, 0), d - 1), step)
    return found


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
        scattered = (channelwise and offset % ALIGN != 0) or _short_rows(b.tensors[target], size[2])
        b.emit(
            node, Unit.VECTOR, pixel_nest(size), [source], target,
            nodes=group.nodes, scattered=scattered, note="one part of the concat",
        )  # fmt: skip
        offset += size[0]


def _split(b: Builder, node: ir.Node) -> None:
    """One layer a part that somebody reads."""
    x = operand(node, 0)
    axis = node.attributes.get_int("axis", 0) % len(shape_of(x, node))
    offset = 0
    for out in node.outputs:
        size, channelwise = b.layout.size(out), axis in b.layout.axes(out)
        if out.uses() or out.is_graph_output():
            source = b.read_for(x, out)
            target = b.define(out, size, b.tensors[source].bits)
            scattered = (channelwise and offset % ALIGN != 0) or _short_rows(b.tensors[source], size[2])
            b.emit(
                node, Unit.VECTOR, pixel_nest(size), [source], target,
                scattered=scattered, note="one part of the split",
            )  # fmt: skip
        offset += size[0]
