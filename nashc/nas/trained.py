"""From an architecture to checked files: trained weights, the float model, the integer model and its design."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch
from torch import Tensor

from nashc.artifact import Compiled
from nashc.compiler import Progress, write
from nashc.data import Preprocess
from nashc.errors import NashcError
from nashc.files import replacing
from nashc.hybridize.integers import integers
from nashc.hybridize.original import open_original
from nashc.nas.architecture import Architecture
from nashc.nas.build import HybridNet, build
from nashc.nas.job import LAYOUT_CHANNELS, Job
from nashc.nas.pairs import INPUT, SEARCH_SECONDS, designed, export_net, is_conv
from nashc.nas.processes import place
from nashc.nas.recipe import Recipe
from nashc.nas.space import Space
from nashc.nas.train import Images, Trainer, accuracy, share_right
from nashc.nas.train import Progress as TrainProgress
from nashc.nn import load, save
from nashc.nn.weights import metadata
from nashc.runtime import Session

WEIGHTS, CHECKPOINT, FLOAT, INTEGER = "weights.safetensors", "checkpoint.safetensors", "float.onnx", "integer.onnx"
CALIBRATION = 256
"""Images that the integer model's ranges come from."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Shares of the test images, as trained (adder layers compute with bytes then) and of the integer model; its
    design; seconds of the training."""

    accuracy: float
    integer_accuracy: float
    compiled: Compiled
    seconds: float


@dataclass(frozen=True)
class Lesson:
    """What a network is trained and checked with."""

    train: Images
    test: Images
    recipe: Recipe
    teacher: HybridNet | None = None

    @property
    def taught_by(self) -> str:
        """The teacher, and a digest of its weights."""
        if self.teacher is None:
            return ""
        made = hashlib.sha256(str(self.teacher.architecture).encode())
        for value in self.teacher.state_dict().values():
            made.update(np.ascontiguousarray(value.cpu().numpy()).data)
        return made.hexdigest()


def train_network(
    architecture: Architecture, space: Space, lesson: Lesson, folder: Path, progress: Progress | None = None
) -> HybridNet:
    """The trained network, in eval mode; its weights are in the folder, and the same training is not done twice.

    An interrupted training goes on from its checkpoint. Raises NashcError where the folder has weights of another
    network, other images or another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    net = build(architecture, space, lesson.recipe.seed)
    about = [str(architecture), msgspec.json.encode(space).decode(), lesson.taught_by]
    trainer = Trainer(net, lesson.train, lesson.recipe, teacher=lesson.teacher, note=json.dumps(about))
    if (folder / WEIGHTS).exists():
        if metadata(folder / WEIGHTS).get("note") != trainer.note:
            raise NashcError(
                "there are weights of another training: of another network, other images or another recipe",
                where=str(folder / WEIGHTS),
                hint="delete the file to train anew",
            )
        load(net, folder / WEIGHTS)
        return net.cpu().eval()
    trainer.resume(folder / CHECKPOINT)

    def report(p: TrainProgress) -> None:
        if progress is not None:
            progress(f"training {folder.name}, loss {p.loss:.3f}", p.step / p.steps)

    trainer.run(checkpoint=folder / CHECKPOINT, progress=report)
    net = net.cpu().eval()
    if trainer.rank == 0:
        save(net, folder / WEIGHTS, {"note": trainer.note})
        (folder / CHECKPOINT).unlink()
    return net


def finished(
    architecture: Architecture, job: Job, lesson: Lesson, folder: Path, progress: Progress | None = None
) -> Trained | None:
    """Train, export, quantise, measure and compile one network; everything is written to the folder.

    Of several processes that train it together the first one does the rest; the others get None.

    The integer model has 8-bit activations and convolutions, and the shift codes and adder bytes that were trained.
    """
    begin = time.perf_counter()
    net = train_network(architecture, job.space, lesson, folder, progress)
    seconds = time.perf_counter() - begin
    return None if place()[0] else delivered(net, job, lesson, folder, seconds, progress)


def delivered(
    net: HybridNet, job: Job, lesson: Lesson, folder: Path, seconds: float, progress: Progress | None = None
) -> Trained:
    """Everything that follows the training, which took so many seconds."""
    export_net(net, folder / FLOAT)
    reached = integer_model(job.space, lesson, folder, progress)
    if progress is not None:
        progress(f"accelerator of {folder.name}", 0.0)
    compiled = designed(job, folder / INTEGER, SEARCH_SECONDS, alone=is_conv(net.architecture))
    write(compiled, folder, {})
    return Trained(accuracy(net, lesson.test), reached, compiled, round(seconds, 1))


def integer_model(space: Space, lesson: Lesson, folder: Path, progress: Progress | None = None) -> float:
    """Write it, and run it on the test images in the runtime: the share that it classifies right."""
    preprocess = _preprocess(space, lesson.train)
    original = open_original(folder / FLOAT, {INPUT: (1, space.channels, space.resolution, space.resolution)})
    seen = lesson.train.batch(np.random.default_rng(0).permutation(len(lesson.train))[:CALIBRATION])
    model = integers(original, seen.contiguous().numpy()[:, None])
    onnx.helper.set_model_props(model, preprocess.metadata())
    with replacing(folder / INTEGER) as written:
        onnx.save(model, written)
    session = Session(model)

    def scores_of(x: Tensor) -> Tensor:
        (scores,) = session.run({INPUT: x.contiguous().numpy()}).values()
        return torch.from_numpy(scores)

    def shown(share: float) -> None:
        if progress is not None:
            progress(f"accuracy of {folder.name}", share)

    return share_right(scores_of, lesson.test, progress=shown)


def _preprocess(space: Space, images: Images) -> Preprocess:
    """What training does to the pixels, for the model's metadata."""
    side = space.resolution
    return Preprocess(
        mean=tuple(round(float(v), 4) for v in images.mean.ravel()),
        std=tuple(round(float(v), 4) for v in images.deviation.ravel()),
        channels=LAYOUT_CHANNELS[space.channels],
        resize=(side, side),
        interpolation="box",
    )
