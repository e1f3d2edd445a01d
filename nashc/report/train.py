"""Training from the user's side: the pairs of a search, or one architecture, trained, quantised, measured, compiled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Group
from rich.text import Text

from nashc.compiler import Progress
from nashc.errors import NashcError, did_you_mean
from nashc.nas.architecture import parse
from nashc.nas.found import Training
from nashc.nas.job import Job, train_and_test
from nashc.nas.pairs import Pareto, architecture_of, pair_of, save
from nashc.nas.pairs import load as load_pareto
from nashc.nas.processes import place
from nashc.nas.recipe import Recipe
from nashc.nas.search import check_target
from nashc.nas.space import Space
from nashc.nas.trained import Lesson, Trained, finished, train_network
from nashc.report.progress import note_held_out, progress_bar
from nashc.report.search import draw_all
from nashc.report.text import figure, wrote

DISTIL = 0.5
TEACHER = "teacher"
"""Folder of the teacher's weights."""


@dataclass(frozen=True)
class Wanted:
    """data: labelled images with a train and a test split; images: so many of the former; teacher: an architecture."""

    data: str
    recipe: Recipe
    images: int | None = None
    teacher: str | None = None


def train_pairs(folder: Path, wanted: Wanted, names: tuple[str, ...]) -> Pareto:
    """Train the pairs of a search, all or those of the given names, and write the accuracies into its result."""
    made = load_pareto(folder)
    known = [pair.folder for pair in made.pairs]
    for name in names:
        if name not in known:
            raise NashcError(f"there is no pair '{name}'", where=str(folder), hint=did_you_mean(name, known))
    space = made.job.space
    check_target(made.job)
    with progress_bar() as progress:
        lesson = _lesson(wanted, space, folder, progress)
        for i, pair in enumerate(made.pairs):
            if names and pair.folder not in names:
                continue
            architecture = architecture_of(made.candidates[pair.candidate], space)
            done = finished(architecture, made.job, lesson, folder / pair.folder, progress)
            if done is None:
                continue
            pairs = list(made.pairs)
            pairs[i] = msgspec.structs.replace(
                pair_of(done.compiled, pair.candidate, pair.folder, pair.rival),
                accuracy=done.accuracy,
                integer_accuracy=done.integer_accuracy,
                training=Training(wanted.recipe, len(lesson.train), wanted.teacher or ""),
            )
            made = msgspec.structs.replace(made, pairs=tuple(pairs))
            save(made, folder)
    if place()[0] == 0:
        draw_all(made, folder)
    return made


def train_one(job: Job, text: str, wanted: Wanted, folder: Path) -> Trained | None:
    """Train one architecture of the job's space for its target."""
    job.check()
    architecture = parse(text, job.space)
    check_target(job)
    with progress_bar() as progress:
        lesson = _lesson(wanted, job.space, folder, progress)
        return finished(architecture, job, lesson, folder, progress)


def trained_report(done: Trained, folder: Path) -> Group:
    return Group(
        Text(f"accuracy  {done.integer_accuracy:.2%} as integers, {done.accuracy:.2%} as trained"),
        Text(f"speed     {figure(done.compiled.design.fps)} FPS"),
        wrote(f"weights.safetensors, float.onnx, integer.onnx, model.onnx and design.json in {folder}"),
    )


def recipe_of(
    space: Space, *, epochs: int | None, batch: int | None, rate: float | None, seed: int | None, teacher: str | None
) -> Recipe:
    """The space's recipe, with what the user says instead. With a teacher half of the loss is the teacher's, where the
    recipe says nothing; without one nothing is."""
    given: dict[str, Any] = {
        "epochs": epochs,
        "batch": batch,
        "rate": rate,
        "distil": 0.0 if teacher is None else space.recipe.distil or DISTIL,
        "seed": seed,
    }
    return replace(space.recipe, **{name: value for name, value in given.items() if value is not None})


def _lesson(wanted: Wanted, space: Space, folder: Path, progress: Progress | None) -> Lesson:
    """The images in memory and, where one is asked for, the trained teacher."""
    train, test, held_out = train_and_test(space, wanted.data, wanted.images)
    if held_out:
        note_held_out(wanted.data, len(test))
    lesson = Lesson(train, test, wanted.recipe)
    if wanted.teacher is None:
        return lesson
    alone = replace(lesson, recipe=replace(wanted.recipe, distil=0.0))
    return replace(
        lesson, teacher=train_network(parse(wanted.teacher, space), space, alone, folder / TEACHER, progress)
    )
