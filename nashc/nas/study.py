"""The history of a search, in an Optuna study: a SQLite file, or a PostgreSQL server for many machines.

A trial is one candidate: its family, its architecture, what the proxy measured, its score among the candidates known
then, and its FPS. Workers share nothing else. A candidate that a killed worker left is taken up by whoever comes next,
so nothing is lost, and no architecture is scored twice.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import SQLAlchemyError

from nashc.errors import NashcError
from nashc.nas.found import Family
from nashc.nas.job import Job, encoded
from nashc.nas.proxies.candidate import Terms, combined

STUDY_FILE = "study.db"
STALE_SECONDS = 120.0
"""A candidate that is not scored by then was left by a worker that is gone."""
LOOKS, LOOK_SECONDS = 5, 0.05
"""How often a worker looks whether one with a later number gives its architecture up."""
LOCK_SECONDS = 60
"""How long a worker waits for another one's write."""
ARCHITECTURE, FAMILY, TERMS, BEGUN, JOB = "architecture", "family", "terms", "begun", "job"
"""Attributes of trials, and of the study the last one."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate of the history."""

    number: int
    family: Family
    architecture: str
    terms: Terms
    fps: float


class History:
    """The study of one search. Raises NashcError where the storage cannot be used or is of another search."""

    def __init__(self, url: str, name: str, job: str) -> None:
        """`job` describes the search; all workers of a study must have the same."""
        self.url, self.name = url, name
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self._told():
            self.storage = _storage(url)
            self.study = optuna.create_study(
                storage=self.storage, study_name=name, directions=["maximize", "maximize"], load_if_exists=True
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self.study.set_metric_names(["score", "fps"])
            found = self.study.user_attrs.get(JOB)
            if found is None:
                self.study.set_user_attr(JOB, job)
        if found not in (None, job):
            raise NashcError(
                f"the study '{name}' is of another search", where=_shown(url), hint="give another -o folder or storage"
            )

    def scored(self) -> list[Scored]:
        """All candidates with a score, in the order of their numbers."""
        return [
            Scored(t.number, t.user_attrs[FAMILY], t.user_attrs[ARCHITECTURE], json.loads(t.user_attrs[TERMS]),
                   float(t.values[1]))
            for t in self._trials(TrialState.COMPLETE)
            if TERMS in t.user_attrs  # what another tool told the study is no candidate
        ]  # fmt: skip

    def architectures(self) -> set[str]:
        """Everything that is scored or being scored."""
        trials = self._trials(TrialState.COMPLETE, TrialState.RUNNING)
        return {t.user_attrs[ARCHITECTURE] for t in trials if ARCHITECTURE in t.user_attrs}

    def begin(self) -> Trial:
        """A candidate that this worker is to score; its number seeds what is random about it."""
        with self._told():
            trial = self.study.ask()
            trial.set_user_attr(BEGUN, time.time())
        return trial

    def claim(self, claim: Trial, family: str, architecture: str) -> bool:
        """Take an architecture; False, and the number is given up, where another worker has it.

        Whoever says so first and then sees nobody else has it. Of two that see each other, the later number gives way
        at once, and the earlier one looks again before it does.
        """
        with self._told():
            claim.set_user_attr(FAMILY, family)
            claim.set_user_attr(ARCHITECTURE, architecture)
        for _ in range(LOOKS):
            trials = self._trials(TrialState.COMPLETE, TrialState.RUNNING)
            same = [t.number for t in trials if t.user_attrs.get(ARCHITECTURE) == architecture]
            if same == [claim.number]:
                return True
            if min(same, default=-1) < claim.number:
                break
            time.sleep(LOOK_SECONDS)
        self.give_up(claim.number)
        return False

    def record(self, claim: Trial, terms: Terms, score: float, fps: float) -> bool:
        """False where another worker took the candidate for abandoned: the score is that one's to give."""
        with self._told():
            try:
                claim.set_user_attr(TERMS, json.dumps(dict(terms)))
                self.study.tell(claim, [score, fps])
            except optuna.exceptions.UpdateFinishedTrialError:
                return False
        return True

    def give_up(self, number: int) -> None:
        with self._told():
            self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def abandoned(self) -> Scored | None:
        """A candidate that a worker left, given up here so that its finder may score it; None where there is none."""
        now = time.time()
        for trial in self._trials(TrialState.RUNNING):
            asked = trial.datetime_start.timestamp() if trial.datetime_start else now  # of a worker killed right then
            if now - trial.user_attrs.get(BEGUN, asked) > STALE_SECONDS:
                self.give_up(trial.number)
                if ARCHITECTURE in trial.user_attrs:
                    attrs = trial.user_attrs
                    return Scored(trial.number, attrs[FAMILY], attrs[ARCHITECTURE], {}, 0.0)
        return None

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        with self._told():
            return self.study.get_trials(deepcopy=False, states=states)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the storage as ours."""
        try:
            yield
        except (
            SQLAlchemyError,
            optuna.exceptions.StorageInternalError,
            ImportError,
            ValueError,
            RuntimeError,
        ) as error:
            first = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
            raise NashcError(
                f"the study cannot be read or written: {first[0]}",
                where=_shown(self.url),
                hint="check the server, its database and the rights on the file",
            ) from error


def open_history(job: Job, folder: Path, storage: str = "") -> History:
    """The study of a job: in the given storage, in the one that the job names, or in a file of the folder.

    Its name tells the searches of one server apart. Where images and server are reached from is each worker's own.
    """
    text = encoded(msgspec.structs.replace(job, storage="", data="")).decode()
    name = f"nashc {job.space.name} {hashlib.sha256(text.encode()).hexdigest()[:8]}"
    file = URL.create("sqlite", database=str((folder / STUDY_FILE).resolve()))
    return History(storage or job.storage or file.render_as_string(), name, text)


def without_password(url: str) -> str:
    """A storage as files may hold it; workers get a password from ~/.pgpass, PGPASSWORD or their own --storage.

    Raises NashcError where it is no URL.
    """
    if not url:
        return ""
    try:
        known = _url(url)
    except (SQLAlchemyError, ValueError):
        hint = "write postgresql://user@host/database"
        raise NashcError("no URL of a storage", where=_shown(url), hint=hint) from None
    query = {key: value for key, value in known.query.items() if key not in ("password", "sslpassword")}
    kept = URL.create(known.drivername, known.username, None, known.host, known.port, known.database, query)
    return kept.render_as_string()


def points(found: list[Scored]) -> np.ndarray:
    """[n, 2]: the score of each among all of them, and its FPS."""
    return np.column_stack([combined([s.terms for s in found]), [s.fps for s in found]]) if found else np.zeros((0, 2))


def _storage(url: str) -> RDBStorage:
    if url.startswith("sqlite:"):
        made = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": LOCK_SECONDS}})
        event.listen(made.engine, "connect", _fast_sqlite)
        made.engine.dispose()
        return made
    _url(url)
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            url = f"postgresql+psycopg://{url.removeprefix(scheme)}"
    return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})


def _fast_sqlite(connection: Any, _: Any) -> None:
    """A commit need not reach the disk at once: what a killed process wrote is there all the same."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _shown(url: str) -> str:
    """The URL without its password; of one that cannot be understood no more than its scheme."""
    try:
        return _url(url).set(query={}).render_as_string(hide_password=True)
    except (SQLAlchemyError, ValueError):
        scheme, colon, _ = url.partition(":")
        return f"{scheme}{colon}..." if colon else "storage"


def _url(url: str) -> URL:
    if url.count("@") > 1 and not url.startswith("sqlite:"):  # a part of the password would be the host
        raise ValueError("there is more than one @; one in a password is written %40")
    return make_url(url)
