"""How a model does on a data set, and how close it is to another one: a batch of images in memory at a time.

The rank of a label is the number of classes before it when scores are sorted downwards, equal scores in the order of
the classes: top-1 counts rank 0, as argmax does, top-5 ranks 0 to 4. SQNR = 10 log10(sum r^2 / sum (r - y)^2) in dB
over all elements of all images, for the outputs y of the model and r of the other one. An image with NaN among its
scores counts as wrong, and as agreeing with nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nashc.data import Dataset
from nashc.errors import NashcError
from nashc.runtime.session import Array, Session

BATCH = 16
"""Images a run, for models that take any number."""
TOP = 5
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and the data set as it takes it."""

    session: Session
    data: Dataset

    @property
    def batch(self) -> int | None:
        """Images that the model takes at a time; None: any."""
        shape = self.session.inputs[0].shape
        return shape[0] if shape else None

    def run(self, images: Array) -> dict[str, Array]:
        """The outputs for a batch; one that the model wants larger is filled up with its last image."""
        wanted = self.batch or len(images)
        count = len(images)
        if count < wanted:
            images = np.concatenate([images, np.repeat(images[-1:], wanted - count, axis=0)])
        found = self.session.run({self.session.inputs[0].name: images})
        return {
            name: value[:count] if np.ndim(value) and len(value) == wanted else value for name, value in found.items()
        }


@dataclass(frozen=True, slots=True)
class Scores:
    """On how many images the label is the class of the best score, and among those of the five best; `top5` is None
    where a model has no more than five classes."""

    top1: int
    top5: int | None


@dataclass(frozen=True, slots=True)
class Closeness:
    """An output (shape of one image) beside the other model's: on how many images both have the same best class
    (None where the output is no class score), and the SQNR (infinite where all elements are equal)."""

    name: str
    shape: tuple[int, ...]
    agreeing: int | None
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class Measured:
    """`classes` of the first output that is a class score, None without one. `model` and `against` are None without
    labels or class scores. `nan_images` have NaN in an output of the model."""

    images: int
    seconds: float
    classes: int | None
    model: Scores | None
    against: Scores | None
    outputs: tuple[Closeness, ...]
    nan_images: int


def measure(
    model: Subject,
    against: Subject | None = None,
    *,
    count: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measured:
    """Run the model, and `against` on the same images, on all of its data set or on `count` images of it.

    Raises NashcError for labels that the model has no score for, for outputs of the two that do not fit together, and
    for NaN from `against`.
    """
    subjects = [model] if against is None else [model, against]
    started = time.monotonic()
    total = len(model.data) if count is None else min(count, len(model.data))
    tally = _Tally()
    for batches in _batches(subjects, count, seed):
        found = [subject.run(images) for subject, (images, _) in zip(subjects, batches, strict=True)]
        tally.add(len(batches[0][0]), batches[0][1], *found)
        if progress is not None:
            progress(tally.images, total)
    return tally.result(time.monotonic() - started)


def classes_of(value: Array, images: int) -> int | None:
    """How many classes an output has scores for: those of [images, classes], also among axes of one element."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or value.ndim < 2 or len(value) != images:
        return None
    sizes = [size for size in value.shape[1:] if size != 1]
    return int(sizes[0]) if len(sizes) == 1 and sizes[0] else None


def ranks(scores: Array, labels: Array) -> Array:
    """The rank of each label [n] among scores [n, classes]; `classes` where a score is NaN."""
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    first = np.arange(scores.shape[1]) < labels[:, None]
    found: Array = ((scores > own) | ((scores == own) & first)).sum(axis=1)
    return np.where(np.isnan(scores).any(axis=1), scores.shape[1], found)


def class_notes(measured: Measured, data: Dataset) -> list[str]:
    """What may be wrong with the labels: the data has another number of classes than the model."""
    if measured.model is None or not data.classes or len(data.classes) == measured.classes:
        return []
    return [
        f"the data has {len(data.classes)} classes and the model {measured.classes}: check which numbers the labels "
        "mean (--labels)"
    ]


def refuse_labels(labels: Array, classes: int) -> None:
    """Raises NashcError for a label that the model has no score for."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise NashcError(
            f"label {wrong[0]} for a model with {classes} classes",
            where="labels",
            hint=f"labels are 0..{classes - 1}; say with --labels which numbers the model means",
        )


def same_class(one: Array, other: Array) -> Array:
    """Whether the best score is of the same class [n], of scores [n, ...]; never where `one` has NaN."""
    images = len(one)
    same = np.argmax(one.reshape(images, -1), axis=1) == np.argmax(other.reshape(images, -1), axis=1)
    return np.asarray(same & ~_nan(one, images))


def powers(value: Array, reference: Array) -> tuple[float, float]:
    """Sums of squares of the reference and of what `value` is beside it; equal infinities are no difference."""
    wide, wanted = (np.asarray(v, np.float64) for v in (value, reference))
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.where(wide == wanted, 0.0, wanted - wide)
        return float(np.square(wanted[np.isfinite(wanted)]).sum()), float(np.square(gap).sum())


def decibels(signal: float, noise: float) -> float:
    """Their ratio in dB: infinite without noise, minus infinity where noise is NaN or all there is."""
    if noise == 0:
        return math.inf
    share = signal / noise
    return 10 * math.log10(share) if share > 0 else -math.inf  # NaN, too


def only_input(session: Session, name: str) -> None:
    """Raises NashcError unless the model has one input, of images."""
    if len(session.inputs) != 1:
        names = ", ".join(tensor.name for tensor in session.inputs)
        raise NashcError(
            f"the model has {len(session.inputs)} inputs ({names})",
            where=name,
            hint="accuracy is measured on models with one input, of images",
        )


