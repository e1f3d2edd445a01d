"""Weights that are sums of T signed powers of two, as DeepShift trains them (arXiv 1905.13298).

Form Q keeps real weights and rounds them on the way forward, w = sign(v) * 2^round(log2 |v|), |v| clamped to
[2^-pmax, 1], an exact 0 staying 0; dv = dw, straight through. Further terms round what the earlier ones left, where
that is nearer to 2^-pmax than to 0.
Form PS keeps exponent and sign of every term, w = s * 2^-p, p = round(-shift) in 0..pmax, s = round(sign) in -1..1;
d shift = dw * w * ln 2, and d sign = dw, both straight through the rounding.

Codes are those of nashc.ops: 0 is weight 0, else w = sign(code) * 2^(1 - |code|).
"""

from __future__ import annotations

from math import log
from typing import Any

import torch
from torch import Tensor

from nashc.errors import NashcError


def round_to_codes(weight: Tensor, terms: int, pmax: int) -> Tensor:
    """int8 codes [terms, *weight]: each term is what is left, its log2 rounded (nashc.ops.encode_shift, "log")."""
    rest = weight.double()
    codes = torch.empty((terms, *weight.shape), dtype=torch.int8, device=weight.device)
    for i, term in enumerate(codes):
        if i:
            rest = rest - decode(codes[i - 1], rest.dtype)
        # |rest| = fraction * 2^exponent, fraction in [0.5, 1): log2 rounds down below sqrt(1/2), which no double is
        fraction, exponent = torch.frexp(rest.abs())
        p = ((fraction < 0.5**0.5).to(exponent.dtype) - exponent).clamp_(0, pmax)
        code = (p + 1) * rest.sign().to(p.dtype)
        # a term that would overshoot is left out; DeepShift's first term never is
        term.copy_(torch.where(rest.abs() < 2.0 ** -(pmax + 1), 0, code) if i else code)
    return codes


def decode(codes: Tensor, dtype: torch.dtype) -> Tensor:
    """The value of every single code."""
    wide = codes.to(dtype)
    return wide.sign() * torch.exp2(1 - wide.abs())


@torch.library.custom_op("nashc::shift_round", mutates_args=())
def shift_round(weight: Tensor, terms: int, pmax: int) -> Tensor:
    """Form Q: weight rounded to the sum of powers of two; NaN where it is not finite."""
    rounded = decode(round_to_codes(weight, terms, pmax), weight.dtype).sum(0)
    return torch.where(weight.isfinite(), rounded, torch.nan).contiguous()


@shift_round.register_fake
def _(weight: Tensor, terms: int, pmax: int) -> Tensor:
    return weight.new_empty(weight.shape)


shift_round.register_autograd(lambda ctx, grad: (grad, None, None))


def composed_codes(shift: Tensor, sign: Tensor, pmax: int) -> Tensor:
    """int8 codes of the terms of form PS, in the shape of shift and sign."""
    p = (-shift).round().clamp(0, pmax)
    return (sign.round().clamp(-1, 1) * (p + 1)).to(torch.int8)


@torch.library.custom_op("nashc::shift_compose", mutates_args=())
def shift_compose(shift: Tensor, sign: Tensor, pmax: int) -> Tensor:
    """Form PS: the weights [M, ...] of shift and sign [terms, M, ...]; NaN where one is not finite."""
    weight = decode(composed_codes(shift, sign, pmax), shift.dtype).sum(0)
    return torch.where((shift.isfinite() & sign.isfinite()).all(0), weight, torch.nan).contiguous()


@shift_compose.register_fake
def _(shift: Tensor, sign: Tensor, pmax: int) -> Tensor:
    return shift.new_empty(shift.shape[1:])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    shift, sign, ctx.pmax = inputs
    ctx.save_for_backward(shift, sign)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    shift, sign = ctx.saved_tensors
    p = (-shift).round().clamp(0, ctx.pmax)
    term = sign.round().clamp(-1, 1) * torch.exp2(-p)
    return grad * term * log(2), grad.expand_as(sign).clone(), None


shift_compose.register_autograd(_backward, setup_context=_setup_context)


def check_finite(where: str, *tensors: Tensor) -> None:
    if not all(bool(t.isfinite().all()) for t in tensors):
        raise NashcError("weights hold NaN or infinity", where=where, hint="check the training run")
