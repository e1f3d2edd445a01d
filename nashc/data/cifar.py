"""CIFAR-10 and CIFAR-100: binary files, and CIFAR-10 as PNG sheets with one image a row.

A binary record is the label (CIFAR-100: the coarse, then the fine label), then red, green and blue planes of 32x32
bytes (https://www.cs.toronto.edu/~kriz/cifar.html). A sheet is a PNG of 1024 x n pixels, its labels are a JSON list
beside it.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nashc.data.decode import decode, opened
from nashc.data.source import Source, whole_labels
from nashc.errors import NashcError

SIDE = 32
PIXELS = 3 * SIDE * SIDE
CIFAR10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
SHEET = re.compile(r"(data_batch_(\d+)|test_batch)\.png", re.IGNORECASE)
RECORDS = re.compile(r"(data_batch_(\d+)|test_batch|train|test)\.bin", re.IGNORECASE)
PICKLES = frozenset({"data_batch_1", "test_batch", "batches.meta", "meta", "train", "test"})
MOST_DECODED = 256 << 20
"""Bytes of decoded sheets that are kept: all of CIFAR-10 is 154 MB."""
MOST_TEXT = 64 << 20


@dataclass(frozen=True)
class Records:
    """Images of binary files, mapped: each [n, labels + 3072]."""

    files: tuple[np.ndarray, ...]
    paths: tuple[Path, ...]
    starts: np.ndarray

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, index: int) -> np.ndarray:
        file, row = self._place(index)
        return np.array(self.files[file][row, -PIXELS:]).reshape(3, SIDE, SIDE).transpose(1, 2, 0)

    def label_of(self, index: int) -> str:
        file, row = self._place(index)
        return f"{self.paths[file]}, image {row}"

    def _place(self, index: int) -> tuple[int, int]:
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        return file, index - int(self.starts[file])


@dataclass(frozen=True)
class Sheets:
    """Images of PNG sheets; a sheet is decoded when its first image is asked for."""

    paths: tuple[Path, ...]
    starts: np.ndarray
    _decoded: dict[int, np.ndarray] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, index: int) -> np.ndarray:
        file, row = self._place(index)
        with self._lock:
            sheet = self._decoded.pop(file, None)
            if sheet is None:
                sheet = decode(self.paths[file])
            self._decoded[file] = sheet
            while len(self._decoded) > 1 and sum(kept.nbytes for kept in self._decoded.values()) > MOST_DECODED:
                del self._decoded[next(iter(self._decoded))]
        image: np.ndarray = sheet[row].reshape(SIDE, SIDE, 3)
        return image

    def label_of(self, index: int) -> str:
        file, row = self._place(index)
        return f"{self.paths[file]}, image {row}"

    def _place(self, index: int) -> tuple[int, int]:
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        return file, index - int(self.starts[file])


def find_cifar(path: Path, split: str) -> Source | None:
    """CIFAR in a folder (or in its one folder cifar-*), or None where it holds none."""
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    sheets, records = ([name for name in names if form.fullmatch(name)] for form in (SHEET, RECORDS))
    if sheets:
        return _sheets(path, _of_split(path, sheets, split))
    if records:
        return _records(path, _of_split(path, records, split))
    if len(PICKLES.intersection(names)) >= 2 and all((path / name).is_file() for name in PICKLES.intersection(names)):
        raise NashcError(
            "Python pickles of CIFAR are not read: they can run any program",
            where=str(path),
            hint="take the binary version (data_batch_1.bin or train.bin)",
        )
    return None


def open_records(path: Path) -> Source:
    """One binary file of CIFAR-10 or CIFAR-100."""
    return _records(path.parent, [path.name])


def open_sheet(path: Path) -> Source:
    """One PNG sheet with its labels."""
    return _sheets(path.parent, [path.name])


def _of_split(path: Path, names: list[str], split: str) -> list[str]:
    found = [name for name in names if name.lower().startswith("test") == (split != "train")]
    if not found:
        other = "test" if split == "train" else "train"
        raise NashcError(f"no CIFAR file of split '{split}'", where=str(path), hint=f"give --split {other}")
    return sorted(found, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])


def _records(folder: Path, names: list[str]) -> Source:
    paths = tuple(folder / name for name in names)
    hundred = [_is_hundred(path) for path in paths]
    if len(set(hundred)) > 1:
        raise NashcError("files of CIFAR-10 and of CIFAR-100 together", where=str(folder), hint="give one file")
    head = 2 if hundred[0] else 1
    files = tuple(np.memmap(path, np.uint8, "r").reshape(-1, head + PIXELS) for path in paths)
    labels = np.concatenate([file[:, head - 1] for file in files]).astype(np.int64)
    meta = "fine_label_names.txt" if hundred[0] else "batches.meta.txt"
    classes = _names(folder / meta) or (() if hundred[0] else CIFAR10)
    images = Records(files, paths, np.cumsum([0, *(len(file) for file in files)]))
    return Source(f"CIFAR-{'100' if hundred[0] else '10'} binary, {', '.join(names)}", images, labels, classes)


def _is_hundred(path: Path) -> bool:
    """By the size of the file, and by its name where both would do."""
    size = path.stat().st_size
    ten, hundred = size % (1 + PIXELS) == 0, size % (2 + PIXELS) == 0
    if size == 0 or not (ten or hundred):
        raise NashcError(
            f"{size} bytes are no whole number of CIFAR records",
            where=str(path),
            hint=f"a record of CIFAR-10 has {1 + PIXELS} bytes, of CIFAR-100 {2 + PIXELS}; unpack the file again",
        )
    return hundred and not (ten and "batch" in path.name.lower())


def _sheets(folder: Path, names: list[str]) -> Source:
    paths = tuple(folder / name for name in names)
    heights = []
    for path in paths:
        with opened(path) as image:
            width, height = image.size
        if width != SIDE * SIDE:
            raise NashcError(
                f"{width} pixels wide", where=str(path), hint=f"a sheet has one image of {SIDE * SIDE} pixels a row"
            )
        heights.append(height)
    starts = np.cumsum([0, *heights])
    test = names[0].lower().startswith("test")
    labels = _sheet_labels(folder, "test" if test else "train")
    if labels is not None and len(labels) != starts[-1]:
        batch = SHEET.fullmatch(names[0])
        first = 0 if batch is None or batch[2] is None or len(names) > 1 else (int(batch[2]) - 1) * heights[0]
        if len(names) > 1 or first + heights[0] > len(labels):
            raise NashcError(
                f"{len(labels)} labels for the {starts[-1]} images of {', '.join(names)}",
                where=str(folder),
                hint="all sheets must lie there; or give one sheet",
            )
        labels = labels[first : first + heights[0]]
    return Source(f"CIFAR-10 as PNG, {', '.join(names)}", Sheets(paths, starts), labels, CIFAR10)


def _sheet_labels(folder: Path, split: str) -> np.ndarray | None:
    """The labels beside the sheets; the published file is spelled 'lables'."""
    for path in (folder / f"{split}_lables.json", folder / f"{split}_labels.json"):
        if path.is_file():
            try:
                return whole_labels(np.asarray(json.loads(path.read_text(encoding="utf-8"))), str(path))
            except (ValueError, RecursionError, OverflowError) as error:
                raise NashcError(f"damaged JSON: {error}", where=str(path), hint="it is a list of labels") from None
    return None


def _names(path: Path) -> tuple[str, ...]:
    if not path.is_file() or path.stat().st_size > MOST_TEXT:
        return ()
    return tuple(path.read_text(encoding="utf-8", errors="replace").split())
