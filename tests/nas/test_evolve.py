"""Fronts, crowding and areas against brute force; what is proposed is new, fast enough and widens the front."""

from functools import lru_cache
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SPACE, WIDER

from nashc.nas.architecture import parse, sample
from nashc.nas.evolve import ATTEMPTS, FOUNDERS, SIBLINGS, best, crowding, front, gains, hypervolume, propose
from nashc.nas.layout import total_macs
from nashc.nas.space import load_space

SEEDS = st.integers(0, 10**9)


@st.composite
def tables(draw, least=0):
    """Points [n, 2] with many ties."""
    found = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=least, max_size=14))
    return np.array(found, np.float64).reshape(-1, 2)


def dominated(point, points):
    return any((other >= point).all() and (other > point).any() for other in points)


@given(tables())
def test_the_front_is_what_no_other_dominates_the_first_of_equals(points):
    wanted = []
    for i, point in enumerate(points):
        if not dominated(point, points) and not any((points[j] == point).all() for j in wanted):
            wanted.append(i)
    assert front(points).tolist() == wanted


@given(tables(), st.integers(0, 16))
def test_the_best_are_so_many_and_nothing_left_dominates_them(points, count):
    chosen = best(points, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(points))
    left = [points[i] for i in range(len(points)) if i not in chosen]
    assert not any(dominated(points[i], left) for i in chosen)


@given(tables(least=1))
def test_the_front_comes_first_and_the_crowded_of_it_last(points):
    on_front = front(points)
    chosen = best(points, len(points))[: len(on_front)]
    assert sorted(chosen) == on_front.tolist()
    room = dict(zip(on_front.tolist(), crowding(points[on_front]), strict=True))
    assert [room[i] for i in chosen] == sorted(room.values(), reverse=True)


@given(st.lists(st.integers(0, 100), min_size=3, max_size=10, unique=True))
def test_crowding_is_the_gap_between_the_neighbours(firsts):
    """On a front neighbours are the same in both objectives, so the shares can be written down."""
    firsts = sorted(firsts)
    points = np.array([(x, -(x**2)) for x in firsts], np.float64)
    found = crowding(points)
    assert np.isinf(found[[0, -1]]).all()
    for i in range(1, len(points) - 1):
        shares = (points[i + 1] - points[i - 1]) / (points[-1] - points[0])
        assert found[i] == pytest.approx(shares.sum())


@given(tables(), st.integers(-1, 3), st.integers(-1, 3))
def test_the_hypervolume_is_the_cells_that_are_covered(points, x, y):
    covered = {
        (i, j) for px, py in points.astype(int).tolist() for i in range(x, px) for j in range(y, py)
    }  # fmt: skip
    assert hypervolume(points, (x, y)) == len(covered)


@given(tables(least=1), tables(least=1))
def test_the_gain_of_an_offer_is_the_area_that_it_adds(points, offers):
    both = np.vstack([points, offers])
    span = np.ptp(both, axis=0)
    floor = both.min(axis=0) - 0.05 * np.where(span > 0, span, 1.0)
    before = hypervolume(points, floor)
    wanted = [hypervolume(np.vstack([points, offer]), floor) - before for offer in offers]
    assert gains(points, offers) == pytest.approx(wanted, abs=1e-9)


def work(architecture):
    return float(total_macs(architecture, WIDER))


def speed(architecture):
    """Of no order that size would know; a tenth does not fit."""
    value = Random(str(architecture)).random()
    return 0.0 if value < 0.1 else value


@st.composite
def histories(draw):
    """Parents, their points and what was seen: the parents and more."""
    chance = Random(draw(SEEDS))
    seen = {str(a): a for a in (sample(WIDER, chance) for _ in range(draw(st.integers(0, 60))))}
    parents = list(seen.values())[: draw(st.integers(0, 2 * FOUNDERS))]
    return parents, np.array([(chance.random(), speed(a)) for a in parents]).reshape(-1, 2), set(seen), chance


