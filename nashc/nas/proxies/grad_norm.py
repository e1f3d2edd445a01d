"""Gradient norm: the length of the loss's gradient at the start, summed over the tensors of weights."""

from __future__ import annotations

from torch.nn import functional

from nashc.nas.proxies.candidate import Candidate, Proxy, Terms


def _terms(candidate: Candidate) -> Terms:
    net = candidate.net()
    functional.cross_entropy(net(candidate.images), candidate.labels).backward()  # type: ignore[no-untyped-call]
    return {"norm": sum(float(p.grad.norm()) for p in net.parameters() if p.ndim > 1 and p.grad is not None)}


PROXY = Proxy("grad-norm", "Abdelfattah et al., arXiv 2101.08134", _terms, data=True)
