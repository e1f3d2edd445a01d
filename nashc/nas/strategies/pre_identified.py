"""Pre-identified: the proxy picks a pool, a supernet is trained for the pool alone, and the best of it is finished.

Fewer subnets share the weights, and none of them pulls a weight to where no good network wants it.
"""

from __future__ import annotations

from random import Random

from nashc.errors import NashcError
from nashc.nas.architecture import Architecture
from nashc.nas.strategies.stages import (
    PROBED,
    finished,
    identified,
    inherited,
    outcome,
    shared_accuracy,
    trained_supernet,
)
from nashc.nas.strategies.task import Ledger, Outcome, Strategy, Task

SUPERNET = 0.5
"""Share of the budget that the supernet is trained for."""
DRAWN = 2
"""Subnets of a step besides the largest and the smallest of the pool."""


def run(task: Task) -> Outcome:
    """Raises NashcError where less than two architectures are fast enough."""
    task.check()
    ledger = Ledger(task.budget)
    pool = identified(task, ledger)[: task.pool]
    if len(pool) < 2:
        raise NashcError("a pool of one architecture", where=task.space.name, hint="lower the limit of speed")
    by_size = sorted(pool, key=task.size)

    def draw(random: Random) -> list[Architecture]:
        between = by_size[1:-1]
        return [by_size[-1], *random.sample(between, min(DRAWN, len(between))), by_size[0]]

    source, conflict = trained_supernet(task, ledger, draw, pool[:PROBED], SUPERNET)
    with ledger.stage("evaluation"):
        best = max(pool, key=lambda architecture: shared_accuracy(task, ledger, source, architecture))
    net = inherited(task, ledger, source, best)
    return outcome(ledger, net, finished(task, ledger, net, trained=True), conflict)


STRATEGY = Strategy("pre-identified", "this project, after the NASH abstract", run)
