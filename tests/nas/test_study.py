"""Many workers share a study: nothing is scored twice, and what a killed worker left is taken up."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import permutations
from pathlib import Path
from random import Random
from threading import Barrier, Thread

import msgspec
import optuna
import pytest
from optuna.trial import TrialState
from tiny import job

from nashc.errors import NashcError
from nashc.nas import study
from nashc.nas.job import Job
from nashc.nas.search import Worker
from nashc.nas.study import History, open_history, points, without_password

SERVER = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
PATIENCE = 120.0


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Opens one study once more, as another worker does."""
    path = tmp_path_factory.mktemp("study") / "study.db"
    return lambda job="{}": History(f"sqlite:///{path}", "one", job)


@pytest.fixture(scope="module")
def workers(opened):
    return [opened() for _ in range(3)]


def searched(job: Job, folder: Path) -> History:
    return open_history(job, folder)


def running(history):
    return history.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])


def test_what_is_recorded_is_read_by_all(workers):
    for history, family, architecture, value in (
        (workers[0], "hybrid", "8/8:s3", 3.0),
        (workers[1], "conv", "8/8:c3", 1.0),
    ):
        claim = history.begin()
        assert history.claim(claim, family, architecture)
        assert history.record(claim, {"x": value}, value, 2 * value)
    known = workers[2].scored()
    assert [(s.family, s.architecture, s.terms, s.fps) for s in known] == [
        ("hybrid", "8/8:s3", {"x": 3.0}, 6.0),
        ("conv", "8/8:c3", {"x": 1.0}, 2.0),
    ]
    assert points(known).tolist() == [[3.0, 6.0], [1.0, 2.0]]
    assert workers[2].architectures() == {"8/8:s3", "8/8:c3"}


def test_what_another_tool_told_the_study_is_no_candidate(workers):
    known = workers[1].scored(), workers[1].architectures()
    workers[0].study.tell(workers[0].study.ask(), [1.0, 2.0])
    assert (workers[1].scored(), workers[1].architectures()) == known


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_who_claims_first_has_it_whoever_began_first(workers, order):
    begun = [history.begin() for history in workers]
    name = f"first wanted by {begun[0].number}"
    assert [i for i in order if workers[i].claim(begun[i], "hybrid", name)] == [order[0]]


def test_claims_at_the_same_moment(opened):
    together, rounds, won = Barrier(3), range(12), []

    def claims():
        history = opened()
        for n in rounds:
            together.wait(PATIENCE)
            if history.claim(history.begin(), "hybrid", f"round {n}"):
                won.append(n)

    threads = [Thread(target=claims) for _ in range(together.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won
    assert len(won) == len(set(won))


def test_an_abandoned_candidate_is_scored_once_by_who_comes_next(tmp_path, monkeypatch):
    asked = job(tmp_path)
    slow, quick = searched(asked, tmp_path), searched(asked, tmp_path)
    left = slow.begin()
    assert slow.claim(left, "conv", "4/8:c3")
    worker = Worker(asked, quick)
    worker.one()
    assert "4/8:c3" not in [s.architecture for s in quick.scored()]
    monkeypatch.setattr(study, "STALE_SECONDS", 0.0)
    worker.one()
    assert not slow.record(left, {"flops": 1.0}, 1.0, 1.0)  # it was not killed, and comes too late
    found = [(s.family, s.terms["flops"] > 1) for s in slow.scored() if s.architecture == "4/8:c3"]
    assert found == [("conv", True)]


def test_a_worker_killed_before_it_had_an_architecture_leaves_nothing(opened, monkeypatch):
    history = opened()
    history.begin()
    history.study.ask()  # killed before it could say when it began
    monkeypatch.setattr(study, "STALE_SECONDS", 0.0)
    while history.abandoned() is not None:
        pass
    assert not running(history)


def test_a_study_of_another_search_is_refused(workers, opened):
    with pytest.raises(NashcError, match=r"study\.db: the study 'one' is of another search; give another -o"):
        opened('{"another": 1}')


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://me:pa55word@127.0.0.1:1/db", "127.0.0.1:1/db: .*refused"),
        ("postgres://127.0.0.1:1/db?user=me&password=pa55word", "127.0.0.1:1/db: .*refused"),
        ("postgresql://me:word@pa55@127.0.0.1:1/db", "more than one @"),
        ("postgresql://me:pa55word@127.0.0.1:port/db", "port"),
        ("postgresql:/me:pa55word@127.0.0.1/db", "postgresql:"),
        ("me:pa55word@127.0.0.1", "URL"),
        ("nosuchdb://me:pa55word@host/db", "nosuchdb"),
        ("sqlite:////no/such/folder/study.db", "/no/such/folder/study.db: .*unable to open"),
    ],
)
def test_a_storage_that_cannot_be_used_is_named_without_its_password(url, text):
    with pytest.raises(NashcError, match=text) as raised:
        History(url, "one", "{}")
    assert "pa55" not in str(raised.value)


