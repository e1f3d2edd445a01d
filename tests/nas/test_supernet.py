"""A subnet of the supernet is the stand-alone network: same outputs, same gradients, and nothing else is touched."""

from dataclasses import replace
from functools import cache
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from nashc.errors import NashcError
from nashc.nas.architecture import Architecture, parse, sample, with_operator
from nashc.nas.build import HybridNet
from nashc.nas.space import OPERATORS, Space, parse_space
from nashc.nas.supernet import Supernet, calibrate, extract, extreme, gradient_conflict, leading, supernet

BASIC = """
name = "basic"
source = "the tests"
block = "basic"
resolution = 8
classes = 4
stems = [4, 6]

[[stages]]
widths = [4, 6]
depths = [1, 2]
kernels = [1, 3]

[[stages]]
widths = [6, 10]
depths = [1, 3]
stride = 2
"""
MBCONV = """
name = "mbconv"
source = "the tests"
block = "mbconv"
resolution = 8
classes = 4
stems = [4, 6]
heads = [8, 12]

[[stages]]
widths = [4, 6]
depths = [1, 2]
kernels = [3, 5]
expansions = [1, 2, 3]

[[stages]]
widths = [8, 12]
depths = [1, 2]
kernels = [3, 5]
expansions = [2, 4]
stride = 2
excite = true
"""
SPACES = {name: parse_space(text, name) for name, text in {"basic": BASIC, "mbconv": MBCONV}.items()}
X = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 4
CASES = [(space, operator) for space in SPACES for operator in (*OPERATORS.values(), "mixed")]


@cache
def shared(name: str) -> Supernet:
    """A supernet whose BN weights and biases are not the same for all channels, as after training."""
    made = supernet(SPACES[name], 3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.rand(parameter.shape, generator=generator))
    return made


def drawn(space: Space, operator: str, seed: object) -> Architecture:
    found = sample(space, Random(str(seed)))
    return found if operator == "mixed" else with_operator(found, operator)


