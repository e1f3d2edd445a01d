"""Image files to pixels; the files are not trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from nashc.errors import NashcError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
"""Formats that Pillow decodes by itself; of the others some start programs."""
SUFFIXES = frozenset(".jpg .jpeg .jpe .png .bmp .webp .gif .tif .tiff .ppm .pgm".split())
EIGHT_BITS = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})
MOST_PIXELS = 64 << 20
"""Pixels of one image: 192 MiB when decoded."""


def decode(path: Path) -> np.ndarray:
    """uint8 [h,w] or [h,w,3] RGB of an image file; transparency is dropped, and of several frames the first is taken.

    Raises NashcError for a file that is missing, damaged, too large, or of more than 8 bits a channel.
    """
    with opened(path) as image:
        try:
            return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
        except MemoryError:
            raise NashcError("not enough memory", where=str(path), hint="use smaller images") from None
        except Exception as error:  # whatever a decoder makes of a damaged file
            raise _damaged(path, error) from None


def opened(path: Path) -> Image.Image:
    """An image whose header is read and whose size and mode are checked, not its pixels."""
    try:
        image = Image.open(path, formats=FORMATS)
    except FileNotFoundError:
        raise NashcError("there is no such file", where=str(path)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path, "") from None
    except Exception as error:  # whatever a decoder makes of a damaged file
        raise _damaged(path, error) from None
    width, height = image.size
    if width * height > MOST_PIXELS:
        image.close()
        raise _too_large(path, f" {height}x{width}")
    if image.mode not in EIGHT_BITS:
        image.close()
        raise NashcError(
            f"pixels of mode {image.mode} have more than 8 bits a channel",
            where=str(path),
            hint="convert the image to 8 bits, or give float arrays that are preprocessed",
        )
    return image


def _too_large(path: Path, size: str) -> NashcError:
    return NashcError(
        f"an image of{size or ' its size'} is too large",
        where=str(path),
        hint=f"at most {MOST_PIXELS} pixels are decoded",
    )


def _damaged(path: Path, error: Exception) -> NashcError:
    if isinstance(error, PermissionError):
        return NashcError("may not be read", where=str(path), hint="check its permissions")
    reason = str(error).replace(str(path), "the file").replace(repr(str(path)), "the file")
    return NashcError(
        f"is no image, or a damaged one: {reason or type(error).__name__}",
        where=str(path),
        hint=f"formats: {', '.join(FORMATS)}",
    )
