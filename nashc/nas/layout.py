"""What an architecture is made of, said once: the steps that torch runs and the accelerator's search prices.

mbconv: expand 1x1 (where the expansion is not 1), depthwise k x k, squeeze-excite, project 1x1; a shortcut where the
shapes agree. basic: two k x k layers and a shortcut, a 1x1 layer where the shapes differ. The operator of a block is
that of all its layers but squeeze-excite, which has no BN and would be dead as an adder. Stem, head and classifier are
convolutions. Every layer but squeeze-excite and the classifier has a BN; activations are ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass

from nashc.nas.architecture import Architecture, Block
from nashc.nas.space import LETTERS, Space

WEIGHT_BITS = {"conv": 8, "shift": 4, "adder": 8}
"""By operator. A shift code is a sign and exponents 0 to -6: the lane of sign + 3-bit exponent in FACTS.md's table."""
EXCITE_SHARE = 4
"""Squeeze-excite has a quarter of the block input's channels, as in EfficientNet."""


@dataclass(frozen=True, slots=True)
class Step:
    """A layer of `size` x `size` inputs, with what comes with it.

    op: "layer" (convolution of `operator` with a BN, then + `added`, then ReLU if `relu`), "gate" (squeeze-excite of
    `squeezed` channels) or "classifier" (mean of all pixels, then a matrix). `source` and `added` are names of steps,
    "" the image. `block`: index of the block that it ends, or -1.
    """

    name: str
    op: str
    source: str
    channels: int
    outputs: int
    size: int
    operator: str = "conv"
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    relu: bool = False
    added: str = ""
    squeezed: int = 0
    block: int = -1

    @property
    def output_size(self) -> int:
        """Rows and columns of the output; windows are padded by half a kernel."""
        return -(-self.size // self.stride)

    @property
    def macs(self) -> int:
        """MAC-equivalents of an image."""
        if self.op == "layer":
            return self.outputs * self.output_size**2 * self.kernel**2 * self.channels // self.groups
        return 2 * self.channels * self.squeezed if self.op == "gate" else self.channels * self.outputs

    @property
    def weights(self) -> int:
        """Number of weights, without biases and BN."""
        if self.op == "layer":
            return self.outputs * self.kernel**2 * self.channels // self.groups
        return self.macs


def layout(architecture: Architecture, space: Space) -> tuple[Step, ...]:
    """The steps of a network in the order in which they run."""
    steps = [
        Step("stem", "layer", "", space.channels, architecture.stem, space.resolution,
             kernel=3, stride=space.stem_stride, relu=True)
    ]  # fmt: skip
    number = 0
    for choice, stage in zip(architecture.stages, space.stages, strict=True):
        for i, block in enumerate(choice.blocks):
            stride = stage.stride if i == 0 else 1
            if space.block == "mbconv":
                steps += _mbconv(number, steps[-1], choice.width, block, stride, excite=stage.excite)
            else:
                steps += _basic(number, steps[-1], choice.width, block, stride)
            number += 1
    if architecture.head:
        last = steps[-1]
        steps.append(Step("head", "layer", last.name, last.outputs, architecture.head, last.output_size, relu=True))
    last = steps[-1]
    steps.append(Step("classifier", "classifier", last.name, last.outputs, space.classes, last.output_size))
    return tuple(steps)


def macs(steps: tuple[Step, ...]) -> dict[str, int]:
    """MAC-equivalents of an image by operator."""
    found = dict.fromkeys(LETTERS, 0)
    for step in steps:
        found[step.operator] += step.macs
    return found


def total_macs(architecture: Architecture, space: Space) -> int:
    """MAC-equivalents of an image, whatever the operators."""
    return sum(step.macs for step in layout(architecture, space))


def _mbconv(number: int, before: Step, width: int, block: Block, stride: int, *, excite: bool) -> list[Step]:
    name = f"blocks.{number}"
    steps: list[Step] = []
    source, channels, size, operator = before.name, before.outputs, before.output_size, block.operator
    wide = channels * block.expansion
    if block.expansion > 1:
        steps.append(Step(f"{name}.expand", "layer", source, channels, wide, size, operator, relu=True))
    steps.append(
        Step(f"{name}.depthwise", "layer", steps[-1].name if steps else source, wide, wide, size, operator,
             block.kernel, stride, wide, relu=True)
    )  # fmt: skip
    if excite:
        squeezed = max(1, channels // EXCITE_SHARE)
        last = steps[-1]
        steps.append(Step(f"{name}.excite", "gate", last.name, wide, wide, last.output_size, squeezed=squeezed))
    added = source if stride == 1 and channels == width else ""
    steps.append(
        Step(f"{name}.project", "layer", steps[-1].name, wide, width, steps[-1].output_size, operator,
             added=added, block=number)
    )  # fmt: skip
    return steps


def _basic(number: int, before: Step, width: int, block: Block, stride: int) -> list[Step]:
    name = f"blocks.{number}"
    source, channels, size, operator, kernel = (
        before.name, before.outputs, before.output_size, block.operator, block.kernel,
    )  # fmt: skip
    steps = [Step(f"{name}.first", "layer", source, channels, width, size, operator, kernel, stride, relu=True)]
    added = source
    if stride > 1 or channels != width:
        steps.append(Step(f"{name}.shortcut", "layer", source, channels, width, size, operator, 1, stride))
        added = steps[-1].name
    steps.append(
        Step(f"{name}.second", "layer", steps[0].name, width, width, steps[0].output_size, operator, kernel,
             relu=True, added=added, block=number)
    )  # fmt: skip
    return steps
