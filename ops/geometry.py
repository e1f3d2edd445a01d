"""Convolution geometry: attributes and shapes -> padding, output size, windows (1-D and 2-D, ONNX Conv semantics)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nashc.core.loops import LoopNest
from nashc.core.number import ceil_div
from nashc.errors import NashcError, did_you_mean

Size = int | None
"""One dimension; None where it is not known before run time."""

AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
MAX_SPATIAL_RANK = 2
COORDINATES_SINCE = 11
"""The opset since which Resize says which pixel comes from where."""


@dataclass(frozen=True, slots=True)
class ConvGeometry:
    """The loop bounds of X [batch, group*c, *spatial] with W [group*k, c, *kernel].

    k, c are output and input channels per group. `spatial` and `output` hold None where the input size is unknown,
    `pad_begin` and `pad_end` too when auto_pad makes them depend on it.
    """

    batch: Size
    group: int
    k: int
    c: int
    spatial: tuple[Size, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pad_begin: tuple[Size, ...]
    pad_end: tuple[Size, ...]
    output: tuple[Size, ...]

    @property
    def out_channels(self) -> int:
        return self.group * self.k

    @property
    def in_channels(self) -> int:
        return self.group * self.c

    @property
    def taps(self) -> int:
        """Terms summed into one output element."""
        count = self.c
        for size in self.kernel:
            count *= size
        return count

    @property
    def pads(self) -> tuple[int, ...] | None:
        """Explicit ONNX `pads` (all begins, then all ends); None while they depend on an unknown input size."""
        flat = [p for p in self.pad_begin + self.pad_end if p is not None]
        return tuple(flat) if len(flat) == 2 * len(self.kernel) else None

    @property
    def nest(self) -> LoopNest:
        """The loop nest of one image; a 1-D layer is one row high. Needs known sizes."""
        pads = self.pads
        spatial = [s for s in self.spatial if s is not None]
        output = [s for s in self.output if s is not None]
        rank = len(self.kernel)
        if pads is None or len(spatial) < rank or len(output) < rank:
            raise NashcError(
                f"input size {_text(self.spatial)} is not fully known", hint="fix the input shape of the model"
            )

        def two(values: Sequence[int], fill: int) -> tuple[int, int]:
            y, x = (fill, *values) if rank == 1 else values
            return y, x

        (oy, ox), (fy, fx), (iy, ix) = two(output, 1), two(self.kernel, 1), two(spatial, 1)
        (top, left), (bottom, right) = two(pads[:rank], 0), two(pads[rank:], 0)
        return LoopNest(
            g=self.group, k=self.k, c=self.c, oy=oy, ox=ox, fy=fy, fx=fx, iy=iy, ix=ix,
            stride=two(self.strides, 1), dilation=two(self.dilations, 1), pad=(top, left, bottom, right),
        )  # fmt: skip


def conv_geometry(
    x_shape: Sequence[Size],
    w_shape: Sequence[Size],
    *,
    where: str,
    auto_pad: str = "NOTSET",
    kernel_shape: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    group: int = 1,
) -> ConvGeometry:
    """Check shapes and attributes as ONNX Conv defines them and resolve padding and output size.

    `w_shape` is [M, C/group, *kernel] and fully known; sizes of `x_shape` may be None. Raises NashcError at `where`.
    """
    kernel = _kernel(x_shape, w_shape, kernel_shape, where)
    rank = len(kernel)
    strides = _attribute("strides", strides, (1,) * rank, 1, where)
    dilations = _attribute("dilations", dilations, (1,) * rank, 1, where)
    explicit = _attribute("pads", pads, (0,) * (2 * rank), 0, where)
    k, c = _channels(x_shape, w_shape, group, where)
    if auto_pad not in AUTO_PADS:
        raise NashcError(f"unknown auto_pad '{auto_pad}'", where=where, hint=did_you_mean(auto_pad, AUTO_PADS))
    if auto_pad != "NOTSET" and (any(explicit) or (pads is not None and auto_pad != "VALID")):
        raise NashcError(f"auto_pad={auto_pad} together with pads={_text(explicit)}", where=where, hint="give only one")

    spans = tuple((f - 1) * d + 1 for f, d in zip(kernel, dilations, strict=True))
    spatial = tuple(x_shape[2:])
    if auto_pad.startswith("SAME"):
        lower = auto_pad == "SAME_LOWER"
        both = [_same(n, s, span, lower) for n, s, span in zip(spatial, strides, spans, strict=True)]
        begin, end = tuple(b for b, _ in both), tuple(e for _, e in both)
    else:
        begin, end = explicit[:rank], explicit[rank:]
    output = tuple(_output(*sizes) for sizes in zip(spatial, begin, end, spans, strides, strict=True))
    if any(size is not None and size < 1 for size in output):
        raise NashcError(
            f"input {_text(spatial)} with pads {_text((*begin, *end))} is smaller than the filter span {_text(spans)}",
            where=where,
            hint="give a larger input or more padding",
        )
    return ConvGeometry(x_shape[0], group, k, c, spatial, kernel, strides, dilations, begin, end, output)


def _kernel(
    x_shape: Sequence[Size], w_shape: Sequence[Size], kernel_shape: Sequence[int] | None, where: str
) -> tuple[int, ...]:
    rank = len(x_shape) - 2
    if not 1 <= rank <= MAX_SPATIAL_RANK:
        raise NashcError(
            f"X has shape {_text(x_shape)}", where=where, hint="give X as [N, C, length] or [N, C, height, width]"
        )
    if len(w_shape) != rank + 2:
        raise NashcError(
            f"W has {len(w_shape)} convolution axes {_text(w_shape)} but X has {len(x_shape)} axes {_text(x_shape)}",
            where=where,
            hint=f"give W as [M, C/group, {rank} filter size(s)], after the terms axis where there is one",
        )
    known = tuple(size for size in w_shape if size is not None)
    if len(known) < len(w_shape) or min(known) < 1:
        raise NashcError(
            f"W has shape {_text(w_shape)}", where=where, hint="every size of W must be known and positive"
        )
    kernel = known[2:]
    if kernel_shape is not None and tuple(kernel_shape) != kernel:
        raise NashcError(
            f"kernel_shape={_text(kernel_shape)} but W has filter {_text(kernel)}",
            where=where,
            hint="drop kernel_shape",
        )
    return kernel


def _channels(x_shape: Sequence[Size], w_shape: Sequence[Any], group: int, where: str) -> tuple[int, int]:
    m, c = w_shape[0], w_shape[1]
    if group < 1 or m % group:
        raise NashcError(
            f"{m} output channels do not divide into group={group}", where=where, hint="make M a multiple of group"
        )
    if x_shape[1] is not None and x_shape[1] != group * c:
        raise NashcError(
            f"X has {x_shape[1]} channels but W wants {c} x group {group} = {group * c}",
            where=where,
            hint="check group and the second axis of W (C/group)",
        )
    return m // group, c


def _attribute(
    name: str, values: Sequence[int] | None, default: tuple[int, ...], least: int, where: str
) -> tuple[int, ...]:
    if values is None:
        return default
    if len(values) != len(default) or any(v < least for v in values):
        raise NashcError(f"{name}={_text(values)}", where=where, hint=f"give {len(default)} integers >= {least}")
    return tuple(int(v) for v in values)


def _same(size: Size, stride: int, span: int, lower: bool) -> tuple[Size, Size]:
    """Padding that makes the output ceil(size / stride); SAME_LOWER puts the odd element first."""
    if size is None and stride > 1:
        return None, None
    total = span - 1 if size is None else max((ceil_div(size, stride) - 1) * stride + span - size, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def _output(size: Size, begin: Size, end: Size, span: int, stride: int) -> Size:
    if size is None or begin is None or end is None:
        return None
    return (size + begin + end - span) // stride + 1


def _text(sizes: Sequence[Size]) -> str:
    return "[" + ", ".join("?" if s is None else str(s) for s in sizes) + "]"


def nearest_before(scales: NDArray[Any]) -> str | None:
    """nearest_mode of a Resize or Upsample of a set before COORDINATES_SINCE, as onnxruntime has it: the pixel before
    the place, or behind it where the map shrinks. None where one axis grows and another shrinks: no mode is both."""
    shrinks = bool((scales < 1).any())
    if shrinks and (scales > 1).any():
        return None
    return "ceil" if shrinks else "floor"


def windows(x: NDArray[Any], geometry: ConvGeometry) -> NDArray[Any]:
    """View of zero-padded x as [batch, group, c, *output, *kernel]: the input element under each tap."""
    assert geometry.pads is not None
    rank = len(geometry.kernel)
    begin, end = geometry.pads[:rank], geometry.pads[rank:]
    padded = np.pad(x, [(0, 0), (0, 0), *zip(begin, end, strict=True)])
    spans = tuple((f - 1) * d + 1 for f, d in zip(geometry.kernel, geometry.dilations, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=tuple(range(2, 2 + rank)))
    strided = tuple(slice(None, None, s) for s in geometry.strides)
    dilated = tuple(slice(None, None, d) for d in geometry.dilations)
    view = view[(slice(None), slice(None), *strided, *dilated)]
    return view.reshape(x.shape[0], geometry.group, geometry.c, *view.shape[2:])


def columns(x: NDArray[Any], geometry: ConvGeometry) -> NDArray[Any]:
    """Windows as a matrix: [batch, group, output pixels, taps], taps in the order of W's axes (c, *kernel)."""
    view = windows(x, geometry)
    rank = len(geometry.kernel)
    pixels_first = np.moveaxis(view, 2, 2 + rank)
    return pixels_first.reshape(x.shape[0], geometry.group, -1, geometry.taps)
