"""ShiftConv2d: its rounding against encode_shift, its operator against ShiftConv, its gradients against DeepShift."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from layer_cases import flat_cases, tensors, window
from nashc.ops import decode_shift, encode_shift
from operator_cases import Case, assert_same
from torch import Tensor, nn

from nashc.errors import NashcError
from nashc.nn import FixedShiftConv2d, ShiftConv2d
from nashc.nn.shift import shift_conv2d
from nashc.nn.shift_weights import decode, round_to_codes, shift_compose, shift_round

EXAMPLES = settings(deadline=None, max_examples=60)
FLOATS = st.floats(-4, 4, width=32, allow_subnormal=True) | st.sampled_from([0.0, 2**-0.5, 0.70710677, 1.4142135, -0.0])


@EXAMPLES
@given(hnp.arrays(np.float32, st.integers(1, 40), elements=FLOATS), st.integers(1, 3), st.integers(2, 5))
def test_rounding_is_that_of_the_codes(weights: np.ndarray, terms: int, bits: int) -> None:
    pmax = 2 ** (bits - 1) - 2
    expected, one = encode_shift(weights[None], terms, scale=1.0, pmax=pmax, rounding="log")
    w = torch.from_numpy(weights[None])
    np.testing.assert_array_equal(round_to_codes(w, terms, pmax).numpy(), expected)
    np.testing.assert_array_equal(shift_round(w, terms, pmax).numpy(), decode_shift(expected, one))
    assert np.abs(expected).max() < 2 ** (bits - 1)  # a code fits its bits


def test_form_q_is_the_published_rounding() -> None:
    w = torch.tensor([0.3, -0.7, 0.71, 1.3, -9.0, 1e-9, -1e-9, 0.0])
    expected = [2**-2, -(2**-1), 2**-0, 1.0, -1.0, 2**-14, -(2**-14), 0.0]
    assert shift_round(w, 1, 14).tolist() == expected


def test_what_is_not_finite_stays_visible() -> None:
    assert shift_round(torch.tensor([np.nan, np.inf, 1.0]), 1, 14).isnan().tolist() == [True, True, False]
    assert shift_compose(torch.full((1, 1), np.nan), torch.ones(1, 1), 14).isnan().all()
    layer = ShiftConv2d(1, 1, 1)
    with torch.no_grad():
        layer.weight.fill_(np.nan)
    with pytest.raises(NashcError, match=r"ShiftConv2d\.fixed: weights hold NaN or infinity"):
        layer.fixed()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@EXAMPLES
@given(case=flat_cases("ShiftConv"))
def test_operator_is_the_definition(dtype: torch.dtype, case: Case) -> None:
    x, codes, scale, bias = tensors(case, dtype)
    y = shift_conv2d(x, codes, scale, bias, *window(case))
    assert y.is_contiguous()
    magnitudes = tuple(None if a is None else np.abs(a) for a in case.inputs)
    size = case.operator.reference(*magnitudes, **case.attributes).astype(np.float64)
    if bias is not None:
        size += np.abs(bias.double().numpy())[:, None, None]
    assert_same(case, y.float().numpy(), case.operator.reference(*case.inputs, **case.attributes), size)


LAYERS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": (3, 2), "stride": 2, "padding": (1, 2), "groups": 2},
    {"kernel_size": 2, "padding": "same", "dilation": (1, 3), "bias": False},
    {"kernel_size": 3, "stride": (2, 1), "padding": 1, "groups": 4},
]
FORMS: list[dict[str, Any]] = [
    {"form": form, "terms": terms, "channel_scale": scale}
    for form in ("q", "ps")
    for terms, scale in ((1, False), (3, True))
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kwargs", LAYERS)
def test_fixed_layer_gives_what_the_training_layer_gives(kwargs: dict[str, Any], form: dict[str, Any]) -> None:
    layer = ShiftConv2d(4, 8, **kwargs, **form)
    with torch.no_grad():
        if layer.scale is not None:
            layer.scale.uniform_(0.5, 2)
    fixed = layer.fixed()
    assert isinstance(fixed, FixedShiftConv2d)
    assert fixed.codes.dtype == torch.int8
    x = torch.randn(2, 4, 7, 8)
    torch.testing.assert_close(fixed(x), layer(x))
    torch.testing.assert_close(fixed(x[0]), layer(x)[0])


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


WINDOWS = [
    ([2, 1], [1, 0, 1, 1], [1, 2], 2),
    ([1, 1], [1, 1, 1, 1], [1, 1], 1),
    ([2, 2], [1, 1, 1, 1], [1, 1], 4),
]


@pytest.mark.parametrize("window_", WINDOWS)
@pytest.mark.parametrize("scales", [1, 4])
def test_gradients_of_input_scale_and_bias_are_true(window_: tuple, scales: int) -> None:
    codes = torch.randint(-4, 5, (2, 4, 4 // window_[3], 3, 2), dtype=torch.int8)

    def layer(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return shift_conv2d(x, codes, scale, bias, *window_)

    torch.autograd.gradcheck(layer, (double(1, 4, 5, 4), double(scales), double(4)))


@pytest.mark.parametrize("window_", WINDOWS)
@pytest.mark.parametrize("bias", [False, True])
def test_operator_passes_opcheck(window_: tuple, bias: bool) -> None:
    codes = torch.randint(-4, 5, (2, 4, 4 // window_[3], 3, 2), dtype=torch.int8)
    x, vectors = torch.randn(2, 4, 5, 4, requires_grad=True), torch.randn(2, 4).requires_grad_().unbind()
    torch.library.opcheck(shift_conv2d, (x, codes, vectors[0], vectors[1] if bias else None, *window_))


@pytest.mark.parametrize("kwargs", LAYERS)
def test_form_q_gets_the_gradient_of_its_rounded_weights(kwargs: dict[str, Any]) -> None:
    """Straight through: the latent weights move as those of a convolution with the rounded weights would."""
    layer = ShiftConv2d(4, 8, **kwargs, terms=2).double()
    conv = nn.Conv2d(4, 8, **kwargs).double()
    with torch.no_grad():
        layer.weight[0].zero_()
        conv.weight.copy_(layer.rounded_weight())
        if conv.bias is not None and layer.bias is not None:
            conv.bias.copy_(layer.bias)
    x, y = double(2, 4, 7, 8), double(2, 4, 7, 8)
    with torch.no_grad():
        y.copy_(x)
    layer(x).sub(1).square().sum().backward()
    conv(y).sub(1).square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad[0].any()  # an exact zero may leave
    assert not layer.rounded_weight()[0].any()  # and stays as long as it does not
    torch.testing.assert_close(layer.weight.grad, conv.weight.grad)
    torch.testing.assert_close(x.grad, y.grad)


@EXAMPLES
@given(st.integers(1, 3), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_form_ps_is_the_published_one(terms: int, bits: int, seed: int) -> None:
    """w = s * 2^-p of rounded sign and shift; d sign = dw, d shift = dw * w * ln 2 for every term."""
    rng, pmax = np.random.default_rng(seed), 2 ** (bits - 1) - 2
    shift, sign, dw = rng.uniform(-pmax - 2, 1, (terms, 3)), rng.uniform(-1.5, 1.5, (terms, 3)), rng.standard_normal(3)
    p = np.clip(np.rint(-shift), 0, pmax)
    term = np.where(np.abs(sign) > 0.5, np.sign(sign), 0) * 2.0**-p
    latents = [torch.from_numpy(a).requires_grad_() for a in (shift, sign)]
    w = shift_compose(*latents, pmax)
    np.testing.assert_array_equal(w.detach().numpy(), term.sum(0))
    dshift, dsign = torch.autograd.grad(w, latents, torch.from_numpy(dw))
    np.testing.assert_allclose(dshift.numpy(), dw * term * log(2), rtol=1e-12)
    np.testing.assert_array_equal(dsign.numpy(), np.broadcast_to(dw, (terms, 3)))


def test_rounding_operators_pass_opcheck() -> None:
    torch.library.opcheck(shift_round, (torch.randn(4, 3, requires_grad=True), 2, 6))
    latents = torch.rand(2, 4, 3).neg().requires_grad_(), torch.randn(2, 4, 3, requires_grad=True)
    torch.library.opcheck(shift_compose, (*latents, 6))


@pytest.mark.parametrize("form", FORMS)
def test_latent_weights_train(form: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = ShiftConv2d(3, 8, 3, padding=1, **form)
    x = torch.randn(16, 3, 8, 8)
    target = nn.functional.conv2d(x, torch.randn(8, 3, 3, 3) / 4, padding=1)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(layer(x), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_a_convolution_carry_over(form: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer, weight = ShiftConv2d(4, 8, 3, **form), torch.randn(8, 4, 3, 3) / 4
    weight[0, 0] = 0
    layer.carry_over(weight)
    scale = 1 if layer.scale is None else layer.scale.view(-1, 1, 1, 1)
    found = (layer.rounded_weight() * scale).detach()
    assert not found[0, 0].any()
    error = (found - weight).norm() / weight.norm()
    assert error < (0.25 if layer.terms == 1 else 0.01)


def test_weights_out_of_reach_are_refused() -> None:
    with pytest.raises(NashcError, match=r"a weight of magnitude 3 is beyond 1 power.*; use channel_scale=True"):
        ShiftConv2d(1, 1, 1).carry_over(torch.full((1, 1, 1, 1), 3.0))


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"form": "qs"}, "ShiftConv2d: form='qs'; did you mean 'q'?"),
        ({"terms": 0}, "terms=0, bits=5; terms >= 1, bits in 2..5"),
        ({"bits": 6}, "terms=1, bits=6"),
    ],
)
def test_refusals(kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(NashcError) as refusal:
        ShiftConv2d(2, 2, 1, **kwargs)
    assert text in str(refusal.value)


@pytest.mark.parametrize("code", [-128, -16, 16, 127])
def test_bad_codes_are_refused(code: int) -> None:
    codes = torch.full((1, 1, 1, 1, 1), code, dtype=torch.int8)
    with pytest.raises(NashcError, match=r"shift_conv2d: bad codes; give int8 in -15\.\.15"):
        shift_conv2d(torch.zeros(1, 1, 2, 2), codes, torch.ones(1), None, [1, 1], [0] * 4, [1, 1], 1)


@given(weights=hnp.arrays(np.float64, 20, elements=st.floats(-1, 1)), bits=st.integers(2, 5))
def test_no_term_makes_a_weight_worse(weights: np.ndarray, bits: int) -> None:
    w, pmax = torch.from_numpy(weights), 2 ** (bits - 1) - 2
    errors = [(decode(round_to_codes(w, terms, pmax), w.dtype).sum(0) - w).abs() for terms in (1, 2, 3)]
    assert (errors[1] <= errors[0]).all()
    assert (errors[2] <= errors[1]).all()
