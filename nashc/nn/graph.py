"""An ONNX model as a torch module that trains, and back: the same graph, node by node, with other weights and layers.

Values keep their names, so the original and a changed copy can be compared anywhere between input and output. Weights
become parameters under the names of the stored tensors; everything else stays as the file has it. On the way back the
file is edited, not exported anew: names, metadata and shapes of what was not touched are those of the original.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import onnx
import onnx.inliner
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

import nashc.nn.onnx_layers  # noqa: F401
from nashc.errors import NashcError, did_you_mean
from nashc.nn.onnx_ops import OPS
from nashc.ops import DOMAIN, OPSET, register_schemas

Array = NDArray[Any]
STANDARD = ("", "ai.onnx")
TRAINED: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1), "PRelu": (1,),
    "BatchNormalization": (1, 2), "InstanceNormalization": (1, 2), "LayerNormalization": (1, 2),
    f"{DOMAIN}.AdderConv": (1,), f"{DOMAIN}.ShiftConv": (2, 3),
}  # fmt: skip
"""Which operands of an operator are weights, where they are stored as float32."""
FAILURES = (ArithmeticError, AssertionError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Step:
    """One node: run(*inputs) gives its outputs. An absent operand is ""."""

    node: str
    op: str
    run: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"node '{self.node}' ({self.op})"


class Layer(Protocol):
    """What may take the place of a node with weights: a module of its first input."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def to_onnx(self, node: onnx.NodeProto) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
        """Nodes from the first input of `node` to its output, and the tensors that they read."""