def loss_of(scores: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(scores, LABELS)


@pytest.mark.parametrize(("name", "operator"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_a_subnet_is_the_network_that_is_extracted(name: str, operator: str, seed: int) -> None:
    source, architecture = shared(name), drawn(SPACES[name], operator, seed)
    net = extract(source, architecture)
    assert torch.equal(source(X, architecture), net.train()(X))
    calibrate(net, [X, 2 * X + 1])
    statistics = dict(net.named_buffers())
    before = {key: value.clone() for key, value in statistics.items()}
    assert torch.equal(source(X, architecture, statistics), net(X))
    assert not torch.equal(source(X, architecture), net(X))
    assert all(torch.equal(net.get_buffer(key), value) for key, value in before.items())


@pytest.mark.parametrize(("name", "operator"), CASES)
def test_gradients_are_those_of_the_network_and_stay_in_its_slices(name: str, operator: str) -> None:
    source, architecture = shared(name), drawn(SPACES[name], operator, "gradients")
    net = extract(source, architecture).train()
    loss_of(net(X)).backward()
    source.zero_grad()
    loss_of(source(X, architecture)).backward()
    used = source.owners(architecture)
    for key, parameter in net.named_parameters():
        found = source.get_parameter(used[key]).grad
        assert torch.allclose(leading(found, parameter.shape), parameter.grad, rtol=1e-4, atol=1e-6), key
        assert found.count_nonzero() == leading(found, parameter.shape).count_nonzero()
    others = set(dict(source.named_parameters())) - set(used.values())
    assert all(source.get_parameter(key).grad is None for key in others)


@pytest.mark.parametrize("name", SPACES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_every_architecture_finds_its_weights(name: str, seed: int) -> None:
    source, architecture = shared(name), sample(SPACES[name], Random(seed))
    shapes = {key: part.shape for key, part in source.slices(architecture).items()}
    assert shapes == {key: p.shape for key, p in HybridNet(architecture, SPACES[name]).named_parameters()}


@pytest.mark.parametrize("name", SPACES)
def test_the_largest_networks_use_all_of_the_weights_that_they_have_a_part_in(name: str) -> None:
    source = shared(name)
    for operator in OPERATORS.values():
        slices = source.slices(extreme(SPACES[name], lambda _, wanted=operator: wanted, largest=True))
        owners = source.owners(extreme(SPACES[name], lambda _, wanted=operator: wanted, largest=True))
        assert all(part.shape == source.get_parameter(owners[key]).shape for key, part in slices.items())


def test_depth_takes_the_first_blocks_and_operators_share_nothing_but_the_ends() -> None:
    source = shared("basic")
    deep = parse("6/6:c3,s3/10:a3,c3,c3", SPACES["basic"])
    shallow = parse("4/4:c3/6:a3", SPACES["basic"])
    assert set(source.owners(shallow).values()) <= set(source.owners(deep).values())
    conv, adder = (set(source.owners(with_operator(deep, name)).values()) for name in ("conv", "adder"))
    assert {key.split(".")[1] for key in conv & adder} == {"stem", "classifier"}


def test_slices_are_first_channels_and_central_taps() -> None:
    weight = torch.arange(2 * 3 * 5 * 5).view(2, 3, 5, 5)
    assert torch.equal(leading(weight, (1, 2, 3, 3)), weight[:1, :2, 1:4, 1:4])
    assert torch.equal(leading(weight, (1, 3, 1, 1)), weight[:1, :, 2:3, 2:3])


def test_statistics_are_the_mean_over_the_batches_whatever_was_before() -> None:
    net = extract(shared("basic"), drawn(SPACES["basic"], "mixed", 1))
    found = []
    for batches in ([X], [2 * X], [X, 2 * X]):
        calibrate(net, batches)
        found.append(net.get_buffer("stem.norm.running_mean").clone())
    assert torch.allclose((found[0] + found[1]) / 2, found[2], atol=1e-6)
    assert {m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}


@pytest.mark.parametrize("name", SPACES)
def test_the_same_seed_gives_the_same_weights_and_draws_from_no_other_generator(name: str) -> None:
    state = torch.random.get_rng_state()
    one, same, other = (supernet(SPACES[name], seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def by_masks(source: Supernet, pair: list[Architecture]) -> float:
    """The cosine over the weights that both use, from gradients and masks in the shape of the whole supernet."""
    weights = [p for p in source.parameters() if p.ndim > 1]
    vectors, masks = [], []
    for architecture in pair:
        found = torch.autograd.grad(loss_of(source(X, architecture)), weights, allow_unused=True)
        total = sum(part.sum() for part in source.slices(architecture).values())
        used = torch.autograd.grad(total, weights, allow_unused=True)
        for made, parts in ((vectors, found), (masks, used)):
            flat = [torch.zeros(w.numel()) if p is None else p.flatten() for w, p in zip(weights, parts, strict=True)]
            made.append(torch.cat(flat).double())
    both = masks[0] * masks[1]
    return float(functional.cosine_similarity(vectors[0] * both, vectors[1] * both, dim=0))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(4))
def test_conflict_counts_the_weights_that_both_use(name: str, seed: int) -> None:
    pair = [drawn(SPACES[name], "mixed", f"{seed} {i}") for i in range(2)]
    expected = by_masks(shared(name), pair)
    found = gradient_conflict(shared(name), pair, X, LABELS)
    assert found.cosine == pytest.approx(expected, abs=1e-5)
    assert found.pairs == (expected < 0)


def test_a_network_has_no_conflict_with_itself() -> None:
    one = drawn(SPACES["mbconv"], "mixed", 0)
    found = gradient_conflict(shared("mbconv"), [one, one], X, LABELS)
    assert (found.pairs, found.layers) == (0, 0)
    assert found.cosine == pytest.approx(1)


def test_what_is_no_subnet_is_refused() -> None:
    one = drawn(SPACES["basic"], "mixed", 0)
    with pytest.raises(NashcError, match=r"stem 99 is none of 4, 6; values of the space 'basic' are needed"):
        shared("basic")(X, replace(one, stem=99))
    with pytest.raises(NashcError, match="1 architectures; give two or more"):
        gradient_conflict(shared("basic"), [one], X, LABELS)
