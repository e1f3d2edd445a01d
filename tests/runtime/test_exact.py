"""Integer sums are exact on every processor: unsigned weights compute what signed ones mean."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from nashc.runtime import Session
from nashc.runtime.exact import saturates, with_unsigned_weights

HEADER = '<ir_version: 10, opset_import: ["": 21]>'
BODIES = {
    "QDQ conv": "(float[1,8,5,5] x) => (float[1,4,3,3] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
    " v = DequantizeLinear<axis=0>(w, t, k) c = Conv(d, v) e = QuantizeLinear(c, o, z) y = DequantizeLinear(e, o, z) }",
    "QDQ conv, no zero point": "(float[1,8,5,5] x) => (float[1,4,3,3] y) { q = QuantizeLinear(x, s, z)"
    " d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=0>(w, t) c = Conv(d, v) e = QuantizeLinear(c, o, z)"
    " y = DequantizeLinear(e, o, z) }",
    "QLinearConv": "(float[1,8,5,5] x) => (uint8[1,4,3,3] y) { q = QuantizeLinear(x, s, z)"
    " y = QLinearConv(q, s, z, w, s, k0, o, z) }",
    "ConvInteger": "(float[1,8,5,5] x) => (int32[1,4,3,3] y) { q = QuantizeLinear(x, s, z) y = ConvInteger(q, w) }",
    "MatMulInteger": "(float[3,36] x) => (int32[3,8] y) { q = QuantizeLinear(x, s, z) y = MatMulInteger(q, m, z, k0) }",
    "QDQ gemm": "(float[3,36] x) => (float[3,8] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
    " v = DequantizeLinear<axis=1>(m, u, h) c = Gemm(d, v) e = QuantizeLinear(c, o, z) y = DequantizeLinear(e, o, z) }",
}


def model_of(body: str, weights: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(f"{HEADER} g {body}")
    constants = {
        "s": np.float32(0.02), "z": np.uint8(3), "o": np.float32(2.0), "t": np.full(4, 0.03, np.float32),
        "u": np.full(8, 0.03, np.float32), "k": np.zeros(4, np.int8), "h": np.zeros(8, np.int8), "k0": np.int8(0),
        "w": weights.reshape(4, 8, 3, 3), "m": weights.reshape(36, 8),
    }  # fmt: skip
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items() if n in used)
    return model


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), large=st.booleans())
def test_unsigned_weights_are_the_same_numbers(body, seed, large):
    rng = np.random.default_rng(seed)
    weights = rng.choice([-128, -127, 127] if large else np.arange(-128, 128), 288).astype(np.int8)
    model = model_of(body, weights)
    moved = with_unsigned_weights(model)
    onnx.checker.check_model(moved)
    kinds = {t.data_type for t in moved.graph.initializer if len(t.dims) >= 2}
    assert kinds == {onnx.TensorProto.UINT8}
    shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
    x = rng.uniform(0, 5, shape).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    (same,) = ReferenceEvaluator(moved).run(None, {"x": x})
    np.testing.assert_array_equal(same, expected)
    found = Session(model, threads=1).run({"x": x})["y"]
    steps = np.abs(found.astype(np.float64) - expected) / (2.0 if found.dtype == np.float32 else 1.0)
    assert steps.max() <= (0 if found.dtype == np.int32 else 1)  # a tie may round either way
    assert (steps > 0).mean() <= 0.05


def test_a_model_without_such_weights_is_left_alone():
    model = parser.parse_model(f"{HEADER} g (float[2,2] x) => (float[2,2] y) {{ y = Relu(x) }}")
    assert with_unsigned_weights(model) is model
    assert isinstance(saturates(), bool)
