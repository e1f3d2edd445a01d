"""NASWOT: how differently ReLUs are on and off for different images, log |det K| of the codes' kernel."""

from __future__ import annotations

import torch

from nashc.nas.proxies.candidate import Candidate, Proxy, Terms


@torch.no_grad()
def _terms(candidate: Candidate) -> Terms:
    images = len(candidate.images)
    kernel = torch.zeros(images, images)
    for step, value in candidate.net().values(candidate.images):
        if step.relu:
            code = (value > 0).float().flatten(1)
            kernel += code @ code.t() + (1 - code) @ (1 - code).t()
    sign, value = torch.linalg.slogdet(kernel.double())
    return {"log det": float(value) if sign > 0 else float("-inf")}


PROXY = Proxy("naswot", "Mellor et al., arXiv 2006.04647", _terms, data=True)
