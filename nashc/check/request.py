"""What is to be checked: the flags of `nashc check`, and the keys of nashc-check.toml, which are the same.

Accuracies, agreements and drops are written with a percent sign (90%, 0.5%) and kept as exact fractions: 899 of 1000
images are below 90 %, 900 are not. A number without the sign could mean two things and is an error.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec

from nashc.core.options import MOST_THREADS, seconds
from nashc.errors import NashcError, did_you_mean

NAME = "nashc-check.toml"
MOST_BYTES = 1 << 20


class Share(Fraction):
    """A part of a whole, between 0 and 1."""

    @classmethod
    def parse(cls, text: object) -> Share:
        """From 90% or 0.5%. Raises ValueError for anything else."""
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?%", text, re.ASCII) if isinstance(text, str) else None
        if found is None:
            hint = "write 90%"
            if re.fullmatch(r"[0-9]+(\.[0-9]+)?", str(text), re.ASCII):
                number = float(str(text))
                hint = f"write {text}%" + (f" or {number * 100:g}%" if number <= 1 else "")
            raise ValueError(f"'{text}' is no share with a percent sign; {hint}")
        share = cls(Fraction(found[1]) / 100)
        if share > 1:
            raise ValueError(f"'{text}' is more than 100%")
        return share


class Seconds(float):
    """A duration: a number, which is written as 30s, 2m or 1h in a file."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A check. None: not given. Gates have the names of GATES."""

    model: str = ""
    against: str | None = None
    shape: dict[str, tuple[int, ...]] = {}
    threads: int | None = None

    data: str | None = None
    labels: str | None = None
    split: str | None = None
    count: int | None = None
    seed: int = 0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    channels: str | None = None
    layout: str | None = None
    resize: tuple[int, ...] | None = None
    crop: tuple[int, ...] | None = None
    interpolation: str | None = None

    target: str | None = None
    design: str | None = None
    budget: Seconds | None = None

    min_accuracy: Share | None = None
    min_top5: Share | None = None
    max_drop: Share | None = None
    min_agreement: Share | None = None
    min_sqnr_db: float | None = None
    min_fps: float | None = None
    max_latency_ms: float | None = None
    max_lut: int | None = None
    max_dsp: int | None = None
    max_bram: int | None = None

    junit: str | None = None


KEYS = {field.encode_name: field.name for field in msgspec.structs.fields(Request)}
OF_DATA = (
    "labels", "split", "count", "mean", "std", "scale", "channels", "layout", "resize", "crop", "interpolation",
)  # fmt: skip
PATHS = ("model", "against", "data", "design", "junit")
PARSERS: dict[type, Callable[[Any], Any]] = {
    Share: Share.parse,
    Seconds: lambda value: Seconds(seconds(str(value))),
}


def requested(config: str | None, given: Mapping[str, Any]) -> Request:
    """What flags ask for, and for the rest the config file: without a model too, that of the current directory.

    given: fields of Request as the command line has them; None is a flag that is not there.
    """
    if config is None and given.get("model") is None:
        if not Path(NAME).is_file():
            raise NashcError(f"neither a model nor a {NAME} here", hint="give a model, or --config FILE")
        config = NAME
    request = Request() if config is None else read_request(config)
    flags = {name: value for name, value in given.items() if value not in (None, {})}
    return msgspec.structs.replace(request, **flags)


def read_request(path: str) -> Request:
    """The keys of a TOML file; paths in it are relative to its folder. Raises NashcError that names file and key."""
    table = _read(path)
    for key in table:
        if key not in KEYS:
            raise NashcError(f"unknown key '{key}'", where=path, hint=did_you_mean(key, KEYS))
    try:
        request = msgspec.convert(table, Request, dec_hook=_decode)
    except msgspec.ValidationError as error:
        what, _, key = str(error).partition(" - at ")
        raise NashcError(what, where=f"{path}, {key.strip('`').removeprefix('$.')}".removesuffix(", ")) from None
    except RecursionError:
        raise NashcError("nested too deeply", where=path) from None
    for key, value in table.items():
        if isinstance(value, str) and "\0" in value:
            raise NashcError("a NUL character", where=f"{path}, {key}")
    return _rooted(request, Path(path).parent)


def check_values(request: Request) -> None:
    """Raises NashcError for numbers that nothing can be measured with, and for what would change nothing."""
    lonely = {"data": OF_DATA, "target": ("budget",)}
    for there, names in lonely.items():
        unused = [name for name in names if getattr(request, name) is not None]
        if getattr(request, there) is None and unused:
            raise NashcError(
                f"no effect without --{there}: {', '.join(unused)}", hint=f"give --{there}, or leave it out"
            )
    if request.threads is not None and not 1 <= request.threads <= MOST_THREADS:
        raise NashcError(f"{request.threads} is out of range", where="threads", hint=f"give 1 to {MOST_THREADS}")
    for name, least in (("count", 1), ("seed", 0), ("max_lut", 0), ("max_dsp", 0), ("max_bram", 0)):
        value = getattr(request, name)
        if value is not None and not least <= value < 1 << 62:
            raise NashcError(f"{value} is out of range", where=name.replace("_", "-"), hint=f"give {least} or more")
    for name in ("min_fps", "max_latency_ms"):
        value = getattr(request, name)
        if value is not None and not 0 < value < 1e12:
            raise NashcError(f"{value} is no positive number", where=name.replace("_", "-"))
    if request.min_sqnr_db is not None and not -1e6 < request.min_sqnr_db < 1e6:
        raise NashcError(f"{request.min_sqnr_db} is no number of decibels", where="min-sqnr-db")


def _decode(kind: type, value: Any) -> Any:
    return PARSERS[kind](value)  # ValueError becomes a ValidationError with the key


def _read(path: str) -> dict[str, Any]:
    try:
        file = Path(path)
        if not file.is_file():
            raise NashcError("there is no such file", where=path, hint=f"give a {NAME}, or a model to check")
        if file.stat().st_size > MOST_BYTES:
            raise NashcError(f"larger than {MOST_BYTES >> 20} MiB", where=path)
        return tomllib.loads(file.read_bytes().decode("utf-8"))
    except OSError as error:
        raise NashcError(f"cannot be read: {error.strerror or error}", where=path) from None
    except UnicodeDecodeError:
        raise NashcError("not UTF-8 text", where=path) from None
    except tomllib.TOMLDecodeError as error:
        raise NashcError(f"broken TOML: {error}", where=path) from None
    except RecursionError:
        raise NashcError("nested too deeply", where=path) from None


def _rooted(request: Request, folder: Path) -> Request:
    """With paths as seen from here. A target is one where load_board takes it for one, labels unless name:REGEX."""
    given = [name for name in PATHS if getattr(request, name)]
    given += ["labels"] if request.labels and not request.labels.startswith("name:") else []
    given += ["target"] if request.target and ("/" in request.target or request.target.endswith(".toml")) else []
    return msgspec.structs.replace(request, **{name: str(folder / getattr(request, name)) for name in given})