@settings(deadline=None)
@given(histories(), st.sampled_from([0.0, 0.5, 0.9]))
def test_what_is_proposed_is_new_and_fast_enough(history, least):
    parents, points, seen, chance = history
    for _ in range(5):
        child = propose(WIDER, parents, points, seen, speed, chance, least)
        assert child is not None
        assert str(child) not in seen
        assert speed(child) >= max(least, 0.1)


@settings(deadline=None)
@given(histories())
def test_the_speed_of_few_children_is_computed(history):
    parents, points, seen, chance = history
    met = []

    def noted(architecture):
        met.append(architecture)
        return speed(architecture)

    child = propose(WIDER, parents, points, seen, noted, chance)
    assert child in met
    fitting = sum(speed(a) > 0 for a in met)
    assert fitting == (SIBLINGS if len(parents) >= FOUNDERS else 1)


def area_after(count, chance, drawn):
    """Of a search of so many, whose score is work that counts more in early stages, against less work."""

    def score(architecture):
        return sum(s.width * len(s.blocks) / (i + 1) for i, s in enumerate(architecture.stages))

    def fast(architecture):
        return 1e9 / work(architecture)

    found, points = {}, []
    for _ in range(count):
        a = None
        while a is None or str(a) in found:
            table = np.array(points).reshape(-1, 2)
            a = sample(WIDER, chance) if drawn else propose(WIDER, list(found.values()), table, found, fast, chance)
        found[str(a)] = a
        points.append((score(a), fast(a)))
    return hypervolume(np.column_stack([np.array(points)[:, 0], np.log(np.array(points)[:, 1])]), (0, 0))


def test_a_search_finds_a_wider_front_than_random_drawing():
    won = [area_after(60, Random(n), False) > area_after(60, Random(n), True) for n in range(5)]
    assert sum(won) >= 4


def test_founders_are_bred_until_they_are_fast_enough():
    """Where one network in 2,187 is: hardly any ATTEMPTS at random would find it."""
    space = load_space("resnet-cifar")
    least = 1.0 / total_macs(parse("8/8:c3/16:c3/32:c3", space), space)
    speeds = lru_cache(lambda a: 1.0 / total_macs(a, space))
    drawn = [max(speeds(sample(space, chance)) for _ in range(ATTEMPTS)) >= least for chance in map(Random, range(10))]
    found = [propose(space, [], np.zeros((0, 2)), set(), speeds, Random(n), least) for n in range(10)]
    assert sum(drawn) <= 3
    assert sum(a is not None and speeds(a) >= least for a in found) >= 8


def test_the_whole_of_a_small_space_is_proposed_and_then_nothing():
    seen, chance = set(), Random(0)
    for _ in range(SPACE.size):
        seen.add(str(propose(SPACE, [], np.zeros((0, 2)), seen, lambda _: 1.0, chance)))
    assert "None" not in seen
    assert len(seen) == SPACE.size
    assert propose(SPACE, [], np.zeros((0, 2)), seen, lambda _: 1.0, chance) is None


def test_nothing_is_proposed_where_nothing_is_fast_enough():
    assert propose(SPACE, [], np.zeros((0, 2)), set(), lambda _: 1.0, Random(0), min_fps=2.0) is None
    assert propose(SPACE, [], np.zeros((0, 2)), set(), lambda _: 0.0, Random(0)) is None


def test_more_children_are_of_the_better_parents():
    chance = Random(0)
    parents = [sample(WIDER, chance) for _ in range(2 * FOUNDERS)]
    points = np.array([(a.stem, 1.0) for a in parents])
    children = [propose(WIDER, parents, points, set(), lambda _: 1.0, chance) for _ in range(200)]
    count = {stem: sum(c.stem == stem for c in children) for stem in WIDER.stems}
    assert count[max(WIDER.stems)] > 2 * count[min(WIDER.stems)]
