"""The NASA-F network of examples/: its size, its units, and that it runs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from nashc.ops import register_schemas

from nashc.core.network import COMPUTE_UNITS, Network, Unit
from nashc.importer import import_model

SCRIPT = Path(__file__).parents[2] / "examples/nasa_f_network.py"
MIXES = ("conv", "hybrid", "shift", "adder")


@pytest.fixture(scope="module", params=MIXES)
def written(request, tmp_path_factory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("nasa_f") / f"{request.param}.onnx"
    subprocess.run([sys.executable, SCRIPT, path, "--mix", request.param], check=True, stdout=subprocess.DEVNULL)
    return request.param, path


@pytest.fixture(scope="module")
def network(written) -> Network:
    return import_model(written[1]).network


def block_layers(network: Network, kind: str) -> list[Unit]:
    """The units of the pointwise and depthwise layers in the blocks of one type."""
    named = re.compile(rf"mb\d_\d_{kind}_(expand|depthwise|project)$")
    return [layer.unit for layer in network.layers if named.match(layer.name)]


def test_file_is_valid_and_runs_in_stock_onnxruntime(written):
    register_schemas()
    onnx.checker.check_model(onnx.load(written[1]), full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(written[1], options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).standard_normal((2, 1, 3, 32, 32)).astype(np.float32)
    one, two = (session.run(None, {"x": x})[0] for x in images)
    assert one.shape == (1, 100)
    assert np.isfinite(one).all()
    assert np.abs(one - two).mean() > 0.1 * one.std()  # no block is dead


def test_size_is_that_of_the_published_network(network):
    compute = [layer for layer in network.layers if layer.unit in COMPUTE_UNITS]
    assert network.macs == pytest.approx(32.8e6, rel=0.02)
    assert sum(layer.nest.weights for layer in compute) == pytest.approx(3.7e6, rel=0.02)
    shapes = network.tensor
    traffic = sum(
        shapes[layer.inputs[0]].elements + shapes[layer.output].elements
        for layer in compute
        if "_se_" not in layer.name
    )
    assert traffic == pytest.approx(1.17e6, rel=0.02)


def test_every_layer_has_its_unit(written, network):
    mix, _ = written
    assert not [layer.name for layer in network.layers if layer.unit is Unit.HOST]
    kinds = ("conv", "shift", "adder") if mix == "hybrid" else (mix,)
    blocks = {m[1]: m[2] for m in (re.match(r"(mb\d_\d)_(\w+?)_", layer.name) for layer in network.layers) if m}
    assert len(blocks) == 21
    assert Counter(blocks.values()) == {kind: 21 // len(kinds) for kind in kinds}
    for kind in kinds:
        assert set(block_layers(network, kind)) == {Unit(kind)}
    others = [layer for layer in network.layers if layer.unit in COMPUTE_UNITS and not layer.name.startswith("mb")]
    assert [(layer.name, layer.unit) for layer in others] == [
        (name, Unit.CONV) for name in ("stem", "head", "classifier")
    ]


def test_stored_widths(network):
    bits = {Unit.CONV: 8, Unit.SHIFT: 4, Unit.ADDER: 8}
    for layer in network.layers:
        if layer.unit in bits:
            assert layer.weights is not None
            assert (layer.weights.bits, layer.weights.terms) == (bits[layer.unit], 1), layer.name


def test_every_weight_of_the_file_is_counted(written, network):
    stored = [t for t in onnx.load(written[1]).graph.initializer if t.name.endswith((".weight", ".codes"))]
    counted = sum(layer.nest.weights for layer in network.layers if layer.unit in COMPUTE_UNITS)
    assert counted == sum(prod(t.dims) for t in stored)


def test_same_seed_same_weights(tmp_path):
    for name in ("one", "two"):
        command = [sys.executable, SCRIPT, tmp_path / name, "--mix", "hybrid", "--seed", "3"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    one, two = (onnx.load(tmp_path / name).graph.initializer for name in ("one", "two"))
    for t, u in zip(one, two, strict=True):
        assert t.name == u.name
        np.testing.assert_allclose(onnx.numpy_helper.to_array(t), onnx.numpy_helper.to_array(u), rtol=1e-3, atol=1e-4)
