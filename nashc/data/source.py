"""Where images come from: what every kind of source offers to a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from nashc.errors import NashcError


class Images(Protocol):
    """Images by their index, read when asked for."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> np.ndarray:
        """uint8 [h,w], [h,w,1] or [h,w,3] RGB; a sample of the model's input where `Source.ready`. Thread-safe."""
        ...

    def label_of(self, index: int) -> str:
        """What an error calls the image: its file, or its place in one."""
        ...


@dataclass(frozen=True)
class Source:
    """Opened data before preprocessing.

    `kind` is a phrase for people; `labels` int64 [n] as stored, or None; `names` the files' names where each image is
    one, for labels by name; `ready`: samples are already preprocessed; `slow`: reading is worth threads.
    """

    kind: str
    images: Images
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    ready: bool = False
    slow: bool = False
    note: str = ""


@dataclass(frozen=True)
class ArrayImages:
    """Images that are the rows of an array, in memory or mapped."""

    array: np.ndarray
    path: Path
    planar: bool = False
    """[n,c,h,w] instead of [n,h,w,c] or [n,h,w]."""

    def __len__(self) -> int:
        return len(self.array)

    def read(self, index: int) -> np.ndarray:
        sample = np.asarray(self.array[index])
        return sample.transpose(1, 2, 0) if self.planar else sample

    def label_of(self, index: int) -> str:
        return f"{self.path}, image {index}"


def whole_labels(values: np.ndarray, where: str) -> np.ndarray:
    """int64 [n] of whole numbers [n] or [n,1]; raises NashcError for anything else."""
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise NashcError(
            f"{values.dtype} of shape {list(values.shape)} are no labels",
            where=where,
            hint="labels are whole numbers, one for each image",
        )
    return values.astype(np.int64)
