"""AdderConv2d: minus the L1 distance between window and filter, with the gradients that AdderNet trains with.

    y[n, m, o] = -sum over c, taps of |x - w|                         a padded tap is a real zero
    dw[m, c, tap] = sum over n, o of dy * (x - w)                     instead of the sign of x - w
    dx[n, c, i] = sum over m, taps of dy * HardTanh(w - x)            instead of the sign of w - x
    dw <- dw * eta * sqrt(k) / ||dw||_2, k the number of weights      a step of its own size for each layer

AdderNet, arXiv 1912.13200, equations 2, 5, 6, 13. The first gradient is the correlation of x with dy, as in a
convolution, minus w * sum(dy). On the CPU in float32 the kernels of nashc.ops compute y and dx, elsewhere torch does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nashc.errors import NashcError
from nashc.nn.window import (
    Window2d,
    check,
    conv2d_gradients,
    kernel_window,
    kernels_fit,
    output_like,
    output_size,
    pad,
)
from nashc.ops import native

ETA = 0.2
"""Of the adaptive gradient scale, for every layer of AdderNet's networks."""
COPIED_ELEMENTS = 2**19
"""Of one operand of the weight gradient at a time, on the CPU: 2 MiB of float32."""
NARROW = (torch.float16, torch.bfloat16)


@torch.library.custom_op("nashc::adder_conv2d", mutates_args=())
def adder_conv2d(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    eta: float | None,
) -> Tensor:
    """-sum |x - w| of x [N, C, H, W], weight [M, C/groups, kernel y, kernel x]; pads are top, left, bottom, right.

    `eta` belongs to the gradient of weight: None leaves it unscaled. Raises NashcError where shapes do not fit.
    """
    check("adder_conv2d", x, weight, groups)
    y = output_like("adder_conv2d", x, weight.shape[0], weight.shape[2:], stride, pads, dilation)
    if not kernels_fit(x, weight, y):
        return _forward(x, weight, y, stride, pads, dilation, groups)
    x = x.contiguous()
    kernel = native.Kernel(native.Op.ADDER_F32, weight.numpy(), kernel_window(stride, pads, dilation, groups))
    kernel.run_at(x.data_ptr(), x.shape, y.data_ptr(), threads=torch.get_num_threads())
    return y


@adder_conv2d.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    eta: float | None,
) -> Tensor:
    check("adder_conv2d", x, weight, groups)
    return x.new_empty([x.shape[0], weight.shape[0], *output_size(x, weight.shape[2:], stride, pads, dilation)])


@torch.library.custom_op("nashc::adder_conv2d_input_gradient", mutates_args=())
def adder_conv2d_input_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """dx = sum over m, taps of dy * HardTanh(w - x) (equation 6), in the shape of x."""
    if not kernels_fit(x, weight, grad):
        return _input_gradient(grad, x, weight, stride, pads, dilation, groups)
    grad, x = grad.contiguous(), x.contiguous()
    dx = torch.empty_like(x)
    native.adder_input_gradient_at(
        x.data_ptr(),
        x.shape,
        weight.contiguous().numpy(),
        grad.data_ptr(),
        dx.data_ptr(),
        kernel_window(stride, pads, dilation, groups),
        threads=torch.get_num_threads(),
    )
    return dx


