"""Whether preprocessed images fit the model's input, and which flags make them fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nashc.data.preprocess import CHANNELS, Preprocess, by
from nashc.errors import NashcError

Shape = Sequence[int | None]
"""The model's input, the batch first; None where the model leaves a side open."""
FLOATS = "give float arrays that are preprocessed (.npy or .npz)"


def fitted(preprocess: Preprocess, shape: Shape) -> Preprocess:
    """With neither resize nor crop: the one that resizes straight to the model's input, where that is known."""
    _, height, width = _sides(preprocess, shape)
    if preprocess.resize or preprocess.crop or height is None or width is None:
        return preprocess
    return replace(preprocess, resize=(height, width))


def flags(preprocess: Preprocess, shape: Shape) -> str:
    """The flags with which any image fits."""
    _, height, width = _sides(preprocess, shape)
    if height is None or width is None:
        return "give --resize height,width"
    return f"give --resize {height},{width}, or --resize {max(height, width) * 8 // 7} --crop {height},{width}"


def check_fit(preprocess: Preprocess, shape: Shape, where: str) -> None:
    """Raises NashcError for what cannot fit whatever the images are."""
    if len(shape) != 4:
        raise NashcError(f"the model's input has {len(shape)} dimensions, and images make 4", where=where, hint=FLOATS)
    channels, *model = _sides(preprocess, shape)
    wanted = CHANNELS[preprocess.channels]
    if channels not in (None, wanted):
        other = "nhwc" if preprocess.layout == "nchw" else "nchw"
        hint = FLOATS
        if _sides(replace(preprocess, layout=other), shape)[0] == wanted:
            hint = f"give --layout {other}"
        elif channels in CHANNELS.values():
            hint = f"give --channels {'gray' if channels == 1 else 'rgb'}"
        what = f"the model's input has {channels} channels in {preprocess.layout}"
        raise NashcError(f"{what}, and {preprocess.channels} images have {wanted}", where=where, hint=hint)
    size = preprocess.crop or (preprocess.resize if len(preprocess.resize) == 2 else ())
    if size and any(want not in (None, side) for side, want in zip(size, model, strict=True)):
        takes = "x".join("?" if side is None else str(side) for side in model)
        raise NashcError(
            f"images are preprocessed to {by(size)}, and the model takes {takes}",
            where=where,
            hint=flags(preprocess, shape),
        )


def _sides(preprocess: Preprocess, shape: Shape) -> tuple[int | None, int | None, int | None]:
    """Channels, height and width of the model's input."""
    _, first, second, third = shape
    return (first, second, third) if preprocess.layout == "nchw" else (third, first, second)
