"""The training of a weight-sharing supernet by the sandwich rule with in-place distillation.

A step trains several subnets on one batch: the largest on the labels, the others on what the largest says (Yu and
Huang, arXiv 1903.05134, sections 3.1 and 3.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from nashc.nas.architecture import Architecture
from nashc.nas.layout import total_macs
from nashc.nas.recipe import Recipe
from nashc.nas.supernet import Supernet
from nashc.nas.train import Images, Trainer

Draw = Callable[[Random], Sequence[Architecture]]
"""The subnets of a step, the one that teaches the others first."""


class SandwichTrainer(Trainer):
    """Trains a supernet for so many steps. `work`: MAC-equivalents of all subnets trained so far, for one image."""

    def __init__(self, net: Supernet, images: Images, recipe: Recipe, draw: Draw, steps: int) -> None:
        super().__init__(net, images, recipe)
        self.supernet, self.draw, self.steps, self.work = net, draw, steps, 0
        self.users: Counter[torch.nn.Module] = Counter()
        self.optimiser.register_step_pre_hook(self._mean)

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """The sum over the step's subnets."""
        drawn = self.draw(Random(f"{self.recipe.seed} {self.step}"))
        self.users = Counter(layer for architecture in drawn for layer in self.supernet.places(architecture))
        self.work += sum(total_macs(a, self.supernet.space) for a in drawn)
        first, *others = drawn
        scores = self.supernet(x, first)
        total = functional.cross_entropy(scores, labels, label_smoothing=self.recipe.label_smoothing)
        target = scores.detach().softmax(1)
        for architecture in others:
            total = total + functional.cross_entropy(self.supernet(x, architecture), target)
        return total

    @torch.no_grad()
    def _mean(self, *_: object) -> None:
        """A layer's gradient as the mean over the subnets that use it. Adder layers scale the gradient of each subnet
        to a size of its own (nashc.nn.adder, eta), so a factor on the loss would leave theirs too large."""
        for layer, count in self.users.items():
            for parameter in layer.parameters():
                if parameter.grad is not None:
                    parameter.grad /= count
