"""SynFlow: how much synaptic flow passes, sum |w * dR/dw| for R the output on an image of ones, without BN.

Its logarithm, in double precision: the flow itself overflows in large networks.
"""

from __future__ import annotations

from math import inf, log

import torch

from nashc.nas.proxies.candidate import Candidate, Proxy, Terms, without_norms


def _terms(candidate: Candidate) -> Terms:
    net = without_norms(candidate.net()).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
    net(torch.ones_like(candidate.images[:1], dtype=torch.float64)).sum().backward()
    flow = sum(float((p.detach() * p.grad).abs().sum()) for p in net.parameters() if p.grad is not None)
    return {"flow": log(flow) if flow > 0 else -inf}


PROXY = Proxy("synflow", "Tanaka et al., arXiv 2006.05467; as a proxy arXiv 2101.08134", _terms)
