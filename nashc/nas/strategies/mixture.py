"""A differentiable supernet: in each block several paths, one for each choice, and their weighted sum.

Widths, and of each stage the number of blocks, are those of a backbone. A path has weights of its own, as in FBNet
(arXiv 1812.03443); a block that a smaller depth lacks is a path, too, that does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn

from nashc.nas.architecture import Architecture, Block, StageChoice
from nashc.nas.build import StepNet
from nashc.nas.layout import Step, layout
from nashc.nas.space import Space

Mix = Sequence[Mapping[int, Tensor | float]]
"""For each block the paths that run, and their weights."""


@dataclass(frozen=True, slots=True)
class Place:
    """A block of the backbone: its stage, and its choices; None is no block at all."""

    stage: int
    choices: tuple[Block | None, ...]


class MixedNet(nn.Module):
    """Images and a mix -> scores. `places` are the blocks in order; `sizes` MAC-equivalents of each of their paths,
    `fixed` those of stem, head and classifier."""

    def __init__(self, backbone: Architecture, space: Space) -> None:
        super().__init__()
        self.backbone, self.space = backbone, space
        self.places = _places(backbone, space)
        steps = layout(backbone, space)
        ends = [s for s in steps if not s.name.startswith("blocks.")]
        self.stem, self.tail = StepNet(tuple(ends[:1])), StepNet(tuple(ends[1:]))
        paths = [[_path(backbone, space, i, choice) for choice in p.choices] for i, p in enumerate(self.places)]
        self.blocks = nn.ModuleList(nn.ModuleList(StepNet(s) if s else nn.Identity() for s in found) for found in paths)
        self.fixed = sum(step.macs for step in ends)
        self.sizes = [[sum(step.macs for step in path) for path in found] for found in paths]

    def forward(self, x: Tensor, mix: Mix) -> Tensor:
        x = self.stem(x)
        for paths, weights in zip(self.blocks, mix, strict=True):
            assert isinstance(paths, nn.ModuleList)
            x = torch.stack([weight * paths[i](x) for i, weight in weights.items()]).sum(0)
        scores: Tensor = self.tail(x)
        return scores

    def size(self, mix: Mix) -> int:
        """MAC-equivalents of an image."""
        return self.fixed + sum(sizes[i] for sizes, weights in zip(self.sizes, mix, strict=True) for i in weights)

    def architecture(self, paths: Sequence[int]) -> Architecture:
        """The network with one path of each block."""
        stages: list[list[Block]] = [[] for _ in self.space.stages]
        for place, path in zip(self.places, paths, strict=True):
            block = place.choices[path]
            if block is not None:
                stages[place.stage].append(block)
        chosen = zip(self.backbone.stages, stages, strict=True)
        return replace(self.backbone, stages=tuple(StageChoice(s.width, tuple(found)) for s, found in chosen))


def _places(backbone: Architecture, space: Space) -> list[Place]:
    found = []
    for i, (choice, stage) in enumerate(zip(backbone.stages, space.stages, strict=True)):
        blocks = tuple(Block(*axes) for axes in product(stage.operators, stage.kernels, stage.expansions))
        for j in range(len(choice.blocks)):
            found.append(Place(i, (*blocks, None) if j >= min(stage.depths) else blocks))
    return found


def _path(backbone: Architecture, space: Space, number: int, choice: Block | None) -> tuple[Step, ...]:
    """The steps of a block of the backbone; its input and output have the same shapes whatever the choice."""
    if choice is None:
        return ()
    left, stages = number, []
    for stage in backbone.stages:
        blocks = list(stage.blocks)
        if 0 <= left < len(blocks):
            blocks[left] = choice
        left -= len(blocks)
        stages.append(replace(stage, blocks=tuple(blocks)))
    steps = layout(replace(backbone, stages=tuple(stages)), space)
    return tuple(step for step in steps if step.name.startswith(f"blocks.{number}."))
