"""The evolutionary part of a search: who is parent, who is dominated, and which child is worth scoring.

Two objectives, both maximised: the score (metric or accuracy) and the frames a second that the accelerator's coarse
stage gives the network.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from random import Random

import numpy as np

from nashc.nas.architecture import Architecture, crossover, mutate, sample
from nashc.nas.space import Space

POPULATION = 48
"""Parents come from so many of the best."""
FOUNDERS = 24
"""Candidates that are drawn at random before any has parents."""
CROSSED = 0.5
"""Share of the children that have two parents."""
RATE = 0.12
"""Of mutation, for each axis."""
SIBLINGS = 8
"""Children of which the coarse stage prunes those that are not worth scoring."""
ATTEMPTS = 200


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


def propose(
    space: Space,
    parents: Sequence[Architecture],
    points: np.ndarray,
    seen: Container[str],
    speed: Callable[[Architecture], float],
    size: Callable[[Architecture], float],
    random: Random,
    min_fps: float = 0.0,
) -> Architecture | None:
    """A new architecture worth scoring; None where nothing new that is fast enough was found.

    `points` [n, 2] are score and FPS of the parents. Of a few siblings those go that are below `min_fps`, which their
    bound proves, and those that a sibling beats in both speed and size: less work, and slower at it.
    """
    siblings: dict[str, tuple[Architecture, float, float]] = {}
    pool = best(points, POPULATION) if len(parents) >= FOUNDERS else []
    for _ in range(ATTEMPTS):
        child = _child(space, parents, pool, random)
        name = str(child)
        if name in seen or name in siblings:
            continue
        fps = speed(child)
        if fps > 0 and fps >= min_fps:
            siblings[name] = child, fps, size(child)
        if len(siblings) >= (SIBLINGS if pool else 1):
            break
    if not siblings:
        return None
    found = list(siblings.values())
    worth = front(np.array([[fps, macs] for _, fps, macs in found]))
    return found[int(random.choice(worth))][0]


def _child(space: Space, parents: Sequence[Architecture], pool: Sequence[int], random: Random) -> Architecture:
    if not pool:
        return sample(space, random)
    one, other = (parents[pool[min(random.choices(range(len(pool)), k=2))]] for _ in range(2))
    return child_of(one, other, space, random)


def child_of(one: Architecture, other: Architecture, space: Space, random: Random) -> Architecture:
    """A mutation of one of them or of their crossover."""
    return mutate(crossover(one, other, random) if random.random() < CROSSED else one, space, random, RATE)
