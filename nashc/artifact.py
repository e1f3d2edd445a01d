"""`design.json`: a compile's outcome as a file that every other command reads back. docs/design-json.md explains it.

The schema is the dataclasses themselves (`json_schema` prints it), so a field is declared once. `dump` and `load` check
the same invariants: what is written can be read, and what is read is safe to index. A change of a dataclass that an old
reader would misread needs a new VERSION.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.metadata import version as installed_version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec
import onnx_ir as ir

from nashc.board import Board
from nashc.core.design import Design, LayerResult
from nashc.core.loops import LOOP_DIMS
from nashc.core.network import Layer, Network, Unit
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.dataflows import DATAFLOWS
from nashc.hw.machine import PAGE_BANKS
from nashc.hw.tiles import TILE_DIMS
from nashc.importer import Skip

SCHEMA: Literal["nashc-design"] = "nashc-design"
VERSION: Literal[2] = 2
MAX_BYTES = 256 * 2**20
WRITE_AGAIN = "write it again with `nashc compile`"
MOST = 2**48
"""Operations of a layer and bits of a feature map, for one image: more than any network has, and their products with a
batch still fit 64 bits."""
MOST_SMALL = 2**20
"""Strides, pads, bits, terms, images of a batch."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """The outcome of a compile.

    `removed` are the source nodes that became no layer; `alternatives` other designs of the same request by name:
    "batch 1" where the design has a larger batch, and every baseline asked for; `missing` those that do not exist, with
    the reason. `model` is the simplified model behind
    the network; a design read from a file has none.
    """

    design: Design
    board: Board
    options: Options
    removed: tuple[Skip, ...] = ()
    alternatives: tuple[tuple[str, Design], ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    model: ir.Model | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Summary:
    """The headline numbers, computed from the design when it is written; `load` ignores them. `gap` is null where no
    bound is proven."""

    fps: float
    latency_ms: float
    gops: float
    batch: int
    interval_cycles: int
    energy_pj_per_image: float
    optimal: bool
    gap: float | None


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The top level of design.json."""

    schema: Literal["nashc-design"]
    version: Literal[2]
    tool: str
    summary: Summary
    options: Options
    design: Design
    alternatives: tuple[tuple[str, Design], ...]
    missing: tuple[tuple[str, str], ...]
    removed: tuple[Skip, ...]
    board: Board


class _Header(msgspec.Struct):
    schema: Any = None
    version: Any = None


