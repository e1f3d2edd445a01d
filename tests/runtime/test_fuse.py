"""Quantised layers in the fused integer kernels, and AdderConv with what follows it: the same results, or a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nashc.ops import embed_functions
from onnx import numpy_helper, parser
from operator_cases import Array, stock
from quantised import Layer, quantised_layers, rounded

from nashc.errors import NashcError
from nashc.runtime import Session, run_reference
from nashc.runtime.prepare import prepare

HEADER = '<ir_version: 10, opset_import: ["" : 21, "ai.nashc" : 1]>\n'


def nodes(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in prepare(model, native=True).model.graph.node]


@pytest.mark.parametrize("name", ["AdderConv", "ShiftConv"])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_fused_layers_round_the_exact_value(name: str, data: st.DataObject) -> None:
    """The fused kernel, and the nodes it replaces, give the exact value rounded, wherever float32 rounding of the
    latter is too small to reach the middle between two steps; there they may be one step off."""
    layer: Layer = data.draw(quantised_layers(name))
    assert nodes(layer.model) == [f"Quantized{name}"]
    tie = np.abs(np.abs(layer.steps - np.rint(layer.steps)) - 0.5) <= layer.roundings
    exact = rounded(layer).astype(int)
    fused = Session(layer.model, threads=1).run({"q": layer.q})["out"]
    plain = stock(embed_functions(layer.model), {"q": layer.q})[0]
    for found in (fused, plain):
        assert found.dtype == layer.dtype
        gap = np.abs(found.astype(int) - exact)
        assert gap.max() <= 1
        assert not gap[~tie].any()


def parse(text: str, **values: Array) -> onnx.ModelProto:
    model = parser.parse_model(HEADER + text)
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in values.items())
    return model


RNG = np.random.default_rng(5)
W = RNG.integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)
CODES = RNG.integers(-4, 5, (2, 4, 3, 3, 3)).astype(np.int8)
Q = RNG.integers(-128, 128, (2, 3, 6, 6)).astype(np.int8)
F = np.float32
ADDER = """
g (int8[2, 3, 6, 6] q) => (int8[2, 4, 4, 4] out)
<float sx, int8 zx, int8[4, 3, 3, 3] w, float sw, int8 zw, float sy, int8 zy> {
  x = DequantizeLinear (q, sx, zx)
  wf = DequantizeLinear (w, sw, zw)
  y = ai.nashc.AdderConv (x, wf)
  out = QuantizeLinear (y, sy, zy)
}"""
ADDER_VALUES: dict[str, Any] = {
    "sx": F(0.1), "zx": np.int8(0), "w": W, "sw": F(0.1), "zw": np.int8(0), "sy": F(3.0), "zy": np.int8(1),
}  # fmt: skip
SHIFT = """
g (int8[2, 3, 6, 6] q) => (int8[2, 4, 4, 4] out)
<float sx, int8 zx, int8[2, 4, 3, 3, 3] c, float[4] s, float sy, int8 zy> {
  x = DequantizeLinear (q, sx, zx)
  y = ai.nashc.ShiftConv (x, c, s)
  out = QuantizeLinear (y, sy, zy)
}"""
SHIFT_VALUES: dict[str, Any] = {
    "sx": F(0.1), "zx": np.int8(3), "c": CODES, "s": np.ones(4, F), "sy": F(1.0), "zy": np.int8(-2),
}  # fmt: skip


def test_the_plain_patterns_are_fused() -> None:
    assert nodes(parse(ADDER, **ADDER_VALUES)) == ["QuantizedAdderConv"]
    assert nodes(parse(SHIFT, **SHIFT_VALUES)) == ["QuantizedShiftConv"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sw": F(0.2)}, "X has the scale 0.100000001 and W 0.200000003; |x - w| needs one scale for both"),
        ({"zx": np.int8(2)}, "the zero points of X and W are 2 and 0; |x - w| needs 0 for both"),
        ({"zw": np.int8(-1)}, "the zero points of X and W are 0 and -1"),
        ({"sx": np.full(3, 0.1, F), "zx": np.zeros(3, np.int8)}, "X is not int8 or uint8 with one stored scale"),
    ],
)
def test_an_adder_that_cannot_be_fused_stays_in_float(change: dict[str, Any], reason: str) -> None:
    by_channel = np.ndim(change.get("sx", 0)) == 1
    model = parse(
        ADDER.replace("float sx, int8 zx", "float[3] sx, int8[3] zx") if by_channel else ADDER, **ADDER_VALUES | change
    )
    if by_channel:
        model.graph.node[0].attribute.append(onnx.helper.make_attribute("axis", 1))
    session = Session(model)
    assert [skip.node for skip in session.skips] == ["AdderConv_2"]
    assert session.skips[0].reason.startswith(f"stays in float: {reason}")
    assert "AdderConv" in nodes(model)
    expected = run_reference(model, {"q": Q})["out"]
    np.testing.assert_allclose(session.run({"q": Q})["out"].astype(int), expected.astype(int), atol=1)


def test_a_shift_layer_whose_sums_may_overflow_stays_in_float_and_says_the_arithmetic() -> None:
    many = np.ones((40, 4, 3, 3, 3), np.int8)
    many[0, 0, 0, 0, 0] = 15
    model = parse(SHIFT.replace("[2, 4, 3", "[40, 4, 3"), **SHIFT_VALUES | {"c": many})
    session = Session(model)
    assert "times |X - x_zero_point| up to 255, reach 4,512" in session.skips[0].reason
    assert "ShiftConv" in nodes(model)  # and not a Conv, whose weights onnxruntime would round to int8
    np.testing.assert_allclose(session.run({"q": Q})["out"], run_reference(model, {"q": Q})["out"], atol=1)


def test_an_integer_layer_whose_sums_may_overflow_is_refused() -> None:
    text = """
