"""Merge Transpose chains: two in a row become one, and one that moves nothing goes.

Requires: shapes inferred. Ensures: no Transpose reads a Transpose that nothing else reads, and none is the identity.
What is left of an NHWC model's Transposes only renames axes; the importer sees that and charges nothing.
"""

from __future__ import annotations

import onnx_ir as ir

from nashc.passes import provenance
from nashc.passes.graph import bypass, is_op


def permutation(node: ir.Node) -> tuple[int, ...]:
    """The node's perm, the reversal by default."""
    perm = node.attributes.get_ints("perm")
    if perm is not None:
        return tuple(perm)
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return tuple(reversed(range(len(shape)))) if shape is not None else ()


def merge_transposes(model: ir.Model) -> None:
    """Merge every chain, in place."""
    for node in list(model.graph):
        if not is_op(node, "Transpose") or node.inputs[0] is None:
            continue
        before = node.inputs[0].producer()
        if before is not None and is_op(before, "Transpose") and before.inputs[0] is not None:
            first, second = permutation(before), permutation(node)
            if len(first) == len(second):
                node.replace_input_with(0, before.inputs[0])
                node.attributes.add(ir.AttrInt64s("perm", [first[axis] for axis in second]))
                if not before.outputs[0].uses() and not before.outputs[0].is_graph_output():
                    provenance.absorb(node, before)
                    model.graph.remove(before, safe=True)
        value = node.inputs[0]
        if value is not None and permutation(node) == tuple(range(len(permutation(node)))):
            names = provenance.sources(node)
            if bypass(model, node, value):
                for name in names:
                    provenance.skip(model, ir.Node("", "Transpose", [], name=name), "the Transpose chain moves nothing")
