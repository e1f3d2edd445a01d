"""Models with functions: mixed networks, quantised ones, weights in Constant nodes, subgraphs, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nashc.ops import DOMAIN, OPERATORS, conv_geometry, embed_functions, encode_shift, register_schemas
from onnx import helper, parser
from operator_cases import Array, Case, cases, evaluate, model_of, stock, tensor_type

from nashc.errors import NashcError

HEADER = '<ir_version: 10, opset_import: ["" : 21, "ai.nashc" : 1]>'
HYBRID = (
    HEADER
    + """
hybrid (float[1, 2, 6, 6] x) => (float[1, ?, ?, ?] y)
<float[4, 2, 3, 3] wc, int8[2, 4, 4, 3, 3] ws, float[4] s, float[6, 1, 3, 3] wa> {
  a = Conv <auto_pad = "SAME_UPPER"> (x, wc)
  b = Relu (a)
  c = ai.nashc.ShiftConv <auto_pad = "SAME_UPPER", strides = [2, 2]> (b, ws, s)
  d = Identity (wa)
  e = Concat <axis = 1> (c, c)
  f = Slice (e, starts, ends, axes)
  y = ai.nashc.AdderConv <group = 6, pads = [1, 0, 1, 2], dilations = [1, 2]> (f, d)
}"""
)


def fill(model: onnx.ModelProto, **values: Array) -> onnx.ModelProto:
    del model.graph.initializer[:]
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in values.items())
    return model


def hybrid() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    codes, scale = encode_shift(rng.standard_normal((4, 4, 3, 3)), 2)
    return fill(
        parser.parse_model(HYBRID),
        wc=rng.standard_normal((4, 2, 3, 3)).astype(np.float32),
        ws=codes,
        s=scale,
        wa=rng.standard_normal((6, 1, 3, 3)).astype(np.float32),
        starts=np.array([0]),
        ends=np.array([6]),
        axes=np.array([1]),
    )


def test_hybrid_runs_everywhere() -> None:
    model = hybrid()
    embedded = embed_functions(model)
    register_schemas()
    onnx.checker.check_model(embedded, full_check=True)
    x = np.random.default_rng(1).standard_normal((1, 2, 6, 6)).astype(np.float32)
    expected = evaluate(model, {"x": x}, kernels=True)[0]
    for run in (stock, evaluate):
        np.testing.assert_allclose(run(embedded, {"x": x})[0], expected, rtol=1e-5, atol=1e-4)
    native_first = evaluate(embedded, {"x": x}, kernels=True)[0]
    np.testing.assert_array_equal(native_first, expected)


def test_nodes_become_canonical_and_the_given_model_stays() -> None:
    model = hybrid()
    before = model.SerializeToString()
    embedded = embed_functions(model)
    assert model.SerializeToString() == before
    assert embed_functions(embedded).SerializeToString() == embedded.SerializeToString()
    assert sorted(f.name for f in embedded.functions) == ["AdderConv", "ShiftConv"]
    shift = next(node for node in embedded.graph.node if node.op_type == "ShiftConv")
    attributes = {a.name: helper.get_attribute_value(a) for a in shift.attribute}
    assert attributes == {"dilations": [1, 1], "group": 1, "pads": [0, 0, 1, 1], "strides": [2, 2]}
    assert list(shift.input) == ["b", "ws", "s", ""]


def test_a_model_without_our_operators_is_only_copied() -> None:
    model = parser.parse_model(HEADER + "g (float[1] x) => (float[1] y) { y = Relu (x) }")
    assert embed_functions(model) == model


@pytest.mark.parametrize("name", [o.name for o in OPERATORS.values() if o.integer])
@settings(deadline=None, max_examples=50)
@given(data=st.data(), exponent=st.integers(-8, 2))
def test_quantised_model_rounds_the_integer_form(name: str, data: st.DataObject, exponent: int) -> None:
    """DequantizeLinear, float operator, QuantizeLinear in stock onnxruntime is the integer sum, scaled and rounded.

    onnxruntime's QDQ passes must not touch the weights of the function's body.
    """
    form = OPERATORS.get(name).integer
    assert form is not None
    case = data.draw(cases(form.name))
    x_scale = 2.0**exponent
    own = {n: case.attributes.get(n, v) for n, v in case.operator.own_defaults.items()}
    real = case.operator.reference(*case.inputs, **case.attributes) * form.output_scale(own, x_scale)
    largest_sum = 3 * 383 * x_scale * case.geometry.taps
    y_scale = np.float32(max(np.abs(real).max(), 0.01 * largest_sum) / 120)

    q, zero_point = case.inputs[0], np.zeros((), np.int8)
    assert q is not None
    for formal, array in zip(case.operator.schema.inputs, case.inputs, strict=True):
        if formal.name == "x_zero_point" and array is not None:
            zero_point = array.reshape(())
    floats = tuple(form.dequantise(case.inputs, own, x_scale))
    conv = {n: v for n, v in case.attributes.items() if n not in own}
    model = model_of(Case(OPERATORS.get(name), floats, conv, case.geometry))
    quantise(model, q, np.float32(x_scale), zero_point.astype(q.dtype), y_scale)
    y = stock(embed_functions(model), {"q": q})[0]
    assert (np.abs(y * np.float64(y_scale) - real) <= 0.51 * y_scale).all()


def quantise(model: onnx.ModelProto, q: Array, x_scale: np.float32, x_zero_point: Array, y_scale: np.float32) -> None:
    """Put the node between x0 = DequantizeLinear(q) and QuantizeLinear(y0) to int8 with zero point 0."""
    constants = {"x_scale": x_scale, "x_zero": x_zero_point, "y_scale": y_scale, "y_zero": np.zeros((), np.int8)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items())
    node = model.graph.node.pop()
    model.graph.node.extend(
        [
            helper.make_node("DequantizeLinear", ["q", "x_scale", "x_zero"], ["x0"]),
            node,
            helper.make_node("QuantizeLinear", ["y0", "y_scale", "y_zero"], ["y"]),
        ]
    )
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("q", tensor_type(q), q.shape))
    model.graph.output[0].name = "y"
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT8


def test_weights_in_constant_nodes_and_subgraphs() -> None:
    text = """
