"""The stages that strategies are made of: candidates, their ranking, the supernet, and the final training."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import astuple, replace
from random import Random

import numpy as np
from torch import Tensor

from nashc.errors import NashcError
from nashc.nas.architecture import Architecture, sample
from nashc.nas.build import HybridNet
from nashc.nas.evolve import child_of
from nashc.nas.job import SCORED_ON
from nashc.nas.proxies import PROXIES, Candidate, combined
from nashc.nas.proxies.candidate import Terms
from nashc.nas.strategies.sandwich import Draw, SandwichTrainer
from nashc.nas.strategies.task import FORWARD, Ledger, Outcome, Task
from nashc.nas.supernet import Conflict, Supernet, calibrate, extract, gradient_conflict, supernet
from nashc.nas.train import Trainer, accuracy

PARENTS, FOUNDERS = 16, 0.5
"""The best so many are parents, once this share of all candidates was drawn at random."""
ATTEMPTS = 1000
CALIBRATED_ON = 4
"""Batches for the BN statistics of a subnet."""
REHEARSALS = 64
"""Draws from which the mean work of a supernet's step is known before it begins."""
PROBED, PROBES = 8, 4
"""Subnets that the gradient conflict is measured on, and how often during the training."""
FINISH_RATE = 0.3
"""Of the learning rate, where the weights are trained already."""


def new_candidate(
    task: Task, ranked: Sequence[Architecture], seen: Collection[str], evolved: bool, random: Random
) -> Architecture | None:
    """One that is fast enough and was not seen; evolved, a child of the best. None where none was found."""
    if task.candidates:
        left = [a for a in task.candidates if str(a) not in seen and task.fast(a)]
        return random.choice(left) if left else None
    for _ in range(ATTEMPTS):
        if evolved and ranked:
            one, other = random.choices(ranked[:PARENTS], k=2)
            child = child_of(one, other, task.space, random)
        else:
            child = sample(task.space, random)
        if str(child) not in seen and task.fast(child):
            return child
    return None


def identified(task: Task, ledger: Ledger) -> list[Architecture]:
    """Architectures of the space, the best by the proxy first; half are drawn at random, half are evolved from those.

    Raises NashcError where none is fast enough.
    """
    proxy, random = PROXIES.get(task.proxy), Random(f"{task.seed} proxy")
    index = np.random.default_rng(task.seed).permutation(len(task.train))[:SCORED_ON]
    x, labels = task.train.batch(index), task.train.labels[index]
    found: list[Architecture] = []
    terms: list[Terms] = []
    with ledger.stage("proxy"):
        while len(found) < task.scored:
            ranked = _ranked(found, combined(terms))
            evolved = len(found) >= FOUNDERS * task.scored
            made = new_candidate(task, ranked, {str(a) for a in found}, evolved, random)
            if made is None:
                break
            found.append(made)
            terms.append(proxy.terms(Candidate(made, task.space, x, labels, task.seed)))
            ledger.trained(len(x), task.size(made))
    if not found:
        raise _too_slow(task)
    return _ranked(found, combined(terms))


