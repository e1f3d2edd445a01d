"""Layers with weights: nests, weights and units."""

import numpy as np
import pytest
from onnx_nets import check_network, counted_macs, net, save

from nashc.core.loops import LoopNest
from nashc.core.network import Unit
from nashc.errors import NashcError
from nashc.importer import import_model

UPPER, LOWER = 'auto_pad="SAME_UPPER"', 'auto_pad="SAME_LOWER"'
X8 = "(float[1,4,8,9] x) => (float[1,?,?,?] y)"


def imported(tmp_path, model, shapes=None):
    result = import_model(save(model, tmp_path), shapes or {})
    check_network(result.network)
    return result.network


@pytest.mark.parametrize(
    ("attributes", "taps", "nest"),
    [
        ("", (6, 4, 3, 3), LoopNest(1, 6, 4, 6, 7, 3, 3, 8, 9)),
        ("pads=[1,0,2,1]", (6, 4, 3, 1), LoopNest(1, 6, 4, 9, 10, 3, 1, 8, 9, pad=(1, 0, 2, 1))),
        ("strides=[2,1]", (6, 4, 3, 3), LoopNest(1, 6, 4, 3, 7, 3, 3, 8, 9, (2, 1))),
        ("dilations=[2,3]", (6, 4, 3, 3), LoopNest(1, 6, 4, 4, 3, 3, 3, 8, 9, dilation=(2, 3))),
        ("group=4", (4, 1, 3, 3), LoopNest(4, 1, 1, 6, 7, 3, 3, 8, 9)),
        ("group=2", (6, 2, 1, 1), LoopNest(2, 3, 2, 8, 9, 1, 1, 8, 9)),
        (f"{UPPER},strides=[2,2]", (6, 4, 3, 3), LoopNest(1, 6, 4, 4, 5, 3, 3, 8, 9, (2, 2), pad=(0, 1, 1, 1))),
        (f"{LOWER},strides=[2,2]", (6, 4, 3, 3), LoopNest(1, 6, 4, 4, 5, 3, 3, 8, 9, (2, 2), pad=(1, 1, 0, 1))),
        ('auto_pad="VALID"', (6, 4, 3, 3), LoopNest(1, 6, 4, 6, 7, 3, 3, 8, 9)),
    ],
)  # fmt: skip
def test_convolution(tmp_path, attributes, taps, nest):
    model = net(X8, f"y = Conv<{attributes}>(x, w)" if attributes else "y = Conv(x, w)", w=taps)
    network = imported(tmp_path, model)
    (layer,) = network.layers
    assert (layer.unit, layer.nest, layer.op) == (Unit.CONV, nest, "Conv")
    assert network.macs == counted_macs(model)
    assert nest.weights == np.prod(taps)


def test_one_dimensional_convolution(tmp_path):
    network = imported(tmp_path, net("(float[1,4,9] x) => (float[1,6,?] y)", "y = Conv<pads=[1,0]>(x, w)", w=(6, 4, 3)))
    assert network.layers[0].nest == LoopNest(1, 6, 4, 1, 8, 1, 3, 1, 9, pad=(0, 1, 0, 0))
    assert network.tensor["x"].channels == 4


def test_three_dimensional_convolution_goes_to_the_host(tmp_path):
    model = net("(float[1,2,4,4,4] x) => (float[1,3,?,?,?] y)", "y = Conv(x, w)", w=(3, 2, 2, 2, 2))
    (layer,) = imported(tmp_path, model).layers
    assert layer.unit is Unit.HOST
    assert "two spatial axes" in layer.note
    assert layer.nest.macs == 3 * 27 * 2 * 8


