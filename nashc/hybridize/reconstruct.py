"""Rounding of a layer's weights so that its outputs, not the weights, stay close: second-order reconstruction.

With the float weights W, inputs x of the float model and x' of the integer model, both centred, it looks for levels Q
and a scale s for each output channel that minimise E|W x - s Q x'|^2. The best real weights are W* = W E[x x'] A^-1
with A = E[x' x'] (damped), and what is left to minimise is (W* - sQ) A (W* - sQ)'. Cyclic coordinate descent does that,
one input at a time for all output channels at once (QuantEase, arXiv 2309.01885; GPTQ, arXiv 2210.17323, is its first
sweep with other weights). The means are left to the bias: b' = b + W E[x] - s Q E[x'].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nashc.hybridize.layer_types import LayerType
from nashc.hybridize.statistics import Moments

Array = NDArray[Any]
DAMPING = 0.3
"""Of the mean variance of an input, more where the inputs of a filter are many beside the images: what the calibration
set does not show is not trusted. Far less fits it better, and other images worse (benchmarks, ablation)."""
SWEEPS = 3
SHRINK = np.append(np.geomspace(0.3, 1.25, 16), 1.0)
"""Scales that are tried, as shares of the one at which the largest weight is the largest level."""
LARGEST_BIAS = 2**30
"""Of int32 biases: the sums of products have the other half of the range."""
TINY = float(np.finfo(np.float32).tiny)
FEW_INPUTS = 64
"""Filters up to this size have every scale tried with a reconstruction of its own."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """Weights of a layer as levels of its type.

    levels [M, ...], int16, index kind.levels; scale [M] and bias [M] are of the output channel. Of a transposed
    convolution with groups, M is those of one group: the groups share scales, and the bias has all channels.
    """

    kind: LayerType
    levels: NDArray[np.int16]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def weights(self) -> NDArray[np.float32]:
        """What the integer model multiplies with, in real units."""
        shape = (-1,) + (1,) * (self.levels.ndim - 1)
        return (self.kind.grid[self.levels] * self.scale.astype(np.float64).reshape(shape)).astype(np.float32)


def reconstruct(
    kind: LayerType, weights: Array, bias: Array | None, moments: Moments, damping: float = DAMPING
) -> Rounded:
    """weights [M, C/group, *kernel]; moments of its inputs with as many groups."""
    groups, inputs = moments.mean.shape
    w = weights.astype(np.float64).reshape(groups, -1, inputs)
    a = _damped(moments.integer, damping * (1 + inputs / moments.images))
    best = w + np.matmul(w, moments.cross - moments.integer) @ np.linalg.inv(a)
    levels, scale = _fit(kind, best, a)
    q = kind.grid[levels] * scale[..., None]
    means = np.einsum("gmk,gk->gm", w, moments.mean) - np.einsum("gmk,gk->gm", q, moments.integer_mean)
    old = np.zeros(len(weights)) if bias is None else bias.astype(np.float64)
    return Rounded(
        kind,
        levels.reshape(weights.shape).astype(np.int16),
        scale.reshape(-1).astype(np.float32),
        (old + means.reshape(-1)).astype(np.float32),
    )


def plain(kind: LayerType, weights: Array, bias: Array | None) -> Rounded:
    """Each weight [M, ...] by itself, with the scale of least squared error: where no moments are at hand."""
    w = weights.astype(np.float64).reshape(1, len(weights), -1)
    levels, scale = _nearest(kind, w, np.ones((1, w.shape[2])))
    bias = np.zeros(len(weights), np.float32) if bias is None else bias.astype(np.float32)
    return Rounded(kind, levels.reshape(weights.shape).astype(np.int16), scale.reshape(-1).astype(np.float32), bias)


def integer_bias(rounded: Rounded, x_scale: float) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The bias of a convolution as int32, and what 1 of it is, for inputs of that step."""
    unit = np.tile(rounded.scale * np.float32(x_scale), len(rounded.bias) // len(rounded.scale))
    return np.rint(rounded.bias.astype(np.float64) / unit).astype(np.int32), unit


def with_integer_bias(rounded: Rounded, x_scale: float) -> Rounded:
    """A convolution whose bias is what int32 can say. Where it is too large for that beside weights so small (a channel
    that batch normalisation has switched off), the scale grows and the weights are rounded anew."""
    largest = np.abs(rounded.bias.astype(np.float64)).reshape(-1, len(rounded.scale)).max(axis=0)
    least = np.maximum(largest / LARGEST_BIAS, TINY) / x_scale
    scale = np.maximum(rounded.scale, least.astype(np.float32))
    shape = (-1,) + (1,) * (rounded.levels.ndim - 1)
    shares = (rounded.scale.astype(np.float64) / scale).reshape(shape)
    levels = rounded.kind.nearest(rounded.kind.grid[rounded.levels] * shares).astype(np.int16)
    stored = replace(rounded, levels=levels, scale=scale)
    bias, unit = integer_bias(stored, x_scale)
    return replace(stored, bias=bias.astype(np.float32) * unit)


def _damped(integer: Array, damping: float) -> Array:
    k = integer.shape[-1]
    ridge = damping * np.trace(integer, axis1=1, axis2=2) / k
    damped: Array = integer + np.maximum(ridge, 1e-12)[:, None, None] * np.eye(k)
    return damped


def _fit(kind: LayerType, best: Array, a: Array) -> tuple[NDArray[np.intp], Array]:
    """Levels and scales [group, M/group] for real weights `best` under the metric `a`."""
    if best.shape[2] <= FEW_INPUTS:
        return _every_scale(kind, best, a, _scales(kind, best))
    _, scale = _nearest(kind, best, np.einsum("gkk->gk", a))
    levels = _descend(kind, best, a, scale)
    for _ in range(2):
        scale = _best_scale(kind, levels, best, a, scale)
        levels = _descend(kind, best, a, scale, levels)
    return levels, scale


def _scales(kind: LayerType, weights: Array) -> Array:
    """Scales to try [group, M/group, many]."""
    largest = np.abs(weights).max(axis=2)
    whole: Array = np.where(largest > 0, largest, 1.0) / kind.largest
    tried: Array = whole[..., None] * SHRINK
    return tried


def _nearest(kind: LayerType, weights: Array, importance: Array) -> tuple[NDArray[np.intp], Array]:
    """Nearest levels under the scale with the least squared error; importance [group, K] of the inputs."""
    tried = _scales(kind, weights)
    errors = []
    for i in range(tried.shape[2]):
        s = tried[..., i, None]
        error = weights - s * kind.grid[kind.nearest(weights / s)]
        errors.append(np.einsum("gmk,gk->gm", error**2, importance))
    choice = np.argmin(errors, axis=0)
    scale = np.take_along_axis(tried, choice[..., None], axis=2)[..., 0]
    return kind.nearest(weights / scale[..., None]), scale


def _every_scale(kind: LayerType, best: Array, a: Array, tried: Array) -> tuple[NDArray[np.intp], Array]:
    groups, m, k = best.shape
    n = tried.shape[2]
    many = np.repeat(best, n, axis=1)
    scale = tried.reshape(groups, m * n)
    levels = _descend(kind, many, a, scale)
    scale = _best_scale(kind, levels, many, a, scale)
    levels = _descend(kind, many, a, scale, levels)
    error = many - scale[..., None] * kind.grid[levels]
    cost = np.einsum("gmk,gmk->gm", np.matmul(error, a), error).reshape(groups, m, n)
    choice = cost.argmin(axis=2)[..., None]
    picked = np.take_along_axis(levels.reshape(groups, m, n, k), choice[..., None], axis=2)[:, :, 0]
    return picked, np.take_along_axis(scale.reshape(groups, m, n), choice, axis=2)[..., 0]


def _best_scale(kind: LayerType, levels: NDArray[np.intp], best: Array, a: Array, scale: Array) -> Array:
    """The scale that is best for these levels; the old one where that is not positive."""
    q = kind.grid[levels]
    aq = np.matmul(q, a)
    power = np.einsum("gmk,gmk->gm", aq, q)
    fitted = np.einsum("gmk,gmk->gm", aq, best) / np.where(power > 0, power, 1.0)
    return np.where((power > 0) & (fitted > 0), fitted, scale)


BLOCK = 32


def _descend(
    kind: LayerType, best: Array, a: Array, scale: Array, start: NDArray[np.intp] | None = None
) -> NDArray[np.intp]:
    """Coordinate descent over the inputs, those of most variance first."""
    groups, _, k = best.shape
    order = np.argsort(-np.einsum("gkk->k", a))
    best, a = best[:, :, order], a[:, order][:, :, order]
    s = scale[..., None]
    levels = np.zeros(best.shape, np.intp) if start is None else start[:, :, order]
    value = best.copy() if start is None else kind.grid[levels] * s  # the first sweep starts from the real weights
    slope = np.matmul(best - value, a)
    variance = np.einsum("gkk->gk", a)
    for _ in range(SWEEPS):
        changed = False
        for low in range(0, k, BLOCK):
            high = min(low + BLOCK, k)
            block = a[:, low:high, low:high]
            inner = slope[:, :, low:high].copy()
            moved = np.zeros((groups, best.shape[1], high - low))
            for j in range(high - low):
                old = value[:, :, low + j]
                wanted = old + inner[:, :, j] / variance[:, None, low + j]
                level = kind.nearest(wanted / scale)
                new = kind.grid[level] * scale
                step = new - old
                if step.any():
                    inner -= step[:, :, None] * block[:, None, j]
                    moved[:, :, j] = step
                    value[:, :, low + j] = new
                    changed = True
                levels[:, :, low + j] = level
            slope -= np.matmul(moved, a[:, low:high])
        if not changed:
            break
    back = np.argsort(order)
    return levels[:, :, back]
