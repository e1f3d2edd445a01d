"""What a user asks of a search: objective, limits, budget."""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST_THREADS = 1024
"""Of onnxruntime."""
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


def seconds(text: str) -> float:
    """30s, 2m, 1h or a number of seconds. Raises ValueError for anything else."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(s|m|h)?", text, re.ASCII)
    number = float(found[1]) * {"m": 60, "h": 3600}.get(found[2] or "", 1) if found else 0
    if number <= 0:
        raise ValueError(f"'{text}' is no duration; write 30s, 2m or 1h")
    return number
