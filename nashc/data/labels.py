"""Labels from beside the images: csv, npy or json files, or a part of each file name."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from nashc.data.arrays import load_npy
from nashc.data.listing import read_json, read_text
from nashc.data.source import whole_labels
from nashc.errors import NashcError, did_you_mean

KINDS = "a .csv, .txt, .npy or .json file, or name:REGEX"


def read_labels(
    given: str | Path, count: int, names: Sequence[str], classes: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int64 [count] and the classes' names, from a file or `name:REGEX`.

    Labels are whole numbers or names; names are looked up among `classes`, and without any are numbered in their order.
    A file lists labels in the order of the images, or names of image files (or of their folders) with labels.
    Raises NashcError for a file that cannot be read, for labels that are missing, and for another number of them.
    """
    if isinstance(given, str) and given.startswith("name:"):
        return _numbered(_by_pattern(given.removeprefix("name:"), names), classes, f"labels '{given}'")
    path = Path(given)
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        raise NashcError("there is no such file of labels", where=str(path), hint=f"labels are {KINDS}")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return whole_labels(load_npy(path), str(path)), tuple(classes)
    if suffix not in (".json", ".csv", ".tsv", ".txt"):
        raise NashcError(f"unknown kind of labels '{path.suffix}'", where=str(path), hint=f"labels are {KINDS}")
    found = _from_json(path) if suffix == ".json" else _from_lines(path)
    in_order = _by_name(found, names, str(path)) if isinstance(found, dict) else found
    if len(in_order) != count:
        raise NashcError(
            f"{len(in_order)} labels for {count} images", where=str(path), hint="give one label for each image"
        )
    return _numbered(in_order, classes, str(path))


def _from_json(path: Path) -> list[str] | dict[str, str]:
    value = read_json(path)
    values = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(values, list) or not all(isinstance(v, str) or type(v) is int for v in values):
        raise NashcError(
            "is neither a list of labels nor an object of names and labels",
            where=str(path),
            hint="labels are whole numbers or class names",
        )
    return {name: str(label) for name, label in value.items()} if isinstance(value, dict) else [str(v) for v in values]


def _from_lines(path: Path) -> list[str] | dict[str, str]:
    text = read_text(path)
    mark = next((mark for mark in ",\t;" if mark in text), "")
    try:
        lines = csv.reader(text.splitlines(), delimiter=mark, skipinitialspace=True) if mark else text.splitlines()
        rows = [[c.strip() for c in line] if isinstance(line, list) else line.rsplit(maxsplit=1) for line in lines]
    except csv.Error as error:
        raise NashcError(f"damaged csv: {error}", where=str(path)) from None
    numbered = [(number, row) for number, row in enumerate(rows, 1) if any(row)]
    width = len(numbered[0][1]) if numbered else 1
    for number, row in numbered:
        if width not in (1, 2) or len(row) != width or not all(row):
            where, hint = f"{path}, line {number}", "a line is 'label' or 'file name,label'"
            raise NashcError("an empty value" if not all(row) else f"{len(row)} values", where=where, hint=hint)
    if width == 1:
        labels = [row[0] for _, row in numbered]
        return labels[1:] if labels and _is_header(labels[0], labels[1:]) else labels
    found: dict[str, str] = {}
    for number, (name, label) in numbered:
        if found.setdefault(name, label) != label:
            raise NashcError(
                f"'{name}' has label '{label}', and '{found[name]}' before", where=f"{path}, line {number}"
            )
    return found


def _is_header(first: str, rest: Sequence[str]) -> bool:
    """Of a file with labels alone; a header above names and labels is a name that no image has."""
    if not _is_float(first) and rest and all(_is_number(label) for label in rest):
        return True
    return first.lower() in ("label", "labels", "class") and first not in rest


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
    for index, name in enumerate(names):
        path = PurePosixPath(name)
        for form in {path.name, path.stem}:
            found[form] = index if form not in found else -1
    found.update({name: index for index, name in enumerate(names)})
    return {form: index for form, index in found.items() if index >= 0}


def _by_name(labels: dict[str, str], names: Sequence[str], where: str) -> list[str]:
    if not names:
        raise NashcError("labels by file name, and the images have none", where=where, hint="list the labels in order")
    folders = [name.partition("/")[0] for name in names if "/" in name]
    if len(folders) == len(names) and labels.keys() >= set(folders):
        return [labels[folder] for folder in folders]
    forms = _by_forms(names)
    plain = {name.removeprefix("./"): label for name, label in labels.items()}
    by_image: dict[int, str] = {}
    for name, label in plain.items():
        if name in forms and by_image.setdefault(forms[name], label) != label:
            what = f"image '{names[forms[name]]}' has label '{label}', and '{by_image[forms[name]]}' by another name"
            raise NashcError(what, where=where)
    missing = [name for index, name in enumerate(names) if index not in by_image]
    if missing:
        raise NashcError(
            f"no label for {len(missing)} of {len(names)} images, such as '{missing[0]}'",
            where=where,
            hint="names are paths from the folder, file names, file names without suffix, or class folders",
        )
    return [by_image[index] for index in range(len(names))]


def _numbered(labels: Sequence[str], classes: Sequence[str], where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    words = [label for label in labels if not _is_number(label)]
    if not words:
        return np.array([int(label.partition(".")[0]) for label in labels], dtype=np.int64), tuple(classes)
    if not classes and all(map(_is_float, labels)):
        raise NashcError(f"label '{words[0]}' is no whole number", where=where, hint="labels are 0, 1, 2 ... or names")
    if len(words) < len(labels) and not classes:
        raise NashcError(
            f"'{words[0]}' among labels that are numbers",
            where=where,
            hint="labels are all numbers, or all class names",
        )
    known = {name: index for index, name in enumerate(classes or sorted(set(labels)))}
    for label in labels:
        if label not in known:
            raise NashcError(f"no class '{label}'", where=where, hint=did_you_mean(label, known))
    return np.array([known[label] for label in labels], dtype=np.int64), tuple(known)


def _is_number(text: str) -> bool:
    """Whole, also as tables write a column of them: 3, +3, 3.0."""
    return re.fullmatch(r"[+-]?[0-9]{1,18}([.]0*)?", text) is not None


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
