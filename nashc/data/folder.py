"""A folder of image files: class sub-folders give the labels, a flat folder has none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nashc.data.decode import SUFFIXES, decode
from nashc.data.listing import Listing, listing
from nashc.data.source import Source
from nashc.errors import NashcError

MOST_DEPTH = 16
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "test", "testing"),
    "test": ("test", "testing", "val", "valid", "validation"),
}
"""Split -> names of its folder, the best first."""
SPLIT_NAMES = frozenset(name for names in SPLITS.values() for name in names)


@dataclass(frozen=True)
class FileImages:
    """Image files by their paths from `root`."""

    root: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        return decode(self.root / self.names[index])

    def where(self, index: int) -> str:
        return str(self.root / self.names[index])


def split_folder(found: Listing, split: str) -> Listing:
    """The folder itself, or its folder of the split where it has no files and all its folders are splits."""
    by_name = {folder.lower(): folder for folder in found.folders}
    splits, others = SPLIT_NAMES & set(by_name), [by_name[name] for name in by_name if name not in SPLIT_NAMES]
    if _images(found) or not splits or (others and len(splits) < 2):  # "train" alone is a class of CIFAR-100
        return found
    if others:
        raise NashcError(
            f"folders of splits ({', '.join(sorted(splits))}) and others ({', '.join(sorted(others)[:3])})",
            where=str(found.path),
            hint="give the folder of one split",
        )
    for name in SPLITS[split]:
        if name in by_name:
            return listing(found.path / by_name[name])
    other = next(other for other, names in SPLITS.items() if not by_name.keys().isdisjoint(names))
    raise NashcError(
        f"no folder of split '{split}', only {', '.join(found.folders)}",
        where=str(found.path),
        hint=f"give --split {other}",
    )


def open_folder(found: Listing, *, labelled: bool) -> Source:
    """The images below a folder, sorted by name; `labelled`: labels come from elsewhere, sub-folders are no classes.

    Raises NashcError where there are no images, where a class has none, and where images lie beside class folders.
    """
    loose = _images(found)
    classes = {folder: sorted(_below(found.path, folder)) for folder in found.folders}
    files = [name for names in classes.values() for name in names]
    if labelled or not files:
        return _source(found.path, [*loose, *files], None, ())
    if loose:
        raise NashcError(
            f"{len(loose)} images lie beside folders of images, such as '{loose[0]}'",
            where=str(found.path),
            hint="move them, or give --labels",
        )
    for folder, names in classes.items():
        if not names:
            raise NashcError(
                "a class without images", where=str(found.path / folder), hint="remove the folder, or give --labels"
            )
    labels = np.repeat(np.arange(len(classes)), [len(names) for names in classes.values()])
    return _source(found.path, files, labels, tuple(classes))


def one_image(path: Path) -> Source:
    """A data set of one image."""
    return _source(path.parent, [path.name], None, ())


def _source(root: Path, names: list[str], labels: np.ndarray | None, classes: tuple[str, ...]) -> Source:
    if not names:
        kinds = " ".join(sorted(SUFFIXES))
        raise NashcError("no images in the folder", where=str(root), hint=f"images are {kinds}")
    note = ""
    if classes and all(name.isdecimal() for name in classes) and list(classes) != sorted(classes, key=int):
        note = f"classes in the order of text: {', '.join(classes[:3])}; labels 'name:^([0-9]+)/' takes them as numbers"
    kind = "image files in class folders" if classes else "image files" if len(names) > 1 else "image file"
    return Source(kind, FileImages(root, tuple(names)), labels, classes, tuple(names), slow=True, note=note)


def _images(found: Listing) -> list[str]:
    return [name for name in found.files if os.path.splitext(name)[1].lower() in SUFFIXES]


def _below(root: Path, name: str) -> Sequence[str]:
    """Images in a folder and its folders, by their path from `root`; a circle of links is walked once."""
    images: list[str] = []
    seen: set[tuple[int, int]] = set()
    todo = [(name, 0)]
    while todo:
        name, depth = todo.pop()
        status = (root / name).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        if depth > MOST_DEPTH:
            raise NashcError(f"more than {MOST_DEPTH} folders in each other", where=str(root / name))
        seen.add((status.st_dev, status.st_ino))
        found = listing(root / name)
        images += (f"{name}/{file}" for file in _images(found))
        todo += ((f"{name}/{folder}", depth + 1) for folder in found.folders)
    return images
