"""Small ONNX models for tests, and what is needed to compare and to check them."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper

from nashc.core.network import COMPUTE_UNITS, Network, Unit

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
MNIST = Path(__file__).parents[2] / "examples/models/mnist-conv.onnx"
Array = np.ndarray


def net(signature: str, body: str, opset: int = 17, **weights: tuple[int, ...] | Array | float) -> onnx.ModelProto:
    """A model in ONNX text, with a signature such as "(float[1,3,8,8] x) => (float[1,8] y)".

    weights: arrays, or shapes to fill with random numbers.
    """
    header = f'<ir_version: 9, opset_import: ["" : {opset}, "ai.nashc" : 1, "com.example" : 1, "onnx.brevitas" : 1]>'
    model = onnx.parser.parse_model(f"{header} net {signature} {{ {body} }}")
    rng = np.random.default_rng(len(body))
    for name, value in weights.items():
        data = rng.standard_normal(value).astype(np.float32) / 3 if isinstance(value, tuple) else np.asarray(value)
        data = data.astype(np.float32) if data.dtype == np.float64 else data
        model.graph.initializer.append(numpy_helper.from_array(data, name))
    return model


def save(model: onnx.ModelProto, folder: Path) -> Path:
    """The model as a file."""
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """The model in onnxruntime, nothing optimised."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def random_feeds(model: onnx.ModelProto) -> dict[str, Array]:
    """Random values for the real inputs of a model with static shapes."""
    rng = np.random.default_rng(7)
    stored = {t.name for t in model.graph.initializer}
    shapes = {
        v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim]
        for v in model.graph.input
        if v.name not in stored
    }
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def assert_same_function(before: onnx.ModelProto, after: ir.Model) -> None:
    """Both give the same outputs on a random input, up to rounding."""
    feeds = random_feeds(before)
    for old, new in zip(run(before, feeds), run(ir.to_proto(after), feeds), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(old).max(initial=0))))


def counted_macs(model: onnx.ModelProto) -> int:
    """MACs of the nodes with weights, from ONNX's own shape inference: output elements x weights per output channel."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {t.name: tuple(t.dims) for t in inferred.initializer}
    for value in [*inferred.value_info, *inferred.output, *inferred.input]:
        shapes.setdefault(value.name, tuple(max(1, d.dim_value) for d in value.type.tensor_type.shape.dim))
    total = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            total += prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            total += prod(shapes[node.output[0]]) * prod(shapes[node.input[0]][1:])
    return total


def check_network(network: Network) -> None:
    """What every imported network must satisfy."""
    ready = set(network.inputs)
    assert len({layer.name for layer in network.layers}) == len(network.layers)
    assert len(network.tensor) == len(network.tensors)
    for layer in network.layers:
        for name in layer.inputs:
            waits = network.producers.get(name, ())
            assert name in ready, f"{layer.name} reads {name} too early"
            assert all(network.layers[i] is not layer for i in waits)
        ready.add(layer.output)
        if layer.unit in COMPUTE_UNITS:
            _check_compute(network, layer)
        if layer.unit is Unit.HOST:
            assert layer.note
    assert set(network.outputs) <= ready


def _check_compute(network: Network, layer) -> None:
    nest, source, target = layer.nest, network.tensor[layer.inputs[0]], network.tensor[layer.output]
    assert layer.weights is not None
    assert nest.g * nest.c == source.channels
    assert nest.iy * nest.ix == source.rows * source.columns
    assert nest.g * nest.k * nest.oy * nest.ox >= target.elements
    if layer.op != "ConvTranspose":
        assert (nest.g * nest.k, nest.oy * nest.ox) == (target.channels, target.rows * target.columns)
    top, left, bottom, right = nest.pad
    assert nest.span(0, nest.oy) <= nest.iy + top + bottom
    assert nest.span(1, nest.ox) <= nest.ix + left + right
