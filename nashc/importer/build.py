"""onnx_ir.Model -> Network: walk the groups in order and write one layer for each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from nashc.core.loops import LoopNest
from nashc.core.network import Layer, Network, Tensor, Unit, Weights
from nashc.errors import NashcError
from nashc.importer.group import Group, grow, per_channel, start_activation, stored_bits
from nashc.importer.layout import Axes, Layout, carry, split
from nashc.importer.nests import Size, compute_nest, pixel_nest, pool_nest
from nashc.importer.ops import BINARY, MOVES, POOLS, REDUCTIONS, UNARY, compute_unit, weight_index
from nashc.passes.graph import array, elements, is_constant, is_op, shape_of, static_shape
from nashc.passes.provenance import Skip, sources
from nashc.passes.transpose import permutation

ALIGN = 16
"""Channels of one stored word group: a part of a concat that starts elsewhere is written in pieces."""


class Builder:
    """Builds the layers of one graph; use `build`."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.layout = Layout(model.graph)
        self.tensors: dict[str, Tensor] = {}
        self.layers: list[Layer] = []
        self.views: list[Skip] = []
        self.constants: list[str] = []
        self._stored: dict[ir.Value, str] = {}
        self._names: set[str] = set()

    # ---- tensors

    def define(self, value: ir.Value, size: Size | None = None, bits: int | None = None) -> str:
        """The tensor that holds `value`, made on first use."""
        if value not in self._stored:
            channels, rows, columns = size or self.layout.size(value)
            name = value.name or f"value_{len(self.tensors)}"
            self.tensors[name] = Tensor(name, channels, rows, columns, bits or stored_bits(value))
            self._stored[value] = name
        return self._stored[value]

    def size(self, value: ir.Value) -> Size:
        """Channels, rows and columns of the value as stored."""
        tensor = self.tensors[self.read(value)]
        return tensor.channels, tensor.rows, tensor.columns

    def read(self, value: ir.Value, axes: Axes | None = None) -> str:
        """The tensor to read `value` from. A constant map is read from DRAM like an input.

        `axes`: the channel axes that the reader needs; other data is brought in order by a layer of its own.
        """
        if value not in self._stored:
            if not is_constant(value):
                raise NashcError(f"'{value.name}' is used before it is computed", hint="export the model again")
            self.constants.append(self.define(value))
        name = self._stored[value]
        shape = static_shape(value)
        if axes is None or shape is None or _same_order(shape, self.layout.axes(value), axes):
            return name
        target = self.unique(f"{name}_relaid")
        size = split(shape, axes)
        if target not in self.tensors:
            self.tensors[target] = Tensor(target, *size, self.tensors[name].bits)
            self.layers.append(
                Layer(target, "Transpose", Unit.VECTOR, pixel_nest(size), (name,), target, scattered=True,
                      note="brings channels together for the next layer")
            )  # fmt: skip
        return target

    def unique(self, name: str) -> str:
        """A layer name not yet taken."""
        found, n = name, 1
        while found in self._names:
            n += 1
            found = f"{name}_{n}"
        self._names.add(found)
        return found

    def view(self, node: ir.Node, value: ir.Value, reason: str) -> None:
        """The node's output is `value` by another name."""
        self._stored[node.outputs[0]] = self.read(value)
        self.views += [Skip(name, reason) for name in sources(node)]

    # ---- layers

    def emit(self, node: ir.Node, unit: Unit, nest: LoopNest, inputs: list[str], output: str, **fields: object) -> None:
        """Append one layer."""
        nodes = fields.pop("nodes", [node])
        names = [name for n in nodes for name in sources(n)]  # type: ignore[attr-defined]
        names += [name for n in constant_side(nodes) for name in sources(n)]  # type: ignore[arg-type]
        layer = Layer(
            self.unique(node.name or node.op_type), node.op_type, unit, nest, tuple(dict.fromkeys(inputs)) if inputs else (), output,
            nodes=tuple(dict.fromkeys(names)), **fields,  # type: ignore[arg-type]
        )  # fmt: skip
        self.layers.append(layer)