branches (float[1, 1, 4] x, bool yes) => (float[1, 1, n] y) {
  w = Constant <value = float[1, 1, 2] {1, 2}> ()
  y = If (yes) <
    then_branch = a () => (float[1, 1, m] t) { t = ai.nashc.AdderConv (x, w) },
    else_branch = b () => (float[1, 1, k] e) { e = ai.nashc.AdderConv <auto_pad = "SAME_LOWER"> (x, w) }
  >
}"""
    embedded = embed_functions(parser.parse_model(HEADER + text))
    x = np.array([[[1, 0, 2, 5]]], np.float32)
    for run in (stock, evaluate):
        assert run(embedded, {"x": x, "yes": np.array(True)})[0].ravel().tolist() == [-2, -1, -4]
        assert run(embedded, {"x": x, "yes": np.array(False)})[0].ravel().tolist() == [-2, -2, -1, -4]


def adder_model(opset: int = 21, **attributes: Any) -> onnx.ModelProto:
    geometry = conv_geometry((1, 2, 6, 6), (2, 2, 3, 3), where="test")
    operator = OPERATORS.get("AdderConv")
    inputs, _ = operator.sample(np.random.default_rng(0), geometry)
    return model_of(Case(operator, tuple(inputs), attributes, geometry), onnx_opset=opset, symbolic=True)


def test_same_padding_with_stride_one_needs_no_input_size() -> None:
    embedded = embed_functions(adder_model(auto_pad="SAME_UPPER"))
    y = stock(embedded, {"x0": np.zeros((3, 2, 9, 4), np.float32)})[0]
    assert y.shape == (3, 2, 9, 4)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (adder_model(auto_pad="SAME_UPPER", strides=[2, 2]), "node 'y0' (AdderConv): auto_pad=SAME_UPPER"),
        (adder_model(opset=12), "the model uses ONNX opset 12, functions of ai.nashc need 13; convert it"),
        (adder_model(paddings=[1, 1]), "attribute ['paddings'] is unknown"),
        (adder_model(group=2), "AdderConv[ai.nashc] (y0): X has 2 channels but W wants 2 x group 2 = 4"),
    ],
)
def test_refusals(model: onnx.ModelProto, text: str) -> None:
    with pytest.raises(NashcError) as refusal:
        embed_functions(model)
    assert text in str(refusal.value)


def test_a_newer_domain_is_refused() -> None:
    model = adder_model()
    model.opset_import[1].version = 2
    with pytest.raises(NashcError, match=r"opset 2 of ai\.nashc, this nashc knows 1; upgrade nashc"):
        embed_functions(model)


def test_unknown_operator_gets_a_hint() -> None:
    model = adder_model()
    model.graph.node[0].op_type = "AderConv"
    with pytest.raises(NashcError, match="unknown operator 'AderConv'; did you mean 'AdderConv'"):
        embed_functions(model)


@pytest.mark.parametrize("name", ["ShiftConv", "ShiftConvInteger"])
@pytest.mark.parametrize("code", [-128, -16, 16, 127])
def test_functions_refuse_bad_codes_too(name: str, code: int) -> None:
    geometry = conv_geometry((1, 1, 2), (1, 1, 1), where="test")
    operator = OPERATORS.get(name)
    inputs, _ = operator.sample(np.random.default_rng(0), geometry)
    x = inputs[0]
    assert x is not None
    inputs = (x, np.full((1, 1, 1, 1), code, np.int8), *inputs[2:])
    embedded = embed_functions(model_of(Case(operator, inputs, {}, geometry)))
    assert {o.domain for o in embedded.opset_import} == {"", DOMAIN}
    with pytest.raises(Exception, match=r"(?i)out of|bounds|range"):
        stock(embedded, {"x0": x})
    with pytest.raises(IndexError):
        evaluate(embedded, {"x0": x})


def test_branches_may_use_one_name_for_values_of_different_shapes() -> None:
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)

    def branch(name: str, size: int) -> onnx.GraphProto:
        cut = helper.make_node("Slice", ["x", "begin", f"end{size}", "axes"], ["a"])
        layer = helper.make_node("AdderConv", ["a", "w"], [f"{name}o"], domain=DOMAIN, auto_pad="SAME_UPPER",
                                 strides=[2, 2])  # fmt: skip
        result = helper.make_tensor_value_info(f"{name}o", 1, [1, 4, 5, 5])
        inner = helper.make_tensor_value_info("a", 1, [1, 3, size, size])
        return helper.make_graph([cut, layer], name, [], [result], value_info=[inner])

    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch("t", 9), else_branch=branch("e", 10))], "g",
        [helper.make_tensor_value_info("x", 1, [1, 3, 10, 10]), helper.make_tensor_value_info("c", 9, [])],
        [helper.make_tensor_value_info("y", 1, [1, 4, 5, 5])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
    model = fill(
        helper.make_model(graph, opset_imports=opsets, ir_version=10),
        w=w, begin=np.array([0, 0]), end9=np.array([9, 9]), end10=np.array([10, 10]), axes=np.array([2, 3]),
    )  # fmt: skip
    x = np.random.default_rng(1).standard_normal((1, 3, 10, 10)).astype(np.float32)
    for flag, size in ((True, 9), (False, 10)):
        found = stock(embed_functions(model), {"x": x, "c": np.array(flag)})[0]
        own = x[:, :, :size, :size]
        wanted = OPERATORS.get("AdderConv").reference(own, w, auto_pad="SAME_UPPER", strides=[2, 2])
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "value"), [("strides", 2), ("group", [1, 1]), ("auto_pad", 3), ("pads", [0.5] * 4)])
def test_attributes_of_another_type_are_refused(name: str, value: Any) -> None:
    model = hybrid()
    node = model.graph.node[-1]
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
    with pytest.raises(NashcError, match=f"attribute {name} is"):
        embed_functions(model)


def test_terms_that_the_function_cannot_add_are_refused() -> None:
    x, op = np.ones((1, 1, 1, 4), np.int8), OPERATORS.get("ShiftConvInteger")
    codes = np.ones((63, 1, 1, 1, 1), np.int8)
    case = f"{HEADER} g (int8[1,1,1,4] x) => (int32[1,1,1,4] y) {{ y = ai.nashc.ShiftConvInteger(x, c) }}"
    found = stock(embed_functions(fill(parser.parse_model(case), c=codes)), {"x": x})[0]
    np.testing.assert_array_equal(found, op.reference(x, codes))
    with pytest.raises(NashcError, match="W has 64 terms"):
        op.reference(x, np.ones((64, 1, 1, 1, 1), np.int8))


@pytest.mark.parametrize("name", list(OPERATORS))
def test_nothing_is_no_input(name: str) -> None:
    operator = OPERATORS.get(name)
    kind = np.int8 if name.endswith("Integer") else np.float32
    weights = np.ones((1,) * operator.weight_lead + (2, 3, 3, 3), np.int8 if "Shift" in name else kind)
    given = [np.zeros((0, 3, 8, 8), kind), weights, *([np.ones(2, np.float32)] if name == "ShiftConv" else [])]
    with pytest.raises(NashcError, match="which holds nothing"):
        operator.reference(*given)
