"""What a layer takes along: activations in every spelling, residual sums, scale and bias, requantisation."""

import sys

import numpy as np
import pytest
from onnx_nets import check_network, net, save

from nashc.core.network import Unit
from nashc.importer import import_model

X = "(float[1,4,6,6] x) => (float[1,4,6,6] y)"
CONV = "a = Conv(x, w)"
W = {"w": (4, 4, 1, 1)}
SCALARS = {"three": 3.0, "six": 6.0, "zero": 0.0, "half": 0.5, "one": 1.0, "sixth": 1 / 6, "root": 2**0.5, "k": 1.702}


def layers(tmp_path, body, opset=17, signature=X, **weights):
    model = net(signature, body, opset, **weights)
    result = import_model(save(model, tmp_path))
    check_network(result.network)
    names = {node.name or f"{node.op_type}_{i}" for i, node in enumerate(model.graph.node)}
    assert names <= {n for layer in result.network.layers for n in layer.nodes} | {s.node for s in result.removed}
    return result.network.layers


SPELLINGS = [
    ("relu", "y = Relu(a)"),
    ("relu", "y = Max(a, zero)"),
    ("relu", "y = Clip(a, zero)"),
    ("relu6", "y = Clip(a, zero, six)"),
    ("relu6", "b = Relu(a) y = Min(b, six)"),
    ("relu6", "b = Max(zero, a) y = Min(six, b)"),
    ("clip(-1,1)", "m = Constant<value_float=-1.0>() y = Clip(a, m, one)"),
    ("clip(0,3)", "y = Clip(a, zero, three)"),
    ("hardswish", "y = HardSwish(a)"),
    ("hardswish", "b = HardSigmoid<alpha=0.16666667,beta=0.5>(a) y = Mul(a, b)"),
    ("hardswish", "b = Add(a, three) c = Clip(b, zero, six) d = Mul(a, c) y = Div(d, six)"),
    ("hardswish", "b = Add(three, a) c = Clip(b, zero, six) d = Div(c, six) y = Mul(d, a)"),
    ("hardswish", "b = Add(a, three) c = Clip(b, zero, six) d = Mul(c, sixth) y = Mul(a, d)"),
    ("hardswish", "b = Add(a, three) r = Relu(b) c = Min(r, six) d = Mul(a, c) y = Div(d, six)"),
    ("hardsigmoid", "b = Add(a, three) c = Clip(b, zero, six) y = Div(c, six)"),
    ("hardsigmoid", "y = HardSigmoid<alpha=0.16666667>(a)"),
    ("hardsigmoid(0.2)", "y = HardSigmoid(a)"),
    ("hardsigmoid(0.3,0.5)", "y = HardSigmoid<alpha=0.3>(a)"),
    ("sigmoid", "y = Sigmoid(a)"),
    ("sigmoid", "n = Neg(a) e = Exp(n) p = Add(e, one) y = Div(one, p)"),
    ("silu", "b = Sigmoid(a) y = Mul(a, b)"),
    ("silu", "n = Neg(a) e = Exp(n) p = Add(e, one) y = Div(a, p)"),
    ("tanh", "y = Tanh(a)"),
    ("leakyrelu", "y = LeakyRelu<alpha=0.1>(a)"),
    ("prelu", "y = PRelu(a, slope)"),
    ("elu", "y = Elu(a)"),
    ("softplus", "y = Softplus(a)"),
    ("mish", "b = Softplus(a) c = Tanh(b) y = Mul(a, c)"),
    ("gelu", "b = Div(a, root) c = Erf(b) d = Add(c, one) e = Mul(a, d) y = Mul(e, half)"),
    ("gelu", "b = Div(a, root) c = Erf(b) d = Add(c, one) h = Mul(a, half) y = Mul(h, d)"),
    ("gelu_sigmoid", "b = Mul(a, k) c = Sigmoid(b) y = Mul(a, c)"),
]


@pytest.mark.parametrize(("name", "spelling"), SPELLINGS)
def test_activation_spellings(tmp_path, name, spelling):
    opset = 20
    used = {
        key: value
        for key, value in SCALARS.items()
        if key in spelling.replace("(", " ").replace(")", " ").replace(",", " ").split()
    }
    slope = {"slope": (4, 1, 1)} if "slope" in spelling else {}
    (layer,) = layers(tmp_path, f"{CONV} {spelling}", opset, **W, **used, **slope)
    assert layer.activation == name
    (alone,) = layers(tmp_path, spelling.replace("(a", "(x").replace(" a)", " x)"), opset, **used, **slope)
    assert (alone.unit, alone.activation) == (Unit.VECTOR, name)


@pytest.mark.parametrize("opset", [1, 6, 9, 10])
def test_clip_with_attributes(tmp_path, opset):
    model = net(X, f"{CONV} y = Clip<min=0.0,max=6.0>(a)", opset, **W)
    (layer,) = import_model(save(model, tmp_path)).network.layers
    assert layer.activation == "relu6"


