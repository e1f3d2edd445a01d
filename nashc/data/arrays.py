"""NumPy files: uint8 images, or float arrays that are the model's input already."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from nashc.data.decode import MOST_PIXELS
from nashc.data.source import ArrayImages, Source, whole_labels
from nashc.errors import NashcError

MOST_BYTES = 4 << 30
"""Of an array in an .npz file, which is read whole; .npy files are mapped and may be of any size."""
IMAGE_KEYS = ("x", "images", "image", "data", "inputs", "input", "arr_0")
LABEL_KEYS = ("y", "labels", "label", "targets", "target", "fine_labels")


def load_npy(path: Path) -> np.ndarray:
    """A mapped array; raises NashcError for a damaged file and for one with Python objects."""
    try:
        array: np.ndarray = npy.open_memmap(path, mode="r")
    except Exception as error:  # whatever NumPy makes of a damaged file: tokenize.TokenError, too
        raise _damaged(path, error) from None
    return array


def open_npy(path: Path, shape: Sequence[int | None], layout: str) -> Source:
    """Images or samples [n, ...] of an .npy file, mapped."""
    return _source(load_npy(path), path, shape, layout, None, "npy file")


def open_npz(path: Path, shape: Sequence[int | None], layout: str, split: str) -> Source:
    """Images and labels of an .npz file, by their usual keys; a key may name the split (x_test, test_images)."""
    try:
        with zipfile.ZipFile(path) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            key, label_key = _image_key(keys, split, path), _key(keys, LABEL_KEYS, split)
            array = _member(archive, key, path)
            labels = None if label_key is None else _member(archive, label_key, path)
    except NashcError:
        raise
    except Exception as error:  # whatever zipfile and NumPy make of a damaged file
        raise _damaged(path, error) from None
    whole = None if labels is None else whole_labels(labels, f"{path}, '{label_key}'")
    return _source(array, path, shape, layout, whole, f"npz file, '{key}'")


def _image_key(keys: Sequence[str], split: str, path: Path) -> str:
    key = _key(keys, IMAGE_KEYS, split)
    if key is None:
        raise NashcError(
            f"no array of images among {', '.join(keys)}" if keys else "no arrays",
            where=str(path),
            hint=f"name it {', '.join(IMAGE_KEYS[:3])}, x_{split} or {split}_images",
        )
    return key


def _key(keys: Sequence[str], known: Sequence[str], split: str) -> str | None:
    by_lower = {key.lower(): key for key in keys}
    of_split = [form for key in known for form in (f"{key}_{split}", f"{split}_{key}")]
    return next((by_lower[key] for key in (*of_split, *known) if key in by_lower), None)


def _member(archive: zipfile.ZipFile, key: str, path: Path) -> np.ndarray:
    """An array whose header is read first: it says how much memory the array takes."""
    with archive.open(f"{key}.npy") as file:
        read_header = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
    if math.prod(shape) * dtype.itemsize > MOST_BYTES:
        raise NashcError(
            f"'{key}' is larger than {MOST_BYTES >> 30} GiB",
            where=str(path),
            hint="save it as an .npy file, which is mapped",
        )
    with archive.open(f"{key}.npy") as file:
        array: np.ndarray = npy.read_array(file, allow_pickle=False)
    return array


def _source(
    array: np.ndarray, path: Path, shape: Sequence[int | None], layout: str, labels: np.ndarray | None, kind: str
) -> Source:
    if array.dtype.kind == "f":
        return Source(kind, ArrayImages(_samples(array, path, shape), path), labels, ready=True)
    if array.dtype != np.uint8:
        raise NashcError(
            f"an array of {array.dtype}", where=str(path), hint="save images as uint8, or the model's input as float32"
        )
    if array.ndim == 3 and array.shape[2] == 3:
        array = array[None]
    if array.ndim == 3 and array.shape[0] == 3 and 3 in (shape[1], shape[-1]):
        raise NashcError(
            f"uint8 of shape {list(array.shape)} may be one image or three gray ones, for a model of colour images",
            where=str(path),
            hint="save an axis of images before it: [1,3,h,w]",
        )
    planes = array.ndim == 4 and array.shape[1] in (1, 3)
    colours = array.ndim == 4 and array.shape[3] in (1, 3)
    if array.ndim != 3 and not (planes or colours):
        raise NashcError(
            f"uint8 of shape {list(array.shape)} is no array of images",
            where=str(path),
            hint="images are [n,h,w], [n,h,w,3] or [n,3,h,w]",
        )
    _check_size(array, path)
    return Source(kind, ArrayImages(array, path, planar=planes and not (colours and layout == "nhwc")), labels)


def _samples(array: np.ndarray, path: Path, shape: Sequence[int | None]) -> np.ndarray:
    """float [n, ...] of the model's shape; an array without n is one sample."""
    samples = array[None] if array.ndim == len(shape) - 1 else array
    if samples.ndim != len(shape) or any(
        want not in (None, side) for side, want in zip(samples.shape[1:], shape[1:], strict=True)
    ):
        wanted = ", ".join("?" if side is None else str(side) for side in shape[1:])
        raise NashcError(
            f"{array.dtype} of shape {list(array.shape)} is not the model's input [n, {wanted}]",
            where=str(path),
            hint="float arrays are taken as preprocessed; save images as uint8 to have them preprocessed",
        )
    _check_size(samples, path)
    return samples


def _check_size(array: np.ndarray, path: Path) -> None:
    if not 1 <= math.prod(array.shape[1:]) <= 4 * MOST_PIXELS:
        raise NashcError(
            f"images of shape {list(array.shape[1:])}", where=str(path), hint="an image has pixels, and fits in memory"
        )


def _damaged(path: Path, error: Exception) -> NashcError:
    if "Python objects" in str(error) or "pickle" in str(error):
        return NashcError(
            "holds Python objects", where=str(path), hint="only arrays of numbers are read, never pickles"
        )
    return NashcError(f"is no NumPy file, or a damaged one: {error or type(error).__name__}", where=str(path))