g (int8[1, 3, 6, 6] q) => (int32[1, 4, 4, 4] y) <int8[40, 4, 3, 3, 3] c> { y = ai.nashc.ShiftConvInteger (q, c) }"""
    model = parse(text, c=np.ones((40, 4, 3, 3, 3), np.int8))
    with pytest.raises(NashcError, match=r"add up to 17,694,720 \* 2\^-14.* 32-bit accumulator; take fewer taps"):
        Session(model)


CHAINS = {
    "no QuantizeLinear": ("y = ai.nashc.ShiftConv (x, c, s)\n  out = Relu (y)", ["DequantizedShiftConv"]),
    "Mul and Add": (
        "a = ai.nashc.ShiftConv (x, c, s)\n b = Mul (scale, a)\n d = Add (b, scale)\n out = Clip (d, low, high)",
        ["DequantizedShiftConv"],
    ),
    "Sub and Div": (
        "a = ai.nashc.ShiftConv (x, c, s)\n b = Sub (a, one)\n out = Div (b, scale)",
        ["DequantizedShiftConv"],
    ),
    "divided by": ("a = ai.nashc.ShiftConv (x, c, s)\n out = Div (scale, a)", ["DequantizedShiftConv", "Div"]),
    "Mul after Relu": (
        "a = ai.nashc.ShiftConv (x, c, s)\n b = Relu (a)\n out = Mul (b, scale)",
        ["DequantizedShiftConv", "Mul"],
    ),
    "two readers": (
        "a = ai.nashc.ShiftConv (x, c, s)\n b = Relu (a)\n out = Add (a, b)",
        ["DequantizedShiftConv", "Relu", "Add"],
    ),
    "pixels": ("a = ai.nashc.ShiftConv (x, c, s)\n out = Mul (a, row)", ["DequantizedShiftConv", "Mul"]),
    "Relu and Clip": (
        "a = ai.nashc.ShiftConv (x, c, s)\n b = Clip (a, low)\n out = Relu (b)",
        ["DequantizedShiftConv"],
    ),
    "limits in wrong order": (
        "a = ai.nashc.ShiftConv (x, c, s)\n out = Clip (a, high, low)",
        ["DequantizedShiftConv", "Clip"],
    ),
}


@pytest.mark.parametrize("what", CHAINS)
def test_only_what_means_the_same_is_absorbed(what: str) -> None:
    body, expected = CHAINS[what]
    text = f"""