def test_near_misses_are_not_activations(tmp_path):
    body = f"{CONV} b = Add(a, three) c = Clip(b, zero, six) d = Mul(a, c) y = Mul(d, half)"
    found = layers(tmp_path, body, **W, **{n: SCALARS[n] for n in ("three", "zero", "six", "half")})
    assert all(layer.activation != "hardswish" for layer in found)
    assert found[0].op == "Conv"


def test_activation_whose_input_others_read_stays_apart(tmp_path):
    found = layers(tmp_path, f"{CONV} b = Relu(a) y = Sub(b, a)", **W)
    assert [(layer.op, layer.activation) for layer in found] == [("Conv", ""), ("Relu", "relu"), ("Sub", "")]


def test_squeeze_excite_gate(tmp_path):
    body = f"{CONV} p = GlobalAveragePool(a) q = Conv(p, v) g = Sigmoid(q) y = Mul(a, g)"
    found = layers(tmp_path, body, v=(4, 4, 1, 1), **W)
    assert [(layer.op, layer.activation) for layer in found] == [
        ("Conv", ""),
        ("GlobalAveragePool", ""),
        ("Conv", "sigmoid"),
        ("Mul", ""),
    ]
    assert found[-1].inputs == ("a", "g")


@pytest.mark.parametrize("add", ["c = Add(a, x)", "c = Add(x, a)", "c = Sum(a, x)"])
def test_residual_sum(tmp_path, add):
    (layer,) = layers(tmp_path, f"{CONV} {add} y = Relu(c)", **W)
    assert (layer.activation, layer.output) == ("relu", "y")
    two = layers(tmp_path, f"s = Relu(x) {CONV.replace('(x', '(s')} {add} y = Relu(c)", **W)
    assert two[1].inputs == ("s", "x")


def test_the_later_of_two_convolutions_does_the_sum(tmp_path):
    body = "a = Conv(x, w) m = Relu(x) b = Conv(m, v) c = Add(b, a) y = Relu(c)"
    found = layers(tmp_path, body, v=(4, 4, 1, 1), **W)
    assert [layer.inputs for layer in found] == [("x",), ("x",), ("m", "a")]
    assert found[-1].activation == "relu"


def test_no_fusion_across_an_activation_or_a_second_reader(tmp_path):
    found = layers(tmp_path, f"{CONV} r = Relu(a) y = Add(r, x)", **W)
    assert [layer.op for layer in found] == ["Conv", "Add"]
    found = layers(tmp_path, f"{CONV} b = Add(a, x) c = Relu(b) y = Add(c, a)", **W)
    assert [layer.op for layer in found] == ["Conv", "Add", "Add"]


def test_smaller_convolution_that_is_broadcast_does_not_take_the_sum(tmp_path):
    body = "p = GlobalAveragePool(x) a = Conv(p, w) y = Add(x, a)"
    found = layers(tmp_path, body, **W)
    assert [layer.op for layer in found] == ["GlobalAveragePool", "Conv", "Add"]
    assert found[-1].inputs == ("x", "a")


def test_scale_and_bias_per_channel(tmp_path):
    body = f"{CONV} b = Mul(a, s) c = Add(b, t) y = Relu(c)"
    (layer,) = layers(tmp_path, body, s=(1, 4, 1, 1), t=(4, 1, 1), **W)
    assert len(layer.nodes) == 4


def test_constant_map_is_read_from_memory(tmp_path):
    result = import_model(save(net(X, f"{CONV} y = Add(a, t)", t=(1, 4, 6, 6), **W), tmp_path))
    assert result.network.inputs == ("x", "t")
    assert [layer.op for layer in result.network.layers] == ["Conv", "Add"]


def test_batchnorm_that_cannot_fold_is_a_vector_layer(tmp_path):
    body = "b = BatchNormalization(x, g, t, m, v) c = Relu(b) y = Conv(c, w)"
    found = layers(tmp_path, body, g=(4,), t=(4,), m=(4,), v=np.ones(4, np.float32), **W)
    assert (found[0].op, found[0].unit, found[0].activation) == (
        "BatchNormalization",
        Unit.VECTOR,
        "relu",
    )
    assert found[0].weights is not None


def test_two_activations_of_one_value(tmp_path):
    found = layers(tmp_path, f"{CONV} b = Relu(a) c = Sigmoid(a) d = Mul(a, c) y = Sub(b, d)", **W)
    assert [(layer.op, layer.activation) for layer in found] == [
        ("Conv", ""),
        ("Relu", "relu"),
        ("Sigmoid", "silu"),
        ("Sub", ""),
    ]


def test_work_grows_with_the_number_of_readers_and_not_with_its_square(tmp_path):
    """Activations of one value, joined by one Concat: calls are counted, of Python and of C."""

    def calls(many):
        body = " ".join(f"a{i} = Relu(x)" for i in range(many))
        names, count = ", ".join(f"a{i}" for i in range(many)), 0

        def seen(_, event, __):
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(seen)
        try:
            found = layers(
                tmp_path,
                f"{body} y = Concat<axis=1>({names})",
                signature=f"(float[1,4,6,6] x) => (float[1,{4 * many},6,6] y)",
            )
        finally:
            sys.setprofile(None)
        assert len(found) == 2 * many
        return count

    calls(2)  # what is loaded and compiled once
    assert calls(400) < 5 * calls(100)
