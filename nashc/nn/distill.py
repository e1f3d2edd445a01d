"""The loss of a changed copy of a model that has to give what the original gives, inside and at its outputs."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import functional

from nashc.nn.graph import Graph

SMALLEST = 1e-30
"""Probability that a logarithm is taken of."""


class Distillation:
    """divergence(outputs) + weight * error(values `inside`), the means over each.

    Outputs [N, classes] count by the Kullback-Leibler divergence of their softmax at a temperature, times its square
    (Hinton et al., arXiv 1503.02531); others, and values inside, by the squared error in units of the variance.
    """

    def __init__(
        self, teacher: Graph, student: Graph, inside: Collection[str], *, weight: float, temperature: float, half: bool
    ) -> None:
        self.teacher, self.student, self.inside = teacher, student, tuple(inside)
        self.weight, self.temperature, self.half = weight, temperature, half
        self.makers = {name: step.op for step in teacher.steps.values() for name in step.outputs}

    def __call__(self, batch: Tensor) -> tuple[Tensor, float, float]:
        """The loss, and its two parts."""
        wanted = dict.fromkeys((*self.teacher.outputs, *self.inside))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            with torch.no_grad():
                theirs = self.teacher.values([batch], wanted)
            ours = self.student.values([batch], wanted)
        outputs = [n for n in self.teacher.outputs if theirs[n].is_floating_point()]
        divergence = _mean([self._divergence(n, ours[n].float(), theirs[n].float()) for n in outputs])
        error = _mean([_error(ours[n].float(), theirs[n].float()) for n in self.inside])
        return divergence + self.weight * error, float(divergence.detach()), float(error.detach())

    def _divergence(self, name: str, ours: Tensor, theirs: Tensor) -> Tensor:
        maker = self.makers.get(name, "")
        if theirs.dim() != 2 or theirs.shape[1] < 2 or maker == "Sigmoid":
            return _error(ours, theirs)
        if maker == "Softmax":
            ours, theirs = ours.clamp_min(SMALLEST).log(), theirs.clamp_min(SMALLEST).log()
        t = self.temperature
        ours, theirs = functional.log_softmax(ours / t, 1), functional.log_softmax(theirs / t, 1)
        return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * t**2


def _error(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).square().mean() / theirs.var().clamp_min(1e-12)


def _mean(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).mean() if parts else torch.zeros(())