def _batches(subjects: list[Subject], count: int | None, seed: int) -> Iterator[Sequence[tuple[Array, Array | None]]]:
    """A batch of the same images for each model; what all take in the same form is read once."""
    size = _batch_size(subjects)
    forms = {(s.data.preprocess, s.data.shape[1:], s.data.dtype) for s in subjects}
    read = [s.data.batches(size, count=count, seed=seed) for s in subjects[: len(forms)]]
    if len(forms) < len(subjects):
        yield from ([batch] * len(subjects) for batch in read[0])
    else:
        yield from zip(*read, strict=True)


def _batch_size(subjects: list[Subject]) -> int:
    """The batch of a model that has a fixed one. Some that claim to take any number compute with one image alone: two
    images show it."""
    fixed = [subject.batch for subject in subjects if subject.batch is not None]
    if fixed:
        return min(fixed)
    for subject in subjects:
        for images, _ in subject.data.batches(2, count=2):
            try:
                found = subject.run(images)
            except NashcError:
                return 1
            if any(np.ndim(value) == 0 or len(value) != len(images) for value in found.values()):
                return 1
    return BATCH


@dataclass(slots=True)
class _Noise:
    signal: float = 0.0
    noise: float = 0.0
    agreeing: int | None = 0
    shape: tuple[int, ...] = ()

    def add(self, value: Array, reference: Array, images: int) -> None:
        whole = value.ndim == 0 or len(value) != images
        self.shape = value.shape if whole else value.shape[1:]
        parts = [(value, reference)] if whole else zip(value, reference, strict=True)
        for one, other in parts:  # image by image: the doubles of a whole batch would be large
            signal, noise = powers(one, other)
            self.signal += signal
            self.noise += noise
        if classes_of(value, images) is None:
            self.agreeing = None
        elif self.agreeing is not None:
            self.agreeing += int(same_class(value, reference).sum())

    @property
    def sqnr_db(self) -> float:
        return decibels(self.signal, self.noise)


@dataclass(slots=True)
class _Tally:
    """Sums over the images so far."""

    images: int = 0
    labelled: bool = False
    nan_images: int = 0
    scores: str | None = None
    classes: int | None = None
    counts: list[list[int]] = field(default_factory=lambda: [[0, 0], [0, 0]])
    compared: bool = False
    outputs: dict[str, _Noise] = field(default_factory=dict)

    def add(
        self,
        count: int,
        labels: Array | None,
        found: Mapping[str, Array],
        other: Mapping[str, Array] | None = None,
    ) -> None:
        nan = np.zeros(count, bool)
        for value in found.values():
            nan |= _nan(value, count)
        self.nan_images += int(nan.sum())
        pairs = {} if other is None else _pairs(found, other)
        self.compared = other is not None
        for name, there in pairs.items():
            value = there[1]
            if _nan(value, count).any():
                raise NashcError(
                    f"its output '{there[0]}' has NaN within {self.images + count} images",
                    where="the model of --against",
                    hint="compare with a model that works on these images",
                )
            self.outputs.setdefault(name, _Noise()).add(found[name], value, count)
        if not self.images:
            self.scores = next((name for name, value in found.items() if classes_of(value, count) is not None), None)
        self.images += count
        if self.scores is None:
            return
        self.classes = classes_of(found[self.scores], count)
        if self.classes is None:
            raise NashcError(f"output '{self.scores}' changes its shape from batch to batch", where="accuracy")
        if labels is not None:
            self.labelled = True
            refuse_labels(labels, self.classes)
            tables = [found[self.scores], *([pairs[self.scores][1]] if other is not None else [])]
            for counts, table in zip(self.counts, tables, strict=False):
                rank = ranks(table.reshape(count, -1), labels)
                counts[0] += int((rank < 1).sum())
                counts[1] += int((rank < TOP).sum())

    def result(self, seconds: float) -> Measured:
        scores = [Scores(one, five if (self.classes or 0) > TOP else None) for one, five in self.counts]
        return Measured(
            self.images,
            seconds,
            self.classes,
            scores[0] if self.labelled else None,
            scores[1] if self.labelled and self.compared else None,
            tuple(Closeness(name, n.shape, n.agreeing, n.sqnr_db) for name, n in self.outputs.items()),
            self.nan_images,
        )


def _nan(value: Array, images: int) -> Array:
    """Which images have NaN in an output [n]; all of them where it is not divided by images."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return np.zeros(images, bool)
    if value.ndim and len(value) == images:
        return np.asarray(np.isnan(value).reshape(images, -1).any(axis=1))
    return np.full(images, np.isnan(value).any())


def _pairs(found: Mapping[str, Array], other: Mapping[str, Array]) -> dict[str, tuple[str, Array]]:
    """Outputs that are numbers with the other model's, by name; by position those whose names differ."""
    own, theirs = [n for n in found if n not in other], [n for n in other if n not in found]
    if not own or len(own) == len(theirs):
        renamed = dict(zip(own, theirs, strict=False))
        names = {name: renamed.get(name, name) for name in found}
    else:
        raise NashcError(
            f"the outputs are {', '.join(found)}, and {', '.join(other)} in the model of --against",
            hint="compare models with the same outputs",
        )
    pairs = {}
    for name, there in names.items():
        shapes = [list(np.shape(value)) for value in (found[name], other[there])]
        if shapes[0] != shapes[1]:
            raise NashcError(
                f"output '{name}' is {shapes[0]}, and {shapes[1]} in the model of --against",
                hint="compare models with the same outputs",
            )
        kinds = [np.asarray(value).dtype.kind for value in (found[name], other[there])]
        if all(kind in "biuf" for kind in kinds):
            pairs[name] = (there, other[there])
    return pairs
