"""A data set: preprocessed batches of a source, with its labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nashc.data.fit import Shape, fitted, flags
from nashc.data.preprocess import Preprocess, by
from nashc.data.source import Source
from nashc.errors import NashcError

THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Dataset:
    """Images as a model takes them, decoded when they are asked for.

    `labels` int64 [n] or None; `classes` their names, or () where they have none.
    `shape` is the model's input, None where it leaves a side open; `preprocess` is as it was given.
    """

    name: str
    source: Source
    preprocess: Preprocess
    labels: np.ndarray | None
    classes: tuple[str, ...]
    shape: Shape
    dtype: str = "float32"

    def __len__(self) -> int:
        return len(self.source.images)

    def batches(
        self, size: int, *, count: int | None = None, seed: int = 0
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Images [n, ...] in the model's layout, and labels int64 [n] or None; the last batch may be smaller.

        All images in their order, or with `count` those of `chosen`. At most two batches are in memory.
        Raises NashcError for a file that cannot be decoded, and for an image that does not fit the model's input.
        """
        if size < 1:
            raise NashcError(f"batches of {size} images", where=self.name, hint="a batch has at least 1 image")
        indices = np.arange(len(self)) if count is None else self.chosen(count, seed)
        parts = [indices[start : start + size] for start in range(0, len(indices), size)]
        for part, images in zip(parts, self._read(parts), strict=True):
            yield images, None if self.labels is None else self.labels[part]

    def __getitem__(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at these positions, in this order."""
        return next(self._read([np.asarray(indices)]))

    def chosen(self, count: int, seed: int = 0) -> np.ndarray:
        """Indices int64 of a random subset; all of a smaller count are the first of a larger; at most all images."""
        if count < 1:
            raise NashcError(f"a subset of {count} images", where=self.name, hint="take at least 1 image")
        return np.random.default_rng(seed).permutation(len(self))[:count]

    def notes(self) -> list[str]:
        """What is done to the images that nobody asked for, and what may be wrong with the labels."""
        found = [self.source.note] if self.source.note else []
        if self.source.ready:
            found.append("numbers that are not pixels: taken as already preprocessed")
        elif self._fitted != self.preprocess and self._resized():
            found.append(f"images are resized to the model's {by(self._fitted.resize)}")
        return found

    def _resized(self) -> bool:
        """Whether the first image is of another size than the model's."""
        sides = self.source.images.read(0).shape[:2]
        return tuple(sides) != tuple(self._fitted.resize)

    @cached_property
    def _fitted(self) -> Preprocess:
        return self.preprocess if self.source.ready else fitted(self.preprocess, self.shape)

    def _read(self, parts: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """The images of each part; slow ones are decoded in threads, one part ahead."""
        if not self.source.slow or THREADS == 1:
            yield from (self._stacked(part, [self._sample(int(index)) for index in part]) for part in parts)
            return
        with ThreadPoolExecutor(THREADS) as pool:
            ahead = pool.map(self._sample, parts[0])
            for part, following in zip(parts, [*parts[1:], parts[0][:0]], strict=True):
                images = self._stacked(part, list(ahead))
                ahead = pool.map(self._sample, following)
                yield images

    def _sample(self, index: int) -> np.ndarray:
        image = self.source.images.read(index)
        if self.source.ready:
            return image
        try:
            sample = self._fitted.apply(image)
        except NashcError as error:
            raise NashcError(error.what, where=self.source.images.where(index), hint=error.hint) from None
        if any(want not in (None, side) for side, want in zip(sample.shape, self.shape[1:], strict=True)):
            raise NashcError(
                f"shape {list(sample.shape)} after preprocessing, and the model takes {_shape(self.shape[1:])}",
                where=self.source.images.where(index),
                hint=flags(self.preprocess, self.shape),
            )
        return sample

    def _stacked(self, indices: np.ndarray, samples: list[np.ndarray]) -> np.ndarray:
        for index, sample in zip(indices, samples, strict=True):
            if sample.shape != samples[0].shape:
                raise NashcError(
                    f"shape {list(sample.shape)} in a batch of {list(samples[0].shape)}",
                    where=self.source.images.where(int(index)),
                    hint="give --resize height,width",
                )
        with np.errstate(over="ignore"):
            images = np.stack(samples).astype(self.dtype, copy=False)
        if self.source.ready or self.dtype == "float16":
            self._check_finite(indices, images)
        return images

    def _check_finite(self, indices: np.ndarray, images: np.ndarray) -> None:
        wrong = np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))
        if len(wrong):
            raise NashcError(
                f"a value is not finite in {self.dtype}",
                where=self.source.images.where(int(indices[wrong[0]])),
                hint="preprocess the images in another way",
            )


def _shape(shape: Sequence[int | None]) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"
