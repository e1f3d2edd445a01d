"""Views cost nothing, moves are layers, and the accelerator's order of data decides which is which."""

import numpy as np
import pytest
from onnx import helper
from onnx_nets import check_network, net, save

from nashc.core.loops import LoopNest
from nashc.core.network import Unit
from nashc.errors import NashcError
from nashc.importer import import_model

X = "(float[1,32,6,6] x) => (float[?,?,?,?] y)"


def imported(tmp_path, body, signature=X, opset=17, **weights):
    result = import_model(save(net(signature, body, opset, **weights), tmp_path))
    check_network(result.network)
    return result


def ops(result):
    return [layer.op for layer in result.network.layers]


def test_nhwc_model_has_no_transposes_left(tmp_path):
    body = """a = Transpose<perm=[0,3,1,2]>(x) b = Conv<pads=[1,1,1,1]>(a, w) c = Transpose<perm=[0,2,3,1]>(b)
              d = Mul(c, s) f = Transpose<perm=[0,3,1,2]>(d) g = Conv(f, v)
              h = Transpose<perm=[0,2,3,1]>(g) y = Relu(h)"""
    result = imported(
        tmp_path, body, "(float[1,8,9,3] x) => (float[1,8,9,5] y)", w=(4, 3, 3, 3), v=(5, 4, 1, 1), s=(4,)
    )
    assert [(layer.op, layer.activation) for layer in result.network.layers] == [("Conv", ""), ("Conv", "relu")]
    assert (result.network.tensor["x"].channels, result.network.tensor["x"].rows) == (3, 8)
    assert {s.reason.split(":")[0] for s in result.removed} == {"Transpose"}


def test_transpose_that_moves_pixels_is_a_layer(tmp_path):
    result = imported(tmp_path, "a = Transpose<perm=[0,1,3,2]>(x) y = Conv(a, w)", w=(4, 32, 1, 1))
    assert ops(result) == ["Transpose", "Conv"]
    assert result.network.layers[0].scattered


def test_channel_shuffle_is_one_move(tmp_path):
    body = "a = Reshape(x, s1) b = Transpose<perm=[0,2,1,3,4]>(a) c = Reshape(b, s2) y = Conv(c, w)"
    shapes = {"s1": np.array([1, 4, 8, 6, 6]), "s2": np.array([1, 32, 6, 6])}
    result = imported(tmp_path, body, w=(4, 32, 1, 1), **shapes)
    assert ops(result) == ["Transpose", "Conv"]
    assert result.network.layers[0].nest == LoopNest(32, 1, 1, 6, 6, 1, 1, 6, 6)


def test_patches_to_a_sequence_is_a_view(tmp_path):
    body = "a = Conv(x, w) b = Reshape(a, s) c = Transpose<perm=[0,2,1]>(b) y = MatMul(c, v)"
    result = imported(
        tmp_path, body, "(float[1,32,6,6] x) => (float[1,36,5] y)", w=(8, 32, 1, 1), v=(8, 5), s=np.array([1, 8, 36])
    )
    assert ops(result) == ["Conv", "MatMul"]
    assert result.network.macs == 36 * (8 * 32 + 8 * 5)


@pytest.mark.parametrize("body", ["y = Squeeze(x, a)", "b = Flatten(x) y = Relu(b)", "b = Unsqueeze(x, a) y = Relu(b)"])
def test_ones_come_and_go_for_nothing(tmp_path, body):
    axes = {"a": np.array([2, 3])} if "a)" in body else {}
    result = imported(
        tmp_path, f"p = GlobalAveragePool(x) {body.replace('(x', '(p')}", "(float[1,32,6,6] x) => (float y)", **axes
    )
    assert ops(result)[0] == "GlobalAveragePool"
    assert "Flatten" not in ops(result)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_the_channels_of_a_gate_that_a_convolution_reads_as_a_row_are_moved(tmp_path, keepdims):
    """An ECA block: y = x * sigmoid(conv1d(channel means)), its gate spread over the map by an Expand."""
    body = f"""m = ReduceMean<axes=[2,3],keepdims={keepdims}>(x) r = Reshape(m, row) c = Conv<pads=[2,2]>(r, w)
              g = Sigmoid(c) b = Reshape(g, gate) s = Shape(x) e = Expand(b, s) y = Mul(x, e)"""
    shapes = {"row": np.array([1, 1, -1]), "gate": np.array([1, -1, 1, 1])}
    result = imported(tmp_path, body, "(float[1,32,6,6] x) => (float[1,32,6,6] y)", w=(1, 1, 5), **shapes)
    assert ops(result) == ["ReduceMean", "Reshape", "Conv", "Reshape", "Mul"]
    row, conv = result.network.layers[1:3]
    assert not row.scattered  # the order in memory stays
    assert conv.nest == LoopNest(1, 1, 1, 1, 32, 1, 5, 1, 32, pad=(0, 2, 0, 2))
    assert conv.activation == "sigmoid"


def test_flatten_that_no_product_reads_moves_data(tmp_path):
    result = imported(tmp_path, "a = Flatten(x) y = Relu(a)", "(float[1,32,6,6] x) => (float[1,1152] y)")
    assert ops(result) == ["Flatten", "Relu"]
    assert result.network.layers[0].scattered


