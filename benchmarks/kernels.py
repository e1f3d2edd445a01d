"""Kernels side by side in one process: ours inside onnxruntime, onnxruntime's own, and the cdist form in torch.

    python benchmarks/kernels.py [--threads 1,2] [--batches 1,16] [--seconds 0.5]

Each cell is the best of many calls that take turns; one thread: CPU time of the calling thread, two: wall time.
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
import torch
from machine import heading
from nashc.ops import DOMAIN, OPSET, native
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Run = Callable[[], Any]
FUSED = "ai.nashc.fused"
ADDER, SHIFT, CONV, QCONV = "AdderConv", "ShiftConv", "Conv", "QLinearConv"
CDIST = "torch cdist"


@dataclass(frozen=True)
class Layer:
    name: str
    channels: int
    size: int
    filters: int
    kernel: int
    groups: int = 1

    @property
    def attributes(self) -> dict[str, Any]:
        pad = self.kernel // 2
        return {"pads": [pad] * 4, "group": self.groups, "strides": [1, 1], "dilations": [1, 1]}

    def macs(self, batch: int) -> int:
        taps = self.channels // self.groups * self.kernel**2
        return batch * self.filters * self.size**2 * taps


LAYERS = (
    Layer("1x1 64->128 @32", 64, 32, 128, 1),
    Layer("3x3 64->64 @32", 64, 32, 64, 3),
    Layer("3x3 128->128 @16", 128, 16, 128, 3),
    Layer("depthwise 3x3 96 @32", 96, 32, 96, 3, 96),
    Layer("1x1 256->512 @8", 256, 8, 512, 1),
)


def session(node: onnx.NodeProto, x: Array, constants: dict[str, Array], element: int, threads: int) -> Run:
    """One node in onnxruntime, our library registered, as a call without arguments."""
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", element, None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    opsets = [helper.make_opsetid(*pair) for pair in (("", 21), (DOMAIN, OPSET), (FUSED, OPSET))]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("nashc.threads", str(threads))
    options.register_custom_ops_library(str(native.library()))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    made = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: made.run(None, {"x": x})


def cdist(x: Array, w: Array, layer: Layer) -> Run:
    """The usual formulation in torch: unfold, then pairwise distances; depthwise: unfold, then sums."""
    inputs, weights, pad = torch.from_numpy(x), torch.from_numpy(w), layer.kernel // 2
    size = (x.shape[0], layer.filters, layer.size, layer.size)

    def run() -> Any:
        with torch.inference_mode():
            columns = torch.nn.functional.unfold(inputs, layer.kernel, padding=pad)
            if layer.groups > 1:
                taps = columns.view(x.shape[0], layer.channels, layer.kernel**2, -1)
                return -(taps - weights.view(1, layer.channels, -1, 1)).abs().sum(2).view(size)
            rows = columns.transpose(1, 2).reshape(-1, columns.shape[1])
            found = -torch.cdist(rows, weights.view(layer.filters, -1), p=1)
            return found.view(x.shape[0], -1, layer.filters).transpose(1, 2).reshape(size)

    return run


def contestants(layer: Layer, batch: int, threads: int) -> dict[str, Run]:
    rng = np.random.default_rng(0)
    shape = (batch, layer.channels, layer.size, layer.size)
    weights = (layer.filters, layer.channels // layer.groups, layer.kernel, layer.kernel)
    x, w = rng.standard_normal(shape).astype(np.float32), rng.standard_normal(weights).astype(np.float32)
    x8, w8 = rng.integers(-128, 128, shape).astype(np.int8), rng.integers(-127, 128, weights).astype(np.int8)
    signs = rng.choice([-1, 1], (1, *weights))
    codes = (rng.integers(1, 8, (1, *weights)) * signs).astype(np.int8)  # powers of two from 2^0 to 2^-6
    wide = (rng.integers(1, 16, (1, *weights)) * signs).astype(np.int8)  # down to 2^-14: 16-bit weights
    powers = (signs[0] << (7 - np.abs(codes[0]))).astype(np.int8)
    m = layer.filters
    one, scale, bias = np.ones(m, np.float32), np.full(m, 0.01, np.float32), np.zeros(m, np.float32)
    own = layer.attributes
    conv = {**own, "kernel_shape": [layer.kernel] * 2}
    limits = {"lowest": -math.inf, "highest": math.inf}

    def ours(name: str, domain: str, x_: Array, constants: dict[str, Array], element: int, **extra: Any) -> Run:
        node = helper.make_node(name, ["x", *constants], ["y"], domain=domain, **own, **extra)
        return session(node, x_, constants, element, threads)

    zero = np.zeros((), np.int8)
    quantised = {"scale": scale, "bias": bias, "y_zero_point": zero}
    q_inputs = {
        "x_scale": np.float32(0.02), "x_zero": np.uint8(128), "w": powers, "w_scale": np.float32(0.01),
        "w_zero": np.int8(0), "y_scale": np.float32(2), "y_zero": np.uint8(128),
    }  # fmt: skip
    return {
        f"{ADDER} float": ours("AdderConv", DOMAIN, x, {"w": w}, TensorProto.FLOAT),
        f"{ADDER} int8 -> int32": ours("AdderConvInteger", DOMAIN, x8, {"w": w8}, TensorProto.INT32),
        f"{ADDER} int8 -> int8": ours(
            "QuantizedAdderConv", FUSED, x8, {"w": w8, **quantised}, TensorProto.INT8, **limits
        ),
        f"{SHIFT} float": ours("ShiftConv", DOMAIN, x, {"w": codes, "s": one}, TensorProto.FLOAT),
        f"{SHIFT} int8 -> int32": ours("ShiftConvInteger", DOMAIN, x8, {"w": codes}, TensorProto.INT32, pmax=6),
        f"{SHIFT} int8 -> int8": ours(
            "QuantizedShiftConv", FUSED, x8, {"w": codes, **quantised}, TensorProto.INT8, pmax=6, **limits
        ),
        f"{SHIFT} int8, 16-bit weights": ours(
            "ShiftConvInteger", DOMAIN, x8, {"w": wide}, TensorProto.INT32, pmax=14
        ),
        f"{CONV} float": session(
            helper.make_node("Conv", ["x", "w"], ["y"], **conv), x, {"w": w}, TensorProto.FLOAT, threads
        ),
        f"{QCONV} u8s8": session(
            helper.make_node("QLinearConv", ["x", *q_inputs], ["y"], **conv),
            (x8.astype(np.int16) + 128).astype(np.uint8), q_inputs, TensorProto.UINT8, threads,
        ),
        CDIST: cdist(x, w, layer),
    }  # fmt: skip


def best_seconds(runs: dict[str, Run], seconds: float, threads: int) -> dict[str, float]:
    """Of each, the quickest of calls that take turns until each had its seconds."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    best, spent = dict.fromkeys(runs, math.inf), dict.fromkeys(runs, 0.0)
    for run in runs.values():
        run()
    while waiting := [name for name in runs if spent[name] < seconds]:
        for name in waiting:
            if threads > 1:
                time.sleep(0.02)  # workers of the one before keep looking for work for some milliseconds
            turn = spent[name] + (0.02 if threads > 1 else 0.001)
            while spent[name] < turn:
                wall, begin = time.perf_counter(), clock()
                runs[name]()
                best[name] = min(best[name], clock() - begin)
                spent[name] += time.perf_counter() - wall
    return best


