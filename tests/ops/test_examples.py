"""Results worked out by hand, and the errors that users see."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from nashc.ops import DOMAIN, OPERATORS, OPSET, register_schemas
from numpy.typing import NDArray
from onnx import TensorProto, helper

from nashc.errors import NashcError

Array = NDArray[Any]


def run(name: str, *inputs: Array | None, **attributes: Any) -> list[float]:
    found: list[float] = OPERATORS.get(name).reference(*inputs, **attributes).reshape(-1).tolist()
    return found


def row(*values: float, dtype: Any = np.float32) -> Array:
    return np.array([[values]], dtype)


def test_shift_conv_by_hand() -> None:
    x, s = row(1, 2, 3), np.array([10], np.float32)
    codes = np.array([[[[1, -2]]], [[[0, 3]]]], np.int8)  # weights 1 + 0 and -1/2 + 1/4
    assert run("ShiftConv", x, codes, s) == [5.0, 12.5]
    assert run("ShiftConv", x, codes, s, np.array([100], np.float32), pads=[1, 0], strides=[2]) == [97.5, 112.5]


def test_adder_conv_by_hand() -> None:
    x, w = row(1, -2, 3), row(2, 1)
    assert run("AdderConv", x, w) == [-(1 + 3), -(4 + 2)]
    assert run("AdderConv", x, w, pads=[1, 1]) == [-(2 + 0), -(1 + 3), -(4 + 2), -(1 + 1)]
    assert run("AdderConv", x, w, auto_pad="SAME_LOWER", strides=[2]) == [-(2 + 0), -(4 + 2)]


def test_shift_conv_integer_by_hand() -> None:
    x = row(130, 120, 128, dtype=np.uint8)
    codes = np.array([[[[1, -2]]]], np.int8)
    zero = np.array(128, np.uint8)
    assert run("ShiftConvInteger", x, codes, zero, pmax=1) == [2 * 2 + 8, -8 * 2 - 0]
    assert run("ShiftConvInteger", x, codes, zero) == [12 * 2**13, -16 * 2**13]
    assert run("ShiftConvInteger", x, codes, zero, pmax=1, pads=[1, 0])[0] == -2


def test_shift_conv_integer_wraps_like_conv_integer() -> None:
    x, codes = np.full((1, 600, 1), 255, np.uint8), np.ones((1, 1, 600, 1), np.int8)
    assert run("ShiftConvInteger", x, codes) == [600 * 255 * 2**14 - 2**32]


def test_adder_conv_integer_by_hand() -> None:
    w = row(-128, 127, dtype=np.int8)
    assert run("AdderConvInteger", row(127, -128, dtype=np.int8), w) == [-(255 + 255)]
    assert run("AdderConvInteger", row(255, 0, dtype=np.uint8), w) == [-(383 + 127)]
    assert run("AdderConvInteger", row(255, 0, dtype=np.uint8), w, pads=[1, 0])[0] == -(128 + 128)


X, W = np.zeros((1, 4, 5, 5), np.float32), np.zeros((6, 2, 3, 3), np.float32)
CODES, S = np.zeros((1, 6, 2, 3, 3), np.int8), np.ones(6, np.float32)


@pytest.mark.parametrize(
    ("name", "inputs", "attributes", "text"),
    [
        ("AdderConv", (X, W), {}, "X has 4 channels but W wants 2 x group 1 = 2"),
        ("AdderConv", (X, W), {"group": 4}, "6 output channels do not divide into group=4"),
        ("AdderConv", (X, W), {"group": 2, "strides": [0, 1]}, "strides=[0, 1]; give 2 integers >= 1"),
        ("AdderConv", (X, W), {"group": 2, "pads": [1, 1]}, "pads=[1, 1]; give 4 integers >= 0"),
        ("AdderConv", (X, W), {"group": 2, "dilations": [3, 3]}, "smaller than the filter span [7, 7]"),
        ("AdderConv", (X, W), {"group": 2, "auto_pad": "SAME"}, "unknown auto_pad 'SAME'; "),
        ("AdderConv", (X, W), {"group": 2, "auto_pad": "SAME_UPPER", "pads": [0] * 4}, "give only one"),
        ("AdderConv", (X, W), {"group": 2, "kernel_shape": [2, 2]}, "kernel_shape=[2, 2] but W has filter [3, 3]"),
        ("AdderConv", (X, W), {"group": 2, "padding": 1}, "unknown attribute ['padding']"),
        ("AdderConv", (X[0, 0], W), {}, "X has shape [5, 5]; give X as [N, C, length]"),
        ("AdderConv", (X, W[0]), {}, "W has 3 convolution axes [2, 3, 3] but X has 4 axes"),
        ("AdderConv", (X, None), {}, "input W is missing"),
        ("AdderConv", (X, W, W), {}, "3 inputs; give at most 2"),
        ("AdderConv", (X.astype(np.float64), W), {}, "input X is tensor(double); give tensor(float)"),
        ("ShiftConv", (X, CODES, S[:5]), {"group": 2}, "S has shape [5] but W has 6 output channels; give [6] or [1]"),
        ("ShiftConv", (X, CODES, S, S[:1]), {"group": 2}, "B has shape [1] but W has 6 output channels; give [6]"),
        ("ShiftConv", (X, CODES[:0], S), {"group": 2}, "give at least one term"),
        ("ShiftConv", (X, CODES - np.int8(16), S), {"group": 2}, "W holds a code of magnitude 16"),
        ("ShiftConvInteger", (X.astype(np.int8), CODES), {"group": 2, "pmax": 15}, "pmax=15; give 0..14"),
        ("ShiftConvInteger", (X.astype(np.int8), CODES + np.int8(5)), {"group": 2, "pmax": 3}, "must lie in -4..4"),
        ("ShiftConvInteger", (X.astype(np.int8), CODES, np.zeros(2, np.int8)), {"group": 2}, "give one value"),
    ],
)
def test_errors_say_what_and_what_next(name: str, inputs: tuple[Any, ...], attributes: Any, text: str) -> None:
    with pytest.raises(NashcError) as refusal:
        OPERATORS.get(name).reference(*inputs, **attributes)
    assert str(refusal.value).startswith(f"{name}: ")
    assert text in str(refusal.value)


def test_shape_inference_reports_the_node() -> None:
    register_schemas()
    node = helper.make_node("AdderConv", ["x", "w"], ["y"], name="body3", domain=DOMAIN)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, W.shape),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, OPSET)])
    with pytest.raises(NashcError, match=r"body3.*X has 4 channels"):
        onnx.shape_inference.infer_shapes(model, strict_mode=True)
