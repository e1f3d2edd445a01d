"""Zero-shot proxies: how well a network will train, told without training it. One file a proxy; docs/nas.md."""

from __future__ import annotations

from nashc.nas.proxies import az_nas, grad_norm, hybrid, naswot, size, synflow, zen, zico
from nashc.nas.proxies.candidate import PROXIES, Candidate, Proxy, combined

for _module in (hybrid, az_nas, zen, zico, naswot, synflow, grad_norm):
    PROXIES.add(_module.PROXY.name, _module.PROXY)
for _proxy in size.PROXIES:
    PROXIES.add(_proxy.name, _proxy)

__all__ = ["PROXIES", "Candidate", "Proxy", "combined"]
