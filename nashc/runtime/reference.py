"""A model by its definition: onnx's ReferenceEvaluator with the NumPy references of the operators. Slow."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops import load_op

from nashc import ops
from nashc.errors import NashcError
from nashc.runtime.prepare import Source, prepare
from nashc.runtime.session import Array, Tensor, check_inputs

WITHIN_INT32 = 2.0**30
QUANTISES = 10
"""The first opset with QuantizeLinear."""


def run_reference(model: Source, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs by name. Raises NashcError for a bad model, bad inputs, and operators that onnx cannot evaluate."""
    source = prepare(model, native=False).source
    check_inputs(tensors(source), inputs)
    names = [value.name for value in source.graph.output]
    values: dict[str, Any] = {t.name: onnx.numpy_helper.to_array(t) for t in source.graph.initializer} | dict(inputs)
    for _, results in evaluate(source, inputs):
        values.update(results)
    return {name: values[name] for name in names}


def evaluate(
    model: onnx.ModelProto, inputs: Mapping[str, Array], known: Mapping[str, Array] | None = None
) -> Iterator[tuple[onnx.NodeProto, dict[str, Array]]]:
    """Each node of the graph, in order, with its outputs by name.

    A node's inputs are what earlier nodes gave, or, where `known` has a value of that name, that value.
    """
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    own = ops.reference_ops()
    if opset >= QUANTISES:
        own.append(_quantize_linear(opset))
    if opset < 19:
        own.append(DequantizeLinear)
    evaluator = _guard(lambda: ReferenceEvaluator(model, new_ops=own), "model")
    results: dict[str, Any] = {"": None, **evaluator.rt_inits_, **inputs}
    for node in evaluator.rt_nodes_:
        context = {"context": dict(results)} if node.need_context() else {}
        place = f"node '{node.onnx_node.name}' ({node.op_type})"
        outputs = _guard(lambda: node.run(*[results[name] for name in node.input], **context), place)  # noqa: B023
        found = dict(zip(node.output, outputs, strict=False))
        yield node.onnx_node, found
        results.update(found)
        if known is not None:
            results.update({name: known[name] for name in found if name in known})


def _quantize_linear(opset: int) -> type[OpRun]:
    """onnx's own, whose values beyond the range of int32 wrap before they are clipped, with values within it."""
    base = load_op("", "QuantizeLinear", opset)
    known = inspect.signature(base._run).parameters

    def _run(self: OpRun, x: Array, scale: Array, *rest: Any, **named: Any) -> tuple[Array]:
        axis = 1 if named.get("axis") is None else named["axis"]
        x, scale = x.astype(np.float32), scale.astype(np.float32)
        if named.get("block_size"):
            each = np.repeat(scale, named["block_size"], axis)
            each = each[tuple(slice(size) for size in x.shape)]
        else:
            each = scale.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)] if scale.size > 1 else ())
        limit = np.abs(each) * np.float32(WITHIN_INT32)
        x = np.clip(x, -limit, limit)
        own = {name: value for name, value in named.items() if name in known}
        return base._run(self, x, scale, *rest, **own)  # type: ignore[no-any-return]

    return type("QuantizeLinear", (base,), {"op_domain": "", "_run": _run})


class DequantizeLinear(OpRun):
    """As it stands in opsets 10 to 18, where onnx's evaluator has none."""

    op_domain = ""

    def _run(  # onnx passes the attributes of the newest schema too
        self, x: Array, scale: Array, zero_point: Array | None = None, axis: int | None = None, **newer: Any
    ) -> tuple[Array]:
        shape = [1] * x.ndim
        if scale.ndim == 1 and scale.size > 1:
            shape[1 if axis is None else axis] = scale.size
        zero = 0 if zero_point is None else zero_point.astype(np.int64).reshape(shape)
        return (((x.astype(np.int64) - zero).astype(np.float32) * scale.reshape(shape)).astype(np.float32),)


def _guard(call: Any, place: str) -> Any:
    """onnx's evaluator raises errors of every kind."""
    try:
        return call()
    except NashcError:
        raise
    except Exception as error:
        raise NashcError(f"{type(error).__name__}: {error}", where=f"reference: {place}") from None


def tensors(model: onnx.ModelProto) -> tuple[Tensor, ...]:
    """The inputs that a run has to give: those without a stored value."""
    stored = {tensor.name for tensor in model.graph.initializer}
    found = []
    for value in model.graph.input:
        kind = value.type.tensor_type
        if value.name not in stored:
            sizes = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
            shape = sizes if kind.HasField("shape") else None
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
            found.append(Tensor(value.name, str(dtype), shape))
    return tuple(found)