def constant_side(nodes: list[ir.Node]) -> list[ir.Node]:
    """Nodes that prepare the constants of `nodes`, such as the DequantizeLinear of a weight."""
    found: list[ir.Node] = []
    pending = [v for node in nodes for v in node.inputs if v is not None and v.const_value is None]
    while pending:
        value = pending.pop()
        node = value.producer()
        if node is not None and node not in found and node not in nodes and is_constant(value):
            found.append(node)
            pending += [v for v in node.inputs if v is not None and v.const_value is None]
    return found


def _same_order(shape: tuple[int, ...], a: Axes, b: Axes) -> bool:
    """Both choices of channel axes store the same bytes in the same order."""
    real = [i for i, d in enumerate(shape) if d != 1]
    first = [i for i in real if i not in a] + [i for i in a if i in real]
    second = [i for i in real if i not in b] + [i for i in b if i in real]
    return first == second


def build(model: ir.Model, name: str) -> tuple[Network, tuple[Skip, ...]]:
    """The network of a simplified model, and the nodes that are views."""
    b = Builder(model)
    graph = model.graph
    for value in graph.inputs:
        if value.name not in graph.initializers and (value.uses() or value.is_graph_output()):
            b.define(value, bits=_input_bits(value))
    inputs = tuple(b.tensors)
    for group in _groups(graph, b.layout):
        _layer(b, group)
    outputs = []
    for value in graph.outputs:
        if value in b._stored:
            outputs.append(b._stored[value])
        else:
            outputs.append(b.read(value))
    network = Network(
        name,
        tuple(b.layers),
        tuple(b.tensors.values()),
        (*inputs, *dict.fromkeys(b.constants)),
        tuple(dict.fromkeys(outputs)),
    )
    return network, tuple(b.views)


def _input_bits(value: ir.Value) -> int:
    """An input that is quantised at once arrives quantised."""
    kinds = {u.node.outputs[0].dtype for u in value.uses() if is_op(u.node, "QuantizeLinear")}
    if len(kinds) == 1 and len(value.uses()) == sum(is_op(u.node, "QuantizeLinear") for u in value.uses()):
        return stored_bits(next(u.node.outputs[0] for u in value.uses()))
    return stored_bits(value)


def _groups(graph: ir.Graph, layout: Layout) -> list[Group]:
    """Every node in exactly one group, groups in an order that respects data flow.

    Layers with weights choose first, the last one first: of two that end in one Add, the later one does the sum.
    A group stands where its last node stands, since by then everything that it reads is there.
    """
    nodes = list(graph)
    index = {node: i for i, node in enumerate(nodes)}
    claimed: set[ir.Node] = set()
    groups: list[Group] = []

    def claim(group: Group) -> None:
        claimed.update(group.nodes)
        groups.append(group)

    for node in reversed(nodes):
        if node not in claimed and has_weights(node):
            claim(grow(node, layout, claimed, residual=True))
    for node in nodes:
        if node in claimed or (
            node.outputs
            and all(is_constant(v) for v in node.outputs if v.uses())
            and any(v.uses() for v in node.outputs)
        ):
            continue
        group = None
        if len(node.outputs) == 1 and node.domain in ("", "ai.onnx"):
            for x in dict.fromkeys(v for v in node.inputs if v is not None and not is_constant(v)):
                group = start_activation(x, node, claimed)
                if group is not None:
                    break
            if group is None and (
                is_op(node, *POOLS, *BINARY, "BatchNormalization", *UNARY) or _spatial_reduction(node, layout)
            ):
                group = grow(node, layout, claimed, residual=False)
        claim(group or Group(node, node.outputs[0] if node.outputs else ir.Value(), [node]))
    groups.sort(key=lambda g: max(index[n] for n in g.nodes))
    return groups


def has_weights(node: ir.Node) -> bool:
    """A compute node whose weights are constants, over at most two spatial axes."""
    index = weight_index(node)
    if index is None:
        return False
    weight, x = node.inputs[index], node.inputs[0]
    if weight is None or x is None or not is_constant(weight) or is_constant(x):
        return False
    if node.op_type in ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"):
        shape = static_shape(weight)
        return shape is not None and elements(shape[:-2]) == 1
    return len(static_shape(x) or ()) in (3, 4)


