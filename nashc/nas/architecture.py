"""One network of a space: its short string, sampling, mutation and crossover.

    16/16:c3e1/24:s5e6,a3e4/.../1792     stem / stages (width : blocks) / head
    16/16:c3,a3/32:s3/64:c3              basic blocks have no expansion, and this space no head

A block is its operator (c conv, s shift, a adder), its kernel and its expansion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from nashc.errors import NashcError
from nashc.nas.space import LETTERS, OPERATORS, Space, Stage

BLOCK = re.compile(r"([a-z])([0-9]{1,5})(?:e([0-9]{1,5}))?", re.ASCII)
WHOLE = re.compile(r"[0-9]{1,5}", re.ASCII)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """`operator` is "conv", "shift" or "adder"."""

    operator: str
    kernel: int
    expansion: int = 1


@dataclass(frozen=True, slots=True, order=True)
class StageChoice:
    width: int
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, order=True)
class Architecture:
    """`head` is 0 where the space has none. str() is the short string."""

    stem: int
    stages: tuple[StageChoice, ...]
    head: int = 0

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(block for stage in self.stages for block in stage.blocks)

    def __str__(self) -> str:
        expanded = any(block.expansion > 1 for block in self.blocks)
        parts = [str(self.stem)]
        for stage in self.stages:
            blocks = (
                f"{LETTERS[b.operator]}{b.kernel}" + (f"e{b.expansion}" if expanded else "") for b in stage.blocks
            )
            parts.append(f"{stage.width}:{','.join(blocks)}")
        return "/".join(parts + ([str(self.head)] if self.head else []))


def parse(text: str, space: Space) -> Architecture:
    """The architecture of a short string. Raises NashcError where it is none, or none of the space."""
    parts = text.strip().split("/")
    if len(parts) != 1 + len(space.stages) + bool(space.heads):
        heads = ", head" if space.heads else ""
        raise NashcError(
            f"{len(parts)} parts", where=text, hint=f"write stem, {len(space.stages)} stages{heads}, with / between"
        )
    stages = []
    for part in parts[1 : 1 + len(space.stages)]:
        width, _, blocks = part.partition(":")
        stages.append(StageChoice(_number(width, text), tuple(_block(b, text) for b in blocks.split(","))))
    found = Architecture(_number(parts[0], text), tuple(stages), _number(parts[-1], text) if space.heads else 0)
    for problem in problems(found, space):
        raise NashcError(problem, where=text, hint=f"values of the space '{space.name}' are needed")
    return found


def problems(architecture: Architecture, space: Space) -> list[str]:
    """What keeps an architecture out of a space."""
    found = []

    def check(what: str, value: object, known: Sequence[object]) -> None:
        if value not in known:
            found.append(f"{what} {value} is none of {', '.join(map(str, known))}")

    check("stem", architecture.stem, space.stems)
    check("head", architecture.head, space.heads or (0,))
    if len(architecture.stages) != len(space.stages):
        return [f"{len(architecture.stages)} stages, the space has {len(space.stages)}"]
    for i, (choice, stage) in enumerate(zip(architecture.stages, space.stages, strict=True)):
        check(f"stage {i}: width", choice.width, stage.widths)
        check(f"stage {i}: depth", len(choice.blocks), stage.depths)
        for block in choice.blocks:
            check(f"stage {i}: operator", block.operator, stage.operators)
            check(f"stage {i}: kernel", block.kernel, stage.kernels)
            check(f"stage {i}: expansion", block.expansion, stage.expansions)
    return found


def sample(space: Space, random: Random) -> Architecture:
    """Every axis drawn alone, each value as likely as the others."""
    stages = (
        StageChoice(random.choice(s.widths), tuple(_any_block(s, random) for _ in range(random.choice(s.depths))))
        for s in space.stages
    )
    return Architecture(random.choice(space.stems), tuple(stages), random.choice(space.heads or (0,)))


def mutate(architecture: Architecture, space: Space, random: Random, rate: float = 0.1) -> Architecture:
    """Every axis is drawn anew with probability `rate`, sizes by a step up or down; at least one axis changes."""
    if space.size == 1:
        return architecture
    while True:
        stages = tuple(_mutated(c, s, random, rate) for c, s in zip(architecture.stages, space.stages, strict=True))
        made = Architecture(
            _moved(architecture.stem, space.stems, random, rate),
            stages,
            _moved(architecture.head, space.heads or (0,), random, rate),
        )
        if made != architecture:
            return made


def crossover(one: Architecture, other: Architecture, random: Random) -> Architecture:
    """Each stage from one of the parents as a whole, as are stem and head."""
    stages = tuple(random.choice(pair) for pair in zip(one.stages, other.stages, strict=True))
    return Architecture(random.choice((one.stem, other.stem)), stages, random.choice((one.head, other.head)))


def with_operator(architecture: Architecture, operator: str) -> Architecture:
    """The same network with one operator in all its blocks."""
    stages = tuple(
        replace(stage, blocks=tuple(replace(block, operator=operator) for block in stage.blocks))
        for stage in architecture.stages
    )
    return replace(architecture, stages=stages)


def _mutated(choice: StageChoice, stage: Stage, random: Random, rate: float) -> StageChoice:
    depth = _moved(len(choice.blocks), stage.depths, random, rate)
    blocks = [
        Block(
            random.choice(stage.operators) if random.random() < rate else block.operator,
            random.choice(stage.kernels) if random.random() < rate else block.kernel,
            _moved(block.expansion, stage.expansions, random, rate),
        )
        for block in choice.blocks[:depth]
    ]
    while len(blocks) < depth:
        blocks.append(_any_block(stage, random))
    return StageChoice(_moved(choice.width, stage.widths, random, rate), tuple(blocks))


def _moved(value: int, values: Sequence[int], random: Random, rate: float) -> int:
    """With probability `rate` a neighbour in the list of values."""
    if random.random() >= rate or len(values) == 1:
        return value
    at = values.index(value)
    return random.choice([values[i] for i in (at - 1, at + 1) if 0 <= i < len(values)])


def _any_block(stage: Stage, random: Random) -> Block:
    return Block(random.choice(stage.operators), random.choice(stage.kernels), random.choice(stage.expansions))


def _block(text: str, where: str) -> Block:
    found = BLOCK.fullmatch(text)
    if found is None or found[1] not in OPERATORS:
        letters = ", ".join(f"{letter} ({name})" for letter, name in OPERATORS.items())
        raise NashcError(f"'{text}' is no block", where=where, hint=f"write operator, kernel, expansion: {letters}")
    return Block(OPERATORS[found[1]], int(found[2]), int(found[3] or 1))


def _number(text: str, where: str) -> int:
    if not WHOLE.fullmatch(text):
        raise NashcError(f"'{text}' is no width", where=where, hint="a whole number belongs there")
    return int(text)
