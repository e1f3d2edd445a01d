"""A data set: preprocessed batches of a source, with its labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from nashc.data.preprocess import Preprocess
from nashc.data.source import Source
from nashc.errors import NashcError

THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Dataset:
    """Images as a model takes them, decoded when they are asked for.

    `labels` int64 [n] or None; `classes` their names, or () where they have none.
    `shape` is one sample's, None where the model leaves a side open.
    """

    name: str
    source: Source
    preprocess: Preprocess
    labels: np.ndarray | None
    classes: tuple[str, ...]
    shape: tuple[int | None, ...]
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
        for part, samples in zip(parts, self._read(parts), strict=True):
            yield self._stacked(part, samples), None if self.labels is None else self.labels[part]

    def chosen(self, count: int, seed: int = 0) -> np.ndarray:
        """Indices int64 of a random subset; all of a smaller count are the first of a larger; at most all images."""
        if count < 1:
            raise NashcError(f"a subset of {count} images", where=self.name, hint="take at least 1 image")
        return np.random.default_rng(seed).permutation(len(self))[:count]

    def describe(self) -> str:
        """One line for people: how many images, from where, and what is done to them."""
        images = f"{len(self)} images" if len(self) != 1 else "1 image"
        if self.classes:
            images += f" of {len(self.classes)} classes"
        elif self.labels is None:
            images += " without labels"
        done = "taken as already preprocessed" if self.source.ready else str(self.preprocess)
        note = f" ({self.source.note})" if self.source.note else ""
        return f"{self.name}: {images} ({self.source.kind}); {done}{note}"

    def _read(self, parts: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """The samples of each part; slow ones are decoded in threads, one part ahead."""
        if not self.source.slow or THREADS == 1:
            yield from ([self._sample(int(index)) for index in part] for part in parts)
            return
        with ThreadPoolExecutor(THREADS) as pool:
            ahead = pool.map(self._sample, parts[0].tolist()) if parts else iter(())
            for following in [*parts[1:], None]:
                samples = list(ahead)
                if following is not None:
                    ahead = pool.map(self._sample, following.tolist())
                yield samples

    def _sample(self, index: int) -> np.ndarray:
        image = self.source.images.read(index)
        if self.source.ready:
            if not np.isfinite(image).all():
                raise NashcError(
                    "a value is not finite",
                    where=self.source.images.label_of(index),
                    hint="preprocess the images again",
                )
            return image
        try:
            sample = self.preprocess.apply(image)
        except NashcError as error:
            raise NashcError(error.what, where=self.source.images.label_of(index), hint=error.hint) from None
        if any(wanted not in (None, side) for side, wanted in zip(sample.shape, self.shape, strict=True)):
            raise NashcError(
                f"shape {list(sample.shape)} after preprocessing, and the model takes {_shape(self.shape)}",
                where=self.source.images.label_of(index),
                hint=fitting(self.shape, self.preprocess.layout),
            )
        return sample

    def _stacked(self, indices: np.ndarray, samples: list[np.ndarray]) -> np.ndarray:
        for index, sample in zip(indices, samples, strict=True):
            if sample.shape != samples[0].shape:
                raise NashcError(
                    f"shape {list(sample.shape)} in a batch of {list(samples[0].shape)}",
                    where=self.source.images.label_of(int(index)),
                    hint="give --resize height,width, or batches of 1 image",
                )
        return np.stack(samples).astype(self.dtype, copy=False)


def fitting(shape: Sequence[int | None], layout: str) -> str:
    """The flags that make any image fit."""
    height, width = shape[1:] if layout == "nchw" else shape[:2]
    if height is None or width is None:
        return "give --resize height,width"
    larger = max(height, width) * 8 // 7
    return f"give --resize {height},{width}, or --resize {larger} --crop {height},{width}"


def _shape(shape: Sequence[int | None]) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"
