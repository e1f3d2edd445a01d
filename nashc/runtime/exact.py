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

from nashc.importer.ops import KEEPS_VALUES, MOVES
from nashc.ops.embed import subgraphs

OFFSET = 128
ZERO_POINTS = {"QLinearConv": (3, 5), "QLinearMatMul": (3, 5), "ConvInteger": (1, 3), "MatMulInteger": (1, 3)}
"""Operators that multiply bytes: their second factor and its zero point; the first factor is input 0."""
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that onnxruntime computes with bytes where both factors come from DequantizeLinear."""
VIEWS = (*MOVES, *KEEPS_VALUES)
"""Operators that may stand between: onnxruntime takes a DequantizeLinear through them."""
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
    """A copy whose products onnxruntime computes exactly; the model itself where there are none of bytes.

    Types have to be inferred. `unsigned`: uint8 by int8 is wrong here (`saturates`).
    """
    if not any(_is(node, "DequantizeLinear", *ZERO_POINTS) for graph in _graphs(model.graph) for node in graph.node):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    work = _Work({name for graph in _graphs(made.graph) for name in _names(graph)}, unsigned)
    work.graph(made.graph, _Scope())
    if not work.replaced:
        return model
    work.drop(made)
    return made


@dataclass
class _Scope:
    """What a graph sees by name: element types, stored tensors, and the nodes that make values."""

    types: dict[str, int] = field(default_factory=dict)
    stored: dict[str, TensorProto] = field(default_factory=dict)
    makers: dict[str, NodeProto] = field(default_factory=dict)

    def inside(self, graph: onnx.GraphProto) -> _Scope:
        """Also what the graph itself has, which hides the names around it."""
        values = (*graph.input, *graph.value_info, *graph.output)
        types = {v.name: v.type.tensor_type.elem_type for v in values}
        types |= {t.name: t.data_type for t in graph.initializer}
        made = {name: node for node in graph.node for name in node.output}
        given = {v.name for v in graph.input}
        own = {t.name: t for t in graph.initializer if t.name not in given}
        hidden = given | made.keys() | own.keys()
        outer = replace(self, **{
            kind: {n: v for n, v in getattr(self, kind).items() if n not in hidden} for kind in ("stored", "makers")
        })  # fmt: skip
        return _Scope(self.types | types, outer.stored | own, outer.makers | made)

    def sources(self, name: str) -> list[NodeProto]:
        """The DequantizeLinear nodes whose values these are, moved or put together; none where it is not so simple."""
        found, seen, left = [], set[str](), [name]
        while left:  # each value once: branches of moves may meet again and again
            part = left.pop()
            node = self.makers.get(part)
            if node is None or part in seen:
                continue
            seen.add(part)
            if _is(node, "DequantizeLinear"):
                found.append(node)
            elif _is(node, *VIEWS):
                left += node.input if node.op_type == "Concat" else node.input[:1]
        return found

    def kinds(self, nodes: list[NodeProto]) -> set[int]:
        return {self.types.get(node.input[0], 0) for node in nodes}


class _Work:
    """`replaced`: what nodes read before."""

    def __init__(self, taken: set[str], unsigned: bool) -> None:
        self.taken, self.unsigned = taken, unsigned
        self.replaced: set[str] = set()

    def graph(self, graph: onnx.GraphProto, around: _Scope) -> None:
        scope = around.inside(graph)
        place = _Place(self, graph, scope)
        factors = []
        for node in graph.node:
            for inner in subgraphs(node):
                self.graph(inner, scope)
            if _is(node, *ZERO_POINTS):
                at, zero_at = ZERO_POINTS[node.op_type]
                first, second = (scope.types.get(node.input[i], 0) for i in (0, at))
                if (first, second) == (UINT8, INT8) and self.unsigned:
                    place.move(node, at, zero_at, OFFSET)
                elif (first, second) == (INT8, UINT8) and node.op_type != "MatMulInteger":
                    place.move(node, at, zero_at, -OFFSET)
            elif self.unsigned and _is(node, *PRODUCTS):
                factors.append([scope.sources(name) for name in node.input[:2]])
        here = {node.output[0] for node in graph.node}
        changed = True
        while changed:  # moving the second factor of one product may move the first of another
            changed = False
            for one, other in factors:
                if scope.kinds(one) == {INT8}:
                    continue
                for node in other:
                    if scope.kinds([node]) == {INT8} and node.output[0] in here:
                        place.move(node, 0, 2, OFFSET)
                        changed = True
        place.rebuild()

    def fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def drop(self, model: onnx.ModelProto) -> None:
        """Take out the stored tensors that were replaced and that nothing reads any more."""
        graphs = list(_graphs(model.graph))
        used = {name for graph in graphs for node in graph.node for name in node.input}
        used |= {value.name for graph in graphs for value in (*graph.output, *graph.input)}
        for graph in graphs:
            kept = [tensor for tensor in graph.initializer if tensor.name in used or tensor.name not in self.replaced]
            if len(kept) < len(graph.initializer):
                del graph.initializer[:]
                graph.initializer.extend(kept)


class _Place:
    """Changes of one graph: its nodes are put together once, in the end."""

    def __init__(self, work: _Work, graph: onnx.GraphProto, scope: _Scope) -> None:
        self.work, self.graph, self.scope = work, graph, scope
        self.before: dict[str, list[NodeProto]] = {}
        self.known: dict[tuple[str, int], str] = {}

    def move(self, node: NodeProto, at: int, zero_at: int, offset: int) -> None:
        """Let the node read its bytes and their zero point as the same numbers in the other type."""
        zero = node.input[zero_at] if zero_at < len(node.input) else ""
        node.input.extend([""] * (zero_at + 1 - len(node.input)))
        node.input[at] = self.moved(node, node.input[at], offset)
        scale = self.scope.stored.get(node.input[1]) if node.op_type == "DequantizeLinear" else None
        if zero:
            node.input[zero_at] = self.moved(node, zero, offset)
        elif node.op_type != "DequantizeLinear" or scale is not None:
            shape = () if scale is None else tuple(scale.dims)
            node.input[zero_at] = self.store("zero", _byte(np.full(shape, offset), offset))
        else:  # one for each scale
            kind = _kind(offset)
            value = helper.make_tensor("value", kind, [1], [max(offset, 0)])
            sizes = self.add(node, "Shape", [node.input[1]], TensorProto.INT64)
            node.input[zero_at] = self.add(node, "ConstantOfShape", [sizes], kind, value=value)

    def moved(self, node: NodeProto, name: str, offset: int) -> str:
        """The name of the value plus the offset, in the other type."""
        self.work.replaced.add(name)
        if name not in self.scope.stored:
            wide = self.add(node, "Cast", [name], TensorProto.INT32, to=TensorProto.INT32)
            step = self.store("offset", np.array(offset, np.int32))
            sum_ = self.add(node, "Add", [wide, step], TensorProto.INT32)
            return self.add(node, "Cast", [sum_], _kind(offset), to=_kind(offset))
        if (name, offset) not in self.known:
            values = numpy_helper.to_array(self.scope.stored[name]).astype(np.int16) + offset
            self.known[name, offset] = self.store(name, _byte(values, offset))
        return self.known[name, offset]

    def store(self, name: str, values: np.ndarray) -> str:
        tensor = numpy_helper.from_array(values, self.work.fresh(f"{name}_moved"))
        self.graph.initializer.append(tensor)
        self.scope.types[tensor.name], self.scope.stored[tensor.name] = tensor.data_type, tensor
        return tensor.name

    def add(self, before: NodeProto, op: str, inputs: list[str], kind: int, **attributes: Any) -> str:
        name = self.work.fresh(f"{inputs[0]}_{op}")
        self.before.setdefault(before.output[0], []).append(helper.make_node(op, inputs, [name], name, **attributes))
        self.scope.types[name] = kind
        return name

    def rebuild(self) -> None:
        if self.before:
            nodes = [new for node in self.graph.node for new in (*self.before.get(node.output[0], ()), node)]
            copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del self.graph.node[:]
            self.graph.node.extend(copies)


def _kind(offset: int) -> int:
    return int(UINT8 if offset > 0 else INT8)


def _byte(values: np.ndarray, offset: int) -> np.ndarray:
    return values.astype(np.uint8 if offset > 0 else np.int8)


def _is(node: NodeProto, *ops: str) -> bool:
    return node.op_type in ops and node.domain in ("", "ai.onnx")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _graphs(inner)


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
