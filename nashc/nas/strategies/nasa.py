"""NASA: a differentiable search after progressive pretraining, and the network that it derives, trained from scratch.

The paths of convolutions are trained first, then those of adders, then all, each block taking one of them at random in
each step. In the search itself a block is the sum of a few paths, drawn by Gumbel noise on its architecture parameters;
steps for the weights, on training images, and for the parameters, on validation images, take turns (FBNet, arXiv
1812.03443). Speed is a limit here, for all strategies alike, and no term of the loss.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nashc.errors import NashcError
from nashc.nas.architecture import Architecture, Block, StageChoice, problems, with_operator
from nashc.nas.build import build, seeded
from nashc.nas.recipe import Recipe
from nashc.nas.space import LETTERS
from nashc.nas.strategies.mixture import Mix, MixedNet, Place
from nashc.nas.strategies.stages import finished, outcome
from nashc.nas.strategies.task import Ledger, Outcome, Strategy, Task
from nashc.nas.train import Images, Trainer

PHASES = {"conv": ("conv",), "adder": ("adder",), "mix": tuple(LETTERS)}
"""Of the pretraining: the operators whose paths are trained."""
PRETRAINING, SEARCH = 0.25, 0.25
"""Shares of the budget, the first one in equal parts for its phases."""
PATHS = 2
"""Of a block, that a step of the search runs."""
HOT, COLD = 5.0, 0.5
"""Temperature of the Gumbel softmax at the beginning and at the end."""
ARCHITECTURE_RATE, ARCHITECTURE_DECAY = 0.01, 5e-4
"""Of Adam, for the architecture parameters."""
DRAWN = 4096
"""Architectures drawn by their probabilities where the most probable one is too slow."""


class MixTrainer(Trainer):
    """Trains the weights of a mixture, one random path a block, or a sum of them drawn by `logits`, for so many steps.

    `work`: MAC-equivalents of all that was trained so far, for one image.
    """

    def __init__(self, net: MixedNet, images: Images, recipe: Recipe, steps: int) -> None:
        super().__init__(net, images, recipe)
        self.mixed, self.steps, self.work = net, steps, 0
        self.paths = [list(range(len(place.choices))) for place in net.places]
        self.logits: list[Tensor] | None = None
        self.generator = torch.Generator().manual_seed(recipe.seed)

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        mix = self.mix()
        self.work += self.mixed.size(mix)
        return functional.cross_entropy(self.mixed(x, mix), labels, label_smoothing=self.recipe.label_smoothing)

    def mix(self) -> Mix:
        if self.logits is not None:
            heat = HOT * (COLD / HOT) ** (self.step / max(1, self.steps - 1))
            return [gumbel(logits, heat, self.generator) for logits in self.logits]
        drawn = [int(torch.randint(len(paths), (), generator=self.generator)) for paths in self.paths]
        return [{paths[i]: 1.0} for paths, i in zip(self.paths, drawn, strict=True)]


def gumbel(logits: Tensor, temperature: float, generator: torch.Generator) -> dict[int, Tensor | float]:
    """The PATHS likeliest paths of a Gumbel softmax, with weights that sum to 1 and lead back to the logits."""
    noise = -torch.empty_like(logits).exponential_(generator=generator).clamp_min(1e-20).log()
    shares = ((logits + noise) / temperature).softmax(0)
    kept = shares.detach().topk(min(PATHS, len(shares))).indices.tolist()
    total = shares[kept].sum()
    return {i: shares[i] / total for i in sorted(kept)}


def run(task: Task) -> Outcome:
    """Raises NashcError for a list of candidates, which this cannot search, and where nothing is fast enough."""
    task.check()
    if task.candidates:
        raise NashcError("nasa searches a whole space, not a list of candidates", hint="give a space")
    ledger = Ledger(task.budget)
    with ledger.stage("pretraining"):
        net = seeded(lambda: MixedNet(backbone(task), task.space), task.seed)
        for phase in PHASES:
            _pretrain(task, ledger, net, phase)
    with ledger.stage("search"):
        logits = _search(task, ledger, net)
    chosen = derived(task, net, logits)
    made = build(chosen, task.space, task.seed)
    return outcome(ledger, made, finished(task, ledger, made))


def backbone(task: Task) -> Architecture:
    """The widest and deepest network that is fast enough with some operator in all its blocks: the next smaller values
    of all axes are tried until one is. Raises NashcError where none is."""
    axes = [task.space.stems, *(axis for stage in task.space.stages for axis in (stage.widths, stage.depths))]
    for level in range(max(map(len, axes))):

        def pick(values: tuple[int, ...], down: int = level) -> int:
            return sorted(values)[max(0, len(values) - 1 - down)]

        stages = []
        for stage in task.space.stages:
            block = Block(stage.operators[0], min(stage.kernels), min(stage.expansions))
            stages.append(StageChoice(pick(stage.widths), (block,) * pick(stage.depths)))
        found = Architecture(pick(task.space.stems), tuple(stages), pick(task.space.heads or (0,)))
        rivals = [found, *(with_operator(found, name) for name in LETTERS)]
        if any(task.fast(rival) for rival in rivals if not problems(rival, task.space)):
            return found
    raise NashcError(f"no backbone of '{task.space.name}' reaches {task.min_fps:g} FPS", hint="lower the limit")


def derived(task: Task, net: MixedNet, logits: list[Tensor]) -> Architecture:
    """The most probable architecture that is fast enough, of the likeliest and many drawn ones."""
    shares = [values.detach().softmax(0).double().numpy() for values in logits]
    rng = np.random.default_rng(task.seed)
    drawn = np.column_stack([rng.choice(len(p), DRAWN, p=p / p.sum()) for p in shares])
    drawn = np.unique(np.vstack([[int(p.argmax()) for p in shares], drawn]), axis=0)
    likelihood = sum(np.log(p)[drawn[:, i]] for i, p in enumerate(shares))
    for i in np.argsort(-likelihood, kind="stable"):
        found = net.architecture(drawn[i].tolist())
        if not problems(found, task.space) and task.fast(found):
            return found
    raise NashcError(
        f"of {len(drawn)} architectures drawn none reaches {task.min_fps:g} FPS", where="nasa", hint="lower the limit"
    )


def _pretrain(task: Task, ledger: Ledger, net: MixedNet, phase: str) -> None:
    """A phase with a schedule of its own. A block without the phase's operators takes any path."""
    recipe = replace(task.recipe, seed=task.seed)
    trainer = MixTrainer(net, task.train, recipe, 0)
    trainer.paths = [_of(place, PHASES[phase]) or paths for place, paths in zip(net.places, trainer.paths, strict=True)]
    kept = zip(net.sizes, trainer.paths, strict=True)
    work = net.fixed + sum(float(np.mean([sizes[i] for i in paths])) for sizes, paths in kept)
    trainer.steps = max(1, int(PRETRAINING / len(PHASES) * task.budget / (work * recipe.batch)))
    trainer.run()
    ledger.trained(recipe.batch, trainer.work)


