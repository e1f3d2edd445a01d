"""The frozen network that search sees: layers in topological order and the tensors between them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType

from nashc.core.loops import LoopNest


class Unit(StrEnum):
    """Which part of the accelerator serves a layer (DESIGN.md section 2)."""

    CONV = "conv"
    SHIFT = "shift"
    ADDER = "adder"
    VECTOR = "vector"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A feature map of one image: channels x rows x columns, `bits` an element."""

    name: str
    channels: int
    rows: int
    columns: int
    bits: int = 8

    @property
    def elements(self) -> int:
        return self.channels * self.rows * self.columns

    @property
    def total_bits(self) -> int:
        return self.elements * self.bits


@dataclass(frozen=True, slots=True)
class Weights:
    """Constant operand of a layer. `bits` is the stored width of one term of one weight; a shift layer
    of T `terms` stores and computes T terms a weight. `symmetric`: every integer lies in [-127, 127], which two MACs
    on one DSP need; float weights get there by a symmetric quantiser."""

    name: str
    bits: int = 8
    terms: int = 1
    symmetric: bool = True


@dataclass(frozen=True, slots=True)
class Layer:
    """One node of the network with its loop nest, fused neighbours included.

    inputs[0] is read through the filter window of the nest; every further input (a residual, a gate, the second
    operand of an element-wise node) is read once per output element, or broadcast when it is smaller than the output.
    `work`: MAC-equivalents, where the nest has more of them: the zeros of a transposed convolution's sub-pixel form; 0
    stands for those of the nest.
    `scattered`: outputs are not stored in order (pixel shuffle, transpose, unaligned concat), so each pixel's
    channel block is a DRAM run of its own. A tensor may have several producers (the parts of a concat).
    """

    name: str
    op: str
    unit: Unit
    nest: LoopNest
    inputs: tuple[str, ...]
    output: str
    weights: Weights | None = None
    activation: str = ""
    nodes: tuple[str, ...] = ()
    scattered: bool = False
    note: str = ""
    work: int = 0

    @property
    def macs(self) -> int:
        """MAC-equivalents of one image, as people count them; cycles and energy are those of the nest."""
        return self.work or self.nest.macs


@dataclass(frozen=True)
class Network:
    """Layers in topological order; `inputs` and `outputs` name the tensors that live in DRAM on both ends."""

    name: str
    layers: tuple[Layer, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @cached_property
    def tensor(self) -> MappingProxyType[str, Tensor]:
        return MappingProxyType({t.name: t for t in self.tensors})

    @cached_property
    def producers(self) -> MappingProxyType[str, tuple[int, ...]]:
        """Tensor name -> indices of the layers that write it; absent for network inputs."""
        found: dict[str, list[int]] = {}
        for i, layer in enumerate(self.layers):
            found.setdefault(layer.output, []).append(i)
        return MappingProxyType({name: tuple(ids) for name, ids in found.items()})

    @cached_property
    def consumers(self) -> MappingProxyType[str, tuple[int, ...]]:
        """Tensor name -> indices of the layers that read it."""
        found: dict[str, list[int]] = {}
        for i, layer in enumerate(self.layers):
            for name in dict.fromkeys(layer.inputs):
                found.setdefault(name, []).append(i)
        return MappingProxyType({name: tuple(ids) for name, ids in found.items()})

    @cached_property
    def macs(self) -> int:
        """MAC-equivalents of one image over conv, shift and adder layers."""
        return sum(layer.macs for layer in self.layers if layer.unit in COMPUTE_UNITS)


COMPUTE_UNITS = (Unit.CONV, Unit.SHIFT, Unit.ADDER)
