"""An adder layer with its BN in the place of a trained convolution, and weights with which it starts close to it.

    y = BN(-sum |x - w|)  instead of  y = sum x * v + b

Of one tap, -|x - w| is, as a function of x, a line of slope +1 below w and -1 above. Over the values that x takes, the
line that fits it best has the slope a(w) = cov(x, -|x - w|) / var(x), which rises from -1 (w below all x) to +1 (above
all): any slope in between is that of some w. The start takes the w whose slopes are v / (alpha * rms(v)), cut to
[-1, 1], with the alpha for each filter at which the layer's output correlates best with the convolution's, and lets the
BN give it mean and deviation of the convolution. Measured on a trained ResNet-20: docs/finetune.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional

from nashc.nn.onnx_layers import adder_conv
from nashc.ops import DOMAIN
from nashc.ops.adder_conv import STEP

Array = NDArray[Any]
ALPHAS = (0.25, 0.35, 0.45, 0.6, 0.8, 1.0, 1.2, 1.4)
GRID = 129
"""Values of w that are tried for each input channel."""
SAMPLES = 8192
"""Values of each input channel that slopes are measured on."""
MOMENTUM = 0.05
EPSILON = 1e-5
WEIGHT_LEVELS = 127
"""Largest |w| of the integer layer, in steps that it shares with x."""
PEAK = 0.9999
"""Quantile of |x| that the largest level of w stands for."""


def round_through(values: Tensor, step: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """values as whole steps in low..high; its gradient is that of a clamp."""
    clamped = torch.clamp(values, low * step, high * step)
    return clamped + ((clamped / step).round() * step - clamped).detach()


def shared_step(values: Tensor) -> Tensor:
    """The step of x, and so of w: 127 of it are a high quantile of |x|.

    A weight as large as x gives the slope +1. Where x is not negative its byte has twice as many levels, so that no x
    is cut, and the weights decide.
    """
    flat = values.abs().flatten()
    flat = flat[:: max(1, flat.numel() // 2**20)]
    return (torch.quantile(flat, PEAK) / WEIGHT_LEVELS).clamp_min(1e-12)


class Rounding(nn.Module):
    """Values of 8 bits at a step; step 0 leaves them as they are."""

    step: Tensor
    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("step", "low", "high"):
            self.register_buffer(name, torch.zeros(()))

    @torch.no_grad()
    def measure(self, values: Tensor, step: float | None = None) -> Tensor:
        """Take the step that suits these values, or the given one, and return it."""
        signed = float(values.min()) < 0
        self.step.copy_(shared_step(values) if step is None else torch.tensor(step))
        self.low.fill_(-128 if signed else 0)
        self.high.fill_(127 if signed else 255)
        return self.step

    def forward(self, x: Tensor) -> Tensor:
        return round_through(x.float(), self.step, self.low, self.high) if self.step else x


class AdderNorm(nn.Module):
    """A layer for Graph.swap, of the attributes of a Conv node.

    Gradients of x are HardTanh((w - x) / unit), `unit` the standard deviation of x at the start: AdderNet's clipping
    for inputs of any scale. Weights are rounded to multiples of `step`, where that is not 0.
    """

    unit: Tensor
    low: Tensor
    high: Tensor
    mean: Tensor
    variance: Tensor
    step: Tensor

    def __init__(self, shape: torch.Size, attributes: dict[str, Any]) -> None:
        super().__init__()
        self._adder = partial(adder_conv, **attributes)
        self.momentum = MOMENTUM
        self.weight = nn.Parameter(torch.zeros(shape))
        self.scale, self.bias = nn.Parameter(torch.ones(shape[0])), nn.Parameter(torch.zeros(shape[0]))
        self.register_buffer("mean", torch.zeros(shape[0]))
        self.register_buffer("variance", torch.ones(shape[0]))
        for name in ("unit", "low", "high", "step"):
            self.register_buffer(name, torch.zeros(()))

    def rounded_weight(self) -> Tensor:
        if not self.step:
            return self.weight
        limit = torch.full_like(self.step, WEIGHT_LEVELS)
        return round_through(self.weight, self.step, -limit, limit)

    def distance(self, x: Tensor) -> Tensor:
        """-sum |x - w|, in units."""
        x = x.to(torch.float32, memory_format=torch.contiguous_format)
        y: Tensor = self._adder(x / self.unit, self.rounded_weight() / self.unit)
        return y

    def forward(self, x: Tensor) -> Tensor:
        y = self.distance(x)
        return functional.batch_norm(
            y, self.mean, self.variance, self.scale, self.bias, self.training, self.momentum, EPSILON
        )

    @torch.no_grad()
    def start(self, weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Imitate the convolution with `weight`: x are inputs of this layer, y outputs of that one.

        Returns the squared correlation [M] of this layer's outputs with y.
        """
        self.unit.copy_(x.std().clamp_min(1e-6))
        self.limit(x)

        def distance(tried: Tensor) -> Tensor:
            self.weight.copy_(tried)
            return self.distance(x)

        chosen, (mean, variance, y_mean, y_variance, match) = imitation(weight, x, y, distance)
        self.weight.copy_(chosen)
        self.mean.copy_(mean)
        self.variance.copy_(variance)
        self.scale.copy_(y_variance.sqrt())
        self.bias.copy_(y_mean)
        return match

    @torch.no_grad()
    def limit(self, x: Tensor) -> None:
        low, high = limits(x)
        self.low.copy_(low)
        self.high.copy_(high)

    @torch.no_grad()
    def round_to(self, step: Tensor) -> None:
        """From now on with byte weights."""
        self.step.copy_(step)
        self.high.copy_(step * WEIGHT_LEVELS)
        self.low.clamp_(min=-self.high)
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Bring the weights back into their limits."""
        self.weight.clamp_(self.low, self.high)

    def to_onnx(self, node: onnx.NodeProto) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
        """AdderConv and BatchNormalization for the Conv `node`."""
        adder = onnx.NodeProto()
        adder.CopyFrom(node)
        adder.op_type, adder.domain = "AdderConv", DOMAIN
        adder.input[:] = [node.input[0], f"{node.name}.adder_weight"]
        adder.output[:] = [f"{node.output[0]}_adder"]
        if self.step:
            adder.metadata_props.add(key=STEP, value=repr(float(self.step)))
        names = [f"{node.name}.bn.{what}" for what in ("weight", "bias", "running_mean", "running_var")]
        unit = float(self.unit)
        norm = helper.make_node(
            "BatchNormalization", [adder.output[0], *names], [node.output[0]], f"{node.name}.bn",
            epsilon=EPSILON * unit**2,
        )  # fmt: skip
        values = (self.scale, self.bias, self.mean * unit, self.variance * unit**2)
        stored = {name: _array(value) for name, value in zip(names, values, strict=True)}
        return [adder, norm], {adder.input[1]: _array(self.rounded_weight()), **stored}


def limits(x: Tensor) -> tuple[Tensor, Tensor]:
    """Within these weights make a difference for inputs like x, and are within the integer layer's levels."""
    high = shared_step(x) * WEIGHT_LEVELS
    return x.min().clamp(max=0).maximum(-high), high


