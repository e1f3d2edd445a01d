"""The sliding window of a Conv- or Pool-like node: kernel, strides, dilations and pads, defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from nashc.errors import NashcError, did_you_mean
from nashc.ops.geometry import AUTO_PADS
from nashc.passes.graph import operand, shape_of, where


@dataclass(frozen=True, slots=True)
class Window:
    """One entry a spatial axis; `begin` and `end` are the pads."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    ceil: bool = False


def window(node: ir.Node) -> Window:
    """The window of a node whose attributes follow Conv, ConvTranspose or the pooling operators.

    The kernel comes from the attribute or the weight's shape; auto_pad is resolved with the input's size.
    """
    attributes = node.attributes
    size = shape_of(operand(node, 0), node)[2:]
    rank = len(size)
    weight = {"QLinearConv": 3}.get(node.op_type, 1)
    taps = shape_of(operand(node, weight), node)[-rank:] if len(node.inputs) > weight else None
    kernel = attributes.get_ints("kernel_shape") or taps or ()
    if taps is not None and tuple(kernel) != taps:
        raise NashcError(
            f"kernel_shape={list(kernel)} but the weights are {list(taps)}", where=where(node), hint="drop kernel_shape"
        )
    stride = tuple(attributes.get_ints("strides") or (1,) * rank)
    dilation = tuple(attributes.get_ints("dilations") or (1,) * rank)
    pads = tuple(attributes.get_ints("pads") or (0,) * (2 * rank))
    if not len(kernel) == len(stride) == len(dilation) == len(pads) // 2 == rank:
        raise NashcError("kernel, strides, dilations and pads do not fit the input's rank", where=where(node))
    if any(v < 1 for v in (*kernel, *stride, *dilation)):
        raise NashcError("kernel, strides and dilations must be at least 1", where=where(node))
    if any(v < 0 for v in pads):
        raise NashcError(f"negative pads {list(pads)}", where=where(node), hint="cut the input with Slice instead")
    begin, end = pads[:rank], pads[rank:]
    auto = attributes.get_string("auto_pad") or "NOTSET"
    if auto not in AUTO_PADS:
        raise NashcError(f"unknown auto_pad '{auto}'", where=where(node), hint=did_you_mean(auto, AUTO_PADS))
    if auto in ("SAME_UPPER", "SAME_LOWER") and node.op_type != "ConvTranspose":
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        outs = [-(-i // s) for i, s in zip(size, stride, strict=True)]
        total = [max(0, (o - 1) * s + span - i) for o, s, span, i in zip(outs, stride, spans, size, strict=True)]
        small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        begin, end = (small, large) if auto == "SAME_UPPER" else (large, small)
    elif auto == "VALID":
        begin = end = (0,) * rank
    return Window(tuple(kernel), stride, dilation, tuple(begin), tuple(end), bool(attributes.get_int("ceil_mode", 0)))


def output_size(frame: Window, size: tuple[int, ...]) -> tuple[int, ...]:
    """Output rows and columns of a Conv with this window over an input of `size`."""
    return tuple(
        (i + b + e - (k - 1) * d - 1) // s + 1
        for i, k, s, d, b, e in zip(
            size, frame.kernel, frame.stride, frame.dilation, frame.begin, frame.end, strict=True
        )
    )
