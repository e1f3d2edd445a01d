"""Search spaces of hybrid networks, as data: one TOML file a space.

A network is a stem, stages of blocks, an optional head and a classifier. Of each stage the width and the depth are
chosen, of each block the operator, the kernel and the expansion. Every axis is a list of values; the order of a list is
the order in which mutation moves.
"""

from __future__ import annotations

import tomllib
from dataclasses import fields
from importlib.resources import files
from math import prod
from pathlib import Path

import msgspec

from nashc.errors import NashcError, did_you_mean
from nashc.nas.recipe import Recipe

OPERATORS = {"c": "conv", "s": "shift", "a": "adder"}
"""Letters of architecture strings, and the operators they stand for."""
LETTERS = {name: letter for letter, name in OPERATORS.items()}
BLOCKS = ("mbconv", "basic")
LARGEST = 65_536
"""Of any number in a space file."""


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Blocks of one width; the first one has the stride. `excite`: with squeeze-excite."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    stride: int = 1
    kernels: tuple[int, ...] = (3,)
    expansions: tuple[int, ...] = (1,)
    excite: bool = False
    operators: tuple[str, ...] = tuple(LETTERS)


class Space(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """block: "mbconv" (expand 1x1, depthwise, project 1x1) or "basic" (two k x k layers, `expansions` is 1).

    `heads` are the widths of a last 1x1 layer; empty where there is none. `source` says where the values come from,
    `recipe` how its networks are trained.
    """

    name: str
    source: str
    block: str
    resolution: int
    classes: int
    stems: tuple[int, ...]
    stages: tuple[Stage, ...]
    heads: tuple[int, ...] = ()
    stem_stride: int = 1
    channels: int = 3
    recipe: Recipe = Recipe()

    @property
    def size(self) -> int:
        """Number of architectures."""
        count = len(self.stems) * max(1, len(self.heads))
        for stage in self.stages:
            block = len(stage.operators) * len(stage.kernels) * len(stage.expansions)
            count *= len(stage.widths) * sum(block**depth for depth in stage.depths)
        return count


def space_names() -> tuple[str, ...]:
    """The spaces that come with nashc."""
    return tuple(sorted(p.name.removesuffix(".toml") for p in _folder().iterdir() if p.name.endswith(".toml")))


def load_space(name: str | Path) -> Space:
    """A space by name, or from the user's own .toml file. Raises NashcError for an unknown name or a bad file."""
    own = str(name).endswith(".toml")
    if not own and name not in space_names():
        raise NashcError(f"unknown space '{name}'", hint=did_you_mean(str(name), space_names()))
    path = Path(name) if own else _folder() / f"{name}.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise NashcError(f"cannot be read: {reason}", where=str(name), hint="give a space or a .toml file") from None
    return parse_space(text, str(name))


def parse_space(text: str, where: str) -> Space:
    """The space that a TOML text describes; `where` names it in errors."""
    try:
        raw = tomllib.loads(text)
        space = msgspec.convert(raw, Space)
    except (ValueError, RecursionError) as error:  # also an integer of thousands of digits, a list thousands deep
        raise NashcError(f"no TOML: {error}", where=where) from None
    except msgspec.ValidationError as error:
        raise NashcError(str(error), where=where, hint="docs/nas.md lists the keys of a space") from None
    names = [field.name for field in fields(Recipe)]
    for key in raw.get("recipe", {}):
        if key not in names:
            raise NashcError(f"recipe.{key} is no key", where=where, hint=did_you_mean(key, names))
    check_space(space, where)
    return space


def check_space(space: Space, where: str) -> None:
    """Raises NashcError for values that are no space; `where` names it."""
    for problem in (*_problems(space), *(f"recipe: {text}" for text in space.recipe.problems())):
        raise NashcError(problem, where=where, hint="docs/nas.md lists the keys of a space")


def conv_only(space: Space) -> Space:
    """The same space with convolutions alone: the multiplication-only rival."""
    stages = tuple(msgspec.structs.replace(stage, operators=("conv",)) for stage in space.stages)
    return msgspec.structs.replace(space, name=f"{space.name}:conv", stages=stages)


def _folder() -> Path:
    return Path(str(files("nashc.nas") / "spaces"))


def _problems(space: Space) -> list[str]:
    found = []
    if space.block not in BLOCKS:
        found.append(f"block '{space.block}': {did_you_mean(space.block, BLOCKS)}")
    if not space.stages:
        found.append("no [[stages]]")
    numbers = {"resolution": space.resolution, "classes": space.classes, "channels": space.channels}
    axes: dict[str, tuple[int, ...]] = {n: (v,) for n, v in numbers.items()} | {"stems": space.stems}
    axes |= {"heads": space.heads} if space.heads else {}
    axes["stem_stride"] = (space.stem_stride,)
    for i, stage in enumerate(space.stages):
        axes |= {f"stages[{i}].{n}": getattr(stage, n) for n in ("widths", "depths", "kernels", "expansions")}
        axes[f"stages[{i}].stride"] = (stage.stride,)
        unknown = [name for name in stage.operators if name not in LETTERS]
        if not stage.operators or unknown:
            found.append(f"stages[{i}].operators {list(stage.operators)}: known are {', '.join(LETTERS)}")
        if any(kernel % 2 == 0 for kernel in stage.kernels):
            found.append(f"stages[{i}].kernels {list(stage.kernels)}: must be odd")
        if space.block == "basic" and stage.expansions != (1,):
            found.append(f"stages[{i}].expansions {list(stage.expansions)}: basic blocks have none")
        if space.block == "basic" and stage.excite:
            found.append(f"stages[{i}].excite: basic blocks have no squeeze-excite")
        if len(set(stage.operators)) != len(stage.operators):
            found.append(f"stages[{i}].operators {list(stage.operators)}: a value comes twice")
    for name, values in axes.items():
        if not values or min(values) < 1 or max(values) > LARGEST:
            found.append(f"{name} {list(values)}: must be 1 to {LARGEST}")
        if len(set(values)) != len(values):
            found.append(f"{name} {list(values)}: a value comes twice")
    if not found and prod([space.stem_stride, *(s.stride for s in space.stages)]) > space.resolution:
        found.append(f"the strides leave nothing of {space.resolution} pixels")
    return found
