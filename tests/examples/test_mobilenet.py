"""The MobileNets of examples/: their published sizes, their maps, their units, and that they run."""

from __future__ import annotations

import subprocess
import sys
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from nashc.core.network import COMPUTE_UNITS, Network, Unit
from nashc.importer import import_model

SCRIPT = Path(__file__).parents[2] / "examples/mobilenet.py"
MACS = {1: 568_740_352, 2: 300_774_272}
TRAINED = {1: 4_231_976, 2: 3_504_872}
STORED = {1: 4_253_864, 2: 3_538_984}
LAYERS = {1: (1, 13, 13, 1), 2: (1, 17, 34, 1)}
"""Stem, depthwise, pointwise, classifier."""
PUBLISHED = {1: (569e6, 4.2e6), 2: (300e6, 3.4e6)}
MAPS = {
    1: [(64, 112), (128, 56), (128, 56), (256, 28), (256, 28), *[(512, 14)] * 6, *[(1024, 7)] * 2],
    2: [
        (16, 112), *[(24, 56)] * 2, *[(32, 28)] * 3, *[(64, 14)] * 4, *[(96, 14)] * 3, *[(160, 7)] * 3, (320, 7),
    ],
}  # fmt: skip
"""Channels and rows that each block of the published table puts out."""


@pytest.fixture(scope="module", params=(1, 2))
def written(request, tmp_path_factory) -> tuple[int, Path]:
    path = tmp_path_factory.mktemp("mobilenet") / f"v{request.param}.onnx"
    command = [sys.executable, SCRIPT, path, "--version", str(request.param)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return request.param, path


@pytest.fixture(scope="module")
def network(written) -> Network:
    return import_model(written[1]).network


def test_file_is_valid_and_runs_in_stock_onnxruntime(written):
    onnx.checker.check_model(onnx.load(written[1]), full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(written[1], options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).standard_normal((2, 1, 3, 224, 224)).astype(np.float32)
    one, two = (session.run(None, {"x": x})[0] for x in images)
    assert one.shape == (1, 1000)
    assert np.isfinite(one).all()
    assert np.abs(one - two).mean() > 0.01 * one.std()  # no block is dead


def test_macs_and_parameters_are_the_published_ones(written, network):
    version, path = written
    stored = {t.name: prod(t.dims) for t in onnx.load(path).graph.initializer if not t.name.startswith("relu6.")}
    trained = sum(size for name, size in stored.items() if not name.endswith((".mean", ".var")))
    assert (network.macs, trained, sum(stored.values())) == (MACS[version], TRAINED[version], STORED[version])
    assert (network.macs, trained) == pytest.approx(PUBLISHED[version], rel=0.04)
    weights = sum(size for name, size in stored.items() if name.endswith(".weight"))
    assert weights == sum(layer.nest.weights for layer in network.layers if layer.unit in COMPUTE_UNITS)


def test_layers_are_those_of_the_published_table(written, network):
    version, _ = written
    compute = [layer for layer in network.layers if layer.unit is Unit.CONV]
    depthwise = [layer for layer in compute if layer.nest.depthwise]
    pointwise = [layer for layer in compute if layer.nest.g == layer.nest.fy == 1 and layer is not compute[-1]]
    found = (len(compute) - len(depthwise) - len(pointwise) - 1, len(depthwise), len(pointwise), 1)
    assert found == LAYERS[version]
    assert all((layer.nest.fy, layer.nest.fx) == (3, 3) for layer in depthwise)
    last = [layer.output for layer in compute if layer.name.endswith(("_pointwise", "_project"))]
    assert [(network.tensor[name].channels, network.tensor[name].rows) for name in last] == MAPS[version]


def test_convolutions_run_on_the_accelerator_with_their_activation_and_shortcut(written, network):
    version, _ = written
    units = [layer.unit for layer in network.layers]
    assert Unit.HOST not in units
    assert units.count(Unit.CONV) == sum(LAYERS[version])
    for layer in network.layers:
        linear = layer.unit is not Unit.CONV or layer.name.endswith(("_project", "classifier"))
        assert layer.activation == ("" if linear else "relu6"), layer.name
    assert sum(len(layer.inputs) > 1 for layer in network.layers) == (10 if version == 2 else 0)


def test_same_seed_same_file(tmp_path):
    for name in ("one", "two"):
        command = [sys.executable, SCRIPT, tmp_path / name, "--version", "2", "--seed", "3"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
