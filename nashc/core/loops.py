"""The loop nest of one layer and the spatial unrolling of one PE array."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

LOOP_DIMS = ("g", "k", "c", "oy", "ox", "fy", "fx")
"""The loops of a layer that an array unrolls, in the order of `Unroll`."""


@dataclass(frozen=True, slots=True)
class LoopNest:
    """Loop bounds of one layer for one image, as in DESIGN.md section 2.

    g groups; k, c output and input channels *per group*; oy, ox output rows and columns;
    fy, fx filter taps; iy, ix input rows and columns; stride, dilation are (y, x),
    pad is (top, left, bottom, right) as in ONNX without the batch and channel axes.
    """

    g: int
    k: int
    c: int
    oy: int
    ox: int
    fy: int
    fx: int
    iy: int
    ix: int
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def macs(self) -> int:
        """MAC-equivalents of one image."""
        return self.g * self.k * self.c * self.oy * self.ox * self.fy * self.fx

    @property
    def depthwise(self) -> bool:
        """Every output channel reads one input channel only."""
        return self.g > 1 and self.c == 1

    @property
    def weights(self) -> int:
        """Number of weight elements."""
        return self.g * self.k * self.c * self.fy * self.fx

    def span(self, axis: int, outputs: int) -> int:
        """Input rows (axis 0) or columns (axis 1) under `outputs` consecutive outputs, padding included."""
        taps = (self.fy, self.fx)[axis]
        return (outputs - 1) * self.stride[axis] + (taps - 1) * self.dilation[axis] + 1


@dataclass(frozen=True, slots=True)
class Unroll:
    """Spatial unrolling of a PE array: lanes along each loop dim."""

    g: int = 1
    k: int = 1
    c: int = 1
    oy: int = 1
    ox: int = 1
    fy: int = 1
    fx: int = 1

    @property
    def lanes(self) -> int:
        return prod(getattr(self, d) for d in LOOP_DIMS)

    @property
    def reduction(self) -> int:
        """Lanes summed into one output by the adder tree."""
        return self.c * self.fy * self.fx

    @property
    def outputs(self) -> int:
        """Accumulators: outputs that the array works on at once."""
        return self.g * self.k * self.oy * self.ox

    @property
    def input_words(self) -> int:
        """Activations that the input buffer delivers each cycle, no lane sharing assumed in space."""
        return self.g * self.c * self.oy * self.ox * self.fy * self.fx

    @property
    def weight_words(self) -> int:
        """Weights that the weight buffer delivers each cycle."""
        return self.g * self.k * self.c * self.fy * self.fx

    def __str__(self) -> str:
        parts = [f"{d}{getattr(self, d)}" for d in LOOP_DIMS if getattr(self, d) > 1]
        return " x ".join(parts) or "1"
