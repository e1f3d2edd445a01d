"""ShiftConv2d trains weights that are sums of signed powers of two; FixedShiftConv2d is the layer on finished codes.

    y[n, m, o] = scale[m] * sum over c, taps of x * w + bias[m],  w a sum of T terms of the kind +-2^-p or 0

While it trains, a layer is torch's own convolution of the rounded weights: same speed, every device, autocast.
`nashc::shift_conv2d` is the operator ShiftConv itself, on int8 codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from nashc.errors import NashcError, did_you_mean
from nashc.nn.shift_weights import check_finite, composed_codes, decode, round_to_codes, shift_compose, shift_round
from nashc.nn.window import (
    Window2d,
    check,
    conv2d,
    conv2d_gradients,
    kernel_window,
    kernels_fit,
    output_like,
    output_size,
)
from nashc.ops import MAX_CODE, PMAX, native

FORMS = ("q", "ps")
BITS = 5
"""Of a code: its sign and 15 magnitudes, or 0. The default of DeepShift."""


@torch.library.custom_op("nashc::shift_conv2d", mutates_args=())
def shift_conv2d(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """scale * conv(x, weights of codes) + bias: x [N, C, H, W], int8 codes [T, M, C/groups, kernel y, kernel x].

    scale is [M] or [1], bias [M]; pads are top, left, bottom, right. Gradients flow to x, scale and bias.
    Raises NashcError where shapes do not fit or a code is beyond +-15.
    """
    check("shift_conv2d", x, codes, groups, terms_axes=1, same_type=False)
    if codes.dtype != torch.int8 or (codes.numel() and int(codes.to(torch.int16).abs().max()) > MAX_CODE):
        raise NashcError("bad codes", where="shift_conv2d", hint=f"give int8 in -{MAX_CODE}..{MAX_CODE}")
    y = output_like("shift_conv2d", x, codes.shape[1], codes.shape[3:], stride, pads, dilation)
    weight = decode(codes, x.dtype).sum(0)
    if not kernels_fit(x, scale, y, *([] if bias is None else [bias])):
        y = conv2d(x, weight, None, stride, pads, dilation, groups) * scale.view(-1, 1, 1)
        return (y if bias is None else y + bias.view(-1, 1, 1)).contiguous()
    x = x.contiguous()
    kernel = native.Kernel(
        native.Op.MULTIPLY_F32,
        weight.numpy(),
        kernel_window(stride, pads, dilation, groups),
        output=native.Output.F32,
        scale=scale.expand(len(weight)).numpy(),
        bias=None if bias is None else bias.numpy(),
    )
    kernel.run_at(x.data_ptr(), x.shape, y.data_ptr(), threads=torch.get_num_threads())
    return y


@shift_conv2d.register_fake
def _(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    check("shift_conv2d", x, codes, groups, terms_axes=1, same_type=False)
    return x.new_empty([x.shape[0], codes.shape[1], *output_size(x, codes.shape[3:], stride, pads, dilation)])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, codes, scale, _, *ctx.window = inputs
    ctx.save_for_backward(x, codes, scale)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Of scale: d scale[m] = sum over taps of w * (gradient of a convolution for its weights)."""
    x, codes, scale = ctx.saved_tensors
    weight = decode(codes, x.dtype).sum(0)
    wanted = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
    stride, pads, dilation, groups = ctx.window
    scaled = weight * scale.view(-1, 1, 1, 1)
    dx, dw = conv2d_gradients(grad, x, scaled, stride, pads, dilation, groups, wanted)
    dscale = None if dw is None else (dw * weight).sum((1, 2, 3))
    if dscale is not None and len(scale) == 1:
        dscale = dscale.sum(0, keepdim=True)
    dbias = grad.sum((0, 2, 3)) if ctx.needs_input_grad[3] else None
    return dx, None, dscale, dbias, None, None, None, None


shift_conv2d.register_autograd(_backward, setup_context=_setup_context)
for _device in ("cpu", "cuda"):
    shift_conv2d.register_autocast(_device, torch.float32)


