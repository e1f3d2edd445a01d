"""What reconstruction needs to know of a layer's inputs: second moments of its filter windows on the calibration set.

Of each window there are two versions: x as the float model has it, and x' as the integer model has it, with the errors
of all layers before. They are drawn from the same places of the same images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
WINDOWS_AN_INPUT, LEAST_WINDOWS, MOST_WINDOWS = 64, 2048, 16384
"""Windows of one layer for each input of a filter, and in all: more change the weights by less than rounding does."""
BLOCK_ELEMENTS = 2**24
"""Elements of the windows that are summed at once."""


@dataclass(frozen=True, slots=True)
class Window:
    """The filter window of a layer over [C, *spatial] inputs."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    group: int

    def cut(self, image: Array, places: Array | None) -> Array:
        """Windows [group, places, C/group * taps] of one image at flat output `places` (None: at all)."""
        rank = len(self.kernel)
        pads = [(0, 0), *zip(self.pads[:rank], self.pads[rank:], strict=True)]
        padded = np.pad(image, pads) if any(self.pads) else image
        reach = tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        axes = tuple(range(1, rank + 1))
        view: Any = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
        view = view[(slice(None), *(slice(None, None, s) for s in self.strides))]
        view = view[(Ellipsis, *(slice(None, None, d) for d in self.dilations))]
        sizes = view.shape[1 : rank + 1]
        count = int(np.prod(sizes))
        flat = np.unravel_index(np.arange(count) if places is None else places, sizes)
        windows = view[(slice(None), *flat)].reshape(self.group, image.shape[0] // self.group, len(flat[0]), -1)
        cut: Array = windows.transpose(0, 2, 1, 3).reshape(self.group, len(flat[0]), -1)
        return cut

    def places(self, spatial: tuple[int, ...]) -> int:
        """Number of outputs for inputs of these spatial sizes."""
        rank = len(self.kernel)
        return int(
            np.prod([
                (size + self.pads[i] + self.pads[i + rank] - (self.kernel[i] - 1) * self.dilations[i] - 1)
                // self.strides[i] + 1
                for i, size in enumerate(spatial)
            ])
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Moments:
    """Covariances and means, each with the group as its first axis: inputs x' among themselves [group, K, K], x with
    x' [group, K, K], means [group, K]. images: how many they are of."""

    integer: Array
    cross: Array
    mean: Array
    integer_mean: Array
    images: int


def moments(window: Window, floats: Array, integers: Array, read: Callable[[Array], Array], seed: int = 0) -> Moments:
    """Of [N, 1, C, *spatial] images of both streams; `read` gives the real values of an image of the second."""
    places = window.places(floats.shape[3:])
    inputs = floats.shape[2] // window.group * int(np.prod(window.kernel))
    wanted = min(MOST_WINDOWS, max(LEAST_WINDOWS, WINDOWS_AN_INPUT * inputs))
    each = min(places, -(-wanted // len(floats)))
    generator = np.random.default_rng(seed)
    sums: _Sums | None = None
    together = max(1, BLOCK_ELEMENTS // (each * floats.shape[2] * int(np.prod(window.kernel))))
    for first in range(0, len(floats), together):
        x, q = [], []
        for a, b in zip(floats[first : first + together], integers[first : first + together], strict=True):
            chosen = None if each == places else generator.choice(places, each, replace=False)
            x.append(window.cut(a[0], chosen))
            q.append(window.cut(read(b[0]), chosen))
        block, other = np.concatenate(x, axis=1), np.concatenate(q, axis=1)
        sums = sums or _Sums(block.mean(axis=1, keepdims=True), other.mean(axis=1, keepdims=True))
        sums.add(block, other)
    assert sums is not None, "no images"
    return sums.moments(len(floats))


class _Sums:
    """Sums over windows, of their distances from a value near the mean: so little is lost where means are large."""

    def __init__(self, near: Array, integer_near: Array) -> None:
        self.near, self.integer_near = near, integer_near
        groups, _, inputs = near.shape
        self.count = 0
        self.integer = np.zeros((groups, inputs, inputs))
        self.cross = np.zeros((groups, inputs, inputs))
        self.mean, self.integer_mean = np.zeros((2, groups, inputs))

    def add(self, x: Array, q: Array) -> None:
        """Windows [group, n, K] of both streams."""
        x, q = x - self.near, q - self.integer_near
        self.count += x.shape[1]
        turned = q.transpose(0, 2, 1)
        self.integer += np.matmul(turned, q)
        self.cross += np.matmul(x.transpose(0, 2, 1), q)
        self.mean += x.sum(axis=1, dtype=np.float64)
        self.integer_mean += q.sum(axis=1, dtype=np.float64)

    def moments(self, images: int) -> Moments:
        n, x, q = self.count, self.mean / self.count, self.integer_mean / self.count
        return Moments(
            self.integer / n - q[:, :, None] * q[:, None, :],
            self.cross / n - x[:, :, None] * q[:, None, :],
            x + self.near[:, 0],
            q + self.integer_near[:, 0],
            images,
        )
