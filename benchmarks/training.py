"""A training step of AdderConv2d next to unfold + cdist in torch: time and peak memory, forward and backward.

    python benchmarks/training.py [--threads 1,2] [--batches 16,64] [--seconds 0.5]

The other side is what published implementations do without CUDA code: unfold, one torch.cdist(p=1) over all pixels and
filters (in a depthwise layer, where cdist would see one filter at a time: sums over the taps), and autograd. Its
gradient is the sign of x - w, cheaper than AdderNet's x - w and HardTanh, which AdderConv2d computes (with its scale
eta); AdderNet's own code holds filters * taps * pixels differences at once, 9.7 GB in the second layer at batch 64.
Time: the best of calls that take turns; one thread: CPU time of the calling thread, two: wall time. Memory: the peak of
resident memory above inputs, weights and the gradient of the output, in a fresh process each, after a step of one image
that loads libraries and code. "results" are the output and the gradient of x, which every implementation has to write.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import torch
from kernels import Layer, best_seconds, print_heading, side_by_side
from torch import Tensor

from nashc.nn import AdderConv2d

Step = Callable[[], Tensor]
LAYERS = (
    Layer("1x1 64->128 @32", 64, 32, 128, 1),
    Layer("3x3 64->64 @32", 64, 32, 64, 3),
    Layer("3x3 128->128 @16", 128, 16, 128, 3),
    Layer("depthwise 3x3 96 @32", 96, 32, 96, 3, 96),
)
OURS, CDIST = "AdderConv2d", "unfold + cdist"
ROUNDING = 2.0**-24  # half a step of float32


def cdist_forward(x: Tensor, w: Tensor, layer: Layer) -> Tensor:
    """y [N, filters, H, W] = -sum |x - w| of x [N, C, H, W], w [filters, C/groups, kernel, kernel]."""
    columns = torch.nn.functional.unfold(x, layer.kernel, padding=layer.kernel // 2)
    if layer.groups == layer.channels:
        taps = columns.view(x.shape[0], layer.channels, layer.kernel**2, -1)
        y = -(taps - w.view(1, layer.channels, -1, 1)).abs().sum(2)
    else:
        pixels = columns.transpose(1, 2).reshape(-1, columns.shape[1])
        found = -torch.cdist(pixels, w.view(layer.filters, -1), p=1.0)
        y = found.view(x.shape[0], -1, layer.filters).transpose(1, 2)
    return y.reshape(x.shape[0], layer.filters, layer.size, layer.size)


def make_step(name: str, layer: Layer, batch: int) -> Step:
    """Forward, and backward to x and the weights; returns the output."""
    torch.manual_seed(0)
    ours = AdderConv2d(layer.channels, layer.filters, layer.kernel, padding=layer.kernel // 2, groups=layer.groups)
    x = torch.randn(batch, layer.channels, layer.size, layer.size, requires_grad=True)
    dy = torch.randn(batch, layer.filters, layer.size, layer.size)
    forward = ours if name == OURS else partial(cdist_forward, w=ours.weight, layer=layer)

    def step() -> Tensor:
        x.grad = ours.weight.grad = None
        y: Tensor = forward(x)
        y.backward(dy)
        return y.detach()

    return step


def check(layer: Layer) -> None:
    """Both forwards agree, within one rounding a tap on each side."""
    a, b = (make_step(name, layer, 1)() for name in (OURS, CDIST))
    taps = layer.channels // layer.groups * layer.kernel**2
    limit = 2 * taps * ROUNDING * float(a.abs().max())
    if not float((a - b).abs().max()) <= limit:
        raise SystemExit(f"{layer.name}: the outputs differ by {float((a - b).abs().max())}, more than {limit}")


def status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def peak_bytes(name: str, layer: Layer, batch: int) -> int:
    """Of resident memory during one step, above what was there before it; call it in a fresh process."""
    make_step(name, layer, 1)()
    step = make_step(name, layer, batch)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    step()
    return status("VmHWM") - before


def peak_apart(name: str, layer: Layer, batch: int, threads: int) -> int:
    command = [sys.executable, __file__, "--threads", str(threads), "--peak", name, layer.name, str(batch)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@click.command(help=__doc__)
@side_by_side("16,64")
@click.option("--peak", type=(str, str, int), hidden=True, help="implementation, layer, batch: only its peak, in bytes")
def main(threads: str, batches: str, seconds: float, peak: tuple[str, str, int] | None) -> None:
    counts, sizes = [int(n) for n in threads.split(",")], [int(n) for n in batches.split(",")]
    torch.set_num_threads(counts[-1])
    if peak is not None:
        name, wanted, batch = peak
        print(peak_bytes(name, next(layer for layer in LAYERS if layer.name == wanted), batch))
        return
    print_heading()
    for count in counts:
        torch.set_num_threads(count)
        print(f"\n{count} thread{'s' * (count > 1)}, ms a step\n\n| layer | batch | {OURS} | {CDIST} | ratio |")
        print("|---|---|---|---|---|")
        for layer in LAYERS:
            check(layer)
            for batch in sizes:
                took = best_seconds({name: make_step(name, layer, batch) for name in (OURS, CDIST)}, seconds, count)
                times = " | ".join(f"{took[name] * 1e3:.1f}" for name in (OURS, CDIST))
                print(f"| {layer.name} | {batch} | {times} | {took[CDIST] / took[OURS]:.1f} |", flush=True)
    print(f"\n{counts[-1]} thread{'s' * (counts[-1] > 1)}, MiB above the start\n")
    print(f"| layer | batch | results | {OURS} | {CDIST} | ratio |")
    print("|---|---|---|---|---|---|")
    for layer in LAYERS:
        for batch in sizes:
            memory = {name: peak_apart(name, layer, batch, counts[-1]) for name in (OURS, CDIST)}
            results = batch * (layer.channels + layer.filters) * layer.size**2 * 4
            cells = " | ".join(f"{n / 2**20:.0f}" for n in (results, *memory.values()))
            print(f"| {layer.name} | {batch} | {cells} | {memory[CDIST] / memory[OURS]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
