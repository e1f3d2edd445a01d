"""The integer model of a network whose layers are what they shall be: no choice, no search of accelerators."""

from __future__ import annotations

import os
from typing import Any

import onnx
from numpy.typing import NDArray

from nashc.hybridize.layer_types import TYPES
from nashc.hybridize.original import Original, with_batch
from nashc.hybridize.steps import CALIBRATIONS
from nashc.hybridize.walk import ranges, steps, walk
from nashc.hybridize.write import integer_model

BASE = "conv8"
Array = NDArray[Any]


def integers(original: Original, calibration: Array, method: str = "mse") -> onnx.ModelProto:
    """The model with activations of 8 bits and convolutions of 8-bit weights, each reconstructed on what the layers
    before it give for the calibration images [N, 1, ...]; shift and adder layers keep their codes and bytes."""
    workers = os.cpu_count() or 1
    images = {original.input: calibration}
    seen, _ = ranges(original.staged, images, workers=workers)
    step = steps(original.staged, seen, CALIBRATIONS.get(method))
    kinds = {s.weighted.node: TYPES.get(BASE) for s in original.staged.stages if s.weighted is not None}
    made, _ = walk(original.staged, step, images, kinds, workers=workers)
    return with_batch(integer_model(original.staged, step, made), original)
