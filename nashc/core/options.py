"""What a user asks of a search: objective, limits, budget."""

from __future__ import annotations

from dataclasses import dataclass

OBJECTIVES = ("fps", "latency", "energy", "edp")
BASELINES = ("conv-only", "conv-only-dsp", "nasa-f", "single-chunk")


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a compile. None means: as the board allows.

    batch None is `auto` (the best of 1, 2, 4, 8, 16 within max_latency_ms); budget_seconds None runs until the answer
    is proven or the default limit of refinements is reached.
    """

    objective: str = "fps"
    batch: int | None = None
    max_latency_ms: float | None = None
    max_lut: int | None = None
    max_dsp: int | None = None
    max_bram36: int | None = None
    clock_mhz: float | None = None
    budget_seconds: float | None = None
    memory_plan: bool = True
