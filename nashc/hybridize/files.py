"""From files to files: what `nashc hybridize` does."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from nashc.artifact import Compiled
from nashc.compiler import Progress, check_out, target_board, write
from nashc.core.design import Design
from nashc.data import Dataset, Preprocess, open_data
from nashc.errors import NashcError
from nashc.files import check_file, replacing
from nashc.hybridize.fidelity import Fidelity, class_output, fidelity_of, refuse_outputs
from nashc.hybridize.original import Original, open_original, original
from nashc.hybridize.pipeline import (
    Hybrid,
    HybridOptions,
    Judge,
    Point,
    hybridize,
    matching,
    outputs_of,
)
from nashc.runtime import Session
from nashc.runtime.accuracy import Measured, Subject, class_notes, classes_of, measure, refuse_labels

Array = NDArray[Any]
JUDGED = 1000
"""Images of --data on which choices are measured; the result is measured on all of them."""
ADDER_SHARE = 0.5
"""Of the multiply-accumulates, where the user names no layers to become adder layers."""
VERSION = 1


@dataclass(frozen=True)
class Finetune:
    """Adder layers: images to train on, patterns of Conv nodes (none: the last ones, half of the multiply-accumulates),
    and how long. checkpoint: a folder to go on from."""

    data: str
    adders: tuple[str, ...] = ()
    epochs: int = 10
    minutes: float | None = None
    checkpoint: str | None = None


@dataclass(frozen=True)
class Job:
    """What to make of which files. out: the hybrid; its curve goes into a .json of the same name. designs: a folder for
    the design of each point of the curve."""

    model: str
    target: str
    calib: str
    out: str
    preprocess: Preprocess
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    data: str | None = None
    labels: str | None = None
    split: str | None = None
    count: int = 256
    seed: int = 0
    finetune: Finetune | None = None
    designs: str | None = None
    options: HybridOptions = field(default_factory=HybridOptions)


@dataclass(frozen=True)
class Made:
    """The hybrid, what it does on all of --data (None without), the Conv nodes that were trained to be adder layers,
    and what to know about the images."""

    job: Job
    hybrid: Hybrid
    measured: Measured | None
    adders: tuple[str, ...]
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


def hybridize_files(job: Job, progress: Progress | None = None) -> Made:
    """Raises NashcError; writes nothing then."""
    out, curve = Path(job.out), Path(job.out).with_suffix(".json")
    _check_out(job, out, curve)
    if job.designs is not None:
        check_out(Path(job.designs))
    board = target_board(job.target, job.options.search)
    first = open_original(job.model, job.shapes)
    data = None if job.data is None else _open(job, first, job.data, job.labels, job.split or "test")
    calib = _open(job, first, job.calib, None, "train" if _one_path(job) else job.split or "train")
    calibration = _images(calib, job.count, job.seed)[0]
    source, adders = first, list[str]()
    if job.finetune is not None:
        source, adders = _finetuned(job, first, job.finetune, progress)
    judge = _judge(job, first, data, calibration)
    confirm = None if data is None else _Confirm(data, first, progress)
    hybrid = hybridize(
        source, calibration, board, job.options, judge=judge, confirm=confirm, plain=first.network, progress=progress
    )
    own = {} if calib.source.ready else job.preprocess.metadata()  # ready images say nothing of any preprocessing
    onnx.helper.set_model_props(hybrid.model, {**source.props, **own})
    measured = None if confirm is None else confirm.measured
    notes = _notes(job, calib, data, measured)
    made = Made(job, hybrid, measured, tuple(adders), (str(out), str(curve)), notes)
    for folder, design in design_folders(made).items():
        write(Compiled(design, board, job.options.search), folder, {})
    with replacing(out) as model_file, replacing(curve) as curve_file:
        onnx.save(hybrid.model, model_file)
        Path(curve_file).write_text(curve_json(made), encoding="utf-8")
    return made


def _check_out(job: Job, out: Path, curve: Path) -> None:
    if out.suffix == ".json":
        raise NashcError("the hybrid is an ONNX file", where=job.out, hint="give -o NAME.onnx")
    for path in (out, curve):
        check_file(path)
    read = {"the original": job.model, "--labels": job.labels, "--data": job.data, "--calib": job.calib}
    for what, source in read.items():
        for path in (out, curve):
            with suppress(OSError):
                if source is not None and path.samefile(source):
                    raise NashcError(f"would take the place of {what}", where=str(path), hint="give another -o")


def _open(job: Job, model: Original, path: str, labels: str | None, split: str) -> Dataset:
    return open_data(path, job.preprocess, model.shape, labels=labels, split=split)


def _images(data: Dataset, count: int, seed: int) -> tuple[Array, Array | None]:
    """Some images [N, 1, ...], and their labels."""
    found = list(data.batches(1, count=count, seed=seed))
    labels = None if data.labels is None else np.concatenate([one for _, one in found if one is not None])
    return np.stack([image for image, _ in found]), labels


def _judge(job: Job, model: Original, data: Dataset | None, calibration: Array) -> Judge | None:
    """None where the calibration images and the model itself are the measure."""
    if data is None and job.finetune is None:
        return None
    images, labels = (calibration, None) if data is None else _images(data, JUDGED, job.seed)
    wanted = outputs_of(model.staged.model, model.input, images, job.options.workers)
    refuse_outputs(wanted, model.name)
    scores = class_output(wanted)
    if data is not None and data.labels is not None and scores is not None:
        refuse_labels(data.labels, classes_of(wanted[scores], len(images)) or 0)
    return Judge(images, labels, wanted)


class _Confirm:
    """Measures integer models beside the float one on all images of a data set; `measured`: the last one."""

    def __init__(self, data: Dataset, model: Original, progress: Progress | None) -> None:
        self.data, self.plain, self.progress = data, Session(model.staged.model), progress
        self.measured: Measured | None = None

    def __call__(self, model: onnx.ModelProto) -> Fidelity:
        report = self.progress
        self.measured = measure(
            Subject(Session(model), self.data),
            Subject(self.plain, self.data),
            progress=None if report is None else lambda done, total: report("accuracy", done / total),
        )
        return fidelity_of(self.measured)


def _one_path(job: Job) -> bool:
    return job.data is not None and Path(job.data).resolve() == Path(job.calib).resolve()


def _notes(job: Job, calib: Dataset, data: Dataset | None, measured: Measured | None) -> tuple[str, ...]:
    sets = {job.calib: calib} if data is None else {job.calib: calib, str(job.data): data}
    found = [f"{path}: {note}" for path, one in sets.items() for note in one.notes()]
    if data is not None and _same_images(job, calib, data):
        found.append(f"{job.data}: the hybrid was calibrated on some of these images; others would be a fairer measure")
    if measured is not None and data is not None:
        found += class_notes(measured, data)
    return tuple(found)


def _same_images(job: Job, calib: Dataset, data: Dataset) -> bool:
    """Of one path, unless it has splits."""
    if not _one_path(job) or len(calib) != len(data):
        return False
    ends = ((one.source.images.read(i) for i in (0, len(one) - 1)) for one in (calib, data))
    return all(np.array_equal(a, b) for a, b in zip(*ends, strict=True))


# ------------------------------------------------------------------ fine-tuning


def _finetuned(job: Job, model: Original, wanted: Finetune, progress: Progress | None) -> tuple[Original, list[str]]:
    """The model with adder layers that were trained, and their names."""
    from nashc.nn.finetune import FinetuneOptions, finetune  # noqa: PLC0415 - torch is an extra

    data = _open(job, model, wanted.data, None, "train")
    adders = adder_layers(model, wanted.adders)
    checkpoint = None if wanted.checkpoint is None else Path(wanted.checkpoint)
    if checkpoint is not None:
        checkpoint.mkdir(parents=True, exist_ok=True)
    options = FinetuneOptions(
        epochs=wanted.epochs,
        minutes=wanted.minutes,
        checkpoint=checkpoint,
        seed=job.seed,
        batch=min(FinetuneOptions().batch, len(data)),
    )
    trained = finetune(
        model.proto,
        adders,
        data,
        options,
        progress=None if progress is None else lambda p: progress("fine-tune", p.step / p.steps),
    )
    return original(trained.model, job.shapes, model.name, job.model), adders


def adder_layers(model: Original, patterns: Sequence[str]) -> list[str]:
    """Conv nodes of the file that match; without patterns dense ones from the last towards the first, but not the first
    convolution, until they have ADDER_SHARE of the multiply-accumulates."""
    names = [node.name for node in model.proto.graph.node if node.op_type == "Conv"]
    if patterns:
        wanted = {name for pattern in patterns for name in matching(pattern, names, "--adders")}
        return [name for name in names if name in wanted]
    layers = [stage.weighted for stage in model.staged.stages if stage.weighted is not None]
    total, taken = sum(layer.macs for layer in layers), 0
    found: list[str] = []
    convolutions = [layer for layer in layers if layer.window is not None]
    for layer in reversed(convolutions[1:]):
        if taken >= ADDER_SHARE * total:
            break
        if layer.window is not None and layer.window.group == 1 and layer.node in names:
            found.append(layer.node)
            taken += layer.macs
    return [name for name in names if name in found]


# ----------------------------------------------------------------------- curve


def design_folders(made: Made) -> dict[Path, Design]:
    """Where the design of each point goes, if the job asks for them: a folder by its number and types."""
    if made.job.designs is None:
        return {}
    points = enumerate(made.hybrid.points)
    return {Path(made.job.designs) / folder_of(n, p): p.design for n, p in points if p.design is not None}


def folder_of(number: int, point: Point) -> str:
    return f"{number}-{re.sub('[^a-z0-9]+', '-', point.name)}"


def curve_json(made: Made) -> str:
    """Every choice that was measured and searched, as JSON: FPS (null: does not fit), shares of 1, dB (null: equal)."""
    hybrid, job = made.hybrid, made.job
    document = {
        "version": VERSION,
        "model": job.model,
        "target": job.target,
        "images": hybrid.images,
        "measured_on": job.data or job.calib,
        "labelled": hybrid.chosen.fidelity.accuracy is not None,
        "baselines_fps": dict(hybrid.floor),
        "multiplication_only_fps": hybrid.multiplying,
        "not_ruled_out_fps": hybrid.not_ruled_out,
        "adder_layers": list(made.adders),
        "sensitivities": {node: dict(own) for node, own in hybrid.losses.items()},
        "points": [
            {
                "types": point.name,
                "images": point.fidelity.images,
                "design": _design_path(job, n, point),
                "chosen": point is hybrid.chosen,
                "fps": point.fps,
                "why": point.why,
                "drop": point.fidelity.drop,
                "agreement": point.fidelity.agreement,
                "accuracy": point.fidelity.accuracy,
                "float_accuracy": point.fidelity.float_accuracy,
                "sqnr_db": {n: v if np.isfinite(v) else None for n, v in point.fidelity.sqnr_db.items()},
                "layers": dict(point.choice),
            }
            for n, point in enumerate(hybrid.points)
        ],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _design_path(job: Job, number: int, point: Point) -> str | None:
    """Of a point's design.json, from where the curve is."""
    if job.designs is None or point.design is None:
        return None
    return os.path.relpath(Path(job.designs) / folder_of(number, point) / "design.json", Path(job.out).parent)
