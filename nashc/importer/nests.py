"""The loop nest of every kind of node."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from nashc.core.loops import LoopNest
from nashc.core.number import ceil_div
from nashc.errors import NashcError
from nashc.importer.ops import is_product, weight_index
from nashc.passes.graph import elements, is_op, operand, shape_of, where
from nashc.passes.window import Window, window

Size = tuple[int, int, int]
"""Channels, rows, columns."""


def compute_nest(node: ir.Node, x: Size) -> LoopNest:
    """The nest of a node with weights; `x` is the size of its first operand as stored."""
    if is_product(node):
        return _product(node, x)
    nest = _transposed(node) if is_op(node, "ConvTranspose") else _convolution(node)
    return _stacked(nest, shape_of(operand(node, 0), node)[0])


def _stacked(nest: LoopNest, images: int) -> LoopNest:
    """A batch inside the network, as a Reshape makes it: the rows of its images one after the other, as they are
    stored. Work and traffic are those of all images; windows that reach from one image into the next cost the same."""
    if images == 1:
        return nest
    many = replace(nest, oy=images * nest.oy, iy=images * nest.iy)
    top, left, bottom, right = nest.pad
    return replace(many, pad=(top, left, max(bottom, many.span(0, many.oy) - many.iy - top), right))


def _plane(values: tuple[int, ...], fill: int) -> tuple[int, int]:
    """Rows and columns of a 1-D or 2-D window."""
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])


def _pads(frame: Window) -> tuple[int, int, int, int]:
    (top, left), (bottom, right) = _plane(frame.begin, 0), _plane(frame.end, 0)
    return top, left, bottom, right


def _convolution(node: ir.Node) -> LoopNest:
    shape, out = shape_of(operand(node, 0), node), shape_of(node.outputs[0], node)
    taps = shape_of(operand(node, weight_index(node) or 1), node)
    groups = node.attributes.get_int("group", 1)
    frame = window(node)
    depth = taps[-len(frame.kernel) - 1]
    (oy, ox), (iy, ix), (fy, fx) = _plane(out[2:], 1), _plane(shape[2:], 1), _plane(frame.kernel, 1)
    return LoopNest(
        g=groups, k=out[1] // groups, c=depth, oy=oy, ox=ox, fy=fy, fx=fx, iy=iy, ix=ix,
        stride=_plane(frame.stride, 1), dilation=_plane(frame.dilation, 1), pad=_pads(frame),
    )  # fmt: skip


def _transposed(node: ir.Node) -> LoopNest:
    """Sub-pixel form: every output phase is a dense convolution with ceil(F/s) taps over the small input.

    The sy*sx phases count as output channels, so k = K*sy*sx and each output pixel costs the taps it really needs,
    rounded up; the zeros between the taps of a dilated one count as taps.
    """
    shape, out = shape_of(operand(node, 0), node), shape_of(node.outputs[0], node)
    taps = shape_of(operand(node, 1), node)
    frame = window(node)
    spans = tuple((k - 1) * d + 1 for k, d in zip(frame.kernel, frame.dilation, strict=True))
    groups = node.attributes.get_int("group", 1)
    stride, kernel = _plane(frame.stride, 1), _plane(spans, 1)
    (iy, ix), (oy_full, ox_full) = _plane(shape[2:], 1), _plane(out[2:], 1)
    fy, fx = ceil_div(kernel[0], stride[0]), ceil_div(kernel[1], stride[1])
    oy, ox = ceil_div(oy_full, stride[0]), ceil_div(ox_full, stride[1])
    top, left = min(fy - 1, max(0, oy + fy - 1 - iy)), min(fx - 1, max(0, ox + fx - 1 - ix))
    return LoopNest(
        g=groups, k=taps[1] * stride[0] * stride[1], c=shape[1] // groups, oy=oy, ox=ox, fy=fy, fx=fx, iy=iy, ix=ix,
        pad=(top, left, max(0, oy + fy - 1 - iy - top), max(0, ox + fx - 1 - ix - left)),
    )  # fmt: skip


def _product(node: ir.Node, x: Size) -> LoopNest:
    """A matrix product is a 1x1 convolution; over a flattened map it is one with a window of the whole map."""
    shape = shape_of(operand(node, 0), node)
    taps = shape_of(operand(node, weight_index(node) or 1), node)
    if len(taps) == 1:
        taps = (*taps, 1)
    if is_op(node, "Gemm"):
        depth, wide = reversed(taps) if node.attributes.get_int("transB", 0) else taps
    else:
        depth, wide = taps[-2:]
        if elements(taps[:-2]) != 1:
            raise NashcError(
                f"a stack of {elements(taps[:-2])} weight matrices",
                where=where(node),
                hint="give it one matrix for all",
            )
    pixels = elements(shape) // depth if depth else 0
    channels, rows, columns = x
    if pixels == 1 and channels * rows * columns == depth:
        return LoopNest(1, wide, channels, 1, 1, rows, columns, rows, columns)
    if channels != depth:
        raise NashcError(
            f"{channels} input channels, but {depth} rows of weights", where=where(node), hint="export the model again"
        )
    return LoopNest(1, wide, depth, rows, columns, 1, 1, rows, columns)


def pool_nest(node: ir.Node) -> LoopNest:
    """A pooling window over every channel."""
    shape, out = shape_of(operand(node, 0), node), shape_of(node.outputs[0], node)
    (iy, ix), (oy, ox) = _plane(shape[2:], 1), _plane(out[2:], 1)
    if node.op_type.startswith("Global"):
        nest = LoopNest(shape[1], 1, 1, 1, 1, iy, ix, iy, ix)
        return nest if shape[0] == 1 else _stacked(replace(nest, stride=(iy, ix)), shape[0])
    frame = window(node)
    fy, fx = _plane(frame.kernel, 1)
    nest = LoopNest(
        shape[1], 1, 1, oy, ox, fy, fx, iy, ix,
        stride=_plane(frame.stride, 1), dilation=_plane(frame.dilation, 1), pad=_pads(frame),
    )  # fmt: skip
    # ceil_mode windows reach over the edge: the cells there are padding too
    top, left, bottom, right = nest.pad
    down, across = nest.span(0, oy) - iy - top, nest.span(1, ox) - ix - left
    return _stacked(replace(nest, pad=(top, left, max(bottom, down), max(right, across))), shape[0])


def pixel_nest(out: Size, source: Size | None = None) -> LoopNest:
    """One operation for each output element; `source` is the input map where it has another size. All of it is read:
    of a larger one each output takes several rows and columns."""
    _, iy, ix = source or out
    return LoopNest(out[0], 1, 1, out[1], out[2], 1, 1, iy, ix, stride=(ceil_div(iy, out[1]), ceil_div(ix, out[2])))
