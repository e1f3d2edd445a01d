"""One pass through the stages that turns a float model into an integer one, layer by layer.

Two streams run side by side: the float model, and the integer model as far as it is made. Each layer is reconstructed
on what its inputs really are in the integer model, so that it also makes good what earlier layers lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nashc.core.network import Unit
from nashc.hybridize.layer_types import LayerType
from nashc.hybridize.reconstruct import Rounded, plain, reconstruct, with_integer_bias
from nashc.hybridize.stages import Stage, Staged, Weighted
from nashc.hybridize.statistics import Moments, moments
from nashc.hybridize.steps import Range, Seen, adder_codes, adder_step, codes, real, seen, step_for
from nashc.hybridize.streams import Convert, last_readers, stage_part
from nashc.ops import DOMAIN
from nashc.runtime.chain import Step

Array = NDArray[Any]
Fit = Callable[[Staged, Weighted, LayerType, Moments | None, Step | None], Rounded]


def ranges(staged: Staged, images: Mapping[str, Array], *, workers: int) -> tuple[dict[str, Seen], dict[str, Array]]:
    """What every class of values holds in the float model, and the model's outputs [N, ...]."""
    found: dict[str, Seen] = {}

    def note(name: str, values: Array) -> None:
        if name in staged.steps:
            key, now = staged.steps[name], seen(values)
            found[key] = found[key].joined(now) if key in found else now

    values = dict(images)
    for name in staged.inputs:
        note(name, values[name])
    last = last_readers(staged)
    for i, stage in enumerate(staged.stages):
        part = stage_part(staged, stage, staged.tensors)
        made = part.images({n: values[n] for n in stage.inputs}, workers)
        values |= zip(stage.outputs, made, strict=True)
        for name in set(stage.outputs) - staged.moved:
            note(name, values[name])
        _forget(values, last, i)
    return found, {name: values[name] for name in staged.outputs}


def steps(staged: Staged, found: Mapping[str, Seen], rule: Callable[[Seen], Range]) -> dict[str, Step]:
    """The step of every quantised value; inputs of the model take all of their range."""
    chosen: dict[str, Step] = {}
    whole = {staged.steps[name] for name in (*staged.inputs, *staged.outputs) if name in staged.steps}
    for key, values in found.items():
        if key in staged.adders:
            chosen[key] = adder_step(values, staged.adders[key], staged.adder_scales.get(key))
        else:
            chosen[key] = step_for(*((values.lowest, values.highest) if key in whole else rule(values)))
    return {name: chosen[key] for name, key in staged.steps.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a walk stands: a layer, the moments of its inputs, and all values that later stages read; `read` gives the
    real values of one by its name."""

    index: int
    stage: Stage
    layer: Weighted
    moments: Moments | None
    integer: Mapping[str, Array]
    read: Convert


def fitted(staged: Staged, layer: Weighted, kind: LayerType, found: Moments | None, x: Step | None) -> Rounded:
    """The layer's weights as a type, for inputs of a step."""
    weights = np.moveaxis(staged.tensors[layer.weight], layer.axis, 0)
    bias = staged.tensors.get(layer.bias)
    made = plain(kind, weights, bias) if found is None else reconstruct(kind, weights, bias, found)
    return made if x is None or kind.unit is Unit.SHIFT else with_integer_bias(made, x.scale)


def walk(
    staged: Staged,
    step: Mapping[str, Step],
    images: Mapping[str, Array],
    choice: Mapping[str, LayerType],
    *,
    workers: int,
    visit: Callable[[Place], None] | None = None,
    progress: Callable[[float], None] | None = None,
    fit: Fit = fitted,
) -> tuple[dict[str, Rounded], dict[str, Array]]:
    """The rounded weights of every layer of `choice` (node name -> type), and the outputs of the integer model.

    `visit` is called before a layer is rounded by `fit`.
    """
    made: dict[str, Rounded] = {}
    tensors = dict(staged.tensors) | adder_tensors(staged, step)
    floats = dict(images)
    integers = {name: codes(values, step[name]) for name, values in images.items()}

    def read(name: str, stored: Array) -> Array:
        return real(stored, step[name]) if name in step else stored

    def keep(name: str, value: Array) -> Array:
        return codes(value, step[name]) if name in step else value

    last = last_readers(staged)
    for i, stage in enumerate(staged.stages):
        layer = stage.weighted
        given = {n: floats[n] for n in stage.inputs}
        part = stage_part(staged, stage, staged.tensors)
        floats |= zip(stage.outputs, part.images(given, workers), strict=True)
        if layer is not None and layer.node in choice:
            found = None
            if layer.window is not None:
                x = stage.inputs[0]
                found = moments(layer.window, floats[x], integers[x], partial(read, x))
            if visit is not None:
                visit(Place(i, stage, layer, found, integers, read))
            made[layer.node] = fit(staged, layer, choice[layer.node], found, step.get(stage.inputs[0]))
            tensors |= replaced(layer, made[layer.node])
        given = {n: integers[n] for n in stage.inputs}
        part = stage_part(staged, stage, tensors)
        integers |= zip(stage.outputs, part.images(given, workers, read=read, keep=keep), strict=True)
        for values in (floats, integers):
            _forget(values, last, i)
        if progress is not None:
            progress((i + 1) / len(staged.stages))
    return made, {name: read(name, integers[name]) for name in staged.outputs}


def replaced(layer: Weighted, rounded: Rounded) -> dict[str, Array]:
    """Stored tensors of the layer with rounded weights."""
    found = {layer.weight: np.ascontiguousarray(np.moveaxis(rounded.weights, 0, layer.axis))}
    return found | ({layer.bias: rounded.bias} if layer.bias else {})


def adder_tensors(staged: Staged, step: Mapping[str, Step]) -> dict[str, Array]:
    """The weights of adder layers as the integer model has them."""
    nodes = [n for n in staged.model.graph.node if n.domain == DOMAIN and n.op_type == "AdderConv"]
    return {
        n.input[1]: adder_codes(staged.tensors[n.input[1]], x) * np.float32(x.scale)
        for n in nodes
        if (x := step.get(n.input[0])) is not None and n.input[1] in staged.tensors
    }


def _forget(values: dict[str, Array], last: Mapping[str, int], i: int) -> None:
    for name in [name for name in values if last.get(name, -1) <= i]:
        del values[name]
