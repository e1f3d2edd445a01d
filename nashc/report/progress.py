"""A progress bar on stderr: only on a terminal, only for stages that take more than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nashc.report.text import safe

SHOWN_AFTER_SECONDS = 1.0


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Callable[[str, float], None] | None]:
    """A callback(stage, share done) that draws the bar; None where stderr is no terminal."""
    console = console or _stderr()
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    stages = _Stages(Progress(*columns, console=console, transient=True))
    try:
        yield stages.report
    finally:
        stages.bar.stop()


class _Stages:
    """The running stage and, once it is slow, its bar."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.started = time.monotonic()
        self.task: TaskID | None = None

    def report(self, stage: str, share: float) -> None:
        """Stages count together: what the user waits for is the whole."""
        if self.task is None and time.monotonic() - self.started >= SHOWN_AFTER_SECONDS:
            self.bar.start()
            self.task = self.bar.add_task("", total=1.0)
        if self.task is not None:
            self.bar.update(self.task, description=safe(stage), completed=share)


@contextmanager
def image_bar(console: Console | None = None) -> Iterator[Callable[[int, int], None] | None]:
    """A callback(images done, in all) that draws the bar with images a second; None where stderr is no terminal."""
    console = console or _stderr()
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("images {task.completed:,.0f} of {task.total:,.0f}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("", total=1, rate="")
    first: list[tuple[float, int]] = []

    def report(done: int, total: int) -> None:
        now = time.monotonic()
        if not first:
            first.append((now, done))
        seconds = now - first[0][0]
        if seconds > SHOWN_AFTER_SECONDS:
            bar.start()
            bar.update(task, completed=done, total=total, rate=f"{(done - first[0][1]) / seconds:,.0f} images/s")
        if done == total:
            bar.stop()

    try:
        yield report
    finally:
        bar.stop()


def note(text: str) -> None:
    """A line on stderr that is no part of the result."""
    _stderr(soft_wrap=True).print(f"note: {safe(text)}", markup=False, highlight=False)


def note_held_out(data: str, images: int) -> None:
    """Say that data without a test split gave up some images for the test."""
    note(f"{data} has no images of its own to test on: {images:,} are held out")


def _stderr(*, soft_wrap: bool = False) -> Console:
    """Whether it is a terminal is not left to FORCE_COLOR, which build servers set."""
    return Console(stderr=True, soft_wrap=soft_wrap, force_terminal=sys.stderr.isatty())
