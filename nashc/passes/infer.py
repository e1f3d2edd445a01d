"""Shapes and constants in one walk: a shape often needs a constant (Reshape), a constant a shape (Shape).

Requires: inputs bound, nodes sorted, functions other than ai.nashc inlined. Ensures: every value has the type and
shape that its operator's schema gives it (a data-dependent dim stays unknown); nodes that standard cheap operators
compute from constants alone are replaced by stored constants; an If of known condition is replaced by its branch.
"""

from __future__ import annotations

import warnings
from collections import deque
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from nashc import ops
from nashc.errors import NashcError, did_you_mean
from nashc.passes import provenance
from nashc.passes.branch import take_branch
from nashc.passes.check import INCONSISTENT, check
from nashc.passes.graph import array, elements, has_subgraph, is_op, static_shape, where
from nashc.passes.qonnx import is_quant

LARGEST_FOLD = 2**22
"""Elements of a folded constant: weights that a Transpose or Reshape brings in order still fit."""
LARGEST_KNOWN = 1024
"""Elements of a constant that shape inference may look at."""

LIKE_FIRST = frozenset(
    "Abs Add BatchNormalization Ceil Clip Div Dropout Elu Exp Floor HardSigmoid InstanceNormalization LeakyRelu Log "
    "Max Mean MeanVarianceNormalization Min Mul Neg PRelu Reciprocal Relu Selu Sigmoid Sqrt Sub Sum Tanh".split()
)
"""Operators whose first versions have no shape inference in onnx: the result is like the first operand."""
SMALL = "the input is too small for the network: give a larger --shape"

FOLDABLE = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "Cast",
        "Ceil",
        "Clip",
        "Concat",
        "ConstantOfShape",
        "Cos",
        "Div",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Log",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pow",
        "Range",
        "Reciprocal",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Round",
        "Shape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Size",
        "Slice",
        "Softplus",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Sum",
        "Tanh",
        "Tile",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
        "Xor",
    ]
)


def infer(model: ir.Model) -> None:
    """Infer every shape and fold every cheap constant, in place."""
    ops.register_schemas()
    graph = model.graph
    pending = deque(graph)
    while pending:
        node = pending.popleft()
        if node.graph is not graph:
            continue
        branch = take_branch(model, node)
        if branch is not None:
            pending.extendleft(reversed(branch))
        elif not _fold(model, node):
            _infer_node(model, node)
            _fold(model, node)


def _infer_node(model: ir.Model, node: ir.Node) -> None:
    version = model.graph.opset_imports.get(node.domain)
    if is_quant(node) and node.inputs[0] is not None:
        node.outputs[0].shape, node.outputs[0].type = node.inputs[0].shape, node.inputs[0].type
        return
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, version or 1, domain)
    except onnx.defs.SchemaError:
        if domain in ("", ops.DOMAIN):
            known = {s.name for s in onnx.defs.get_all_schemas() if s.domain == domain}
            raise NashcError(
                f"opset {version} of '{domain or 'ai.onnx'}' has no such operator",
                where=where(node),
                hint=did_you_mean(node.op_type, known),
            ) from None
        return  # a foreign operator: the file's value_info, if it has any, stands
    try:
        proto = ir.serde.serialize_node(node)
    except Exception as error:  # an attribute whose value is not of its declared type
        raise NashcError(f"its attributes cannot be read: {_reason(error)}", where=where(node)) from None
    types, data = _operands(model, node)
    try:
        if not has_subgraph(node):  # the checker's scope of outer names cannot be set from Python
            onnx.checker.check_node(proto, _context(model))
        inferred = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, data,
            opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in model.graph.opset_imports.items()],
        )  # fmt: skip
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        RuntimeError,
        ValueError,
        KeyError,
    ) as error:
        raise NashcError(
            _reason(error),
            where=where(node),
            hint=INCONSISTENT,
        ) from None
    for out in node.outputs:
        if out.name in inferred:
            _set_type(out, inferred[out.name])
            _drop_windows_in_padding(node, out)
            shape = static_shape(out)
            if shape and min(shape) < 1 and ("Conv" in node.op_type or "Pool" in node.op_type):
                raise NashcError(f"its result '{out.name}' has shape {list(shape)}", where=where(node), hint=SMALL)
    if node.op_type in LIKE_FIRST and domain == "" and not schema.has_type_and_shape_inference_function:
        first = node.inputs[0] if node.inputs else None
        if first is not None:
            node.outputs[0].shape, node.outputs[0].type = first.shape, first.type
    check(node)


