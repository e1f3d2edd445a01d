"""AZ-NAS: expressivity, progressivity, trainability and complexity, combined by rank.

Of the blocks' outputs on noise: expressivity is the sum of the entropies of the normalised spectra of the channels'
covariances, progressivity the least rise of that entropy from block to block. Trainability is the mean of
2 - s - 1 / (s + 1e-6), s the largest singular value of the covariance of a block's output and input gradients for
random signs at its output. Complexity is FLOPs.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from nashc.nas.proxies.candidate import Candidate, Proxy, Terms

IMAGES = 64


def _terms(candidate: Candidate) -> Terms:
    net = candidate.net()
    outputs = [value for step, value in net.values(candidate.noise(IMAGES)) if step.block >= 0 or step.name == "stem"]
    with torch.no_grad():
        entropies = [spectrum_entropy(value) for value in outputs]
    rises = [b - a for a, b in pairwise(entropies)]
    generator = candidate.generator()
    slopes = [_slope(a, b, generator) for a, b in pairwise(outputs)]
    return {
        "expressivity": sum(entropies),
        "progressivity": min(rises, default=0.0),
        "trainability": sum(slopes) / max(1, len(slopes)),
        "complexity": float(sum(candidate.macs.values())),
    }


def spectrum_entropy(value: Tensor) -> float:
    """Of the eigenvalues of the channels' covariance [N, C, H, W], as shares of their sum."""
    pixels = value.detach().transpose(0, 1).flatten(1)
    pixels = pixels - pixels.mean(1, keepdim=True)
    eigenvalues = torch.linalg.eigvalsh(pixels @ pixels.t()).clamp_min(0)
    shares = eigenvalues / eigenvalues.sum().clamp_min(1e-30)
    return float(torch.special.entr(shares).sum())


def _slope(source: Tensor, output: Tensor, generator: torch.Generator) -> float:
    signs = torch.randint(0, 2, output.shape, generator=generator).to(output.dtype) * 2 - 1
    (found,) = torch.autograd.grad(output, source, signs, retain_graph=True)
    ratio = -(-found.shape[2] // signs.shape[2])
    if ratio > 1:
        right, down = (ratio * signs.shape[axis] - found.shape[axis] for axis in (3, 2))
        found = functional.pixel_unshuffle(functional.pad(found, (0, right, 0, down)), ratio)
    into, out = (g.permute(0, 2, 3, 1).reshape(-1, g.shape[1]) for g in (found, signs))
    s = float(torch.linalg.matrix_norm(into.t() @ out / len(out), 2))
    return 2 - s - 1 / (s + 1e-6)


PROXY = Proxy("az-nas", "Lee and Ham, arXiv 2403.19232", _terms)
