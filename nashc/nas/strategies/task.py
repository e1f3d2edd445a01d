"""What a search strategy is asked, what it answers, and what it may spend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite

from nashc.errors import NashcError
from nashc.nas.architecture import Architecture
from nashc.nas.build import HybridNet
from nashc.nas.layout import total_macs
from nashc.nas.proxies import PROXIES
from nashc.nas.recipe import Recipe
from nashc.nas.space import Space
from nashc.nas.supernet import Conflict
from nashc.nas.train import Images
from nashc.registry import Registry

FORWARD = 1 / 3
"""Of a training step's work: what a pass forward costs; the way back takes two such passes."""


@dataclass(frozen=True, slots=True)
class Task:
    """A search for one trained network.

    budget: image-MACs. An image that a network is trained on costs the network's MAC-equivalents, one that it only
    classifies a third of them, whatever the operators: a run is the same on every machine, unlike by seconds.
    candidates: the architectures to choose from, where it is not the whole space. fps, min_fps: candidates that are
    slower are out. scored: architectures that the proxy sees; pool: those of them that a supernet is made of;
    finalists: those that are trained from scratch.
    """

    space: Space
    train: Images
    validation: Images
    budget: float
    proxy: str = "hybrid"
    candidates: tuple[Architecture, ...] = ()
    fps: Callable[[Architecture], float] = lambda _: 1.0
    min_fps: float = 0.0
    recipe: Recipe = field(default_factory=Recipe)
    scored: int = 256
    pool: int = 16
    finalists: int = 1
    seed: int = 0

    def check(self) -> None:
        """Raises NashcError for what cannot be searched."""
        PROXIES.get(self.proxy)
        if not (self.budget > 0 and isfinite(self.budget)):
            raise NashcError(f"a budget of {self.budget:g} image-MACs", hint="it must be positive")
        if not 1 <= self.finalists <= self.scored or not 2 <= self.pool <= self.scored:
            raise NashcError(
                f"{self.finalists} finalists and a pool of {self.pool} from {self.scored} architectures",
                hint="score at least as many as there are to be, with two or more in the pool",
            )
        if self.recipe.batch > len(self.train):
            raise NashcError(f"batches of {self.recipe.batch} of {len(self.train)} images", where="training data")

    def fast(self, architecture: Architecture) -> bool:
        """It fits the board, and is as fast as it has to be."""
        return 0 < self.fps(architecture) >= self.min_fps

    def size(self, architecture: Architecture) -> int:
        """MAC-equivalents of an image."""
        return total_macs(architecture, self.space)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The trained network; `validation` is its accuracy on the validation images, `cpu_seconds` are by stage, `spent`
    image-MACs; `conflict` is of the subnets that a supernet was trained for."""

    architecture: Architecture
    net: HybridNet
    validation: float
    cpu_seconds: Mapping[str, float]
    spent: float
    conflict: Conflict | None = None


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way from a task to a trained network. `source` says whose."""

    name: str
    source: str
    run: Callable[[Task], Outcome]


STRATEGIES: Registry[Strategy] = Registry("strategy")


@dataclass
class Ledger:
    """What a run has spent of its budget [image-MACs], and CPU seconds of all threads by stage."""

    budget: float
    spent: float = 0.0
    cpu_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.budget - self.spent

    def trained(self, images: int, size: float) -> None:
        self.spent += images * size

    def classified(self, images: int, size: float) -> None:
        self.spent += images * size * FORWARD

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.process_time()
        try:
            yield
        finally:
            self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + time.process_time() - begin
