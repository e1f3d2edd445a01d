"""Layers for hybrid networks in PyTorch: shift and adder layers in the place of nn.Conv2d. docs/training-layers.md."""

from __future__ import annotations

from nashc.nn.adder import AdderConv2d
from nashc.nn.convert import Adder, Conv, Shift, convert, fix_shift_weights
from nashc.nn.shift import FixedShiftConv2d, ShiftConv2d
from nashc.nn.weights import load, save

__all__ = [
    "Adder",
    "AdderConv2d",
    "Conv",
    "FixedShiftConv2d",
    "Shift",
    "ShiftConv2d",
    "convert",
    "fix_shift_weights",
    "load",
    "save",
]
