"""How well proxies rank trained networks: rank correlations with bootstrap intervals, over all and at equal size.

A ground truth is a file of JSON lines, one training each: space, resolution, channels, data (a name), architecture,
seed, accuracy. Networks of one space and data set make a group; trainings with several seeds count by their mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from scipy.stats import kendalltau, spearmanr

from nashc.errors import NashcError
from nashc.nas.architecture import parse
from nashc.nas.job import SCORED_ON, open_images
from nashc.nas.layout import total_macs
from nashc.nas.proxies import Candidate, Proxy, combined
from nashc.nas.proxies.candidate import Terms
from nashc.nas.space import Space, load_space

BANDS = 3
"""Of equal numbers of networks, by FLOPs."""
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)
LEAST_GROUP = 4


class Row(msgspec.Struct, frozen=True):
    """A training of the ground truth; it may say more, such as seconds."""

    space: str
    resolution: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    channels: Annotated[int, msgspec.Meta(ge=1, le=3)]
    data: str
    architecture: str
    seed: int
    accuracy: Annotated[float, msgspec.Meta(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Group:
    """Networks of one space that were trained on one data set, with the mean accuracy of their seeds.

    repeated: for each network the accuracies of all its seeds.
    """

    space: Space
    data: str
    architectures: tuple[str, ...]
    repeated: tuple[tuple[float, ...], ...]

    @property
    def name(self) -> str:
        side = self.space.resolution
        return f"{self.space.name}, {self.data}, {self.space.channels} x {side} x {side}"

    @property
    def accuracy(self) -> np.ndarray:
        return np.array([np.mean(own) for own in self.repeated])

    @property
    def flops(self) -> np.ndarray:
        return np.array([total_macs(parse(a, self.space), self.space) for a in self.architectures], np.float64)

    @property
    def noise(self) -> float | None:
        """Standard deviation of accuracy between seeds; None where no network has several."""
        found = [np.var(own, ddof=1) for own in self.repeated if len(own) > 1]
        return float(np.sqrt(np.mean(found))) if found else None


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rank correlations of one proxy with accuracy in one group; intervals of 95 %; seconds for a network.

    `banded`: the mean of Spearman's coefficient within bands of equal size.
    """

    proxy: str
    group: str
    spearman: float
    spearman_interval: tuple[float, float]
    kendall: float
    kendall_interval: tuple[float, float]
    banded: float
    banded_interval: tuple[float, float]
    seconds: float


def read_groups(path: str | Path) -> tuple[Group, ...]:
    """The groups of a ground truth. Raises NashcError for a file that is none."""
    rows: list[Row] = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NashcError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from None
    for number, line in enumerate(lines, 1):
        try:
            row = msgspec.json.decode(line, type=Row)
        except (msgspec.DecodeError, RecursionError) as error:
            raise NashcError(f"line {number}: {error}", where=str(path), hint="a JSON object a line") from None
        rows.append(row)
    return tuple(_groups(rows, str(path)))


def _groups(rows: Sequence[Row], where: str) -> list[Group]:
    found: dict[tuple[str, int, int, str], dict[str, dict[int, float]]] = {}
    for row in rows:
        key = row.space, row.resolution, row.channels, row.data
        found.setdefault(key, {}).setdefault(row.architecture, {})[row.seed] = row.accuracy
    groups = []
    for (name, resolution, channels, data), own in found.items():
        if len(own) < LEAST_GROUP:
            raise NashcError(f"{len(own)} networks of '{name}' on '{data}'", where=where, hint=f"give {LEAST_GROUP}")
        space = msgspec.structs.replace(load_space(name), resolution=resolution, channels=channels)
        for architecture in own:
            parse(architecture, space)
        groups.append(Group(space, data, tuple(own), tuple(tuple(seeds.values()) for seeds in own.values())))
    return groups


