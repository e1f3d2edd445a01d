"""Exact integer sums on every processor.

Where a processor has no VNNI instructions, onnxruntime multiplies 8-bit activations by signed weights in pairs whose
sum saturates at 16 bits: silently wrong results. With unsigned weights (w + 128, zero point 128) its step is exact.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper

OFFSET = 128
WEIGHTS = {
    "DequantizeLinear": (0, 2),
    "QLinearConv": (3, 5),
    "QLinearMatMul": (3, 5),
    "ConvInteger": (1, 3),
    "MatMulInteger": (1, 3),
}
"""Operators of 8-bit weights: the inputs with the weights and with their zero point."""
ACTIVATION_ZERO = 2
"""Input with the zero point of the activations, of all operators but DequantizeLinear."""


@cache
def saturates() -> bool:
    """Whether onnxruntime's sums of uint8 x int8 products are wrong on this processor: one is tried."""
    a, b = (helper.make_tensor_value_info(name, kind, [1, 4]) for name, kind in (("a", TensorProto.UINT8), ("y", 6)))
    weights = numpy_helper.from_array(np.full((4, 4), 127, np.int8), "w")
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "w"], ["y"])], "probe", [a], [b], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"a": np.full((1, 4), 255, np.uint8)})
    return bool((found != 4 * 255 * 127).any())


def with_unsigned_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose constant int8 weights are uint8 about 128, the same numbers; the model itself where it has none."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if not any(_signed(node, constants) for node in model.graph.node):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for node in made.graph.node:
        if _signed(node, constants):
            at, zero_at = WEIGHTS[node.op_type]
            weights = numpy_helper.to_array(constants[node.input[at]])
            zero = _zero(node, zero_at, constants)
            node.input.extend([""] * (zero_at + 1 - len(node.input)))
            node.input[at] = _moved(made, f"{node.input[at]}.unsigned", weights)
            node.input[zero_at] = _moved(made, f"{node.name or node.output[0]}.zero", zero)
    _drop_unused(made)
    return made


def _signed(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> bool:
    """Whether a node reads constant int8 weights that it could read unsigned."""
    if node.op_type not in WEIGHTS or node.domain not in ("", "ai.onnx"):
        return False
    at, zero_at = WEIGHTS[node.op_type]
    weights = constants.get(node.input[at])
    if weights is None or weights.data_type != TensorProto.INT8 or len(weights.dims) < 2:
        return False
    if _name(node, zero_at) and _name(node, zero_at) not in constants:
        return False
    if node.op_type == "DequantizeLinear":
        return node.input[1] in constants
    other = constants.get(_name(node, ACTIVATION_ZERO))
    if other is None:
        return node.op_type.endswith("Integer")  # without a zero point; what is no constant here stays as it is
    return other.data_type == TensorProto.UINT8


def _zero(node: onnx.NodeProto, zero_at: int, constants: dict[str, TensorProto]) -> np.ndarray:
    """The signed zero point; where there is none, zeros of the scale's shape."""
    if _name(node, zero_at):
        return numpy_helper.to_array(constants[node.input[zero_at]])
    per_scale = node.op_type == "DequantizeLinear"
    return np.zeros(tuple(constants[node.input[1]].dims) if per_scale else (), np.int8)


def _name(node: onnx.NodeProto, at: int) -> str:
    return node.input[at] if at < len(node.input) else ""


def _moved(model: onnx.ModelProto, name: str, values: np.ndarray) -> str:
    """The name of a new constant, the values plus 128; made once."""
    if all(tensor.name != name for tensor in model.graph.initializer):
        unsigned = (values.astype(np.int16) + OFFSET).astype(np.uint8)
        model.graph.initializer.append(numpy_helper.from_array(unsigned, name))
    return name


def _drop_unused(model: onnx.ModelProto) -> None:
    """Constants that nothing reads any more."""
    used = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
    kinds = onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS
    nested = any(attribute.type in kinds for node in model.graph.node for attribute in node.attribute)
    if not nested:  # a subgraph may read a constant of the graph around it
        kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
