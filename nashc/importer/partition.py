"""Every computed node in exactly one group, groups in an order that respects data flow.

Layers with weights choose their followers first, the last layer first: of two that end in one Add, the later one
does the sum, since by then the other operand is there.
"""

from __future__ import annotations

import onnx_ir as ir

from nashc.importer.group import Group, grow, requantised, start_activation
from nashc.importer.layout import Layout
from nashc.importer.ops import BINARY, MOVES, POOLS, REDUCTIONS, RENAMES, UNARY, has_weights
from nashc.passes.graph import is_constant, is_op, reduced_axes, static_shape


def groups(graph: ir.Graph, layout: Layout) -> list[Group]:
    """The groups; nodes that compute constants are in none."""
    nodes = [node for node in graph if not computes_constant(node)]
    claimed: set[ir.Node] = set()
    found: list[Group] = []

    def claim(group: Group) -> None:
        claimed.update(group.nodes)
        found.append(group)

    for node in reversed(nodes):
        if node not in claimed and has_weights(node):
            claim(grow(node, layout, claimed, residual=True))
    for node in nodes:
        if node not in claimed:
            claim(_vector(node, layout, claimed))
    index = {node: i for i, node in enumerate(nodes)}
    # the last node of a group comes after everything that the group reads and before everything that reads it
    return sorted(found, key=lambda group: max(index[node] for node in group.nodes))


def computes_constant(node: ir.Node) -> bool:
    """The node works on constants only."""
    return bool(node.outputs) and all(is_constant(v) for v in node.outputs)


def _vector(node: ir.Node, layout: Layout, claimed: set[ir.Node]) -> Group:
    """The group of a node without weights."""
    alone = Group(node, node.outputs[0] if node.outputs else ir.Value(), [node])
    if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
        return alone
    for x in dict.fromkeys(v for v in node.inputs if v is not None and not is_constant(v)):
        group = start_activation(x, node, layout, claimed)
        if group is not None:
            return group
    if is_op(node, *POOLS, *BINARY, *UNARY, "BatchNormalization") or is_global_reduction(node, layout):
        return grow(node, layout, claimed, residual=False)
    return requantised(alone, layout, claimed) if is_op(node, *MOVES) and not is_op(node, *RENAMES) else alone


def is_global_reduction(node: ir.Node, layout: Layout) -> bool:
    """A reduction over all pixels of each channel: a global pooling."""
    if not is_op(node, *REDUCTIONS) or not node.inputs or node.inputs[0] is None:
        return False
    x = node.inputs[0]
    shape, axes = static_shape(x), reduced_axes(node)
    if shape is None or axes is None:
        return False
    channels = layout.axes(x)
    pixels = [a for a, d in enumerate(shape) if a not in channels and d > 1]
    return all(a in axes for a in pixels) and not any(a in axes and shape[a] > 1 for a in channels)
