"""Zen-score: log of how far features move with a small move of the input, plus the log deviations that BN removed."""

from __future__ import annotations

import torch
from torch import nn

from nashc.nas.proxies.candidate import Candidate, Proxy, Terms

IMAGES = 16
MOVE = 0.01


@torch.no_grad()
def _terms(candidate: Candidate) -> Terms:
    net = candidate.net()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    x, move = candidate.noise(2 * IMAGES).chunk(2)
    features = []
    for image in (x, x + MOVE * move):
        *_, (_, last), _ = net.values(image)
        features.append(last)
    score = float((features[0] - features[1]).abs().mean().clamp_min(1e-30).log())
    for norm in norms:
        assert norm.running_var is not None
        score += float(norm.running_var.mean().sqrt().clamp_min(1e-30).log())
    return {"zen": score}


PROXY = Proxy("zen", "Lin et al., arXiv 2102.01063", _terms)
