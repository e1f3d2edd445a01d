"""Remove nodes that do nothing at inference: Identity, Dropout, Cast to the same type, Pad by zero, Expand before nodes
that broadcast, and dead nodes.

Requires: shapes inferred. Ensures: none of them is left, except where a graph output would become a graph input.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from nashc.passes import provenance
from nashc.passes.graph import array, bypass, is_op, static_shape

BROADCASTING = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Pow", "Where")
"""Operators whose operands are each broadcast to the result."""


def remove_nothing(model: ir.Model) -> None:
    """Remove what does nothing, then what nobody reads."""
    for node in list(model.graph):
        value = node.inputs[0] if node.inputs else None
        reason = _why_nothing(node) if value is not None else ""
        if reason and value is not None:
            for extra in node.outputs[1:]:
                if extra.uses() or extra.is_graph_output():
                    break
            else:
                names = provenance.sources(node)
                if bypass(model, node, value):
                    for name in names:
                        provenance.skip(model, ir.Node("", node.op_type, [], name=name), reason)
    before = tuple(provenance.live(model.graph))
    RemoveUnusedNodesPass()(model)
    provenance.skip_vanished(model, before, "no output depends on it")


def _why_nothing(node: ir.Node) -> str:
    """Why the node does nothing, or ''."""
    if is_op(node, "Identity"):
        return "Identity"
    if is_op(node, "Dropout"):
        training = array(node.inputs[2]) if len(node.inputs) > 2 else None
        return "" if training is not None and training.any() else "Dropout does nothing at inference"
    if is_op(node, "Cast") and node.inputs[0] is not None and node.outputs[0].dtype is not None:
        return "Cast to the same type" if node.inputs[0].dtype == node.outputs[0].dtype else ""
    if is_op(node, "Pad"):
        pads = node.attributes.get_ints("pads") or array(node.inputs[1] if len(node.inputs) > 1 else None)
        return "Pad by nothing" if pads is not None and not any(pads) else ""
    if is_op(node, "Expand") and node.inputs[0] is not None and _readers_broadcast(node.inputs[0], node.outputs[0]):
        return "Expand: what reads it broadcasts"
    if is_op(
        node,
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Expand",
        "Slice",
        "Resize",
        "Upsample",
        "Tile",
        "Concat",
        "Sum",
    ):
        one = sum(v is not None for v in node.inputs) == 1 or not is_op(node, "Concat", "Sum")
        same = node.inputs[0] is not None and static_shape(node.inputs[0]) == static_shape(node.outputs[0])
        plain = not is_op(node, "Slice", "Resize") or _plain(node)
        return (
            f"{node.op_type} to the same shape"
            if one and same and plain and static_shape(node.outputs[0]) is not None
            else ""
        )
    return ""


def _readers_broadcast(source: ir.Value, value: ir.Value) -> bool:
    """Every reader of `value`, to which `source` is expanded, has the same result from `source`."""
    if value.is_graph_output() or not value.uses():
        return False
    for reader in {use.node for use in value.uses()}:
        if not is_op(reader, *BROADCASTING):
            return False
        shapes = [static_shape(source if v is value else v) for v in reader.inputs if v is not None]
        out = static_shape(reader.outputs[0])
        if out is None or any(s is None for s in shapes):
            return False
        # not NumPy's broadcast_shapes, which stops at 32 operands
        rank = max(len(s or ()) for s in shapes)
        padded = [(1,) * (rank - len(s or ())) + (s or ()) for s in shapes]
        if tuple(max(sizes) for sizes in zip(*padded, strict=True)) != out:
            return False
    return True


def _plain(node: ir.Node) -> bool:
    """A Slice that does not reverse; a Resize to the same size is taken as an interpolation that may move pixels."""
    if is_op(node, "Resize"):
        return False
    steps = array(node.inputs[4]) if len(node.inputs) > 4 else None
    return len(node.inputs) < 5 or (steps is not None and bool((steps > 0).all()))
