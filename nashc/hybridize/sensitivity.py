"""What each layer costs as each type: measured one layer at a time, at the outputs of the model.

The base is the model with 8-bit weights everywhere. At each layer the walk holds the base's integer values; the rest of
the model runs from there in float, once with the layer's weights as they are and once with those of each type. What the
outputs lose more is the layer's sensitivity. The weights are kept: a model of any choice can be put together from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from nashc.hybridize.fidelity import loss
from nashc.hybridize.layer_types import LayerType
from nashc.hybridize.reconstruct import Rounded
from nashc.hybridize.stages import Staged
from nashc.hybridize.streams import Part, last_readers, nodes_of
from nashc.hybridize.walk import Place, fitted, replaced, walk
from nashc.runtime.chain import Step

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """By node and type name: the sensitivity and the weights. `losses` add up only roughly over layers; they order the
    choices, and never stand for an accuracy."""

    losses: Mapping[str, Mapping[str, float]]
    weights: Mapping[str, Mapping[str, Rounded]]


def sensitivities(
    staged: Staged,
    step: Mapping[str, Step],
    images: Mapping[str, Array],
    wanted: Mapping[str, Array],
    candidates: Mapping[str, Sequence[LayerType]],
    base: LayerType,
    *,
    count: int,
    workers: int,
    progress: Callable[[float], None] | None = None,
) -> Measured:
    """`candidates`: types of each layer by node name; every layer gets `base` too. `wanted` are the float model's
    outputs; `count` images measure the losses, all of them reconstruct the weights."""
    last = last_readers(staged)
    losses: dict[str, dict[str, float]] = {}
    weights: dict[str, dict[str, Rounded]] = {}

    def visit(place: Place) -> None:
        node = place.layer.node
        kinds = {kind.name: kind for kind in (base, *candidates.get(node, ()))}
        x = step.get(place.stage.inputs[0])
        made = {name: fitted(staged, place.layer, kind, place.moments, x) for name, kind in kinds.items()}
        weights[node] = made
        if len(made) == 1:
            losses[node] = {base.name: 0.0}
            return
        tail = _Tail(staged, place, last, wanted, count, workers)
        unchanged = tail.loss({})
        losses[node] = {
            name: max(tail.loss(replaced(place.layer, found)) - unchanged, 0.0) for name, found in made.items()
        }

    nodes = [stage.weighted.node for stage in staged.stages if stage.weighted is not None]
    walk(
        staged, step, images, dict.fromkeys(nodes, base), workers=workers, visit=visit, progress=progress,
        fit=lambda _, layer, kind, *given: weights[layer.node][kind.name],
    )  # fmt: skip
    return Measured(losses, weights)


class _Tail:
    """The model from one layer on, in float, with the layer's weights as an input."""

    def __init__(
        self,
        staged: Staged,
        place: Place,
        last: Mapping[str, int],
        wanted: Mapping[str, Array],
        count: int,
        workers: int,
    ) -> None:
        stages = staged.stages[place.index :]
        self.own = {name: staged.tensors[name] for name in filter(None, (place.layer.weight, place.layer.bias))}
        self.given = {n: v[:count] for n, v in place.integer.items() if last.get(n, -1) >= place.index}
        self.read, self.workers = place.read, workers
        made = {name for stage in stages for name in stage.outputs}
        self.wanted = {name: values[:count] for name, values in wanted.items() if name in made}
        nodes = nodes_of(staged, [node for stage in stages for node in stage.nodes])
        shapes = {name: staged.shapes[name] for name in self.given} | {n: v.shape for n, v in self.own.items()}
        self.part = Part(staged.model, nodes, shapes, list(self.wanted), staged.tensors)

    def loss(self, changed: Mapping[str, Array]) -> float:
        shared = {**self.own, **changed}
        found = self.part.images(self.given, self.workers, read=self.read, shared=shared)
        return loss(self.wanted, dict(zip(self.wanted, found, strict=True)))