def measure(
    group: Group, proxies: Sequence[Proxy], path: str, progress: Callable[[str, float], None] | None = None
) -> dict[str, tuple[list[Terms], float]]:
    """Terms of every network of a group by proxy, and seconds a network; `path` is the group's data set."""
    images = open_images(group.space, path, "train", SCORED_ON)
    x, labels = images.batch(np.arange(len(images))), images.labels
    found: dict[str, tuple[list[Terms], float]] = {}
    for n, proxy in enumerate(proxies):
        terms, begin = [], time.perf_counter()
        for i, text in enumerate(group.architectures):
            if progress is not None:
                share = (n + i / len(group.architectures)) / len(proxies)
                progress(f"{group.name}: {proxy.name}", share)
            terms.append(proxy.terms(Candidate(parse(text, group.space), group.space, x, labels)))
        found[proxy.name] = terms, (time.perf_counter() - begin) / len(group.architectures)
    return found


def ranked(proxy: str, groups: Sequence[Group], terms: Sequence[Sequence[Terms]], seconds: float) -> list[Ranked]:
    """Correlations of one proxy in each group of one space and, where there are several, their mean over the groups."""
    scores = [combined(own) for own in terms]
    rows = [_row(proxy, g.name, [g], [s], seconds) for g, s in zip(groups, scores, strict=True)]
    mean = f"{groups[0].space.name}, mean of {len(groups)} data sets"
    return rows + ([_row(proxy, mean, groups, scores, seconds)] if len(groups) > 1 else [])


def ceiling(group: Group, seed: int = 0) -> float | None:
    """Spearman's coefficient that a proxy of the true accuracies would reach, from the noise between seeds: the mean
    over draws of noise for the means that were measured. None where no network has several seeds."""
    if group.noise is None:
        return None
    random = np.random.default_rng(seed)
    truth = group.accuracy
    deviation = group.noise / np.sqrt([len(own) for own in group.repeated])
    spread = np.sqrt(max(0.0, float(np.var(truth) - np.mean(deviation**2))) / max(float(np.var(truth)), 1e-30))
    shrunk = truth.mean() + (truth - truth.mean()) * spread  # what is left of the spread without the noise
    drawn = [spearmanr(shrunk, shrunk + random.normal(0, deviation)).statistic for _ in range(RESAMPLES)]
    return float(np.mean(drawn))


def _row(proxy: str, name: str, groups: Sequence[Group], scores: Sequence[np.ndarray], seconds: float) -> Ranked:
    random = np.random.default_rng(0)
    parts = [(s, g.accuracy, g.flops) for s, g in zip(scores, groups, strict=True)]
    value = _correlations(parts)
    drawn = []
    for _ in range(RESAMPLES):
        again = [random.integers(0, len(s), len(s)) for s, _, _ in parts]
        drawn.append(_correlations([(s[i], a[i], f[i]) for (s, a, f), i in zip(parts, again, strict=True)]))
    low, high = np.nanpercentile(np.array(drawn), INTERVAL, axis=0)
    intervals = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    return Ranked(
        proxy,
        name,
        float(value[0]),
        intervals[0],
        float(value[1]),
        intervals[1],
        float(value[2]),
        intervals[2],
        seconds,
    )


def _correlations(parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """Spearman, Kendall and Spearman within bands, each the mean over the groups."""
    rows = []
    for scores, truth, flops in parts:
        bands = np.array_split(np.argsort(flops, kind="stable"), BANDS)
        within = [_spearman(scores[b], truth[b]) for b in bands if len(b) > 2]
        kendall = kendalltau(scores, truth).statistic if len(set(scores.tolist())) > 1 else 0.0
        rows.append([_spearman(scores, truth), np.nan_to_num(kendall), np.mean(within) if within else np.nan])
    means: np.ndarray = np.mean(np.array(rows), axis=0)
    return means


def _spearman(scores: np.ndarray, truth: np.ndarray) -> float:
    """0 where the proxy, or the truth, says the same of all."""
    if len(set(scores.tolist())) < 2 or len(set(truth.tolist())) < 2:
        return 0.0
    return float(spearmanr(scores, truth).statistic)
