"""A simplified model as stages: the groups of nodes that the accelerator runs in one pass, and their values.

A stage reads values that are quantised, computes in wide numbers, and ends in one value that is quantised: so a hybrid
rounds exactly where the accelerator requantises (importer.group). Values that a stage only moves keep the step of what
it reads; all values that have to share a step form a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from nashc.errors import NashcError
from nashc.hybridize.statistics import Window
from nashc.importer.group import Group
from nashc.importer.layout import Layout
from nashc.importer.ops import KEEPS_VALUES, RENAMES, has_weights
from nashc.importer.partition import groups
from nashc.ops import DOMAIN
from nashc.ops.adder_conv import SAME_STEP, STEP, step_said
from nashc.passes.graph import array, is_constant, is_op, mark_constants, new_initializer, static_shape, where
from nashc.passes.window import window

Array = NDArray[Any]
VIEWS = (*RENAMES, "Identity", "Dropout", "Split")
"""Those of them behind which nothing is quantised anew."""
FORMS = {"Gemm": "export it without transA", "MatMul": "export its weights as a matrix"}
"""Of layers with float32 weights that have no integer form, what would have one."""
OUTPUT_FUNCTIONS = ("Softmax", "LogSoftmax", "ArgMax", "Sigmoid", "TopK")
"""At the end of a model, what the host makes of the last map: it reads 8 bits and is not quantised itself."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """The node with weights of a stage. `window` is None where weights are rounded without reconstruction."""

    node: str
    op: str
    weight: str
    bias: str
    axis: int
    window: Window | None
    macs: int


@dataclass(frozen=True, slots=True)
class Stage:
    """Nodes that run in one pass. inputs: computed values that it reads; outputs: the value that it ends in, or all
    parts of a split."""

    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weighted: Weighted | None = None


@dataclass(frozen=True)
class Staged:
    """A model in stages, in an order that respects data flow.

    shapes: of every computed value, for one image. steps: value -> its class, for every value that is quantised; the
    first of a class names it. moved: values that hold nothing that is not in their class anyway. adders: class ->
    weights that need the step of the class (AdderConv); adder_scales: class -> scale of that step where the node's
    metadata says it.
    """

    model: onnx.ModelProto
    stages: tuple[Stage, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    steps: dict[str, str]
    moved: frozenset[str]
    adders: dict[str, tuple[Array, ...]]
    adder_scales: dict[str, float]
    tensors: dict[str, Array] = field(repr=False)


def staged(model: ir.Model) -> Staged:
    """Stages of a model that `simplify` has prepared, with static shapes.

    Every node with stored weights gets its own, in place, and Conv and Gemm a bias [M].
    """
    graph = model.graph
    mark_constants(graph)
    for node in graph:
        adder = node.domain == DOMAIN and node.op_type == "AdderConv"
        if (adder or is_op(node, "Conv", "Gemm", "MatMul", "ConvTranspose")) and len(node.inputs) > 1:
            _own_operands(graph, node)
    layout = Layout(graph)
    found = [(group, _stage(group)) for group in groups(graph, layout)]
    for group, stage in found:
        if stage.weighted is None and has_weights(group.head) and group.head.domain != DOMAIN:
            hint = FORMS.get(group.head.op_type, "export it with float32 weights")
            raise NashcError("its weights have no integer form", where=where(group.head), hint=hint)
    inputs = tuple(v.name or "" for v in graph.inputs if v.name not in graph.initializers and v.uses())
    outputs = tuple(v.name or "" for v in graph.outputs if not is_constant(v))
    shapes: dict[str, tuple[int, ...]] = {}
    for value in (*graph.inputs, *(v for node in graph for v in node.outputs)):
        shape = static_shape(value)
        if value.name and shape is not None:
            shapes[value.name] = shape
    steps, moved, adders = _classes(graph, found, inputs, outputs)
    proto = ir.to_proto(model)
    tensors = {n: v.const_value.numpy() for n, v in graph.initializers.items() if v.const_value is not None}
    return Staged(
        proto,
        tuple(s for _, s in found),
        inputs,
        outputs,
        shapes,
        steps,
        frozenset(moved),
        adders,
        _adder_scales(graph, steps),
        tensors,
    )


def _adder_scales(graph: ir.Graph, steps: Mapping[str, str]) -> dict[str, float]:
    """What fine-tuning rounded to."""
    found: dict[str, float] = {}
    for node in graph:
        text = node.metadata_props.get(STEP)
        x = node.inputs[0] if node.inputs else None
        if text is None or x is None or x.name is None or x.name not in steps:
            continue
        scale = step_said(text, where(node))
        known = found.setdefault(steps[x.name], scale)
        if abs(known - scale) > SAME_STEP * scale:
            raise NashcError(
                f"trained with the step {scale:g}, and another layer on the same values with {known:g}",
                where=where(node), hint="fine-tune it again: values that are concatenated share their step",
            )  # fmt: skip
    return found


def _own_operands(graph: ir.Graph, node: ir.Node) -> None:
    weights, given = array(node.inputs[1]), node.inputs[2] if len(node.inputs) > 2 else None
    bias = array(given)
    if weights is None or (given is not None and bias is None):
        return
    if is_op(node, "Gemm"):  # integers have no factors beside their scales
        alpha, beta = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
        weights = weights * weights.dtype.type(alpha)
        bias = bias if bias is None else bias * bias.dtype.type(beta)
        for name in ("alpha", "beta"):
            node.attributes.pop(name, None)
    node.replace_input_with(1, new_initializer(graph, f"{node.name}_weight", weights))
    if is_op(node, "MatMul") or (bias is None and not is_op(node, "Conv")):
        return
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    channels = weights.shape[_axis(node)]
    if bias is None:
        bias = np.zeros(channels, weights.dtype)
    elif is_op(node, "Gemm") and bias.size == max(1, *bias.shape[-1:]):
        bias = np.broadcast_to(bias.reshape(-1), channels).copy()
    node.replace_input_with(2, new_initializer(graph, f"{node.name}_bias", bias))


def _axis(node: ir.Node) -> int:
    """Of the weights: the output channels."""
    if is_op(node, "MatMul"):
        return len(static_shape(node.inputs[1]) or (0, 0)) - 1  # type: ignore[arg-type]
    return 0 if is_op(node, "Conv") or (is_op(node, "Gemm") and node.attributes.get_int("transB", 0) == 1) else 1


def _stage(group: Group) -> Stage:
    inside = {v for node in group.nodes for v in node.outputs}
    reads = [v for node in group.nodes for v in node.inputs if v is not None and v not in inside and not is_constant(v)]
    names = tuple(dict.fromkeys(v.name or "" for v in reads))
    nodes = tuple(node.name or "" for node in group.nodes)
    ends = [v.name or "" for v in group.head.outputs if v.uses() or v.is_graph_output()]
    outputs = tuple(ends) if len(ends) > 1 else (group.output.name or "",)
    return Stage(nodes, names, outputs, _weighted(group.head))


def _weighted(node: ir.Node) -> Weighted | None:
    if not has_weights(node) or node.domain == DOMAIN:
        return None
    weights, bias = array(node.inputs[1]), node.inputs[2] if len(node.inputs) > 2 else None
    out, x = static_shape(node.outputs[0]), static_shape(node.inputs[0])  # type: ignore[arg-type]
    groups = node.attributes.get_int("group", 1) if is_op(node, "ConvTranspose") else 1
    if weights is None or weights.dtype != np.float32 or out is None or x is None:
        return None
    if bias is not None and static_shape(bias) != (weights.shape[_axis(node)] * groups,):
        bias = None  # one of every output is added as it is
    names = ((node.inputs[1].name or "") if node.inputs[1] else "", (bias.name or "") if bias is not None else "")
    axis = _axis(node)
    if is_op(node, "Conv"):
        macs = int(np.prod(out)) * int(np.prod(weights.shape[1:]))
        return Weighted(node.name or "", "Conv", *names, axis, _window(node), macs)
    if is_op(node, "Gemm"):
        plain = node.attributes.get_int("transA", 0) == 0
        return Weighted(node.name or "", "Gemm", *names, axis, None, weights.size) if plain else None
    if is_op(node, "MatMul") and weights.ndim > 1:
        return Weighted(node.name or "", "MatMul", *names, axis, None, int(np.prod(out)) * weights.shape[-2])
    if is_op(node, "ConvTranspose"):
        macs = int(np.prod(x)) * int(np.prod(weights.shape[1:]))
        return Weighted(node.name or "", "ConvTranspose", *names, axis, None, macs)
    return None


def _window(node: ir.Node) -> Window:
    frame = window(node)
    pads = (*frame.begin, *frame.end)
    return Window(frame.kernel, frame.stride, frame.dilation, pads, node.attributes.get_int("group", 1))


def _classes(
    graph: ir.Graph, found: list[tuple[Group, Stage]], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> tuple[dict[str, str], set[str], dict[str, tuple[Array, ...]]]:
    """The class of every quantised value, the values that a move made, and the adder weights of each class."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for name in inputs:
        parent[name] = name
    moved: set[str] = set()
    for group, stage in found:
        alone = len(group.nodes) == 1
        known = bool(stage.inputs) and all(n in parent for n in stage.inputs)
        if alone and is_op(group.head, *OUTPUT_FUNCTIONS) and any(name in outputs for name in stage.outputs):
            continue
        if alone and is_op(group.head, *VIEWS) and not known:
            continue
        for value in (group.output, *group.head.outputs):
            name = value.name or ""
            if name not in stage.outputs or (value.dtype is not None and value.dtype != ir.DataType.FLOAT):
                continue
            if alone and known and is_op(group.head, *KEEPS_VALUES):
                parent[name] = root(stage.inputs[0])
                for other in stage.inputs[1:]:
                    parent[root(other)] = root(stage.inputs[0])
                constants = (v for v in group.head.inputs if v is not None and is_constant(v))
                if not any(v.dtype == ir.DataType.FLOAT for v in constants):
                    moved.add(name)
            else:
                parent[name] = name
    weights: dict[str, tuple[Array, ...]] = {}
    for node in graph:
        x = node.inputs[0] if node.inputs else None
        if node.domain == DOMAIN and node.op_type == "AdderConv" and x is not None and x.name in parent:
            w = array(node.inputs[1])
            if w is not None:
                weights[root(x.name)] = (*weights.get(root(x.name), ()), w)
    return {name: root(name) for name in parent}, moved, weights
