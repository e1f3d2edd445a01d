"""What a layer costs where an exporter's form hides it, against hand counts and onnxruntime."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx_nets import net

from nashc.board import load_board
from nashc.core.network import Unit
from nashc.errors import NashcError
from nashc.importer import import_ir
from nashc.passes import checked, simplify
from nashc.report.network import on_chip
from nashc.search.space import work_of


def imported(model, shapes=None):
    return import_ir(simplify(checked(model), shapes or {}))


def by_node(network, name):
    return next(layer for layer in network.layers if name in layer.nodes)


@pytest.mark.parametrize(
    ("body", "node"),
    [
        ("p = GlobalAveragePool(x) f = Conv(p, w1) s = Reshape(f, flat) y = Conv(x, w, s)", "Conv_3"),
        ("f = Reshape(x, rows) u = Gemm(f, m) y = Gemm(f, m, u)", "Gemm_2"),
    ],
)
def test_a_bias_that_is_computed_is_no_bias_of_the_accelerator(body, node):
    out = "float[1,4,8,8] y" if "Conv" in body else "float[8,32] y"
    weights = {"w1": (4, 4, 1, 1), "w": (4, 4, 1, 1), "m": (32, 32)}
    shapes = {"flat": np.array([4]), "rows": np.array([8, 32])}
    layer = by_node(imported(net(f"(float[1,4,8,8] x) => ({out})", body, 17, **weights, **shapes)).network, node)
    assert (layer.unit, layer.note) == (Unit.HOST, "its bias is computed")
    assert len(layer.inputs) == 2


def test_a_residual_of_the_layers_own_input_is_read_twice():
    body = "c = Conv<pads=[1,1,1,1]>(x, w) y = Add(c, {})"
    text, weights = "(float[1,8,8,8] x, float[1,8,8,8] z) => (float[1,8,8,8] y)", {"w": (8, 8, 3, 3)}
    own, other = (imported(net(text, body.format(name), 17, **weights)).network for name in "xz")
    assert own.layers[0].inputs == ("x", "x")
    assert work_of(own, own.layers[0], 1) == work_of(other, other.layers[0], 1)


@pytest.mark.parametrize("opset", [17, 22])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad"),
    [(32, 1, 2, 0), (33, 2, 2, 1), (32, 2, 3, 1), (9, 3, 5, 1), (9, 2, 3, "VALID"), (10, 2, 3, "VALID")],
)
def test_a_pool_with_ceil_mode_is_as_large_as_it_runs(opset, op, size, kernel, stride, pad):
    pads = f'auto_pad="{pad}"' if isinstance(pad, str) else f"pads=[{pad},{pad},{pad},{pad}]"
    window = f"kernel_shape=[{kernel},{kernel}],strides=[{stride},{stride}],{pads}"
    pool = f"{op}<{window},ceil_mode=1>"
    model = net(f"(float[1,2,{size},{size}] x) => (float[a,b,c,d] y)", f"y = {pool}(x)", opset)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.ones((1, 2, size, size), np.float32)})
    network = imported(model).network
    y = network.tensor[network.outputs[0]]
    assert (y.channels, y.rows, y.columns) == found.shape[1:]


@pytest.mark.parametrize("bias", [(8, 1), (8, 8), (1, 8), (1,), (1, 1)])
def test_a_bias_of_rows_is_not_folded_into_that_of_columns(bias):
    body = "r = Reshape(x, s) g = Gemm(r, w, c) y = BatchNormalization(g, one, one, one, two)"
    constants = {"w": (8, 8), "c": bias, "one": (8,), "two": np.full(8, 2, np.float32), "s": np.array([8, 8])}
    model = net("(float[1,64] x) => (float[8,8] y)", body, 17, **constants)
    x = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    after = ir.to_proto(simplify(checked(model), {}))
    np.testing.assert_allclose(onnxruntime.InferenceSession(after.SerializeToString()).run(None, {"x": x})[0], before,
                               rtol=1e-5, atol=1e-5)  # fmt: skip


def test_multiplications_of_a_transposed_convolution_are_those_of_its_weights():
    """Each of 13 x 17 x 8 values meets 4 x 9 weights; cycles are those of the sub-pixel form."""
    body = "y = ConvTranspose<strides=[2,2],pads=[1,1,1,1],output_padding=[1,1]>(x, w)"
    network = imported(net("(float[1,8,13,17] x) => (float[1,4,26,34] y)", body, 17, w=(8, 4, 3, 3))).network
    assert network.macs == network.layers[0].macs == 13 * 17 * 8 * 4 * 9 < network.layers[0].nest.macs


def test_the_residual_of_a_cropped_transposed_convolution_is_a_whole_map():
    body = "c = ConvTranspose<strides=[2,2],pads=[1,1,1,1]>(x, w) y = Add(c, z)"
    text = "(float[1,8,14,14] x, float[1,8,27,27] z) => (float[1,8,27,27] y)"
    network = imported(net(text, body, 17, w=(8, 8, 3, 3))).network
    (extra,) = work_of(network, network.layers[0], 1).extras
    assert extra.full


def test_batch_statistics_are_no_scale_and_bias():
    body = "c = Conv(x, w) y, m, v = BatchNormalization<training_mode=1>(c, one, one, one, one)"
    network = imported(net("(float[1,4,8,8] x) => (float[1,4,8,8] y)", body, 17, w=(4, 4, 1, 1), one=(4,))).network
    assert [layer.unit for layer in network.layers] == [Unit.CONV, Unit.HOST]


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [(0, 6, "relu6"), (0, 20, "clip(0,20)"), (-20, 20, "clip(-20,20)"), (0, None, "relu"), (None, 6, "clip(-inf,6)"),
     (-1, 1, "clip(-1,1)"), (0, 1000, "clip(0,1000)")],
)  # fmt: skip
def test_a_clip_has_its_own_bounds(low, high, name):
    bounds = {key: np.float32(value) for key, value in (("lo", low), ("hi", high)) if value is not None}
    given = ", ".join(key if key in bounds else "" for key in ("lo", "hi"))
    body = f"c = Conv(x, w) y = Clip(c, {given})".replace(", )", ")")
    network = imported(net("(float[1,4,8,8] x) => (float[1,4,8,8] y)", body, 17, w=(4, 4, 1, 1), **bounds)).network
    assert network.layers[0].activation == name


def test_a_relu_and_a_far_clip_are_no_relu():
    body = "c = Conv(x, w) r = Relu(c) y = Min(r, hi)"
    network = imported(
        net("(float[1,4,8,8] x) => (float[1,4,8,8] y)", body, 17, w=(4, 4, 1, 1), hi=np.float32(20))
    ).network
    assert all("Min_2" not in layer.nodes for layer in network.layers if layer.activation == "relu")


def test_weights_that_layers_share_are_stored_once():
    body = "a = Conv(x, w) b = Conv(a, w) y = Conv(b, w)"
    network = imported(net("(float[1,16,8,8] x) => (float[1,16,8,8] y)", body, 17, w=(16, 16, 1, 1))).network
    assert "all weights: 0.2 KiB" in str(on_chip(network, load_board("fpga-zc706")))  # 16 x 16 bytes


def test_a_fixed_first_axis_that_is_no_batch_is_told_by_its_numbers():
    model = net("(float[49,40] x) => (float[1,8,49,40] y)", "u = Unsqueeze(x, a) y = Conv<pads=[1,1,1,1]>(u, w)", 17,
                w=(8, 1, 3, 3), a=np.array([0, 1]))  # fmt: skip
    assert imported(model, {"x": (49, 40)}).network.macs == 49 * 40 * 8 * 9
    with pytest.raises(NashcError, match="has batch 7"):
        imported(model, {"x": (7, 40)})


def test_a_reshape_to_a_fixed_batch_is_refused():
    body = "r = Reshape(x, s) y = Relu(r)"
    model = net("(float[8,4,4,4] x) => (float[8,64] y)", body, 17, s=np.array([8, -1]))
    with pytest.raises(NashcError, match=r"reshapes to \[8, -1\], and the file fixes a batch of 8"):
        imported(model)
    free = net("(float[8,4,4,4] x) => (float[8,64] y)", body, 17, s=np.array([0, -1]))
    assert imported(free).network.tensor["y"].elements == 64


def test_a_second_input_without_a_batch_fixes_none():
    model = net("(float[1,4,4,4] x, float[8,8] z) => (float[8,8] y)", "r = Reshape(x, s) y = Add(r, z)", 17,
                s=np.array([8, -1]))  # fmt: skip
    assert imported(model).network.tensor["y"].elements == 64
