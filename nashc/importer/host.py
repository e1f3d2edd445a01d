"""Nodes that no unit of the accelerator has: they run on the host and say why."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from nashc.core.network import Unit
from nashc.errors import NashcError
from nashc.importer.builder import Builder, used_outputs
from nashc.importer.nests import Size, pixel_nest
from nashc.importer.ops import KNOWN_OPS, MOVES, POOLS, REDUCTIONS, computed_bias, weight_index
from nashc.passes.graph import elements, has_subgraph, is_constant, is_op, operand, static_shape, where

SHAPE_HINT = "give that value a static shape in the model's value_info, or cut the model there"
FURTHEST = 10_000
"""Nodes to walk back to the origin of an unknown shape."""


def host(b: Builder, node: ir.Node, why: str = "") -> None:
    """A layer for every output that somebody reads; its nest counts the elements of the largest map it touches."""
    why = why or why_host(node)
    if is_weighted_unknown(node):
        raise NashcError(f"cannot count its operations: {why}", where=where(node), hint=SHAPE_HINT)
    values = [v for v in (*node.inputs, *_captured(node)) if v is not None and (b.has(v) or not is_constant(v))]
    inputs = list(dict.fromkeys(b.read(v) for v in values))
    largest = max((b.tensors[name] for name in inputs), key=lambda t: t.elements, default=None)
    estimate: Size = (largest.channels, largest.rows, largest.columns) if largest else (1, 1, 1)
    for out in used_outputs(node) or list(node.outputs[:1]):
        known = static_shape(out) is not None
        size = b.layout.size(out) if known else estimate
        depth = _depth(node) if known else 1
        work = size if depth > 1 or elements(size) >= elements(estimate) else estimate
        nest = replace(pixel_nest(work), c=depth)
        note = why if known else f"{why}; its result is taken to be as large as its largest input"
        b.emit(node, Unit.HOST, nest, inputs, b.define(out, size), note=note)


def is_weighted_unknown(node: ir.Node) -> bool:
    """A convolution or matrix product with constant weights over a map of unknown size."""
    index = weight_index(node)
    x = node.inputs[0] if node.inputs else None
    if index is None or x is None or static_shape(x) is not None:
        return False
    weight = node.inputs[index]
    return weight is not None and is_constant(weight)


def why_host(node: ir.Node) -> str:
    """The reason in words."""
    values = (*node.inputs, *node.outputs)
    if node.domain not in ("", "ai.onnx"):
        return f"operator {node.op_type} of the domain '{node.domain}' is not known"
    if has_subgraph(node):
        return "control flow"
    if any(static_shape(v) is None for v in values if v is not None):
        return _unknown_shape(node)
    if weight_index(node) is not None:
        if is_constant(operand(node, weight_index(node) or 1)):
            if computed_bias(node):
                return "its bias is computed"
            return "its weights are no single matrix, or it has more than two spatial axes"
        return "both operands are computed: it has no constant weights"
    if len(used_outputs(node)) > 1 and is_op(node, *KNOWN_OPS):
        return f"the accelerator gives one result of {node.op_type}, and several are used"
    if is_op(node, *POOLS):
        return "pooling over more than two axes"
    if is_op(node, *REDUCTIONS):
        return f"{node.op_type} over other axes than all pixels of a channel"
    if is_op(node, *MOVES):
        return "what it moves depends on the data"
    return f"no unit of the accelerator has {node.op_type}"


def _unknown_shape(node: ir.Node) -> str:
    """Which node the unknown shape comes from."""
    start = node
    for _ in range(FURTHEST):
        above = [v.producer() for v in start.inputs if v is not None and static_shape(v) is None]
        upper = next((n for n in above if n is not None), None)
        if upper is None:
            break
        start = upper
    if start is node:
        return "its shape depends on the data"
    if start.domain not in ("", "ai.onnx"):
        return f"its shape depends on '{start.name}' ({start.domain}.{start.op_type}), and the file does not give it"
    return f"its shape depends on the data, by '{start.name}' ({start.op_type})"


def _depth(node: ir.Node) -> int:
    """Products summed into one element of a MatMul or Conv that stays on the host."""
    index = weight_index(node)
    if index is None:
        return 1
    shape, weight = static_shape(operand(node, 0)), static_shape(operand(node, index))
    if not shape or not weight:
        return 1
    return max(1, elements(weight[1:])) if "Conv" in node.op_type else shape[-1]


def _captured(node: ir.Node) -> list[ir.Value]:
    """Values of the main graph that the node's subgraphs read."""
    if not has_subgraph(node):
        return []
    found: dict[ir.Value, None] = {}
    for attribute in node.attributes.values():
        graphs = (
            [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH
            else attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS
            else []
        )  # fmt: skip
        for graph in graphs:
            for inner in ir.traversal.RecursiveGraphIterator(graph):
                found.update(dict.fromkeys(v for v in inner.inputs if v is not None and _is_outer(v, node)))
            found.update(dict.fromkeys(v for v in graph.outputs if v is not None and _is_outer(v, node)))
    return list(found)


def _is_outer(value: ir.Value, node: ir.Node) -> bool:
    producer = value.producer()
    if producer is not None:
        return producer.graph is node.graph
    return value.graph is node.graph
