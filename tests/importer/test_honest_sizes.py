"""No work and no data movement is lost between nodes: batches inside the network, changes of order, short runs."""

from math import prod

import numpy as np
import pytest
from onnx_nets import check_network, net, save

import nashc.importer.compute
from nashc.core.loops import LoopNest
from nashc.core.network import Unit
from nashc.errors import NashcError
from nashc.importer import import_model

X = "(float[1,4,8,8] x) => (float y)"
CONV = "a = Conv<pads=[1,1,1,1]>(x, w)"
W = {"w": (4, 4, 3, 3)}


def layers(tmp_path, body, signature=X, opset=17, **weights):
    network = import_model(save(net(signature, body, opset, **weights), tmp_path)).network
    check_network(network)
    return network.layers


@pytest.mark.parametrize(
    ("body", "weights", "macs"),
    [
        ("y = Conv<pads=[1,1,1,1]>(a, w)", W, 4 * 4 * 4 * 4 * 4 * 9),
        ("y = Conv<strides=[2,2],pads=[1,1,1,1]>(a, w)", W, 4 * 4 * 4 * 2 * 2 * 9),
        ("y = Conv(a, w)", W, 4 * 4 * 4 * 2 * 2 * 9),
        ("y = ConvTranspose<strides=[2,2]>(a, w)", {"w": (4, 4, 2, 2)}, 4 * 4 * 4 * 8 * 8),
        ("y = MaxPool<kernel_shape=[2,2],strides=[2,2]>(a)", {}, 4 * 4 * 2 * 2 * 4),
        ("y = MaxPool<kernel_shape=[3,3],strides=[2,2],ceil_mode=1>(a)", {}, 4 * 4 * 2 * 2 * 9),
        ("y = GlobalAveragePool(a)", {}, 4 * 4 * 4 * 4),
    ],
)
def test_a_batch_inside_the_network_is_all_counted(tmp_path, body, weights, macs):
    """A Reshape makes four images of one."""
    found = layers(tmp_path, f"a = Reshape(x, s) {body}", s=np.array([4, 4, 4, 4]), **weights)
    nest = found[-1].nest
    assert nest.macs == macs
    assert (nest.iy, nest.ix) == (16, 4)
    assert nest.span(0, nest.oy) <= nest.iy + nest.pad[0] + nest.pad[2]


def test_a_batch_of_lines(tmp_path):
    body = "a = Reshape(x, s) y = Conv<pads=[1,1]>(a, w)"
    (layer,) = layers(tmp_path, body, "(float[1,6,4,8] x) => (float y)", s=np.array([6, 4, 8]), w=(4, 4, 3))
    assert layer.nest == LoopNest(1, 4, 4, 6, 8, 1, 3, 6, 8, pad=(0, 1, 0, 1))


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        (f"{CONV} y = MatMul(a, v)", {"v": (8, 8)}),
        (f"{CONV} b = Relu(a) y = MatMul(b, v)", {"v": (8, 8)}),
        (f"{CONV} b = Add(a, c) y = MatMul(b, v)", {"v": (8, 8), "c": (4, 1, 1)}),
        (f"{CONV} b = Sigmoid(a) d = Mul(a, b) y = MatMul(d, v)", {"v": (8, 8)}),
        (f"{CONV} b = Reshape(a, s) c = Relu(b) y = MatMul(c, v)", {"v": (64, 8), "s": np.array([1, 4, 64])}),
        (f"{CONV} b = MatMul(x, v) y = Add(a, b)", {"v": (8, 8)}),
        (f"{CONV} b, c = Split<axis=1>(a, s) d = MatMul(b, v) y = MatMul(c, v)", {"v": (8, 8), "s": np.array([2, 2])}),
        (f"{CONV} q = QuantizeLinear(a, s) d = DequantizeLinear(q, s) y = MatMul(d, v)", {"v": (8, 8), "s": 0.1}),
        (f"{CONV} b = Pad(a, p) y = MatMul(b, v)", {"v": (8, 8), "p": np.array([0, 0, 1, 0, 0, 0, 1, 0])}),
    ],
)
def test_a_change_of_order_is_a_layer(tmp_path, body, weights):
    """Channels are axis 1 for the convolution and the last axis for the matrix product: something must move them."""
    found = layers(tmp_path, body, **W, **weights)
    moves = [layer for layer in found if layer.op == "Transpose"]
    assert moves
    assert all(layer.scattered and layer.unit is Unit.VECTOR for layer in moves)


