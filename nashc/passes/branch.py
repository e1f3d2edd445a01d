"""Replace an If whose condition is known by the branch that is taken.

Requires: subgraph initialisers lifted to the main graph, names unique over all graphs. Ensures: the nodes of the
branch stand in the graph where the If stood, and stand for it.
"""

from __future__ import annotations

import onnx_ir as ir

from nashc.passes import provenance
from nashc.passes.graph import array, is_op


def take_branch(model: ir.Model, node: ir.Node) -> list[ir.Node] | None:
    """The nodes now in place of an If of known condition; None, and nothing done, for every other node."""
    condition = array(node.inputs[0]) if is_op(node, "If") and node.inputs else None
    if condition is None or condition.size != 1:
        return None
    attribute = node.attributes.get("then_branch" if condition.reshape(-1)[0] else "else_branch")
    if attribute is None or attribute.type != ir.AttributeType.GRAPH:
        return None
    branch = attribute.as_graph()
    results, inner = list(branch.outputs), list(branch)
    if len(results) != len(node.outputs) or any(v is None or v.producer() not in inner for v in results):
        return None
    branch.outputs.clear()
    branch.remove(inner)
    taken = {other.name for other in model.graph}
    model.graph.insert_before(node, inner)
    for i, new in enumerate(inner):
        if new.name in taken or not new.name:
            new.name = f"{node.name}/{new.op_type}_{i}"
        provenance.stand_for(new, node)
    for old, result in zip(node.outputs, results, strict=True):
        name = old.name if old.is_graph_output() else result.name
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        old.name = None
        result.name = name
    model.graph.remove(node, safe=True)
    return inner
