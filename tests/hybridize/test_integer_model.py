"""The written integer model against the walk that made it and against what the cost model was told of it."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import MODELS, STEM, STEM_WEIGHTS, Converted, converted, images
from nashc.ops import decode_shift
from nashc.ops.adder_conv import STEP
from onnx import numpy_helper
from onnx_nets import check_network, net

from nashc.core.network import Network
from nashc.errors import NashcError
from nashc.hybridize.choose import retyped
from nashc.hybridize.layer_types import TYPES
from nashc.hybridize.original import original
from nashc.hybridize.stages import staged
from nashc.hybridize.steps import CALIBRATIONS, codes, real
from nashc.hybridize.streams import stage_part
from nashc.hybridize.walk import adder_tensors, ranges, replaced, steps
from nashc.passes import checked, simplify
from nashc.runtime import Session


@pytest.fixture(scope="module")
def made():
    """Each model once for the whole file."""
    known: dict[str, Converted] = {}

    def get(name: str) -> Converted:
        if name not in known:
            known[name] = converted(MODELS[name])
        return known[name]

    return get


def shape_of_cost(network: Network) -> list[object]:
    """All that the cost model reads: layers, and tensors by the order of their first mention."""
    index: dict[str, int] = {}
    found: list[object] = []
    for layer in network.layers:
        tensors = [index.setdefault(name, len(index)) for name in (*layer.inputs, layer.output)]
        weights = None if layer.weights is None else (layer.weights.bits, layer.weights.terms, layer.weights.symmetric)
        found.append((layer.unit, layer.nest, weights, tensors, layer.activation, layer.scattered))
    sizes = {index[t.name]: (t.channels, t.rows, t.columns, t.bits) for t in network.tensors if t.name in index}
    ends = ([index[name] for name in network.inputs], [index[name] for name in network.outputs])
    return [found, sizes, ends]


def interface(model: onnx.ModelProto) -> list[tuple[str, int]]:
    stored = {t.name for t in model.graph.initializer}
    values = [v for v in model.graph.input if v.name not in stored] + list(model.graph.output)
    return [(v.name, v.type.tensor_type.elem_type) for v in values]


@pytest.mark.parametrize("name", MODELS)
def test_the_integer_model_gives_what_the_walk_gave(made, name):
    """Exactly: the walk rounds values and biases as the model does. Only a real value in the middle between two steps
    may fall either way; there is none in these."""
    one = made(name)
    found = one.run()
    assert found.keys() == one.walked.keys()
    for key, walked in one.walked.items():
        np.testing.assert_array_equal(found[key], walked)


@pytest.mark.parametrize("name", MODELS)
def test_the_integer_model_is_close_to_the_float_model(made, name):
    """8-bit everywhere: so that the test before is no comparison of two wrong things."""
    one = converted(MODELS[name], ("conv8",))
    for key, wanted in one.wanted.items():
        if wanted.dtype.kind == "f":
            noise = np.square(one.walked[key] - wanted).mean() / wanted.var()
            assert noise < 0.02


@pytest.mark.parametrize("name", MODELS)
def test_the_integer_model_is_valid_and_keeps_its_interface(made, name):
    one = made(name)
    onnx.checker.check_model(one.model)
    assert interface(one.model) == interface(MODELS[name])
    stored = {t.name: numpy_helper.to_array(t) for t in one.model.graph.initializer}
    for node in one.model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert (stored[node.input[1]] > 0).all()
    assert Session(one.model).skips == ()


@pytest.mark.parametrize("name", MODELS)
def test_the_imported_integer_model_is_what_was_searched(made, name):
    one = made(name)
    network = one.network()
    check_network(network)
    wanted = retyped(one.source.network, one.choice)
    assert shape_of_cost(network) == shape_of_cost(wanted)
    assert network.macs == wanted.macs


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_stored_as_their_type_says(made, name):
    one = made(name)
    stored = {t.name: numpy_helper.to_array(t) for t in one.model.graph.initializer}
    makers = {n.output[0]: n for n in one.model.graph.node}
    layers = {s.weighted.node: s.weighted for s in one.source.staged.stages if s.weighted is not None}
    nodes = {n.name: n for n in one.model.graph.node}
    assert layers.keys() == one.rounded.keys()
    for key, layer in layers.items():
        node, rounded = nodes[key], one.rounded[key]
        if node.op_type == "ShiftConv":
            held = decode_shift(stored[node.input[1]], stored[node.input[2]])
        else:
            source = makers[node.input[1]]
            assert str(stored[source.input[0]].dtype) == {8: "int8", 4: "int4"}[rounded.kind.bits]
            integers = np.moveaxis(stored[source.input[0]].astype(np.float64), layer.axis, 0)
            held = integers * stored[source.input[1]].reshape(-1, *(1,) * (integers.ndim - 1))
        np.testing.assert_allclose(held, rounded.weights, rtol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_each_stage_rounds_once(made, name):
    """On the same bytes, a stage in float32 and the integer model agree to half a step."""
    one = made(name)
    cut = one.source.staged
    exposed = onnx.ModelProto()
    exposed.CopyFrom(one.model)
    for node in one.model.graph.node:
        if node.op_type == "QuantizeLinear":
            exposed.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
    session = Session(exposed, threads=1)
    stored = session.run({one.source.input: one.images[0]})
    tensors, values = {**cut.tensors, **adder_tensors(cut, one.step)}, {}
    for stage in cut.stages:
        if stage.weighted is not None:
            tensors |= replaced(stage.weighted, one.rounded[stage.weighted.node])
        given = {n: values.get(n, real(stored[f"{n}_q"], one.step[n]) if f"{n}_q" in stored else None)
                 for n in stage.inputs}  # fmt: skip
        found = stage_part(cut, stage, tensors).images({n: v[None] for n, v in given.items()}, 1)
        for output, value in zip(stage.outputs, found, strict=True):
            if f"{output}_q" not in stored:
                values[output] = value[0]  # a view, or an output that is not quantised
                continue
            step, code = one.step[output], stored[f"{output}_q"].astype(np.float64)
            limits = np.iinfo(step.zero_point.dtype)
            exact = value[0].astype(np.float64) / step.scale + int(step.zero_point)
            assert np.abs(code - exact.clip(limits.min, limits.max)).max() <= 0.5 + 1e-3


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_random_layers(data):
    """Two convolutions of any geometry and type: written, run, imported."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    groups = data.draw(st.sampled_from([1, 2, 4]))
    channels, size = 4 * data.draw(st.integers(1, 2)), data.draw(st.integers(6, 9))
    kernel, stride = [data.draw(st.tuples(st.integers(1, 3), st.integers(1, 2))) for _ in "ab"]
    kernel = (kernel[0], stride[0])
    strides, dilations = [data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) for _ in "ab"]
    pads = data.draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))
    out = groups * data.draw(st.integers(1, 3))
    body = (
        f"a = Conv(x, w1, b1) r = Relu(a) y = Conv<pads={pads},group={groups},strides={list(strides)},"
        f"dilations={list(dilations)}>(r, w2, b2)"
    )
    proto = net(
        f"(float[1,3,{size},{size}] x) => (float[1,{out},H,W] y)", body, 21,
        w1=rng.normal(size=(channels, 3, 1, 1)), b1=rng.normal(size=channels),
        w2=rng.normal(size=(out, channels // groups, *kernel)) * 10.0 ** data.draw(st.integers(-6, 3)),
        b2=rng.normal(size=out) * 10.0 ** data.draw(st.integers(-6, 3)),
    )  # fmt: skip
    one = converted(proto, ("conv8", data.draw(st.sampled_from(list(TYPES)))))
    assert np.array_equal(one.run()["y"], one.walked["y"]) or one_step_at_ties(one)
    assert shape_of_cost(one.network()) == shape_of_cost(retyped(one.source.network, one.choice))


def one_step_at_ties(one: Converted) -> bool:
    """Neighbours, and so few of them that they are ties."""
    difference = np.abs(one.run()["y"] - one.walked["y"]) / one.step["y"].scale
    return bool(difference.max() < 1.01 and (difference > 0).mean() < 0.01)


def test_names_that_the_writer_would_give_may_be_taken():
    """The model has every name of the plain integer model already, on other things."""
    plain = converted(MODELS["residual"], ("conv8", "shift2", "conv4"))
    names = [n for node in plain.model.graph.node for n in (node.name, *node.input, *node.output)]
    new = [n for n in dict.fromkeys(names) if n.endswith(("_dq", "_q", "_scale", "_zero_point", "_codes", "_float"))]
    new += [n for n in names if n.endswith(("_conv8", "_conv4", "_shift_bias", "Linear"))]
    proto = onnx.ModelProto()
    proto.CopyFrom(MODELS["residual"])
    taken = iter(new)
    renamed = {v: next(taken) for v in ("a", "r", "b", "s", "t", "c", "u", "w1", "b1", "w2", "b2", "w3", "w4")}
    for node in proto.graph.node:
        node.input[:] = [renamed.get(n, n) for n in node.input]
        node.output[:] = [renamed.get(n, n) for n in node.output]
    for tensor in proto.graph.initializer:
        tensor.name = renamed[tensor.name]
    for node, name in zip(proto.graph.node, taken, strict=False):
        node.name = name
    one = converted(proto, ("conv8", "shift2", "conv4"))
    onnx.checker.check_model(one.model)
    np.testing.assert_array_equal(one.walked["y"], plain.walked["y"])
    np.testing.assert_array_equal(one.run()["y"], plain.walked["y"])


def test_an_input_may_have_the_name_of_a_scale():
    body = f"{STEM} x_scale = Add(r, r) y = Conv(x_scale, w2)".replace("x,", "r_zero_point,")
    signature = "(float[N,3,8,8] r_zero_point) => (float[N,6,8,8] y)"
    one = converted(net(signature, body, 21, **STEM_WEIGHTS, w2=(6, 8, 1, 1)))
    assert interface(one.model)[0][0] == "r_zero_point"
    np.testing.assert_array_equal(one.run()["y"], one.walked["y"])


@pytest.mark.parametrize("kind", ["conv8", "conv4", "shift1"])
@pytest.mark.parametrize("weight", [0.0, 1e-12, 1e-30, 1e-44])
def test_a_switched_off_channel_keeps_its_bias(kind, weight):
    """Weights so small that the bias is no int32 in their units: the weights become 0, the bias stays."""
    rng = np.random.default_rng(0)
    w2 = rng.normal(size=(3, 8, 3, 3)).astype(np.float32)
    w2[1] = weight
    bias = np.array([0.1, 3.0, -0.2], np.float32)
    one = converted(net("(float[N,3,8,8] x) => (float[N,3,6,6] y)", f"{STEM} y = Conv(r, w2, b2)", 21,
                        **STEM_WEIGHTS, w2=w2, b2=bias), ("conv8", kind))  # fmt: skip
    found = one.run()["y"]
    assert np.abs(found[:, :, 1] - 3.0).max() <= one.step["y"].scale
    np.testing.assert_array_equal(found, one.walked["y"])


def test_softmax_that_is_an_output_is_not_quantised_where_it_is_viewed_too():
    body = f"{STEM} g = GlobalAveragePool(r) f = Flatten(g) y = Softmax(f) z = Unsqueeze(y, one)"
    signature = "(float[N,3,8,8] x) => (float[N,8] y, float[N,1,8] z)"
    one = converted(net(signature, body, 21, **STEM_WEIGHTS, one=np.array([1])))
    found = one.run()
    for key in ("y", "z"):
        np.testing.assert_array_equal(found[key], one.walked[key])
    np.testing.assert_array_equal(found["y"], found["z"][:, :, 0])


def test_a_constant_that_is_joined_is_in_the_range():
    one = converted(MODELS["concat with a constant"])
    step = one.step["b"]
    assert one.step["k"] == step
    assert abs(float(real(codes(np.float32([10.0]), step), step)[0]) - 10) <= step.scale / 2


def test_the_same_model_gives_the_same_bytes():
    first, second = (converted(MODELS["residual"]).model.SerializeToString() for _ in "ab")
    assert first == second


def test_values_of_one_class_share_their_step():
    cut = original(MODELS["concat"], {}, "net", "net").staged
    assert len({cut.steps[n] for n in ("b", "c", "r", "k")}) == 1
    assert cut.steps["y"] == "y"
    cut = original(MODELS["split and slice"], {}, "net", "net").staged
    assert cut.steps["c"] == cut.steps["d"] == cut.steps["r"] != cut.steps["k"] == cut.steps["s"]
    assert {"c", "d", "s"} <= cut.moved


def test_stages_end_where_the_accelerator_rounds():
    cut = original(MODELS["residual"], {}, "net", "net").staged
    assert [s.outputs for s in cut.stages] == [("r",), ("t",), ("u",), ("y",)]
    assert [s.inputs for s in cut.stages] == [("x",), ("r",), ("t",), ("u",)]
    assert [s.weighted.macs for s in cut.stages] == [8 * 64 * 27, 8 * 64 * 72, 8 * 64 * 72, 6 * 64 * 8]


def test_layers_that_share_weights_get_their_own():
    proto = MODELS["shared weights"]
    cut = staged(simplify(checked(proto), {}))
    layers = [s.weighted for s in cut.stages if s.weighted is not None]
    assert len({layer.weight for layer in layers}) == len(layers) == 5
    assert [layer.op for layer in layers] == ["Conv", "Conv", "Conv", "MatMul", "MatMul"]


@pytest.mark.parametrize("bias", ["computed", "of pixels"])
def test_a_bias_that_is_none_of_the_channels_is_added_as_it_is(bias):
    """Where it is computed the node is the host's, and stays float."""
    body = f"{STEM} t = Transpose<perm=[0,2,3,1]>(r) f = Reshape(t, shape) y = Gemm(f, w2, b2)"
    weights = {"shape": np.array([64, 8]), "w2": (8, 5), "b2": (64, 5)}
    if bias == "computed":
        body = f"{STEM} g = GlobalAveragePool(r) f = Flatten(g) h = Slice(f, zero, five, one) y = Gemm(f, w2, h)"
        weights = {"w2": (8, 5)}
    proto = net("(float[1,3,8,8] x) => (float[A,5] y)", body, 21, **STEM_WEIGHTS, **weights,
                zero=np.array([0]), five=np.array([5]), one=np.array([1]))  # fmt: skip
    one = converted(proto)
    assert [layer for layer in one.rounded if layer.startswith("Gemm")] == ["Gemm_4"] * (bias == "of pixels")
    np.testing.assert_array_equal(one.run()["y"], one.walked["y"])


def test_ranges_are_those_of_every_value_of_a_class():
    source = original(MODELS["concat"], {}, "net", "net")
    x = images(source.shape)
    found, outputs = ranges(source.staged, {"x": x}, workers=1)
    session = Session(MODELS["concat"], threads=1)
    wanted = np.stack([session.run({"x": image})["y"] for image in x])
    np.testing.assert_allclose(outputs["y"], wanted, rtol=1e-4, atol=1e-5)
    assert (found["x"].lowest, found["x"].highest) == (x.min(), x.max())
    chosen = steps(source.staged, found, CALIBRATIONS.get("mse"))
    assert chosen.keys() == source.staged.steps.keys()
    # inputs and outputs keep all of their range
    assert chosen["y"].scale * 255 >= outputs["y"].max() - outputs["y"].min() - 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_no_weights_stay_float(made, name):
    one = made(name)
    kinds = {t.name: t.data_type for t in one.model.graph.initializer if len(t.dims) > 1}
    read = {n.input[1] for n in one.model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul", "ConvTranspose")}
    assert [n for n in read if kinds.get(n) == onnx.TensorProto.FLOAT] == []


def test_weights_without_integer_form_are_refused():
    proto = net(
        "(float[1,8] x) => (float[1,5] y)", "t = Transpose(x) r = Relu(t) y = Gemm<transA=1>(r, w)", 21, w=(8, 5)
    )
    with pytest.raises(NashcError, match=r"Gemm.*its weights have no integer form"):
        staged(simplify(checked(proto), {}))


def test_adder_layers_on_values_of_one_step_have_the_same():
    body = f"{STEM} b = ai.nashc.AdderConv<pads=[1,1,1,1]>(r, w2) c = ai.nashc.AdderConv<pads=[1,1,1,1]>(r, w3)"
    proto = net("(float[1,3,8,8] x) => (float[1,8,8,8] y)", f"{body} y = Add(b, c)", 21, **STEM_WEIGHTS,
                w2=(8, 8, 3, 3), w3=(8, 8, 3, 3))  # fmt: skip
    adders = [n for n in proto.graph.node if n.op_type == "AdderConv"]
    for node in adders:
        node.metadata_props.add(key=STEP, value="0.05")
    staged(simplify(checked(proto), {}))
    adders[1].metadata_props[0].value = "0.06"
    with pytest.raises(NashcError, match=r"the step 0\.06, and another layer on the same values with 0\.05"):
        staged(simplify(checked(proto), {}))
