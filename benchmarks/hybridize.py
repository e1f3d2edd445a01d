"""Third-party models as integer hybrids: accuracy, ablation of the conversion, speed on boards.

    python benchmarks/hybridize.py accuracy MODELS DATA [--only NAME]
    python benchmarks/hybridize.py ablation MODELS DATA [--only NAME]
    python benchmarks/hybridize.py speed MODELS DATA [--board fpga-zc706] [--only NAME] [--curves DIR]

MODELS is the folder of examples/fetch_models.py, with resnet20.onnx of train_cifar10.py beside them; DATA that of
hybridize_data.py, with CIFAR-10 (PNG sheets) as DATA/resnet20. No label is read to calibrate. Figures are of images
that were not calibrated on. accuracy: all convolutions but the first as one type, in one pass over 256 images.
ablation: what each part of the conversion brings, all layers but the first with one power of two a weight. speed: types
chosen freely.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import onnx
from machine import heading
from numpy.typing import NDArray

from nashc.compiler import target_board
from nashc.core.options import Options
from nashc.data import Preprocess, open_data
from nashc.errors import NashcError
from nashc.hybridize import walk as walking
from nashc.hybridize.fidelity import fidelity
from nashc.hybridize.layer_types import TYPES, LayerType
from nashc.hybridize.original import Original, open_original
from nashc.hybridize.pipeline import HybridOptions, Judge, hybridize, outputs_of
from nashc.hybridize.reconstruct import Rounded, plain, reconstruct, with_integer_bias
from nashc.hybridize.stages import Staged, Weighted
from nashc.hybridize.statistics import Moments, moments
from nashc.hybridize.steps import CALIBRATIONS
from nashc.hybridize.walk import Fit, fitted, ranges, steps, walk
from nashc.hybridize.write import integer_model

Array = NDArray[Any]
WORKERS = 2
JUDGED = 1000
AGREEMENT_DROP = 0.03
"""Where agreement is the measure, on the calibration images."""
IMAGES = 256
UNITS = {"pp-lcnet-orientation": "accuracy", "text-cls": "accuracy", "centerface": "auc",
         "efficientnet-lite0": "agreement", "resnet20": "accuracy"}  # fmt: skip
CIFAR = Preprocess(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7))
FACES = "537"


@dataclass(frozen=True)
class Case:
    """A model with its images [N, 1, ...]: to calibrate with, and to be measured on."""

    name: str
    model: Original
    calibration: Array
    images: Array
    labels: Array | None

    @cached_property
    def wanted(self) -> dict[str, Array]:
        return outputs_of(self.model.staged.model, self.model.input, self.images, WORKERS)

    def figures(self, found: Mapping[str, Array]) -> dict[str, float]:
        """In percent: accuracy or AUC, and images with the same class as the float model."""
        if UNITS[self.name] == "auc":
            return {"auc": 100 * auc(found[FACES], self.labels)}
        measured = fidelity(self.wanted, found, self.labels)
        own = {} if measured.accuracy is None else {"accuracy": 100 * measured.accuracy}
        return own | {"agreement": 100 * (measured.agreement or 0.0)}


def auc(maps: Array, labels: Array | None) -> float:
    """Of the largest score of each heat map; labels 0 are faces."""
    scores = maps.reshape(len(maps), -1).max(axis=1)
    a, b = scores[labels == 0], scores[labels == 1]
    return float((a[:, None] > b).mean() + 0.5 * (a[:, None] == b).mean())


def cases(models: Path, data: Path, only: str | None) -> Iterator[Case]:
    for name, unit in UNITS.items():
        if only not in (None, name) or not (data / name).is_dir() or not (models / f"{name}.onnx").is_file():
            continue
        folder = data / name
        if name == "resnet20":
            preprocess, shape, parts = CIFAR, (1, 3, 32, 32), (folder, folder)
        else:
            shape = (1, *json.loads((folder / "task.json").read_text())["input_shape"][1:])
            fields = json.loads((folder / "preprocess.json").read_text())
            preprocess = Preprocess(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
            parts = folder / "calib", folder / ("agree" if unit == "agreement" else "val")
        proto = onnx.load(models / f"{name}.onnx", load_external_data=False)
        stored = {tensor.name for tensor in proto.graph.initializer}
        given = next(v.name for v in proto.graph.input if v.name not in stored)
        model = open_original(models / f"{name}.onnx", {given: shape})
        calibration = open_data(parts[0], preprocess, shape, split="train")
        measured = open_data(parts[1], preprocess, shape, split="test")
        batches = list(measured.batches(1))
        labels = None
        if measured.labels is not None and unit != "agreement":
            labels = measured.labels
        images = np.stack([x for x, _ in calibration.batches(1, count=IMAGES)])
        yield Case(name, model, images, np.stack([x for x, _ in batches]), labels)


def converted(case: Case, kind: str, fit: Fit = fitted, calibration: str = "mse") -> onnx.ModelProto:
    """The integer model with all convolutions but the first of one type, everything else of 8 bits."""
    staged, images = case.model.staged, {case.model.input: case.calibration}
    seen, _ = ranges(staged, images, workers=WORKERS)
    step = steps(staged, seen, CALIBRATIONS.get(calibration))
    layers = [stage.weighted for stage in staged.stages if stage.weighted is not None]
    first = next(layer.node for layer in layers if layer.window is not None)
    inner = {layer.node for layer in layers if layer.window is not None} - {first}
    kinds = {layer.node: TYPES.get(kind if layer.node in inner else "conv8") for layer in layers}
    made, _ = walk(staged, step, images, kinds, workers=WORKERS, fit=fit)
    return integer_model(staged, step, made)


def percents(found: Mapping[str, float]) -> str:
    return ", ".join(f"{value:.2f} {name}" for name, value in found.items())


@click.group(help=__doc__)
def main() -> None:
    print(heading())


def arguments(command: Callable[..., None]) -> Callable[..., None]:
    for add in (
        click.option("--only", type=click.Choice(tuple(UNITS))),
        click.argument("data", type=click.Path(path_type=Path, exists=True)),
        click.argument("models", type=click.Path(path_type=Path, exists=True)),
    ):
        command = add(command)
    return command


@main.command()
@arguments
@click.option("--types", default="conv8,conv4,shift1,shift2,shift3", show_default=True)
def accuracy(models: Path, data: Path, only: str | None, types: str) -> None:
    print("\n| model | images | type | figures in % | seconds | peak MiB |\n|---|---|---|---|---|---|")
    for case in cases(models, data, only):
        own = case.figures(case.wanted)
        print(f"| {case.name} | {len(case.images)} | float | {percents(own)} | | |", flush=True)
        for kind in types.split(","):
            begin = time.perf_counter()
            model = converted(case, kind)
            seconds = time.perf_counter() - begin
            found = case.figures(outputs_of(model, case.model.input, case.images, WORKERS))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(f"| {case.name} | | {kind} | {percents(found)} | {seconds:.0f} | {peak} |", flush=True)


# -------------------------------------------------------------------- ablation


def _source(staged: Staged, layer: Weighted) -> tuple[Array, Array | None]:
    return np.moveaxis(staged.tensors[layer.weight], layer.axis, 0), staged.tensors.get(layer.bias)


def _fit_nearest(staged: Staged, layer: Weighted, kind: LayerType, found: Moments | None, x: Any) -> Rounded:
    """The largest weight of a channel is the largest level; each weight takes the nearest."""
    w, bias = _source(staged, layer)
    scale = np.abs(w).reshape(len(w), -1).max(axis=1).astype(np.float64) / kind.largest
    scale[scale == 0] = 1.0
    levels = kind.nearest(w / scale.reshape(-1, *[1] * (w.ndim - 1))).astype(np.int16)
    bias = np.zeros(len(w), np.float32) if bias is None else bias
    return _as_stored(Rounded(kind, levels, scale.astype(np.float32), bias), x)


def _fit_scaled(staged: Staged, layer: Weighted, kind: LayerType, found: Moments | None, x: Any) -> Rounded:
    """The scale of least squared error of the weights."""
    return _as_stored(plain(kind, *_source(staged, layer)), x)


def _fit_corrected(staged: Staged, layer: Weighted, kind: LayerType, found: Moments | None, x: Any) -> Rounded:
    """And the mean of the outputs made right by the bias."""
    w, bias = _source(staged, layer)
    made = plain(kind, w, bias)
    if found is not None:
        groups, inputs = found.mean.shape
        old, new = (v.astype(np.float64).reshape(groups, -1, inputs) for v in (w, made.weights))
        shift = np.einsum("gmk,gk->gm", old, found.mean) - np.einsum("gmk,gk->gm", new, found.integer_mean)
        made = replace(made, bias=(made.bias + shift.reshape(-1)).astype(np.float32))
    return _as_stored(made, x)


def _fit_without_bias(staged: Staged, layer: Weighted, kind: LayerType, found: Moments | None, x: Any) -> Rounded:
    """Reconstruction, the bias as it was."""
    w, bias = _source(staged, layer)
    made = plain(kind, w, bias) if found is None else reconstruct(kind, w, bias, found)
    return _as_stored(replace(made, bias=np.zeros(len(w), np.float32) if bias is None else bias), x)


def _fit_damped(
    staged: Staged, layer: Weighted, kind: LayerType, found: Moments | None, x: Any, *, damping: float
) -> Rounded:
    """With another trust in what few images show."""
    w, bias = _source(staged, layer)
    return _as_stored(plain(kind, w, bias) if found is None else reconstruct(kind, w, bias, found, damping), x)


def _as_stored(made: Rounded, x: Any) -> Rounded:
    return made if x is None or made.kind.name.startswith("shift") else with_integer_bias(made, x.scale)


def _of_float(window: Any, floats: Array, integers: Array, read: Any, seed: int = 0) -> Moments:
    """Moments as if the integer model had no errors up to here."""
    return moments(window, floats, floats, lambda value: value, seed)


VARIANTS: tuple[tuple[str, Fit, bool, str], ...] = (
    ("nearest power of two", _fit_nearest, True, "mse"),
    ("+ best scale a channel", _fit_scaled, True, "mse"),
    ("+ bias correction", _fit_corrected, True, "mse"),
    ("+ reconstruction, on float inputs", fitted, False, "mse"),
    ("+ on integer inputs (all)", fitted, True, "mse"),
    ("all, without bias correction", _fit_without_bias, True, "mse"),
    ("all, a tenth of the damping", partial(_fit_damped, damping=0.03), True, "mse"),
    ("all, ranges by min-max", fitted, True, "min-max"),
    ("all, ranges by percentile", fitted, True, "percentile"),
)


def equalised(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Cross-layer equalisation (arXiv 1906.04721): of two convolutions with only a ReLU between, each channel gets the
    same range in both. The model with the same outputs, and how many pairs there were."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    stored = {t.name: t for t in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs, pairs = {v.name for v in graph.output}, 0
    for first in [n for n in graph.node if n.op_type == "Conv"]:
        value = first.output[0]
        if [n.op_type for n in readers.get(value, [])] == ["Relu"] and value not in outputs:
            value = readers[value][0].output[0]
        found = readers.get(value, [])
        if len(found) != 1 or found[0].op_type != "Conv" or value in outputs or found[0].input[0] != value:
            continue
        second = found[0]
        names = (first.input[1], *first.input[2:3], second.input[1])
        if any(n not in stored or len(readers[n]) > 1 for n in names):
            continue
        w, v = (onnx.numpy_helper.to_array(stored[n]).astype(np.float64) for n in (names[0], names[-1]))
        group = next((a.i for a in second.attribute if a.name == "group"), 1)
        if group not in (1, len(w)) or (group > 1 and len(v) != group):
            continue
        axis = 1 if group == 1 else 0
        own, other = np.abs(w).reshape(len(w), -1).max(1), np.abs(np.moveaxis(v, axis, 0)).reshape(len(w), -1).max(1)
        scale = np.where((own > 0) & (other > 0), np.sqrt(own / np.where(other > 0, other, 1)), 1.0)
        changed = {names[0]: w / scale.reshape(-1, *[1] * (w.ndim - 1))}
        changed[names[-1]] = v * np.moveaxis(scale.reshape(-1, *[1] * (v.ndim - 1)), 0, axis)
        if len(names) == 3:
            changed[names[1]] = onnx.numpy_helper.to_array(stored[names[1]]).astype(np.float64) / scale
        for name, array in changed.items():
            stored[name].CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), name))
        pairs += 1
    return made, pairs


@main.command()
@arguments
@click.option("--type", "kind", default="shift1", show_default=True)
def ablation(models: Path, data: Path, only: str | None, kind: str) -> None:
    print(f"\n| {kind} | model | figures in % |\n|---|---|---|")
    for case in cases(models, data, only):
        for title, fit, follow, rule in VARIANTS:
            with patch.object(walking, "moments", moments if follow else _of_float):
                model = converted(case, kind, fit, rule)
            found = case.figures(outputs_of(model, case.model.input, case.images, WORKERS))
            print(f"| {title} | {case.name} | {percents(found)} |", flush=True)
        proto, pairs = equalised(case.model.staged.model)
        if pairs:
            from nashc.hybridize.original import original  # noqa: PLC0415

            other = replace(case, model=original(proto, {}, case.name, case.name))
            found = case.figures(outputs_of(converted(other, kind), case.model.input, case.images, WORKERS))
            print(f"| all, after equalisation of {pairs} pairs | {case.name} | {percents(found)} |", flush=True)


# ----------------------------------------------------------------------- speed


@main.command()
@arguments
@click.option("--board", default="fpga-zc706", show_default=True)
@click.option("--max-drop", default=0.01, show_default=True)
@click.option("--min-sqnr-db", default=20.0, show_default=True, help="Of models that score no classes.")
@click.option("--seconds", default=20.0, show_default=True, help="Of each search.")
@click.option("--types", default="conv8,conv4,shift1,shift2", show_default=True)
def speed(
    models: Path,
    data: Path,
    only: str | None,
    board: str,
    max_drop: float,
    min_sqnr_db: float,
    seconds: float,
    types: str,
) -> None:
    print(f"\n| {board} | types chosen | figures in % | float | FPS | original, DSP | original, DSP + LUT |"
          " not ruled out | best multiplying within the budget | gain | seconds | peak MiB |")  # fmt: skip
    print("|" + "---|" * 12)
    chosen_board = target_board(board, Options())
    for case in cases(models, data, only):
        begin = time.perf_counter()
        budget = {"accuracy": max_drop, "agreement": AGREEMENT_DROP, "auc": None}[UNITS[case.name]]
        options = HybridOptions(
            types=tuple(types.split(",")),
            max_drop=budget,
            min_sqnr_db=min_sqnr_db if budget is None else None,
            search=Options(budget_seconds=seconds),
            workers=WORKERS,
        )
        judge = None
        if UNITS[case.name] == "accuracy":
            labels = None if case.labels is None else case.labels[:JUDGED]
            judge = Judge(case.images[:JUDGED], labels, {n: v[:JUDGED] for n, v in case.wanted.items()})
        try:
            made = hybridize(case.model, case.calibration, chosen_board, options, judge=judge)
        except NashcError as error:
            print(f"| {case.name} | {error} |" + " |" * 10, flush=True)
            continue
        took = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        found = case.figures(outputs_of(made.model, case.model.input, case.images, WORKERS))
        fps, best = made.chosen.fps or 0.0, made.multiplying or float("nan")
        floor = [f"{made.floor[n]:,.1f}" if made.floor[n] else "-" for n in ("conv-only-dsp", "conv-only")]
        row = [case.name, made.chosen.name, percents(found), percents(case.figures(case.wanted)), f"{fps:,.1f}", *floor,
               f"{made.not_ruled_out:,.0f}" if made.not_ruled_out else "proven",
               f"{best:,.1f}", f"{fps / best:.2f}", f"{took:.0f}", str(peak)]  # fmt: skip
        print(f"| {' | '.join(row)} |", flush=True)
        for point in sorted(made.points, key=lambda p: -(p.fps or 0)):
            print(f"<!-- {case.name}: {point.name}: {point.fps or 0:,.1f} FPS, drop {point.fidelity.drop},"
                  f" {point.fidelity.least_sqnr_db:.1f} dB -->", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