@torch.no_grad()
def imitation(
    weight: Tensor, x: Tensor, y: Tensor, distance: Callable[[Tensor], Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Adder weights for inputs x whose `distance` is close to a convolution's outputs y but for mean and deviation.

    `weight` is the convolution's. Also returns mean and variance of each channel of the distance and of y, and their
    squared correlation.
    """
    table, (low, high) = slope_table(x), limits(x)
    best, chosen = weight.new_full(weight.shape[:1], -1.0), torch.zeros_like(weight)
    for alpha in ALPHAS:
        tried = slopes_to_weights(weight, *table, alpha).clamp(low, high)
        match = _moments(distance(tried), y)[-1]
        better = match > best
        best[better], chosen[better] = match[better], tried[better]
    return chosen, _moments(distance(chosen), y)


def slope_table(x: Tensor) -> tuple[Tensor, Tensor]:
    """Values of w for each channel of x [N, C, ...], and the slopes a(w) there, which do not fall: both [C, GRID]."""
    channels = x.transpose(0, 1).flatten(1)
    samples = channels[:, :: max(1, channels.shape[1] // SAMPLES)]
    low, high = samples.amin(1, keepdim=True), samples.amax(1, keepdim=True)
    grid = low + (high - low) * torch.linspace(0, 1, GRID, device=x.device) ** 2  # finer where most values are
    centred = samples - samples.mean(1, keepdim=True)
    variance = centred.square().mean(1).clamp_min(1e-12)
    slopes = [(centred * (samples - w[:, None]).abs()).mean(1) / -variance for w in grid.t()]
    return grid, torch.cummax(torch.stack(slopes, 1), 1).values.contiguous()


def slopes_to_weights(weight: Tensor, grid: Tensor, slopes: Tensor, alpha: float) -> Tensor:
    """w with the slopes weight / (alpha * rms), for weight [M, C/groups, ...] and the table of its inputs."""
    rms = weight.flatten(1).square().mean(1).sqrt().clamp_min(1e-12)
    wanted = (weight / (alpha * rms).view(-1, *[1] * (weight.dim() - 1))).clamp(-1, 1)
    m, c = weight.shape[:2]
    groups = len(grid) // c
    found = wanted.view(groups, m // groups, c, -1).permute(0, 2, 1, 3).reshape(groups * c, -1).contiguous()
    i = torch.searchsorted(slopes, found).clamp(1, GRID - 1)
    below, above = slopes.gather(1, i - 1), slopes.gather(1, i)
    share = ((found - below) / (above - below).clamp_min(1e-9)).clamp(0, 1)
    w = torch.lerp(grid.gather(1, i - 1), grid.gather(1, i), share)
    return w.view(groups, c, m // groups, -1).permute(0, 2, 1, 3).reshape(weight.shape)


def _moments(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mean and variance of each channel of a and of b [N, M, ...], and their squared correlation."""
    a, b = (v.float().transpose(0, 1).flatten(1) for v in (a, b))
    mean, other_mean = a.mean(1), b.mean(1)
    da, db = a - mean[:, None], b - other_mean[:, None]
    variance, other_variance, both = da.square().mean(1), db.square().mean(1), (da * db).mean(1)
    match = both.square() * both.sign() / (variance * other_variance).clamp_min(1e-20)
    return mean, variance, other_mean, other_variance, match


def _array(value: Tensor) -> Array:
    return np.asarray(value.detach().cpu().numpy(), np.float32)
