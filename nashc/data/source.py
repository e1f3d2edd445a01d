"""Where images come from: what every kind of source offers to a data set."""

from __future__ import annotations

from collections.abc import Sequence
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

    def where(self, index: int) -> str:
        """What an error calls the image: its file, or its place in one."""
        ...


@dataclass(frozen=True)
class Source:
    """Opened data before preprocessing.

    `kind` is a phrase for people, `note` a warning for them; `labels` as stored, int64 [n], or None; `names` the files'
    names where each image is a file, for labels by name; `ready`: samples are already preprocessed; `slow`: reading is
    worth threads.
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

    def where(self, index: int) -> str:
        return f"{self.path}, image {index}"


@dataclass(frozen=True)
class Parts:
    """Several sources one after the other."""

    parts: tuple[Images, ...]
    starts: np.ndarray
    """int64 [parts + 1]: the index of each one's first image, and their sum."""

    @classmethod
    def of(cls, parts: Sequence[Images]) -> Parts:
        return cls(tuple(parts), np.cumsum([0, *(len(part) for part in parts)]))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, index: int) -> np.ndarray:
        part, row = self._place(index)
        return self.parts[part].read(row)

    def where(self, index: int) -> str:
        part, row = self._place(index)
        return self.parts[part].where(row)

    def _place(self, index: int) -> tuple[int, int]:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return part, index - int(self.starts[part])


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
