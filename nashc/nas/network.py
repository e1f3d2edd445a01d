"""An architecture as the Network that the accelerator's search prices: what importing its exported model gives.

Only names differ. The import of an exported model takes seconds, this a fraction of a millisecond, which is what a
search that meets thousands of candidates needs; a test holds the two together.
"""

from __future__ import annotations

from nashc.core.loops import LoopNest
from nashc.core.network import Layer, Network, Tensor, Unit, Weights
from nashc.nas.architecture import Architecture
from nashc.nas.layout import WEIGHT_BITS, Step, layout
from nashc.nas.space import Space

IMAGE = "image"
NODES = {"conv": "Conv", "shift": "ShiftConv", "adder": "AdderConv"}


def network_of(architecture: Architecture, space: Space) -> Network:
    """The network of an architecture, for one image, at 8 bits."""
    layers: list[Layer] = []
    side = space.resolution
    tensors = [Tensor(IMAGE, space.channels, side, side)]
    for step in layout(architecture, space):
        for layer, tensor in _layers(step):
            layers.append(layer)
            tensors.append(tensor)
    return Network(str(architecture), tuple(layers), tuple(tensors), (IMAGE,), (layers[-1].output,))


def _layers(step: Step) -> list[tuple[Layer, Tensor]]:
    source = step.source or IMAGE
    if step.op == "layer":
        return [_window(step, source)]
    if step.op == "classifier":
        return [
            _mean(f"{step.name}.mean", source, step),
            _product(step.name, f"{step.name}.mean", step.channels, step.outputs, "", "Gemm"),
        ]
    side = step.size
    scale = LoopNest(step.channels, 1, 1, side, side, 1, 1, side, side)
    gate = f"{step.name}.expand"
    return [
        _mean(f"{step.name}.mean", source, step),
        _product(f"{step.name}.reduce", f"{step.name}.mean", step.channels, step.squeezed, "relu", "Conv"),
        _product(gate, f"{step.name}.reduce", step.squeezed, step.channels, "sigmoid", "Conv"),
        (
            Layer(step.name, "Mul", Unit.VECTOR, scale, (source, gate), step.name),
            Tensor(step.name, step.channels, side, side),
        ),
    ]


def _window(step: Step, source: str) -> tuple[Layer, Tensor]:
    side, out = step.size, step.output_size
    nest = LoopNest(
        g=step.groups, k=step.outputs // step.groups, c=step.channels // step.groups, oy=out, ox=out,
        fy=step.kernel, fx=step.kernel, iy=side, ix=side, stride=(step.stride, step.stride),
        pad=(step.kernel // 2,) * 4,
    )  # fmt: skip
    layer = Layer(
        step.name, NODES[step.operator], Unit(step.operator), nest, (source, *filter(None, [step.added])), step.name,
        Weights(f"{step.name}.weight", WEIGHT_BITS[step.operator]), "relu" if step.relu else "",
    )  # fmt: skip
    return layer, Tensor(step.name, step.outputs, out, out)


def _mean(name: str, source: str, step: Step) -> tuple[Layer, Tensor]:
    nest = LoopNest(step.channels, 1, 1, 1, 1, step.size, step.size, step.size, step.size)
    return Layer(name, "ReduceMean", Unit.VECTOR, nest, (source,), name), Tensor(name, step.channels, 1, 1)


def _product(name: str, source: str, channels: int, outputs: int, activation: str, op: str) -> tuple[Layer, Tensor]:
    nest = LoopNest(1, outputs, channels, 1, 1, 1, 1, 1, 1)
    weights = Weights(f"{name}.weight", WEIGHT_BITS["conv"])
    return Layer(name, op, Unit.CONV, nest, (source,), name, weights, activation), Tensor(name, outputs, 1, 1)
