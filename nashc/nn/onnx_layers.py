"""The operators of onnx_ops.py that slide a window, normalise or resample."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nashc.errors import NashcError
from nashc.nn.adder import adder_conv2d
from nashc.nn.onnx_ops import Function, op
from nashc.nn.shift import shift_conv2d
from nashc.nn.window import sound
from nashc.ops.geometry import AUTO_PADS, COORDINATES_SINCE, nearest_before

_CONVOLUTIONS: tuple[Function, ...] = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED: tuple[Function, ...] = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)
_MAX_POOLS: tuple[Function, ...] = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_AVERAGE_POOLS: tuple[Function, ...] = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


def window(
    x: Tensor,
    kernel: Sequence[int],
    auto_pad: str,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations and pads (all begins, then all ends) with defaults and auto_pad resolved."""
    rank = len(kernel)
    stride, dilation = list(strides or [1] * rank), list(dilations or [1] * rank)
    if auto_pad not in AUTO_PADS:
        raise NashcError(f"unknown auto_pad '{auto_pad}'")
    if auto_pad in ("NOTSET", "VALID"):
        return stride, dilation, list(pads or [0] * (2 * rank)) if auto_pad == "NOTSET" else [0] * (2 * rank)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = x.shape[2:]
    total = [max(0, (-(-n // s) - 1) * s + span - n) for n, s, span in zip(sizes, stride, spans, strict=True)]
    return stride, dilation, _shared_out(total, more_behind=auto_pad == "SAME_UPPER")


def _shared_out(total: Sequence[int], *, more_behind: bool) -> list[int]:
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return [*small, *large] if more_behind else [*large, *small]


def padded(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """pads of the last axes: all begins, then all ends; negative ones cut."""
    rank = len(pads) // 2
    flat = [n for i in reversed(range(rank)) for n in (pads[i], pads[rank + i])]
    return functional.pad(x, flat, value=value) if any(flat) else x


@op("Conv")
def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    stride, dilation, pad = window(x, w.shape[2:], auto_pad, strides, dilations, pads)
    rank = len(stride)
    if pad[:rank] != pad[rank:]:
        x, pad = padded(x, pad), [0] * rank
    if torch.is_grad_enabled():
        x, w = sound(x, w, stride)
    y: Tensor = _CONVOLUTIONS[rank - 1](x, w, b, stride, pad[:rank], dilation, group)
    return y


@op("ConvTranspose")
def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    output_padding: Sequence[int] = (),
    output_shape: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Computed without pads and then cut, so that they may differ between the sides."""
    rank = w.dim() - 2
    stride, dilation = list(strides or [1] * rank), list(dilations or [1] * rank)
    extra, cut = list(output_padding or [0] * rank), list(pads or [0] * (2 * rank))
    y: Tensor = _TRANSPOSED[rank - 1](x, w, None, stride, 0, 0, group, dilation)
    y = padded(y, [0] * rank + extra)
    if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = list(output_shape)[-rank:] or [x.shape[2 + i] * stride[i] for i in range(rank)]
        total = [n - m for n, m in zip(y.shape[2:], wanted, strict=True)]
        cut = _shared_out(total, more_behind=auto_pad == "SAME_UPPER")
    y = padded(y, [-n for n in cut])
    return y if b is None else y + b.view(-1, *[1] * rank)


def _flat(function: Function, x: Tensor, stride: Sequence[int], pad: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """A layer of ai.nashc over one or two spatial axes; function(x, strides, pads, dilations, one axis)."""
    if len(stride) == 2:
        return function(x, list(stride), list(pad), list(dilation), False)  # type: ignore[no-any-return]
    y: Tensor = function(x.unsqueeze(2), [1, *stride], [0, pad[0], 0, pad[1]], [1, *dilation], True)
    return y.squeeze(2)


@op("ai.nashc.AdderConv")
def adder_conv(
    x: Tensor,
    w: Tensor,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
    eta: float | None = None,
) -> Tensor:
    def two(x: Tensor, stride: list[int], pad: list[int], dilation: list[int], one_axis: bool) -> Tensor:
        y: Tensor = adder_conv2d(x, w.unsqueeze(2) if one_axis else w, stride, pad, dilation, group, eta)
        return y

    stride, dilation, pad = window(x, w.shape[2:], auto_pad, strides, dilations, pads)
    return _flat(two, x, stride, pad, dilation)


@op("ai.nashc.ShiftConv")
def shift_conv(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    def two(x: Tensor, stride: list[int], pad: list[int], dilation: list[int], one_axis: bool) -> Tensor:
        y: Tensor = shift_conv2d(x, codes.unsqueeze(3) if one_axis else codes, scale, b, stride, pad, dilation, group)
        return y

    stride, dilation, pad = window(x, codes.shape[3:], auto_pad, strides, dilations, pads)
    return _flat(two, x, stride, pad, dilation)


# ------------------------------------------------------------------ pools


def _pool_pads(x: Tensor, kernel: Sequence[int], stride: list[int], dilation: list[int], pad: list[int]) -> list[int]:
    """Pads with which the last window of ceil_mode is whole; no window starts behind the input and its begin."""
    rank = len(kernel)
    ends = []
    for i, n in enumerate(x.shape[2:]):
        span = (kernel[i] - 1) * dilation[i] + 1
        count = ceil((n + pad[i] + pad[rank + i] - span) / stride[i]) + 1
        if (count - 1) * stride[i] >= n + pad[i]:
            count -= 1
        ends.append((count - 1) * stride[i] + span - n - pad[i])
    return [*pad[:rank], *ends]


@op("MaxPool")
def max_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] = (),
    kernel_shape: Sequence[int],
    pads: Sequence[int] = (),
    storage_order: int = 0,
    strides: Sequence[int] = (),
) -> Tensor:
    stride, dilation, pad = window(x, kernel_shape, auto_pad, strides, dilations, pads)
    if ceil_mode:
        pad = _pool_pads(x, kernel_shape, stride, dilation, pad)
    y: Tensor = _MAX_POOLS[len(stride) - 1](padded(x, pad, -torch.inf), list(kernel_shape), stride, 0, dilation)
    return y


@op("AveragePool")
def average_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] = (),
    kernel_shape: Sequence[int],
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """The sum over a window by the number of elements in it, with or without the pads."""
    stride, dilation, pad = window(x, kernel_shape, auto_pad, strides, dilations, pads)
    if any(d != 1 for d in dilation):
        raise NashcError(f"dilations={dilation} of an average are not known here")
    pool, kernel = _AVERAGE_POOLS[len(stride) - 1], list(kernel_shape)
    ends = _pool_pads(x, kernel, stride, dilation, pad) if ceil_mode else pad
    y: Tensor = pool(padded(x, ends), kernel, stride)
    if not any(ends):
        return y
    counted = padded(x.new_ones(1, 1, *x.shape[2:]), pad, 1.0 if count_include_pad else 0.0)
    share: Tensor = pool(padded(counted, [e - p for e, p in zip(ends, pad, strict=True)]), kernel, stride)
    return y / share


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


@op("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    return x.mean(_spatial(x), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    return x.amax(_spatial(x), keepdim=True)


# ------------------------------------------------------------------ norms


@op("BatchNormalization")
def batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    training_mode: int = 0,
) -> Tensor:
    """With the stored statistics, in training too: they belong to the model that is converted."""
    if training_mode or spatial != 1:
        raise NashcError(f"training_mode={training_mode}, spatial={spatial} are not known here")
    return functional.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)


@op("InstanceNormalization")
def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return functional.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


@op("LayerNormalization")
def layer_norm(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    sizes = x.shape[axis % x.dim() :]
    y = functional.layer_norm(x, sizes, eps=epsilon) * scale
    return y if bias is None else y + bias


@op("LRN")
def lrn(x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    around = [0, 0, 0, 0, (size - 1) // 2, size - 1 - (size - 1) // 2]
    squares = functional.pad(x.square().unsqueeze(1), around)
    mean = functional.avg_pool3d(squares, (size, 1, 1), 1).squeeze(1)
    return x / (bias + alpha * mean) ** beta


# ------------------------------------------------------------------ resampling


@op("Pad")
def pad_(
    x: Tensor,
    pads: Tensor | Sequence[int],
    fill: Tensor | None = None,
    axes: Tensor | None = None,
    *,
    mode: str = "constant",
    value: float = 0.0,
) -> Tensor:
    chosen = list(range(x.dim())) if axes is None else [int(a) % x.dim() for a in axes]
    given = [int(n) for n in pads]
    before, behind = given[: len(chosen)], given[len(chosen) :]
    number = value if fill is None else float(fill)
    every = [0] * (2 * x.dim())
    for axis, b, e in zip(chosen, before, behind, strict=True):
        every[axis], every[x.dim() + axis] = b, e
    if mode == "constant":
        return padded(x, every, number)
    first = next((i for i in range(x.dim()) if every[i] or every[x.dim() + i]), x.dim())
    kinds = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in kinds or first < 2:
        raise NashcError(f"mode='{mode}' with pads {given} is not known here")
    flat = [n for i in reversed(range(2, x.dim())) for n in (every[i], every[x.dim() + i])]
    return functional.pad(x, flat, mode=kinds[mode])


def _sources(size: int, count: int, scale: float, mode: str) -> Tensor:
    """Where in an axis of `size` elements each of `count` results lies."""
    i = torch.arange(count, dtype=torch.float64)
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        return i * ((size - 1) / (count - 1) if count > 1 else 0.0)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and count > 1):
        return (i + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return torch.zeros_like(i)
    raise NashcError(f"coordinate_transformation_mode='{mode}' is not known here")


NEAREST: dict[str, Any] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


@op("Resize")
def resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    opset: int = COORDINATES_SINCE,
) -> Tensor:
    if opset < COORDINATES_SINCE:  # x and scales alone
        scales, roi, coordinate_transformation_mode = roi, None, "asymmetric"
        known = "floor" if scales is None else nearest_before(scales.detach().cpu().numpy())
        if mode == "nearest" and known is None:
            raise NashcError("one axis shrinks and another grows, which is not known here before opset 11")
        nearest_mode = known or nearest_mode
    if mode not in ("nearest", "linear") or antialias or keep_aspect_ratio_policy != "stretch":
        raise NashcError(f"mode='{mode}', antialias={antialias}, {keep_aspect_ratio_policy} are not known here")
    chosen = range(x.dim()) if axes is None else axes
    asked = sizes.tolist() if sizes is not None and sizes.numel() else None
    factors = scales.tolist() if scales is not None and scales.numel() else [1.0] * len(chosen)
    for k, axis in enumerate(chosen):
        size = x.shape[axis]
        count = int(asked[k]) if asked is not None else int(size * factors[k])
        scale = count / size if asked is not None else factors[k]
        if (count == size and scale == 1.0) or axis == 0:
            continue
        place = _sources(size, count, scale, coordinate_transformation_mode)
        if mode == "nearest":
            x = x.index_select(axis, NEAREST[nearest_mode](place).clamp(0, size - 1).long())
        else:
            place = place.clamp(0, size - 1)
            low = place.floor().long()
            share = (place - low).to(x.dtype).view(-1, *[1] * (x.dim() - 1 - axis % x.dim()))
            x = torch.lerp(x.index_select(axis, low), x.index_select(axis, (low + 1).clamp(max=size - 1)), share)
    return x


@op("Upsample")
def upsample(
    x: Tensor, factors: Tensor | None = None, *, mode: str = "nearest", scales: Sequence[float] | None = None
) -> Tensor:
    given = factors if scales is None else torch.tensor(scales)
    y: Tensor = resize(x, None, given, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    return y
