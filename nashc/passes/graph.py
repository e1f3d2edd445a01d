"""Small questions about onnx_ir values and nodes that every pass asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from nashc.errors import NashcError

_CONSTANT = "ai.nashc.constant"
_NAMES = "ai.nashc.names"


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


def mark_constants(graph: ir.Graph) -> None:
    """Note on every value whether it depends on stored constants alone (weights behind DequantizeLinear do)."""
    for node in graph:
        fixed = (
            not has_subgraph(node)
            and not node.op_type.startswith("Random")
            and node.op_type not in ("Multinomial", "Bernoulli")
        )
        fixed = fixed and (bool(node.inputs) or is_op(node, "Constant"))
        fixed = fixed and all(v is None or is_constant(v) for v in node.inputs)
        for value in node.outputs:
            value.meta[_CONSTANT] = fixed


def is_constant(value: ir.Value) -> bool:
    """The value is stored in the model, or `mark_constants` found that it depends on such values alone."""
    return value.const_value is not None or bool(value.meta.get(_CONSTANT, False))


def is_used(value: ir.Value) -> bool:
    """Somebody reads the value."""
    return bool(value.uses()) or value.is_graph_output()


def operand(node: ir.Node, index: int) -> ir.Value:
    """A required operand."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise NashcError(f"operand {index} is missing", where=where(node), hint="export the model again")
    return value


def reduced_axes(node: ir.Node) -> tuple[int, ...] | None:
    """Axes of a Reduce operator, whether an attribute or a constant operand; None if not known."""
    shape = static_shape(operand(node, 0))
    if shape is None:
        return None
    axes: Sequence[int] | None = node.attributes.get_ints("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        stored = array(node.inputs[1])
        if stored is None:
            return None
        axes = [int(a) for a in stored.reshape(-1)]
    if not axes:
        return () if node.attributes.get_int("noop_with_empty_axes", 0) else tuple(range(len(shape)))
    return tuple(sorted(a % len(shape) for a in axes))


def has_subgraph(node: ir.Node) -> bool:
    """The node is control flow."""
    return any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The only node that reads the value, once, or None; graph outputs count as readers, and one in a subgraph is
    none that could be put together with its producer."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    node, maker = next(iter(uses)).node, value.producer()
    return node if maker is None or node.graph is maker.graph else None


def elements(shape: tuple[int, ...]) -> int:
    """Number of elements of a shape."""
    n = 1
    for d in shape:
        n *= d
    return n


def _names(graph: ir.Graph) -> Iterator[str | None]:
    """Of all values of a graph and the graphs in it, but its own initializers."""
    yield from (value.name for value in graph.inputs)
    for node in graph:
        yield from (value.name for value in node.outputs)
        for attribute in node.attributes.values():
            inner = [attribute.value] if attribute.type == ir.AttributeType.GRAPH else ()
            for part in attribute.value if attribute.type == ir.AttributeType.GRAPHS else inner:
                yield from part.initializers
                yield from _names(part)


def new_initializer(graph: ir.Graph, name: str, data: np.ndarray) -> ir.Value:
    """Store `data` in the graph under a name not yet taken."""
    taken = graph.meta.get(_NAMES)
    if taken is None:  # once for a graph: passes add initializers alone, and give values names that are there
        taken = graph.meta[_NAMES] = set(_names(graph))
    unique, n = name, 1
    while unique in taken or unique in graph.initializers:
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
