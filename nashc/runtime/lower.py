"""ShiftConv as a standard Conv: the weights are decoded and scaled once, when the model is loaded.

ShiftConv(X, W, S, B) = Conv(X, S[m] * decode(W), B). Requires: constants stored. Ensures: no ShiftConv with stored
weights and scale is left in a model that is not quantised, but those with SAME padding and dilation.
"""

from __future__ import annotations

import onnx_ir as ir

from nashc import ops
from nashc.passes.graph import array, is_op, new_initializer


def lower_shift(model: ir.Model) -> None:
    """Lower in place: onnxruntime keeps its own layout between Conv nodes (docs/runtime.md has figures).

    A quantised model is left alone: its shift layers become integer kernels (nashc.runtime.fuse).
    """
    if any(is_op(node, "DequantizeLinear") for node in model.graph):
        return
    for node in list(model.graph):
        if node.domain == ops.DOMAIN and node.op_type == "ShiftConv":
            codes, scale = array(node.inputs[1]), array(node.inputs[2])
            if codes is not None and scale is not None and not _dilated_same(node):
                _lower(model, node, ops.decode_shift(codes, scale))


def _dilated_same(node: ir.Node) -> bool:
    """onnxruntime's Conv has no SAME padding with dilation."""
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    return auto_pad.startswith("SAME") and max(node.attributes.get_ints("dilations", [1])) > 1


def _lower(model: ir.Model, node: ir.Node, weights: object) -> None:
    stored = new_initializer(model.graph, f"{node.name}_weights", weights)  # type: ignore[arg-type]
    conv = ir.Node(
        "", "Conv", [node.inputs[0], stored, *node.inputs[3:]], list(node.attributes.values()), name=node.name
    )
    end, made = node.outputs[0], conv.outputs[0]
    made.shape, made.type = end.shape, end.type
    model.graph.insert_before(node, conv)
    ir.convenience.replace_all_uses_with(end, made, replace_graph_outputs=True)
    made.name, end.name = end.name, None
    model.graph.remove(node, safe=True)