def _drop_windows_in_padding(node: ir.Node, out: ir.Value) -> None:
    """With ceil_mode, a last window that would begin behind the map is none: so says operator set 22, and so compute
    runtimes before it; onnx's inference of older sets counts it."""
    if not is_op(node, "MaxPool", "AveragePool", "LpPool") or not node.attributes.get_int("ceil_mode", 0):
        return
    shape, source = static_shape(out), static_shape(node.inputs[0]) if node.inputs[0] is not None else None
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if shape is None or source is None or auto_pad not in ("NOTSET", "VALID"):
        return
    axes = len(source) - 2
    none = [0] * 2 * axes
    strides = node.attributes.get_ints("strides", [1] * axes)
    pads = node.attributes.get_ints("pads", none) if auto_pad == "NOTSET" else none
    sizes = zip(shape[2:], source[2:], strides, pads[:axes], strict=True)
    out.shape = ir.Shape((*shape[:2], *(n - ((n - 1) * s >= size + pad) for n, size, s, pad in sizes)))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__


def _context(model: ir.Model) -> onnx.checker.C.CheckerContext:
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version or 8
    context.opset_imports = dict(model.graph.opset_imports)
    return context


def _operands(model: ir.Model, node: ir.Node) -> tuple[dict[str, onnx.TypeProto], dict[str, onnx.TensorProto]]:
    """Types of what the node reads (for control flow: of everything it may read) and its small constants."""
    values = [v for v in node.inputs if v is not None]
    if has_subgraph(node):
        values += [*model.graph.inputs, *model.graph.initializers.values()]
        values += [v for other in model.graph for v in other.outputs if v.type is not None]
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for value in values:
        if value.name is None or value.type is None:
            types.setdefault(value.name or "", onnx.TypeProto())
            continue
        types[value.name] = ir.serde.serialize_type(value.type)
        if value.shape is not None:
            ir.serde.serialize_shape_into(types[value.name], value.shape)
        if value.const_value is not None and value.const_value.size <= LARGEST_KNOWN:
            data[value.name] = ir.serde.serialize_tensor(value.const_value)
    return types, data


def _set_type(value: ir.Value, proto: onnx.TypeProto) -> None:
    inferred = ir.serde.deserialize_type_proto_for_type(proto)
    if inferred is not None:
        value.type = inferred
    tensor = proto.tensor_type
    if proto.HasField("tensor_type") and tensor.HasField("shape"):
        dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        if any(d is not None and d < 0 for d in dims):
            raise NashcError(f"negative dimension in the shape {dims} of '{value.name}'", hint="export the model again")
        value.shape = ir.Shape(dims)
    else:
        value.shape = None


def _fold(model: ir.Model, node: ir.Node) -> bool:
    """Replace a node of known value by a stored constant; False if it is none."""
    if node.op_type not in FOLDABLE or not is_op(node, node.op_type) or len(node.outputs) != 1:
        return False
    out = node.outputs[0]
    if out.is_graph_output():
        return False
    shape = static_shape(out)
    result: np.ndarray | None
    if is_op(node, "Shape", "Size") and node.inputs and node.inputs[0] is not None:
        dims = static_shape(node.inputs[0])
        if dims is None:
            return False
        result = _shape_value(node, dims)
    else:
        if any(v is not None and v.const_value is None for v in node.inputs):
            return False
        if (shape is None and not is_op(node, "Range")) or (shape is not None and elements(shape) > LARGEST_FOLD):
            return False
        if (
            sum(v.const_value.size for v in node.inputs if v is not None and v.const_value is not None)
            > 8 * LARGEST_FOLD
        ):
            return False
        result = _evaluate(model, node)
    if result is None:
        return False
    constant = ir.Value(
        name=out.name,
        shape=ir.Shape(result.shape),
        type=ir.TensorType(ir.DataType.from_numpy(result.dtype)),
        const_value=ir.tensor(result, name=out.name),
    )
    out.name = None
    model.graph.register_initializer(constant)
    ir.convenience.replace_all_uses_with(out, constant)
    provenance.skip(model, node, "computed at compile time: it depends on constants only")
    model.graph.remove(node, safe=True)
    return True


def _shape_value(node: ir.Node, dims: tuple[int, ...]) -> np.ndarray:
    if node.op_type == "Size":
        return np.array(elements(dims), np.int64)
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(dims))
    return np.array(dims[start:end], np.int64)


def _evaluate(model: ir.Model, node: ir.Node) -> np.ndarray | None:
    """The node's value by ONNX's own reference implementation; None if that cannot compute it."""
    proto = ir.serde.serialize_node(node)
    feeds: dict[str, Any] = {v.name or "": array(v) for v in node.inputs if v is not None}
    graph = onnx.helper.make_graph(
        [proto], "one", [onnx.ValueInfoProto(name=name) for name in feeds], [onnx.ValueInfoProto(name=proto.output[0])]
    )
    opsets = [onnx.helper.make_opsetid(d, v) for d, v in model.graph.opset_imports.items()]
    try:
        if is_op(node, "Range") and _range_size(*feeds.values()) > LARGEST_FOLD:
            return None
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (result,) = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opsets)).run(None, feeds)
    except Exception:  # the reference evaluator raises whatever NumPy does: such a node is then no constant
        return None
    return result if isinstance(result, np.ndarray) else np.asarray(result)


def _range_size(start: Any, limit: Any, delta: Any) -> float:
    return abs((float(limit) - float(start)) / float(delta)) if float(delta) else float("inf")
