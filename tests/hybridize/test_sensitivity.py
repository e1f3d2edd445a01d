"""What a layer costs as a type, against models in which that layer alone is changed."""

import numpy as np
import pytest
from made import MODELS, images

from nashc.hybridize.fidelity import loss
from nashc.hybridize.layer_types import TYPES
from nashc.hybridize.original import original
from nashc.hybridize.sensitivity import sensitivities
from nashc.hybridize.steps import CALIBRATIONS
from nashc.hybridize.walk import ranges, steps, walk

BASE = TYPES.get("conv8")


def measured(name, kinds=("conv4", "shift1"), *, workers=1, count=8):
    source = original(MODELS[name], {}, "net", "net")
    cut = source.staged
    x = {source.input: images(source.shape, 8)}
    found, wanted = ranges(cut, x, workers=1)
    step = steps(cut, found, CALIBRATIONS.get("mse"))
    layers = [s.weighted.node for s in cut.stages if s.weighted is not None and s.weighted.window is not None]
    types = {node: [TYPES.get(k) for k in kinds] for node in layers[1:]}
    seen = []
    made = sensitivities(cut, step, x, wanted, types, BASE, count=count, workers=workers, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    return cut, step, x, wanted, layers, made


@pytest.mark.parametrize("name", ["residual", "concat", "pools", "depthwise", "split and slice", "two outputs"])
def test_every_layer_has_its_weights_and_losses(name):
    cut, step, x, _, layers, made = measured(name)
    every = [s.weighted.node for s in cut.stages if s.weighted is not None]
    assert list(made.weights) == list(made.losses) == every
    for node in every:
        kinds = ["conv8", "conv4", "shift1"] if node in layers[1:] else ["conv8"]
        assert list(made.losses[node]) == list(made.weights[node]) == kinds
        assert all(made.weights[node][k].kind.name == k for k in kinds)
        assert all(np.isfinite(v) and v >= 0 for v in made.losses[node].values())
    # the base is the model with 8-bit weights everywhere
    rounded, _ = walk(cut, step, x, dict.fromkeys(every, BASE), workers=1)
    for node in every:
        np.testing.assert_array_equal(rounded[node].levels, made.weights[node]["conv8"].levels)


def test_coarser_types_cost_more():
    *_, layers, made = measured("plain", ("conv4", "shift1", "shift2", "shift3"))
    losses = made.losses[layers[1]]
    assert losses["conv8"] < losses["conv4"] < losses["shift1"]
    assert losses["conv8"] < losses["shift3"] < losses["shift2"] < losses["shift1"]


def test_the_last_layer_costs_what_its_own_rounding_changes():
    """Behind it is nothing: the loss is that of the float outputs of the rounded layer on the base's inputs."""
    cut, step, x, wanted, layers, made = measured("plain")
    node = layers[1]
    other, _ = walk(cut, step | {"y": step["x"]}, x, dict.fromkeys(layers, BASE), workers=1)
    np.testing.assert_array_equal(other[node].levels, made.weights[node]["conv8"].levels)
    for kind in ("conv4", "shift1"):
        _, outputs = walk(cut, step, x, {layers[0]: BASE, node: TYPES.get(kind)}, workers=1)
        _, base = walk(cut, step, x, dict.fromkeys(layers, BASE), workers=1)
        whole = loss(wanted, outputs) - loss(wanted, base)  # with the output rounded to 8 bits, which adds little
        assert made.losses[node][kind] == pytest.approx(whole, rel=0.05)


def test_workers_and_images_change_nothing_but_the_time():
    *_, one = measured("residual")
    *_, two = measured("residual", workers=2)
    assert one.losses == two.losses
    *_, few = measured("residual", count=3)
    assert few.losses != one.losses
    for node, kinds in one.weights.items():
        for kind, rounded in kinds.items():
            np.testing.assert_array_equal(few.weights[node][kind].levels, rounded.levels)
