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
MOST_WINDOWS = 16384
"""Windows of one layer: more change the moments by less than rounding does."""


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
    x' [group, K, K], means [group, K]."""

    integer: Array
    cross: Array
    mean: Array
    integer_mean: Array


def moments(window: Window, floats: Array, integers: Array, read: Callable[[Array], Array], seed: int = 0) -> Moments:
    """Of [N, 1, C, *spatial] images of both streams; `read` gives the real values of an image of the second."""
    places = window.places(floats.shape[3:])
    each = min(places, max(1, MOST_WINDOWS // len(floats)))
    generator = np.random.default_rng(seed)
    x: list[Array] = []
    q: list[Array] = []
    for a, b in zip(floats, integers, strict=True):
        chosen = None if each == places else generator.choice(places, each, replace=False)
        x.append(window.cut(a[0], chosen))
        q.append(window.cut(read(b[0]), chosen))
    return _moments(np.concatenate(x, axis=1), np.concatenate(q, axis=1))


def _moments(x: Array, q: Array) -> Moments:
    mean, integer_mean = x.mean(axis=1, dtype=np.float64), q.mean(axis=1, dtype=np.float64)
    dx = (x - mean[:, None]).astype(np.float32)
    dq = (q - integer_mean[:, None]).astype(np.float32)
    n = x.shape[1]
    integer = np.matmul(dq.transpose(0, 2, 1), dq).astype(np.float64) / n
    cross = np.matmul(dx.transpose(0, 2, 1), dq).astype(np.float64) / n
    return Moments(integer, cross, mean, integer_mean)
