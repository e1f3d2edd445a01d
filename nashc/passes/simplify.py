"""The pipeline of all passes.

Requires: a model as `load` gives it. Ensures: static shapes for one image, constants stored, BatchNormalization and
Pad folded, no idle nodes; the same function as before (tests compare both in onnxruntime); every source node is
accounted for by `sources` of a node or by `removed`.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    LiftSubgraphInitializersToMainGraphPass,
    NameFixPass,
)

from nashc.errors import NashcError
from nashc.ops import DOMAIN as NASHC_DOMAIN
from nashc.passes import provenance
from nashc.passes.batchnorm import fold_batchnorm
from nashc.passes.bind import bind
from nashc.passes.infer import infer
from nashc.passes.nothing import remove_nothing
from nashc.passes.pad import fold_pads
from nashc.passes.transpose import merge_transposes


def simplify(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> ir.Model:
    """Simplify `model` in place for inputs of the given shapes and return it."""
    provenance.name_nodes(model.graph)
    NameFixPass()(model)
    _inline(model)
    bind(model, shapes)
    before = tuple(provenance.live(model.graph))
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    LiftSubgraphInitializersToMainGraphPass()(model)
    provenance.skip_vanished(model, before, "a constant: stored with the weights")
    infer(model)
    remove_nothing(model)
    merge_transposes(model)
    fold_pads(model)
    fold_batchnorm(model)
    remove_nothing(model)
    return model


def _inline(model: ir.Model) -> None:
    """Inline every function except the bodies of our own operators."""
    try:
        InlinePass(criteria=lambda function: function.domain != NASHC_DOMAIN)(model)
    except Exception as error:
        raise NashcError(f"its functions cannot be inlined: {error}", where=model.graph.name or "model") from None
