"""How close the outputs of an integer model are to those of the float model it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Outputs = Mapping[str, Array]
SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Over some images: share with the same class as the float model (None for outputs that are no classes), share
    whose class is right in the integer and in the float model (None without labels), and the signal-to-noise ratio of
    each output in dB (inf where it is the same)."""

    images: int
    agreement: float | None
    accuracy: float | None
    float_accuracy: float | None
    sqnr_db: Mapping[str, float]

    @property
    def drop(self) -> float | None:
        """Accuracy lost, as a share of the images; without labels the share of other classes, which bounds it."""
        if self.accuracy is not None and self.float_accuracy is not None:
            return self.float_accuracy - self.accuracy
        return None if self.agreement is None else 1 - self.agreement

    @property
    def least_sqnr_db(self) -> float:
        return min(self.sqnr_db.values())


def fidelity(wanted: Outputs, found: Outputs, labels: Array | None = None) -> Fidelity:
    """Of two models' outputs [N, ...] by name."""
    name = class_output(wanted)
    images = len(next(iter(wanted.values())))
    ratios = {n: sqnr_db(wanted[n], found[n]) for n in wanted if wanted[n].dtype.kind == "f"}
    if name is None:
        return Fidelity(images, None, None, None, ratios)
    a, b = classes(wanted[name]), classes(found[name])
    if labels is None:
        return Fidelity(images, float((a == b).mean()), None, None, ratios)
    accuracy, original = float((b == labels).mean()), float((a == labels).mean())
    return Fidelity(images, float((a == b).mean()), accuracy, original, ratios)


def class_output(outputs: Outputs) -> str | None:
    """The output that scores classes: the only one, with one axis longer than 1 for an image."""
    if len(outputs) != 1:
        return None
    ((name, values),) = outputs.items()
    sizes = [size for size in values.shape[1:] if size > 1]
    return name if len(sizes) == 1 and values.dtype.kind == "f" else None


def classes(scores: Array) -> NDArray[np.intp]:
    """The class of each image: the first of the largest scores."""
    found: NDArray[np.intp] = scores.reshape(len(scores), -1).argmax(axis=1)
    return found


def sqnr_db(wanted: Array, found: Array) -> float:
    """10 log10 of the power of `wanted` over that of the difference."""
    power = float(np.square(wanted, dtype=np.float64).sum())
    noise = float(np.square(wanted.astype(np.float64) - found).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(max(power, SMALLEST) / noise))


def loss(wanted: Outputs, found: Outputs) -> float:
    """What a wrong layer costs: mean Kullback-Leibler divergence of the classes, else noise over variance, summed over
    the outputs."""
    name = class_output(wanted)
    if name is not None:
        return divergence(wanted[name], found[name])
    total = 0.0
    for key, values in wanted.items():
        if values.dtype.kind == "f":
            noise = np.square(values.astype(np.float64) - found[key]).mean()
            total += float(noise / max(float(values.var(dtype=np.float64)), SMALLEST))
    return total


def divergence(wanted: Array, found: Array) -> float:
    """Of classes' scores or probabilities [N, ...]: mean over the images, in nats."""
    a, b = _log_probabilities(wanted), _log_probabilities(found)
    return float((np.exp(a) * (a - b)).sum(axis=1).mean())


def _log_probabilities(scores: Array) -> Array:
    rows = scores.reshape(len(scores), -1).astype(np.float64)
    if rows.min() >= 0 and np.allclose(rows.sum(axis=1), 1, atol=1e-3):  # a softmax is in the model
        rows = np.log(np.maximum(rows, SMALLEST))
    rows = rows - rows.max(axis=1, keepdims=True)
    logs: Array = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return logs