def _layer(b: Builder, group: Group) -> None:
    """Write the layers of one group."""
    node = group.head
    if has_weights(node):
        _compute(b, group)
    elif any(
        static_shape(v) is None
        for v in (*node.inputs, *node.outputs)
        if v is not None and (v.uses() or v.is_graph_output())
    ):
        _host(b, node, "its shape depends on the data")
    elif (group.activation and len(group.nodes) > 0 and node.op_type not in (*POOLS, *BINARY)) or is_op(node, *UNARY):
        _elementwise(b, group)
    elif is_op(node, *POOLS):
        _pool(b, group)
    elif _spatial_reduction(node, b.layout):
        _reduction(b, group)
    elif is_op(node, *BINARY, "BatchNormalization"):
        _elementwise(b, group)
    elif is_op(node, "QuantizeLinear", "DequantizeLinear"):
        _quantise(b, node)
    elif is_op(node, *MOVES):
        _move(b, node)
    else:
        _host(b, node, _why_host(node))


def _compute(b: Builder, group: Group) -> None:
    node = group.head
    x = node.inputs[0]
    index = weight_index(node)
    assert x is not None and index is not None
    weight = node.inputs[index]
    assert weight is not None
    product = node.op_type in ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul")
    rank = len(shape_of(x, node))
    axes = (0 if node.attributes.get_int("transA", 0) and node.op_type == "Gemm" else rank - 1,) if product else (1,)
    source = b.read(x) if product and elements(shape_of(x, node)) == shape_of(x, node)[axes[0]] else b.read(x, axes)
    tensor = b.tensors[source]
    nest = compute_nest(node, (tensor.channels, tensor.rows, tensor.columns))
    unit = compute_unit(node)
    transposed = is_op(node, "ConvTranspose")
    b.emit(
        node, unit, nest, [source, *(b.read(v) for v in group.extra)], b.define(group.output),
        weights=_weights(node, weight, unit), activation=group.activation, nodes=group.nodes, scattered=transposed,
        note="sub-pixel form: each output phase is a convolution, pixels are interleaved when stored" if transposed else "",
    )  # fmt: skip


def _weights(node: ir.Node, value: ir.Value, unit: Unit) -> Weights:
    name = value.name or f"{node.name}_weights"
    if unit is not Unit.SHIFT:
        return Weights(name, stored_bits(value))
    codes = array(value)
    terms = shape_of(value, node)[0]
    wide = codes is None or (codes.size > 0 and int(np.abs(codes.astype(np.int64)).max()) > 7)
    return Weights(name, 5 if wide else 4, terms)


def _operands(b: Builder, node: ir.Node, inside: Group) -> tuple[list[str], Weights | None]:
    """Tensors that an element-wise group reads, and its per-channel constant if it has one."""
    own = {v for n in inside.nodes for v in n.outputs}
    read: list[str] = []
    weights = None
    out = node.outputs[0]
    for value in [v for n in inside.nodes for v in n.inputs if v is not None]:
        if value in own:
            continue
        if not is_constant(value) or (
            is_op(node, *BINARY) and value in node.inputs and not per_channel(value, out, b.layout)
        ):
            read.append(b.read(value))
        elif is_op(node, "BatchNormalization", "PRelu") and value is node.inputs[1]:
            weights = Weights(value.name or "scale", 32 if is_op(node, "BatchNormalization") else stored_bits(value))
        elif is_op(node, *BINARY) and value in node.inputs and elements(static_shape(value) or ()) > 1:
            weights = Weights(value.name or "constant", stored_bits(value))
    return list(dict.fromkeys(read)), weights


def _elementwise(b: Builder, group: Group) -> None:
    node = group.head
    inputs, weights = _operands(b, node, group)
    size = b.layout.size(group.output)
    if len(inputs) == 1 and b.tensors[inputs[0]].elements == elements(size):
        t = b.tensors[inputs[0]]
        size = (t.channels, t.rows, t.columns)
    # the operand that is as large as the output goes first: it is the one read through the nest
    inputs.sort(key=lambda name: b.tensors[name].elements != size[0] * size[1] * size[2])
    b.emit(
        node, Unit.VECTOR, pixel_nest(size), inputs, b.define(group.output, size),
        weights=weights, activation=group.activation, nodes=group.nodes,
    )  # fmt: skip


