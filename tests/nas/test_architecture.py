"""Architectures and their strings; moves through a space stay inside it."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import SPACE, TOML

from nashc.errors import NashcError
from nashc.nas.architecture import crossover, mutate, parse, problems, sample, with_operator
from nashc.nas.space import conv_only, load_space, parse_space, space_names

SPACES = {name: load_space(name) for name in space_names()} | {"tiny": SPACE}
SEEDS = st.integers(0, 10**9)
DRAWN = given(st.sampled_from(sorted(SPACES)), SEEDS)
HEADED = "8/8:c3e2/16:s3e2/32:a5e4/128"


@DRAWN
def test_a_sample_is_in_its_space_and_its_string_says_all(name, seed):
    architecture = sample(SPACES[name], Random(seed))
    assert problems(architecture, SPACES[name]) == []
    assert parse(str(architecture), SPACES[name]) == architecture


def test_every_value_of_a_space_is_sampled():
    chance = Random(0)
    assert len({sample(SPACE, chance) for _ in range(2_000)}) == SPACE.size


@given(st.sampled_from(sorted(SPACES)), SEEDS, st.sampled_from([0.01, 0.1, 1.0]))
def test_a_mutation_changes_something_within_the_space(name, seed, rate):
    chance = Random(seed)
    before = sample(SPACES[name], chance)
    after = mutate(before, SPACES[name], chance, rate)
    assert after != before
    assert problems(after, SPACES[name]) == []


@DRAWN
def test_a_mutation_moves_sizes_by_a_step(name, seed):
    space, chance = SPACES[name], Random(seed)
    before = sample(space, chance)
    after = mutate(before, space, chance, 1.0)
    steps = set(pairwise(space.stems)) | {(b, a) for a, b in pairwise(space.stems)}
    assert len(space.stems) == 1 or (before.stem, after.stem) in steps
    for one, other, stage in zip(before.stages, after.stages, space.stages, strict=True):
        assert abs(stage.widths.index(one.width) - stage.widths.index(other.width)) <= 1
        assert abs(stage.depths.index(len(one.blocks)) - stage.depths.index(len(other.blocks))) <= 1


def test_mutations_lead_everywhere():
    chance, at, seen = Random(0), sample(SPACE, Random(0)), set()
    for _ in range(3_000):
        at = mutate(at, SPACE, chance)
        seen.add(at)
    assert len(seen) == SPACE.size


def test_the_only_network_of_a_space_stays_as_it_is():
    space = parse_space(TOML.replace("[8, 12]", "[8]").replace("[1, 2]", "[1]\noperators = ['conv']"), "one")
    only = sample(space, Random(0))
    assert mutate(only, space, Random(0)) == only


@DRAWN
def test_a_child_has_each_stage_from_a_parent(name, seed):
    space, chance = SPACES[name], Random(seed)
    one, other = sample(space, chance), sample(space, chance)
    child = crossover(one, other, chance)
    assert child.stem in (one.stem, other.stem)
    assert child.head in (one.head, other.head)
    for made, *parents in zip(child.stages, one.stages, other.stages, strict=True):
        assert made in parents


def test_every_mixture_of_two_parents_is_born():
    space, chance = SPACES["resnet-cifar"], Random(0)
    one, other = (with_operator(sample(space, Random(seed)), name) for seed, name in ((1, "conv"), (2, "adder")))
    born = {tuple(s.blocks[0].operator for s in crossover(one, other, chance).stages) for _ in range(200)}
    assert len(born) == 2 ** len(space.stages)


@DRAWN
def test_of_convolutions_alone_it_is_in_the_rival_space(name, seed):
    architecture = with_operator(sample(SPACES[name], Random(seed)), "conv")
    assert problems(architecture, conv_only(SPACES[name])) == []


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("/128", "", "4 parts; write stem, 3 stages, head, with / between"),
        ("/128", "/128/128", "6 parts"),
        ("c3e2", "x3e2", r"'x3e2' is no block; .*c \(conv\), s \(shift\), a \(adder\)"),
        ("c3e2", "c", "'c' is no block"),
        ("c3e2", "c3e", "'c3e' is no block"),
        ("c3e2", "", "'' is no block"),
        ("c3e2", "c3e2,", "'' is no block"),
        ("c3e2", "c٣e2", "'c٣e2' is no block"),
        ("8/8:", "8/:", "'' is no width"),
        ("8/8:", "-8/8:", "'-8' is no width"),
        ("/128", "/1e2", "'1e2' is no width"),
        ("8/8:", "9/8:", "stem 9 is none of 8, 16"),
        ("/128", "/64", "head 64 is none of 128"),
        ("16:", "17:", "stage 1: width 17 is none of 16, 24, 32"),
        ("c3e2", "c3e2,c3e2,c3e2,c3e2", "stage 0: depth 4 is none of 1, 2, 3"),
        ("c3e2", "c7e2", "stage 0: kernel 7 is none of 3, 5"),
        ("a5e4", "a5e6", "stage 2: expansion 6 is none of 2, 3, 4"),
        ("a5e4", "a5", "stage 2: expansion 1 is none of"),
    ],
)
def test_a_string_that_is_none_says_why(old, new, text):
    space = SPACES["mobilenet-cifar"]
    assert str(parse(HEADED, space)) == HEADED
    with pytest.raises(NashcError, match=text):
        parse(HEADED.replace(old, new, 1), space)


def test_an_operator_of_another_space_is_refused():
    with pytest.raises(NashcError, match=r"stage 0: operator shift is none of conv; .*'tiny:conv'"):
        parse("8/8:s3", conv_only(SPACE))
