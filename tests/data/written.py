"""Every form of data that is read, written by an independent hand from the same images and labels."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Form:
    """`write(folder, images, labels)` gives the path to open; images are uint8 [n,32,32,3], in the order of labels."""

    write: Callable[[Path, np.ndarray, np.ndarray], Path]
    labelled: bool = True
    gray: bool = False


def images_and_labels(count: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.sort(np.arange(count) % 4)


def gray_of(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images[..., 0])


def png(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def records(images: np.ndarray, *heads: np.ndarray) -> bytes:
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([*(head[:, None].astype(np.uint8) for head in heads), planes], axis=1).tobytes()


def class_folders(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / f"class{label}").mkdir(exist_ok=True)
        (folder / f"class{label}" / f"{number:04}.png").write_bytes(png(image))
    (folder / ".hidden").mkdir()
    (folder / "class0" / "Thumbs.db").write_bytes(b"no image")
    return folder


def flat(kind: str, suffix: str) -> Callable[[Path, np.ndarray, np.ndarray], Path]:
    def write(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
        for number, image in enumerate(images):
            (folder / f"{number:04}{suffix}").write_bytes(png(image, kind))
        return folder

    return write


def val_folder(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    for split, pixels in (("train", images[::-1]), ("val", images)):
        (folder / split).mkdir()
        class_folders(folder / split, pixels, labels)
    return folder


def npy(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    np.save(folder / "x.npy", images)
    return folder / "x.npy"


def npy_planar(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    np.save(folder / "x.npy", images.transpose(0, 3, 1, 2))
    return folder / "x.npy"


def npz(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    np.savez(folder / "x.npz", x=images, y=labels)
    return folder / "x.npz"


def npz_splits(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    arrays = {
        "train_images": images[::-1],
        "train_labels": labels,
        "test_images": images,
        "test_labels": labels[:, None],
    }
    np.savez_compressed(folder / "med.npz", **arrays)
    return folder / "med.npz"


def cifar10(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    (folder / "test_batch.bin").write_bytes(records(images, labels))
    (folder / "data_batch_1.bin").write_bytes(records(images[::-1], labels))
    (folder / "batches.meta.txt").write_text("plane\ncar\nbird\ncat\n\n")
    return folder


def cifar10_file(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    return cifar10(folder, images, labels) / "test_batch.bin"


def cifar100(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    (folder / "test.bin").write_bytes(records(images, labels * 0, labels))
    return folder


def sheets(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    for name, pixels in (("test_batch", images), ("data_batch_1", images[::-1])):
        (folder / f"{name}.png").write_bytes(png(pixels.reshape(len(pixels), 1024, 3)))
    (folder / "test_lables.json").write_text(json.dumps(labels.tolist()))
    return folder


def mnist(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(gray_of(images)))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(labels))
    (folder / "train-images-idx3-ubyte").write_bytes(idx(gray_of(images[::-1])))
    return folder


def mnist_gz(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    (folder / "t10k-images.idx3-ubyte.gz").write_bytes(gzip.compress(idx(gray_of(images))))
    (folder / "t10k-labels.idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return folder / "t10k-images.idx3-ubyte.gz"


FORMS = {
    "class folders": Form(class_folders),
    "split folders": Form(val_folder),
    "flat bmp": Form(flat("BMP", ".BMP"), labelled=False),
    "flat webp": Form(flat("WEBP", ".webp"), labelled=False),
    "flat tiff": Form(flat("TIFF", ".tif"), labelled=False),
    "npy": Form(npy, labelled=False),
    "npy planar": Form(npy_planar, labelled=False),
    "npz": Form(npz),
    "npz with splits": Form(npz_splits),
    "cifar-10": Form(cifar10),
    "cifar-10 file": Form(cifar10_file),
    "cifar-100": Form(cifar100),
    "png sheets": Form(sheets),
    "idx": Form(mnist, gray=True),
    "idx.gz": Form(mnist_gz, gray=True),
}
