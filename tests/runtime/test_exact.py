"""Integer sums are exact on every processor, wherever the weights come from and of whatever type they are."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser

from nashc.runtime import Session, run_reference
from nashc.runtime.exact import exact, saturates

HEADER = '<ir_version: 10, opset_import: ["": 21]>'
TYPES: dict[str, Any] = {"u": np.uint8, "s": np.int8}
KINDS = {"u": TensorProto.UINT8, "s": TensorProto.INT8}
OPS = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QDQ Conv", "QDQ MatMul", "QDQ Gemm")
SOURCES = ("stored", "transposed", "quantised", "input", "branch")
STEP = {"sx": np.float32(0.02), "sw": np.float32(1 / 127), "sy": np.float32(2.0)}


def case(op: str, types: str, source: str, zeros: bool, seed: int) -> tuple[onnx.ModelProto, dict[str, Any], Any]:
    """A model of one product, its inputs, and the exact result."""
    rng = np.random.default_rng(seed)
    (xt, wt), conv = (TYPES[t] for t in types), "Conv" in op
    shapes = ((1, 16, 6, 6), (8, 16, 3, 3)) if conv else ((5, 64), (64, 8))
    x, w = (
        rng.integers(np.iinfo(t).min, np.iinfo(t).max + 1, s).astype(t) for t, s in zip((xt, wt), shapes, strict=True)
    )
    x[rng.random(x.shape) < 0.5] = np.iinfo(xt).max
    xz, wz = (xt(7), wt(5 if source != "quantised" else 0)) if zeros else (xt(0), wt(0))
    stored = {**STEP, "xz": xz, "wz": wz, "yz": xt(100 if types[0] == "u" else 0)}
    nodes, inputs = [], {"x": (KINDS[types[0]], x)}
    if source == "transposed":
        stored["w0"] = w.T
        nodes.append(helper.make_node("Transpose", ["w0"], ["w"]))
    elif source == "quantised":
        stored["w0"] = (w.astype(np.float32) - wz) * STEP["sw"]
        nodes.append(helper.make_node("QuantizeLinear", ["w0", "sw", "wz"], ["w"]))
    elif source == "input":
        inputs["w"] = KINDS[types[1]], w
    else:
        stored["w"] = w
    if op.endswith("Integer"):
        own = [helper.make_node(op, ["x", "w", *(["xz", "wz"] if zeros else [])], ["y"])]
        kind = TensorProto.INT32
    elif op.startswith("QLinear"):
        own, kind = [helper.make_node(op, ["x", "sx", "xz", "w", "sw", "wz", "sy", "yz"], ["y"])], KINDS[types[0]]
    else:
        own = [
            helper.make_node("DequantizeLinear", ["x", "sx", "xz"], ["xf"]),
            helper.make_node("DequantizeLinear", ["w", "sw", *(["wz"] if zeros else [])], ["wf"]),
            helper.make_node(op.split()[1], ["xf", "wf"], ["yf"]),
            helper.make_node("QuantizeLinear", ["yf", "sy", "yz"], ["y"]),
        ]
        kind = KINDS[types[0]]
    result = helper.make_tensor_value_info("y", kind, None)
    if source == "branch":
        branches = []
        for name in ("t", "e"):
            graph = helper.make_graph(own, name, [], [result])
            for node in graph.node:
                node.output[:] = [f"{n}_{name}" for n in node.output]
                node.input[:] = [f"{n}_{name}" if n in ("xf", "wf", "yf") else n for n in node.input]
            graph.output[0].name = f"y_{name}"
            branches.append(graph)
        own = [helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])]
        inputs["c"] = TensorProto.BOOL, np.array(bool(seed % 2))
    values = [helper.make_tensor_value_info(n, k, v.shape) for n, (k, v) in inputs.items()]
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in stored.items()]
    graph = helper.make_graph([*nodes, *own], "g", values, [result], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    a, b = x.astype(np.int64) - int(xz), w.astype(np.int64) - int(wz)
    wanted = np.zeros((1, 8, 4, 4), np.int64) if conv else a @ b
    for i, j in product(range(3), range(3)) if conv else ():
        wanted += np.einsum("ncyx,mc->nmyx", a[:, :, i : i + 4, j : j + 4], b[:, :, i, j])
    if kind != TensorProto.INT32:
        scale = float(STEP["sx"]) * float(STEP["sw"]) / float(STEP["sy"])
        info = np.iinfo(xt)
        wanted = np.clip(np.rint(wanted * scale) + int(stored["yz"]), info.min, info.max)
    return model, {name: value for name, (_, value) in inputs.items()}, wanted


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("types", ["uu", "us", "su", "ss"])
@pytest.mark.parametrize("op", OPS)
@settings(max_examples=3, deadline=None)
@given(zeros=st.booleans(), seed=st.integers(0, 2**16))
def test_sums_are_exact(op: str, types: str, source: str, zeros: bool, seed: int) -> None:
    model, inputs, wanted = case(op, types, source, zeros, seed)
    found = Session(model, threads=1).run(inputs)["y"].astype(np.int64)
    apart = np.abs(found - wanted)
    assert apart.max() <= (0 if op.endswith("Integer") else 1)  # a tie may round either way
    assert (apart > 0).mean() <= 0.05


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("source", SOURCES)
def test_the_moved_model_is_the_same_function(op: str, source: str) -> None:
    model, inputs, _ = case(op, "us", source, zeros=True, seed=1)
    moved = exact(onnx.shape_inference.infer_shapes(model), unsigned=True)
    onnx.checker.check_model(moved, full_check=True)
    assert moved is not model
    if source != "branch":  # onnx's evaluator of branches is not ours
        np.testing.assert_array_equal(run_reference(moved, inputs)["y"], run_reference(model, inputs)["y"])


def test_names_that_it_would_give_may_be_taken() -> None:
    w, k = np.random.default_rng(0).integers(-127, 128, (64, 8)).astype(np.int8), np.uint8(7)
    text = "g (uint8[5,64] x) => (int32[5,8] y, uint8 z) { y = MatMulInteger(x, w) z = Identity(w_moved) }"
    model = parser.parse_model(f"{HEADER} {text}")
    model.graph.initializer.extend([numpy_helper.from_array(w, "w"), numpy_helper.from_array(k, "w_moved")])
    x = np.random.default_rng(1).integers(0, 256, (5, 64)).astype(np.uint8)
    found = Session(model, threads=1).run({"x": x})
    np.testing.assert_array_equal(found["y"], x.astype(np.int32) @ w.astype(np.int32))
    assert found["z"] == 7


def test_a_model_without_such_products_is_left_alone() -> None:
    model = parser.parse_model(f"{HEADER} g (float[2,2] x) => (float[2,2] y) {{ y = Relu(x) }}")
    assert exact(model, unsigned=True) is model
    assert isinstance(saturates(), bool)
    product_, _, _ = case("QDQ Conv", "us", "stored", zeros=True, seed=0)
    typed = onnx.shape_inference.infer_shapes(product_)
    assert exact(typed, unsigned=False) is typed


@pytest.mark.parametrize("weights", ["float", "int8"])
@pytest.mark.parametrize("op", ["Conv", "Gemm", "ConvTranspose"])
def test_float_weights_and_biases_between_bytes_stay_float(op: str, weights: str) -> None:
    """onnxruntime would round them to bytes, or to sums of a scale that cannot hold them."""
    rng = np.random.default_rng(0)
    shape, x_shape = ((5, 4), (3, 5)) if op == "Gemm" else ((4, 4, 3, 3), (1, 4, 8, 8))
    stored: dict[str, Any] = {"sx": np.float32(0.1), "zx": np.uint8(128), "sy": np.float32(0.05), "zy": np.uint8(128),
                              "b": np.array([0.5, -0.3, 3.0, 0.01], np.float32)}  # fmt: skip
    stored |= {"w": (0.3 * rng.standard_normal(shape)).astype(np.float32)}
    nodes = "x = DequantizeLinear(q, sx, zx)"
    name = "w"
    if weights == "int8":
        stored["w"] = rng.integers(-127, 128, shape).astype(np.int8)
        stored["sw"] = np.array([0.01, 0.001, 1e-9, 0.02], np.float32)
        nodes, name = f"{nodes} v = DequantizeLinear<axis={0 if op == 'Conv' else 1}>(w, sw)", "v"
    sizes, axes = ",".join(map(str, x_shape)), "a,b" if op == "Gemm" else "a,b,c,d"
    body = f"{nodes} f = {op}(x, {name}, b) y = QuantizeLinear(f, sy, zy)"
    model = parser.parse_model(f"{HEADER} g (uint8[{sizes}] q) => (uint8[{axes}] y) {{ {body} }}")
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in stored.items())
    q = rng.integers(0, 256, x_shape).astype(np.uint8)
    found, wanted = Session(model, threads=1).run({"q": q})["y"], run_reference(model, {"q": q})["y"]
    assert np.abs(found.astype(int) - wanted).max() <= 1


VIEWED = {
    "transposed weights": ("t = Transpose(v) f = MatMul(d, t)", (5, 64), (8, 64), []),
    "reshaped images": ("e = Reshape(d, s) f = Conv(e, v)", (1, 16, 36), (8, 16, 3, 3), [1, 16, 6, 6]),
    "pooled images": ("e = MaxPool<kernel_shape=[2,2]>(d) f = Conv(e, v)", (1, 16, 7, 7), (8, 16, 3, 3), []),
    "squeezed images": ("e = Squeeze(d, s) f = Gemm(e, v)", (5, 64, 1, 1), (64, 8), [2, 3]),
    "images put together": ("e = Concat<axis=1>(d, d) f = Conv(e, v)", (1, 8, 6, 6), (8, 16, 3, 3), []),
}


@pytest.mark.parametrize("name", VIEWED)
def test_sums_are_exact_behind_views(name: str) -> None:
    body, x_shape, w_shape, constant = VIEWED[name]
    sizes, axes = ",".join(map(str, x_shape)), "a,b,c,d" if "Conv" in body else "a,b"
    nodes = f"d = DequantizeLinear(x, sx, xz) v = DequantizeLinear(w, sw, wz) {body} y = QuantizeLinear(f, sy, yz)"
    model = parser.parse_model(f"{HEADER} g (uint8[{sizes}] x) => (uint8[{axes}] y) {{ {nodes} }}")
    rng = np.random.default_rng(0)
    stored = {**STEP, "xz": np.uint8(0), "wz": np.int8(0), "yz": np.uint8(100)}
    stored["w"] = rng.integers(-128, 128, w_shape).astype(np.int8)
    if constant:
        stored["s"] = np.array(constant)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in stored.items())
    x = rng.integers(150, 256, x_shape).astype(np.uint8)
    found, wanted = Session(model, threads=1).run({"x": x})["y"], run_reference(model, {"x": x})["y"]
    apart = np.abs(found.astype(int) - wanted)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 0.05


def test_a_factor_of_two_products_is_exact_in_both() -> None:
    """What makes the second product exact moves the first factor of the other one."""
    text = (
        "g (uint8[5,8] q, int8[8,64] r) => (float[8,8] y, float[5,64] z) { x = DequantizeLinear(q, sx, xz)"
        " b = DequantizeLinear(r, sx, rz) v = DequantizeLinear(w, sw, rz) y = MatMul(b, v) z = MatMul(x, b) }"
    )
    model = parser.parse_model(f"{HEADER} {text}")
    rng = np.random.default_rng(0)
    stored = {**STEP, "xz": np.uint8(0), "rz": np.int8(0), "w": rng.integers(-128, 128, (64, 8)).astype(np.int8)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in stored.items())
    inputs = {"q": rng.integers(150, 256, (5, 8)).astype(np.uint8), "r": rng.integers(90, 128, (8, 64)).astype(np.int8)}
    found, wanted = Session(model, threads=1).run(inputs), run_reference(model, inputs)
    for name in "yz":
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-3)


def test_moves_that_meet_again_are_followed_once() -> None:
    """Each level doubles the ways back to the first value."""
    levels = 40
    moves = " ".join(
        f"c{i} = Concat<axis=1>(v{i}, v{i}) v{i + 1} = Slice(c{i}, zero, eight, one)" for i in range(levels)
    )
    nodes = f"d = DequantizeLinear(x, sx, xz) v0 = DequantizeLinear(w, sw) {moves} y = MatMul(d, v{levels})"
    model = parser.parse_model(f"{HEADER} g (uint8[5,64] x) => (float[5,8] y) {{ {nodes} }}")
    w = np.random.default_rng(0).integers(-128, 128, (64, 8)).astype(np.int8)
    stored = {**STEP, "xz": np.uint8(0), "w": w, "zero": np.array([0]), "eight": np.array([8]), "one": np.array([1])}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in stored.items())
    moved = exact(onnx.shape_inference.infer_shapes(model), unsigned=True)
    assert [t.data_type for t in moved.graph.initializer if t.dims == [64, 8]] == [TensorProto.UINT8]


def test_stored_defaults_of_inputs_stay() -> None:
    text = "g (uint8[5,64] q, float[3] spare) => (int32[5,8] y) { y = MatMulInteger(q, w) }"
    model = parser.parse_model(f"{HEADER} {text}")
    w = np.random.default_rng(0).integers(-128, 128, (64, 8)).astype(np.int8)
    model.graph.initializer.extend(
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(np.ones(3, np.float32), "spare")]
    )
    assert [tensor.name for tensor in Session(model, threads=1).inputs] == ["q"]


def test_float_inputs_of_a_product_with_integer_weights_stay_float() -> None:
    model = parser.parse_model(
        f"{HEADER} g (float[5,64] x) => (float[5,8] y) {{ v = DequantizeLinear(w, sw) y = MatMul(x, v) }}"
    )
    rng = np.random.default_rng(0)
    w, x = rng.integers(-128, 128, (64, 8)).astype(np.int8), rng.standard_normal((5, 64)).astype(np.float32)
    model.graph.initializer.extend([numpy_helper.from_array(w, "w"), numpy_helper.from_array(STEP["sw"], "sw")])
    np.testing.assert_allclose(Session(model, threads=1).run({"x": x})["y"], x @ (w * STEP["sw"]), rtol=1e-4, atol=1e-5)
