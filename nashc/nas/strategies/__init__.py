"""Search strategies at equal budget: from a space and labelled images to one trained network. One file a strategy."""

from __future__ import annotations

from nashc.nas.strategies import nasa, nasa_f, pre_identified, zero_shot
from nashc.nas.strategies.task import STRATEGIES, Outcome, Strategy, Task

for _module in (zero_shot, pre_identified, nasa_f, nasa):
    STRATEGIES.add(_module.STRATEGY.name, _module.STRATEGY)

__all__ = ["STRATEGIES", "Outcome", "Strategy", "Task"]
