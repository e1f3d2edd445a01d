"""The layers of a design as flat rows: the CSV table, and the pairing of two designs."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO

from nashc.artifact import Compiled
from nashc.compiler import chunk_labels
from nashc.core.design import Design
from nashc.report.text import safe

FORMULA = tuple("=+-@\t\r")
"""A cell that begins like this is a formula to a spreadsheet."""


@dataclass(frozen=True, slots=True)
class FlatLayer:
    """One layer of a design; cycles and bits are those of a batch of `images`."""

    name: str
    op: str
    chunk: str
    cycles: int
    images: int
    bound: str
    dram_bits: int
    utilisation: float
    clock_mhz: float

    @property
    def us_per_image(self) -> float:
        return self.cycles / self.images / self.clock_mhz


@dataclass(frozen=True, slots=True)
class PairedLayer:
    """A layer by name in two designs; None where one does not have it."""

    name: str
    a: FlatLayer | None
    b: FlatLayer | None


def flat_layers(design: Design) -> list[FlatLayer]:
    """In the order of the network."""
    labels = chunk_labels(design.accelerator)
    return [
        FlatLayer(
            layer.name, layer.op, "host" if ran.chunk < 0 else labels[ran.chunk], ran.cycles, design.accelerator.batch,
            ran.bound, ran.traffic.dram_read + ran.traffic.dram_write, ran.utilisation, design.clock_mhz,
        )
        for layer, ran in zip(design.network.layers, design.layers, strict=True)
    ]  # fmt: skip


def paired_layers(a: Design, b: Design) -> list[PairedLayer]:
    """Layers of the first design in its order, then those that only the second one has."""
    ours, theirs = ({layer.name: layer for layer in flat_layers(design)} for design in (a, b))
    return [PairedLayer(name, ours.get(name), theirs.get(name)) for name in dict.fromkeys((*ours, *theirs))]


def layers_csv(compiled: Compiled) -> str:
    """The layer table as CSV (RFC 4180): a header, then a line a layer; units stand in the header.

    A name that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    design = compiled.design
    buffer = StringIO()
    out = csv.writer(buffer, lineterminator="\r\n")
    out.writerow(_HEADER)
    out.writerows(_rows(design))
    return buffer.getvalue()


_HEADER = (
    "index", "layer", "operator", "unit", "chunk", "groups", "k_per_group", "c_per_group", "oy", "ox", "fy", "fx",
    "terms", "weight_bits", "macs_per_image", "tile_n", "tile_g", "tile_k", "tile_c", "tile_oy", "tile_ox", "dataflow",
    "start_cycle", "cycles_per_batch", "compute_cycles_per_batch", "batch", "bound", "utilisation",
    "dram_read_bits_per_batch", "dram_write_bits_per_batch", "chip_read_bits_per_batch", "chip_write_bits_per_batch",
)  # fmt: skip


def _rows(design: Design) -> Iterator[tuple[object, ...]]:
    labels = chunk_labels(design.accelerator)
    for i, (layer, ran) in enumerate(zip(design.network.layers, design.layers, strict=True)):
        n, w, t = layer.nest, layer.weights, ran.mapping.tile
        yield (
            i, _text(layer.name), _text(layer.op), str(layer.unit), "host" if ran.chunk < 0 else labels[ran.chunk],
            n.g, n.k, n.c, n.oy, n.ox, n.fy, n.fx, w.terms if w else 1, w.bits if w else 0, layer.macs, t.n, t.g, t.k,
            t.c, t.oy, t.ox, ran.mapping.dataflow, ran.start, ran.cycles, ran.compute_cycles, design.accelerator.batch,
            ran.bound, ran.utilisation, ran.traffic.dram_read, ran.traffic.dram_write, ran.traffic.chip_read,
            ran.traffic.chip_write,
        )  # fmt: skip


def _text(name: str) -> str:
    printable = safe(name)
    return f"'{printable}" if name.startswith(FORMULA) else printable
