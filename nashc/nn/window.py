"""What the layers share: the sliding window of nn.Conv2d, its arguments and its checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from nashc.errors import NashcError
from nashc.ops import native

Pair = tuple[int, int]


class Window2d(nn.Module):
    """Base of the layers: constructor arguments and attributes are those of nn.Conv2d; padding is with zeros.

    A subclass gives `weight_shape` [M, C/groups, kernel y, kernel x] its meaning and implements `convolve`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int],
        padding: str | int | Sequence[int],
        dilation: int | Sequence[int],
        groups: int,
        padding_mode: str,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        if min(in_channels, out_channels, groups) < 1 or in_channels % groups or out_channels % groups:
            raise NashcError(
                f"in_channels={in_channels}, out_channels={out_channels}, groups={groups}",
                where=where,
                hint="both channel counts must be positive multiples of groups",
            )
        if padding_mode != "zeros":
            raise NashcError(f"padding_mode='{padding_mode}'", where=where, hint="only 'zeros' exists; pad the input")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = _pair("kernel_size", kernel_size, 1, where)
        self.stride = _pair("stride", stride, 1, where)
        self.dilation = _pair("dilation", dilation, 1, where)
        self.padding_mode = padding_mode
        self.padding: str | Pair = padding if isinstance(padding, str) else _pair("padding", padding, 0, where)
        self.pads = _pads(self.padding, self.kernel_size, self.stride, self.dilation, where)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return self.out_channels, self.in_channels // self.groups, *self.kernel_size

    @property
    def window(self) -> tuple[Pair, tuple[int, int, int, int], Pair, int]:
        """(stride, pads, dilation, groups) as the operators take them; pads are top, left, bottom, right."""
        return self.stride, self.pads, self.dilation, self.groups

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, M, H', W'], or the same without N."""
        return self.convolve(x[None])[0] if x.dim() == 3 else self.convolve(x)

    def convolve(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What .to() does: terms become more filters for it, since a layout like channels_last wants four axes."""

        def flat(tensor: Tensor) -> Tensor:
            if tensor.dim() != 5:
                return fn(tensor)
            return fn(tensor.reshape(-1, *tensor.shape[2:])).reshape(tensor.shape)

        super()._apply(flat, recurse)  # type: ignore[no-untyped-call]
        return self

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding != (0, 0):
            parts.append(f"padding={self.padding}")
        if self.dilation != (1, 1):
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if getattr(self, "bias", None) is None:
            parts.append("bias=False")
        return ", ".join(parts)


def check(name: str, x: Tensor, weight: Tensor, groups: int, *, terms_axes: int = 0, same_type: bool = True) -> None:
    """Raise NashcError unless x [N, C, H, W] fits weight [M, C/groups, *kernel] behind its axes of terms."""
    shape = weight.shape[terms_axes:]
    if x.dim() != 4 or len(shape) != 4:
        raise NashcError(
            f"x has shape {list(x.shape)}, weight {list(weight.shape)}", where=name, hint="give x as [N, C, H, W]"
        )
    if x.shape[1] != shape[1] * groups:
        raise NashcError(
            f"x has {x.shape[1]} channels, the layer wants {shape[1] * groups}",
            where=name,
            hint="check in_channels and groups",
        )
    if shape[0] % groups:
        raise NashcError(f"{shape[0]} output channels do not divide into {groups} groups", where=name)
    if x.device != weight.device or not x.is_floating_point() or (same_type and x.dtype != weight.dtype):
        raise NashcError(
            f"x is {x.dtype} on {x.device}, weight {weight.dtype} on {weight.device}",
            where=name,
            hint="move both to one device and type (module.to(...))",
        )