g (int8[2, 3, 6, 6] q) => (float[2, 4, 4, 4] out)
<float sx, int8 zx, int8[2, 4, 3, 3, 3] c, float[4] s, float one, float low, float high, float[1, 4, 1, 1] scale,
 float[4] row> {{
  x = DequantizeLinear (q, sx, zx)
  {body}
}}"""
    values = {name: SHIFT_VALUES[name] for name in ("sx", "zx", "c", "s")}
    scale = np.array([1.5, -0.5, 2, 1], F).reshape(1, 4, 1, 1)
    row = np.arange(1, 5, dtype=F)
    model = parse(text, **values, one=F(1), low=F(-1.5), high=F(2.5), scale=scale, row=row)
    assert nodes(model) == expected
    expected_output = run_reference(model, {"q": Q})["out"]
    np.testing.assert_allclose(Session(model).run({"q": Q})["out"], expected_output, rtol=1e-4, atol=1e-4)


def test_values_that_others_read_keep_their_names() -> None:
    """Two layers on one DequantizeLinear, a result that is also an output, and a chain that ends in one."""
    text = """
g (int8[2, 3, 6, 6] q) => (float[2, 4, 4, 4] a, int8[2, 4, 4, 4] out, float[2, 3, 6, 6] x)
<float sx, int8 zx, int8[2, 4, 3, 3, 3] c, float[4] s, float sy, int8 zy> {
  x = DequantizeLinear (q, sx, zx)
  a = ai.nashc.ShiftConv (x, c, s)
  b = ai.nashc.ShiftConv (x, c, s)
  d = Relu (b)
  out = QuantizeLinear (d, sy, zy)
}"""
    model = parse(text, **SHIFT_VALUES)
    assert nodes(model) == ["DequantizeLinear", "DequantizedShiftConv", "QuantizedShiftConv"]
    found, expected = Session(model).run({"q": Q}), run_reference(model, {"q": Q})
    assert list(found) == ["a", "out", "x"]
    np.testing.assert_allclose(found["a"], expected["a"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["out"].astype(int), expected["out"].astype(int), atol=1)
    np.testing.assert_array_equal(found["x"], expected["x"])


def test_models_of_older_opsets() -> None:
    """onnx's own evaluator has no DequantizeLinear below opset 19."""
    model = parse(SHIFT, **SHIFT_VALUES)
    model.opset_import[0].version = 17
    assert nodes(model) == ["QuantizedShiftConv"]
    np.testing.assert_allclose(Session(model).run({"q": Q})["out"], run_reference(model, {"q": Q})["out"], atol=1)


def test_bytes_go_from_layer_to_layer() -> None:
    """Between two quantised layers nothing is left of the float nodes."""
    text = """
g (uint8[1, 3, 6, 6] q) => (uint8[1, 2, 4, 4] out)
<float sx, uint8 zx, int8[2, 4, 3, 3, 3] c, float[4] s, float sy, uint8 zy, int8[2, 4, 1, 1] w, int8 zw, float so> {
  x = DequantizeLinear (q, sx, zx)
  a = ai.nashc.ShiftConv (x, c, s)
  b = Relu (a)
  m = QuantizeLinear (b, sy, zy)
  d = DequantizeLinear (m, sy, zy)
  v = DequantizeLinear (w, sy, zw)
  e = ai.nashc.AdderConv (d, v)
  out = QuantizeLinear (e, so, zx)
}"""
    zero = np.zeros((), np.uint8)
    values = {"sx": F(0.1), "zx": np.uint8(128), "c": CODES, "s": np.ones(4, F), "sy": F(0.25), "zy": zero}
    model = parse(text, **values, w=W[:2, :1, :2, :2].reshape(2, 4, 1, 1), zw=np.int8(0), so=F(0.5))
    assert nodes(model) == ["QuantizedShiftConv", "QuantizedAdderConv"]
    q = RNG.integers(0, 256, (1, 3, 6, 6)).astype(np.uint8)
    gap = Session(model).run({"q": q})["out"].astype(int) - run_reference(model, {"q": q})["out"].astype(int)
    assert np.abs(gap).max() <= 2  # one step of the first layer is half a step of the second, for each of two channels


