"""Whole models: every node is accounted for, MACs agree with an independent count, the function stays the same."""

from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_nets import LIGHT, MNIST, assert_same_function, check_network, counted_macs, net, run, save

from nashc.core.network import Unit
from nashc.importer import import_model
from nashc.passes import load, simplify

MODELS = {path.stem: path for path in [MNIST, *sorted(LIGHT.glob("*.onnx"))]}
MEMORY_HUNGRY = ("light_vgg19", "light_bvlc_alexnet", "light_zfnet512")
"""Their dense weights take hundreds of megabytes once onnxruntime computes them."""


@cache
def imported(name):
    return import_model(MODELS[name])


@pytest.mark.parametrize("name", MODELS)
def test_every_node_is_accounted_for(name):
    model = onnx.load(MODELS[name])
    result = imported(name)
    check_network(result.network)
    names = [node.name or f"{node.op_type}_{i}" for i, node in enumerate(model.graph.node)]
    in_layers = {n for layer in result.network.layers for n in layer.nodes}
    skipped = [skip.node for skip in result.removed]
    assert in_layers | set(skipped) == set(names)
    assert not in_layers & set(skipped)
    assert all(skip.reason for skip in result.removed)


@pytest.mark.parametrize("name", MODELS)
def test_macs(name):
    network = imported(name).network
    assert network.macs == counted_macs(onnx.load(MODELS[name]))
    host = {layer.op for layer in network.layers if layer.unit is Unit.HOST}
    assert host <= {"Softmax", "LRN"}


@pytest.mark.parametrize("name", [name for name in MODELS if name not in MEMORY_HUNGRY])
def test_light_models_compute_the_same(name):
    assert_same_function(onnx.load(MODELS[name]), simplify(load(MODELS[name]), {}))


def test_import_is_deterministic():
    first, second = (import_model(MODELS["light_shufflenet"]) for _ in range(2))
    assert first.network == second.network
    assert first.removed == second.removed


@st.composite
def networks(draw):
    """A random small CNN: text of its body, its weights, and how many channels the last map has."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights, lines = {"three": 3.0, "six": 6.0, "zero": 0.0}, []
    value, channels = "x", 4
    for i in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["conv", "conv", "depthwise", "pool", "nhwc", "pad", "shuffle", "gate"]))
        out = f"v{i}"
        if kind in ("conv", "depthwise"):
            lines += _convolution(draw, rng, weights, i, value, out, channels, kind)
            channels = weights[f"w{i}"].shape[0]
        elif kind == "pool":
            pool = draw(st.sampled_from(["MaxPool", "AveragePool"]))
            lines.append(f"{out} = {pool}<kernel_shape=[3,3],pads=[1,1,1,1],strides=[1,2]>({value})")
        elif kind == "nhwc":
            lines.append(f"t{i} = Transpose<perm=[0,2,3,1]>({value}) u{i} = Relu(t{i})")
            lines.append(f"{out} = Transpose<perm=[0,3,1,2]>(u{i})")
        elif kind == "pad":
            weights[f"p{i}"] = np.array([0, 0, 1, 0, 0, 0, 0, 1])
            lines.append(f"{out} = Pad({value}, p{i})")
        elif kind == "shuffle":
            weights[f"s{i}"] = np.array([0, 2, channels // 2, -1, 1])
            weights[f"r{i}"] = np.array([1, channels, -1, 1])
            lines.append(f"a{i} = Reshape({value}, s{i}) b{i} = Transpose<perm=[0,2,1,3,4]>(a{i})")
            lines.append(f"q{i} = Shape({value}) c{i} = Reshape(b{i}, q{i}) {out} = Identity(c{i})")
        else:
            lines.append(f"g{i} = GlobalAveragePool({value}) h{i} = HardSigmoid(g{i}) {out} = Mul({value}, h{i})")
        value = out
    head = draw(st.sampled_from(["none", "flatten", "global"]))
    if head == "none":
        lines.append(f"y = Identity({value})")
    elif head == "global":
        weights["fc"] = rng.standard_normal((channels, 5)).astype(np.float32)
        lines.append(f"ga = ReduceMean<axes=[2,3],keepdims=0>({value}) y = MatMul(ga, fc)")
    else:
        lines.append(f"fl = Flatten({value}) y = Relu(fl)")
    return " ".join(lines), weights


def _convolution(draw, rng, weights, i, value, out, channels, kind):
    """A convolution with an optional BatchNormalization, residual sum and activation behind it."""
    kernel = draw(st.sampled_from([1, 3]))
    groups = channels if kind == "depthwise" else draw(st.sampled_from([1, 2]))
    outputs = channels if kind == "depthwise" else draw(st.sampled_from([4, 6, 16]))
    stride = draw(st.sampled_from([1, 1, 2]))
    weights[f"w{i}"] = rng.standard_normal((outputs, channels // groups, kernel, kernel)).astype(np.float32) / 3
    pad = kernel // 2
    attributes = f"group={groups},strides=[{stride},{stride}],pads=[{pad},{pad},{pad},{pad}]"
    lines, last = [f"c{i} = Conv<{attributes}>({value}, w{i})"], f"c{i}"
    if draw(st.booleans()):
        for name in "abm":
            weights[f"{name}n{i}"] = rng.standard_normal(outputs).astype(np.float32)
        weights[f"vn{i}"] = rng.uniform(0.5, 2, outputs).astype(np.float32)
        lines.append(f"n{i} = BatchNormalization({last}, an{i}, bn{i}, mn{i}, vn{i})")
        last = f"n{i}"
    if outputs == channels and stride == 1 and draw(st.booleans()):
        lines.append(f"e{i} = Add({last}, {value})")
        last = f"e{i}"
    activation = draw(st.sampled_from(["Identity(%)", "Relu(%)", "HardSwish(%)", "Clip(%, zero, six)", "long"]))
    if activation == "long":
        lines.append(f"k{i} = Add({last}, three) l{i} = Clip(k{i}, zero, six) m{i} = Mul({last}, l{i})")
        lines.append(f"{out} = Div(m{i}, six)")
    else:
        lines.append(f"{out} = {activation.replace('%', last)}")
    return lines


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_random_networks(tmp_path_factory, network):
    body, weights = network
    model = net("(float[1,4,8,8] x) => (float[?,?,?,?] y)", body, **weights)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    path = save(model, tmp_path_factory.mktemp("net"))
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)}
    result = import_model(path)
    check_network(result.network)
    assert all(layer.unit is not Unit.HOST for layer in result.network.layers)
    names = {node.name or f"{node.op_type}_{i}" for i, node in enumerate(model.graph.node)}
    assert names == {n for layer in result.network.layers for n in layer.nodes} | {s.node for s in result.removed}
    assert result.network.macs == counted_macs(model)
    for old, new in zip(run(model, feeds), run(ir.to_proto(simplify(load(path), {})), feeds), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(old).max())))