def test_concat_is_a_layer_a_part(tmp_path):
    body = "a = Conv(x, w) b = Conv(x, v) c = Relu(x) y = Concat<axis=1>(c, a, b)"
    result = imported(tmp_path, body, w=(24, 32, 1, 1), v=(8, 32, 1, 1))
    parts = [layer for layer in result.network.layers if layer.op == "Concat"]
    assert [(p.nest.g, p.scattered, p.output) for p in parts] == [(32, False, "y"), (24, False, "y"), (8, True, "y")]
    assert result.network.tensor["y"].channels == 64
    assert len(result.network.producers["y"]) == 3


def test_split_and_slice(tmp_path):
    result = imported(tmp_path, "a, b = Split<axis=1>(x, s) y = Mul(a, b)", s=np.array([16, 16]))
    assert [(layer.op, layer.nest.g) for layer in result.network.layers] == [("Split", 16), ("Split", 16), ("Mul", 16)]
    sizes = {"s": np.array([8]), "e": np.array([32]), "a": np.array([1])}
    result = imported(tmp_path, "y = Slice(x, s, e, a)", **sizes)
    assert (result.network.layers[0].nest.g, result.network.layers[0].scattered) == (24, True)


def test_resize_and_pixel_shuffle(tmp_path):
    scales = np.array([1, 1, 2, 2], np.float32)
    result = imported(tmp_path, 'y = Resize<mode="nearest">(x, , s)', s=scales)
    assert result.network.layers[0].nest == LoopNest(32, 1, 1, 12, 12, 1, 1, 6, 6)
    result = imported(tmp_path, "y = DepthToSpace<blocksize=2>(x)")
    assert result.network.layers[0].scattered


@pytest.mark.parametrize(
    ("body", "window"),
    [
        ("y = MaxPool<kernel_shape=[3,2],strides=[2,2],pads=[1,0,1,0]>(x)", (3, 2)),
        ("y = AveragePool<kernel_shape=[2,2],strides=[2,2]>(x)", (2, 2)),
        ("y = LpPool<kernel_shape=[2,2]>(x)", (2, 2)),
        ("y = GlobalAveragePool(x)", (6, 6)),
        ("y = GlobalMaxPool(x)", (6, 6)),
        ("y = ReduceMean<axes=[2,3]>(x)", (6, 6)),
        ("y = ReduceMax<axes=[2,-1]>(x)", (6, 6)),
    ],
)
def test_pooling(tmp_path, body, window):
    (layer,) = imported(tmp_path, body).network.layers
    assert layer.unit is Unit.VECTOR
    assert (layer.nest.g, layer.nest.k, layer.nest.c) == (32, 1, 1)
    assert (layer.nest.fy, layer.nest.fx) == window


def test_ceil_mode_pool_covers_its_windows(tmp_path):
    body = "y = MaxPool<kernel_shape=[3,3],strides=[2,2],ceil_mode=1>(x)"
    (layer,) = imported(tmp_path, body).network.layers
    assert (layer.nest.oy, layer.nest.pad) == (3, (0, 0, 1, 1))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("y = Softmax<axis=1>(x)", "no unit of the accelerator has Softmax"),
        ("y = LRN<size=5>(x)", "no unit of the accelerator has LRN"),
        ("y = com.example.Magic(x)", "domain 'com.example' is not known"),
        ("y, i = MaxPool<kernel_shape=[2,2]>(x) z = Cast<to=1>(i)", "one result of MaxPool"),
        ("y = NonZero(x)", "its shape depends on the data"),
        ("a = NonZero(x) y = Cast<to=1>(a)", "its shape depends on the data"),
        ("y = ReduceMean<axes=[1]>(x)", "other axes than all pixels"),
    ],
)
def test_host(tmp_path, body, why):
    signature = "(float[1,32,6,6] x) => (float[?,?,?,?] y, float[?,?,?,?] z)" if " z " in body else X
    network = imported(tmp_path, body, signature).network
    notes = [layer.note for layer in network.layers if layer.unit is Unit.HOST]
    assert any(why in note for note in notes)
    assert all(layer.nest.macs > 0 for layer in network.layers)


def test_convolution_of_unknown_size_is_an_error(tmp_path):
    with pytest.raises(NashcError, match=r"cannot count its operations.*com.example.Magic"):
        imported(tmp_path, "a = com.example.Magic(x) y = Conv(a, w)", w=(4, 32, 1, 1))


def test_control_flow_names_what_it_reads(tmp_path):
    model = net(X, "a = Relu(x) m = ReduceMax<keepdims=0>(a) c = Cast<to=9>(m) y = Identity(a)")
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["a"], [name])], op, [], [helper.make_tensor_value_info(name, 1, [1, 32, 6, 6])]
        )
        for op, name in (("Abs", "o1"), ("Neg", "o2"))
    ]
    del model.graph.node[-1]
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]))
    network = import_model(save(model, tmp_path)).network
    check_network(network)
    assert network.layers[-1].note == "control flow"
    assert "a" in network.layers[-1].inputs


def test_no_layer_at_all(tmp_path):
    with pytest.raises(NashcError, match="no layer"):
        imported(tmp_path, "s = Shape(x) y = Cast<to=1>(s)", "(float[1,32,6,6] x) => (float[4] y)")
