"""Which unit serves which operator: the tables that the importer reads."""

from __future__ import annotations

import onnx_ir as ir

from nashc.core.network import Unit
from nashc.passes.graph import NASHC_DOMAIN

COMPUTE: dict[tuple[str, str], Unit] = {
    ("", "Conv"): Unit.CONV,
    ("", "ConvTranspose"): Unit.CONV,
    ("", "ConvInteger"): Unit.CONV,
    ("", "QLinearConv"): Unit.CONV,
    ("", "Gemm"): Unit.CONV,
    ("", "MatMul"): Unit.CONV,
    ("", "MatMulInteger"): Unit.CONV,
    ("", "QLinearMatMul"): Unit.CONV,
    (NASHC_DOMAIN, "ShiftConv"): Unit.SHIFT,
    (NASHC_DOMAIN, "ShiftConvInteger"): Unit.SHIFT,
    (NASHC_DOMAIN, "AdderConv"): Unit.ADDER,
    (NASHC_DOMAIN, "AdderConvInteger"): Unit.ADDER,
}
"""Operators with weights, and the unit that serves them."""

POOLS = ("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool")
REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")

UNARY = (
    (
        "Abs Cast Ceil Celu Clip Elu Erf Exp Floor Gelu HardSigmoid HardSwish Hardmax LeakyRelu Log Mish Neg PRelu "
        "Reciprocal Relu Round Selu Shrink Sigmoid Sign Softplus Softsign Sqrt Swish Tanh ThresholdedRelu Identity "
        "Dropout Cos Sin"
    )
    .replace("Hardmax ", "")
    .split()
)
"""Functions of one element: on 8-bit data each is a table of 256 entries."""

BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Pow")
MOVES = (
    "Concat", "Split", "Slice", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Resize", "Upsample", "Pad",
    "DepthToSpace", "SpaceToDepth", "Expand", "Tile", "Gather",
)  # fmt: skip
QUANTIZE = ("QuantizeLinear", "DequantizeLinear")

RELABELLING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Nodes that may be no more than another name for the same data."""

ELEMENTWISE = frozenset(
    [*UNARY, *BINARY, *QUANTIZE, "Resize", "Upsample", "Pad", "Slice", "Concat", "Split", "Softmax", "LogSoftmax",
     "Expand", "Tile", "Where", "Equal", "Greater", "Less", "And", "Or", "Not", "LayerNormalization"]
)  # fmt: skip
"""Nodes whose operands share their order of axes."""

CHANNEL_FIRST = frozenset(
    [("", name) for name in (
        "Conv", "ConvTranspose", "ConvInteger", "QLinearConv", *POOLS, "BatchNormalization", "InstanceNormalization",
        "LRN", "DepthToSpace", "SpaceToDepth", "MaxUnpool", "MaxRoiPool", "RoiAlign", "GroupNormalization",
    )]
    + [key for key in COMPUTE if key[0] == NASHC_DOMAIN]
)  # fmt: skip
"""Nodes whose first operand and result have channels on axis 1."""

_WEIGHT_INDEX = {"QLinearConv": 3, "QLinearMatMul": 3}


def weight_index(node: ir.Node) -> int | None:
    """Which operand of a compute node holds the weights; None for every other node."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    if (domain, node.op_type) not in COMPUTE:
        return None
    index = _WEIGHT_INDEX.get(node.op_type, 1)
    return index if index < len(node.inputs) and node.inputs[index] is not None else None


def compute_unit(node: ir.Node) -> Unit:
    """The unit of a compute node."""
    return COMPUTE["" if node.domain == "ai.onnx" else node.domain, node.op_type]
