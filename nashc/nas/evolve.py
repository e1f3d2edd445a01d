"""The evolutionary part of a search: who is parent, who is dominated, and which child is worth scoring.

Two objectives, both maximised: the score (metric or accuracy) and the frames a second that the accelerator's coarse
stage gives the network.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from random import Random

import numpy as np
from scipy.stats import rankdata

from nashc.nas.architecture import Architecture, crossover, mutate, sample
from nashc.nas.space import Space
from nashc.nas.surrogate import Surrogate, encoded

POPULATION = 48
"""Parents come from so many of the best."""
FOUNDERS = 24
"""Candidates that are drawn at random before any has parents."""
CROSSED = 0.5
"""Share of the children that have two parents."""
RATE = 0.12
"""Of mutation, for each axis."""
ATTEMPTS = 200
"""Children whose score and speed are guessed."""
SIBLINGS = 4
"""Those of them whose speed is computed."""
FITTED = 400
"""Guesses come from so many of the best."""
MARGIN = 0.05
"""Of a reference point below all others, in shares of their range."""
SLOWEST = 1e-9


def front(points: np.ndarray) -> np.ndarray:
    """Indices of the points [n, 2] that no other one dominates, in their order; of equal ones the first."""
    if not len(points):
        return np.zeros(0, np.int64)
    order = np.lexsort((-points[:, 1], -points[:, 0]))
    second = points[order, 1]
    before = np.concatenate([[-np.inf], np.maximum.accumulate(second)[:-1]])
    return np.sort(order[second > before])


def best(points: np.ndarray, count: int) -> list[int]:
    """The best so many points: front by front, the last front thinned by crowding."""
    left, chosen = np.arange(len(points)), list[int]()
    while len(left) and len(chosen) < count:
        members = left[front(points[left])]
        order = np.argsort(-crowding(points[members]), kind="stable")
        chosen += [int(members[i]) for i in order[: count - len(chosen)]]
        left = np.setdiff1d(left, members)
    return chosen


def crowding(points: np.ndarray) -> np.ndarray:
    """Distance of each point to its neighbours, summed over the objectives in shares of their range; ends are endless.

    NSGA-II (Deb et al., 2002), section III B.
    """
    distance = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if span > 0 and len(points) > 2:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """Area that the points [n, 2] dominate above the reference point."""
    shifted = np.maximum(points - np.asarray(reference), 0)
    area = height = 0.0
    for x, y in sorted(shifted.tolist(), reverse=True):
        if y > height:
            area += x * (y - height)
            height = y
    return area


def gains(points: np.ndarray, offers: np.ndarray) -> np.ndarray:
    """The area [m] that each offer [m, 2] alone adds to what the points [n, 2] dominate, above a point that is a little
    worse than all of both: the ends of a front count too."""
    both = np.vstack([points, offers])
    worst, span = both.min(axis=0), np.ptp(both, axis=0)
    floor = worst - MARGIN * np.where(span > 0, span, 1.0)
    steps = points[front(points)]
    steps = steps[np.argsort(steps[:, 0])]
    edges, heights = np.concatenate([[floor[0]], steps[:, 0], [np.inf]]), np.append(steps[:, 1], floor[1])
    widths = np.maximum(np.minimum(offers[:, :1], edges[1:]) - edges[:-1], 0)
    area: np.ndarray = (widths * np.maximum(offers[:, 1:] - heights, 0)).sum(axis=1)
    return area


def comparable(points: np.ndarray) -> np.ndarray:
    """Scores as the share of all that are no better, FPS by its logarithm [n, 2]: axes on which areas say something. A
    score may be of any scale, and a sum of logarithms of ranks tells bad networks apart more than good ones."""
    shares = rankdata(points[:, 0], method="max") / len(points)
    return np.column_stack([shares, np.log(np.maximum(points[:, 1], SLOWEST))])


def propose(
    space: Space,
    parents: Sequence[Architecture],
    points: np.ndarray,
    seen: Container[str],
    speed: Callable[[Architecture], float],
    random: Random,
    min_fps: float = 0.0,
) -> Architecture | None:
    """A new architecture worth scoring; None where nothing new that is fast enough was found.

    `points` [n, 2] are score and FPS of the parents. Once there are enough, score and speed of many children are
    guessed from them; those that would widen the front most get their speed, and of them the one that then widens it
    most is worth its score. Guessed scores are drawn from what they may be, so that unlikely ones have their turn.
    """
    if len(parents) < FOUNDERS:
        return _founder(space, seen, speed, random, min_fps)
    table = comparable(points)
    known = best(table, FITTED)
    children: dict[str, Architecture] = {}
    for _ in range(ATTEMPTS):
        child = _child(space, parents, known[:POPULATION], random)
        if (name := str(child)) not in seen:
            children[name] = child
    if not children:
        return None
    found = list(children.values())
    rows, asked = [encoded(parents[i], space) for i in known], [encoded(child, space) for child in found]
    guessed, error = Surrogate(rows, table[known]).guess(asked)
    guessed[:, 0] += error[:, 0] * np.array([random.gauss(0.0, 1.0) for _ in found])
    slow = guessed[:, 1] < np.log(max(min_fps, SLOWEST))
    order = np.lexsort((-gains(table, guessed), slow))
    siblings: list[tuple[int, float]] = []
    for n in order.tolist():
        if len(siblings) == SIBLINGS:
            break
        exact = speed(found[n])
        if exact > 0 and exact >= min_fps:
            siblings.append((n, float(np.log(exact))))
    if not siblings:
        return None
    won = gains(table, np.array([(guessed[n, 0], exact) for n, exact in siblings]))
    return found[siblings[int(np.argmax(won))][0]]


def _founder(
    space: Space, seen: Container[str], speed: Callable[[Architecture], float], random: Random, min_fps: float
) -> Architecture | None:
    """A new architecture at random; where none drawn so far is fast enough, often a mutation of the fastest of them."""
    fastest: tuple[float, Architecture] | None = None
    for _ in range(ATTEMPTS):
        if fastest is None or random.random() < CROSSED:
            made = sample(space, random)
        else:
            made = mutate(fastest[1], space, random, RATE)
        if str(made) in seen:
            continue
        fps = speed(made)
        if fps > 0 and fps >= min_fps:
            return made
        if fps > 0 and (fastest is None or fps > fastest[0]):
            fastest = fps, made
    return None


def _child(space: Space, parents: Sequence[Architecture], pool: Sequence[int], random: Random) -> Architecture:
    one, other = (parents[pool[min(random.choices(range(len(pool)), k=2))]] for _ in range(2))
    return child_of(one, other, space, random)


def child_of(one: Architecture, other: Architecture, space: Space, random: Random) -> Architecture:
    """A mutation of one of them or of their crossover."""
    return mutate(crossover(one, other, random) if random.random() < CROSSED else one, space, random, RATE)
