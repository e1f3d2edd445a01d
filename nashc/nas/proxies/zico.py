"""ZiCo: sum over layers of log sum over weights of E|g| / std g, the gradients taken over a few batches."""

from __future__ import annotations

from math import log

import torch
from torch.nn import functional

from nashc.nas.proxies.candidate import Candidate, Proxy, Terms

BATCHES = 2


def _terms(candidate: Candidate) -> Terms:
    net = candidate.net()
    tensors = [p for p in net.parameters() if p.ndim > 1]
    found = []
    for x, y in zip(candidate.images.chunk(BATCHES), candidate.labels.chunk(BATCHES), strict=True):
        found.append(torch.autograd.grad(functional.cross_entropy(net(x), y), tensors))
    score = 0.0
    for gradients in zip(*found, strict=True):
        stacked = torch.stack(gradients)
        deviation = stacked.std(0, unbiased=False)
        used = deviation > 0
        total = float((stacked.abs().mean(0)[used] / deviation[used]).sum())
        score += log(total) if total > 0 else 0.0
    return {"zico": score}


PROXY = Proxy("zico", "Li et al., arXiv 2301.11300", _terms, data=True)
