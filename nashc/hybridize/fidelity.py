"""How close the outputs of an integer model are to those of the float model it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nashc.errors import NashcError
from nashc.runtime.accuracy import Measured, classes_of, decibels, powers, ranks, same_class

Array = NDArray[Any]
Outputs = Mapping[str, Array]
SMALLEST = 1e-12
LEAST_DB = -300.0


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
    """Of two models' outputs [N, ...] by name. An image with NaN among its scores is wrong and agrees with nothing."""
    name = class_output(wanted)
    images = len(next(iter(wanted.values())))
    ratios = {n: sqnr_db(wanted[n], found[n]) for n in wanted if wanted[n].dtype.kind == "f"}
    if name is None:
        return Fidelity(images, None, None, None, ratios)
    agreement = float(same_class(found[name], wanted[name]).mean())
    if labels is None:
        return Fidelity(images, agreement, None, None, ratios)
    accuracy, original = (float((ranks(o[name].reshape(images, -1), labels) == 0).mean()) for o in (found, wanted))
    return Fidelity(images, agreement, accuracy, original, ratios)


def fidelity_of(measured: Measured) -> Fidelity:
    """The same of what was measured on a data set."""
    alone = len(measured.outputs) == 1  # several outputs score no classes, as in `class_output`

    def share(count: int | None) -> float | None:
        return count / measured.images if alone and count is not None else None

    return Fidelity(
        measured.images,
        share(measured.outputs[0].agreeing),
        share(None if measured.model is None else measured.model.top1),
        share(None if measured.against is None else measured.against.top1),
        {output.name: max(output.sqnr_db, LEAST_DB) for output in measured.outputs},
    )


def refuse_outputs(wanted: Outputs, where: str) -> None:
    """Raises NashcError for outputs [N, ...] of a float model that no integer model can be held against."""
    floats = {name: values for name, values in wanted.items() if values.dtype.kind == "f"}
    if not floats:
        hint = "give the model without its last ArgMax or cast"
        raise NashcError("no output is float, so there is nothing to keep close to", where=where, hint=hint)
    for name, values in floats.items():
        wrong = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        if len(wrong):
            raise NashcError(
                f"output '{name}' is not finite for {len(wrong)} of {len(values)} images",
                where=where,
                hint="leave such images (all black?) out of --calib and --data, or mend the model",
            )


def class_output(outputs: Outputs) -> str | None:
    """The output that scores classes: the only one, with one axis longer than 1 for an image."""
    if len(outputs) != 1:
        return None
    ((name, values),) = outputs.items()
    return name if values.dtype.kind == "f" and classes_of(values, len(values)) is not None else None


def sqnr_db(wanted: Array, found: Array) -> float:
    """10 log10 of the power of `wanted` over that of the difference; LEAST_DB where NaN or noise is all there is."""
    return max(decibels(*powers(found, wanted)), LEAST_DB)


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
