"""Finds out what kind of data a path is, and opens it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nashc.data.arrays import open_npy, open_npz
from nashc.data.cifar import SHEET, find_cifar, open_records, open_sheet
from nashc.data.dataset import Dataset
from nashc.data.decode import SUFFIXES
from nashc.data.fit import check_fit
from nashc.data.folder import one_image, open_folder, split_folder
from nashc.data.idx import find_idx, is_idx, open_idx
from nashc.data.labels import read_labels
from nashc.data.listing import listing
from nashc.data.preprocess import Preprocess
from nashc.data.source import Source
from nashc.errors import NashcError, did_you_mean

KINDS = "a folder of images, .npy, .npz, CIFAR .bin or .png, idx files"
SPLITS = ("train", "val", "test")
DTYPES = ("float16", "float32", "float64")
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
PICKLES = (".pkl", ".pickle", ".pt", ".pth")


def open_data(
    path: str | Path,
    preprocess: Preprocess,
    input_shape: Sequence[int | str | None],
    *,
    labels: str | Path | None = None,
    split: str = "test",
    dtype: str = "float32",
) -> Dataset:
    """The data set at `path` for a model whose input has `input_shape`, the batch first; open sides are names or None.

    `labels` take the place of the source's own: a csv, npy or json file, or `name:REGEX`.
    Without resize and crop, images of another size than the model's are resized to it.
    Raises NashcError for a path of no known kind, for no images, for labels that are too few, too many or out of
    range, and for preprocessing that cannot fit the model's input.
    """
    if split not in SPLITS:
        raise NashcError(f"unknown split '{split}'", hint=did_you_mean(split, SPLITS))
    if dtype not in DTYPES:
        raise NashcError(f"input of type '{dtype}'", hint=f"known: {', '.join(DTYPES)}")
    path = Path(path)
    shape = tuple(side if isinstance(side, int) and side > 0 else None for side in input_shape)
    try:
        source = _open(path, preprocess, shape, split, labelled=labels is not None)
    except OSError as error:
        raise NashcError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    if not len(source.images):
        raise NashcError("no images", where=str(path), hint="give a data set with at least 1 image")
    if not source.ready:
        check_fit(preprocess, shape, str(path))
    found, classes = source.labels, source.classes
    if labels is not None:
        found, classes = read_labels(labels, len(source.images), source.names, classes)
    if found is not None:
        where = str(path) if labels is None else str(labels)
        _check_labels(found, len(source.images), classes, where)
    return Dataset(path.resolve().name, source, preprocess, found, classes, shape, dtype)


def _open(path: Path, preprocess: Preprocess, shape: Sequence[int | None], split: str, *, labelled: bool) -> Source:
    if os.path.isdir(path):
        found = split_folder(listing(path), split)
        return find_cifar(found, split) or find_idx(found, split) or open_folder(found, labelled=labelled)
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        hint = did_you_mean(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""
        raise NashcError(
            "there is no such file or folder", where=str(path), hint=hint if "mean" in hint else f"data is {KINDS}"
        )
    name, suffix = path.name.lower(), path.suffix.lower()
    if suffix == ".npy":
        return open_npy(path, shape, preprocess.layout)
    if suffix == ".npz":
        return open_npz(path, shape, preprocess.layout, split)
    if suffix == ".bin":
        return open_records(path)
    if SHEET.fullmatch(name):
        return open_sheet(path)
    if suffix in SUFFIXES:
        return one_image(path)
    if is_idx(name) or "idx1" in name:
        return open_idx(path)
    if name.endswith(ARCHIVES):
        raise NashcError("archives are not read", where=str(path), hint="unpack it, and give the folder")
    if suffix in PICKLES:
        raise NashcError("pickles are not read: they can run any program", where=str(path), hint=f"give {KINDS}")
    raise NashcError(f"unknown kind of data '{path.suffix or path.name}'", where=str(path), hint=f"give {KINDS}")


def _check_labels(labels: np.ndarray, count: int, classes: Sequence[str], where: str) -> None:
    if len(labels) != count:
        raise NashcError(f"{len(labels)} labels for {count} images", where=where, hint="give one label for each image")
    most = len(classes) or np.iinfo(np.int32).max
    wrong = np.flatnonzero((labels < 0) | (labels >= most))
    if len(wrong):
        range_of = f"0..{most - 1}" if classes else "0 or more"
        raise NashcError(
            f"label {labels[wrong[0]]} of image {wrong[0]} is out of range",
            where=where,
            hint=f"labels are {range_of}" + (f" for {most} classes" if classes else ""),
        )
