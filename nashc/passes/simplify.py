"""The pipeline of all passes.

Requires: a model as `load` gives it. Ensures: static shapes for one image, constants stored, BatchNormalization and
Pad folded, Concats joined, no idle nodes; the same function as before (tests compare both in onnxruntime); every source
node is accounted for by `sources` of a node or by `removed`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

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
from nashc.passes.bind import bind, refuse_fixed_batch
from nashc.passes.concat import join_concats
from nashc.passes.infer import infer
from nashc.passes.nothing import remove_nothing
from nashc.passes.pad import fold_pads
from nashc.passes.transpose import merge_transposes

MOST_INLINED = 10_000
"""Nodes from functions; finding names for them takes time with the square of their number."""


def simplify(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> ir.Model:
    """Simplify `model` in place for inputs of the given shapes and return it."""
    provenance.name_nodes(model.graph)
    NameFixPass()(model)
    inline(model)
    batch = bind(model, shapes)
    before = tuple(provenance.live(model.graph))
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    LiftSubgraphInitializersToMainGraphPass()(model)
    provenance.skip_vanished(model, before, "a constant: stored with the weights")
    refuse_fixed_batch(model.graph, batch)
    infer(model)
    remove_nothing(model)
    merge_transposes(model)
    join_concats(model)
    fold_pads(model)
    fold_batchnorm(model)
    remove_nothing(model)
    return model


def inline(model: ir.Model) -> None:
    """Inline every function except the bodies of our own operators."""
    nodes = _inlined_nodes(model)
    if nodes > MOST_INLINED:
        raise NashcError(
            f"its functions make {nodes:,} nodes, more than {MOST_INLINED:,}",
            where=model.graph.name or "model",
            hint="inline them with onnx.inliner and simplify the model first",
        )
    try:
        InlinePass(criteria=lambda function: function.domain != NASHC_DOMAIN)(model)
    except Exception as error:
        raise NashcError(f"its functions cannot be inlined: {error}", where=model.graph.name or "model") from None


def _inlined_nodes(model: ir.Model) -> int:
    """Nodes that stand in the graph for its calls once all functions are inlined; a call counts one at least."""
    size: dict[ir.OperatorIdentifier, int] = {}
    called = {
        name: Counter(node.op_identifier() for node in function.all_nodes())
        for name, function in model.functions.items()
        if function.domain != NASHC_DOMAIN
    }
    try:
        for name in TopologicalSorter(called).static_order():
            if name in called:
                size[name] = max(1, sum(size.get(op, 1) * count for op, count in called[name].items()))
    except CycleError as error:
        names = " calls ".join(f"'{name}'" for _, name, _ in error.args[1])
        raise NashcError(
            f"a function calls itself: {names}", where=model.graph.name or "model", hint="export the model again"
        ) from None
    return sum(size.get(node.op_identifier(), 0) for node in model.graph.all_nodes())
