"""NASA-F: a supernet for the whole space, then an evolution by the validation accuracy of the shared weights.

Its published code evolves by test accuracy; here the test images are not seen.
"""

from __future__ import annotations

from random import Random

from nashc.errors import NashcError
from nashc.nas.architecture import Architecture, sample
from nashc.nas.strategies.stages import (
    PROBED,
    evolved_accuracy,
    fast_draws,
    finished,
    inherited,
    outcome,
    trained_supernet,
)
from nashc.nas.strategies.task import Ledger, Outcome, Strategy, Task
from nashc.nas.supernet import extreme

SUPERNET, EVALUATION = 0.5, 0.1
"""Shares of the budget."""
DRAWN = 2
"""Subnets of a step besides the largest and the smallest."""


def run(task: Task) -> Outcome:
    """Raises NashcError where less than two architectures are fast enough."""
    task.check()
    ledger = Ledger(task.budget)
    probe = fast_draws(task, PROBED)
    if len(probe) < 2:
        raise NashcError(
            f"less than two architectures of '{task.space.name}' reach {task.min_fps:g} FPS", hint="lower the limit"
        )
    by_size = sorted(task.candidates, key=task.size)

    def draw(random: Random) -> list[Architecture]:
        if by_size:
            return [by_size[-1], *random.choices(by_size, k=DRAWN), by_size[0]]
        largest, smallest = (
            extreme(task.space, lambda stage: random.choice(stage.operators), largest=end) for end in (True, False)
        )
        return [largest, *(sample(task.space, random) for _ in range(DRAWN)), smallest]

    source, conflict = trained_supernet(task, ledger, draw, probe, SUPERNET)
    best = evolved_accuracy(task, ledger, source, EVALUATION)
    net = inherited(task, ledger, source, best)
    return outcome(ledger, net, finished(task, ledger, net, trained=True), conflict)


STRATEGY = Strategy("nasa-f", "NASA-F, as FACTS.md and its public code say", run)
