"""What a search found, as pareto.json has it: read without torch."""

from __future__ import annotations

import msgspec


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate: its score among all of them, and FPS at the least interval of the coarse stage."""

    number: int
    family: str
    architecture: str
    score: float
    coarse_fps: float
    macs: dict[str, int]
    pareto: bool


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