def _search(task: Task, ledger: Ledger, net: MixedNet) -> list[Tensor]:
    """The architecture parameters of each block after the search."""
    logits = [torch.zeros(len(place.choices), requires_grad=True) for place in net.places]
    optimiser = torch.optim.Adam(logits, ARCHITECTURE_RATE, (0.5, 0.999), weight_decay=ARCHITECTURE_DECAY)
    recipe = replace(task.recipe, seed=task.seed)
    work = net.fixed + sum(float(np.mean(sizes)) * min(PATHS, len(sizes)) for sizes in net.sizes)
    batch = min(recipe.batch, len(task.validation))
    steps = max(1, int(SEARCH * task.budget / (work * (recipe.batch + batch))))
    trainer = MixTrainer(net, task.train, recipe, steps)
    trainer.logits = logits
    for step in range(steps):
        trainer.run(until=step + 1)
        ledger.trained(recipe.batch, trainer.work)
        index = np.random.default_rng([task.seed, step]).permutation(len(task.validation))[:batch]
        trainer.work = 0
        x, labels = task.validation.batch(index), task.validation.labels[index]
        loss = trainer.loss(x.to(trainer.device), labels.to(trainer.device))
        ledger.trained(batch, trainer.work)
        trainer.work = 0
        if not isfinite(float(loss.detach())):
            raise NashcError(f"the loss is no number after {step} steps of the search", hint="lower the learning rate")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return logits


def _of(place: Place, operators: tuple[str, ...]) -> list[int]:
    return [i for i, block in enumerate(place.choices) if block is not None and block.operator in operators]


STRATEGY = Strategy("nasa", "NASA, as FACTS.md and its abstract say, within one backbone", run)
