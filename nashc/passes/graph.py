"""Small questions about onnx_ir values and nodes that every pass asks."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from nashc.errors import NashcError

NASHC_DOMAIN = "ai.nashc"


def where(node: ir.Node) -> str:
    """How errors name a node."""
    return f"node '{node.name}' ({node.op_type})"


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """`node` is one of these standard operators."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in op_types


def static_shape(value: ir.Value) -> tuple[int, ...] | None:
    """The shape if every dim is known, else None."""
    if value.shape is None or not all(isinstance(d, int) for d in value.shape):
        return None
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]


def shape_of(value: ir.Value, node: ir.Node) -> tuple[int, ...]:
    """The static shape of an operand of `node`, or an error that names the node."""
    shape = static_shape(value)
    if shape is None:
        raise NashcError(
            f"the shape of '{value.name}' is not known",
            where=where(node),
            hint="bind it with --shape NAME=1,..., or add it to the model's value_info",
        )
    return shape


def array(value: ir.Value | None) -> np.ndarray | None:
    """The constant behind a value, if it is stored in the model."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def is_constant(value: ir.Value) -> bool:
    """The value depends on stored constants alone (weights behind DequantizeLinear count)."""
    pending, seen = [value], set()
    while pending:
        v = pending.pop()
        if v.const_value is not None or v in seen:
            continue
        seen.add(v)
        node = v.producer()
        if (
            node is None
            or node.op_type.startswith("Random")
            or any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values())
        ):
            return False
        if not node.inputs and not is_op(node, "Constant"):
            return False
        pending += [x for x in node.inputs if x is not None]
    return True


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The only node that reads the value, once, or None; graph outputs count as readers."""
    uses = value.uses()
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def elements(shape: tuple[int, ...]) -> int:
    """Number of elements of a shape."""
    n = 1
    for d in shape:
        n *= d
    return n


def new_initializer(graph: ir.Graph, name: str, data: np.ndarray) -> ir.Value:
    """Store `data` in the graph under a name not yet taken."""
    taken = set(graph.initializers)
    unique, n = name, 1
    while unique in taken:
        n += 1
        unique = f"{name}_{n}"
    value = ir.Value(
        name=unique,
        shape=ir.Shape(data.shape),
        type=ir.TensorType(ir.DataType.from_numpy(data.dtype)),
        const_value=ir.tensor(data, name=unique),
    )
    graph.register_initializer(value)
    return value


def bypass(model: ir.Model, node: ir.Node, value: ir.Value) -> bool:
    """Let every reader of the node's only output read `value` instead and delete the node.

    False, and nothing done, where a graph output would become a graph input or a constant.
    """
    out = node.outputs[0]
    if out.is_graph_output():
        if value.producer() is None or value.is_graph_output():
            return False
        name = out.name
        ir.convenience.replace_all_uses_with(out, value, replace_graph_outputs=True)
        out.name = None
        value.name = name
    else:
        ir.convenience.replace_all_uses_with(out, value)
    model.graph.remove(node, safe=True)
    return True
