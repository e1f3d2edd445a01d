"""The integer model as QDQ: rounded weights as integers, bytes between the stages.

conv: int8 or int4 weights with a scale a channel, int32 biases. shift: ai.nashc.ShiftConv with its codes. adder:
int8 weights at the step of its input. What stays in float (operators without integer form) stands between DQ and Q.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from nashc.core.network import Unit
from nashc.hybridize.layer_types import shift_codes
from nashc.hybridize.reconstruct import Rounded
from nashc.hybridize.stages import Staged, Weighted
from nashc.ops import DOMAIN, OPSET
from nashc.runtime.chain import Step

Array = NDArray[Any]


def integer_model(staged: Staged, step: Mapping[str, Step], rounded: Mapping[str, Rounded]) -> onnx.ModelProto:
    """The model with the layers `rounded` (by node name) and every quantised value as bytes."""
    made = _Writer(staged, step)
    for name in staged.inputs:
        made.inputs(name)
    layers = {s.weighted.node: s.weighted for s in staged.stages if s.weighted is not None}
    ends = {s.output for s in staged.stages}
    for node in staged.model.graph.node:
        made.node(node, layers.get(node.name), rounded.get(node.name), ends)
    return made.model()


class _Writer:
    def __init__(self, staged: Staged, step: Mapping[str, Step]) -> None:
        self.staged, self.step = staged, step
        self.tensors = dict(staged.tensors)
        self.nodes: list[onnx.NodeProto] = []
        self.read: dict[str, str] = {}  # what readers of a value read instead

    def inputs(self, name: str) -> None:
        if name in self.step:
            self._quantise(name, name, f"{name}_dq")
            self.read[name] = f"{name}_dq"

    def node(self, node: onnx.NodeProto, layer: Weighted | None, rounded: Rounded | None, ends: Iterable[str]) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self.read.get(name, name) for name in node.input]
        if layer is not None and rounded is not None:
            x = self.step.get(node.input[0])
            if rounded.kind.unit is Unit.SHIFT:
                self._shift(copy, layer, rounded)
            else:
                self._conv(copy, layer, rounded, x)
        elif node.domain == DOMAIN and node.op_type == "AdderConv" and node.input[0] in self.step:
            self._adder(copy, self.step[node.input[0]])
        self.nodes.append(copy)
        for i, name in enumerate(node.output):
            if name in self.step and name in ends and not self._view(node):
                public = name in self.staged.outputs
                if public:
                    copy.output[i] = f"{name}_float"
                self.read[name] = name if public else f"{name}_dq"
                self._quantise(name, copy.output[i], self.read[name])

    def _view(self, node: onnx.NodeProto) -> bool:
        return node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout")

    def _quantise(self, name: str, source: str, result: str) -> None:
        step = self.step[name]
        key = self.staged.steps[name]
        scale = self._store(f"{key}_scale", np.asarray(step.scale, np.float32))
        zero = self._store(f"{key}_zero_point", np.asarray(step.zero_point))
        self._add("QuantizeLinear", [source, scale, zero], f"{name}_q")
        self._add("DequantizeLinear", [f"{name}_q", scale, zero], result)

    def _shift(self, node: onnx.NodeProto, layer: Weighted, rounded: Rounded) -> None:
        codes = self._store(f"{layer.node}_codes", shift_codes(rounded.kind, rounded.levels))
        scale = self._store(f"{layer.node}_shift_scale", rounded.scale)
        bias = self._store(f"{layer.node}_shift_bias", rounded.bias)
        node.op_type, node.domain = "ShiftConv", DOMAIN
        node.input[1:] = [codes, scale, bias]

    def _conv(self, node: onnx.NodeProto, layer: Weighted, rounded: Rounded, x: Step | None) -> None:
        integers = np.moveaxis(rounded.kind.grid[rounded.levels], 0, layer.axis)
        kind: Any = ml_dtypes.int4 if rounded.kind.bits == 4 else np.int8
        weights = self._store(f"{layer.node}_{rounded.kind.name}", np.ascontiguousarray(integers).astype(kind))
        scale = self._store(f"{layer.node}_weight_scale", rounded.scale)
        node.input[1] = self._add("DequantizeLinear", [weights, scale], f"{layer.node}_weight_dq", axis=layer.axis)
        if not layer.bias:
            return
        if x is None:
            node.input[2] = self._store(f"{layer.node}_new_bias", rounded.bias)
            return
        unit = rounded.scale * np.float32(x.scale)
        limits = np.iinfo(np.int32)
        bias = np.clip(np.rint(rounded.bias.astype(np.float64) / unit), limits.min, limits.max).astype(np.int32)
        stored, scale = self._store(f"{layer.node}_bias_q", bias), self._store(f"{layer.node}_bias_scale", unit)
        node.input[2] = self._add("DequantizeLinear", [stored, scale], f"{layer.node}_bias_dq", axis=0)

    def _adder(self, node: onnx.NodeProto, x: Step) -> None:
        weights = np.clip(np.rint(self.staged.tensors[node.input[1]] / np.float32(x.scale)), -127, 127).astype(np.int8)
        scale = self._store(f"{node.name}_adder_scale", np.asarray(x.scale, np.float32))
        stored = self._store(f"{node.name}_adder", weights)
        node.input[1] = self._add("DequantizeLinear", [stored, scale], f"{node.name}_adder_dq")

    def _store(self, name: str, value: Array) -> str:
        self.tensors[name] = value
        return name

    def _add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}_{op}", **attributes))
        return output

    def model(self) -> onnx.ModelProto:
        source = self.staged.model
        result = onnx.ModelProto()
        result.CopyFrom(source)
        graph = result.graph
        used = {name for node in self.nodes for name in node.input} | {v.name for v in graph.output}
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in self.tensors.items() if n in used)
        inputs = [v for v in graph.input if v.name not in self.tensors]
        del graph.input[:]
        graph.input.extend(inputs)
        if not any(o.domain == DOMAIN for o in result.opset_import):
            result.opset_import.append(helper.make_opsetid(DOMAIN, OPSET))
        result.ir_version = max(result.ir_version, 10)  # int4
        return result
