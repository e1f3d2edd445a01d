"""What a search found, as pareto.json has it: read without torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Literal

import msgspec

from nashc.nas.recipe import Recipe

Family = Literal["hybrid", "conv"]
"""Networks of the whole space, and of its convolutions alone."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate: its score among all of them, and FPS at the least interval of the coarse stage."""

    number: int
    family: Family
    architecture: str
    score: float
    coarse_fps: float
    macs: dict[str, int]
    pareto: bool


class Training(msgspec.Struct, frozen=True):
    """What an accuracy was reached with: the recipe, so many images, and the architecture of the teacher or ""."""

    recipe: Recipe
    images: int
    teacher: str = ""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate with the design that was searched for it, in `folder` below the run's.

    `dsp_fps`: of a network of convolutions, on DSPs alone; `rival`: index of its rival among the pairs, or -1.
    Accuracies are those of `nashc train`, or None.
    """

    candidate: int
    folder: str
    fps: float
    latency_ms: float
    gops: float
    gap: float | None
    dsp_fps: float | None = None
    rival: int = -1
    accuracy: float | None = None
    integer_accuracy: float | None = None
    training: Training | None = None

    @property
    def fastest(self) -> float:
        """FPS of its design, or of that on DSPs alone where the search found that one to be faster: it is a design of
        the larger space, too."""
        return max(self.fps, self.dsp_fps or 0.0)


def trained_apart(pairs: Iterable[Pair]) -> str:
    """In what the trainings of pairs differ, for their accuracies do not compare then; "" where they do."""
    trained = [p for p in pairs if p.accuracy is not None]
    known = [p.training for p in trained if p.training is not None]
    if 0 < len(known) < len(trained):
        return "accuracies may not compare: how some of the networks were trained is not known"
    values = [asdict(t.recipe) | {"images": t.images, "teacher": t.teacher} for t in known]
    differ = [n for n in values[0] if n != "seed" and len({v[n] for v in values}) > 1] if values else []
    return f"accuracies do not compare: the networks were trained with different {', '.join(differ)}" if differ else ""
