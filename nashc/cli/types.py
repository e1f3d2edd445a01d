"""Types of the values on the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from nashc.core.options import seconds
from nashc.errors import NashcError, did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    ParamType = click.ParamType[Any]  # click before 8.4 has no type argument
else:
    ParamType = click.ParamType


class Name(ParamType):
    """One of some known names, with a did-you-mean."""

    name = "name"

    def __init__(self, kind: str, known: Iterable[str]) -> None:
        self.kind, self.known = kind, tuple(known)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "|".join(self.known)

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.known:
            raise NashcError(f"unknown {self.kind} '{value}'", hint=did_you_mean(value, self.known))
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return items(self.known, incomplete)


class Shape(ParamType):
    """NAME=1,3,224,224."""

    name = "shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, _, sizes = value.rpartition("=")
        if not name or not re.fullmatch(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", sizes, re.ASCII):
            self.fail(f"'{value}' is no shape; write NAME=1,3,224,224", param, ctx)
        return name, tuple(int(size) for size in sizes.split(","))


class Batch(ParamType):
    """A number of images, or auto."""

    name = "batch"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto":
            return None
        if not re.fullmatch(r"[0-9]{1,3}", value, re.ASCII) or not 1 <= int(value) <= 256:
            self.fail(f"'{value}' is neither 'auto' nor a number from 1 to 256", param, ctx)
        return int(value)


class Positive(ParamType):
    """A positive number."""

    name = "number"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < 1e12:
            self.fail(f"'{value}' is not a positive number", param, ctx)
        return number


class Duration(ParamType):
    """Seconds, from 30s, 2m or 1h."""

    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class File(ParamType):
    """A path that can stand in a JSON file: its name is UTF-8."""

    name = "path"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value or "\0" in value:
            self.fail("an empty path", param, ctx)
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise NashcError("the path is not UTF-8", where=value, hint="rename the file")
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


class NameOrFile(File):
    """A path, or a name of those that come with nashc: what is to be looked up is up to the library."""

    def __init__(self, known: Callable[[], Iterable[str]]) -> None:
        self.known = known

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        files = super().shell_complete(ctx, param, incomplete)
        return [*files, *items(self.known(), incomplete)]  # in this order: bash forgets names at a file


def board_names() -> tuple[str, ...]:
    from nashc.board import board_names as names

    return names()


def space_names() -> tuple[str, ...]:
    from nashc.nas.space import space_names as names

    return names()


BOARD, SPACE = NameOrFile(board_names), NameOrFile(space_names)
SEED = click.IntRange(0, 2**32 - 1)

Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def among(*names: str) -> Completer:
    """What a shell completes an option to that takes these names; whether a name is one the library says."""
    return lambda ctx, param, incomplete: items(names, incomplete)


def items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Those of the names that go on from what is typed."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class Numbers(ParamType):
    """Numbers separated by commas."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            return tuple(self.kind(part) for part in value.split(","))
        except ValueError:
            what = "whole numbers" if self.kind is int else "numbers"
            self.fail(f"'{value}' are no {what} separated by commas", param, ctx)


class Percent(ParamType):
    """90% or 0.5%, as an exact share; a number without the sign is an error."""

    name = "percent"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "P%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from nashc.check.request import Share

        try:
            return Share.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
