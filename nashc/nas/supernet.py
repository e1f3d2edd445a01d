"""A weight-sharing supernet: the weights of all networks of a space in one module.

For each place of a block (stage, index) and each operator it holds the layers of the largest choice. A subnet takes the
first channels and the central taps of them, and of a stage the first blocks. Operators share nothing: weights that suit
a product are no patterns to be near to (NASA-F keeps convolutions and adders apart, too). A subnet runs as the
stand-alone network does (nashc.nas.build) with the slices in the place of its weights, so both compute the same.

BN: in training every subnet uses the statistics of its batch; for evaluation they are estimated anew (`calibrate`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from nashc.errors import NashcError
from nashc.nas.architecture import Architecture, Block, StageChoice, problems
from nashc.nas.build import HybridNet, build, module_of, seeded
from nashc.nas.layout import Step, layout
from nashc.nas.space import Space, Stage

AXES = ("channels", "outputs", "kernel", "groups", "squeezed")
"""Of a step: what a larger choice makes larger."""


class Supernet(nn.Module):
    """Images [N, channels, resolution, resolution] and an architecture of the space -> scores [N, classes]."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space
        steps: dict[str, Step] = {}
        for architecture in _corners(space):
            for step, place in _places(architecture, space):
                known = steps.setdefault(place, step)
                steps[place] = replace(known, **{a: max(getattr(known, a), getattr(step, a)) for a in AXES})
        self.layers = nn.ModuleDict({place: module_of(step) for place, step in steps.items()})

    def forward(self, x: Tensor, architecture: Architecture, statistics: Mapping[str, Tensor] | None = None) -> Tensor:
        """Scores with the statistics of the batch; or with `statistics`, buffers of the stand-alone network by name.

        Raises NashcError for an architecture that is not of the space.
        """
        net = _skeleton(architecture, self.space).train(statistics is None)
        buffers = {name: torch.zeros(b.shape, dtype=b.dtype, device=x.device) for name, b in net.named_buffers()}
        scores: Tensor = functional_call(net, {**buffers, **(statistics or {}), **self.slices(architecture)}, (x,))
        return scores

    def slices(self, architecture: Architecture) -> dict[str, Tensor]:
        """What the subnet uses of the weights, by the names of the stand-alone network's parameters."""
        own = self.owners(architecture)
        wanted = _skeleton(architecture, self.space).named_parameters()
        return {name: leading(self.get_parameter(own[name]), p.shape) for name, p in wanted}

    def owners(self, architecture: Architecture) -> dict[str, str]:
        """Names of the stand-alone network's parameters, and of those here that they are slices of."""
        net = _skeleton(architecture, self.space)
        return {
            f"{step.name}.{name}": f"layers.{place}.{name}"
            for step, place in _places(architecture, self.space)
            for name, _ in net.get_submodule(step.name).named_parameters()
        }

    def places(self, architecture: Architecture) -> Iterator[nn.Module]:
        """The layers that the subnet uses."""
        for _, place in _places(architecture, self.space):
            yield self.layers[place]


def supernet(space: Space, seed: int = 0) -> Supernet:
    """The supernet with the weights that training starts from."""
    return seeded(lambda: Supernet(space), seed)