def test_a_file_that_is_no_study(tmp_path):
    (tmp_path / "study.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(NashcError, match=r"study\.db: .*not a database"):
        History(f"sqlite:///{tmp_path / 'study.db'}", "one", "{}")


def test_a_study_of_another_program_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=url, study_name="one")
    with pytest.raises(NashcError, match=r"study\.db"):
        History(url, "one", "{}")


@pytest.fixture(scope="module")
def server():
    """URL of a PostgreSQL server of its own, on a socket in a folder of its own."""
    if not SERVER:
        pytest.skip("no PostgreSQL server is installed here: apt-get install postgresql")
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []  # it refuses to run as root

    def control(*words):
        subprocess.run([*user, SERVER[-1], "-D", f"{folder}/data", *words], check=True, stdout=subprocess.DEVNULL)

    folder = tempfile.mkdtemp(prefix="nashc-", dir="/tmp")  # TMPDIR may be closed to that user
    try:
        if user:
            shutil.chown(folder, "postgres")
        control("initdb", "-o", "--auth=trust --username=nashc --no-sync --encoding=UTF8 --locale=C")
        control("start", "-w", "-l", f"{folder}/log", "-o", f"-k {folder} -c listen_addresses= -c fsync=off")
        try:
            yield f"postgresql://nashc@/postgres?host={folder}"
        finally:
            control("stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder)


def work(asked: Job, folder: Path) -> None:
    """A worker process."""
    Worker(asked, searched(asked, folder)).run()


def test_workers_on_a_server_of_which_two_are_killed(server, tmp_path, monkeypatch):
    asked, chance = job(tmp_path, storage=server, candidates=40), Random()
    history = searched(asked, tmp_path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nashc.nas.search"])
    processes = [context.Process(target=work, args=(asked, tmp_path)) for _ in range(4)]
    for process in processes:
        process.start()
    for killed, count in zip(processes[:2], (2, 8), strict=True):
        end = time.monotonic() + PATIENCE
        while len(history.scored()) < count and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.1)
        os.kill(killed.pid, signal.SIGKILL)
    for process in processes:
        process.join(PATIENCE)
    assert [p.exitcode for p in processes] == [-signal.SIGKILL] * 2 + [0] * 2
    monkeypatch.setattr(study, "STALE_SECONDS", 0.0)
    Worker(asked, history).run()
    found = history.scored()
    assert asked.candidates <= len(found) < asked.candidates + len(processes)
    assert len({s.architecture for s in found}) == len(found)
    assert all(s.terms["flops"] > 0 and s.fps > 0 for s in found)
    assert {s.family for s in found} == {"hybrid", "conv"}
    assert not running(history)


def test_a_password_stays_out_of_files():
    for secret in (":secret@host/db", "@host/db?password=secret", "@host/db?sslpassword=secret"):
        assert without_password(f"postgresql://me{secret}") == "postgresql://me@host/db"
    assert without_password("") == ""
    with pytest.raises(NashcError, match="no URL of a storage"):
        without_password("postgresql://me:se@cret@host/db")


def test_one_server_holds_many_searches_and_machines_reach_it_their_own_way(tmp_path):
    url = f"sqlite:///{tmp_path}/shared.db"
    mine = job(tmp_path)
    elsewhere = msgspec.structs.replace(mine, data="/another/machine", storage="postgresql://somewhere/else")
    first, same = open_history(mine, tmp_path, url), open_history(elsewhere, tmp_path, url)
    other = open_history(msgspec.structs.replace(mine, seed=7), tmp_path, url)
    assert first.name == same.name != other.name
