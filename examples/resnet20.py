"""A hybrid ResNet-20 for CIFAR images (32 x 32) in PyTorch, and its ONNX file, with random weights.

    python examples/resnet20.py OUT.onnx [--mix conv|hybrid|shift|adder] [--portable] [--seed 0]

The network is that of He et al. (arXiv 1512.03385, section 4.2): a 3x3 stem, three stages of three residual blocks with
16, 32 and 64 channels, global pooling, a classifier. Stem and classifier are always multiplications; the operator of
the other layers is chosen block by block (hybrid: conv, shift, adder, in turn), and where a stage begins, a 1x1 layer
of the same operator is the shortcut. Every layer has its BN. 40.8 million multiply-accumulates (or what replaces them).

A BN needs the statistics of images before an untrained network gives sensible numbers: `settle` collects them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor, nn

from nashc.export import export
from nashc.nn import convert, save

CLASSES = 10
WIDTHS = (16, 32, 64)
DEPTH = 3
MIXES = {mix: (mix,) for mix in ("conv", "shift", "adder")} | {"hybrid": ("conv", "shift", "adder")}


class Block(nn.Module):
    """Two 3x3 layers around a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.shortcut(x)).relu()


class ResNet(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU())
        blocks, channels = [], WIDTHS[0]
        for width in WIDTHS:
            for depth in range(DEPTH):
                blocks.append(Block(channels, width, 2 if depth == 0 and width != channels else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


def resnet20(operators: Sequence[str] = MIXES["hybrid"], classes: int = CLASSES) -> nn.Module:
    """The network with operators[i] in block i of 9, again from the start where there are fewer than blocks."""
    network = ResNet(classes)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    choices = zip(range(len(network.blocks)), cycle(operators))
    return convert(network, {f"blocks.{i}.*": operator for i, operator in choices})


@torch.no_grad()
def settle(network: nn.Module, images: Tensor) -> nn.Module:
    """Give every BN the mean and variance that these images have in its place; eval mode afterwards."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a hybrid ResNet-20 as ONNX, with random weights.")
    parser.add_argument("out", type=Path, metavar="OUT.onnx")
    parser.add_argument("--mix", choices=MIXES, default="hybrid", help="operators of the blocks (default: hybrid)")
    parser.add_argument("--portable", action="store_true", help="for stock onnxruntime: functions in the file")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="also write the weights (safetensors)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    network = settle(resnet20(MIXES[args.mix]), torch.randn(16, 3, 32, 32))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    export(network, torch.zeros(1, 3, 32, 32), args.out, portable=args.portable, input_names=["x"])
    print(f"wrote {args.out}: ResNet-20 ({args.mix}), {args.out.stat().st_size / 1e6:.1f} MB")
    if args.weights is not None:
        save(network, args.weights)
        print(f"wrote {args.weights}")


if __name__ == "__main__":
    main()
