"""The operators of the ONNX domain `ai.nashc`, one file each.

A module of this folder that defines `OPERATOR` is an operator: it registers itself, and the tests, the checker, the
runtimes and the docs see it. docs/operators.md has the formulas.
"""

from __future__ import annotations

import importlib
import pkgutil

import onnx
from nashc.ops import embed, onnx_forms
from nashc.ops.geometry import ConvGeometry, conv_geometry
from nashc.ops.native import library
from nashc.ops.operator import DOMAIN, OPSET, IntegerForm, Operator, Scalar
from nashc.ops.shift_codes import MAX_CODE, PMAX, decode_shift, encode_shift
from onnx.reference.op_run import OpRun

from nashc.registry import Registry

__all__ = [
    "DOMAIN",
    "MAX_CODE",
    "OPERATORS",
    "OPSET",
    "PMAX",
    "ConvGeometry",
    "IntegerForm",
    "Operator",
    "Scalar",
    "conv_geometry",
    "decode_shift",
    "embed_functions",
    "encode_shift",
    "library",
    "reference_ops",
    "register_schemas",
]


def _discover() -> Registry[Operator]:
    found: Registry[Operator] = Registry("operator")
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        if not module.ispkg:
            operator = getattr(importlib.import_module(f"{__name__}.{module.name}"), "OPERATOR", None)
            if operator is not None:
                found.add(operator.name, operator)
    return found


OPERATORS: Registry[Operator] = _discover()


def register_schemas() -> None:
    """Make onnx.checker and onnx.shape_inference know the operators; calling it again does nothing."""
    onnx_forms.register_schemas(OPERATORS)


def reference_ops() -> list[type[OpRun]]:
    """Classes for onnx.reference.ReferenceEvaluator(model, new_ops=...), which run the NumPy references."""
    return onnx_forms.reference_ops(OPERATORS)


def embed_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that stock onnxruntime and onnx.reference run: with a function for each ai.nashc operator in use.

    Its nodes are canonical: every attribute explicit, auto_pad resolved, absent optional inputs written as "".
    """
    return embed.embed_functions(model, OPERATORS)
