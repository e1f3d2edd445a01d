"""What neither the checker nor the shape inference of onnx looks at, though no runtime accepts it.

Requires: shapes of the node's operands and results inferred. Ensures: where they are known, stored parameters have the
size that the node's channels ask for, weights of ai.nashc the values that they may have, and data that is only given
another shape keeps its number of elements; or a NashcError says what does not fit.
"""

from __future__ import annotations

import onnx_ir as ir

from nashc import ops
from nashc.errors import NashcError
from nashc.passes.graph import array, elements, is_op, static_shape, where
from nashc.passes.window import window

INCONSISTENT = "the model is inconsistent here, or was exported for another input shape (--shape)"

CONVOLUTIONS = {"Conv": (1, 2), "ConvTranspose": (1, 2), "ConvInteger": (1, None), "QLinearConv": (3, 8)}
"""Which operands hold the weights and the bias."""
POOLS = ("MaxPool", "AveragePool", "LpPool")
SAME_ELEMENTS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "DepthToSpace", "SpaceToDepth")

Shape = tuple[int, ...]


def check(node: ir.Node) -> None:
    """Raises NashcError for a node that no runtime would run."""
    shapes = [None if v is None else static_shape(v) for v in node.inputs]
    out = static_shape(node.outputs[0]) if node.outputs else None
    first = shapes[0] if shapes else None
    if node.domain == ops.DOMAIN:
        _own(node)
    elif first is None or out is None:
        return
    elif is_op(node, *CONVOLUTIONS):
        _convolution(node, shapes, first, out)
    elif is_op(node, *POOLS):
        window(node)
    elif is_op(node, *SAME_ELEMENTS) and elements(first) != elements(out):
        _refuse(node, f"{list(first)} cannot become {list(out)}: another number of elements")
    elif is_op(node, "Gemm") and len(shapes) > 2 and shapes[2] is not None and not _broadcasts(shapes[2], out):
        _refuse(node, f"a bias of shape {list(shapes[2])} for a result of shape {list(out)}")


def _refuse(node: ir.Node, what: str) -> None:
    raise NashcError(what, where=where(node), hint=INCONSISTENT)


def _own(node: ir.Node) -> None:
    """Stored values of an operator of ai.nashc."""
    operator = ops.OPERATORS.get(node.op_type)
    if operator.check is not None:
        attributes = {**operator.own_defaults, **{name: a.value for name, a in node.attributes.items()}}
        operator.check([array(v) for v in node.inputs], attributes, where(node))


def _convolution(node: ir.Node, shapes: list[Shape | None], x: Shape, out: Shape) -> None:
    """Kernel, channels, groups and bias."""
    index, bias_index = CONVOLUTIONS[node.op_type]
    taps = shapes[index] if index < len(shapes) else None
    if taps is None:
        return
    if len(taps) != len(x):
        _refuse(node, f"weights of shape {list(taps)} for a map of shape {list(x)}")
    window(node)
    groups = node.attributes.get_int("group", 1)
    channels = taps[0] if is_op(node, "ConvTranspose") else taps[1] * groups
    if groups < 1 or x[1] != channels or x[1] % groups or out[1] % groups:
        depth = channels // groups if groups > 0 else channels
        _refuse(node, f"{x[1]} input channels do not fit {groups} groups of {depth}")
    bias = shapes[bias_index] if bias_index is not None and bias_index < len(shapes) else None
    if bias is not None and bias != (out[1],):
        _refuse(node, f"a bias of shape {list(bias)} for {out[1]} output channels")


def _broadcasts(shape: Shape, onto: Shape) -> bool:
    wide = (1,) * (len(onto) - len(shape)) + shape
    return len(wide) == len(onto) and all(a in (1, b) for a, b in zip(wide, onto, strict=True))
