"""The network that search prices is the one that importing the exported model gives."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import msgspec
import pytest
import torch

from nashc.core.network import Network
from nashc.importer import import_model
from nashc.nas.architecture import sample
from nashc.nas.build import build
from nashc.nas.layout import layout, macs
from nashc.nas.network import network_of
from nashc.nas.pairs import INPUT, export_net
from nashc.nas.space import Space, load_space, space_names


def renamed(network: Network) -> Network:
    """With tensors and layers numbered, and without what search does not read."""
    number = {t.name: str(i) for i, t in enumerate(network.tensors)}
    layers = tuple(
        replace(
            layer,
            name=str(i),
            inputs=tuple(number[x] for x in layer.inputs),
            output=number[layer.output],
            weights=layer.weights and replace(layer.weights, name=""),
            nodes=(),
        )
        for i, layer in enumerate(network.layers)
    )
    tensors = tuple(replace(t, name=number[t.name]) for t in network.tensors)
    inputs, outputs = (tuple(number[x] for x in names) for names in (network.inputs, network.outputs))
    return Network("", layers, tensors, inputs, outputs)


SPACES = {name: load_space(name) for name in space_names()}


def shallow(space: Space) -> Space:
    """With as few blocks as it allows: an export takes seconds, and every stage has its first block all the same."""
    stages = tuple(msgspec.structs.replace(stage, depths=(min(stage.depths),)) for stage in space.stages)
    return msgspec.structs.replace(space, stages=stages)


CASES = [(name, shallow(space), 0) for name, space in SPACES.items() if len(space.stages) > 3]
CASES += [(name, space, seed) for name, space in SPACES.items() for seed in (0, 1) if len(space.stages) <= 3]


@pytest.mark.parametrize(("name", "space", "seed"), CASES, ids=lambda v: "" if isinstance(v, Space) else str(v))
def test_search_prices_what_the_exported_model_is(name: str, space: Space, seed: int, tmp_path) -> None:
    architecture = sample(space, Random(seed))
    export_net(build(architecture, space), tmp_path / "model.onnx")
    shape = (1, space.channels, space.resolution, space.resolution)
    imported = import_model(tmp_path / "model.onnx", {INPUT: shape}).network
    direct = network_of(architecture, SPACES[name])
    assert renamed(direct) == renamed(imported)
    assert direct.macs == sum(macs(layout(architecture, space)).values())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SPACES)
def test_tensors_have_the_shapes_that_torch_gives_them(name: str, seed: int) -> None:
    """Of deep networks, too; small images are enough, also such that strides do not divide."""
    space = msgspec.structs.replace(SPACES[name], resolution=(32, 27, 48)[seed])
    architecture = sample(space, Random(seed))
    known = network_of(architecture, space).tensor
    with torch.no_grad():
        for step, value in build(architecture, space).values(torch.zeros(2, space.channels, *[space.resolution] * 2)):
            said = known[step.name]
            assert value.shape[1:] == (said.channels, said.rows, said.columns)[: value.ndim - 1]