class Graph(nn.Module):
    """The module of a model. Inputs and outputs are those of the model, in its order; axis 0 is the batch.

    Raises NashcError for operators, attributes and types that have no torch form, and names the node.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self._model = _inlined(model)
        graph = self._model.graph
        stored = _stored(graph)
        opset = next((o.version for o in self._model.opset_import if o.domain in STANDARD), 1)
        self.inputs = tuple(v.name for v in graph.input if v.name not in stored)
        self.outputs = tuple(v.name for v in graph.output)
        self._keys: dict[str, str] = {}
        self._rounding: dict[str, str] = {}
        weights = _weights(graph, stored)
        for name, value in stored.items():
            self._keep(name, _tensor(name, value), trained=name in weights)
        self.steps: dict[str, Step] = {}
        self._build(graph, opset, weights)

    def _build(self, graph: onnx.GraphProto, opset: int, weights: Collection[str]) -> None:
        """A step for each node; nodes that read constants alone are computed at once."""
        batched, live = set(self.inputs), {*self.inputs, *weights}
        for name, node in zip(node_names(graph), graph.node, strict=True):
            if is_standard(node, "Constant"):
                continue
            step = _step(name, node, opset, bool(node.input) and node.input[0] in batched)
            if any(i in batched for i in node.input):
                batched.update(node.output)
            if any(i in live for i in node.input):
                live.update(node.output)
                self.steps[name] = step
                continue
            for output, value in zip(
                step.outputs, _call(step, [self._operand(i, step) for i in step.inputs]), strict=False
            ):
                self._keep(output, value, trained=False)

    def _keep(self, name: str, value: Tensor, *, trained: bool) -> None:
        key = name.replace(".", "/") or "_"  # torch reserves the dot
        while key in self._keys.values() or hasattr(self, key):
            key += "_"
        self._keys[name] = key
        if trained:
            self.register_parameter(key, nn.Parameter(value))
        else:
            self.register_buffer(key, value, persistent=False)

    def _constant(self, name: str) -> Tensor | None:
        return getattr(self, self._keys[name]) if name in self._keys else None

    def _operand(self, name: str, step: Step) -> Tensor | None:
        if name and name not in self._keys:
            raise NashcError(f"reads '{name}', an output that has no torch form", where=step.where)
        return self._constant(name)

    def swap(self, node: str, layer: nn.Module) -> None:
        """Let `layer` (a Layer) compute what the node computed of its first input."""
        step = self.step_of(node)
        key = f"layer/{node.replace('.', '/')}"
        self.add_module(key, layer)
        self.steps[node] = replace(step, run=layer, inputs=step.inputs[:1])

    def round_value(self, name: str, rounding: nn.Module) -> None:
        """Let every reader of the value see what `rounding` makes of it."""
        key = f"value/{name.replace('.', '/')}"
        self.add_module(key, rounding)
        self._rounding[name] = key

    def step_of(self, node: str) -> Step:
        if node not in self.steps:
            raise NashcError(f"no node '{node}'", where="model", hint=did_you_mean(node, self.steps))
        return self.steps[node]

    def weight(self, name: str) -> Tensor:
        """A stored tensor."""
        value = self._constant(name)
        if value is None:
            raise NashcError(f"'{name}' is not stored in the model", where="model")
        return value

    def is_stored(self, name: str) -> bool:
        """A tensor of the model, no computed value."""
        return name in self._keys

    def is_weight(self, name: str) -> bool:
        """A stored tensor that trains."""
        return isinstance(self._constant(name), nn.Parameter)

    def forward(self, *inputs: Tensor) -> Any:
        """The outputs; a single one as it is, several as a tuple."""
        found = self.values(inputs, self.outputs)
        results = tuple(found[name] for name in self.outputs)
        return results[0] if len(results) == 1 else results

    def values(self, inputs: Iterable[Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
        """The values of these names, of all steps that they need."""
        known: dict[str, Tensor] = {}
        for name, value in zip(self.inputs, inputs, strict=True):
            known[name] = self._rounded(name, value)
        order, last = self._needed(wanted)
        for i, step in enumerate(order):
            given = [known[n] if n in known else self._operand(n, step) for n in step.inputs]
            for name, value in zip(step.outputs, _call(step, given), strict=False):
                if name:
                    known[name] = self._rounded(name, value)
            for name in set(step.inputs):
                if last.get(name) == i and name not in wanted:
                    known.pop(name, None)
        return {name: known[name] if name in known else self.weight(name) for name in wanted}

    def _rounded(self, name: str, value: Tensor) -> Tensor:
        return getattr(self, self._rounding[name])(value) if name in self._rounding else value

    def _needed(self, wanted: Collection[str]) -> tuple[list[Step], dict[str, int]]:
        """The steps in order, and the index of the last one that reads a value."""
        needed, order = set(wanted), []
        for step in reversed(self.steps.values()):
            if needed.intersection(step.outputs):
                needed.update(step.inputs)
                order.append(step)
        order.reverse()
        return order, {name: i for i, step in enumerate(order) for name in step.inputs}

    def to_onnx(self) -> onnx.ModelProto:
        """The model with the weights and layers of now."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        graph, tensors, nodes = model.graph, {}, []
        for name, key in self._keys.items():
            if isinstance(getattr(self, key), nn.Parameter):
                tensors[name] = getattr(self, key).detach().cpu().numpy()
        for name, node in zip(node_names(graph), graph.node, strict=True):
            layer = self.steps[name].run if name in self.steps else None
            if is_standard(node, "Constant") and node.output[0] in tensors:
                continue
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            if not isinstance(layer, nn.Module):
                nodes.append(copy)
                continue
            copy.name = name
            made, own = layer.to_onnx(copy)  # type: ignore[operator]
            nodes += made
            tensors |= own
        return _edited(model, nodes, tensors)


def _step(name: str, node: onnx.NodeProto, opset: int, batched: bool) -> Step:
    op = node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
    step = Step(name, op, None, tuple(node.input), tuple(node.output))
    if op not in OPS:
        raise NashcError(f"the operator {op} has no torch form", where=step.where, hint=did_you_mean(op, OPS))
    function = OPS.get(op)
    attributes = {a.name: _attribute(a, step) for a in node.attribute}
    context = {"opset": opset, "batched": batched, "outputs": len(node.output)}
    known = inspect.signature(function).parameters
    keywords = attributes | {k: v for k, v in context.items() if k in known}
    try:
        inspect.signature(function).bind(*node.input, **keywords)
    except TypeError as error:
        hint = "an attribute or operand that has no torch form; onnx.version_converter may help with old opsets"
        raise NashcError(str(error), where=step.where, hint=hint) from None
    return replace(step, run=partial(function, **keywords))


