"""Exact integer sums on every processor.

Where a processor has no VNNI instructions, onnxruntime multiplies uint8 by int8 in pairs whose sum saturates at 16
bits: silently wrong results. uint8 by uint8, and int8 by int8, are exact; so the int8 side gets 128 added, and its zero
point, too. onnxruntime's ConvInteger of int8 by uint8 is wrong everywhere, and its QLinearConv and QLinearMatMul have
no such form: there 128 is taken from the uint8 side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from onnx import NodeProto, TensorProto, helper, numpy_helper

OFFSET = 128
ZERO_POINTS = {"QLinearConv": (3, 5), "QLinearMatMul": (3, 5), "ConvInteger": (1, 3), "MatMulInteger": (1, 3)}
"""Operators that multiply bytes: their second factor and its zero point; the first factor is input 0."""
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that onnxruntime computes with bytes where both factors come from DequantizeLinear."""
UINT8, INT8 = TensorProto.UINT8, TensorProto.INT8


@cache
def saturates() -> bool:
    """Whether onnxruntime's sums of uint8 x int8 products are wrong on this processor: one is tried."""
    a, b = (helper.make_tensor_value_info(name, kind, [1, 4]) for name, kind in (("a", UINT8), ("y", 6)))
    weights = numpy_helper.from_array(np.full((4, 4), 127, np.int8), "w")
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "w"], ["y"])], "probe", [a], [b], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"a": np.full((1, 4), 255, np.uint8)})
    return bool((found != 4 * 255 * 127).any())


