"""ONNX models in torch against onnxruntime, the cases that onnx ships, and the operators' own references; and back."""

from __future__ import annotations

import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nashc.ops import DOMAIN, OPERATORS, embed_functions
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase as OnnxCase
from onnx_nets import LIGHT, MNIST, net
from operator_cases import assert_same, brute_force, cases, model_of

from nashc.errors import NashcError
from nashc.nn.graph import Graph
from nashc.nn.onnx_ops import OPS
from nashc.runtime import Session

EXAMPLES = Path(__file__).parents[2] / "examples"
ROUNDED_SIZE = "test_resize_downsample_scales_linear_align_corners"
"""Its expected value takes a size of 1.2 pixels; onnxruntime and we take the 1 pixel that there is."""
OWN = [name for name in OPERATORS if f"{DOMAIN}.{name}" in OPS]


def in_torch(graph: Graph, *inputs: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        found = graph(*(torch.from_numpy(np.array(x)) for x in inputs))
    return [value.numpy() for value in (found if isinstance(found, tuple) else (found,))]


def in_onnxruntime(model: onnx.ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(Graph(model).inputs, inputs, strict=True)))


def close(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5 * max(1.0, float(np.abs(b).max(initial=0))))


@cache
def shipped() -> dict[str, list[OnnxCase]]:
    """The cases of onnx of one node, by operator, with arrays of types that torch has."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    kept: dict[str, list[OnnxCase]] = {}
    for case in found:
        nodes = case.model.graph.node
        arrays = [v for group in (case.data_sets or [([], [])])[0] for v in group]
        plain = all(isinstance(v, np.ndarray) and v.dtype.kind in "fib" for v in arrays)
        if len(nodes) == 1 and not nodes[0].domain and arrays and plain:
            kept.setdefault(nodes[0].op_type, []).append(case)
    return kept


def outcome(model: onnx.ModelProto, inputs: list[np.ndarray]) -> list[np.ndarray] | NashcError:
    try:
        return in_torch(Graph(model), *inputs)
    except NashcError as error:
        return error


@pytest.mark.parametrize("op", [name for name in OPS if not name.startswith(DOMAIN)])
def test_cases_that_onnx_ships(op: str) -> None:
    """The same result, or a refusal that names the node."""
    agreed = 0
    for case in shipped().get(op, []):
        inputs, outputs = case.data_sets[0]
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        if op != "Split":
            del model.graph.output[1:]
        found = outcome(model, inputs)
        if isinstance(found, NashcError):
            assert f"({op})" in found.where, case.name
        elif case.name != ROUNDED_SIZE:
            close(found, outputs[: len(model.graph.output)])
            agreed += 1
    assert agreed or op == "Cast"


def test_cast() -> None:
    model = net("(float[2,3] x) => (int64[2,3] y)", "y = Cast<to = 7>(x)")
    close(in_torch(Graph(model), np.float32([[1.6, -1.6, 0], [2, 3, 4]])), [np.int64([[1, -1, 0], [2, 3, 4]])])


@pytest.mark.parametrize("name", OWN)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_own_operators_are_their_references(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name))
    found = in_torch(Graph(model_of(case)), np.asarray(case.inputs[0]))[0]
    assert_same(case, found, *brute_force(case))


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, list[int], dict[str, Any]]:
    """Spatial sizes, and attributes of a window that fits."""
    rank = draw(st.integers(1, 2))
    small = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    kernel = draw(small)
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": draw(small)}
    pad = draw(st.sampled_from(("NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")))
    if pad == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    else:  # where SAME would cut the input, onnxruntime has rules of its own
        attributes["auto_pad"] = pad
        attributes["strides"] = [min(s, k) for s, k in zip(attributes["strides"], kernel, strict=True)]
    return rank, [k * 2 + draw(st.integers(0, 4)) for k in kernel], attributes


def one_layer(
    op: str, sizes: list[int], attributes: dict[str, Any], **weights: tuple[int, ...]
) -> tuple[onnx.ModelProto, np.ndarray]:
    """A model of one node over four channels, and an input."""
    rng = np.random.default_rng(sum(sizes))
    x = rng.standard_normal((2, 4, *sizes)).astype(np.float32)
    stored = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in weights.items()]
    node = helper.make_node(op, ["x", *weights], ["y"], **attributes)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    graph = helper.make_graph([node], op, inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), x


@settings(deadline=None, max_examples=60)
@given(window=windows(), group=st.sampled_from((1, 2, 4)), dilation=st.integers(1, 2))
def test_convolutions(window: Any, group: int, dilation: int) -> None:
    rank, sizes, attributes = window
    if not attributes.get("auto_pad", "").startswith("SAME"):  # which onnxruntime refuses with dilations
        attributes = attributes | {"dilations": [dilation] * rank}
    attributes = attributes | {"group": group}
    w = (group * 2, 4 // group, *attributes["kernel_shape"])
    model, x = one_layer("Conv", sizes, attributes, w=w, b=w[:1])
    close(in_torch(Graph(model), x), in_onnxruntime(model, x))


@settings(deadline=None, max_examples=60)
@given(window=windows(), group=st.sampled_from((1, 2)), extra=st.integers(0, 1))
def test_transposed_convolutions(window: Any, group: int, extra: int) -> None:
    _, sizes, attributes = window
    attributes = attributes | {"group": group}
    if "pads" in attributes:
        attributes["output_padding"] = [min(extra, s - 1) for s in attributes["strides"]]
    model, x = one_layer("ConvTranspose", sizes, attributes, w=(4, 3, *attributes["kernel_shape"]), b=(3 * group,))
    close(in_torch(Graph(model), x), in_onnxruntime(model, x))


@settings(deadline=None, max_examples=80)
@given(
    window=windows(), op=st.sampled_from(("MaxPool", "AveragePool")), ceil=st.integers(0, 1), counted=st.integers(0, 1)
)
def test_pools(window: Any, op: str, ceil: int, counted: int) -> None:
    _, sizes, attributes = window
    attributes = attributes | ({"ceil_mode": ceil} if "pads" in attributes else {})
    attributes |= {"count_include_pad": counted} if op == "AveragePool" else {}
    model, x = one_layer(op, sizes, attributes)
    close(in_torch(Graph(model), x), in_onnxruntime(model, x))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    """Models that the examples write."""
    folder = tmp_path_factory.mktemp("models")
    made = {"resnet20": ["--mix", "hybrid", "--portable"], "nasa_f_network": ["--mix", "hybrid"], "mobilenet": []}
    for name, options in made.items():
        command = [sys.executable, EXAMPLES / f"{name}.py", folder / f"{name}.onnx", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {name: onnx.load(folder / f"{name}.onnx") for name in made}


@pytest.mark.parametrize(("name", "size"), [("resnet20", 32), ("nasa_f_network", 32), ("mobilenet", 224)])
def test_examples_there_and_back(written: dict[str, onnx.ModelProto], name: str, size: int) -> None:
    model = written[name]
    graph = Graph(model).eval()
    x = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    session = Session(model)
    expected = session.run({"x": x})[session.outputs[0].name]
    close(in_torch(graph, x), [expected])
    back = graph.to_onnx()
    onnx.checker.check_model(back)
    assert [n.name for n in back.graph.node] == [n.name for n in model.graph.node]
    np.testing.assert_array_equal(Session(back).run({"x": x})[session.outputs[0].name], expected)


@pytest.mark.parametrize("path", [MNIST, LIGHT / "light_shufflenet.onnx", LIGHT / "light_densenet121.onnx"], ids=str)
def test_other_models_and_batches_of_models_for_one_image(path: Path) -> None:
    model = onnx.load(path)
    stored = {t.name for t in model.graph.initializer}
    dims = next(v for v in model.graph.input if v.name not in stored).type.tensor_type.shape.dim
    x = np.random.default_rng(0).standard_normal((3, *(d.dim_value for d in dims[1:]))).astype(np.float32)
    graph = Graph(model).eval()
    alone = [in_onnxruntime(model, x[i : i + 1])[0] for i in range(3)]
    close([in_torch(graph, x)[0].reshape(3, -1)], [np.stack([y.reshape(-1) for y in alone])])


def test_weights_train_and_are_written_back() -> None:
    model = net(
        "(float[1,2,4,4] x) => (float[1,3,4,4] y)",
        "two = Constant<value = float {2}>() v = Mul(two, unused) c = Conv<pads = [1, 1, 1, 1]>(x, w, b) y = Mul(c, v)",
        w=(3, 2, 3, 3), b=(3,), unused=3.0,
    )  # fmt: skip
    model.metadata_props.add(key="kept", value="yes")
    graph = Graph(model)
    assert {name for name, _ in graph.named_parameters()} == {"w", "b"}
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.mul_(2)
    back = graph.to_onnx()
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(in_onnxruntime(back, x)[0], 2 * in_onnxruntime(model, x)[0], rtol=1e-5)
    assert back.metadata_props[0].value == "yes"


def test_weights_in_constant_nodes_train() -> None:
    model = net("(float[1,2] x) => (float[1,3] y)", "y = MatMul(x, w)", w=(2, 3))
    weights = model.graph.initializer.pop()
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=weights))
    graph = Graph(model)
    with torch.no_grad():
        next(graph.parameters()).mul_(2)
    x = np.float32([[1, 2]])
    np.testing.assert_allclose(in_onnxruntime(graph.to_onnx(), x)[0], 2 * in_onnxruntime(model, x)[0], rtol=1e-6)


def test_gradients_reach_every_weight(written: dict[str, onnx.ModelProto]) -> None:
    graph = Graph(written["resnet20"])
    graph(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in graph.parameters())


def test_functions_are_inlined(written: dict[str, onnx.ModelProto]) -> None:
    portable = embed_functions(written["nasa_f_network"])
    assert list(Graph(portable).steps) == list(Graph(written["nasa_f_network"]).steps)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("y = NonZero(x)", r"node 'NonZero_0' \(NonZero\): the operator NonZero has no torch form"),
        ("y = com.example.Sneeze(x)", r"node 'Sneeze_0' \(com.example.Sneeze\): the operator com.example.Sneeze"),
        ("y = Relu<slope = 2>(x)", r"node 'Relu_0' \(Relu\): .*unexpected keyword argument 'slope'"),
        ("y = Add(x)", r"node 'Add_0' \(Add\): fails on inputs of shape \[1, 4\]"),
        ('y = Resize<mode = "cubic">(x, , s)', r"node 'Resize_0' \(Resize\): mode='cubic'.*not known here"),
        ("a, y = Dropout(x)", r"'y' is not stored|output"),
    ],
)
def test_what_has_no_torch_form_is_refused_by_name(body: str, text: str) -> None:
    model = net("(float[1,4] x) => (float[1,4] y)", body, s=np.ones(2))
    with pytest.raises(NashcError, match=text):
        in_torch(Graph(model), np.ones((1, 4), np.float32))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(2, 2), (1.5, 3), (0.5, 0.6), (1, 0.75)])
def test_resize_before_it_had_coordinates(scales: Any, mode: str) -> None:
    weights = {"s": np.array([1, 1, *scales], np.float32)}
    model = net("(float[1,3,8,8] x) => (float[1,3,a,b] y)", f'y = Resize<mode="{mode}">(x, s)', 10, **weights)
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(Graph(model)(torch.from_numpy(x)), session.run(None, {"x": x})[0], rtol=1e-4, atol=1e-5)


def test_unknown_node_gets_a_hint() -> None:
    graph = Graph(net("(float[1,4] x) => (float[1,4] y)", "y = Relu(x)"))
    with pytest.raises(NashcError, match=r"no node 'Relu'; did you mean 'Relu_0'\?"):
        graph.step_of("Relu")
