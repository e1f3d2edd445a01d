"""Hands the operators to onnx: schemas for its checker and shape inference, classes for its ReferenceEvaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from nashc.ops.operator import DOMAIN, OPSET, Operator, shape_inference
from onnx.reference.op_run import OpRun

from nashc.registry import Registry


def register_schemas(operators: Registry[Operator]) -> None:
    """Make onnx.checker and onnx.shape_inference know the operators; calling it again does nothing."""
    for operator in operators.values():
        if not onnx.defs.has(operator.name, OPSET, DOMAIN):
            operator.schema.set_type_and_shape_inference_function(shape_inference(operator))
            onnx.defs.register_schema(operator.schema)


def reference_ops(operators: Registry[Operator]) -> list[type[OpRun]]:
    """Classes for ReferenceEvaluator(model, new_ops=...), which run the NumPy references."""
    return [_op_run(operator) for operator in operators.values()]


def _op_run(operator: Operator) -> type[OpRun]:
    def _run(self: OpRun, *inputs: np.ndarray | None, **attributes: Any) -> tuple[np.ndarray]:
        given = {name: value for name, value in attributes.items() if value is not None}
        where = f"node '{self.onnx_node.name or self.onnx_node.output[0]}' ({operator.name})"
        return (operator.reference(*inputs, where=where, **given),)

    return type(operator.name, (OpRun,), {"op_domain": DOMAIN, "op_schema": operator.schema, "_run": _run})
