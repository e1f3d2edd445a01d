"""From a model file to what onnxruntime gets: checked, rewritten for the native kernels or for stock onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, NameFixPass, RemoveUnusedNodesPass

from nashc import ops
from nashc.errors import NashcError
from nashc.passes import Skip, checked, inline, load
from nashc.passes.check import check
from nashc.passes.graph import where
from nashc.runtime.accumulator import check_accumulators
from nashc.runtime.fuse import fuse
from nashc.runtime.lower import lower_shift

Source = str | Path | onnx.ModelProto
OPTIONAL = onnx.defs.OpSchema.FormalParameterOption.Optional


@dataclass(frozen=True, slots=True)
class Prepared:
    """`model` is for onnxruntime; `source` the checked model that it computes, with its ai.nashc operators and without
    their functions; `skips` the operators of a quantised model that stay in float, with the reason."""

    model: onnx.ModelProto
    source: onnx.ModelProto
    skips: tuple[Skip, ...]


def prepare(source: Source, *, native: bool) -> Prepared:
    """Raises NashcError for a model that is damaged, or whose ai.nashc operators do not fit their inputs.

    native: for a session with the native kernels; otherwise the operators' functions are embedded.
    """
    name = "model" if isinstance(source, onnx.ModelProto) else str(source)
    try:
        return _prepare(source, native)
    except NashcError as error:
        if name in error.where:
            raise
        raise NashcError(error.what, where=f"{name}: {error.where}".removesuffix(": "), hint=error.hint) from None
    except (*UNFORESEEN, ir.serde.SerdeError, ir.passes.PassError) as error:
        hint = "check it with onnx.checker; if it runs in onnxruntime, please report it"
        cause: BaseException = error
        while cause.__cause__ is not None:  # onnx_ir reports every level above the cause
            cause = cause.__cause__
        raise NashcError(f"cannot be prepared ({type(cause).__name__}: {cause})", where=name, hint=hint) from error


UNFORESEEN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a damaged file that passed every check may still raise."""


def _prepare(source: Source, native: bool) -> Prepared:
    model = checked(source) if isinstance(source, onnx.ModelProto) else load(source)
    ir.external_data.load_to_model(model)
    NameFixPass()(model)
    inline(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for key in [key for key in model.functions if key[0] == ops.DOMAIN]:
        del model.functions[key]
    _check_operators(model)
    ops.register_schemas()
    try:
        inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise NashcError(f"its shapes do not fit: {error}", hint="check it with onnx.checker") from None
    if not native:
        return Prepared(ops.embed_functions(inferred), inferred, ())
    model = ir.from_proto(inferred)
    check_accumulators(model)
    lower_shift(model)
    skips = fuse(model)
    RemoveUnusedNodesPass()(model)
    return Prepared(ir.to_proto(model), inferred, skips)


def _check_operators(model: ir.Model) -> None:
    """Names, operands, attributes and stored values of the ai.nashc operators."""
    for node in model.graph.all_nodes():
        if node.domain != ops.DOMAIN:
            continue
        schema = ops.OPERATORS.get(node.op_type).schema
        known, given = schema.attributes, [value is not None for value in node.inputs]
        if len(node.outputs) != 1 or len(given) > len(schema.inputs):
            raise NashcError("it has too many operands or results", where=where(node), hint=schema.doc or "")
        for i, formal in enumerate(schema.inputs):
            if formal.option != OPTIONAL and not (i < len(given) and given[i]):
                raise NashcError(f"input {formal.name} is missing", where=where(node), hint="it is not optional")
        if unknown := sorted(set(node.attributes) - set(known)):
            raise NashcError(f"unknown attribute {unknown}", where=where(node), hint=f"known: {', '.join(known)}")
        for name, attribute in node.attributes.items():
            wanted = ir.AttributeType(int(known[name].type))  # type: ignore[call-overload]
            if attribute.type != wanted:
                raise NashcError(f"attribute {name} has the wrong type", where=where(node), hint=f"give {wanted.name}")
        check(node)