def test_an_adder_layer_takes_its_batchnorm_and_activation() -> None:
    text = """
g (float[n, 3, 6, 6] x) => (float[n, 4, 4, 4] out)
<float[4, 3, 3, 3] w, float[4] g, float[4] b, float[4] m, float[4] v, float low, float high> {
  y = ai.nashc.AdderConv (x, w)
  z = BatchNormalization (y, g, b, m, v)
  out = Clip (z, low, high)
}"""
    f = {n: RNG.uniform(0.5, 2, 4).astype(F) for n in "gbv"} | {"m": RNG.uniform(-30, -10, 4).astype(F)}
    w = RNG.standard_normal((4, 3, 3, 3)).astype(F)
    model = parse(text, w=w, **f, low=F(0), high=F(6))
    assert nodes(model) == ["FusedAdderConv"]
    x = RNG.standard_normal((2, 3, 6, 6)).astype(F)
    np.testing.assert_allclose(
        Session(model).run({"x": x})["out"], run_reference(model, {"x": x})["out"], rtol=1e-4, atol=1e-4
    )


def test_a_float_shift_layer_of_a_quantised_model_takes_batchnorm_and_activation() -> None:
    text = """
g (int8[2, 3, 6, 6] q) => (float[2, 3, 6, 6] out)
<float sx, int8 zx, int8[2, 3, 1, 3, 3] c, float[1] s, float[3] bias, float[3] g, float[3] b, float[3] m, float[3] v> {
  x = DequantizeLinear (q, sx, zx)
  u = Relu (x)
  y = ai.nashc.ShiftConv <group = 3, pads = [1, 1, 1, 1]> (u, c, s, bias)
  z = BatchNormalization (y, g, b, m, v)
  out = Relu (z)
}"""
    f = {n: RNG.uniform(0.5, 2, 3).astype(F) for n in ("g", "b", "v", "bias")} | {"m": RNG.uniform(-1, 1, 3).astype(F)}
    model = parse(text, sx=F(0.1), zx=np.int8(0), c=CODES[:, :3, :1], s=np.array([0.7], F), **f)
    assert nodes(model) == ["DequantizeLinear", "Relu", "FusedShiftConv"]
    np.testing.assert_allclose(
        Session(model).run({"q": Q})["out"], run_reference(model, {"q": Q})["out"], rtol=1e-4, atol=1e-4
    )


def test_a_scale_beyond_float32_is_not_fused() -> None:
    model = parse(
        "g (int8[1,1,1,4] q) => (int8[1,1,1,4] out) { x = DequantizeLinear(q, sx, zx)"
        " y = ai.nashc.ShiftConv(x, c, s, b) out = QuantizeLinear(y, sy, zy) }",
        sx=np.float32(1e3), zx=np.int8(0), c=np.ones((1, 1, 1, 1, 1), np.int8), s=np.ones(1, np.float32),
        b=np.ones(1, np.float32), sy=np.float32(1e-38), zy=np.int8(5),
    )  # fmt: skip
    made = Session(model, threads=1)
    found = made.run({"q": np.array([[[[0, 1, -1, 100]]]], np.int8)})["out"].ravel()
    np.testing.assert_array_equal(found, [127, 127, -128, 127])
    assert [skip.reason for skip in made.skips] == ["stays in float: its scale or bias is beyond float32"]
