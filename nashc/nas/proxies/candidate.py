"""What a proxy sees of a network that was never trained, and how the terms of proxies become one score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from nashc.nas.architecture import Architecture
from nashc.nas.build import HybridNet, NormedLayer, build
from nashc.nas.layout import Step, layout, macs
from nashc.nas.space import Space
from nashc.registry import Registry


@dataclass(frozen=True)
class Candidate:
    """A network before training, with labelled images [N, C, H, W] normalised as training will, and a seed.

    Every proxy draws its weights and its noise from the seed, so that a score can be repeated.
    """

    architecture: Architecture
    space: Space
    images: Tensor
    labels: Tensor
    seed: int = 0

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        return layout(self.architecture, self.space)

    @cached_property
    def macs(self) -> dict[str, int]:
        return macs(self.steps)

    def net(self) -> HybridNet:
        """A new network with the weights that training starts from, in training mode."""
        made = build(self.architecture, self.space, self.seed).train()
        made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return made

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def noise(self, images: int) -> Tensor:
        """N(0, 1) in the shape of so many images."""
        side = self.space.resolution
        made = torch.randn(images, self.space.channels, side, side, generator=self.generator())
        return made.contiguous(memory_format=torch.channels_last)


Terms = Mapping[str, float]
"""What a proxy measures: named numbers, larger is better."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """`terms` measures a candidate; a proxy of several terms is scored by their ranks among all candidates seen.

    `data`: it looks at the images or their labels, not at shapes and noise alone.
    """

    name: str
    source: str
    terms: Callable[[Candidate], Terms]
    data: bool = False


PROXIES: Registry[Proxy] = Registry("proxy")


def combined(measured: Sequence[Terms]) -> np.ndarray:
    """Scores float64 [n] of n candidates: the sum over terms of log(rank / n); of one term, the term itself.

    AZ-NAS (arXiv 2403.19232), equation 12. A value that is no number ranks last; scores are numbers, as JSON needs.
    """
    if not measured:
        return np.zeros(0)
    names = list(measured[0])
    table = np.array([[terms[name] for name in names] for terms in measured], np.float64)
    table[~np.isfinite(table)] = -np.inf
    if len(names) == 1:
        value, known = table[:, 0], np.isfinite(table[:, 0])
        least = value[known].min(initial=0.0)
        return np.where(known, value, least - max(1.0, abs(least)))
    ranks = rankdata(table, axis=0)
    made: np.ndarray = np.log(ranks / len(measured)).sum(axis=1)
    return made


def without_norms(net: HybridNet) -> HybridNet:
    """The network with every BN taken out, in place."""
    for module in net.modules():
        if isinstance(module, NormedLayer):
            module.norm = nn.Identity()  # type: ignore[assignment]
    return net