@adder_conv2d_input_gradient.register_fake
def _(grad: Tensor, x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("nashc::adder_conv2d_weight_gradient", mutates_args=())
def adder_conv2d_weight_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """dw = sum over n, o of dy * (x - w) (equation 5), in the shape of weight; float32 for narrower types, whose range
    its sums leave.

    On the CPU a few images at a time: torch's convolution copies its operands into a layout of its own.
    """
    grad, x, weight = (t.to(_wide(weight.dtype)) for t in (grad, x, weight))
    dw = -weight.contiguous() * grad.sum((0, 2, 3)).view(-1, 1, 1, 1)
    images = max(1, x.shape[0])
    if x.device.type == "cpu":
        images = max(1, COPIED_ELEMENTS // max(1, x[:1].numel(), grad[:1].numel()))
    for i in range(0, x.shape[0], images):
        some = slice(i, i + images)
        part = conv2d_gradients(grad[some], x[some], weight, stride, pads, dilation, groups, (False, True))[1]
        assert part is not None
        dw += part
    return dw


@adder_conv2d_weight_gradient.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return weight.new_empty(weight.shape, dtype=_wide(weight.dtype))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in NARROW else dtype


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, *ctx.window, ctx.eta = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    stride, pads, dilation, groups = ctx.window
    dx = dw = None
    if ctx.needs_input_grad[0]:
        dx = adder_conv2d_input_gradient(grad, x, weight, stride, pads, dilation, groups)
    if ctx.needs_input_grad[1]:
        dw = adder_conv2d_weight_gradient(grad, x, weight, stride, pads, dilation, groups)
        if ctx.eta is not None:
            dw = dw * (ctx.eta * dw.numel() ** 0.5 / torch.linalg.vector_norm(dw).clamp_min(1e-12))
        dw = dw.to(weight.dtype)
    return dx, dw, None, None, None, None, None


adder_conv2d.register_autograd(_backward, setup_context=_setup_context)
for _device in ("cpu", "cuda"):
    # |x - w| of narrow floats loses what distinguishes the outputs, which lie close together and far from zero
    adder_conv2d.register_autocast(_device, torch.float32)


def _grouped(x: Tensor, groups: int) -> Tensor:
    """x [N, C, H, W] as [N, groups, c, H, W]."""
    n, c, *sizes = x.shape
    return x.view(n, groups, c // groups, *sizes)


def _taps(
    padded: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int], dilation: Sequence[int], groups: int
) -> list[tuple[Tensor, Tensor]]:
    """For each filter tap: the view of padded x under it [N, groups, c, oy, ox], and its weights [groups, k, c]."""
    x = _grouped(padded, groups)
    w = weight.reshape(groups, -1, *weight.shape[1:])
    found = []
    for fy in range(weight.shape[2]):
        for fx in range(weight.shape[3]):
            begin = fy * dilation[0], fx * dilation[1]
            rows, columns = (slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(begin, sizes, stride, strict=True))
            found.append((x[..., rows, columns], w[..., fy, fx]))
    return found


def _forward(
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """y in torch, tap by tap with cdist: memory for one copy of x and of y at a time; sums at least in float32."""
    wide = _wide(x.dtype)
    n, m, *sizes = y.shape
    total = y.new_zeros((groups, n * sizes[0] * sizes[1], m // groups), dtype=wide)
    for under, filters in _taps(pad(x, pads).to(wide), weight.to(wide), sizes, stride, dilation, groups):
        pixels = under.permute(1, 0, 3, 4, 2).reshape(groups, -1, under.shape[2])
        total -= torch.cdist(pixels, filters, p=1.0)
    return y.copy_(total.view(groups, n, *sizes, m // groups).permute(1, 0, 4, 2, 3).reshape(y.shape))


def _input_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """dx in torch, one tap and output channel at a time: memory for a few copies of x."""
    wide = _wide(x.dtype)
    padded = pad(x, pads).to(wide)
    dx = torch.zeros_like(padded)
    dy = _grouped(grad.to(wide), groups)
    taps = _taps(padded, weight.to(wide), grad.shape[2:], stride, dilation, groups)
    targets = _taps(dx, weight, grad.shape[2:], stride, dilation, groups)
    for (under, filters), (target, _) in zip(taps, targets, strict=True):
        for k in range(filters.shape[1]):
            slope = (filters[:, k, :, None, None] - under).clamp_(-1, 1)
            target.addcmul_(slope, dy[:, :, k, None])
    top, left, _, _ = pads
    return dx[:, :, top : top + x.shape[2], left : left + x.shape[3]].to(x.dtype, copy=True).contiguous()


class AdderConv2d(Window2d):
    """AdderNet's layer in the place of nn.Conv2d: the same arguments, y = -sum |x - w|; put a BatchNorm2d behind it.

    `weight` [M, C/groups, kernel y, kernel x] starts from N(0, 1). `bias` is False by default: the BN behind has one.
    `eta`: the scale of the weight gradient; None leaves the plain gradient. Raises NashcError for bad arguments.
    """

    weight: nn.Parameter

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = False,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        eta: float | None = ETA,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        if eta is not None and not 0 < eta < float("inf"):
            raise NashcError(f"eta={eta}", where="AdderConv2d", hint="give a positive number, or None")
        self.eta = eta
        self.weight = nn.Parameter(torch.empty(self.weight_shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def convolve(self, x: Tensor) -> Tensor:
        y: Tensor = adder_conv2d(x, self.weight, *self.window, self.eta)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.eta == ETA else f", eta={self.eta}")
