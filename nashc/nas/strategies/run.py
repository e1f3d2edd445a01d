"""A strategy on a data set, from the images to checked files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np

from nashc.compiler import Progress, check_out
from nashc.errors import NashcError
from nashc.nas.architecture import sample
from nashc.nas.job import JOB_FILE, Job, train_and_test
from nashc.nas.layout import total_macs
from nashc.nas.search import pricing
from nashc.nas.strategies.task import STRATEGIES, Outcome, Task
from nashc.nas.train import Images
from nashc.nas.trained import WEIGHTS, Lesson, Trained, delivered
from nashc.nn import save

SAMPLES = 200
"""Random networks whose median size an epoch of the budget is counted in."""
VALIDATION = 1000
"""Of the training images, those that no network is trained on, at most a fifth."""


def divided(train: Images, count: int) -> tuple[Images, Images]:
    """Training and validation images from the first `count`; as many of every class in the latter.

    Raises NashcError where that would leave a class none to train on.
    """
    labels = train.labels.numpy()[:count]
    classes, counts = np.unique(labels, return_counts=True)
    each = max(1, min(VALIDATION, len(labels) // 5) // len(classes))
    if counts.min() <= each:
        raise NashcError(
            f"{counts.min()} images of class {classes[counts.argmin()]} to train on, and {each} are for validation",
            where="training data", hint="give more images",
        )  # fmt: skip
    kept = np.concatenate([np.flatnonzero(labels == c)[:each] for c in classes])
    rest = np.setdiff1d(np.arange(len(labels)), kept)
    first = Images(train.pixels[rest], labels[rest])
    return first, Images(train.pixels[kept], labels[kept], like=first)


def median_macs(job: Job) -> float:
    """Of random networks of the job's space."""
    random = Random(job.seed)
    drawn = (sample(job.space, random) for _ in range(SAMPLES))
    return float(np.median([total_macs(a, job.space) for a in drawn]))


def run_strategy(
    name: str, job: Job, epochs: float, images: int | None, folder: Path, progress: Progress | None = None
) -> tuple[Outcome, Trained, int]:
    """Search one network, train it and write its files to the folder; and how many images had to be held out.

    The budget, search and training together, is that of `epochs` passes over the images of a network of median size.
    """
    check_out(folder)
    if (folder / WEIGHTS).exists() or (folder / JOB_FILE).exists():
        raise NashcError("the folder holds another search", where=str(folder), hint="give another -o, or delete it")
    everything, test, held_out = train_and_test(job.space, job.data, images)
    train, validation = divided(everything, len(everything))
    test = Images(test.pixels, test.labels.numpy(), train)
    if progress is not None:
        progress(f"strategy {name}", 0.0)
    task = Task(
        job.space, train, validation, epochs * len(train) * median_macs(job), job.proxy, fps=pricing(job).fps,
        min_fps=job.min_fps, recipe=replace(job.space.recipe, seed=job.seed), seed=job.seed,
    )  # fmt: skip
    found = STRATEGIES.get(name).run(task)
    folder.mkdir(parents=True, exist_ok=True)
    save(found.net, folder / WEIGHTS)
    lesson = Lesson(train, test, task.recipe)
    seconds = sum(found.cpu_seconds.values())
    done = delivered(found.net.eval(), job, lesson, folder, seconds, progress)
    return found, done, len(test) if held_out else 0