def _attribute(attribute: onnx.AttributeProto, step: Step) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return _tensor(attribute.name, numpy_helper.to_array(value))
    if isinstance(value, onnx.GraphProto):
        raise NashcError("control flow has no torch form", where=step.where, hint="export the model without it")
    return value


def _call(step: Step, given: list[Tensor | None]) -> tuple[Tensor, ...]:
    while given and given[-1] is None:
        given.pop()
    try:
        found = step.run(*given)
    except NashcError as error:
        raise NashcError(
            error.what, where=f"{step.where}{f': {error.where}' if error.where else ''}", hint=error.hint
        ) from None
    except FAILURES as error:
        shapes = ", ".join("none" if v is None else str(list(v.shape)) for v in given)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise NashcError(f"fails on inputs of shape {shapes}: {lines[0]}", where=step.where) from error
    return found if isinstance(found, tuple) else (found,)


def node_names(graph: onnx.GraphProto) -> list[str]:
    """As nashc.passes names them: a nameless node is TYPE_INDEX, later ones of the same name get a number."""
    taken: set[str] = set()
    names = []
    for i, node in enumerate(graph.node):
        base = node.name or f"{node.op_type}_{i}"
        name, n = base, 1
        while name in taken:
            n += 1
            name = f"{base}_{n}"
        taken.add(name)
        names.append(name)
    return names


def is_standard(node: onnx.NodeProto, op: str) -> bool:
    return node.domain in STANDARD and node.op_type == op


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without model-local functions, those of ai.nashc among them: their nodes stay."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    others = [f for f in copy.functions if f.domain != DOMAIN]
    del copy.functions[:]
    if not others:
        return copy
    copy.functions.extend(others)
    return onnx.inliner.inline_local_functions(copy)


def _stored(graph: onnx.GraphProto) -> dict[str, Array]:
    """Initializers and the values of Constant nodes."""
    if graph.sparse_initializer:
        raise NashcError("sparse tensors have no torch form", where="model", hint="store them dense")
    found = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if is_standard(node, "Constant"):
            attribute = node.attribute[0]
            value = onnx.helper.get_attribute_value(attribute)
            if attribute.name not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
                raise NashcError(f"a constant of '{attribute.name}' has no torch form", where=f"node '{node.name}'")
            kind = np.float32 if "float" in attribute.name else np.int64
            found[node.output[0]] = (
                numpy_helper.to_array(value) if attribute.name == "value" else np.asarray(value, kind)
            )
    return found


def _weights(graph: onnx.GraphProto, stored: Mapping[str, Array]) -> set[str]:
    found: set[str] = set()
    for node in graph.node:
        op = node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
        found.update(node.input[i] for i in TRAINED.get(op, ()) if i < len(node.input))
    return {name for name in found if name in stored and stored[name].dtype == np.float32}


def _tensor(name: str, value: Array) -> Tensor:
    try:
        return torch.from_numpy(np.array(value))
    except TypeError:
        raise NashcError(f"tensor '{name}' is {value.dtype}, which has no torch form", where="model") from None


def _edited(model: onnx.ModelProto, nodes: list[onnx.NodeProto], tensors: Mapping[str, Array]) -> onnx.ModelProto:
    """The model with these nodes, and with the stored tensors that they read."""
    graph = model.graph
    read = {name for node in nodes for name in node.input} | {v.name for v in graph.output}
    gone = {t.name for t in graph.initializer} - read
    for i in reversed(range(len(graph.initializer))):
        if graph.initializer[i].name in gone or graph.initializer[i].name in tensors:
            del graph.initializer[i]
    for i in reversed(range(len(graph.input))):
        if graph.input[i].name in gone:
            del graph.input[i]
    graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in tensors.items() if n in read)
    del graph.node[:]
    graph.node.extend(nodes)
    if any(node.domain == DOMAIN for node in nodes) and not any(o.domain == DOMAIN for o in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, OPSET))
    model.ir_version = max(model.ir_version, 4)  # stored tensors that are no inputs
    register_schemas()
    onnx.checker.check_model(model)
    return model
