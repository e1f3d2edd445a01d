"""How one layer runs, as text: its mapping as a loop nest, and what each operand moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from nashc.core.design import Chunk, LayerResult, Work
from nashc.core.loops import LOOP_DIMS
from nashc.core.network import Layer, Unit
from nashc.hw.dataflows import DATAFLOWS, INPUT_DIMS, OUTPUT_DIMS, WEIGHT_DIMS, Dataflow
from nashc.hw.tiles import Extents, Tiles
from nashc.hw.traffic import repeats, spills, volumes

INDENT = "  "
MEANING = {
    "n": "images", "g": "groups", "k": "output channels", "c": "input channels", "oy": "output rows",
    "ox": "output columns", "fy": "filter rows", "fx": "filter columns",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operand:
    """What one operand of a layer moves in a batch: `bits` in all, each element `times`; place: "on chip" or "DRAM"."""

    what: str
    name: str
    place: str
    bits: int
    times: float
    loop: str
    """The innermost tile loop whose step moves it; "" where it moves once."""


@dataclass(frozen=True)
class Ran:
    """A layer that runs on a chunk, with all that its schedule depends on."""

    layer: Layer
    result: LayerResult
    chunk: Chunk
    work: Work

    @property
    def flow(self) -> Dataflow:
        return DATAFLOWS.get(self.result.mapping.dataflow)

    @cached_property
    def extents(self) -> Extents:
        return Extents.of(self.work, Tiles.of([self.result.mapping.tile]))

    @cached_property
    def active(self) -> tuple[str, ...]:
        """Tile loops of more than one tile, outermost first."""
        return tuple(d for d in self.flow.loops if int(getattr(self.extents, d).count[0]) > 1)

    @cached_property
    def operands(self) -> tuple[Operand, ...]:
        """Inputs, weights, outputs and spilled partial sums of a layer, in the order in which it takes them."""
        return tuple(_operands(self))


def _operands(ran: Ran) -> list[Operand]:
    layer, place, flow, extents = ran.layer, ran.result.placement, ran.flow, ran.extents
    moved = volumes(ran.work, extents, flow)
    input_times, weight_times = (int(repeats(extents, flow, d)[0][0]) for d in (INPUT_DIMS, WEIGHT_DIMS))
    found = [_operand("input", layer.inputs[0], place.inputs[0], moved.input, input_times, _at(ran, INPUT_DIMS))]
    if layer.weights is not None:
        found.append(
            _operand("weights", layer.weights.name, place.weights, moved.weight, weight_times, _at(ran, WEIGHT_DIMS))
        )
    outer = _at(ran, OUTPUT_DIMS)
    for name, bits, on_chip in zip(layer.inputs[1:], moved.extras, place.inputs[1:], strict=True):
        found.append(_operand("second operand", name, on_chip, bits, 1, outer))
    if int(moved.partial[0]):
        again = int(extents.c.count[0]) - 1
        found.append(_operand("partial sums, out and in", layer.output, False, 2 * moved.partial, again, outer))
    found.append(_operand("output", layer.output, place.output, moved.output, 1, outer))
    return found


def _operand(what: str, name: str, on_chip: bool, bits: object, times: int, loop: str) -> Operand:
    total = int(bits[0])  # type: ignore[index]
    return Operand(what, name, "on chip" if on_chip else "DRAM", total, times, loop)


def _at(ran: Ran, dims: frozenset[str]) -> str:
    """The innermost running loop that an operand over `dims` depends on."""
    return next((d for d in reversed(ran.active) if d in dims), "")


def loop_nest(ran: Ran) -> str:
    """The mapping as a loop nest: tile loops with their transfers, the loops of the array over time, its lanes."""
    return "\n".join(_lines(ran))


def _lines(ran: Ran) -> Iterator[str]:
    extents, moves = ran.extents, ran.operands
    loads = [m for m in moves if m.what not in ("output", "partial sums, out and in")]
    depth = 0
    yield from (f"load {m.what} ({m.place})" for m in loads if m.loop == "")
    for d in ran.active:
        extent = getattr(extents, d)
        count, full, last = (int(getattr(extent, part)[0]) for part in ("count", "first", "last"))
        rest = "" if last == full else f", the last of {last}"
        yield f"{INDENT * depth}for {d} in {count} tiles of {full}{rest}:  # {MEANING[d]}"
        depth += 1
        yield from (f"{INDENT * depth}load {m.what} ({m.place})" for m in loads if m.loop == d)
    if bool(spills(extents, ran.flow)[0]):
        yield f"{INDENT * depth}load partial sums (DRAM), but for the first tile of c"
    yield from _array(ran, extents, depth)
    store = f"store output ({'on chip' if ran.result.placement.output else 'DRAM'})"
    if int(extents.c.count[0]) > 1:
        spilled = bool(spills(extents, ran.flow)[0])
        store += ", at the last tile of c" + ("; before it the partial sums (DRAM)" if spilled else "")
    yield INDENT * depth + store


def _array(ran: Ran, extents: Extents, depth: int) -> Iterator[str]:
    """Loops inside a tile: over time, then over the lanes."""
    nest, unroll, tile = ran.work.nest, ran.chunk.unroll, ran.result.mapping.tile
    sizes = {d: int(getattr(extents, d).first[0]) for d in ("n", "g", "k", "c", "oy", "ox")}
    sizes |= {"fy": nest.fy, "fx": nest.fx}
    order = ("n", "g", "k", "oy", "ox", "c", "fy", "fx")
    steps = [(d, -(-sizes[d] // (1 if d == "n" else getattr(unroll, d)))) for d in order]
    over_time = [f"{d} {count}" for d, count in steps if count > 1]
    if ran.work.terms > 1:
        over_time.append(f"term {ran.work.terms}")
    full = " ".join(f"{d}{getattr(tile, d)}" for d in ("n", "g", "k", "c", "oy", "ox") if getattr(tile, d) > 1)
    yield f"{INDENT * depth}compute a tile ({full or 'one output'}) in steps over {', '.join(over_time) or 'nothing'}:"
    used = " x ".join(f"{d}{min(getattr(unroll, d), sizes[d])}" for d in LOOP_DIMS if getattr(unroll, d) > 1)
    idle = "" if ran.layer.unit is Unit.VECTOR or not used else f" of {unroll}"
    yield f"{INDENT * (depth + 1)}at once: {used or 'one operation'}{idle} ({unroll.lanes:,} lanes)"
