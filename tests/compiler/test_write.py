"""A result takes the place of an earlier one at once, and nothing of the user's goes with it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from handmade import compiled

import nashc.compiler
from nashc.artifact import dump
from nashc.compiler import write

EARLIER = compiled()
NEW = replace(EARLIER, options=replace(EARLIER.options, budget_seconds=1.0))


def result(value, text: str) -> dict[str, bytes]:
    return {"design.json": dump(value), "report.txt": text.encode(), "notes.txt": b"mine"}


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.fixture
def out(tmp_path) -> Path:
    """An earlier result, with weights of its own and a file of the user."""
    folder = tmp_path / "parent" / "out"
    write(EARLIER, folder, {"report.txt": "earlier"})
    (folder / "notes.txt").write_text("mine")
    assert files(folder) == result(EARLIER, "earlier")
    return folder


class Killed(BaseException):
    """The process ends here."""


def killed_at(step: int, monkeypatch) -> list[str]:
    """From now on the process ends at the step-th change of a name; the list holds those that were done."""
    done: list[str] = []

    def counted(name, function):
        def call(*args, **kwargs):
            if len(done) == step:
                raise Killed
            done.append(name)
            return function(*args, **kwargs)

        return call

    for module, name in ((os, "link"), (os, "replace"), (os, "unlink"), (nashc.compiler, "_exchange")):
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    # a killed process cleans up nothing
    monkeypatch.setattr(shutil, "rmtree", lambda path, **kwargs: None)
    return done


@pytest.mark.parametrize("cleaned", [False, True])
def test_at_every_step_the_result_is_the_earlier_or_the_new_one(out, tmp_path, monkeypatch, cleaned):
    (out / "link").symlink_to("nowhere")
    seen, ended, step = [], False, 0
    while not ended:
        folder = tmp_path / f"{step}" / "out"
        shutil.copytree(out, folder, symlinks=True)
        (folder / "model-0.data").write_text("weights of an earlier result")
        with monkeypatch.context() as patch:
            done = killed_at(step, patch)
            try:
                write(NEW, folder, {"report.txt": "new"})
                ended = True
            except Killed:
                pass
        if cleaned:
            for left in folder.parent.glob(".*"):
                shutil.rmtree(left)
        now = files(folder)
        assert (folder / "link").is_symlink()
        old_weights = now.pop("model-0.data", b"")
        assert (now, bool(old_weights)) in ((result(EARLIER, "earlier"), True), (result(NEW, "new"), False)), done
        seen.append(now == result(NEW, "new"))
        step += 1
    assert seen == sorted(seen)
    assert set(seen) == {False, True}
    assert done.count("_exchange") == 2


def refuse(code: int):
    def call(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize(
    ("place", "name"), [(nashc.compiler, "_exchange"), (os, "link"), (nashc.compiler.shutil, "copymode")]
)
def test_where_the_file_system_refuses_files_are_renamed(out, monkeypatch, place, name):
    monkeypatch.setattr(place, name, refuse(errno.EPERM))
    write(NEW, out, {"report.txt": "new"})
    assert files(out) == result(NEW, "new")
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_no_renameat2(out, monkeypatch):
    monkeypatch.setattr(nashc.compiler.ctypes, "CDLL", lambda *args, **kwargs: object())
    write(NEW, out, {"report.txt": "new"})
    assert files(out) == result(NEW, "new")


def test_folders_of_the_user_stay(out):
    (out / "rtl").mkdir()
    (out / "rtl" / "top.v").write_text("mine")
    inode = (out / "rtl").stat().st_ino
    write(NEW, out, {"report.txt": "new"})
    assert files(out) == result(NEW, "new")
    assert files(out / "rtl") == {"top.v": b"mine"}
    assert (out / "rtl").stat().st_ino == inode


def test_the_folder_itself_stays(out, monkeypatch):
    """Whoever works in it sees the new result; its rights are as they were."""
    out.chmod(0o2750)
    before, notes = out.stat(), (out / "notes.txt").stat()
    monkeypatch.chdir(out)
    write(NEW, ".", {"report.txt": "new"})
    assert Path("report.txt").read_text() == "new"
    assert Path.cwd() == out
    assert (out.stat().st_ino, out.stat().st_mode) == (before.st_ino, before.st_mode)
    assert (out / "notes.txt").stat().st_ino == notes.st_ino
    assert (out / "notes.txt").stat().st_nlink == 1


def test_new_folder_has_the_usual_rights(tmp_path):
    (tmp_path / "usual").mkdir()
    write(NEW, tmp_path / "out", {})
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_link_to_a_folder_elsewhere(out, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "out").symlink_to(out, target_is_directory=True)
    write(NEW, elsewhere / "out", {"report.txt": "new"})
    assert (elsewhere / "out").is_symlink()
    assert files(out) == result(NEW, "new")
    assert sorted(p.name for p in tmp_path.rglob(".*")) == []


def test_what_somebody_saves_in_the_meantime_stays(out, monkeypatch):
    exchange = nashc.compiler._exchange

    def exchange_and_save(a, b):
        exchange(a, b)
        (out / "later.txt").write_text("later")
        (out / "draft").write_text("edited")
        (out / "draft").replace(out / "notes.txt")
        monkeypatch.setattr(nashc.compiler, "_exchange", exchange)

    monkeypatch.setattr(nashc.compiler, "_exchange", exchange_and_save)
    write(NEW, out, {"report.txt": "new"})
    assert files(out) == result(NEW, "new") | {"notes.txt": b"edited", "later.txt": b"later"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end(out, monkeypatch, number):
    """Also where another thread takes it."""
    exchange = nashc.compiler._exchange
    told = threading.Event()
    other = threading.Thread(target=told.wait)
    other.start()

    def exchange_and_signal(a, b):
        exchange(a, b)
        signal.pthread_kill(other.ident, number)
        time.sleep(0.01)

    monkeypatch.setattr(nashc.compiler, "_exchange", exchange_and_signal)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            write(NEW, out, {"report.txt": "new"})
    finally:
        signal.signal(number, before)
        told.set()
    assert files(out) == result(NEW, "new")
    assert [p.name for p in out.parent.iterdir()] == ["out"]