def exact(model: onnx.ModelProto, *, unsigned: bool) -> onnx.ModelProto:
    """A copy whose products onnxruntime computes exactly; the model itself where it does so already.

    Types have to be inferred. `unsigned`: uint8 by int8 is wrong here (`saturates`).
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    work = _Work({name for graph in _graphs(made.graph) for name in _names(graph)}, unsigned)
    work.graph(made.graph, _Scope())
    if not work.changed:
        return model
    _drop_unused(made)
    return made


@dataclass
class _Scope:
    """What a graph sees by name: element types, stored tensors, and the DequantizeLinear nodes that make values."""

    types: dict[str, int] = field(default_factory=dict)
    stored: dict[str, TensorProto] = field(default_factory=dict)
    makers: dict[str, NodeProto] = field(default_factory=dict)

    def inside(self, graph: onnx.GraphProto) -> _Scope:
        """Also what the graph itself has, which hides the names around it."""
        values = (*graph.input, *graph.value_info, *graph.output)
        types = {v.name: v.type.tensor_type.elem_type for v in values} | {
            t.name: t.data_type for t in graph.initializer
        }
        made = {name: node for node in graph.node for name in node.output}
        given = {v.name for v in graph.input}
        own = {t.name: t for t in graph.initializer if t.name not in given}
        hidden = given | made.keys() | own.keys()
        outer = replace(self, **{
            kind: {n: v for n, v in getattr(self, kind).items() if n not in hidden} for kind in ("stored", "makers")
        })  # fmt: skip
        makers = {name: node for name, node in made.items() if _is(node, "DequantizeLinear")}
        return _Scope(self.types | types, outer.stored | own, outer.makers | makers)


class _Work:
    def __init__(self, taken: set[str], unsigned: bool) -> None:
        self.taken, self.unsigned, self.changed = taken, unsigned, False

    def graph(self, graph: onnx.GraphProto, around: _Scope) -> None:
        scope, here = around.inside(graph), {name for node in graph.node for name in node.output}
        for node in list(graph.node):
            for inner in _subgraphs(node):
                self.graph(inner, scope)
            if _is(node, *ZERO_POINTS):
                at, zero_at = ZERO_POINTS[node.op_type]
                first, second = (scope.types.get(node.input[i], 0) for i in (0, at))
                if (first, second) == (UINT8, INT8) and self.unsigned:
                    self.move(graph, scope, node, at, zero_at, OFFSET)
                elif (first, second) == (INT8, UINT8) and node.op_type != "MatMulInteger":
                    self.move(graph, scope, node, at, zero_at, -OFFSET)
            elif self.unsigned and _is(node, *PRODUCTS):
                sides = [scope.makers.get(name) for name in node.input[:2]]
                kinds = [0 if side is None else scope.types.get(side.input[0], 0) for side in sides]
                maker = sides[-1]
                if kinds == [UINT8, INT8] and maker is not None and maker.output[0] in here:
                    self.move(graph, scope, maker, 0, 2, OFFSET)

    def move(self, graph: onnx.GraphProto, scope: _Scope, node: NodeProto, at: int, zero_at: int, offset: int) -> None:
        """Let the node read its bytes and their zero point as the same numbers in the other type."""
        self.changed = True
        zero = node.input[zero_at] if zero_at < len(node.input) else ""
        node.input.extend([""] * (zero_at + 1 - len(node.input)))
        node.input[at] = self.moved(graph, scope, node, node.input[at], offset)
        if zero:
            node.input[zero_at] = self.moved(graph, scope, node, zero, offset)
        elif node.op_type != "DequantizeLinear":
            node.input[zero_at] = self.store(graph, scope, f"{node.input[at]}_zero", np.array(0), offset)
        else:  # one for each scale
            kind = UINT8 if offset > 0 else INT8
            value = helper.make_tensor("value", kind, [1], [max(offset, 0)])
            shape = self.add(graph, scope, node, "Shape", [node.input[1]], TensorProto.INT64)
            node.input[zero_at] = self.add(graph, scope, node, "ConstantOfShape", [shape], kind, value=value)

    def moved(self, graph: onnx.GraphProto, scope: _Scope, node: NodeProto, name: str, offset: int) -> str:
        if name in scope.stored:
            return self.store(graph, scope, name, numpy_helper.to_array(scope.stored[name]), offset)
        wide = self.add(graph, scope, node, "Cast", [name], TensorProto.INT32, to=TensorProto.INT32)
        step = self.store(graph, scope, "offset", np.array(offset, np.int32), None)
        sum_ = self.add(graph, scope, node, "Add", [wide, step], TensorProto.INT32)
        kind = UINT8 if offset > 0 else INT8
        return self.add(graph, scope, node, "Cast", [sum_], kind, to=kind)

    def store(self, graph: onnx.GraphProto, scope: _Scope, name: str, values: np.ndarray, offset: int | None) -> str:
        if offset is not None:
            values = (values.astype(np.int16) + offset).astype(np.uint8 if offset > 0 else np.int8)
        tensor = numpy_helper.from_array(values, self.fresh(f"{name}_moved"))
        graph.initializer.append(tensor)
        scope.types[tensor.name], scope.stored[tensor.name] = tensor.data_type, tensor
        return tensor.name

    def add(
        self, graph: onnx.GraphProto, scope: _Scope, before: NodeProto, op: str, inputs: list[str], kind: int,
        **attributes: Any,
    ) -> str:  # fmt: skip
        name = self.fresh(f"{inputs[0]}_{op}")
        at = next(i for i, node in enumerate(graph.node) if node.output[0] == before.output[0])
        graph.node.insert(at, helper.make_node(op, inputs, [name], name=name, **attributes))
        scope.types[name] = kind
        return name

    def fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


def _is(node: NodeProto, *ops: str) -> bool:
    return node.op_type in ops and node.domain in ("", "ai.onnx")


def _subgraphs(node: NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for inner in _subgraphs(node):
            yield from _graphs(inner)


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)


def _drop_unused(model: onnx.ModelProto) -> None:
    """Stored tensors that nothing reads any more."""
    used = {name for graph in _graphs(model.graph) for node in graph.node for name in node.input}
    used |= {value.name for graph in _graphs(model.graph) for value in graph.output}
    for graph in _graphs(model.graph):
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        if len(kept) < len(graph.initializer):
            del graph.initializer[:]
            graph.initializer.extend(kept)
