"""A folder of image files: class sub-folders give the labels, a flat folder has none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nashc.data.decode import SUFFIXES, decode
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
    root: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        return decode(self.root / self.names[index])

    def label_of(self, index: int) -> str:
        return str(self.root / self.names[index])


def open_folder(path: Path, split: str, *, labelled: bool) -> Source:
    """The images below a folder, sorted by name; `labelled`: labels come from elsewhere, sub-folders are no classes.

    Folders named train, test or val alone are splits. Raises NashcError where there are no images, where a class has
    none, and where images lie beside class folders.
    """
    path = split_folder(path, split)
    loose, folders = _entries(path)
    if labelled:
        names = [*loose, *(name for folder in folders for name in _below(path, folder))]
        return _source(path, sorted(names), None, (), "image files")
    classes = {folder: sorted(_below(path, folder)) for folder in folders}
    if loose and any(classes.values()):
        raise NashcError(
            f"{len(loose)} images lie beside folders with images, such as '{loose[0]}'",
            where=str(path),
            hint="move them, or give --labels",
        )
    if not any(classes.values()):
        return _source(path, loose, None, (), "image files")
    for folder, names in classes.items():
        if not names:
            raise NashcError("a class without images", where=str(path / folder), hint="remove the folder, or fill it")
    labels = np.repeat(np.arange(len(classes)), [len(names) for names in classes.values()])
    files = [name for names in classes.values() for name in names]
    return _source(path, files, labels, tuple(classes), "image files in class folders")


def one_image(path: Path) -> Source:
    """A data set of one image."""
    return _source(path.parent, [path.name], None, (), "image file")


def split_folder(path: Path, split: str) -> Path:
    """`path`, or its folder of the split where all its folders are splits."""
    loose, folders = _entries(path)
    if loose or not folders or not all(folder.lower() in SPLIT_NAMES for folder in folders):
        return path
    found = {folder.lower(): folder for folder in folders}
    for name in SPLITS.get(split, (split,)):
        if name in found:
            return path / found[name]
    raise NashcError(
        f"there is no folder '{split}', only {', '.join(folders)}", where=str(path), hint=f"give --split {folders[0]}"
    )


def _source(root: Path, names: list[str], labels: np.ndarray | None, classes: tuple[str, ...], kind: str) -> Source:
    if not names:
        raise NashcError(
            "no images in the folder", where=str(root), hint=f"it takes {' '.join(sorted(SUFFIXES))} files"
        )
    note = ""
    if classes and all(name.isdecimal() for name in classes) and list(classes) != sorted(classes, key=int):
        note = f"classes are sorted as text ({', '.join(classes[:3])}, ...): labels 'name:^([0-9]+)/' takes the numbers"
    return Source(kind, FileImages(root, tuple(names)), labels, classes, tuple(names), slow=True, note=note)


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of images and of folders, sorted; hidden ones are left out."""
    loose, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                    loose.append(entry.name)
                elif entry.is_dir():
                    folders.append(entry.name)
    except OSError as error:
        raise NashcError(f"cannot be listed: {error.strerror}", where=str(folder)) from None
    return sorted(loose), sorted(folders)


def _below(root: Path, name: str) -> Iterator[str]:
    """Images in a folder and its folders, by their path from `root`; a circle of links is walked once."""
    seen: set[tuple[int, int]] = set()
    todo = [(name, 0)]
    while todo:
        name, depth = todo.pop()
        status = (root / name).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        if depth > MOST_DEPTH:
            raise NashcError(f"more than {MOST_DEPTH} folders in each other", where=str(root / name))
        loose, folders = _entries(root / name)
        yield from (f"{name}/{file}" for file in loose)
        todo += [(f"{name}/{folder}", depth + 1) for folder in folders]
