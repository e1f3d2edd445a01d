"""Makes a model with `ai.nashc` nodes run in stock runtimes: the operators' functions travel with the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from nashc.ops.geometry import Size
from nashc.ops.onnx_forms import register_schemas
from nashc.ops.operator import CONV_ATTRIBUTES, DOMAIN, OPSET, Operator, attribute_value, shape_of
from onnx import helper

from nashc.errors import NashcError
from nashc.registry import Registry

IR_VERSION = 10


def embed_functions(model: onnx.ModelProto, operators: Registry[Operator]) -> onnx.ModelProto:
    """A copy of the model with one model-local function for each ai.nashc operator that it uses.

    Nodes of the copy are canonical, with the same meaning: every attribute explicit, auto_pad resolved into pads,
    kernel_shape dropped, absent optional inputs written as "". Raises NashcError for an unknown operator, for shapes
    or attributes that do not fit, for an ONNX opset below 13, and for SAME padding with a stride on an unknown input
    size. Embedding twice changes nothing.
    """
    nodes = [node for node in _all_nodes(model) if node.domain == DOMAIN]
    used = {name: operators.get(name) for name in sorted({node.op_type for node in nodes})}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    others = [function for function in model.functions if function.domain != DOMAIN]
    del result.functions[:]
    result.functions.extend(others)
    if not used:
        return result

    for node in nodes:
        _check_types(node, used[node.op_type])
    _import_opset(result.opset_import)
    onnx_opset = _opset(result)
    for node, shapes in _placed(result.graph, _inferred(result, operators).graph, {}):
        if node.domain == DOMAIN:
            _canonicalise(node, used[node.op_type], shapes)
    for function in result.functions:
        for node in _nodes(function.node):
            if node.domain == DOMAIN:
                _canonicalise(node, used[node.op_type], {})  # a call's sizes are its own
        if any(node.domain == DOMAIN for node in _nodes(function.node)):
            _import_opset(function.opset_import)
    result.functions.extend(operator.function(onnx_opset) for operator in used.values())
    result.ir_version = max(result.ir_version, IR_VERSION)
    return result


def _opset(model: onnx.ModelProto) -> int:
    """The ONNX opset of the model, whose opset of our domain must be the one we know."""
    ours = next(o.version for o in model.opset_import if o.domain == DOMAIN)
    if ours != OPSET:
        raise NashcError(f"the model uses opset {ours} of {DOMAIN}, this nashc knows {OPSET}", hint="upgrade nashc")
    onnx_opset: int | None = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    if onnx_opset is None:
        raise NashcError("the model imports no ONNX opset", hint="add an opset_import of the default domain")
    return onnx_opset


def _import_opset(imports: object) -> None:
    if all(o.domain != DOMAIN for o in imports):  # type: ignore[attr-defined]
        imports.append(helper.make_opsetid(DOMAIN, OPSET))  # type: ignore[attr-defined]


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the graph, of its subgraphs and of foreign functions."""
    yield from _nodes(model.graph.node)
    for function in model.functions:
        if function.domain != DOMAIN:
            yield from _nodes(function.node)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _nodes(graph.node)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node's attributes: branches and loop bodies."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


Shapes = dict[str, tuple[Size, ...]]


def _inferred(model: onnx.ModelProto, operators: Registry[Operator]) -> onnx.ModelProto:
    """A copy with the shape of every tensor that onnx can infer, subgraphs included."""
    register_schemas(operators)
    named = onnx.ModelProto()
    named.CopyFrom(model)
    for node in _all_nodes(named):
        node.name = node.name or next(iter(node.output), "")  # what an error says about the place
    return onnx.shape_inference.infer_shapes(named, data_prop=True)


def _placed(
    graph: onnx.GraphProto, inferred: onnx.GraphProto, around: Shapes
) -> Iterator[tuple[onnx.NodeProto, Shapes]]:
    """Nodes of a graph and its subgraphs, each with the shapes of what it sees: two branches may use one name."""
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    found = {**around, **{v.name: shape for v in values if (shape := shape_of(v.type)) is not None}}
    found |= {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for node, known in zip(graph.node, inferred.node, strict=True):
        yield node, found
        for inner, inner_known in zip(subgraphs(node), subgraphs(known), strict=True):
            yield from _placed(inner, inner_known, found)


def _check_types(node: onnx.NodeProto, operator: Operator) -> None:
    for attribute in node.attribute:
        known = operator.schema.attributes.get(attribute.name)
        if known is None or attribute.ref_attr_name:
            continue
        if attribute.type != int(known.type):  # type: ignore[call-overload]
            kind = onnx.AttributeProto.AttributeType.Name(attribute.type)
            where = f"node '{node.name or node.output[0]}' ({node.op_type})"
            raise NashcError(f"attribute {attribute.name} is {kind}", where=where, hint=f"see {DOMAIN} {node.op_type}")


def _canonicalise(node: onnx.NodeProto, operator: Operator, shapes: Shapes) -> None:
    where = f"node '{node.name or node.output[0]}' ({node.op_type})"
    given = {a.name: attribute_value(a) for a in node.attribute if not a.ref_attr_name}
    if unknown := [a.name for a in node.attribute if a.name not in operator.schema.attributes or a.ref_attr_name]:
        raise NashcError(
            f"attribute {unknown} is unknown or refers to a function's attribute",
            where=where,
            hint=f"known: {', '.join(operator.schema.attributes)}; inline functions first",
        )
    values = {**operator.own_defaults, "group": 1, **given}
    conv = {name: value for name, value in given.items() if name in CONV_ATTRIBUTES}
    if not {"strides", "dilations", "pads"} <= conv.keys() or conv.get("auto_pad", "NOTSET") != "NOTSET":
        found = operator.geometry([shapes.get(name) for name in node.input], conv, where)
        if found.pads is None:
            raise NashcError(
                f"auto_pad={conv['auto_pad']} with strides={list(found.strides)} on an unknown input size",
                where=where,
                hint="fix the input shape of the model, or give explicit pads",
            )
        values |= {"strides": found.strides, "dilations": found.dilations, "pads": found.pads}
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, values[name]) for name in operator.function_attributes)
    node.input.extend([""] * (len(operator.schema.inputs) - len(node.input)))
    node.ClearField("overload")
