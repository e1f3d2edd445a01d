"""Every proxy measures every network, the same each time; terms become scores by their ranks."""

from dataclasses import replace
from functools import cache
from math import isfinite, log
from random import Random

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nashc.nas.architecture import sample, with_operator
from nashc.nas.build import build
from nashc.nas.layout import macs
from nashc.nas.proxies import PROXIES, Candidate, combined
from nashc.nas.space import OPERATORS, load_space

MIXED = "mixed"
CASES = [
    (space, operator) for space in ("mobilenet-cifar", "resnet-cifar") for operator in (*OPERATORS.values(), MIXED)
]


@cache
def candidate(name: str, operator: str) -> Candidate:
    space = msgspec.structs.replace(load_space(name), resolution=16)
    architecture = sample(space, Random(f"{name} {operator}"))
    if operator != MIXED:
        architecture = with_operator(architecture, operator)
    images = torch.randn(16, space.channels, 16, 16, generator=torch.Generator().manual_seed(1))
    return Candidate(architecture, space, images, torch.arange(16) % space.classes)


@pytest.mark.parametrize("proxy", PROXIES.values(), ids=lambda p: p.name)
@pytest.mark.parametrize(("space", "operator"), CASES)
def test_terms_are_numbers_that_can_be_repeated(proxy, space, operator):
    made = candidate(space, operator)
    images, labels = made.images.clone(), made.labels.clone()
    state = torch.random.get_rng_state()
    terms = proxy.terms(made)
    assert terms
    assert all(isinstance(value, float) and isfinite(value) for value in terms.values()), terms
    assert torch.equal(made.images, images)
    assert torch.equal(made.labels, labels)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(12345)  # whatever else was drawn before
    assert proxy.terms(replace(made)) == terms


@pytest.mark.parametrize("proxy", PROXIES.values(), ids=lambda p: p.name)
def test_a_proxy_looks_at_data_where_it_says_so(proxy):
    made = candidate("resnet-cifar", MIXED)
    other = replace(made, images=made.images**2, labels=(made.labels + made.labels // 2) % 10)
    assert (proxy.terms(other) != proxy.terms(made)) == proxy.data


@pytest.mark.parametrize("operator", [*OPERATORS.values(), MIXED])
def test_sizes_are_those_of_the_torch_module(operator):
    """A second way to count: weights of more than one axis, and what each layer's output takes."""
    made = candidate("mobilenet-cifar", operator)
    net = build(made.architecture, made.space)
    wanted = sum(p.numel() for p in net.parameters() if p.ndim > 1)
    assert PROXIES.get("parameters").terms(made) == {"parameters": wanted}
    assert sum(macs(made.steps).values()) == PROXIES.get("flops").terms(made)["flops"]


def brute(measured: list[dict[str, float]]) -> list[float]:
    """Sum over terms of log(rank / n); rank is the mean place among equals, from the bottom, 1 the last."""
    scores = []
    for mine in measured:
        score = 0.0
        for name, value in mine.items():
            others = [terms[name] if isfinite(terms[name]) else -np.inf for terms in measured]
            own = value if isfinite(value) else -np.inf
            below, equal = sum(o < own for o in others), sum(o == own for o in others)
            score += log((below + (equal + 1) / 2) / len(measured))
        scores.append(score)
    return scores


VALUES = st.sampled_from([-3.0, 0.0, 0.5, 2.0, 1e30, float("nan"), float("inf"), -float("inf")])


@given(st.lists(st.fixed_dictionaries({"a": VALUES, "b": VALUES}), min_size=1, max_size=8))
def test_scores_are_sums_of_log_ranks(measured):
    assert combined(measured) == pytest.approx(brute(measured))


@given(st.lists(VALUES, min_size=1, max_size=8))
def test_one_term_is_its_own_score_and_no_number_is_last(values):
    scores = combined([{"x": v} for v in values])
    assert np.isfinite(scores).all()  # JSON has no other numbers
    for value, score in zip(values, scores, strict=True):
        if isfinite(value):
            assert score == value
        else:
            assert all(score < other for v, other in zip(values, scores, strict=True) if isfinite(v))


def test_nothing_measured_has_no_scores():
    assert combined([]).shape == (0,)