@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "size"), [(2, 2, 0, 5), (3, 2, 1, 5), (4, 2, 1, 6), (3, 1, 1, 5), (5, 3, 0, 4)]
)
def test_transposed_convolution_is_sub_pixel(tmp_path, kernel, stride, pads, size):
    body = f"y = ConvTranspose<strides=[{stride},{stride}],pads=[{pads},{pads},{pads},{pads}]>(x, w)"
    signature = f"(float[1,4,{size},{size}] x) => (float[1,?,?,?] y)"
    (layer,) = imported(tmp_path, net(signature, body, w=(4, 6, kernel, kernel))).layers
    out = (size - 1) * stride + kernel - 2 * pads
    nest = layer.nest
    assert (nest.k, nest.c, nest.fy, nest.fx) == (6 * stride**2, 4, -(-kernel // stride), -(-kernel // stride))
    assert nest.oy == -(-out // stride)
    assert layer.scattered
    assert "sub-pixel" in layer.note
    assert nest.macs >= 4 * 6 * kernel**2 * (out // stride) ** 2


@pytest.mark.parametrize(
    "body", ["y = Gemm<transB=1>(x, w)", "t = Transpose(w) y = MatMul(x, t)", "y = Gemm<transB=1>(x, w, b)"]
)
def test_matrix_products(tmp_path, body):
    weights = {"w": (5, 12)} | ({"b": (5,)} if ", b" in body else {})
    (layer,) = imported(tmp_path, net("(float[1,12] x) => (float[1,5] y)", body, **weights)).layers
    assert layer.nest == LoopNest(1, 5, 12, 1, 1, 1, 1, 1, 1)


def test_matrix_product_over_a_sequence_and_a_map(tmp_path):
    model = net("(float[1,7,12] x) => (float[1,7,5] y)", "y = MatMul(x, w)", w=(12, 5))
    assert imported(tmp_path, model).layers[0].nest == LoopNest(1, 5, 12, 1, 7, 1, 1, 1, 7)
    model = net("(float[1,3,7,12] x) => (float[1,3,7,5] y)", "y = MatMul(x, w)", w=(12, 5))
    assert imported(tmp_path, model).layers[0].nest == LoopNest(1, 5, 12, 3, 7, 1, 1, 3, 7)


def test_flatten_before_a_product_is_a_view(tmp_path):
    body = "c = Conv(x, k) f = Flatten(c) r = Relu(f) y = Gemm(r, w)"
    model = net("(float[1,4,8,9] x) => (float[1,5] y)", body, k=(6, 4, 3, 3), w=(6 * 6 * 7, 5))
    network = imported(tmp_path, model)
    assert [layer.op for layer in network.layers] == ["Conv", "Relu", "Gemm"]
    assert network.layers[-1].nest == LoopNest(1, 5, 6, 1, 1, 6, 7, 6, 7)
    assert network.macs == counted_macs(model)


def test_product_of_two_computed_operands_goes_to_the_host(tmp_path):
    model = net("(float[1,6,8] x) => (float[1,6,6] y)", "t = Transpose<perm=[0,2,1]>(x) y = MatMul(x, t)")
    layer = imported(tmp_path, model).layers[-1]
    assert layer.unit is Unit.HOST
    assert "no constant weights" in layer.note
    assert layer.nest.macs == 6 * 6 * 8


def test_shared_weights(tmp_path):
    body = "a = Conv(x, w) b = Relu(a) c = Conv(b, w) y = Relu(c)"
    network = imported(tmp_path, net("(float[1,4,8,8] x) => (float[1,4,8,8] y)", body, w=(4, 4, 1, 1)))
    assert [layer.weights.name for layer in network.layers] == ["w", "w"]


def codes(*shape, largest):
    w = np.ones(shape, np.int8)
    w.flat[0] = -largest
    return w


@pytest.mark.parametrize(("terms", "largest", "bits"), [(1, 7, 4), (1, 8, 5), (3, 15, 5), (2, 1, 4)])
def test_shift_convolution(tmp_path, terms, largest, bits):
    body = "a = ai.nashc.ShiftConv<pads=[1,1,1,1],group=2>(x, w, s) y = Relu(a)"
    model = net(X8, body, w=codes(terms, 6, 2, 3, 3, largest=largest), s=np.ones(6, np.float32))
    (layer,) = imported(tmp_path, model).layers
    assert layer.unit is Unit.SHIFT
    assert (layer.weights.bits, layer.weights.terms) == (bits, terms)
    assert layer.nest == LoopNest(2, 3, 2, 8, 9, 3, 3, 8, 9, pad=(1, 1, 1, 1))
    assert layer.activation == "relu"


def test_adder_convolution_with_batchnorm_and_residual(tmp_path):
    body = """a = ai.nashc.AdderConv<pads=[1,1,1,1]>(x, w) b = BatchNormalization(a, g, t, m, v)
              c = Add(b, x) y = Relu(c)"""
    signature = "(float[1,4,8,8] x) => (float[1,4,8,8] y)"
    model = net(signature, body, w=(4, 4, 3, 3), g=(4,), t=(4,), m=(4,), v=np.ones(4, np.float32))
    (layer,) = imported(tmp_path, model).layers
    assert (layer.unit, layer.weights.bits, layer.weights.terms) == (Unit.ADDER, 8, 1)
    assert layer.inputs == ("x", "x")
    assert len(layer.nodes) == 4


def test_integer_forms(tmp_path):
    body = "a = ai.nashc.ShiftConvInteger(x, w) b = Cast<to=1>(a) y = Mul(b, s)"
    signature = "(uint8[1,4,8,8] x) => (float[1,6,?,?] y)"
    model = net(signature, body, w=codes(2, 6, 4, 3, 3, largest=3), s=np.ones((1, 6, 1, 1), np.float32))
    (layer,) = imported(tmp_path, model).layers
    assert (layer.unit, layer.weights.terms) == (Unit.SHIFT, 2)
    model = net("(int8[1,4,8,8] x) => (int32[1,6,?,?] y)", "y = ConvInteger(x, w)", w=np.ones((6, 4, 3, 3), np.int8))
    network = imported(tmp_path, model)
    assert network.layers[0].unit is Unit.CONV
    assert network.tensor["y"].bits == 32


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_do_not_fit(tmp_path, groups):
    model = net(X8, f"y = Conv<group={groups}>(x, w)", w=(6, 4, 3, 3))
    with pytest.raises(NashcError, match="Conv_0"):
        import_model(save(model, tmp_path))
