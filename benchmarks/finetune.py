"""A trained ResNet-20 whose layers become adder layers: accuracy before and after training, in float and in integers.

    python benchmarks/finetune.py MODEL.onnx CIFAR OUT.onnx [--layers PATTERN,...] [--epochs 10] [--minutes 60]
        [--images 50000] [--quantised 0.25] [--start slopes|convolution|normal] [--checkpoint FOLDER] [--seed 0]

MODEL.onnx is what train_cifar10.py writes, CIFAR its folder. The training images are used without their labels. The
layers are named by patterns; by default nine layers of the second and third stage, 52 % of all multiply-accumulates.
The integer model is that of quantise.py: 8 bits, by the smallest and largest value on 256 training images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from machine import heading
from numpy.typing import NDArray
from quantise import quantise
from torch import Tensor
from train_cifar10 import load

from nashc.core.network import Unit
from nashc.importer import import_model
from nashc.nn import adder_norm
from nashc.nn.finetune import FinetuneOptions, Progress, finetune
from nashc.runtime import Session

Array = NDArray[Any]
LAYERS = "blocks.[4578].conv[12],blocks.6.conv2"
CALIBRATION = 256
DEFAULT = FinetuneOptions()
STARTS: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "slopes": adder_norm.slopes_to_weights,
    "convolution": lambda weight, grid, slopes, alpha: weight,
    "normal": lambda weight, grid, slopes, alpha: torch.randn_like(weight),
}
"""slopes: ours. convolution: its weights. normal: N(0, 1), as AdderNet. All have the BN matched."""


def accuracy(model: onnx.ModelProto, images: Array, labels: Array) -> float:
    session = Session(model)
    name, out = session.inputs[0].name, session.outputs[0].name
    found = [session.run({name: images[i : i + 500]})[out].argmax(1) for i in range(0, len(images), 500)]
    return float((np.concatenate(found) == labels).mean())


def adder_share(path: Path) -> float:
    """Of all multiply-accumulates (or what replaces them)."""
    layers = [layer for layer in import_model(path).network.layers if layer.weights is not None]
    macs = {unit: sum(layer.nest.macs for layer in layers if layer.unit is unit) for unit in Unit}
    return macs[Unit.ADDER] / sum(macs.values())


def chosen(model: onnx.ModelProto, patterns: Sequence[str]) -> list[str]:
    names = [node.name for node in model.graph.node if node.op_type == "Conv"]
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


class Log:
    """A line for each epoch."""

    def __init__(self, per_epoch: int) -> None:
        self.per_epoch, self.begin = per_epoch, time.perf_counter()

    def __call__(self, p: Progress) -> None:
        if p.step % self.per_epoch == 0 or p.step == p.steps:
            seconds = time.perf_counter() - self.begin
            kind = "8 bits" if p.quantised else "float"
            text = f"step {p.step}/{p.steps} ({kind}): divergence {p.divergence:.4f}, features {p.features:.4f}"
            print(f"{text}, {seconds:.0f} s", flush=True)


@click.command(help=__doc__)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--layers", default=LAYERS, show_default=True)
@click.option("--epochs", default=DEFAULT.epochs, show_default=True)
@click.option("--minutes", type=float)
@click.option("--images", default=50_000, show_default=True)
@click.option("--quantised", default=DEFAULT.quantised, show_default=True)
@click.option("--adder-rate", default=DEFAULT.adder_rate, show_default=True)
@click.option("--rate", default=DEFAULT.rate, show_default=True)
@click.option("--features", default=DEFAULT.features, show_default=True)
@click.option("--start", type=click.Choice(tuple(STARTS)), default="slopes", show_default=True)
@click.option("--checkpoint", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True)
def main(model: Path, data: Path, out: Path, layers: str, images: int, start: str, **given: Any) -> None:
    print(heading())
    adder_norm.slopes_to_weights = STARTS[start]
    options = FinetuneOptions(**given)
    x = load(data, "data_batch_*.png", "train_lables.json")[0].numpy()
    test, labels = (t.numpy() for t in load(data, "test_batch.png", "test_lables.json"))
    source = onnx.load(model)
    adders = chosen(source, layers.split(","))
    print(f"{len(adders)} adder layers: {', '.join(adders)}")
    print(f"original: {accuracy(source, test, labels):.4f} of the test images")
    if options.checkpoint is not None:
        options.checkpoint.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    result = finetune(source, adders, x[:images], options, progress=Log(min(images, len(x)) // options.batch))
    minutes = (time.perf_counter() - begin) / 60
    print("match of each layer before training: " + ", ".join(f"{n} {v:.2f}" for n, v in result.match.items()))
    onnx.save(result.model, out)
    print(f"{result.steps} steps in {minutes:.1f} minutes; {adder_share(out):.1%} of the MACs are in adder layers")
    print(f"float: {accuracy(result.model, test, labels):.4f} of the test images")
    integer = quantise(result.model, {source.graph.input[0].name: x[:CALIBRATION]})
    print(f"integer: {accuracy(integer, test, labels):.4f} of the test images")


if __name__ == "__main__":
    main()
