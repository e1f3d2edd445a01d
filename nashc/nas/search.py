"""Joint search of models and accelerators: an evolution over architectures, each priced by its own best accelerator.

A worker proposes children of the best candidates known (nashc.nas.evolve). The coarse stage gives the promising ones
their least interval over all accelerators (nashc.search.survey); the best of them is scored by the proxy. Candidates
of the whole space and of its convolutions alone take turns, so that the multiplication-only rival has had the same
search.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from nashc.artifact import Compiled
from nashc.artifact import load as load_design
from nashc.board import load_board
from nashc.compiler import Progress
from nashc.errors import NashcError
from nashc.nas.architecture import Architecture, parse, sample, with_operator
from nashc.nas.evolve import propose
from nashc.nas.found import Family
from nashc.nas.job import SCORED_ON, Job, open_images
from nashc.nas.network import network_of
from nashc.nas.proxies import PROXIES, Candidate, combined
from nashc.nas.space import Space, conv_only
from nashc.nas.study import History, Scored, points
from nashc.nas.train import Images
from nashc.search.fixed import Fixed
from nashc.search.survey import Survey

HYBRID: Final = "hybrid"
CONV: Final = "conv"
FAMILIES: tuple[Family, ...] = (HYBRID, CONV)
SAMPLES = 6
"""Random networks of the space whose best options make the tables of the survey; and as many of each operator alone."""


def spaces_of(space: Space) -> Mapping[str, Space]:
    """What candidates of a family are drawn from: convolutions may be no operator of the space itself."""
    return {HYBRID: space, CONV: conv_only(space)}


@dataclass
class Pricing:
    """FPS of the architectures of a space on a board."""

    space: Space
    survey: Survey | Fixed

    def __post_init__(self) -> None:
        self.fps = lru_cache(maxsize=100_000)(self._fps)

    def _fps(self, architecture: Architecture) -> float:
        return self.survey.fps(network_of(architecture, self.space))


def pricing(job: Job) -> Pricing:
    """The coarse stage for a job's space and board, or its accelerator. Raises NashcError where no sample fits."""
    random = Random(job.seed)
    drawn = [sample(job.space, random) for _ in range(SAMPLES)]
    operators = dict.fromkeys(name for stage in job.space.stages for name in stage.operators)
    alone = [with_operator(sample(job.space, random), name) for name in operators for _ in range(SAMPLES)]
    networks = [network_of(a, job.space) for a in (*drawn, *alone)]
    if job.accelerator:
        given = given_accelerator(job)
        made = Pricing(job.space, Fixed.of(given.design, given.board, job.limits))
    else:
        made = Pricing(job.space, Survey(load_board(job.target), job.limits, networks))
    if not any(made.fps(a) for a in (*drawn, *alone)):
        raise NashcError(
            f"no network of '{job.space.name}' fits", where=job.target, hint="raise --max-lut and the like"
        )
    return made


def read_inputs(job: Job) -> Images:
    """The images that a proxy sees. Raises NashcError where they, the board or the accelerator cannot be read: better
    before a folder remembers them."""
    check_target(job)
    return open_images(job.space, job.data, "train", SCORED_ON)


def check_target(job: Job) -> None:
    """Raises NashcError where the board or the accelerator cannot be read: better before long work than after it."""
    load_board(job.target)
    if job.accelerator:
        given_accelerator(job)


def given_accelerator(job: Job) -> Compiled:
    """The design whose accelerator a job names. Raises NashcError where it is of another board."""
    given = load_design(job.accelerator)
    if given.board.name != load_board(job.target).name:
        raise NashcError(f"made for {given.board.name}", where=job.accelerator, hint=f"--target {given.board.name}")
    return given


class Worker:
    """One of any number of processes that score candidates of a study."""

    def __init__(self, job: Job, history: History, images: Images | None = None) -> None:
        """`images` are those of `read_inputs`, if they are read already."""
        self.job, self.history = job, history
        self.proxy = PROXIES.get(job.proxy)
        self.spaces = spaces_of(job.space)
        images = read_inputs(job) if images is None else images
        if job.images not in ("", images.digest):
            raise NashcError("other images than those of the search", where=job.data, hint="give the same data set")
        self.x, self.labels = images.batch(np.arange(len(images))), images.labels
        self.pricing = pricing(job)

    def run(self, seconds: float | None = None, progress: Progress | None = None) -> int:
        """Score candidates until the study has all that the job asks for, nothing new is found, or the time is over;
        returns how many. Raises NashcError where not one is fast enough."""
        # the matrices of the guesses are small: more threads would only wait, for each other and for other workers
        with threadpool_limits(1, "blas"):
            return self._run(seconds, progress)

    def _run(self, seconds: float | None, progress: Progress | None) -> int:
        begin, own = time.monotonic(), 0
        while True:
            known = self.history.scored()
            done = len(known) / self.job.candidates
            if progress is not None:
                spent = 0.0 if seconds is None else (time.monotonic() - begin) / seconds
                progress(f"{len(known)} of {self.job.candidates} candidates", min(1.0, max(done, spent)))
            if done >= 1:
                while self.history.abandoned() is not None:  # nobody needs those any more
                    pass
            if done >= 1 or (seconds is not None and time.monotonic() - begin >= seconds):
                return own
            scored = self.one()
            if scored is None:
                if not known:
                    raise NashcError(
                        f"no architecture of '{self.job.space.name}' reaches {self.job.min_fps:g} FPS",
                        where=self.job.target,
                        hint="lower --min-fps, or search another space",
                    )
                return own
            own += scored

    def one(self) -> bool | None:
        """Score one candidate; False where another worker has it, None where nothing new is left."""
        left = self.history.abandoned()
        claim = self.history.begin()
        known = self.history.scored()
        if left is not None:
            family, architecture = left.family, parse(left.architecture, self.spaces[left.family])
        else:
            turn = claim.number % len(FAMILIES)
            made = ((f, self._proposed(claim.number, f, known)) for f in (*FAMILIES[turn:], *FAMILIES[:turn]))
            found = next(((f, a) for f, a in made if a is not None), None)
            if found is None:
                self.history.give_up(claim.number)
                return None
            family, architecture = found
        if not self.history.claim(claim, family, str(architecture)):
            return False
        candidate = Candidate(architecture, self.spaces[family], self.x, self.labels, self.job.seed)
        terms = self.proxy.terms(candidate)
        score = float(combined([*(s.terms for s in known), terms])[-1])
        return self.history.record(claim, terms, score, self.pricing.fps(architecture))

    def _proposed(self, number: int, family: str, known: list[Scored]) -> Architecture | None:
        space = self.spaces[family]
        table = points(known)
        own = [i for i, s in enumerate(known) if s.family == family]
        parents = [parse(known[i].architecture, space) for i in own]
        random = Random(f"{self.job.seed} {number}")
        seen = self.history.architectures()
        return propose(space, parents, table[own], seen, self.pricing.fps, random, self.job.min_fps)
