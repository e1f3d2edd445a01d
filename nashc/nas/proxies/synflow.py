"""SynFlow: how much synaptic flow passes, sum |w * dR/dw| for R the output on an image of ones, without BN."""

from __future__ import annotations

import torch

from nashc.nas.proxies.candidate import Candidate, Proxy, Terms, without_norms


def _terms(candidate: Candidate) -> Terms:
    net = without_norms(candidate.net())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
    net(torch.ones_like(candidate.images[:1])).sum().backward()
    flow = sum(float((p.detach().double() * p.grad).abs().sum()) for p in net.parameters() if p.grad is not None)
    return {"flow": flow}


PROXY = Proxy("synflow", "Tanaka et al., arXiv 2006.05467; as a proxy arXiv 2101.08134", _terms)
