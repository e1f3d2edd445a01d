"""The network that search prices is the one that importing the exported model gives."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch

from nashc.core.network import Network
from nashc.export import export
from nashc.importer import import_model
from nashc.nas.architecture import sample
from nashc.nas.build import build
from nashc.nas.layout import layout, macs
from nashc.nas.network import network_of
from nashc.nas.space import load_space, space_names


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


@pytest.mark.parametrize(("space_name", "seed"), [(name, seed) for name in space_names() for seed in (0, 1)])
def test_search_prices_what_the_exported_model_is(space_name: str, seed: int, tmp_path) -> None:
    space = load_space(space_name)
    if space.resolution > 64 and seed:
        pytest.skip("one large network is enough")
    architecture = sample(space, Random(seed))
    image = torch.zeros(1, space.channels, space.resolution, space.resolution)
    export(build(architecture, space), image, tmp_path / "model.onnx", input_names=["x"])
    imported = import_model(tmp_path / "model.onnx", {"x": tuple(image.shape)}).network
    direct = network_of(architecture, space)
    assert renamed(direct) == renamed(imported)
    assert direct.macs == sum(macs(layout(architecture, space)).values())
