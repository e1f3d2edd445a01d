"""A float model as a quantised one: QuantizeLinear and DequantizeLinear around Conv, Gemm, Add and ai.nashc operators.

Scales come from the smallest and largest value on calibration inputs. Activations are uint8; weights of Conv and Gemm
int8 with one scale a channel, their biases int32; shift codes stay. An adder layer needs one scale for X and W and zero
points of 0, so that the scale of its input also covers the weights of all adder layers that read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from nashc.runtime import Session

Array = NDArray[Any]
ABSORBED = ("BatchNormalization", "Relu")
"""Nodes that kernels compute before they quantise: a value that only such a node reads stays in float."""


def quantise(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> onnx.ModelProto:
    """The model with QDQ; `inputs` calibrate it. Its weights must be stored, its activations all be float32."""
    graph = model.graph
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    values = [value.name for value in graph.input] + [name for node in graph.node for name in node.output]
    values = [v for v in values if [n.op_type for n in readers.get(v, [])] not in ([kind] for kind in ABSORBED)]
    ranges = _ranges(model, inputs, values)
    made = _Graph(stored)
    outputs = {value.name for value in graph.output}
    read: dict[str, str] = {}  # what nodes read instead of a value

    def add_qdq(name: str) -> None:
        weights = [stored[n.input[1]] for n in readers.get(name, []) if n.op_type == "AdderConv"]
        read[name] = name if name in outputs else f"{name}_dq"
        q = made.quantised(name, f"{name}_float" if name in outputs else name, *ranges[name], weights)
        made.dequantised(read[name], q, f"{name}_scale", f"{name}_zero")

    for value in graph.input:
        add_qdq(value.name)
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [read.get(name, name) for name in node.input]
        if node.op_type in ("Conv", "Gemm"):
            copy.input[1:] = made.channel_weights(node, f"{node.input[0]}_scale")
        elif node.op_type == "AdderConv":
            copy.input[1] = made.adder_weights(node, f"{node.input[0]}_scale")
        if node.output[0] in outputs:
            copy.output[0] = f"{node.output[0]}_float"
        made.nodes.append(copy)
        if node.output[0] in ranges:
            add_qdq(node.output[0])
    result = onnx.ModelProto()
    result.CopyFrom(model)
    used = {name for node in made.nodes for name in node.input}
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(made.nodes)
    result.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in made.stored.items() if n in used)
    onnx.checker.check_model(result)
    return result


def _ranges(model: onnx.ModelProto, inputs: Mapping[str, Array], names: list[str]) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each, 0 among them."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    given = {value.name for value in (*shown.graph.output, *shown.graph.input)}
    shown.graph.output.extend(value for value in shown.graph.value_info if value.name in set(names) - given)
    found = {**Session(shown).run(inputs), **inputs}
    return {name: (min(0.0, float(found[name].min())), max(0.0, float(found[name].max()))) for name in names}


class _Graph:
    """The nodes and stored tensors of the result."""

    def __init__(self, stored: Mapping[str, Array]) -> None:
        self.stored = dict(stored)
        self.nodes: list[onnx.NodeProto] = []

    def quantised(self, name: str, source: str, low: float, high: float, adder_weights: list[Array]) -> str:
        """Quantise `source` by f"{name}_scale" and f"{name}_zero"; returns the bytes."""
        if adder_weights and low < 0:
            raise ValueError(f"{name}: an adder layer with an input below 0 needs int8, which this benchmark has not")
        levels = [(high - low) / 255, *(float(np.abs(w).max()) / 127 for w in adder_weights)]
        scale = np.float32(max(levels) or 1.0)
        self.stored[f"{name}_scale"] = np.asarray(scale)
        self.stored[f"{name}_zero"] = np.asarray(np.rint(-low / scale), np.uint8)
        operands = [source, f"{name}_scale", f"{name}_zero"]
        self.nodes.append(helper.make_node("QuantizeLinear", operands, [f"{name}_q"]))
        return f"{name}_q"

    def dequantised(self, name: str, *operands: str, axis: int = 1) -> str:
        self.nodes.append(helper.make_node("DequantizeLinear", operands, [name], axis=axis))
        return name

    def channel_weights(self, node: onnx.NodeProto, x_scale: str) -> Iterator[str]:
        """Weights and bias of a Conv, or of a Gemm with transB, whose filters lie along axis 0."""
        _, w, *bias = node.input
        assert node.op_type == "Conv" or any(a.name == "transB" and a.i for a in node.attribute), node.name
        weights = self.stored[w]
        scale = (np.abs(weights).reshape(len(weights), -1).max(1) / 127 + 1e-12).astype(np.float32)
        self.stored[f"{w}_scale"] = scale
        shape = (-1,) + (1,) * (weights.ndim - 1)
        self.stored[f"{w}_q"] = np.rint(weights / scale.reshape(shape)).clip(-127, 127).astype(np.int8)
        self.stored[f"{w}_zero"] = np.zeros(len(weights), np.int8)
        yield self.dequantised(f"{w}_dq", f"{w}_q", f"{w}_scale", f"{w}_zero", axis=0)
        for b in bias:
            self.stored[f"{b}_scale"] = scale * self.stored[x_scale]
            self.stored[f"{b}_q"] = np.rint(self.stored[b] / self.stored[f"{b}_scale"]).astype(np.int32)
            self.stored[f"{b}_zero"] = np.zeros(len(weights), np.int32)
            yield self.dequantised(f"{b}_dq", f"{b}_q", f"{b}_scale", f"{b}_zero", axis=0)

    def adder_weights(self, node: onnx.NodeProto, x_scale: str) -> str:
        w = node.input[1]
        self.stored[f"{w}_q"] = np.rint(self.stored[w] / self.stored[x_scale]).clip(-127, 127).astype(np.int8)
        return self.dequantised(f"{w}_dq", f"{w}_q", x_scale)
