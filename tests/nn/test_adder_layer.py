"""AdderConv2d against the definition of AdderConv, and its gradients against AdderNet's formulas, tap by tap."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import EPS, Window, flat_cases, taps, tensors, window
from operator_cases import Case, assert_same
from torch import Tensor, nn

from nashc.errors import NashcError
from nashc.nn import AdderConv2d
from nashc.nn.adder import adder_conv2d, adder_conv2d_input_gradient, adder_conv2d_weight_gradient

EXAMPLES = settings(deadline=None, max_examples=60)
TYPES = (torch.float32, torch.float64)
"""On the CPU the kernels compute float32, torch float64."""
SAMPLES = [
    ((2, 4, 6, 5), (6, 2, 3, 2), ([2, 1], [1, 0, 1, 1], [1, 2], 2)),
    ((1, 3, 5, 5), (3, 1, 3, 3), ([2, 2], [1, 1, 1, 1], [1, 1], 3)),
    ((3, 2, 4, 4), (5, 2, 1, 1), ([1, 1], [0, 0, 0, 0], [1, 1], 1)),
]


@pytest.mark.parametrize("dtype", TYPES)
@EXAMPLES
@given(case=flat_cases("AdderConv"))
def test_forward_is_the_operator(dtype: torch.dtype, case: Case) -> None:
    x, w = tensors(case, dtype)
    y = adder_conv2d(x, w, *window(case), None)
    assert y.is_contiguous()
    expected = case.operator.reference(*case.inputs, **case.attributes)
    assert_same(case, y.float().numpy(), expected, -expected.astype(np.float64))


def by_taps(x: np.ndarray, w: np.ndarray, dy: np.ndarray, window: Window) -> tuple[np.ndarray, ...]:
    """dx and dw as AdderNet defines them, and the sums of the magnitudes of their terms."""
    dx, dw, size_x, size_w = np.zeros_like(x), np.zeros_like(w), np.zeros_like(x), np.zeros_like(w)
    for o, tap, i in taps(x, w, dy, window):
        under = x[i] if i else 0.0
        dw[tap] += dy[o] * (under - w[tap])
        size_w[tap] += abs(dy[o]) * (abs(under) + abs(w[tap]))
        if i:
            dx[i] += dy[o] * np.clip(w[tap] - under, -1, 1)
            size_x[i] += abs(dy[o])
    return dx, dw, size_x, size_w


@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=40)
@given(case=flat_cases("AdderConv"), seed=st.integers(0, 2**32 - 1))
def test_gradients_are_the_published_ones(dtype: torch.dtype, case: Case, seed: int) -> None:
    x, w = (t.requires_grad_() for t in tensors(case, dtype) if t is not None)
    y = adder_conv2d(x, w, *window(case), None)
    dy = torch.from_numpy(np.random.default_rng(seed).standard_normal(y.shape)).to(dtype)
    dx, dw = torch.autograd.grad(y, (x, w), dy)
    wide = [t.detach().double().numpy() for t in (x, w, dy)]
    expected_x, expected_w, size_x, size_w = by_taps(*wide, window(case))
    terms_x, terms_w = w[:, 0].numel(), dy[:, 0].numel()
    assert (np.abs(dx.numpy() - expected_x) <= (terms_x + 2) * EPS * size_x + 1e-30).all()
    assert (np.abs(dw.numpy() - expected_w) <= (terms_w + 4) * EPS * size_w + 1e-30).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_sum_in_float32(dtype: torch.dtype) -> None:
    x, w = torch.randn(2, 64, 6, 6).to(dtype), torch.randn(8, 64, 3, 3).to(dtype)
    args = ([2, 2], [1, 1, 1, 1], [1, 1], 1)
    expected = adder_conv2d(x.float(), w.float(), *args, None)
    y = adder_conv2d(x, w, *args, None)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=2 * torch.finfo(dtype).eps, atol=0)
    dx = adder_conv2d_input_gradient(torch.ones_like(y), x, w, *args)
    wide = adder_conv2d_input_gradient(torch.ones_like(expected), x.float(), w.float(), *args)
    torch.testing.assert_close(dx.float(), wide, rtol=torch.finfo(dtype).eps, atol=1e-3)


def test_weight_gradient_keeps_float32_accuracy_in_a_large_layer() -> None:
    """The correlation minus w * sum(dy) cancels little: the error is that of a convolution's weight gradient."""
    torch.manual_seed(0)
    x, w, dy = torch.randn(16, 32, 16, 16).relu(), torch.randn(32, 32, 3, 3), torch.randn(16, 32, 16, 16) + 0.1

    def gradient(dtype: torch.dtype) -> Tensor:
        weight = w.to(dtype).requires_grad_()
        y = adder_conv2d(x.to(dtype), weight, [1, 1], [1, 1, 1, 1], [1, 1], 1, None)
        return torch.autograd.grad(y, weight, dy.to(dtype))[0].double()

    exact = gradient(torch.float64)
    error = torch.linalg.vector_norm(gradient(torch.float32) - exact) / torch.linalg.vector_norm(exact)
    assert error < 1e-6


