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
from nashc.hybridize.reconstruct import Rounded, integer_bias
from nashc.hybridize.stages import VIEWS, Staged, Weighted
from nashc.hybridize.steps import adder_codes
from nashc.ops import DOMAIN, OPSET
from nashc.runtime.chain import Step

Array = NDArray[Any]


def integer_model(staged: Staged, step: Mapping[str, Step], rounded: Mapping[str, Rounded]) -> onnx.ModelProto:
    """The model with the layers `rounded` (by node name) and every quantised value as bytes."""
    made = _Writer(staged, step)
    for name in staged.inputs:
        made.inputs(name)
    layers = {s.weighted.node: s.weighted for s in staged.stages if s.weighted is not None}
    ends = {name for s in staged.stages for name in s.outputs}
    for node in staged.model.graph.node:
        made.node(node, layers.get(node.name), rounded.get(node.name), ends)
    return made.model()


class _Writer:
    def __init__(self, staged: Staged, step: Mapping[str, Step]) -> None:
        self.staged, self.step = staged, step
        self.tensors = dict(staged.tensors)
        self.nodes: list[onnx.NodeProto] = []
        self.read: dict[str, str] = {}  # what readers of a value read instead
        self.stored: dict[str, tuple[str, str]] = {}  # class -> its scale and zero point
        graph = staged.model.graph
        named = (name for node in graph.node for name in (node.name, *node.input, *node.output))
        self.taken = {*self.tensors, *named, *(v.name for v in (*graph.input, *graph.output))}

    def inputs(self, name: str) -> None:
        if name in self.step:
            self.read[name] = self._fresh(f"{name}_dq")
            self._quantise(name, name, self.read[name])

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
            if name in self.step and name in ends and node.op_type not in VIEWS:
                public = name in self.staged.outputs
                if public:
                    copy.output[i] = self._fresh(f"{name}_float")
                self.read[name] = name if public else self._fresh(f"{name}_dq")
                self._quantise(name, copy.output[i], self.read[name])

    def _quantise(self, name: str, source: str, result: str) -> None:
        step = self.step[name]
        key = self.staged.steps[name]
        if key not in self.stored:
            scale = self._store(f"{key}_scale", np.asarray(step.scale, np.float32))
            self.stored[key] = scale, self._store(f"{key}_zero_point", np.asarray(step.zero_point))
        stored = self._add("QuantizeLinear", [source, *self.stored[key]], self._fresh(f"{name}_q"))
        self._add("DequantizeLinear", [stored, *self.stored[key]], result)

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
        result = self._fresh(f"{layer.node}_weight_dq")
        node.input[1] = self._add("DequantizeLinear", [weights, scale], result, axis=layer.axis)
        if not layer.bias:
            return
        if x is None:
            node.input[2] = self._store(f"{layer.node}_new_bias", rounded.bias)
            return
        bias, unit = integer_bias(rounded, x.scale)
        stored, scale = self._store(f"{layer.node}_bias_q", bias), self._store(f"{layer.node}_bias_scale", unit)
        node.input[2] = self._add("DequantizeLinear", [stored, scale], self._fresh(f"{layer.node}_bias_dq"), axis=0)

    def _adder(self, node: onnx.NodeProto, x: Step) -> None:
        weights = adder_codes(self.staged.tensors[node.input[1]], x)
        scale = self._store(f"{node.name}_adder_scale", np.asarray(x.scale, np.float32))
        stored = self._store(f"{node.name}_adder", weights)
        node.input[1] = self._add("DequantizeLinear", [stored, scale], self._fresh(f"{node.name}_adder_dq"))

    def _fresh(self, name: str) -> str:
        """The name, or one like it that nothing in the model has."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _store(self, name: str, value: Array) -> str:
        name = self._fresh(name)
        self.tensors[name] = value
        return name

    def _add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=self._fresh(f"{output}_{op}"), **attributes))
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
        inputs = [v for v in graph.input if v.name not in self.staged.tensors]
        del graph.input[:]
        graph.input.extend(inputs)
        if not any(o.domain == DOMAIN for o in result.opset_import):
            result.opset_import.append(helper.make_opsetid(DOMAIN, OPSET))
        result.ir_version = max(result.ir_version, 10)  # int4
        return result