def _pool(b: Builder, group: Group) -> None:
    node = group.head
    x = node.inputs[0]
    assert x is not None
    if len(shape_of(x, node)) not in (3, 4):
        _host(b, node, "pooling over three axes")
        return
    if len([v for v in node.outputs if v.uses() or v.is_graph_output()]) > 1:
        _host(b, node, "the vector unit does not give the positions of the maxima")
        return
    b.emit(
        node,
        Unit.VECTOR,
        pool_nest(node),
        [b.read(x, (1,))],
        b.define(group.output),
        activation=group.activation,
        nodes=group.nodes,
    )


def _reduced_axes(node: ir.Node) -> tuple[int, ...] | None:
    if not node.inputs or node.inputs[0] is None:
        return None
    rank = len(static_shape(node.inputs[0]) or ())
    stored = node.attributes.get_ints("axes")
    if stored is None:
        given = array(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
        if given is None and len(node.inputs) > 1 and node.inputs[1] is not None:
            return None
        stored = tuple(range(rank)) if given is None or given.size == 0 else tuple(int(a) for a in given.reshape(-1))
    return tuple(sorted(a % rank for a in stored)) if rank else ()


def _spatial_reduction(node: ir.Node, layout: Layout) -> bool:
    """A reduction over all pixels of each channel: a global pooling."""
    if not is_op(node, *REDUCTIONS) or not node.inputs or node.inputs[0] is None:
        return False
    x = node.inputs[0]
    shape, axes = static_shape(x), _reduced_axes(node)
    if shape is None or axes is None:
        return False
    channels = layout.axes(x)
    pixels = [a for a, d in enumerate(shape) if a not in channels and d > 1]
    return all(a in axes for a in pixels) and not any(a in axes and shape[a] > 1 for a in channels)


def _reduction(b: Builder, group: Group) -> None:
    node = group.head
    x = node.inputs[0]
    assert x is not None
    source = b.read(x)
    t = b.tensors[source]
    nest = LoopNest(t.channels, 1, 1, 1, 1, t.rows, t.columns, t.rows, t.columns)
    b.emit(
        node,
        Unit.VECTOR,
        nest,
        [source],
        b.define(group.output, (t.channels, 1, 1)),
        activation=group.activation,
        nodes=group.nodes,
    )


def _quantise(b: Builder, node: ir.Node) -> None:
    """Q and DQ only rename stored integers, unless the float value is stored too."""
    x = node.inputs[0]
    assert x is not None
    if is_op(node, "DequantizeLinear"):
        b.view(node, x, "DequantizeLinear: the integers are what is stored")
        return
    bits = stored_bits(node.outputs[0])
    name = b.read(x)
    if b.tensors[name].bits == bits:
        b.view(node, x, "QuantizeLinear: the value is stored with this width")
        return
    t = b.tensors[name]
    size = (t.channels, t.rows, t.columns)
    b.emit(node, Unit.VECTOR, pixel_nest(size), [name], b.define(node.outputs[0], size, bits))


def _move(b: Builder, node: ir.Node) -> None:
    x = node.inputs[0]
    assert x is not None
    if is_op(node, "Concat"):
        _concat(b, node)
        return
    if is_op(node, "Split"):
        _split(b, node)
        return
    if is_op(node, "Gather") and not (
        len(node.inputs) > 1 and node.inputs[1] is not None and is_constant(node.inputs[1])
    ):
        _host(b, node, "the indices depend on the data")
        return
    reason = view_reason(b, node)
    if reason:
        b.view(node, x, reason)
        return
    out = node.outputs[0]
    b.emit(
        node, Unit.VECTOR, pixel_nest(b.layout.size(out), b.layout.size(x)), [b.read(x)], b.define(out),
        scattered=is_op(node, "Reshape", "Flatten", "Transpose", "DepthToSpace", "SpaceToDepth", "Gather"),
        note="moves data",
    )  # fmt: skip


def view_reason(b: Builder, node: ir.Node) -> str:
    """Why the node moves no data, or ''."""
    x, y = node.inputs[0], node.outputs[0]
    if x is None:
        return ""
    before, after = static_shape(x) or (), static_shape(y) or ()
    if is_op(node, "Transpose"):
        perm = permutation(node)
        source = b.layout.axes(x)
        forth = {old: new for new, old in enumerate(perm)}
        pixels = [forth[a] for a in range(len(before)) if a not in source and before[a] > 1]
        channels = [forth[a] for a in source if before[a] > 1]
        target = b.layout.axes(y)
        kept = [a for a in range(len(after)) if a not in target and after[a] > 1] == pixels
        kept = kept and [a for a in target if after[a] > 1] == channels
        return "Transpose: another order of axes in ONNX, the same order in memory" if kept else ""
    if is_op(node, "Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        axes = carry(before, after, b.layout.axes(x))
        if axes is not None and _same_order(after, axes, b.layout.axes(y)):
            return f"{node.op_type}: the same data in the same order"
        if _feeds_products_only(y):
            return f"{node.op_type} before a matrix product: the weights are permuted offline instead"
    return ""


def _feeds_products_only(value: ir.Value) -> bool:
    """Every reader, behind functions of one element, is a matrix product of the whole value with constant weights."""
    uses = value.uses()
    shape = static_shape(value) or ()
    if not uses or value.is_graph_output() or elements(shape) != shape[-1]:
        return False
    for use in uses:
        node = use.node
        if has_weights(node) and node.op_type in ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul") and use.idx == 0:
            continue
        if not (is_op(node, *UNARY, "QuantizeLinear", "DequantizeLinear") and _feeds_products_only(node.outputs[0])):
            return False
    return True


def _concat(b: Builder, node: ir.Node) -> None:
    out = node.outputs[0]
    target = b.define(out)
    rank = len(shape_of(out, node))
    axis = node.attributes.get_int("axis", 1) % rank
    channelwise = axis in b.layout.axes(out)
    offset = 0
    for value in node.inputs:
        if value is None:
            continue
        source = b.read(value, b.layout.axes(out))
        size = split(shape_of(value, node), b.layout.axes(out))
        b.emit(
            node, Unit.VECTOR, pixel_nest(size), [source], target,
            scattered=channelwise and offset % ALIGN != 0, note="one part of the concat",
        )  # fmt: skip
        offset += size[0] if channelwise else 0


def _split(b: Builder, node: ir.Node) -> None:
    x = node.inputs[0]
    assert x is not None
    axis = node.attributes.get_int("axis", 0) % len(shape_of(x, node))
    channelwise = axis in b.layout.axes(x)
    offset = 0
    for out in node.outputs:
        size = b.layout.size(out)
        if out.uses() or out.is_graph_output():
            b.emit(
                node, Unit.VECTOR, pixel_nest(size), [b.read(x)], b.define(out),
                scattered=channelwise and offset % ALIGN != 0, note="one part of the split",
            )  # fmt: skip
        offset += size[0] if channelwise else 0


def _why_host(node: ir.Node) -> str:
    if node.domain not in ("", "ai.onnx"):
        return f"operator of the unknown domain '{node.domain}'"
    if weight_index(node) is not None:
        if len(static_shape(node.inputs[0]) or ()) > 4 if node.inputs[0] is not None else False:
            return "more than two spatial axes"
        return "both operands are computed: there are no constant weights"
    if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
        return "control flow"
    return "no unit of the accelerator has this operator"


def _host(b: Builder, node: ir.Node, why: str) -> None:
    """One layer an output that somebody reads; the work is the largest map that the node touches."""
    values = [v for v in node.inputs if v is not None and not is_constant(v)]
    values += [v for v in _captured(node) if v in b._stored]
    inputs = [b.read(v) for v in values]
    largest = max((b.tensors[name] for name in inputs), key=lambda t: t.elements, default=None)
    estimate: Size = (largest.channels, largest.rows, largest.columns) if largest else (1, 1, 1)
    for out in [v for v in node.outputs if v.uses() or v.is_graph_output()] or list(node.outputs[:1]):
        known = static_shape(out) is not None
        size = b.layout.size(out) if known else estimate
        note = why if known else f"{why}; its result is taken to be as large as its input"
        work = size if elements(size) >= elements(estimate) else estimate
        b.emit(node, Unit.HOST, replace(pixel_nest(work)), inputs, b.define(out, size), note=note)


def _captured(node: ir.Node) -> list[ir.Value]:
    """Values of the main graph that the node's subgraphs read."""
    found: dict[ir.Value, None] = {}
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in ir.traversal.RecursiveGraphIterator(attribute.as_graph()):
                found.update(dict.fromkeys(v for v in inner.inputs if v is not None))
    return list(found)
