"""The proxy made for hybrids: work by what it is worth, the capacity of a typical block, and room for features.

work            log sum over layers of VALUE[operator] * MACs
block capacity  mean over blocks of log sum of VALUE[operator] * MACs: depth alone is no capacity
expressivity    mean over blocks of the entropy of the spectrum of the channels' covariance, on real images, after the
                BN, and without what all channels have in common

Why it stays fair between operators: a MAC-equivalent of a shift or adder layer trains to less than one of a
convolution, and VALUE says how much less; it was fitted on the networks of one space ("resnet-cifar" of hybridbench)
and is judged on another. An adder layer's output carries a common offset, the size of its input, in every channel: its
covariance is one large eigenvalue and its plain entropy low, whatever the features. Without the mean over the channels
the entropy is that of what distinguishes them, and weights start as each operator's training starts them. No term
looks at gradients: those of adder layers are rescaled to a fixed length, those of shift layers are straight-through.
"""

from __future__ import annotations

from math import log

import torch

from nashc.nas.proxies.az_nas import spectrum_entropy
from nashc.nas.proxies.candidate import Candidate, Proxy, Terms

VALUE = {"conv": 1.0, "shift": 0.8, "adder": 0.6}
"""Of a MAC-equivalent, against one of a convolution."""


@torch.no_grad()
def _terms(candidate: Candidate) -> Terms:
    blocks: list[list[float]] = [[]]
    for step in candidate.steps:
        if step.name.startswith("blocks."):
            blocks[-1].append(VALUE[step.operator] * step.macs)
            if step.block >= 0:
                blocks.append([])
    entropies = [
        spectrum_entropy(value - value.mean(1, keepdim=True))
        for step, value in candidate.net().values(candidate.images)
        if step.block >= 0
    ]
    capacities = [log(sum(block)) for block in blocks if block]
    return {
        "work": log(sum(VALUE[operator] * count for operator, count in candidate.macs.items())),
        "block capacity": sum(capacities) / len(capacities),
        "expressivity": sum(entropies) / len(entropies),
    }


PROXY = Proxy("hybrid", "this project", _terms, data=True)
