"""Every proxy measures every network, the same each time; terms become scores by their ranks."""

import json
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

from nashc.errors import NashcError
from nashc.nas.architecture import sample, with_operator
from nashc.nas.bench import read_groups
from nashc.nas.build import build
from nashc.nas.layout import macs
from nashc.nas.proxies import PROXIES, Candidate, combined
from nashc.nas.space import OPERATORS, load_space
from nashc.report.proxies import bench_shown

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


@pytest.mark.parametrize("seed", range(3))
def test_the_flow_of_a_large_network_is_a_number(seed):
    space = load_space("nasa-f-cifar")
    largest = with_operator(sample(space, Random(seed)), "conv")
    made = Candidate(largest, space, torch.zeros(1, 3, space.resolution, space.resolution), torch.zeros(1).long())
    assert isfinite(PROXIES.get("synflow").terms(made)["flow"])


@pytest.mark.parametrize("resolution", [7, 9])
def test_odd_maps_have_a_slope(resolution):
    space = msgspec.structs.replace(load_space("resnet-cifar"), resolution=resolution)
    x = torch.randn(4, 3, resolution, resolution)
    made = Candidate(sample(space, Random(0)), space, x, torch.arange(4))
    assert all(isfinite(value) for value in PROXIES.get("az-nas").terms(made).values())


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


ROW = {"space": "resnet-cifar", "resolution": 16, "channels": 3, "data": "d", "architecture": "a", "seed": 0}


@pytest.mark.parametrize(
    ("row", "text"),
    [({"accuracy": "abc"}, "Expected `float`"), ({"accuracy": 95.0}, "<= 1"), ({"accuracy": None}, "Expected `float`"),
     ({"accuracy": 0.5, "resolution": "16"}, "Expected `int`"), ({"accuracy": 0.5, "space": [1]}, "Expected `str`"),
     ({}, "missing required field `accuracy`")],
)  # fmt: skip
def test_a_ground_truth_with_a_wrong_row_names_it(row, text, tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(json.dumps(ROW | extra) for extra in ({"accuracy": 0.5}, row)))
    with pytest.raises(NashcError, match=f"line 2: .*{text}"):
        read_groups(path)


def test_a_training_that_is_there_twice_is_no_second_seed(tmp_path):
    path, chance = tmp_path / "r.jsonl", Random(0)
    names = list({str(sample(load_space("resnet-cifar"), chance)) for _ in range(8)})[:5]
    rows = [ROW | {"architecture": name, "accuracy": 0.5} for name in names]
    path.write_text("\n".join(map(json.dumps, [*rows, rows[0]])))
    (group,) = read_groups(path)
    assert group.noise is None


def test_groups_are_told_apart_and_names_that_are_none_are_refused(tmp_path):
    path, chance = tmp_path / "r.jsonl", Random(0)
    names = list({str(sample(load_space("resnet-cifar"), chance)) for _ in range(8)})[:5]
    rows = [ROW | {"architecture": n, "accuracy": 0.5, "resolution": r} for n in names for r in (8, 16)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert len({group.name for group in read_groups(path)}) == 2
    with pytest.raises(NashcError, match="no networks of the space 'mobilenet-cifar'"):
        bench_shown(str(path), {ROW["data"]: "x"}, ["resnet-cifar", "mobilenet-cifar"], ["flops"])
    with pytest.raises(NashcError, match="no networks that were trained on 'other'"):
        bench_shown(str(path), {ROW["data"]: "x", "other": "y"}, [], ["flops"])
