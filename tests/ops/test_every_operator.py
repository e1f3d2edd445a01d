"""Every implementation of every registered operator against the definition; a new operator needs no line here."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import nashc.ops
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nashc.ops import DOMAIN, OPERATORS, OPSET, conv_geometry, embed_functions, native, register_schemas
from operator_cases import Array, Case, assert_same, brute_force, cases, evaluate, feeds, layers, model_of, stock

import nashc.nn
from nashc.core.network import Unit

every_operator = pytest.mark.parametrize("name", list(OPERATORS))
relaxed = settings(deadline=None, max_examples=100)


@every_operator
@relaxed
@given(data=st.data())
def test_reference_is_the_definition(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name))
    expected, magnitude = brute_force(case)
    assert_same(case, case.operator.reference(*case.inputs, **case.attributes), expected, magnitude)


LAYERS_OF_A_FILE = 4


@every_operator
@settings(deadline=None, max_examples=128)  # times layers of a file times operators: 2,048 cases
@given(data=st.data(), symbolic=st.booleans())
def test_all_implementations_agree(name: str, data: st.DataObject, symbolic: bool) -> None:
    """Some layers of one operator in one file, by every runtime; then one by one by each kernel and by torch."""
    layers_ = tuple(data.draw(cases(name)) for _ in range(LAYERS_OF_A_FILE))
    fixed = any("SAME" in case.attributes.get("auto_pad", "") for case in layers_)
    model = model_of(*layers_, symbolic=symbolic and not fixed)
    embedded = embed_functions(model)
    runs = {
        "reference kernels": evaluate(model, feeds(*layers_), kernels=True),
        "functions in onnx": evaluate(embedded, feeds(*layers_)),
        "functions in onnxruntime": stock(embedded, feeds(*layers_)),
        "native kernels in onnxruntime": stock(model, feeds(*layers_), library=native.library()),
        "native kernels beside functions": stock(embedded, feeds(*layers_), library=native.library()),
    }
    for instructions in native.instruction_sets():
        runs[f"{instructions} kernels"] = [
            case.operator.run_native(*case.inputs, instruction_set=instructions, **case.attributes) for case in layers_
        ]
    if name in TORCH:
        runs["torch"] = [TORCH[name](case) for case in layers_]
    for i, case in enumerate(layers_):
        expected, magnitude = brute_force(case)
        for run, outputs in runs.items():
            assert_same(case, outputs[i], expected, magnitude, run)


def in_torch(case: Case, layer: Any) -> Array:
    tensors = [None if a is None else torch.from_numpy(a) for a in case.inputs]
    (fy, fx), (sy, sx) = (1, *case.geometry.kernel)[-2:], (1, *case.geometry.strides)[-2:]
    nest = case.geometry.nest
    x, w = tensors[0], tensors[1]
    assert x is not None
    assert w is not None
    lead = w.shape[: case.operator.weight_lead + 2]
    y = layer(
        x.reshape(*x.shape[:2], nest.iy, nest.ix), w.reshape(*lead, fy, fx), *tensors[2:], [sy, sx], list(nest.pad),
        list(nest.dilation), case.geometry.group,
    )  # fmt: skip
    return y.reshape(*y.shape[:2], *case.geometry.output).numpy()


TORCH = {
    "AdderConv": lambda case: in_torch(case, lambda *arguments: torch.ops.nashc.adder_conv2d(*arguments, None)),
    "ShiftConv": lambda case: in_torch(case, torch.ops.nashc.shift_conv2d),
}


@every_operator
@relaxed
@given(data=st.data())
def test_checker_and_shape_inference(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name))
    register_schemas()
    expected = case.operator.reference(*case.inputs, **case.attributes)
    for model in (model_of(case), embed_functions(model_of(case))):
        onnx.checker.check_model(model, full_check=True)
        del model.graph.output[0].type.tensor_type.shape.dim[:]
        model.graph.output[0].type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        found = inferred.graph.output[0].type.tensor_type
        assert [d.dim_value for d in found.shape.dim] == list(expected.shape)
        assert found.elem_type == onnx.helper.np_dtype_to_tensor_dtype(expected.dtype)


@every_operator
def test_symbolic_sizes_stay_symbolic(name: str) -> None:
    register_schemas()
    geometry = conv_geometry((2, 6, 8, 8), (4, 3, 3, 3), where="test", group=2)
    operator = OPERATORS.get(name)
    inputs, own = operator.sample(np.random.default_rng(0), geometry)
    model = model_of(Case(operator, tuple(inputs), {"group": 2, **own}, geometry), symbolic=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    dims = inferred.graph.output[0].type.tensor_type.shape.dim
    assert dims[1].dim_value == 4
    assert [d.HasField("dim_value") for d in dims] == [False, True, False, False]


@every_operator
@pytest.mark.parametrize("onnx_opset", [13, 17, 18, 21, 23])
def test_functions_follow_the_opset_of_the_model(name: str, onnx_opset: int) -> None:
    geometry = conv_geometry((1, 4, 7, 6), (6, 2, 3, 2), where="test", group=2, pads=[1, 0, 2, 1], strides=[2, 1])
    operator = OPERATORS.get(name)
    inputs, own = operator.sample(np.random.default_rng(1), geometry)
    attributes: dict[str, Any] = {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1], **own}
    case = Case(operator, tuple(inputs), attributes, geometry)
    expected, magnitude = brute_force(case)
    embedded = embed_functions(model_of(case, onnx_opset=onnx_opset))
    assert_same(case, stock(embedded, feeds(case))[0], expected, magnitude)
    assert_same(case, evaluate(embedded, feeds(case))[0], expected, magnitude)


@pytest.mark.parametrize("name", [o.name for o in OPERATORS.values() if o.integer])
@relaxed
@given(data=st.data(), exponent=st.integers(-12, 2))
def test_integer_form_is_the_float_operator_on_dequantised_values(
    name: str, data: st.DataObject, exponent: int
) -> None:
    """With a power-of-two input scale both sides are exact in float32, so they must be equal."""
    form = OPERATORS.get(name).integer
    assert form is not None
    case = data.draw(cases(form.name))
    x_scale = 2.0**exponent
    own = {n: case.attributes.get(n, v) for n, v in case.operator.own_defaults.items()}
    conv = {n: v for n, v in case.attributes.items() if n not in own}
    floats = form.dequantise(case.inputs, own, x_scale)
    expected = OPERATORS.get(name).reference(*floats, **conv)
    scaled = case.operator.reference(*case.inputs, **case.attributes) * form.output_scale(own, x_scale)
    np.testing.assert_array_equal(expected, scaled.astype(np.float32))


@given(layer=layers())
def test_loop_nest_has_the_sizes_of_the_layer(layer: tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]) -> None:
    x_shape, w_shape, attributes = layer
    geometry = conv_geometry(x_shape, w_shape, where="test", **attributes)
    nest = geometry.nest
    assert (nest.g * nest.k, nest.c, nest.fy * nest.fx) == (*w_shape[:2], math.prod(w_shape[2:]))
    assert nest.iy * nest.ix == math.prod(x_shape[2:])
    top, left, bottom, right = nest.pad
    assert nest.span(0, nest.oy) <= nest.iy + top + bottom < nest.span(0, nest.oy + 1)
    assert nest.span(1, nest.ox) <= nest.ix + left + right < nest.span(1, nest.ox + 1)


def test_registry_names_units_and_integer_forms() -> None:
    for operator in OPERATORS.values():
        assert operator.schema.name == operator.name
        assert (operator.schema.domain, operator.schema.since_version) == (DOMAIN, OPSET)
        assert operator.unit in Unit
        if operator.integer:
            assert OPERATORS.get(operator.integer.name).tolerance is None


def test_a_new_operator_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(nashc.ops.__file__).parent / "adder_conv_integer.py").read_text()
    (tmp_path / "new_conv.py").write_text(text.replace("AdderConvInteger", "NewConv"))
    monkeypatch.setattr(nashc.ops, "__path__", [*nashc.ops.__path__, str(tmp_path)])
    try:
        assert sorted(nashc.ops._discover()) == sorted([*OPERATORS, "NewConv"])
    finally:
        sys.modules.pop("nashc.ops.new_conv", None)
