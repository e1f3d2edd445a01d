"""Nodes that only give the same data another shape: in memory, pixels and the channels of a pixel stay in order."""

from __future__ import annotations

import onnx_ir as ir

from nashc.importer.layout import Axes, Layout, carry, same_order
from nashc.importer.ops import RELABELLING
from nashc.passes.graph import is_op, operand, static_shape
from nashc.passes.transpose import permutation


def same_data(node: ir.Node, layout: Layout) -> str:
    """Why the node moves no data, or ''. A map is stored in words of the channels of a pixel: data in the same order
    still moves where a pixel has another number of them (the channels that an ECA block reads as a row)."""
    if not in_order(node, layout) or layout.size(operand(node, 0))[0] != layout.size(node.outputs[0])[0]:
        return ""
    if is_op(node, "Transpose"):
        return "Transpose: another order of axes in ONNX, the same order in memory"
    return f"{node.op_type}: the same data in the same order"


def in_order(node: ir.Node, layout: Layout) -> bool:
    """The node is a Reshape or Transpose, and the elements it reads lie in memory in the order of those it writes."""
    if not is_op(node, *RELABELLING, "Transpose") or node.inputs[0] is None:
        return False
    x, y = node.inputs[0], node.outputs[0]
    before, after = static_shape(x), static_shape(y)
    if before is None or after is None:
        return False
    if is_op(node, "Transpose"):
        return _keeps_order(permutation(node), before, layout.axes(x), layout.axes(y))
    axes = carry(before, after, layout.axes(x))
    return axes is not None and same_order(after, axes, layout.axes(y))


def _keeps_order(perm: Axes, before: tuple[int, ...], source: Axes, target: Axes) -> bool:
    """Pixels stay in order, and so do the channels of a pixel."""
    forth = {old: new for new, old in enumerate(perm)}
    real = sorted(forth[a] for a, d in enumerate(before) if d > 1)
    pixels = [forth[a] for a, d in enumerate(before) if a not in source and d > 1]
    channels = [forth[a] for a in source if before[a] > 1]
    return [a for a in real if a not in target] == pixels and [a for a in target if a in real] == channels
