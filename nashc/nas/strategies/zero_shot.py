"""Zero-shot: the proxy picks, and what it picks is trained from scratch. No weights are shared, so none conflict."""

from __future__ import annotations

from nashc.nas.build import build
from nashc.nas.strategies.stages import finished, identified, outcome
from nashc.nas.strategies.task import Ledger, Outcome, Strategy, Task


def run(task: Task) -> Outcome:
    """Several finalists get equal shares of the budget; the validation images choose among them."""
    task.check()
    ledger = Ledger(task.budget)
    best = identified(task, ledger)[: task.finalists]
    trained = []
    for i, architecture in enumerate(best):
        net = build(architecture, task.space, task.seed)
        trained.append((finished(task, ledger, net, share=1 / (len(best) - i)), net))
    validation, net = max(trained, key=lambda found: found[0])
    return outcome(ledger, net, validation)


STRATEGY = Strategy("zero-shot", "AZ-NAS (arXiv 2403.19232) and others, with this project's proxies", run)
