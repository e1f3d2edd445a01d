"""Which unit serves which operator: the tables that the importer reads."""

from __future__ import annotations

import onnx_ir as ir

from nashc.core.network import Unit
from nashc.ops import DOMAIN as NASHC_DOMAIN
from nashc.ops import OPERATORS
from nashc.passes.graph import elements, is_constant, is_op, static_shape

STANDARD = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul")
"""Standard operators with weights; the conv unit serves them. Those of ai.nashc name their unit themselves."""

PRODUCTS = ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul")
"""The matrix products among them."""

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
EXACT_MOVES = tuple(op for op in MOVES if op not in ("Resize", "Upsample", "Expand", "Pad"))
KEEPS_VALUES = (*EXACT_MOVES, "MaxPool", "GlobalMaxPool", "Identity", "Dropout")
"""Operators whose outputs are among their inputs: quantised alike, they need no step of their own."""
QUANTIZE = ("QuantizeLinear", "DequantizeLinear")

RELABELLING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Nodes that may be no more than another name for the same data."""

RENAMES = (*RELABELLING, "Transpose")
"""Nodes that may be views: a requantisation behind them is not theirs."""

ELEMENTWISE = frozenset(
    (*UNARY, *BINARY, *QUANTIZE, *"Quant BipolarQuant Resize Upsample Pad Slice Concat Split Softmax LogSoftmax Expand "
     "Tile Where Equal Greater Less And Or Not LayerNormalization".split())
)  # fmt: skip
"""Nodes whose operands share their order of axes."""

CHANNEL_FIRST = frozenset(
    [("", name) for name in (
        "Conv", "ConvTranspose", "ConvInteger", "QLinearConv", *POOLS, "BatchNormalization", "InstanceNormalization",
        "LRN", "DepthToSpace", "SpaceToDepth", "MaxUnpool", "MaxRoiPool", "RoiAlign", "GroupNormalization",
    )]
    + [(NASHC_DOMAIN, name) for name in OPERATORS]
)  # fmt: skip
"""Nodes whose first operand and result have channels on axis 1."""

KNOWN_OPS = (*STANDARD, *POOLS, *UNARY, *BINARY, *MOVES, *REDUCTIONS, "BatchNormalization")

_WEIGHT_INDEX = {"QLinearConv": 3, "QLinearMatMul": 3}
_BIAS_INDEX = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "QLinearConv": 8}


def weight_index(node: ir.Node) -> int | None:
    """Which operand of a compute node holds the weights; None for every other node."""
    if node.domain == NASHC_DOMAIN:
        index = 1
    elif is_op(node, *STANDARD):
        index = _WEIGHT_INDEX.get(node.op_type, 1)
    else:
        return None
    return index if index < len(node.inputs) and node.inputs[index] is not None else None


def compute_unit(node: ir.Node) -> Unit:
    """The unit of a compute node."""
    return OPERATORS.get(node.op_type).unit if node.domain == NASHC_DOMAIN else Unit.CONV


def is_product(node: ir.Node) -> bool:
    """The node is a matrix product."""
    return is_op(node, *PRODUCTS)


def computed_bias(node: ir.Node) -> bool:
    """A compute node whose bias is known only at run time."""
    if weight_index(node) is None:
        return False
    first = 2 if node.domain == NASHC_DOMAIN else _BIAS_INDEX.get(node.op_type, len(node.inputs))
    return any(v is not None and not is_constant(v) for v in node.inputs[first:])


def has_weights(node: ir.Node) -> bool:
    """A compute node with constant weights: one matrix, or a window over one or two spatial axes."""
    index = weight_index(node)
    if index is None:
        return False
    weight, x = node.inputs[index], node.inputs[0]
    if weight is None or x is None or not is_constant(weight) or is_constant(x) or computed_bias(node):
        return False
    shape, taps = static_shape(x), static_shape(weight)
    if shape is None or taps is None:
        return False
    return elements(taps[:-2]) == 1 if is_product(node) else len(shape) in (3, 4)
