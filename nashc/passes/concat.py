"""Concats that copy what another one has copied: one inside another, or one that begins like an earlier one.

Requires: shapes inferred. Ensures: no Concat alone reads another one of its axis; one whose first operands are all
those of an earlier one (each layer of a DenseNet joins all maps so far) reads that one in their place.
"""

from __future__ import annotations

import onnx_ir as ir

from nashc.passes import provenance
from nashc.passes.graph import bypass, is_op, sole_consumer, static_shape


def join_concats(model: ir.Model) -> None:
    """Merge and share Concats, in place."""
    tree: dict[tuple[int, ir.Value], int] = {}  # (a node of the tree, the next operand) -> a node of the tree
    joined: dict[int, ir.Value] = {}  # the operands on the way to a node of the tree, as one value
    inner: set[ir.Node] = set()
    for node in list(model.graph):
        axis = _axis(node)
        if axis is None:
            continue
        parts = _merged(model, node, inner)
        reader = sole_consumer(node.outputs[0])
        if reader is not None and _axis(reader) == axis:
            inner.add(node)
            continue
        at, known, start = -1 - axis, 0, node.outputs[0]
        for count, part in enumerate(parts, 1):
            at = tree.setdefault((at, part), len(tree))
            if at in joined and count > 1:
                known, start = count, joined[at]
        if known == len(parts) and bypass(model, node, start):
            provenance.skip(model, node, "Concat of what another one joins")
            continue
        if 0 < known < len(parts):
            _read(node, [start, *parts[known:]])
        joined.setdefault(at, node.outputs[0])


def _axis(node: ir.Node) -> int | None:
    """The axis of a Concat, from 0 on; None of any other node."""
    shape = static_shape(node.outputs[0]) if is_op(node, "Concat") else None
    return axis % len(shape) if shape and (axis := node.attributes.get_int("axis")) is not None else None


def _merged(model: ir.Model, node: ir.Node, inner: set[ir.Node]) -> list[ir.Value]:
    """The operands, after those of the `inner` Concats, which it alone reads, have taken the place of these."""
    parts: list[ir.Value] = []
    gone: list[ir.Node] = []
    for value in node.inputs:
        maker = value.producer() if value is not None else None
        if maker is not None and maker in inner:
            parts += [v for v in maker.inputs if v is not None]
            gone.append(maker)
        elif value is not None:
            parts.append(value)
    if gone:
        _read(node, parts)
    for maker in gone:
        provenance.absorb(node, maker)
        model.graph.remove(maker, safe=True)
    return parts


def _read(node: ir.Node, parts: list[ir.Value]) -> None:
    node.resize_inputs(len(parts))
    for i, part in enumerate(parts):
        node.replace_input_with(i, part)