@pytest.mark.parametrize("eta", [0.2, 1.0])
def test_adaptive_scale(eta: float) -> None:
    x, dy = torch.randn(2, 4, 5, 5), torch.randn(2, 6, 3, 3)
    weight = torch.randn(6, 4, 3, 3, requires_grad=True)
    args = ([2, 2], [1, 1, 1, 1], [1, 1], 1)
    scaled, plain = (torch.autograd.grad(adder_conv2d(x, weight, *args, e), weight, dy)[0] for e in (eta, None))
    norm = torch.linalg.vector_norm(plain)
    torch.testing.assert_close(scaled, plain * eta * weight.numel() ** 0.5 / norm)
    zero = torch.autograd.grad(adder_conv2d(x, weight, *args, eta), weight, torch.zeros_like(dy))[0]
    assert not zero.any()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("sample", SAMPLES)
def test_operators_pass_opcheck(dtype: torch.dtype, sample: tuple) -> None:
    x_shape, w_shape, args = sample
    x = torch.randn(x_shape, dtype=dtype, requires_grad=True)
    w = torch.randn(w_shape, dtype=dtype, requires_grad=True)
    torch.library.opcheck(adder_conv2d, (x, w, *args, 0.2))
    dy = torch.randn_like(adder_conv2d(x, w, *args, None))
    for gradient in (adder_conv2d_input_gradient, adder_conv2d_weight_gradient):
        torch.library.opcheck(gradient, (dy.detach(), x.detach(), w.detach(), *args))


def test_layouts_and_empty_batches() -> None:
    layer = AdderConv2d(4, 6, 3, padding=1, groups=2)
    x = torch.randn(2, 4, 5, 6)
    expected = layer(x)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), expected)
    torch.testing.assert_close(layer(x.transpose(2, 3).contiguous().transpose(2, 3)), expected)
    assert layer(x[:0]).shape == (0, 6, 5, 6)
    layer(x[:0]).sum().backward()
    assert not layer.weight.grad.any()


def test_autocast_computes_in_float32() -> None:
    layer = AdderConv2d(3, 4, 3)
    x = torch.randn(1, 3, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.bfloat16())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, layer(x.bfloat16().float()))


def test_weights_start_from_the_normal_distribution_and_no_initialiser_takes_them_for_a_convolution() -> None:
    torch.manual_seed(0)
    layer = AdderConv2d(64, 64, 3)
    assert abs(layer.weight.std().item() - 1) < 0.02
    assert layer.bias is None
    assert not isinstance(layer, nn.Conv2d)


def test_a_batch_norm_behind_it_trains() -> None:
    """A step on the published gradients lowers the loss of a small regression."""
    torch.manual_seed(0)
    layer = nn.Sequential(AdderConv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8))
    x, target = torch.randn(16, 3, 8, 8), torch.randn(16, 8, 4, 4)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(layer(x), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.zeros(1, 3, 4, 4), "x has 3 channels, the layer wants 4; check in_channels and groups"),
        (torch.zeros(1, 4, 2, 4), "the window (kernel [3, 3], dilation [1, 1]) does not fit into x [1, 4, 2, 4]"),
        (torch.zeros(4, 4), "x has shape [4, 4], weight [2, 4, 3, 3]; give x as [N, C, H, W]"),
        (torch.zeros(1, 4, 4, 4, dtype=torch.float64), "x is torch.float64 on cpu, weight torch.float32 on cpu"),
    ],
)
def test_refusals(x: Tensor, text: str) -> None:
    with pytest.raises(NashcError) as refusal:
        AdderConv2d(4, 2, 3)(x)
    assert text in str(refusal.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("shape", "grad"), [((4, 32, 8, 8), 2.0), ((2, 3, 5, 5), 0.0), ((300, 3, 18, 18), 1.0)])
def test_weight_gradients_of_narrow_floats_are_those_of_wide_ones(dtype: torch.dtype, shape: Any, grad: float) -> None:
    layer, x = AdderConv2d(shape[1], 8, 3), torch.randn(shape)
    layer.weight.data = layer.weight.data.to(dtype).float()
    narrow, wide = copy.deepcopy(layer).to(dtype), layer
    for one, values in ((narrow, x.to(dtype)), (wide, x.to(dtype).float())):
        y = one(values)
        y.backward(torch.full_like(y, grad))
    assert narrow.weight.grad.dtype == dtype
    torch.testing.assert_close(narrow.weight.grad.float(), wide.weight.grad, rtol=0.02, atol=1e-3)
