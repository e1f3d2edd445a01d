"""Random layers of a quantised model: DequantizeLinear, operator, what follows, QuantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from nashc.ops import DOMAIN, OPERATORS
from onnx import helper, numpy_helper
from operator_cases import Array, Case, cases, tensor_type

OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]


@dataclass
class Layer:
    """A one-layer model on q, and the exact result in steps of its output, before rounding."""

    model: onnx.ModelProto
    q: Array
    steps: Array  # float64, without the zero point
    roundings: Array  # float32 roundings of the largest partial sum that either evaluation may make, in steps
    zero_point: int
    dtype: Any


@st.composite
def quantised_layers(draw: st.DrawFn, name: str, *, after: bool = True) -> Layer:
    """`name`: the float operator; its integer form gives the weights. `after`: BatchNormalization and Clip too."""
    operator = OPERATORS.get(name)
    form = operator.integer
    assert form is not None
    case: Case = draw(cases(form.name))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x_scale = np.float32(draw(st.floats(1e-3, 1.0)))
    q, weights = case.inputs[0], case.inputs[1]
    assert q is not None
    assert weights is not None
    own = {n: case.attributes.get(n, v) for n, v in case.operator.own_defaults.items()}
    if name == "ShiftConv":  # sums of 32 bits that do not wrap
        weights = np.clip(weights, -8, 8)
        own["pmax"] = 7
    m, rank, zero = case.geometry.out_channels, q.ndim, np.zeros((), q.dtype)
    inputs: list[Array | None] = [q, weights, *case.inputs[2:]]
    if name == "ShiftConv":
        zero = rng.choice(q.reshape(-1)).reshape(())
        inputs[2] = zero
    conv = {n: v for n, v in case.attributes.items() if n not in own}
    sums = OPERATORS.get(form.name).reference(*inputs, **conv, **own).astype(np.float64)
    unit = np.full(m, np.float64(x_scale))
    stored: dict[str, Array] = {"x_scale": np.asarray(x_scale), "x_zero": zero, "w": weights}
    nodes = [helper.make_node("DequantizeLinear", ["q", "x_scale", "x_zero"], ["x"])]
    shape = (1, m) + (1,) * (rank - 2)
    bias = np.zeros(m)
    if name == "ShiftConv":
        s = rng.uniform(0.2, 2.0, m).astype(np.float32)
        b = rng.standard_normal(m).astype(np.float32)
        stored |= {"s": s, "b": b}
        unit, bias = unit * s * 2.0 ** -own["pmax"], b.astype(np.float64)
        nodes.append(helper.make_node(name, ["x", "w", "s", "b"], ["y"], name="layer", domain=DOMAIN, **conv))
    else:
        stored |= {"w_zero": np.zeros((), np.int8)}
        nodes.append(helper.make_node("DequantizeLinear", ["w", "x_scale", "w_zero"], ["wf"]))
        nodes.append(helper.make_node(name, ["x", "wf"], ["y"], name="layer", domain=DOMAIN, **conv))
    real = sums * unit.reshape(shape) + bias.reshape(shape)
    taps = case.geometry.taps
    largest = taps * 383.0 * 3 * unit.reshape(shape) * (2.0 ** own.get("pmax", 0)) + np.abs(bias).reshape(shape)
    last = "y"
    if after and draw(st.booleans()):
        gamma, beta, mean = (rng.uniform(-2, 2, m).astype(np.float32) for _ in range(3))
        var = rng.uniform(0.5, 2.0, m).astype(np.float32)
        stored |= {"gamma": gamma, "beta": beta, "mean": mean, "var": var}
        nodes.append(
            helper.make_node("BatchNormalization", [last, "gamma", "beta", "mean", "var"], ["n"], epsilon=1e-3)
        )
        a = gamma.astype(np.float64) / np.sqrt(var.astype(np.float64) + float(np.float32(1e-3)))
        shift = (beta - mean * a).reshape(shape)
        largest = (largest + np.abs(mean).reshape(shape)) * np.abs(a).reshape(shape) + np.abs(beta).reshape(shape)
        real, last = real * a.reshape(shape) + shift, "n"
    span = float(np.abs(real).max()) or 1.0
    if after and draw(st.booleans()):
        low, high = np.float32(-0.5 * span), np.float32(0.4 * span)
        stored |= {"low": np.asarray(low), "high": np.asarray(high)}
        nodes.append(helper.make_node("Clip", [last, "low", "high"], ["c"]))
        real, last = np.clip(real, low, high), "c"
    y_scale = np.float32(span / 100)
    y_zero = rng.integers(0, 30, ()).astype(np.int8 if draw(st.booleans()) else np.uint8)
    stored |= {"y_scale": np.asarray(y_scale), "y_zero": y_zero}
    nodes.append(helper.make_node("QuantizeLinear", [last, "y_scale", "y_zero"], ["out"]))
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("q", tensor_type(q), q.shape)],
        [helper.make_tensor_value_info("out", tensor_type(y_zero), [f"d{i}" for i in range(rank)])],
        [numpy_helper.from_array(v, n) for n, v in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=10)
    roundings = (taps + 12) * np.finfo(np.float32).eps * (largest + np.abs(real)) / y_scale
    return Layer(model, q, real / y_scale, np.broadcast_to(roundings, real.shape), int(y_zero), y_zero.dtype)


def rounded(layer: Layer) -> Array:
    info = np.iinfo(layer.dtype)
    return np.clip(np.rint(layer.steps) + layer.zero_point, info.min, info.max).astype(layer.dtype)
