"""idx files, the format of MNIST: two zero bytes, type, number of dimensions, the dimensions (big endian), the data."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from nashc.data.listing import Listing
from nashc.data.source import ArrayImages, Source, whole_labels
from nashc.errors import NashcError

UBYTE = 8
MOST_UNPACKED = 1 << 30
"""Bytes of a .gz file's data, which is held in memory."""


def is_idx(name: str) -> bool:
    """By the usual names: train-images-idx3-ubyte, t10k-images.idx3-ubyte.gz."""
    return any(f"{mark}{kind}" in name.lower() for mark in ("-", ".", "_") for kind in ("idx3", "idx4"))


def find_idx(folder: Listing, split: str) -> Source | None:
    """The idx files of a split in a folder, or None where there are none; val is test, for MNIST has no other."""
    files = [name for name in folder.files if is_idx(name)]
    if not files:
        return None
    marks = ("train",) if split == "train" else ("t10k", "test", "val")
    found = [name for name in files if any(mark in name.lower() for mark in marks)]
    found = [name for name in found if name.removesuffix(".gz") not in found or not name.endswith(".gz")]
    if len(found) != 1:
        raise NashcError(
            f"{len(found) or 'no'} idx files of split '{split}' among {', '.join(files)}",
            where=str(folder.path),
            hint="give the file of images itself",
        )
    return open_idx(folder.path / found[0])


def open_idx(path: Path) -> Source:
    """Images of an idx file, with the labels of the file beside it (images -> labels, idx3 -> idx1)."""
    images = read_idx(path)
    if images.ndim == 1:
        raise NashcError("holds labels", where=str(path), hint="give the file of images")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise NashcError(
            f"shape {list(images.shape)} is no array of images", where=str(path), hint="images are [n,h,w] or [n,h,w,3]"
        )
    labels = None
    name = path.name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    for beside in (name, name.removesuffix(".gz"), f"{name}.gz"):
        if beside != path.name and (path.parent / beside).is_file():
            labels = whole_labels(read_idx(path.parent / beside), str(path.parent / beside))
            break
    return Source("idx file", ArrayImages(images, path), labels)


def read_idx(path: Path) -> np.ndarray:
    """uint8 array of an idx file, mapped where it is not compressed; raises NashcError for a damaged one."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            zeros, kind, rank = struct.unpack(">HBB", file.read(4))
            if zeros or not 1 <= rank <= 4:
                raise NashcError("is no idx file", where=str(path), hint="it starts with two zero bytes, type and rank")
            if kind != UBYTE:
                raise NashcError(f"data of type {kind:#x}", where=str(path), hint="only unsigned bytes (0x8) are read")
            shape = struct.unpack(f">{rank}I", file.read(4 * rank))
            size = math.prod(shape)
            if path.suffix != ".gz":
                held = path.stat().st_size - file.tell()
                if held < size:
                    raise _short(path, held, shape)
                return np.memmap(path, np.uint8, "r", file.tell(), shape) if size else np.zeros(shape, np.uint8)
            if size > MOST_UNPACKED:
                raise NashcError(f"{size} bytes when unpacked", where=str(path), hint="unpack the file with gunzip")
            data = file.read(size)
    except struct.error:
        raise NashcError("ends within its header", where=str(path), hint="take the file again") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise NashcError(f"damaged file: {error}", where=str(path), hint="take the file again") from None
    if len(data) < size:
        raise _short(path, len(data), shape)
    return np.frombuffer(data, np.uint8).reshape(shape)


def _short(path: Path, held: int, shape: tuple[int, ...]) -> NashcError:
    return NashcError(f"{held} bytes of data for shape {list(shape)}", where=str(path), hint="take the file again")
