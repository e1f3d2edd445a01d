"""Logs of build servers: no bars and no colours where nobody watches, and no colours where nobody wants them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MNIST = str(ROOT / "examples/models/mnist-conv.onnx")
BAR = "\u2501"
"""What rich draws bars with."""


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(file, np.random.default_rng(1).integers(0, 256, (16, 28, 28, 1), dtype=np.uint8))
    return str(file)


@pytest.fixture(scope="module")
def array(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("array") / "x.npy"
    np.save(file, np.zeros((1, 1, 28, 28), np.float32))
    return str(file)


def nashc(*args: str) -> list[str]:
    return [sys.executable, "-m", "nashc.cli", *args]


@pytest.mark.parametrize(
    "line",
    [
        "compile {MNIST} --target fpga-zc706 --budget 2s --objective latency -o {out}",
        "compile {MNIST} --target fpga-zc706 --budget 2s -v --json",
        "hybridize {MNIST} --target fpga-zc706 --calib {images} --channels gray --types conv8,conv4 --budget 1s "
        "--min-sqnr-db 5 -o {out}.onnx",
        "check {MNIST} --against {MNIST} --data {images} --channels gray --min-agreement 99% --target fpga-zc706 "
        "--budget 2s --min-fps 1",
        "run {MNIST} --input {array} --compare -v",
        "inspect {MNIST} -v",
        "targets",
    ],
)
def test_no_bars_and_no_colours_without_a_terminal(line, images, array, tmp_path):
    args = [part.format(MNIST=MNIST, images=images, array=array, out=tmp_path / "out") for part in line.split()]
    forced = {**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm-256color"}  # as in GitHub's CI
    done = subprocess.run(nashc(*args), capture_output=True, text=True, env=forced, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    for shown in (done.stdout, done.stderr):
        assert "\x1b" not in shown
        assert "\r" not in shown
        assert BAR not in shown
    assert all(text.startswith(("note: ", "warning: ")) for text in done.stderr.splitlines())


def on_terminal(*args: str, **settings: str) -> str:
    """What a command prints on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        nashc(*args), stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "TERM": "xterm", **settings},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(60) == 0
    return shown.decode()


def test_colours_on_a_terminal_that_wants_them():
    assert "\x1b[1m" in on_terminal("targets")
    assert "\x1b" not in on_terminal("targets", NO_COLOR="1")
    assert "\x1b" not in on_terminal("targets", TERM="dumb")


def test_a_bar_on_a_terminal(tmp_path):
    model = str(tmp_path / "mobilenet.onnx")  # stages of less than a second have no bar
    subprocess.run([sys.executable, ROOT / "examples/mobilenet.py", model], check=True, stdout=subprocess.DEVNULL)
    args = ("check", model, "--target", "fpga-zc706", "--min-fps", "1", "--budget", "4s")
    assert BAR in on_terminal(*args)
    assert "\x1b[3" not in on_terminal(*args, NO_COLOR="1")
