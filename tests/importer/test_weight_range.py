"""Weights say whether every integer lies in [-127, 127]: two MACs on one DSP need it."""

import numpy as np
import pytest
from onnx_nets import net, save

from nashc.importer import import_model

X = "(float[1,4,6,6] x) => (float[1,4,6,6] y)"
SCALE = {"s": np.float32(0.1), "z": np.uint8(0)}


def symmetric(tmp_path, body, **weights):
    (layer,) = import_model(save(net(X, body, 21, **weights), tmp_path)).network.layers
    return layer.weights.symmetric


def kernel(low, high, kind=np.int8):
    return np.linspace(low, high, 16).round().astype(kind).reshape(4, 4, 1, 1)


def test_float_weights_are(tmp_path):
    assert symmetric(tmp_path, "y = Conv(x, w)", w=(4, 4, 1, 1))


@pytest.mark.parametrize(
    ("codes", "zero", "expected"),
    [
        (kernel(-127, 127), np.int8(0), True),
        (kernel(-128, 127), np.int8(0), False),
        (kernel(-128, 100), np.int8(-1), True),
        (kernel(-100, 127), np.int8(-1), False),
        (kernel(1, 255, np.uint8), np.uint8(128), True),
        (kernel(0, 255, np.uint8), np.uint8(128), False),
        (kernel(1, 100, np.uint8), np.uint8(0), True),
    ],
)
def test_integer_weights(tmp_path, codes, zero, expected):
    dequantised = "wf = DequantizeLinear(w, s, zw) y = Conv(x, wf)"
    assert symmetric(tmp_path, dequantised, w=codes, s=SCALE["s"], zw=zero) == expected
    operator = "q = QuantizeLinear(x, s, z) c = QLinearConv(q, s, z, w, s, zw, s, z) y = DequantizeLinear(c, s, z)"
    assert symmetric(tmp_path, operator, w=codes, zw=zero, **SCALE) == expected


def test_zero_points_a_channel(tmp_path):
    body = "wf = DequantizeLinear<axis=0>(w, s, zw) y = Conv(x, wf)"
    codes, scales = kernel(-120, 120), np.full(4, 0.1, np.float32)
    for zeros, expected in (([0, 7, 0, -7], True), ([0, 8, 0, 0], False)):
        assert symmetric(tmp_path, body, w=codes, s=scales, zw=np.array(zeros, np.int8)) == expected


def test_narrow_integers_are_and_unknown_ones_are_not(tmp_path):
    quantised = "wq = QuantizeLinear(w, s, zw) wf = DequantizeLinear(wq, s, zw) y = Conv(x, wf)"
    assert not symmetric(tmp_path, quantised, w=(4, 4, 1, 1), s=SCALE["s"], zw=np.int8(0))
    quant = 'wf = onnx.brevitas.Quant<signed=1,narrow={},rounding_mode="ROUND">(w, s, zero, bits) y = Conv(x, wf)'
    for narrow, bits, expected in ((0, 4, True), (0, 8, False), (1, 8, True)):
        given = {"w": (4, 4, 1, 1), "s": SCALE["s"], "zero": np.float32(0), "bits": np.float32(bits)}
        assert symmetric(tmp_path, quant.format(narrow), **given) == expected


def test_weights_made_of_a_shape_count_as_floats(tmp_path):
    body = "w = ConstantOfShape<value=float[1] {0.5}>(shape) y = Conv(x, w)"
    shape = {"shape": np.array([4, 4, 1, 1], np.int64)}
    (layer,) = import_model(save(net(X, body, 21, **shape), tmp_path)).network.layers
    assert (layer.weights.bits, layer.weights.symmetric) == (8, True)
