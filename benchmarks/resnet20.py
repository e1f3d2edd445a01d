"""ResNet-20 end to end: shift, adder and hybrid networks in our Session next to the all-conv one in stock onnxruntime.

    python benchmarks/resnet20.py [--threads 1,2] [--batches 1,16] [--seconds 0.5]

The networks of examples/resnet20.py with random weights on random images: stem and classifier multiply, the blocks are
conv, shift and adder in turn (hybrid) or all of one kind. Float, and int8 by min and max of the calibration images: the
all-conv one by onnxruntime.quantization (QDQ, uint8 x int8, one scale a channel), the others by quantise.py. Accuracy
is not the matter here. portable: the same model in stock onnxruntime, through the functions in the file. cdist: the
same network in torch, adder layers as unfold + cdist, shift layers as convolutions with their decoded weights. 4 bits:
the shifts of the layers stay below 2^7, where int8 kernels have weights of 8 bits; with 5 bits (the default) of 16.

Before anything is timed, float outputs are held against the NumPy reference (TOLERANCE of the largest logit), and the
int8 Session against the same quantised model without fusion, where a step may round to its neighbour (INT8_TOLERANCE).
Best of calls that take turns, with a pause before each, in which the threads of the previous one stop to spin; one
thread: CPU time of the calling thread, two: wall time.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
import torch
from kernels import best_seconds, print_heading, side_by_side
from nashc.ops import decode_shift, embed_functions
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from quantise import quantise

from nashc import nn
from nashc.export import export
from nashc.nn.convert import replace
from nashc.runtime import Session, run_reference
from nashc.runtime.fuse import DOMAIN as FUSED
from nashc.runtime.prepare import prepare

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from resnet20 import MIXES, resnet20, settle

Array = NDArray[Any]
Run = Callable[[Array], Array]
Make = Callable[[int], Run]
TOLERANCE, INT8_TOLERANCE = 1e-4, 0.05
NETWORKS: dict[str, tuple[str | nn.Shift, ...]] = {
    **{mix: MIXES[mix] for mix in ("conv", "hybrid", "shift", "adder")},
    "hybrid, 4 bits": ("conv", nn.Shift(bits=4), "adder"),
    "shift, 4 bits": (nn.Shift(bits=4),),
}
CONV, CONV8 = "conv, onnxruntime", "conv int8, onnxruntime"
MIXED = ("hybrid", "shift", "adder")
PAIRS = (
    *((f"{mix}, Session", CONV) for mix in MIXED),
    *((f"{mix} int8, Session", CONV8) for mix in NETWORKS if mix != "conv"),
    *((f"{mix}{kind}, Session", f"{mix}{kind}, portable") for mix in MIXED for kind in ("", " int8")),
    *((f"{mix}, Session", f"{mix}, torch cdist") for mix in MIXED),
)


class CdistAdder(torch.nn.Module):
    """An AdderConv2d as torch users write it."""

    def __init__(self, layer: nn.AdderConv2d) -> None:
        super().__init__()
        self.weight, self.stride, self.kernel = layer.weight, layer.stride[0], layer.kernel_size[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = torch.nn.functional.unfold(x, self.kernel, padding=self.kernel // 2, stride=self.stride)
        pixels = columns.transpose(1, 2).reshape(-1, columns.shape[1])
        found = -torch.cdist(pixels, self.weight.flatten(1), p=1.0).view(x.shape[0], -1, len(self.weight))
        size = -(-x.shape[2] // self.stride)
        return found.transpose(1, 2).reshape(x.shape[0], -1, size, size)


def in_torch(network: torch.nn.Module) -> torch.nn.Module:
    def usual(_: str, layer: torch.nn.Module) -> torch.nn.Module:
        if isinstance(layer, nn.AdderConv2d):
            return CdistAdder(layer)
        if not isinstance(layer, nn.FixedShiftConv2d):
            return layer
        conv = torch.nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, bias=False
        )
        weights = decode_shift(layer.codes.numpy(), layer.scale.detach().numpy())
        conv.weight.data.copy_(torch.from_numpy(weights))
        return conv

    return replace(nn.fix_shift_weights(network), usual)


class Calibration(CalibrationDataReader):
    def __init__(self, images: Array) -> None:
        self.left = iter([{"x": images}])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.left, None)


def by_onnxruntime(model: onnx.ModelProto, images: Array) -> onnx.ModelProto:
    """The model as onnxruntime's own tool quantises it."""
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        logging.disable()  # its advice to run pre-processing first: the exporter has folded the BNs already
        quantize_static(
            source, path, Calibration(images), QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        logging.disable(logging.NOTSET)
        return onnx.load(path)


def stock(model: onnx.ModelProto, threads: int) -> Run:
    """In onnxruntime without our library."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def ours(model: onnx.ModelProto, threads: int) -> Run:
    session = Session(model, threads=threads)
    return lambda x: session.run({"x": x})[session.outputs[0].name]


def torch_run(network: torch.nn.Module, threads: int) -> Run:
    def run(x: Array) -> Array:
        with torch.inference_mode():
            return network(torch.from_numpy(x)).numpy()

    torch.set_num_threads(threads)  # for all of torch
    return run


def makers(images: Array) -> dict[str, Make]:
    """Every contestant, for a number of threads; prints what Session fused, and checks all of them on `images`."""
    found: dict[str, Make] = {}
    for mix, operators in NETWORKS.items():
        torch.manual_seed(0)
        network = settle(resnet20(operators), torch.from_numpy(images))
        with tempfile.TemporaryDirectory() as folder:
            model = export(network, torch.zeros(1, 3, 32, 32), Path(folder) / "float.onnx", input_names=["x"])
        expected = next(iter(run_reference(model, {"x": images[:2]}).values()))
        int8 = by_onnxruntime(model, images) if mix == "conv" else quantise(model, {"x": images})
        floats = {CONV: partial(stock, model)} if mix == "conv" else contestants_of(mix, model, network)
        int8s = {CONV8: partial(stock, int8)} if mix == "conv" else contestants_of(f"{mix} int8", int8)
        for name, make in floats.items():
            check(name, make(1)(images[:2]), expected, TOLERANCE)
        results = {name: make(1)(images[:2]) for name, make in int8s.items()}
        for name, result in results.items():
            check(f"{name}, next to float", result, expected, None)
        if mix != "conv":
            check(f"{mix} int8, fused and not", *results.values(), INT8_TOLERANCE)
            report(f"{mix}, Session", model)
            report(f"{mix} int8, Session", int8)
        if mix not in MIXES:  # in float the network with other codes is as fast
            floats, int8s = {}, {f"{mix} int8, Session": int8s[f"{mix} int8, Session"]}
        found |= floats | int8s
    return found


def contestants_of(name: str, model: onnx.ModelProto, network: torch.nn.Module | None = None) -> dict[str, Make]:
    made = {f"{name}, Session": partial(ours, model), f"{name}, portable": partial(stock, embed_functions(model))}
    return made if network is None else made | {f"{name}, torch cdist": partial(torch_run, in_torch(network))}


def check(name: str, found: Array, expected: Array, tolerance: float | None) -> None:
    """Print the largest difference, as a share of the largest logit; exit where it is above the tolerance."""
    share = float(np.abs(found - expected).max() / np.abs(expected).max())
    print(f"{name}: differs by {share:.2g}" + ("" if tolerance is None else f" (up to {tolerance:g} is accepted)"))
    if tolerance is not None and not share <= tolerance:
        raise SystemExit(f"{name}: wrong results")


def report(name: str, model: onnx.ModelProto) -> None:
    """What became of the ai.nashc operators."""
    prepared = prepare(model, native=True)
    before = Counter(node.op_type for node in prepared.source.graph.node if node.domain == "ai.nashc")
    after = Counter(node.op_type for node in prepared.model.graph.node if node.domain in ("ai.nashc", FUSED))
    print(f"{name}: {_counts(before)}; in onnxruntime {_counts(after)}; {len(prepared.skips)} skipped")
    for skip in prepared.skips:
        print(f"    {skip.node}: {skip.reason}")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none of ours"


def rates(runs: Mapping[str, Run], x: Array, seconds: float, threads: int) -> dict[str, float]:
    """Images a second of each."""
    took = best_seconds({name: partial(run, x) for name, run in runs.items()}, seconds, threads)
    return {name: len(x) / took[name] for name in runs}


@click.command(help=__doc__)
@side_by_side("1,16")
def main(threads: str, batches: str, seconds: float) -> None:
    print_heading()
    images = np.random.default_rng(0).standard_normal((16, 3, 32, 32)).astype(np.float32)
    contestants = makers(images)
    columns: list[str] = []
    cells: dict[str, list[str]] = {name: [] for name in contestants}
    ratios: dict[tuple[str, str], list[str]] = {pair: [] for pair in PAIRS}
    for count in map(int, threads.split(",")):
        made = {name: make(count) for name, make in contestants.items()}
        for batch in map(int, batches.split(",")):
            x = np.resize(images, (batch, 3, 32, 32))
            rate = rates(made, x, seconds, count)
            columns.append(f"{count} thread{'s' * (count > 1)}, batch {batch}")
            for name in contestants:
                cells[name].append(f"{rate[name]:.0f}")
            for (one, other), values in ratios.items():
                values.append(f"{rate[one] / rate[other]:.2f}")
    print("\nimages a second\n\n| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, values in cells.items():
        print(f"| {name} | " + " | ".join(values) + " |")
    for (one, other), values in ratios.items():
        print(f"| {one} / {other} | " + " | ".join(values) + " |")


if __name__ == "__main__":
    main()
