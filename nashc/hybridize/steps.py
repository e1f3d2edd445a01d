"""Scale and zero point of 8-bit activations, from values seen on the calibration set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nashc.registry import Registry
from nashc.runtime.chain import Step

Array = NDArray[Any]
PERCENTILE = 99.99
MOST_SAMPLES = 2**17
SMALLEST_SCALE = np.finfo(np.float32).tiny
"""Values below it are rounded to 0."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a class of values holds: smallest and largest, and a sample."""

    lowest: float
    highest: float
    sample: Array

    def joined(self, other: Seen) -> Seen:
        return Seen(
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            np.concatenate([self.sample, other.sample]),
        )


def seen(values: Array, seed: int = 0) -> Seen:
    """Of float32 values of any shape."""
    flat = values.reshape(-1)
    sample = flat
    if flat.size > MOST_SAMPLES:
        sample = flat[np.random.default_rng(seed).integers(0, flat.size, MOST_SAMPLES)]
    return Seen(float(flat.min()), float(flat.max()), sample)


Range = tuple[float, float]


def _min_max(values: Seen) -> Range:
    return values.lowest, values.highest


def _percentile(values: Seen) -> Range:
    low, high = np.percentile(values.sample, [100 - PERCENTILE, PERCENTILE])
    return float(low), float(high)


def _mse(values: Seen) -> Range:
    """The range, shrunk around 0, whose rounding and clipping errors have the least mean square."""
    tried = np.append(np.geomspace(0.2, 1.0, 40), 1.0)
    ranges = [(values.lowest * share, values.highest * share) for share in tried]
    errors = [float(np.mean((rounded(values.sample, step_for(*r)) - values.sample) ** 2)) for r in ranges]
    return ranges[int(np.argmin(errors))]


CALIBRATIONS: Registry[Callable[[Seen], Range]] = Registry("calibration")
for _name, _rule in (("min-max", _min_max), ("percentile", _percentile), ("mse", _mse)):
    CALIBRATIONS.add(_name, _rule)


def step_for(lowest: float, highest: float) -> Step:
    """uint8 step of a range; 0 is in it and is a level."""
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    scale = np.float32((highest - lowest) / 255)
    scale = scale if scale >= SMALLEST_SCALE else np.float32(1.0)
    return Step(float(scale), np.asarray(np.clip(np.rint(-lowest / scale), 0, 255), np.uint8))


def adder_step(values: Seen, weights: tuple[Array, ...], scale: float | None = None) -> Step:
    """The step that inputs and weights of adder layers share: zero point 0, uint8 inputs unless some are below 0.

    scale None: of scales up to that of the largest value or weight, the one with the least mean squared error of both.
    """
    signed = values.lowest < 0
    low, high = (-128, 127) if signed else (0, 255)
    peak = max(-values.lowest, values.highest)
    largest = max(peak / high, *(float(np.abs(w).max()) / 127 for w in weights)) or 1.0

    def error(scale: float) -> float:
        x = np.clip(np.rint(values.sample / scale), low, high) * scale - values.sample
        w = [np.clip(np.rint(v / scale), -127, 127) * scale - v for v in weights]
        return float(np.mean(x**2)) + float(np.mean([np.mean(v**2) for v in w]))

    scale = scale or min(np.geomspace(0.1, 1.0, 60) * largest, key=error)
    scale = max(scale, float(SMALLEST_SCALE))
    return Step(float(np.float32(scale)), np.zeros((), np.int8) if signed else np.zeros((), np.uint8))


def adder_codes(weights: Array, step: Step) -> Array:
    """The int8 weights of an adder layer whose inputs have that step."""
    nearest: Array = np.rint(weights / np.float32(step.scale)).clip(-127, 127).astype(np.int8)
    return nearest


def codes(values: Array, step: Step) -> Array:
    """The bytes of real values."""
    kind = step.zero_point.dtype
    limits = np.iinfo(kind)
    nearest: Array = np.rint(values / np.float32(step.scale)) + int(step.zero_point)
    return nearest.clip(limits.min, limits.max).astype(kind)


def real(stored: Array, step: Step) -> Array:
    """The float32 values of bytes."""
    found: Array = (stored.astype(np.float32) - np.float32(int(step.zero_point))) * np.float32(step.scale)
    return found


def rounded(values: Array, step: Step) -> Array:
    return real(codes(values, step), step)
