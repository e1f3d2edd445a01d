"""Quantised models: widths come from the integer types, Q and DQ cost nothing unless they change the data."""

import numpy as np
import onnxruntime.quantization as ortq
import pytest
from onnx_nets import check_network, net, save

from nashc.core.network import Unit
from nashc.importer import import_model

FLOAT = """a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) d = Conv<pads=[1,1,1,1],group=8>(r, w2) e = Clip(d, lo, hi)
           f = Conv(e, w3) s = Add(f, r) m = MaxPool<kernel_shape=[2,2],strides=[2,2]>(s) g = GlobalAveragePool(m)
           h = Flatten(g) y = Gemm<transB=1>(h, w4)"""


class Calibration(ortq.CalibrationDataReader):
    def __init__(self):
        self.left = 2

    def get_next(self):
        self.left -= 1
        if self.left < 0:
            return None
        return {"x": np.random.default_rng(self.left).standard_normal((1, 3, 8, 8)).astype(np.float32)}


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """The same network as float, QDQ with int8 and QDQ with int4 weights, by onnxruntime's own quantiser."""
    folder = tmp_path_factory.mktemp("q")
    weights = {
        "w1": (8, 3, 3, 3),
        "b1": (8,),
        "w2": (8, 1, 3, 3),
        "w3": (8, 8, 1, 1),
        "w4": (5, 8),
        "lo": 0.0,
        "hi": 6.0,
    }
    path = save(net("(float[N,3,8,8] x) => (float[N,5] y)", FLOAT, 21, **weights), folder)
    found = {"float": import_model(path)}
    for name, kind in (("int8", ortq.QuantType.QInt8), ("int4", ortq.QuantType.QInt4)):
        target = folder / f"{name}.onnx"
        ortq.quantize_static(path, target, Calibration(), quant_format=ortq.QuantFormat.QDQ, weight_type=kind)
        found[name] = import_model(target)
    return found


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_qdq_gives_the_layers_of_the_float_model(quantised, form):
    plain, integer = quantised["float"].network, quantised[form].network
    check_network(integer)
    assert [(a.op, a.unit, a.nest) for a in integer.layers] == [(b.op, b.unit, b.nest) for b in plain.layers]
    assert integer.macs == plain.macs
    bits = {layer.weights.bits for layer in integer.layers if layer.op == "Conv"}
    assert bits == {4 if form == "int4" else 8}


def test_every_q_and_dq_is_accounted_for(quantised):
    result = quantised["int8"]
    names = {n for layer in result.network.layers for n in layer.nodes} | {s.node for s in result.removed}
    assert "x_QuantizeLinear" in names
    assert "w1_DequantizeLinear" in names
    conv = result.network.layers[0]
    assert "w1_DequantizeLinear" in conv.nodes


X = "(float[1,4,6,6] x) => (float[1,4,6,6] y)"


def qdq(name, source, scale="s", zero="z", kind=None):
    return f"{name}q = QuantizeLinear({source}, {scale}, {zero}) {name} = DequantizeLinear({name}q, {scale}, {zero}) "


SCALES = {"s": np.float32(0.1), "z": np.int8(0), "s2": np.float32(0.3), "z2": np.int8(0)}


def imported(tmp_path, body, **weights):
    result = import_model(save(net(X, body, 21, **weights), tmp_path))
    check_network(result.network)
    return result.network


def test_activation_width_comes_from_the_quantiser(tmp_path):
    body = qdq("a", "x") + "c = Conv(a, w) " + qdq("d", "c") + "y = Relu(d)"
    scales = {"s": np.float32(0.1), "z": np.int16(0)}
    network = imported(tmp_path, body, w=(4, 4, 1, 1), **scales)
    assert [network.tensor[name].bits for name in (*network.inputs, network.layers[0].output)] == [16, 8]
    assert network.layers[0].activation == "relu"


def test_requantisation_to_another_scale_is_a_layer(tmp_path):
    body = qdq("a", "x") + qdq("b", "a", "s2", "z2") + "y = Conv(b, w)"
    network = imported(tmp_path, body, w=(4, 4, 1, 1), **SCALES)
    assert [layer.op for layer in network.layers] == ["QuantizeLinear", "Conv"]
    body = qdq("a", "x") + qdq("b", "a") + "y = Conv(b, w)"
    network = imported(tmp_path, body, w=(4, 4, 1, 1), s=SCALES["s"], z=SCALES["z"])
    assert [layer.op for layer in network.layers] == ["Conv"]


def test_integer_weights_of_a_shift_layer_stay_codes(tmp_path):
    body = qdq("a", "x") + "c = ai.nashc.ShiftConv(a, w, one) " + qdq("y0", "c") + "y = Relu(y0)"
    codes = np.ones((2, 4, 4, 1, 1), np.int8)
    network = imported(tmp_path, body, w=codes, one=np.ones(1, np.float32), s=SCALES["s"], z=SCALES["z"])
    (layer,) = network.layers
    assert (layer.unit, layer.weights.terms, layer.weights.bits) == (Unit.SHIFT, 2, 4)


def test_quantised_operators(tmp_path):
    body = """q = QuantizeLinear(x, s, z) c = QLinearConv(q, s, z, w, s, zw, s, z) y = DequantizeLinear(c, s, z)"""
    weights = {"w": np.ones((4, 4, 1, 1), np.int8), "s": np.float32(0.1), "z": np.uint8(0), "zw": np.int8(0)}
    network = imported(tmp_path, body, **weights)
    (layer,) = network.layers
    assert (layer.op, layer.unit, layer.weights.bits, network.tensor["x"].bits) == ("QLinearConv", Unit.CONV, 8, 8)
    assert layer.nest.macs == 4 * 4 * 36


def test_qonnx_quant(tmp_path):
    """Quant of QONNX says the width of weights and activations."""
    quant = 'onnx.brevitas.Quant<signed=1,narrow=0,rounding_mode="ROUND">'
    body = (
        f"a = {quant}(x, s, z, eight) v = {quant}(w, s, z, four) c = Conv(a, v) r = Relu(c) y = {quant}(r, s, z, six)"
    )
    scalars = {"s": 0.1, "z": 0.0, "four": 4.0, "six": 6.0, "eight": 8.0}
    network = imported(tmp_path, body, w=(4, 4, 1, 1), **scalars)
    (layer,) = network.layers
    assert (layer.weights.bits, layer.activation, network.tensor[layer.output].bits) == (4, "relu", 6)
    assert network.tensor["x"].bits == 8
