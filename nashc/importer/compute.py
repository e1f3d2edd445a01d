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
from nashc.passes.qonnx import is_quant

MANTISSA_CODES = 7
"""Shift codes up to this magnitude take 4 bits: a sign and 3 bits of exponent."""

LARGEST_PACKED = 127
"""The largest magnitude of weights of two MACs that share a DSP."""

ZERO_POINT = {"ConvInteger": 3, "MatMulInteger": 3, "QLinearConv": 5, "QLinearMatMul": 5}
"""The operand that is the zero point of integer weights."""


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
    nest = compute_nest(node, (tensor.channels, tensor.rows, tensor.columns))
    macs = elements(shape) * elements(shape_of(weight, node)[1:]) if pixel_shuffle else nest.macs
    b.emit(
        node,
        unit,
        nest,
        [source, *_residuals(b, group)],
        b.define(group.output),
        nodes=group.nodes,
        weights=_weights(node, weight, unit),
        activation=group.activation,
        scattered=pixel_shuffle,
        work=macs if macs < nest.macs else 0,
        note="sub-pixel form: every phase is a convolution, pixels interleave when stored" if pixel_shuffle else "",
    )


def _residuals(b: Builder, group: Group) -> list[str]:
    """The other operands of the group's sums, in the order of its output."""
    return [b.read_for(v, n.outputs[0]) for v in group.extra for n in group.nodes if v in n.inputs and is_sum(n)][:1]


def _weights(node: ir.Node, value: ir.Value, unit: Unit) -> Weights:
    """Name, stored width and terms. Codes of a shift layer that are not stored in the file count as wide ones."""
    name = value.name or f"{node.name}_weights"
    if unit is not Unit.SHIFT:
        bits = stored_bits(value)
        return Weights(name, bits, symmetric=bits < 8 or _symmetric(node, value))
    codes = array(value)
    narrow = codes is not None and (codes.size == 0 or int(np.abs(codes.astype(np.int64)).max()) <= MANTISSA_CODES)
    return Weights(name, 4 if narrow else 5, shape_of(value, node)[0])


def _symmetric(node: ir.Node, value: ir.Value) -> bool:
    """Every integer of the weights is in [-127, 127]. Floats get there by a symmetric quantiser; integers that the file
    does not store may not."""
    holder, index = node, ZERO_POINT.get(node.op_type, len(node.inputs))
    while (maker := value.producer()) is not None and array(value) is None:
        if is_quant(maker):
            return maker.attributes.get_int("narrow", 0) == 1
        if is_op(maker, "QuantizeLinear", "ConstantOfShape") or not maker.inputs or maker.inputs[0] is None:
            return value.dtype is not None and value.dtype.is_floating_point()
        if is_op(maker, "DequantizeLinear"):
            holder, index = maker, 2
        value = maker.inputs[0]
    codes, zero = array(value), holder.inputs[index] if index < len(holder.inputs) else None
    zeros = np.zeros(1, np.int64) if zero is None else array(zero)
    if codes is None or value.dtype is None or not value.dtype.is_integer():
        return codes is not None
    if zeros is None or not codes.size or not zeros.size:
        return not codes.size
    low, high = (int(edge(codes)) for edge in (np.min, np.max))
    return max(high - int(np.min(zeros)), int(np.max(zeros)) - low) <= LARGEST_PACKED