def dump(compiled: Compiled) -> bytes:
    """The design as UTF-8 JSON; the same value gives the same bytes. Raises ValueError for a value that breaks an
    invariant: that is a defect of the search, not of the input."""
    for problem in _problems(compiled):
        raise ValueError(f"the design is inconsistent: {problem}")
    document = Document(
        SCHEMA,
        VERSION,
        f"nashc {installed_version('nashc')}",
        summarise(compiled.design),
        compiled.options,
        compiled.design,
        compiled.alternatives,
        compiled.missing,
        compiled.removed,
        compiled.board,
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def load(source: bytes | str | Path) -> Compiled:
    """The design of a design.json, given its bytes or its path. Raises NashcError for anything else."""
    name = "design.json" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else _read(Path(source))
    try:
        header = msgspec.json.decode(data, type=_Header)
        if header.schema != SCHEMA:
            raise NashcError("not a nashc design", where=name, hint="give the design.json that `nashc compile` wrote")
        if header.version != VERSION:
            raise NashcError(
                f"design format version {_shown(header.version)} is not known here (version {VERSION} is)",
                where=name,
                hint=f"{WRITE_AGAIN}, or update nashc",
            )
        document = msgspec.json.decode(data, type=Document)
    except RecursionError:
        raise NashcError("nested too deeply", where=name, hint=WRITE_AGAIN) from None
    except msgspec.ValidationError as error:
        raise NashcError(f"not a design of version {VERSION}: {error}", where=name, hint=WRITE_AGAIN) from None
    except msgspec.DecodeError as error:
        raise NashcError(f"broken JSON: {error}", where=name, hint=WRITE_AGAIN) from None
    compiled = Compiled(
        document.design,
        document.board,
        document.options,
        document.removed,
        document.alternatives,
        document.missing,
    )
    for problem in _problems(compiled):
        raise NashcError(f"inconsistent: {problem}", where=name, hint=WRITE_AGAIN)
    return compiled


def json_schema() -> bytes:
    """The JSON Schema (2020-12) of design.json."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Document)}
    return msgspec.json.format(msgspec.json.encode(schema), indent=1) + b"\n"


def summarise(design: Design) -> Summary:
    certificate = design.certificate
    return Summary(
        design.fps,
        design.latency_ms,
        design.gops,
        design.accelerator.batch,
        design.interval_cycles,
        design.energy_pj / design.accelerator.batch,
        certificate.optimal,
        certificate.gap if certificate.bound > 0 else None,
    )


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise NashcError("no such file", where=str(path), hint="give the design.json that `nashc compile` wrote")
        if path.stat().st_size > MAX_BYTES:
            raise NashcError(f"larger than {MAX_BYTES // 2**20} MiB", where=str(path), hint=WRITE_AGAIN)
        return path.read_bytes()
    except OSError as error:
        raise NashcError(f"cannot be read: {error.strerror}", where=str(path), hint="check its permissions") from None


def _shown(raw: object) -> str:
    return str(raw) if isinstance(raw, int) and abs(raw) < 10**9 else "of another kind"


def _problems(compiled: Compiled) -> Iterator[str]:
    """What makes a design unsafe to use, in words; nothing for a sound one."""
    yield from _numbers(compiled, "")
    yield from _positive("board", compiled.board, "clock_mhz", "lut", "ff", "bram36")
    yield from _positive("board.dram", compiled.board.dram, "bytes_per_second", "efficiency")
    board = compiled.board
    if not all(0 < share <= 1 for share in (board.usable_logic, board.usable_blocks)):
        yield "board.usable_logic or usable_blocks is no share"
    if not (1e-3 <= board.clock_mhz <= 1e6 and 1e-6 <= board.dram.efficiency <= 1):
        yield "board.clock_mhz or board.dram.efficiency is out of range"
    for label, design in (("design", compiled.design), *compiled.alternatives):
        yield from (f"{label}: {problem}" for problem in _design_problems(design))
        if (design.board, design.clock_mhz) != (board.name, board.clock_mhz):
            here, there = f"{board.name} at {board.clock_mhz:g} MHz", f"{design.board} at {design.clock_mhz:g} MHz"
            yield f"{label}: made for {there}, and the board is {here}"


def _numbers(value: object, place: str) -> Iterator[str]:
    """JSON has no infinities, and 64-bit readers no larger integers."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place} is {value}"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield f"{place} is out of range"
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _numbers(item, f"{place}[{i}]")
    elif is_dataclass(value):
        for spec in fields(value):
            if spec.name != "model":
                yield from _numbers(getattr(value, spec.name), f"{place}.{spec.name}".lstrip("."))


def _positive(label: str, value: object, *names: str) -> Iterator[str]:
    yield from (f"{label}.{name} is not positive" for name in names if getattr(value, name) <= 0)


def _design_problems(design: Design) -> Iterator[str]:
    network, accelerator = design.network, design.accelerator
    yield from _network_problems(network)
    yield from _positive("design", design, "clock_mhz", "interval_cycles", "latency_cycles")
    yield from _positive("accelerator", accelerator, "batch")
    if accelerator.batch > MOST_SMALL:
        yield f"a batch of {accelerator.batch} images"
    if len(design.chunk_resources) != len(accelerator.chunks):
        yield "chunk_resources does not match the chunks"
    if [r.layer for r in design.layers] != [layer.name for layer in network.layers]:
        yield "the mapped layers are not those of the network"
        return
    for result, layer in zip(design.layers, network.layers, strict=True):
        if (result.chunk == -1) != (layer.unit is Unit.HOST) or not -1 <= result.chunk < len(accelerator.chunks):
            yield f"layer '{layer.name}' runs on chunk {result.chunk}"
        if len(result.placement.inputs) != len(layer.inputs):
            yield f"layer '{layer.name}' has {len(layer.inputs)} inputs and {len(result.placement.inputs)} placements"
        if result.chunk >= 0:
            yield from _mapping_problems(layer, result)
    yield from _schedule_problems(design)
    for chunk in accelerator.chunks:
        yield from _positive(f"chunk '{chunk.name}'", chunk, "post_lanes", "dram_bits")
        yield from _positive(f"chunk '{chunk.name}'", chunk.unroll, *LOOP_DIMS)
    for name, _ in design.plan.resident:
        if name not in network.tensor:
            yield f"resident tensor '{name}' is not in the network"
    resident = {name for name, _ in design.plan.resident}
    for name, urams in design.plan.in_uram:
        if urams < 0 or urams % PAGE_BANKS:
            yield f"tensor '{name}' is in {urams} URAMs, which come in groups of {PAGE_BANKS}"
        if name not in resident:
            yield f"tensor '{name}' is in URAM and not among the resident ones"
    known = {layer.name for layer in network.layers}
    for name in design.plan.pinned:
        if name not in known:
            yield f"pinned layer '{name}' is not in the network"


def _schedule_problems(design: Design) -> Iterator[str]:
    """A layer that starts before its inputs are there, or while the batch before it has its chunk."""
    network, interval = design.network, design.interval_cycles
    spans: dict[int, list[tuple[int, int, str]]] = {}
    for layer, result in zip(network.layers, design.layers, strict=True):
        spans.setdefault(result.chunk, []).append((result.start % max(interval, 1), result.cycles, layer.name))
        for name in layer.inputs:
            writers = (design.layers[i] for i in network.producers.get(name, ()))
            if any(writer.start + writer.cycles > result.start for writer in writers):
                yield f"layer '{layer.name}' starts before its input '{name}' is there"
    for chunk, taken in spans.items():
        taken.sort()
        first, _, name = taken[0]
        for (at, cycles, one), (after, _, other) in pairwise([*taken, (first + interval, 0, name)]):
            if at + cycles > after:
                yield f"layers '{one}' and '{other}' are on chunk {chunk} at the same time"


def _mapping_problems(layer: Layer, result: LayerResult) -> Iterator[str]:
    label = f"layer '{layer.name}'"
    if result.mapping.dataflow not in DATAFLOWS:
        yield f"{label} has the unknown dataflow '{result.mapping.dataflow}'"
    if not layer.inputs:
        yield f"{label} has no input"
    yield from _positive(label, result.mapping.tile, *TILE_DIMS)
    yield from _positive(label, result, "cycles")


def _network_problems(network: Network) -> Iterator[str]:
    if not network.layers:
        yield "the network has no layer"
    for tensor in network.tensors:
        yield from _positive(f"tensor '{tensor.name}'", tensor, "channels", "rows", "columns", "bits")
    for kind, names in (
        ("layers", [layer.name for layer in network.layers]),
        ("tensors", [tensor.name for tensor in network.tensors]),
    ):
        if len(set(names)) != len(names):
            yield f"two {kind} have the same name"
    used = [name for layer in network.layers for name in (*layer.inputs, layer.output)]
    for name in (*network.inputs, *network.outputs, *used):
        if name not in network.tensor:
            yield f"tensor '{name}' is not in the network"
    for layer in network.layers:
        label = f"layer '{layer.name}'"
        yield from _positive(label, layer.nest, *LOOP_DIMS, "iy", "ix")
        numbers = [*layer.nest.stride, *layer.nest.dilation, *(n + 1 for n in layer.nest.pad)]
        numbers += [] if layer.weights is None else [layer.weights.bits, layer.weights.terms]
        if not all(0 < n <= MOST_SMALL for n in numbers):
            yield f"{label} has a stride, dilation, pad, or weights of a size that no layer has"
        for size in (
            layer.nest.macs,
            *(network.tensor[n].total_bits for n in (*layer.inputs, layer.output) if n in network.tensor),
        ):
            if size > MOST:
                yield f"{label} is too large"