def slices(start, end, axis, step=1):
    return {name: np.array([n]) for name, n in zip("befs", (start, end, axis, step), strict=True)}


WIDE = "(float[1,32,64,64] x) => (float y)"


@pytest.mark.parametrize(
    ("body", "weights", "short"),
    [
        ("y = Slice(x, b, e, f, s)", slices(0, 64, 3, 2), True),
        ("y = Slice(x, b, e, f, s)", slices(-1, -65, 3, -1), True),
        ("y = Slice(x, b, e, f, s)", slices(8, 12, 3), True),
        ("y = Slice(x, b, e, f, s)", slices(8, 40, 3), False),
        ("y = Slice(x, b, e, f, s)", slices(8, 12, 2), False),
        ("y = Slice(x, b, e, f, s)", slices(0, 32, 1, 2), True),
        ("y = Slice(x, b, e, f, s)", slices(8, 32, 1), True),
        ("y = Slice(x, b, e, f, s)", slices(-16, 32, 1), False),
        ("y = Concat<axis=3>(x, x)", {}, False),
        ("y = Concat<axis=2>(x, x)", {}, False),
        ("a = Slice(x, b, e, f, s) y = Concat<axis=3>(a, a)", slices(0, 4, 3), True),
        ("y, z = Split<axis=3>(x, s)", {"s": np.array([4, 60])}, True),
        ("y, z = Split<axis=2>(x, s)", {"s": np.array([4, 60])}, False),
    ],
)
def test_short_runs_are_scattered(tmp_path, body, weights, short):
    assert layers(tmp_path, body, WIDE, **weights)[-1].scattered == short


@pytest.mark.parametrize(
    "body",
    [
        "y = DepthToSpace<blocksize=2>(x)",
        "y = SpaceToDepth<blocksize=2>(x)",
        "y = Transpose<perm=[0,1,3,2]>(x)",
        "f = Flatten(x) y = Softmax(f)",
    ],
)
def test_a_new_order_reads_each_element_once(tmp_path, body):
    layer = layers(tmp_path, body)[0]
    assert prod((layer.nest.g, layer.nest.iy, layer.nest.ix)) == 4 * 8 * 8
    assert layer.nest.macs == 4 * 8 * 8


@pytest.mark.parametrize(("scale", "stride"), [(0.25, 4), (0.5, 2), (0.75, 2), (1.5, 1)])
def test_a_smaller_map_is_made_of_the_whole_larger_one(tmp_path, scale, stride):
    (layer,) = layers(tmp_path, "y = Resize(x, , s)", s=np.array([1, 1, scale, scale], np.float32))
    assert layer.nest.stride == (stride, stride)
    assert layer.nest.span(0, layer.nest.oy) > layer.nest.iy - stride or scale > 1


@pytest.mark.parametrize("opset", [1, 5])
def test_operators_whose_first_version_infers_no_shape(tmp_path, opset):
    body = f"{CONV} b = Relu(a) c = Clip<min=0.0,max=6.0>(b) d = Conv(c, v) e = Sigmoid(d) y = Sum(e, d)"
    found = layers(tmp_path, body, opset=opset, v=(4, 4, 1, 1), **W)
    assert [(layer.op, layer.activation) for layer in found] == [
        ("Conv", "relu6"), ("Conv", ""), ("Sigmoid", "sigmoid"), ("Sum", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [{"k": 5}, {"iy": 9}, {"c": 3}, {"oy": 7}])
def test_a_nest_that_does_not_fit_is_never_priced(tmp_path, monkeypatch, wrong):
    right = {"g": 1, "k": 4, "c": 4, "oy": 8, "ox": 8, "fy": 3, "fx": 3, "iy": 8, "ix": 8, "pad": (1, 1, 1, 1)}
    monkeypatch.setattr(nashc.importer.compute, "compute_nest", lambda *args: LoopNest(**right | wrong))
    with pytest.raises(NashcError, match=r"node 'Conv_0' \(Conv\): its loop nest does not fit.*please report it"):
        layers(tmp_path, f"{CONV} y = Abs(a)", **W)
