"""QONNX's Quant nodes: quantise and dequantise in one, with the width as an operand.

Quant(x, scale, zero_point, bit_width) has the shape of x. Brevitas, FINN and qonnx each have a domain of their own.
"""

from __future__ import annotations

import onnx_ir as ir

from nashc.passes.graph import array

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")


def is_quant(node: ir.Node | None) -> bool:
    """`node` is a Quant or BipolarQuant."""
    return (
        node is not None and node.domain in DOMAINS and node.op_type in ("Quant", "BipolarQuant") and bool(node.inputs)
    )


def quant_bits(node: ir.Node) -> int | None:
    """Width of the integers that a Quant node makes; None where it is not stored."""
    if node.op_type == "BipolarQuant":
        return 1
    width = array(node.inputs[3]) if len(node.inputs) > 3 else None
    if width is None or width.size != 1 or not 1 <= float(width.reshape(-1)[0]) <= 64:
        return None
    return int(width.reshape(-1)[0])
