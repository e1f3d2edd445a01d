"""Whether an integer sum of a layer can leave its 32-bit accumulator, from kernel size and bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from nashc import ops
from nashc.errors import NashcError
from nashc.ops.shift_conv_integer import largest_filter
from nashc.passes.graph import array, where

LIMIT = 2**31 - 1
X_RANGE = 255
"""Largest |X - x_zero_point| of 8 bits."""
ADDER_RANGE = {ir.DataType.INT8: 255, ir.DataType.UINT8: 383}
"""Largest |X - W| with W int8, by the type of X."""


def overflow(op_type: str, weights: np.ndarray, pmax: int, x_type: ir.DataType | None) -> str:
    """The arithmetic that shows that a sum may not fit; empty where all do.

    `weights`: codes [terms, M, C/group, *kernel] of ShiftConvInteger, or W [M, C/group, *kernel] of AdderConvInteger.
    """
    if op_type == "AdderConvInteger":
        taps, step = int(np.prod(weights.shape[1:])), ADDER_RANGE.get(x_type or ir.DataType.UINT8, 383)
        text, worst = f"{taps:,} taps of |X - W| up to {step}", taps * step
    else:
        largest = largest_filter(weights, pmax)
        text = f"weights of one filter that add up to {largest:,} * 2^-{pmax}, times |X - x_zero_point| up to {X_RANGE}"
        worst = largest * X_RANGE
    return "" if worst <= LIMIT else f"{text}, reach {worst:,}, more than the {LIMIT:,} of the 32-bit accumulator"


def check_accumulators(model: ir.Model) -> None:
    """Raises NashcError for an integer operator whose sum may not fit."""
    for node in model.graph.all_nodes():
        weights = array(node.inputs[1]) if node.domain == ops.DOMAIN and len(node.inputs) > 1 else None
        if weights is None or node.op_type not in ("AdderConvInteger", "ShiftConvInteger"):
            continue
        pmax = node.attributes.get_int("pmax", ops.PMAX)
        x_type = None if node.inputs[0] is None else node.inputs[0].dtype
        if reason := overflow(node.op_type, weights, pmax, x_type):
            raise NashcError(reason, where=where(node), hint="take fewer taps or a smaller pmax")
