"""What happens to the pixels between the file and the model's input, and how the model remembers it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from operator import index
from typing import Any

import numpy as np
from PIL import Image

from nashc.errors import NashcError, did_you_mean

PREFIX = "nashc.preprocess."
CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}
LAYOUTS = ("nchw", "nhwc")
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MOST_SIDE = 16384
"""Pixels along one side of a resized image: a model that asks for more is damaged."""


@dataclass(frozen=True)
class Preprocess:
    """Resize, centre crop, then (pixel * scale - mean) / std for each channel.

    Pixels are 0..255, so `mean` and `std` are in units of pixel * scale; both hold one value for all channels or one
    for each, in the order in which the model takes them (`channels`).
    `resize`: () leaves the size alone, (n,) brings the shorter side to n pixels, (h, w) is exact. `crop`: () or (h, w).
    Raises NashcError for an unknown name, a wrong number of values, a value that is not finite, std 0 or scale 0.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0
    channels: str = "rgb"
    layout: str = "nchw"
    resize: tuple[int, ...] = ()
    crop: tuple[int, ...] = ()
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        _known("channels", self.channels, CHANNELS)
        _known("layout", self.layout, LAYOUTS)
        _known("interpolation", self.interpolation, INTERPOLATIONS)
        for key, kind in (("mean", float), ("std", float), ("resize", int), ("crop", int)):
            object.__setattr__(self, key, _numbers(key, getattr(self, key), kind))
        object.__setattr__(self, "scale", _numbers("scale", (self.scale,), float)[0])
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, CHANNELS[self.channels]):
                takes = "1 value" if self.channels == "gray" else f"1 value or {CHANNELS[self.channels]}"
                raise _wrong(key, f"{len(values)} values for {self.channels} images", f"give {takes}")
        if not all(self.std):
            raise _wrong("std", "a value is 0 and would be divided by", "give 1 where nothing is to change")
        if self.scale == 0:
            raise _wrong("scale", "0 makes all pixels equal", "1/255 brings pixels to 0..1, 1 leaves them")
        if not np.isfinite(self._tables).all():
            raise _wrong("std", "values become larger than float32 holds", "give a larger std, or a smaller scale")
        for key, size, lengths in (("resize", self.resize, (0, 1, 2)), ("crop", self.crop, (0, 2))):
            if len(size) not in lengths or not all(1 <= side <= MOST_SIDE for side in size):
                takes = "height,width" if key == "crop" else "a shorter side or height,width"
                raise _wrong(key, f"{_listed(size):.80} is no size", f"give {takes} of 1 to {MOST_SIDE} pixels")
        if len(self.resize) == 2 and any(c > r for c, r in zip(self.crop, self.resize, strict=False)):
            raise _wrong(
                "crop", f"{by(self.crop)} does not fit in resize {by(self.resize)}", "resize to a larger size first"
            )

    def metadata(self) -> dict[str, str]:
        """The fields as text by `nashc.preprocess.` keys, for metadata_props of an ONNX file."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            PREFIX + key: _listed(value) if isinstance(value, tuple) else str(value) for key, value in values.items()
        }

    @classmethod
    def from_metadata(cls, props: Mapping[str, str]) -> Preprocess | None:
        """What `metadata` wrote, or None where there is nothing of it; a key that is missing has its default.

        Raises NashcError for an unknown key under `nashc.preprocess.`, or for text that is no value of its field.
        """
        given = {key.removeprefix(PREFIX): text for key, text in props.items() if key.startswith(PREFIX)}
        for key in given:
            if key not in _PARSERS:
                raise NashcError(
                    f"unknown key '{key}'", where="metadata nashc.preprocess", hint=did_you_mean(key, _PARSERS)
                )
        return cls(**{key: _PARSERS[key](key, text) for key, text in given.items()}) if given else None

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The model's input for one image: uint8 [h,w], [h,w,1] or [h,w,3] RGB -> float32 [c,h,w] or [h,w,c].

        Gray is made of colours before the resize (ITU-R 601 luma, as Pillow), colours of gray by repeating it.
        Every value is computed in double precision and rounded once.
        Raises NashcError for another type or shape, and for an image smaller than the crop.
        """
        if (
            image.dtype != np.uint8
            or image.size == 0
            or image.ndim not in (2, 3)
            or (image.ndim == 3 and image.shape[2] not in (1, 3))
        ):
            raise NashcError(
                f"{image.dtype} of shape {list(image.shape)} is no image",
                hint="an image is uint8 [h,w], [h,w,1] or [h,w,3]",
            )
        pixels = self._cropped(self._resized(self._coloured(image)))
        planes = np.empty((pixels.shape[2], *pixels.shape[:2]), np.float32)
        for c, table in enumerate(self._tables):
            np.take(table, pixels[..., c], out=planes[c], mode="clip")
        return planes if self.layout == "nchw" else np.ascontiguousarray(planes.transpose(1, 2, 0))

    def __str__(self) -> str:
        steps = []
        if self.resize:
            steps.append(f"resized to {by(self.resize)}" if len(self.resize) == 2 else f"shorter side {self.resize[0]}")
        if self.crop:
            steps.append(f"cropped to {by(self.crop)}")
        formula = "pixel" if self.scale == 1 else f"pixel*{self.scale:.6g}"
        if set(self.mean) != {0.0}:
            formula = f"({formula} - {_short(self.mean)})"
        if set(self.std) != {1.0}:
            formula = f"{formula}/{_short(self.std)}"
        return ", ".join([*steps, formula, f"{self.channels} in {self.layout}"])

    def _coloured(self, image: np.ndarray) -> np.ndarray:
        """uint8 [h,w,c] with the model's channels."""
        gray = image.ndim == 2 or image.shape[2] == 1
        if self.channels == "gray":
            return (
                image.reshape(*image.shape[:2], 1)
                if gray
                else np.asarray(Image.fromarray(image).convert("L"))[..., None]
            )
        colours = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2) if gray else image
        return colours[..., ::-1] if self.channels == "bgr" else colours

    def _resized(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        size = self.resize
        if len(size) == 1:
            short = min(height, width)
            size = (size[0] * height // short, size[0] * width // short)
            if max(size) > MOST_SIDE:
                raise NashcError(f"an image of {height}x{width} would become {by(size)}", hint="resize to height,width")
        if size in ((), (height, width)):
            return pixels
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
        resized = np.asarray(image.resize((size[1], size[0]), INTERPOLATIONS[self.interpolation]))
        return resized.reshape(*size, -1)

    def _cropped(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        if not self.crop or self.crop == (height, width):
            return pixels
        if self.crop[0] > height or self.crop[1] > width:
            raise NashcError(
                f"an image of {height}x{width} is smaller than the crop of {by(self.crop)}",
                hint=f"give --resize {max(self.crop)}, or a larger one",
            )
        top, left = round((height - self.crop[0]) / 2), round((width - self.crop[1]) / 2)
        return pixels[top : top + self.crop[0], left : left + self.crop[1]]

    @cached_property
    def _tables(self) -> np.ndarray:
        """The model's value of each of the 256 pixel values, float32 [channel, 256]."""
        mean, std = (np.broadcast_to(values, CHANNELS[self.channels])[:, None] for values in (self.mean, self.std))
        with np.errstate(over="ignore", invalid="ignore"):
            table: np.ndarray = (np.arange(256.0) * self.scale - mean) / std
            return table.astype(np.float32)


def by(size: Sequence[int]) -> str:
    """224x224."""
    return "x".join(str(side) for side in size)


def _known(key: str, value: object, known: Sequence[str] | Mapping[str, Any]) -> None:
    if not isinstance(value, str) or value not in known:
        raise NashcError(f"unknown {key} '{value}'", where="preprocess", hint=did_you_mean(str(value), known))


def _numbers(key: str, values: Any, kind: type) -> tuple[Any, ...]:
    try:
        numbers = tuple(kind(value) if kind is float or isinstance(value, str) else index(value) for value in values)
        finite = all(math.isfinite(number) for number in numbers)
    except (TypeError, ValueError, OverflowError):
        finite = False
    if not finite:
        what = "whole numbers" if kind is int else "finite numbers"
        raise _wrong(key, f"{values!r:.80} are not {what}", "give numbers, separated by commas")
    return numbers


def _wrong(key: str, what: str, hint: str) -> NashcError:
    return NashcError(what, where=f"preprocess, {key}", hint=hint)


def _listed(values: Sequence[float]) -> str:
    return ",".join(repr(value) for value in values)


def _short(values: Sequence[float]) -> str:
    return f"{values[0]:.6g}" if len(values) == 1 else f"({', '.join(f'{value:.6g}' for value in values)})"


def _parse_tuple(kind: type) -> Callable[[str, str], tuple[Any, ...]]:
    def parse(key: str, text: str) -> tuple[Any, ...]:
        return _numbers(key, [part.strip() for part in text.split(",")] if text.strip() else (), kind)

    return parse


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "mean": _parse_tuple(float),
    "std": _parse_tuple(float),
    "scale": lambda key, text: _numbers(key, (text,), float)[0],
    "channels": lambda key, text: text,
    "layout": lambda key, text: text,
    "resize": _parse_tuple(int),
    "crop": _parse_tuple(int),
    "interpolation": lambda key, text: text,
}
