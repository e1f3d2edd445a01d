"""An architecture as a torch module."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from nashc.nas.architecture import Architecture
from nashc.nas.layout import Step, layout
from nashc.nas.space import Space
from nashc.nn import AdderConv2d, ShiftConv2d

SHIFT_BITS = 4
"""Of a shift code: a sign and exponents 0 to -6, the lane that FACTS.md's table calls sign + 3-bit exponent."""


class Gate(nn.Module):
    """Squeeze-excite: x times a value in 0..1 for each channel."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = functional.relu(self.reduce(functional.adaptive_avg_pool2d(x, 1)))
        return x * functional.sigmoid(self.expand(squeezed))


class NormedLayer(nn.Module):
    """A convolution, shift or adder layer and its BN."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        window = (step.channels, step.outputs, step.kernel, step.stride, step.kernel // 2, 1, step.groups)
        self.conv: nn.Module
        if step.operator == "adder":
            self.conv = AdderConv2d(*window, bias=False)
        elif step.operator == "shift":
            self.conv = ShiftConv2d(*window, bias=False, bits=SHIFT_BITS)
        else:
            self.conv = nn.Conv2d(*window, bias=False)
        self.norm = nn.BatchNorm2d(step.outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y


class HybridNet(nn.Module):
    """The network of an architecture: images [N, channels, resolution, resolution] -> scores [N, classes].

    Its layers are named as the steps of its layout: blocks.0.expand and so on, each with .conv and .norm.
    """

    def __init__(self, architecture: Architecture, space: Space) -> None:
        super().__init__()
        self.architecture, self.space = architecture, space
        self.steps = layout(architecture, space)
        for step in self.steps:
            owner: nn.Module = self
            *path, last = step.name.split(".")
            for part in path:
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = getattr(owner, part)
            owner.add_module(last, _module(step))

    def forward(self, x: Tensor) -> Tensor:
        for _, value in self.values(x):
            y = value
        return y

    def values(self, x: Tensor) -> Iterator[tuple[Step, Tensor]]:
        """Each step with its output."""
        made = {"": x}
        for step in self.steps:
            source = made[step.source]
            if step.op == "classifier":
                source = functional.adaptive_avg_pool2d(source, 1).flatten(1)
            y = self.get_submodule(step.name)(source)
            if step.added:
                y = y + made[step.added]
            if step.relu:
                y = functional.relu(y)
            made[step.name] = y
            yield step, y


def build(architecture: Architecture, space: Space, seed: int = 0) -> HybridNet:
    """The network with the weights that training starts from: He's for convolutions and shift layers, N(0, 1) for
    adder layers (FACTS.md, "Operators")."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = HybridNet(architecture, space)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, ShiftConv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _module(step: Step) -> nn.Module:
    if step.op == "layer":
        return NormedLayer(step)
    return Gate(step.channels, step.squeezed) if step.op == "gate" else nn.Linear(step.channels, step.outputs)
