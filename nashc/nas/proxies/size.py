"""Sizes: what every proxy must beat."""

from __future__ import annotations

from nashc.nas.proxies.candidate import Candidate, Proxy, Terms


def _parameters(candidate: Candidate) -> Terms:
    return {"parameters": float(sum(step.weights for step in candidate.steps))}


def _flops(candidate: Candidate) -> Terms:
    return {"flops": float(sum(candidate.macs.values()))}


PROXIES = (
    Proxy("parameters", "number of weights, whatever the operator", _parameters),
    Proxy("flops", "MAC-equivalents of an image, whatever the operator", _flops),
)
