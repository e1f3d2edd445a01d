"""Layers of the vector unit that compute: element-wise nodes, activations, pooling."""

from __future__ import annotations

from nashc.core.loops import LoopNest
from nashc.core.network import Unit, Weights
from nashc.importer.builder import Builder
from nashc.importer.group import Group, per_channel, stored_bits
from nashc.importer.nests import pixel_nest, pool_nest
from nashc.importer.ops import BINARY
from nashc.passes.graph import elements, is_constant, is_op, operand, static_shape

SCALE_AND_BIAS_BITS = 32
"""A normalisation that stays on the vector unit keeps a 16-bit scale and a 16-bit bias for each channel."""


def elementwise(b: Builder, group: Group) -> None:
    """One operation an output element. The operand of the output's size comes first."""
    node = group.head
    inputs, weights = _operands(b, group)
    size = b.layout.size(group.output)
    if len(inputs) == 1 and b.tensors[inputs[0]].elements == elements(size):
        stored = b.tensors[inputs[0]]
        size = (stored.channels, stored.rows, stored.columns)
    inputs.sort(key=lambda name: b.tensors[name].elements != elements(size))
    b.emit(
        node, Unit.VECTOR, pixel_nest(size), inputs, b.define(group.output, size),
        nodes=group.nodes, weights=weights, activation=group.activation,
    )  # fmt: skip


def _operands(b: Builder, group: Group) -> tuple[list[str], Weights | None]:
    """Tensors that the group reads, and its per-channel constant if the head has one."""
    head = group.head
    inside = {v for n in group.nodes for v in n.outputs}
    read: list[str] = []
    weights = None
    for node in group.nodes:
        for value in node.inputs:
            if value is None or value in inside:
                continue
            if not is_constant(value):
                read.append(b.read_for(value, node.outputs[0]))
            elif node is head and is_op(node, *BINARY):
                if not per_channel(value, node.outputs[0], b.layout):
                    read.append(b.read_for(value, node.outputs[0]))
                elif elements(static_shape(value) or ()) > 1:
                    weights = Weights(value.name or "constant", stored_bits(value))
            elif node is head and is_op(node, "PRelu", "BatchNormalization") and value is node.inputs[1]:
                bits = SCALE_AND_BIAS_BITS if is_op(node, "BatchNormalization") else stored_bits(value)
                weights = Weights(value.name or "scale", bits)
    return list(dict.fromkeys(read)), weights


def pool(b: Builder, group: Group) -> None:
    """A window over each channel."""
    node = group.head
    source = b.read(operand(node, 0), (1,))
    output = b.define(group.output)
    b.emit(node, Unit.VECTOR, pool_nest(node), [source], output, nodes=group.nodes, activation=group.activation)


def global_reduction(b: Builder, group: Group) -> None:
    """A reduction over all pixels: the window is the whole map."""
    source = b.read(operand(group.head, 0))
    t = b.tensors[source]
    nest = LoopNest(t.channels, 1, 1, 1, 1, t.rows, t.columns, t.rows, t.columns)
    output = b.define(group.output, (t.channels, 1, 1))
    b.emit(group.head, Unit.VECTOR, nest, [source], output, nodes=group.nodes, activation=group.activation)
