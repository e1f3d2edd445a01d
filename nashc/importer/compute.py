"""Layers with weights: convolutions and matrix products on the conv, shift and adder units."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from nashc.core.network import Unit, Weights
from nashc.importer.builder import Builder
from nashc.importer.group import Group, is_sum, stored_bits
from nashc.importer.nests import compute_nest
from nashc.importer.ops import compute_unit, is_product, weight_index
from nashc.passes.graph import array, elements, is_op, operand, shape_of

MANTISSA_CODES = 7
"""Shift codes up to this magnitude take 4 bits: a sign and 3 bits of exponent."""


def compute(b: Builder, group: Group) -> None:
    """One layer for the group of a node with weights."""
    node = group.head
    x = operand(node, 0)
    weight = operand(node, weight_index(node) or 1)
    shape = shape_of(x, node)
    channel = 1
    if is_product(node):
        channel = 0 if is_op(node, "Gemm") and node.attributes.get_int("transA", 0) == 1 else len(shape) - 1
    flat = is_product(node) and elements(shape) == shape[channel]
    source = b.read(x) if flat else b.read(x, (channel,))
    tensor = b.tensors[source]
    unit = compute_unit(node)
    pixel_shuffle = is_op(node, "ConvTranspose")
    b.emit(
        node,
        unit,
        compute_nest(node, (tensor.channels, tensor.rows, tensor.columns)),
        [source, *_residuals(b, group)],
        b.define(group.output),
        nodes=group.nodes,
        weights=_weights(node, weight, unit),
        activation=group.activation,
        scattered=pixel_shuffle,
        note="sub-pixel form: every phase is a convolution, pixels interleave when stored" if pixel_shuffle else "",
    )


def _residuals(b: Builder, group: Group) -> list[str]:
    """The other operands of the group's sums, in the order of its output."""
    return [b.read_for(v, n.outputs[0]) for v in group.extra for n in group.nodes if v in n.inputs and is_sum(n)][:1]


def _weights(node: ir.Node, value: ir.Value, unit: Unit) -> Weights:
    """Name, stored width and terms. Codes of a shift layer that are not stored in the file count as wide ones."""
    name = value.name or f"{node.name}_weights"
    if unit is not Unit.SHIFT:
        return Weights(name, stored_bits(value))
    codes = array(value)
    narrow = codes is not None and (codes.size == 0 or int(np.abs(codes.astype(np.int64)).max()) <= MANTISSA_CODES)
    return Weights(name, 4 if narrow else 5, shape_of(value, node)[0])
