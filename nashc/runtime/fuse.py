"""Operators of ai.nashc together with what follows them, as operators of ai.nashc.fused (ops/kernels/ort_adapter.cpp).

Quantised, with x = x_scale * (q - z), and a chain y * a + t clamped to [l, h] behind the operator:

    shift: ShiftConv(x, W, S, B)        = x_scale * S[m] * 2^-pmax * ShiftConvInteger(q, W, z) + B[m]
    adder: AdderConv(x, x_scale * w)    = x_scale * AdderConvInteger(q, w), where z = 0 and W has the scale of X

so the fused node computes clamp(integer * scale[m] + bias[m]) with everything divided by the y_scale of a
QuantizeLinear at the end, and then rounds. This holds exactly over the reals. In float32 the fused node rounds three
times, the nodes that it replaces about once a tap: both give the same step unless the real value lies within that
rounding of the middle between two steps, and then neighbours.

Requires: constants stored, types inferred. Ensures: the names of all values that are left keep their meaning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from nashc import ops
from nashc.passes import Skip
from nashc.passes.graph import array, is_op, new_initializer, static_shape
from nashc.runtime.accumulator import overflow
from nashc.runtime.chain import Chain, Step, follow, step_of

DOMAIN = "ai.nashc.fused"
OPSET = 1
FUSED = ""
TINY, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Integer:
    """The integer form of a node: its byte input, stored weights, and the real value of 1 in its sums, by channel."""

    q: ir.Value
    x: Step
    weights: ir.Value
    unit: np.ndarray
    bias: np.ndarray
    attributes: dict[str, int]


def fuse(model: ir.Model) -> tuple[Skip, ...]:
    """Fuse in place; returns the operators between DequantizeLinear nodes that stay in float, with the reason."""
    skips = []
    for node in list(model.graph):
        if node.domain != ops.DOMAIN or node.op_type not in ("AdderConv", "ShiftConv"):
            continue
        if is_op(node.inputs[0].producer(), "DequantizeLinear"):  # type: ignore[union-attr]
            found = _shift(node) if node.op_type == "ShiftConv" else _adder(node)
            if isinstance(found, Integer):
                found = _fuse_integer(model, node, found)
            if found == FUSED:
                continue
            skips.append(Skip(node.name or "", f"stays in float: {found}"))
        _fuse_float(model, node)
    return tuple(skips)


def _shift(node: ir.Node) -> Integer | str:
    """The integer form of a ShiftConv behind DequantizeLinear, or why it has none."""
    source = _source(node)
    codes, scale = array(node.inputs[1]), array(node.inputs[2])
    bias_value = node.inputs[3] if len(node.inputs) > 3 else None
    bias = array(bias_value)
    if isinstance(source, str):
        return source
    if codes is None or scale is None or (bias_value is not None and bias is None):
        return "its weights, scale or bias are not stored in the model"
    q, x = source
    m = codes.shape[1]
    pmax = max(int(np.abs(codes.astype(np.int64)).max(initial=0)) - 1, 0)
    reason = overflow("ShiftConvInteger", codes, pmax, q.dtype)
    if reason:
        return reason
    unit = np.broadcast_to(scale.astype(np.float64), m) * x.scale * 2.0**-pmax
    zeros = np.zeros(m)
    assert node.inputs[1] is not None
    return Integer(q, x, node.inputs[1], unit, zeros if bias is None else bias.astype(np.float64), {"pmax": pmax})


def _adder(node: ir.Node) -> Integer | str:
    """The integer form of an AdderConv behind DequantizeLinear, or why it has none."""
    source = _source(node)
    if isinstance(source, str):
        return source
    q, x = source
    producer = node.inputs[1].producer() if node.inputs[1] is not None else None
    if producer is None or not is_op(producer, "DequantizeLinear"):
        return "W is not behind a DequantizeLinear"
    w, weights = step_of(producer), array(producer.inputs[0])
    if w is None or weights is None or weights.dtype != np.int8:
        return "W is not one stored int8 tensor with one scale"
    if np.float32(w.scale) != np.float32(x.scale):
        return f"X has the scale {x.scale:.9g} and W {w.scale:.9g}; |x - w| needs one scale for both"
    if int(x.zero_point) or int(w.zero_point):
        return f"the zero points of X and W are {int(x.zero_point)} and {int(w.zero_point)}; |x - w| needs 0 for both"
    reason = overflow("AdderConvInteger", weights, 0, q.dtype)
    if reason:
        return reason
    m = weights.shape[0]
    assert producer.inputs[0] is not None
    return Integer(q, x, producer.inputs[0], np.full(m, x.scale), np.zeros(m), {})


def _source(node: ir.Node) -> tuple[ir.Value, Step] | str:
    """The bytes behind X and their step."""
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    step = None if producer is None else step_of(producer)
    q = None if producer is None else producer.inputs[0]
    if step is None or q is None or q.dtype not in (ir.DataType.INT8, ir.DataType.UINT8):
        return "X is not int8 or uint8 with one stored scale"
    return q, step


def _fuse_integer(model: ir.Model, node: ir.Node, form: Integer) -> str:
    """FUSED, or why it is not."""
    m = form.unit.size
    chain = follow(node.outputs[0], m, _rank(node), quantise=True)
    step = 1.0 if chain.step is None else chain.step.scale
    scale, bias = form.unit * chain.scale / step, (form.bias * chain.scale + chain.shift) / step
    limits = {"lowest": chain.lowest / step, "highest": chain.highest / step}
    if not _fits_float32(scale, bias):
        return "its scale or bias is beyond float32"
    name = f"{'Dequantized' if chain.step is None else 'Quantized'}{node.op_type}"
    inputs: list[ir.Value | None] = [form.q, form.weights, *_vectors(model, node, scale, bias)]
    if chain.step is not None:
        inputs.append(new_initializer(model.graph, f"{node.name}_y_zero_point", chain.step.zero_point))
    if node.op_type == "ShiftConv":
        inputs.append(new_initializer(model.graph, f"{node.name}_x_zero_point", form.x.zero_point))
    _replace(model, node, chain, name, inputs, {**form.attributes, **limits})
    return FUSED


def _fits_float32(scale: np.ndarray, bias: np.ndarray) -> bool:
    """Both are finite as float32, and the scale keeps its digits."""
    size = np.abs(scale)
    return bool(((size == 0) | ((size >= TINY) & (size <= LARGEST))).all() and (np.abs(bias) <= LARGEST).all())


def _fuse_float(model: ir.Model, node: ir.Node) -> None:
    """The operator with BatchNormalization and activation; the scale and bias of a ShiftConv go into theirs."""
    shape = None if node.inputs[1] is None else static_shape(node.inputs[1])
    given = [value for value in node.inputs[2:] if value is not None]  # none, S, or S and B
    vectors = [v.astype(np.float64) for v in map(array, given) if v is not None]
    if shape is None or len(vectors) < len(given):
        return
    m = shape[ops.OPERATORS.get(node.op_type).weight_lead]
    scale = vectors[0] if vectors else np.ones(1)
    bias = vectors[1] if len(vectors) > 1 else np.zeros(1)
    chain = follow(node.outputs[0], m, _rank(node), quantise=False)
    if chain.nodes and _fits_float32(chain.scale * scale, chain.scale * bias + chain.shift):
        both = _vectors(model, node, chain.scale * scale, chain.scale * bias + chain.shift)
        limits: dict[str, int | float] = {"lowest": chain.lowest, "highest": chain.highest}
        _replace(model, node, chain, f"Fused{node.op_type}", [*node.inputs[:2], *both], limits)


def _rank(node: ir.Node) -> int:
    """Axes of X."""
    shape = None if node.inputs[1] is None else static_shape(node.inputs[1])
    assert shape is not None
    return len(shape) - ops.OPERATORS.get(node.op_type).weight_lead


def _vectors(model: ir.Model, node: ir.Node, scale: np.ndarray, bias: np.ndarray) -> tuple[ir.Value, ir.Value]:
    return (
        new_initializer(model.graph, f"{node.name}_scale", scale.astype(np.float32)),
        new_initializer(model.graph, f"{node.name}_bias", bias.astype(np.float32)),
    )


def _replace(
    model: ir.Model,
    node: ir.Node,
    chain: Chain,
    op_type: str,
    inputs: list[ir.Value | None],
    attributes: dict[str, int | float],
) -> None:
    """One node of ai.nashc.fused in the place of `node` and its chain, with the name of the chain's last value."""
    kept = [a for a in node.attributes.values() if a.name != "pmax"]
    for name, value in attributes.items():
        if isinstance(value, int):
            kept.append(ir.AttrInt64(name, value))
        elif math.isfinite(value):
            kept.append(ir.AttrFloat32(name, value))
    fused = ir.Node(DOMAIN, op_type, inputs, kept, name=node.name)
    end, made = chain.end, fused.outputs[0]
    made.shape, made.type = end.shape, end.type
    model.graph.insert_before(node, fused)
    ir.convenience.replace_all_uses_with(end, made, replace_graph_outputs=True)
    made.name, end.name = end.name, None
    model.graph.remove([node, *chain.nodes], safe=True)
    model.graph.opset_imports[DOMAIN] = OPSET
