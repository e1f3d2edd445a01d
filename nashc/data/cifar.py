"""CIFAR-10 and CIFAR-100: binary files, and CIFAR-10 as PNG sheets with one image a row.

A binary record is the label (CIFAR-100: the coarse, then the fine label), then red, green and blue planes of 32x32
bytes (https://www.cs.toronto.edu/~kriz/cifar.html). A sheet is a PNG of 1024 x n pixels, its labels are a JSON list
beside it.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nashc.data.decode import decode, opened
from nashc.data.listing import Listing, read_json, read_text
from nashc.data.source import ArrayImages, Parts, Source, whole_labels
from nashc.errors import NashcError

SIDE = 32
PIXELS = 3 * SIDE * SIDE
CIFAR10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
SHEET = re.compile(r"(data_batch_(?P<batch>\d+)|test_batch)\.png", re.IGNORECASE)
RECORDS = re.compile(r"(data_batch_\d+|test_batch|train|test)\.bin", re.IGNORECASE)
PICKLES = ({"data_batch_1", "test_batch"}, {"train", "test", "meta"})
MOST_DECODED = 256 << 20
"""Bytes of decoded sheets that are kept: CIFAR-10 has 154 MB for training."""


class SheetCache:
    """Decoded sheets, the least recently used ones dropped beyond MOST_DECODED bytes."""

    def __init__(self) -> None:
        self._sheets: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path) -> np.ndarray:
        with self._lock:
            if path not in self._sheets:
                self._sheets[path] = decode(path)
            self._sheets.move_to_end(path)
            while len(self._sheets) > 1 and sum(sheet.nbytes for sheet in self._sheets.values()) > MOST_DECODED:
                self._sheets.popitem(last=False)
            return self._sheets[path]


@dataclass(frozen=True)
class Sheet:
    """Images of a PNG sheet, which is decoded when the first of them is asked for."""

    path: Path
    height: int
    cache: SheetCache

    def __len__(self) -> int:
        return self.height

    def read(self, index: int) -> np.ndarray:
        image: np.ndarray = self.cache.get(self.path)[index].reshape(SIDE, SIDE, -1)
        return image

    def where(self, index: int) -> str:
        return f"{self.path}, image {index}"


def find_cifar(found: Listing, split: str) -> Source | None:
    """CIFAR in a folder, or None where it holds none."""
    for form, opener in ((SHEET, _sheets), (RECORDS, _records)):
        names = [name for name in found.files if form.fullmatch(name)]
        if names:
            return opener(found.path, _of_split(found.path, names, split))
    if any(pickles.issubset(found.files) for pickles in PICKLES):
        raise NashcError(
            "pickles of CIFAR are not read: they can run any program",
            where=str(found.path),
            hint="take the binary version (data_batch_1.bin or train.bin)",
        )
    return None


def open_records(path: Path) -> Source:
    """One binary file of CIFAR-10 or CIFAR-100."""
    return _records(path.parent, [path.name])


def open_sheet(path: Path) -> Source:
    """One PNG sheet with its labels."""
    return _sheets(path.parent, [path.name])


def _of_split(folder: Path, names: Sequence[str], split: str) -> list[str]:
    """CIFAR has no validation set: its test set serves as one."""
    found = [name for name in names if name.lower().startswith("test") == (split != "train")]
    if not found:
        other = "test" if split == "train" else "train"
        raise NashcError(f"no CIFAR file of split '{split}'", where=str(folder), hint=f"give --split {other}")
    return sorted(found, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])


def _records(folder: Path, names: Sequence[str]) -> Source:
    paths = [folder / name for name in names]
    hundred = {_is_hundred(path) for path in paths}
    if len(hundred) > 1:
        raise NashcError("files of CIFAR-10 and of CIFAR-100 together", where=str(folder), hint="give one file")
    kind, head, meta = (
        ("CIFAR-100", 2, "fine_label_names.txt") if True in hundred else ("CIFAR-10", 1, "batches.meta.txt")
    )
    files = [np.memmap(path, np.uint8, "r").reshape(-1, head + PIXELS) for path in paths]
    planes = [file[:, head:].reshape(-1, 3, SIDE, SIDE) for file in files]
    images = Parts.of([ArrayImages(part, path, planar=True) for part, path in zip(planes, paths, strict=True)])
    labels = np.concatenate([file[:, head - 1] for file in files]).astype(np.int64)
    known = CIFAR10 if head == 1 else ()
    classes = tuple(read_text(folder / meta).split()) if (folder / meta).is_file() else known
    return Source(f"{kind} binary, {_span(names)}", images, labels, classes)


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


def _sheets(folder: Path, names: Sequence[str]) -> Source:
    cache = SheetCache()
    sheets = [Sheet(folder / name, _height(folder / name), cache) for name in names]
    images = Parts.of(sheets)
    labels = _sheet_labels(folder, "test" if names[0].lower().startswith("test") else "train")
    if labels is not None and len(names) == 1 and len(labels) != len(images):
        labels = _of_sheet(labels, names[0], len(images))
    if labels is not None and len(labels) != len(images):
        raise NashcError(
            f"{len(labels)} labels for the {len(images)} images of {_span(names)}",
            where=str(folder),
            hint="all sheets must lie in the folder",
        )
    return Source(f"CIFAR-10 in PNG sheets, {_span(names)}", images, labels, CIFAR10)


def _height(path: Path) -> int:
    with opened(path) as image:
        width, height = image.size
    if width != SIDE * SIDE:
        hint = f"a sheet of CIFAR has one image of {SIDE * SIDE} pixels a row"
        raise NashcError(f"{width} pixels wide", where=str(path), hint=hint)
    return height


def _of_sheet(labels: np.ndarray, name: str, height: int) -> np.ndarray:
    """The labels of one sheet of many, which all have its height."""
    batch = int(match["batch"] or 0) if (match := SHEET.fullmatch(name)) else 0
    return labels[(batch - 1) * height : batch * height] if batch else labels


def _sheet_labels(folder: Path, split: str) -> np.ndarray | None:
    """The labels beside the sheets; the published file is spelled 'lables'."""
    for path in (folder / f"{split}_lables.json", folder / f"{split}_labels.json"):
        if path.is_file():
            values = read_json(path)
            if not isinstance(values, list) or not all(type(v) is int and 0 <= v < len(CIFAR10) for v in values):
                raise NashcError("is no list of CIFAR-10 labels", where=str(path), hint="labels are 0..9")
            return whole_labels(np.array(values, dtype=np.int64), str(path))
    return None


def _span(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