def output_size(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Rows and columns of the output; may be symbolic, and below 1 where the window does not fit."""
    return [
        (x.shape[2 + a] + pads[a] + pads[2 + a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in range(2)
    ]


def output_like(
    name: str,
    x: Tensor,
    channels: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """An uninitialised output [N, channels, H', W']; NashcError where the window does not fit into x."""
    sizes = output_size(x, kernel, stride, pads, dilation)
    if min(sizes) < 1:
        raise NashcError(
            f"the window (kernel {list(kernel)}, dilation {list(dilation)}) does not fit into x {list(x.shape)} "
            f"with pads {list(pads)}",
            where=name,
            hint="give a larger input or more padding",
        )
    return x.new_empty([x.shape[0], channels, *sizes])


def pad(x: Tensor, pads: Sequence[int]) -> Tensor:
    """x with zeros around it; pads are top, left, bottom, right."""
    top, left, bottom, right = pads
    return functional.pad(x, (left, right, top, bottom)) if any(pads) else x


def sound(x: Tensor, weight: Tensor, stride: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The operands of a convolution in a format whose gradients torch gets right.

    torch 2.13 on CPUs: the gradient of a strided 1x1 convolution of fewer than 8 channels in channels_last writes
    beyond its memory.
    """
    if x.dim() != 4 or weight.shape[2:] != (1, 1) or max(stride) == 1 or weight.shape[1] >= 8:
        return x, weight
    # one channel, or one pixel, is in both formats at once: only a copy is in one of them
    return x.clone(memory_format=torch.contiguous_format), weight.clone(memory_format=torch.contiguous_format)


class SoundConv2d(nn.Conv2d):
    """torch's own layer, on `sound` operands."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.is_grad_enabled():
            input, weight = sound(input, weight, self.stride)
        y: Tensor = super()._conv_forward(input, weight, bias)
        return y


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """torch's convolution, with pads that may differ between the sides."""
    if pads[:2] != pads[2:]:
        x, pads = pad(x, pads), (0, 0, 0, 0)
    if torch.is_grad_enabled():
        x, weight = sound(x, weight, stride)
    return functional.conv2d(x, weight, bias, list(stride), list(pads[:2]), list(dilation), groups)


def conv2d_gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of conv2d for x and weight, those that are wanted."""
    top, left, bottom, right = pads
    even = (top, left) == (bottom, right)
    padded, weight = sound(x if even else pad(x, pads), weight, stride)
    dx, dw, _ = torch.ops.aten.convolution_backward(
        grad, padded, weight, None, list(stride), [top, left] if even else [0, 0], list(dilation), False, [0, 0],
        groups, [*wanted, False],
    )  # fmt: skip
    if wanted[0] and not even:
        dx = dx[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    return dx, dw


def kernels_fit(*tensors: Tensor) -> bool:
    """Whether the kernels of nashc.ops can do it: float32 on the CPU, something to do, and compiled."""
    fit = all(t.device.type == "cpu" and t.dtype == torch.float32 and t.numel() > 0 for t in tensors)
    return fit and native.available()


def kernel_window(stride: Sequence[int], pads: Sequence[int], dilation: Sequence[int], groups: int) -> native.Window:
    top, left, bottom, right = pads
    return native.Window((stride[0], stride[1]), (top, left, bottom, right), (dilation[0], dilation[1]), groups)


def _pair(name: str, value: Any, least: int, where: str) -> Pair:
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) == 1:
        values *= 2
    if len(values) != 2 or any(not isinstance(v, int) or v < least for v in values):
        raise NashcError(f"{name}={value}", where=where, hint=f"give one or two integers >= {least}")
    return values


def _pads(padding: str | Pair, kernel: Pair, stride: Pair, dilation: Pair, where: str) -> tuple[int, int, int, int]:
    """Top, left, bottom, right, as nn.Conv2d reads `padding`; 'same' puts the odd element behind."""
    if not isinstance(padding, str):
        return *padding, *padding
    if padding == "valid":
        return 0, 0, 0, 0
    if padding != "same":
        raise NashcError(f"padding='{padding}'", where=where, hint="give 'same', 'valid' or one or two integers")
    if stride != (1, 1):
        raise NashcError(f"padding='same' with stride={stride}", where=where, hint="give the padding as integers")
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2
