"""Labels from beside the images: csv, npy or json files, or a part of each file name."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from nashc.data.arrays import load_npy
from nashc.data.source import whole_labels
from nashc.errors import NashcError

MOST_TEXT = 256 << 20
KINDS = "a .csv, .txt, .npy or .json file, or name:REGEX"


def read_labels(
    given: str | Path, count: int, names: Sequence[str], classes: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int64 [count] and the classes' names, from a file or `name:REGEX`.

    Labels are whole numbers or names; names are looked up among `classes`, and without any are numbered in their order.
    A file lists labels in the order of the images, or names of image files with labels.
    Raises NashcError for a file that cannot be read, for labels that are missing, and for another number of them.
    """
    if isinstance(given, str) and given.startswith("name:"):
        found: Sequence[str] | dict[str, str] = _by_pattern(given.removeprefix("name:"), names)
        where = f"labels '{given}'"
    else:
        path = Path(given)
        where = str(path)
        if not path.is_file():
            raise NashcError("there is no such file of labels", where=where, hint=f"labels are {KINDS}")
        if path.suffix.lower() == ".npy":
            return whole_labels(load_npy(path), where), tuple(classes)
        found = _read_text(path, names)
    if isinstance(found, dict):
        found = _by_name(found, names, where)
    if len(found) != count:
        raise NashcError(f"{len(found)} labels for {count} images", where=where, hint="give one label for each image")
    return _numbered(found, classes, where)


def _read_text(path: Path, names: Sequence[str]) -> list[str] | dict[str, str]:
    if path.suffix.lower() not in (".json", ".csv", ".tsv", ".txt"):
        raise NashcError(f"unknown kind of labels '{path.suffix}'", where=str(path), hint=f"labels are {KINDS}")
    if path.stat().st_size > MOST_TEXT:
        raise NashcError(f"more than {MOST_TEXT >> 20} MiB of labels", where=str(path), hint="is it the right file?")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise NashcError(f"cannot be read as text: {error}", where=str(path), hint="labels are UTF-8 text") from None
    return _from_json(text, path) if path.suffix.lower() == ".json" else _from_lines(text, path, names)


def _from_json(text: str, path: Path) -> list[str] | dict[str, str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NashcError(f"damaged JSON: {error}", where=str(path)) from None
    values = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(values, list) or not all(isinstance(v, str) or type(v) is int for v in values):
        raise NashcError(
            "is neither a list of labels nor an object of names and labels",
            where=str(path),
            hint="labels are whole numbers or class names",
        )
    return {name: str(label) for name, label in value.items()} if isinstance(value, dict) else [str(v) for v in values]


def _from_lines(text: str, path: Path, names: Sequence[str]) -> list[str] | dict[str, str]:
    try:
        if "," in text or "\t" in text or ";" in text:
            mark = next(mark for mark in ",\t;" if mark in text)
            rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=mark)]
        else:
            rows = [line.rsplit(maxsplit=1) for line in text.splitlines()]
    except csv.Error as error:
        raise NashcError(f"damaged csv: {error}", where=str(path)) from None
    lines = [(number, row) for number, row in enumerate(rows, 1) if any(row)]
    for number, row in lines:
        if len(row) not in (1, 2) or len(row) != len(lines[0][1]):
            raise NashcError(
                f"{len(row)} values", where=f"{path}, line {number}", hint="a line is 'label' or 'file name,label'"
            )
    values = [row for _, row in lines]
    if values and _is_header(values, names):
        del values[0]
    if values and len(values[0]) == 2:
        return dict(values)
    return [row[0] for row in values]


def _is_header(rows: list[list[str]], names: Sequence[str]) -> bool:
    """A first line of words above numbers, or a name that no image has above names that are."""
    first, rest = rows[0], rows[1:]
    if not _is_number(first[-1]) and rest and all(_is_number(row[-1]) for row in rest):
        return True
    if len(first) == 1:
        return first[0].lower() in ("label", "labels", "class") and first[0] not in {row[0] for row in rest}
    return bool(names) and first[0] not in _by_forms(names)


def _by_pattern(pattern: str, names: Sequence[str]) -> list[str]:
    where = f"labels 'name:{pattern}'"
    if not names:
        raise NashcError("the images have no file names", where=where, hint="labels by name need a folder of images")
    try:
        form = re.compile(pattern)
    except re.error as error:
        raise NashcError(f"not a regular expression: {error}", where=where) from None
    if form.groups != 1 and "label" not in form.groupindex:
        raise NashcError(f"{form.groups} groups", where=where, hint="put the label in ( ), as in name:_([0-9]+)[.]")
    found = []
    for name in names:
        match = form.search(name)
        label = match and match["label" if "label" in form.groupindex else 1]
        if not label:
            raise NashcError(f"'{name}' does not match", where=where, hint="the expression must match every file")
        found.append(label)
    return found


def _by_forms(names: Sequence[str]) -> dict[str, int]:
    """Path, file name, and file name without suffix -> image; a form that several images share is left out."""
    found: dict[str, int] = {}
    for form in (lambda p: p.stem, lambda p: p.name, str):
        for index, name in enumerate(names):
            key = form(PurePosixPath(name))
            found[key] = index if key not in found or found[key] == index else -1
    found.update({name: index for index, name in enumerate(names)})
    return {key: index for key, index in found.items() if index >= 0}


def _by_name(labels: dict[str, str], names: Sequence[str], where: str) -> list[str]:
    if not names:
        raise NashcError("labels by file name, and the images have none", where=where, hint="list the labels in order")
    forms = _by_forms(names)
    found: list[str | None] = [None] * len(names)
    for name, label in labels.items():
        index = forms.get(name.removeprefix("./"))
        if index is not None:
            found[index] = label
    missing = [name for name, label in zip(names, found, strict=True) if label is None]
    if missing:
        raise NashcError(
            f"no label for {len(missing)} of {len(names)} images, such as '{missing[0]}'",
            where=where,
            hint="names are paths from the folder, file names, or file names without suffix",
        )
    return [label for label in found if label is not None]


def _numbered(labels: Sequence[str], classes: Sequence[str], where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if all(_is_number(label) for label in labels):
        return np.array([int(label) for label in labels], dtype=np.int64), tuple(classes)
    known = {name: index for index, name in enumerate(classes or sorted(set(labels)))}
    for label in labels:
        if label not in known:
            raise NashcError(f"no class '{label}'", where=where, hint=f"classes: {', '.join(known)}")
    return np.array([known[label] for label in labels], dtype=np.int64), tuple(known)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,18}", text) is not None
