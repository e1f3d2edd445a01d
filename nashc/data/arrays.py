"""NumPy files: uint8 images, or float arrays that are the model's input already."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nashc.data.source import ArrayImages, Source, whole_labels
from nashc.errors import NashcError

MOST_BYTES = 4 << 30
"""Of an array in an .npz file, which is read whole; .npy files are mapped and may be of any size."""
IMAGE_KEYS = ("x", "images", "image", "data", "inputs", "input", "arr_0")
LABEL_KEYS = ("y", "labels", "label", "targets", "target", "fine_labels")


def open_npy(path: Path, shape: Sequence[int | None], layout: str) -> Source:
    """Images or samples [n, ...] of an .npy file, mapped."""
    return _source(load_npy(path), path, shape, layout, None, "npy file")


def load_npy(path: Path) -> np.ndarray:
    """A mapped array; raises NashcError for a damaged file and for one with Python objects."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, OverflowError, MemoryError) as error:
        raise _damaged(path, error) from None
    return array


def open_npz(path: Path, shape: Sequence[int | None], layout: str, split: str) -> Source:
    """Images and labels of an .npz file, by their usual keys; a key may name the split (x_test, test_images)."""
    try:
        with zipfile.ZipFile(path) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist()]
            images, labels = _key(keys, IMAGE_KEYS, split), _key(keys, LABEL_KEYS, split)
            if images is None:
                raise NashcError(
                    f"no array of images among {', '.join(keys) or 'no arrays at all'}",
                    where=str(path),
                    hint=f"name it {', '.join(IMAGE_KEYS[:3])}, x_{split} or {split}_images",
                )
            array = _member(archive, images, path)
            found = None if labels is None else whole_labels(_member(archive, labels, path), f"{path}, key '{labels}'")
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise _damaged(path, error) from None
    return _source(array, path, shape, layout, found, f"npz file, key '{images}'")


def _key(keys: Sequence[str], known: Sequence[str], split: str) -> str | None:
    by_lower = {key.lower(): key for key in keys}
    of_split = [form for key in known for form in (f"{key}_{split}", f"{split}_{key}")]
    return next((by_lower[key] for key in (*of_split, *known) if key in by_lower), None)


def _member(archive: zipfile.ZipFile, key: str, path: Path) -> np.ndarray:
    with archive.open(f"{key}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject or int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize > MOST_BYTES:
        reason = "holds Python objects" if dtype.hasobject else f"is larger than {MOST_BYTES >> 30} GiB"
        raise NashcError(f"'{key}' {reason}", where=str(path), hint="save the images as a uint8 .npy file")
    with archive.open(f"{key}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _source(
    array: np.ndarray, path: Path, shape: Sequence[int | None], layout: str, labels: np.ndarray | None, kind: str
) -> Source:
    if array.dtype.kind == "f":
        if _matches(array.shape, shape[1:]):
            array = array[None]
        if not _matches(array.shape[1:], shape[1:]):
            wanted = ", ".join("?" if side is None else str(side) for side in shape[1:])
            raise NashcError(
                f"{array.dtype} of shape {list(array.shape)} is not the model's input [n, {wanted}]",
                where=str(path),
                hint="float arrays are taken as preprocessed; save images as uint8 to have them preprocessed",
            )
        return Source(kind, ArrayImages(array, path), labels, ready=True)
    if array.dtype != np.uint8:
        raise NashcError(
            f"an array of {array.dtype}",
            where=str(path),
            hint="save images as uint8, or what the model takes as float32",
        )
    if array.ndim == 3 and array.shape[2] == 3:
        array = array[None]
    if array.ndim == 3:
        return Source(kind, ArrayImages(array, path), labels)
    first, last = (array.shape[1] in (1, 3), array.shape[3] in (1, 3)) if array.ndim == 4 else (False, False)
    if not (first or last):
        raise NashcError(
            f"uint8 of shape {list(array.shape)} is no array of images",
            where=str(path),
            hint="images are [n,h,w], [n,h,w,3] or [n,3,h,w]",
        )
    return Source(kind, ArrayImages(array, path, planar=first and not (last and layout == "nhwc")), labels)


def _matches(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(w in (None, s) for s, w in zip(shape, wanted, strict=True))


def _damaged(path: Path, error: Exception) -> NashcError:
    if "allow_pickle" in str(error) or "pickle" in str(error).lower():
        return NashcError(
            "holds Python objects or is no NumPy file",
            where=str(path),
            hint="only arrays of numbers are read, never pickles",
        )
    return NashcError(f"damaged NumPy file: {error or type(error).__name__}", where=str(path), hint="write it again")