def peaks() -> dict[str, float]:
    """What the vector units can do in one thread, 10^9 multiply-accumulate equivalents a second (peaks.cpp)."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peaks"
        source = Path(__file__).with_name("peaks.cpp")
        subprocess.run(["g++", "-O1", "-mavx2", "-mfma", str(source), "-o", str(program)], check=True)
        found: dict[str, float] = json.loads(subprocess.run([str(program)], check=True, capture_output=True).stdout)
        return found


RATIOS = (
    (f"{ADDER} int8 -> int8", f"{QCONV} u8s8"),
    (f"{SHIFT} int8 -> int8", f"{QCONV} u8s8"),
    (f"{SHIFT} float", f"{CONV} float"),
    (f"{ADDER} float", f"{CONV} float"),
    (f"{ADDER} float", CDIST),
)


def side_by_side(batches: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of a table of contestants, with its default batches."""

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        for name, default in (("--seconds", 0.5), ("--batches", batches), ("--threads", "1,2")):
            command = click.option(name, default=default)(command)
        return command

    return with_options


def print_heading() -> None:
    print(heading(), end="\n\n")
    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {', '.join(native.instruction_sets())}\n")


@click.command(help=__doc__)
@side_by_side("1,16")
def main(threads: str, batches: str, seconds: float) -> None:
    print_heading()
    limits = peaks()
    print("Peak of one thread, 10^9 a second: " + ", ".join(f"{name} {value:.0f}" for name, value in limits.items()))
    alone: dict[tuple[str, str], float] = {}
    for count in map(int, threads.split(",")):
        torch.set_num_threads(count)
        for batch in map(int, batches.split(",")):
            print(f"\n{count} thread{'s' * (count > 1)}, batch {batch}, 10^9 multiply-accumulates a second:\n")
            columns: dict[str, list[str]] = {}
            for layer in LAYERS:
                runs = contestants(layer, batch, count)
                took = best_seconds(runs, seconds, count)
                for name, best in took.items():
                    columns.setdefault(name, []).append(f"{layer.macs(batch) / best * 1e-9:.1f}")
                for name, other in RATIOS:
                    columns.setdefault(f"{name} / {other}", []).append(f"{took[other] / took[name]:.2f}")
                for name in (f"{ADDER} float", f"{ADDER} int8 -> int32", f"{SHIFT} int8 -> int32"):
                    if count == 1 and batch == 1:
                        alone[name, layer.name] = took[name]
                        continue
                    if batch == 1 and (name, layer.name) in alone:
                        gain = alone[name, layer.name] / took[name]
                        columns.setdefault(f"{name}, {count} threads / 1", []).append(f"{gain:.2f}")
                for name, kind in ((f"{ADDER} float", "adder f32"), (f"{ADDER} int8 -> int32", "adder int8")):
                    peak = limits[f"{native.instruction_sets()[0]} {kind}"]
                    if count == 1:
                        share = layer.macs(batch) / took[name] * 1e-9 / peak
                        columns.setdefault(f"{name}, share of peak", []).append(f"{share:.0%}")
            print("| | " + " | ".join(layer.name for layer in LAYERS) + " |\n|---|" + "---|" * len(LAYERS))
            for name, cells in columns.items():
                print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