class FixedShiftConv2d(Window2d):
    """A shift layer on finished codes: the operator ShiftConv of ONNX, bit for bit the weights that export writes.

    `codes` int8 [T, M, C/groups, kernel y, kernel x] are a buffer; `scale` [M] or [1] and `bias` [M] stay trainable.
    """

    codes: Tensor

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None, window: Window2d) -> None:
        super().__init__(
            window.in_channels,
            window.out_channels,
            window.kernel_size,
            window.stride,
            window.padding,
            window.dilation,
            window.groups,
            window.padding_mode,
        )
        if codes.shape[1:] != self.weight_shape:
            raise NashcError(
                f"codes have shape {list(codes.shape)}",
                where="FixedShiftConv2d",
                hint=f"give [terms, {', '.join(map(str, self.weight_shape))}]",
            )
        self.register_buffer("codes", codes)
        self.scale = nn.Parameter(scale.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def convolve(self, x: Tensor) -> Tensor:
        y: Tensor = shift_conv2d(x, self.codes, self.scale, self.bias, *self.window)
        return y


class ShiftConv2d(Window2d):
    """DeepShift's layer in the place of nn.Conv2d: the same arguments, weights that are sums of powers of two.

    form "q": trains `weight` [M, C/groups, kernel y, kernel x], rounded on the way forward; "ps": trains `shift` and
    `sign` [T, M, C/groups, kernel y, kernel x]. `bits` of a code (2 to 5) limit its shift to pmax = 2^(bits-1) - 2.
    channel_scale: a trained factor [M] for each output channel, 1 at first. Raises NashcError for bad arguments.
    """

    weight: nn.Parameter
    shift: nn.Parameter
    sign: nn.Parameter

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        form: str = "q",
        terms: int = 1,
        bits: int = BITS,
        channel_scale: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        if form not in FORMS:
            raise NashcError(f"form='{form}'", where="ShiftConv2d", hint=did_you_mean(form, FORMS))
        if terms < 1 or not 2 <= bits <= BITS:
            raise NashcError(f"terms={terms}, bits={bits}", where="ShiftConv2d", hint="terms >= 1, bits in 2..5")
        self.form, self.terms, self.bits = form, terms, bits

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        if form == "q":
            self.weight = empty(*self.weight_shape)
        else:
            self.shift, self.sign = empty(terms, *self.weight_shape), empty(terms, *self.weight_shape)
        self.scale = empty(out_channels) if channel_scale else None
        self.bias = empty(out_channels) if bias else None
        self.reset_parameters()

    @property
    def pmax(self) -> int:
        """The largest right shift p."""
        return PMAX if self.bits == BITS else (1 << (self.bits - 1)) - 2

    def reset_parameters(self) -> None:
        """As DeepShift: weight and bias like nn.Conv2d, shift from U(-pmax, 0), sign from U(-1, 1)."""
        if self.form == "q":
            nn.init.kaiming_uniform_(self.weight, a=sqrt(5))
        else:
            nn.init.uniform_(self.shift, -self.pmax, 0)
            nn.init.uniform_(self.sign, -1, 1)
        if self.scale is not None:
            nn.init.ones_(self.scale)
        if self.bias is not None:
            bound = (self.groups / (self.in_channels * self.kernel_size[0] * self.kernel_size[1])) ** 0.5
            nn.init.uniform_(self.bias, -bound, bound)

    @torch.no_grad()
    def carry_over(self, weight: Tensor) -> None:
        """Start from the weights of a convolution; with a channel scale, each channel's largest becomes 1."""
        if self.scale is not None:
            largest = weight.abs().amax((1, 2, 3))
            self.scale.copy_(torch.where(largest >= torch.finfo(largest.dtype).tiny, largest, 1))
            weight = weight / self.scale.view(-1, 1, 1, 1)
        check_finite("ShiftConv2d.carry_over", weight)
        largest_weight = float(weight.abs().max())
        if largest_weight > self.terms * sqrt(2):
            raise NashcError(
                f"a weight of magnitude {largest_weight:.3g} is beyond {self.terms} power(s) of two up to 1",
                hint="use channel_scale=True or more terms",
            )
        if self.form == "q":
            self.weight.copy_(weight)
            return
        codes = round_to_codes(weight, self.terms, self.pmax)
        self.sign.copy_(codes.sign())
        self.shift.copy_(1 - codes.abs().clamp_min(1))

    def rounded_weight(self) -> Tensor:
        """The sums of powers of two [M, C/groups, kernel y, kernel x], without the channel scale; differentiable."""
        if self.form == "q":
            weight: Tensor = shift_round(self.weight, self.terms, self.pmax)
        else:
            weight = shift_compose(self.shift, self.sign, self.pmax)
        return weight

    @torch.no_grad()
    def fixed(self) -> FixedShiftConv2d:
        """This layer on codes, for inference and export; NashcError where a weight is not finite."""
        if self.form == "q":
            check_finite("ShiftConv2d.fixed", self.weight)
            codes, like = round_to_codes(self.weight, self.terms, self.pmax), self.weight
        else:
            check_finite("ShiftConv2d.fixed", self.shift, self.sign)
            codes, like = composed_codes(self.shift, self.sign, self.pmax), self.shift
        scale = like.new_ones(1) if self.scale is None else self.scale
        return FixedShiftConv2d(codes, scale, self.bias, self).train(self.training)

    def convolve(self, x: Tensor) -> Tensor:
        weight = self.rounded_weight()
        check("ShiftConv2d", x, weight, self.groups, same_type=not torch.is_autocast_enabled(x.device.type))
        if self.scale is not None:
            weight = weight * self.scale.view(-1, 1, 1, 1)
        return conv2d(x, weight, self.bias, *self.window)

    def extra_repr(self) -> str:
        scaled = "" if self.scale is None else ", channel_scale=True"
        return f"{super().extra_repr()}, form={self.form!r}, terms={self.terms}, bits={self.bits}{scaled}"
