"""Fold BatchNormalization into the convolution or matrix product before it.

Algebra: y = W x + b, z = g (y - m) / sqrt(v + e) + t  =>  z = (a W) x + a (b - m) + t with a = g / sqrt(v + e).
Requires: shapes inferred. Ensures: no inference-mode BatchNormalization follows a Conv, ConvTranspose or Gemm whose
weights are stored and whose output nothing else reads. Others stay: after ShiftConv and AdderConv the layer's
post-processing does the scale and bias, elsewhere the vector unit.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from nashc.passes import provenance
from nashc.passes.graph import array, bypass, is_op, new_initializer, sole_consumer

FOLDS = ("Conv", "ConvTranspose", "Gemm")


def fold_batchnorm(model: ir.Model) -> None:
    """Fold every BatchNormalization that can be folded, in place."""
    for node in list(model.graph):
        while is_op(node, *FOLDS):
            norm = sole_consumer(node.outputs[0])
            if norm is None or not is_op(norm, "BatchNormalization") or not _fold(model, node, norm):
                break


def has_own_statistics(norm: ir.Node) -> bool:
    """Whether a BatchNormalization has those of its operands, of channels; in training mode it takes the map's."""
    return not norm.attributes.get_int("training_mode", 0) and norm.attributes.get_int("spatial", 1) == 1


def affine(norm: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and shift of an inference-mode BatchNormalization with stored parameters, in float64."""
    if not has_own_statistics(norm):
        return None
    arrays = [array(v) for v in norm.inputs[1:5]]
    if len(arrays) != 4 or any(a is None for a in arrays):
        return None
    if len({a.shape for a in arrays if a is not None}) != 1:
        return None
    gamma, beta, mean, var = (np.asarray(a, np.float64) for a in arrays)
    scale = gamma / np.sqrt(var + norm.attributes.get_float("epsilon", 1e-5))
    return scale, beta - mean * scale


def _fold(model: ir.Model, node: ir.Node, norm: ir.Node) -> bool:
    parameters = affine(norm)
    weight = array(node.inputs[1])
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = array(bias_value)
    if parameters is None or weight is None or norm.inputs[0] is not node.outputs[0]:
        return False
    if bias_value is not None and bias is None:
        return False
    scale, shift = parameters
    beta = node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else 1.0
    if bias is not None and bias.size != 1 and (bias.shape[-1], bias.size) != (scale.size,) * 2:  # a bias of rows
        return False
    folded_bias = shift if bias is None else scale * beta * bias.astype(np.float64).reshape(-1) + shift
    folded = _scaled(node, weight, scale)
    if folded is None or folded_bias.shape != scale.shape:
        return False
    name = node.inputs[1].name if node.inputs[1] is not None else node.name
    new_weight = new_initializer(model.graph, f"{name}_folded", folded.astype(weight.dtype))
    new_bias = new_initializer(model.graph, f"{name}_folded_bias", folded_bias.astype(weight.dtype))
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(1, new_weight)
    node.replace_input_with(2, new_bias)
    node.attributes.pop("beta", None)
    if not bypass(model, norm, node.outputs[0]):
        return False
    provenance.absorb(node, norm)
    return True


def _scaled(node: ir.Node, weight: np.ndarray, scale: np.ndarray) -> np.ndarray | None:
    """The weight with every output channel multiplied by its scale; None where the sizes do not fit."""
    w = weight.astype(np.float64)
    if node.op_type == "Conv":
        return w * scale.reshape(-1, *(1,) * (w.ndim - 1)) if w.shape[0] == scale.size else None
    if node.op_type == "Gemm":
        axis = 0 if node.attributes.get_int("transB", 0) else 1
        return w * (scale[:, None] if axis == 0 else scale) if w.shape[axis] == scale.size else None
    groups = node.attributes.get_int("group", 1)
    if groups < 1 or w.shape[0] % groups or w.shape[1] * groups != scale.size:
        return None
    parts = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    scaled: np.ndarray = (parts * scale.reshape(groups, 1, w.shape[1], *(1,) * (w.ndim - 2))).reshape(w.shape)
    return scaled
