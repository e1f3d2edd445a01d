"""An architecture as a torch module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nashc.nas.architecture import Architecture
from nashc.nas.layout import WEIGHT_BITS, Step, layout
from nashc.nas.space import Space
from nashc.nn import AdderConv2d, ShiftConv2d
from nashc.nn.adder import adder_conv2d
from nashc.nn.adder_norm import WEIGHT_LEVELS, Rounding, imitation, round_through
from nashc.nn.window import SoundConv2d, conv2d

Made = TypeVar("Made", bound=nn.Module)


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
    """A convolution, shift or adder layer and its BN. `rounding`, of an adder layer: the step that inputs and weights
    share once the layer computes with bytes; `as_conv`: whether it is a convolution yet."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        window = (step.channels, step.outputs, step.kernel, step.stride, step.kernel // 2, 1, step.groups)
        self.conv: nn.Module
        if step.operator == "adder":
            self.conv = AdderConv2d(*window, bias=False)
        elif step.operator == "shift":
            self.conv = ShiftConv2d(*window, bias=False, bits=WEIGHT_BITS["shift"])
        else:
            self.conv = SoundConv2d(*window, bias=False)
        self.norm = nn.BatchNorm2d(step.outputs)
        self.rounding = Rounding() if step.operator == "adder" else None
        self.as_conv = False

    def forward(self, x: Tensor) -> Tensor:
        if self.as_conv:
            x = conv2d(x, self.adder.weight, None, *self.adder.window)
        elif self.rounding is not None and self.rounding.step:
            x, weight = self.rounding(x), self.byte_weight(self.adder, self.rounding)
            x = adder_conv2d(x.contiguous(), weight, *self.adder.window, self.adder.eta)
        else:
            x = self.conv(x)
        y: Tensor = self.norm(x)
        return y

    @property
    def adder(self) -> AdderConv2d:
        assert isinstance(self.conv, AdderConv2d)
        return self.conv

    def imitate(self, x: Tensor, y: Tensor) -> None:
        """From now on an adder layer, whose outputs for x are close to y, those of the convolution that it was."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None

        def distance(weight: Tensor) -> Tensor:
            found: Tensor = adder_conv2d(x, weight.contiguous(), *self.adder.window, None)
            return found

        signed = self.adder.weight * norm.weight.sign().view(-1, 1, 1, 1)  # BN of an adder layer has a scale above 0
        weight, (mean, variance, y_mean, y_variance, _) = imitation(signed, x, y, distance)
        self.adder.weight.copy_(weight)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(y_variance.sqrt())
        norm.bias.copy_(y_mean)
        self.as_conv = False

    @staticmethod
    def byte_weight(conv: AdderConv2d, rounding: Rounding) -> Tensor:
        """Weights as multiples of the shared step, in -127..127 of it."""
        limit = torch.full_like(rounding.step, WEIGHT_LEVELS)
        return round_through(conv.weight, rounding.step, -limit, limit)


class StepNet(nn.Module):
    """Steps of a layout in the order in which they run, the first one on the input; the last one's output is theirs.

    Its layers are named as the steps: blocks.0.expand and so on, each with .conv and .norm.
    """

    def __init__(self, steps: tuple[Step, ...]) -> None:
        super().__init__()
        self.steps = steps
        for step in steps:
            owner: nn.Module = self
            *path, last = step.name.split(".")
            for part in path:
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = getattr(owner, part)
            owner.add_module(last, module_of(step))

    def forward(self, x: Tensor) -> Tensor:
        for _, value in self.values(x):
            y = value
        return y

    def values(self, x: Tensor) -> Iterator[tuple[Step, Tensor]]:
        """Each step with its output."""
        made = {self.steps[0].source: x}
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


class HybridNet(StepNet):
    """The network of an architecture: images [N, channels, resolution, resolution] -> scores [N, classes]."""

    def __init__(self, architecture: Architecture, space: Space) -> None:
        super().__init__(layout(architecture, space))
        self.architecture, self.space = architecture, space

    @property
    def adders(self) -> list[NormedLayer]:
        """Its adder layers, in the order in which they run."""
        return [m for m in self.modules() if isinstance(m, NormedLayer) and m.rounding is not None]

    def begin_as_conv(self, seed: int) -> None:
        """From now on adder layers are convolutions, with weights that those start from."""
        source = torch.Generator().manual_seed(seed)
        for layer in self.adders:
            layer.as_conv = True
            weight = torch.empty(layer.adder.weight_shape)  # drawn in this order, whatever the layer's format is
            layer.adder.weight.data.copy_(he(weight, source))

    @torch.no_grad()
    def end_as_conv(self, x: Tensor) -> None:
        """From now on adder layers are such: each imitates on these images the convolution that it was, one layer after
        the other, on inputs as the earlier ones make them (nashc.nn.adder_norm)."""
        before = copy.deepcopy(self)
        for layer, old in zip(self.adders, before.adders, strict=True):
            layer.imitate(captured(self, layer, x)[0].contiguous(), captured(before, old, x)[1])

    @torch.no_grad()
    def round_adders(self, x: Tensor) -> None:
        """From now on adder layers compute with bytes, at steps that suit these images; of the inputs of one layer
        after the other, as they are with the earlier ones rounded.

        Where a weight lies beyond all inputs, |x - w| is a line in x: brought to the nearest input it changes the
        output by a constant, which the BN takes.
        """
        for layer in self.adders:
            assert layer.rounding is not None
            step = layer.rounding.measure(captured(self, layer, x)[0])
            weight = layer.adder.weight
            near = weight.clamp(max(float(layer.rounding.low), -WEIGHT_LEVELS) * step, WEIGHT_LEVELS * step)
            assert layer.norm.running_mean is not None
            layer.norm.running_mean += (weight - near).abs().sum((1, 2, 3))
            weight.copy_(near)

    def rounded(self) -> HybridNet:
        """A copy whose adder weights are the bytes that the layers compute with, for export."""
        made = copy.deepcopy(self)
        made.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for module in made.modules():
            if isinstance(module, NormedLayer) and module.rounding is not None:
                if module.rounding.step:
                    module.adder.weight.data = module.byte_weight(module.adder, module.rounding).detach()
                module.rounding = None
        return made


def captured(net: nn.Module, layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Input and output of a layer in eval mode, for these inputs of the network."""
    found: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _, inputs, output: found.append((inputs[0], output)))
    training = net.training
    net.eval()(x)
    net.train(training)
    hook.remove()
    return found[0]


def build(architecture: Architecture, space: Space, seed: int = 0) -> HybridNet:
    """The network with the weights that training starts from."""
    return seeded(lambda: HybridNet(architecture, space), seed)


def seeded(make: Callable[[], Made], seed: int) -> Made:
    """What is made, with the weights that training starts from: He's for convolutions and shift layers, N(0, 1) for
    adder layers (FACTS.md, "Operators")."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make()
        for module in net.modules():
            if isinstance(module, nn.Conv2d | ShiftConv2d):
                he(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return net


def he(weight: Tensor, source: torch.Generator | None = None) -> Tensor:
    """The same tensor with He's initial weights; without a source from torch's own."""
    return nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu", generator=source)


def module_of(step: Step) -> nn.Module:
    """The layer of a step, in torch."""
    if step.op == "layer":
        return NormedLayer(step)
    return Gate(step.channels, step.squeezed) if step.op == "gate" else nn.Linear(step.channels, step.outputs)