def leading(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The first channels and the central taps: a view of [M, C, kernel y, kernel x], or of its first axes alone."""
    for axis, size in enumerate(shape):
        tensor = tensor.narrow(axis, 0 if axis < 2 else (tensor.shape[axis] - size) // 2, size)
    return tensor


def extract(source: Supernet, architecture: Architecture) -> HybridNet:
    """The subnet as a network of its own, with copies of the weights; its BN has no statistics yet (`calibrate`)."""
    net = build(architecture, source.space)
    slices = source.slices(architecture)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(slices[name])
    return net


@torch.no_grad()
def calibrate(net: HybridNet, batches: Iterable[Tensor]) -> HybridNet:
    """The network itself, its BN statistics the mean of those of the batches; in eval mode."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: the mean of all batches
    net.train()
    for batch in batches:
        net(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return net.eval()


def extreme(space: Space, operator: Callable[[Stage], str], *, largest: bool) -> Architecture:
    """The largest or smallest choice of every axis; `operator` chooses that of a block from its stage."""
    pick = max if largest else min
    stages = []
    for stage in space.stages:
        kernel, expansion = pick(stage.kernels), pick(stage.expansions)
        blocks = (Block(operator(stage), kernel, expansion) for _ in range(pick(stage.depths)))
        stages.append(StageChoice(pick(stage.widths), tuple(blocks)))
    return Architecture(pick(space.stems), tuple(stages), pick(space.heads or (0,)))


@dataclass(frozen=True, slots=True)
class Conflict:
    """How much subnets disagree on the weights that they share.

    `pairs`: share of the pairs whose gradients have a negative cosine, over all weights that both use; `layers`: share
    of such among the pairs' single tensors of weights; `cosine`: mean over the pairs.
    """

    pairs: float
    layers: float
    cosine: float


def gradient_conflict(source: Supernet, architectures: Sequence[Architecture], x: Tensor, labels: Tensor) -> Conflict:
    """Of the gradients of the cross entropy on one batch; of weights, without biases and BN.

    Raises NashcError for less than two architectures.
    """
    if len(architectures) < 2:
        raise NashcError(f"{len(architectures)} architectures", where="gradient conflict", hint="give two or more")
    gradients = [_gradients(source, architecture, x, labels) for architecture in architectures]
    cosines, single = [], []
    for one, other in combinations(gradients, 2):
        parts = torch.stack([_products(one[name], other[name]) for name in one if name in other])
        cosines.append(_cosine(parts.sum(0)))
        single += [_cosine(part) for part in parts if part[1] * part[2] > 0]
    negative = [sum(c < 0 for c in found) / max(1, len(found)) for found in (cosines, single)]
    return Conflict(negative[0], negative[1], sum(cosines) / len(cosines))


def _gradients(source: Supernet, architecture: Architecture, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """By the names of the supernet's parameters, each in the shape of the subnet's slice."""
    owners = source.owners(architecture)
    owned = {owner: source.get_parameter(owner) for owner in owners.values()}
    weights = {name: parameter for name, parameter in owned.items() if parameter.ndim > 1}
    where = next(iter(owned.values())).device
    loss = functional.cross_entropy(source(x.to(where), architecture), labels.to(where))
    found = torch.autograd.grad(loss, list(weights.values()))
    shapes = {owners[name]: part.shape for name, part in source.slices(architecture).items()}
    return {name: leading(gradient, shapes[name]) for name, gradient in zip(weights, found, strict=True)}


def _products(one: Tensor, other: Tensor) -> Tensor:
    """[3]: a.b, a.a and b.b of two gradients, on the weights that both have."""
    shape = [min(sizes) for sizes in zip(one.shape, other.shape, strict=True)]
    a, b = leading(one, shape).double().flatten(), leading(other, shape).double().flatten()
    return torch.stack([a @ b, a @ a, b @ b])


def _cosine(products: Tensor) -> float:
    dot, a, b = products.tolist()
    return float(dot / max((a * b) ** 0.5, 1e-300))


@lru_cache(maxsize=512)
def _skeleton(architecture: Architecture, space: Space) -> HybridNet:
    """The stand-alone network without memory for its weights."""
    for problem in problems(architecture, space):
        raise NashcError(problem, where=str(architecture), hint=f"values of the space '{space.name}' are needed")
    with torch.device("meta"):
        return HybridNet(architecture, space)


def _places(architecture: Architecture, space: Space) -> list[tuple[Step, str]]:
    """The steps of a network, each with the name of its layer in the supernet."""
    names = [
        f"{i}_{j}_{block.operator}"
        for i, stage in enumerate(architecture.stages)
        for j, block in enumerate(stage.blocks)
    ]
    found = []
    for step in layout(architecture, space):
        _, *number, last = step.name.split(".") if "." in step.name else ("", step.name)
        found.append((step, f"{names[int(number[0])]}_{last}" if number else last))
    return found


def _corners(space: Space) -> Iterator[Architecture]:
    """Architectures that have every layer of the space, and every layer in its largest size.

    The largest network of each operator is not enough: a shortcut with weights exists where widths differ. From a block
    of the largest width and a change of one width follow all layers that there are.
    """
    for operator in dict.fromkeys(name for stage in space.stages for name in stage.operators):

        def choose(stage: Stage, wanted: str = operator) -> str:
            return wanted if wanted in stage.operators else stage.operators[0]

        base = extreme(space, choose, largest=True)
        yield base
        for stem in space.stems:
            yield replace(base, stem=stem)
        for i, stage in enumerate(space.stages):
            for width in stage.widths:
                changed = replace(base.stages[i], width=width)
                yield replace(base, stages=(*base.stages[:i], changed, *base.stages[i + 1 :]))