def trained_supernet(
    task: Task, ledger: Ledger, draw: Draw, probe: Sequence[Architecture], share: float
) -> tuple[Supernet, Conflict]:
    """A supernet that was trained for that share of the budget, and the mean conflict of the probes on its way."""
    with ledger.stage("supernet"):
        net = supernet(task.space, task.seed)
        rehearsed = [draw(Random(f"{task.seed} rehearsal {i}")) for i in range(REHEARSALS)]
        work = sum(task.size(a) for drawn in rehearsed for a in drawn) / REHEARSALS
        steps = max(1, int(share * task.budget / (task.recipe.batch * work)))
        trainer = SandwichTrainer(net, task.train, replace(task.recipe, seed=task.seed), draw, steps)
    conflicts = []
    for i in range(PROBES):
        with ledger.stage("supernet"):
            trainer.run(until=steps * (i + 1) // PROBES)
        with ledger.stage("conflict"):
            index = np.random.default_rng([task.seed, i]).permutation(len(task.train))[: task.recipe.batch]
            conflicts.append(gradient_conflict(net, probe, task.train.batch(index), task.train.labels[index]))
    ledger.trained(task.recipe.batch, trainer.work)
    return net, Conflict(*(float(np.mean(values)) for values in zip(*map(astuple, conflicts), strict=True)))


def inherited(task: Task, ledger: Ledger, source: Supernet, architecture: Architecture) -> HybridNet:
    """The network with the supernet's weights, its BN statistics estimated on a few batches."""
    ledger.classified(task.recipe.batch * CALIBRATED_ON, task.size(architecture))
    return calibrate(extract(source, architecture), _batches(task))


def shared_accuracy(task: Task, ledger: Ledger, source: Supernet, architecture: Architecture) -> float:
    """On the validation images, with the supernet's weights."""
    ledger.classified(len(task.validation), task.size(architecture))
    return accuracy(inherited(task, ledger, source, architecture), task.validation)


def evolved_accuracy(task: Task, ledger: Ledger, source: Supernet, share: float) -> Architecture:
    """The best by `shared_accuracy` of as many as that share of the budget pays for; half at random, half evolved."""
    random = Random(f"{task.seed} evolution")
    end, begin = ledger.spent + share * task.budget, ledger.spent
    found: list[Architecture] = []
    scores: list[float] = []
    with ledger.stage("evaluation"):
        while not found or ledger.spent < end:
            evolved = ledger.spent - begin >= FOUNDERS * (end - begin)
            ranked = _ranked(found, np.array(scores))
            made = new_candidate(task, ranked, {str(a) for a in found}, evolved, random)
            if made is None:
                break
            found.append(made)
            scores.append(shared_accuracy(task, ledger, source, made))
    if not found:
        raise _too_slow(task)
    return _ranked(found, np.array(scores))[0]


def finished(task: Task, ledger: Ledger, net: HybridNet, *, share: float = 1.0, trained: bool = False) -> float:
    """Train the network for that share of what is left of the budget, where its weights are trained already at a lower
    rate and with adder layers from the first step on; returns its accuracy on the validation images.

    Raises NashcError where that is less than one step.
    """
    cost = task.size(net.architecture)
    left = ledger.left - len(task.validation) * cost * FORWARD
    steps = int(share * left / (cost * task.recipe.batch))
    if steps < 1:
        raise NashcError(
            f"nothing is left of {task.budget:.3g} image-MACs for the final training",
            where=str(net.architecture), hint="give a larger budget, or score and evaluate fewer architectures",
        )  # fmt: skip
    with ledger.stage("final"):
        recipe = replace(task.recipe, seed=task.seed)
        if trained:
            recipe = replace(recipe, rate=FINISH_RATE * recipe.rate, as_conv=0.0)
        trainer = Trainer(net, task.train, recipe)
        trainer.steps = steps  # what the budget pays for, which is no whole number of epochs
        trainer.run()
        found = accuracy(net, task.validation)
    ledger.trained(steps * task.recipe.batch, cost)
    ledger.classified(len(task.validation), cost)
    return found


def outcome(ledger: Ledger, net: HybridNet, validation: float, conflict: Conflict | None = None) -> Outcome:
    return Outcome(net.architecture, net.eval(), validation, dict(ledger.cpu_seconds), ledger.spent, conflict)


def fast_draws(task: Task, count: int) -> list[Architecture]:
    """Different architectures at random that are fast enough; fewer where there are no more."""
    random, found = Random(f"{task.seed} draws"), list[Architecture]()
    while len(found) < count:
        made = new_candidate(task, (), {str(a) for a in found}, False, random)
        if made is None:
            break
        found.append(made)
    return found


def _ranked(found: Sequence[Architecture], scores: np.ndarray) -> list[Architecture]:
    return [found[i] for i in np.argsort(-scores, kind="stable")]


def _batches(task: Task) -> Iterator[Tensor]:
    order = np.random.default_rng([task.seed, 2]).permutation(len(task.train))
    for i in range(CALIBRATED_ON):
        index = order[i * task.recipe.batch : (i + 1) * task.recipe.batch]
        if len(index) > 1:
            yield task.train.batch(index)


def _too_slow(task: Task) -> NashcError:
    return NashcError(
        f"no architecture of '{task.space.name}' reaches {task.min_fps:g} FPS",
        hint="lower the limit, or search a larger space",
    )
