"""Fold a Pad with zeros over the spatial axes into the Conv or AveragePool that alone reads it.

Requires: shapes inferred. Ensures: pads of such a node include the Pad. An AveragePool must count the padding.
A Conv with auto_pad SAME is left alone. AdderConv and ShiftConv pad with real zeros too (DESIGN.md section 3).
"""

from __future__ import annotations

import onnx_ir as ir

from nashc.ops import DOMAIN as NASHC_DOMAIN
from nashc.passes import provenance
from nashc.passes.graph import array, bypass, is_op, sole_consumer, static_shape


def fold_pads(model: ir.Model) -> None:
    """Fold every Pad that can be folded, in place."""
    for node in list(model.graph):
        if is_op(node, "Pad"):
            reader = sole_consumer(node.outputs[0])
            pads = _spatial_pads(node)
            if reader is not None and pads is not None and _takes(reader, node, pads):
                _move(model, node, reader, pads)


def _spatial_pads(node: ir.Node) -> tuple[int, ...] | None:
    """begin and end of the spatial axes of a zero Pad, or None."""
    if (node.attributes.get_string("mode") or "constant") != "constant" or (
        len(node.inputs) > 3 and node.inputs[3] is not None
    ):
        return None
    fill = (
        array(node.inputs[2])
        if len(node.inputs) > 2 and node.inputs[2] is not None
        else node.attributes.get_float("value", 0.0)
    )
    stored = node.attributes.get_ints("pads")
    pads = stored if stored is not None else array(node.inputs[1] if len(node.inputs) > 1 else None)
    if fill is None or fill != 0 or pads is None:
        return None
    pads = [int(p) for p in pads]
    rank = len(pads) // 2
    if rank < 3 or any(pads[:2]) or any(pads[rank : rank + 2]) or min(pads) < 0:
        return None
    return (*pads[2:rank], *pads[rank + 2 :])


def _takes(reader: ir.Node, pad: ir.Node, pads: tuple[int, ...]) -> bool:
    if reader.inputs[0] is not pad.outputs[0] or pad.inputs[0] is None or static_shape(pad.inputs[0]) is None:
        return False
    if (reader.attributes.get_string("auto_pad") or "NOTSET") not in ("NOTSET", "VALID"):
        return False
    if is_op(reader, "AveragePool"):
        # count_include_pad with ceil_mode would also count cells that exist only by rounding up
        own = reader.attributes.get_ints("pads") or (0,) * len(pads)
        kernel = reader.attributes.get_ints("kernel_shape") or ()
        fits = len(own) == len(pads) and all(a + b < k for a, b, k in zip(own, pads, (*kernel, *kernel), strict=False))
        counted = bool(reader.attributes.get_int("count_include_pad", 0))
        return fits and (counted or not any(own)) and not reader.attributes.get_int("ceil_mode", 0)
    return is_op(reader, "Conv") or (reader.domain == NASHC_DOMAIN and not reader.op_type.endswith("Integer"))


def _move(model: ir.Model, pad: ir.Node, reader: ir.Node, pads: tuple[int, ...]) -> None:
    own = reader.attributes.get_ints("pads") or (0,) * len(pads)
    if len(own) != len(pads) or pad.inputs[0] is None:
        return
    if bypass(model, pad, pad.inputs[0]):
        reader.attributes.add(ir.AttrInt64s("pads", [a + b for a, b in zip(own, pads, strict=True)]))
        reader.attributes.pop("auto_pad", None)
        if is_op(reader, "AveragePool"):
            reader.attributes.add(ir.AttrInt64("count_include_pad", 1))
        provenance.absorb(reader, pad)
