"""Board files: `targets/*.toml` -> `Board`.

Every figure of a board file is a table `{ value = 900, unit = "dsp", source = "..." }`. The dataclasses below are the
schema: a field made by `figure` states the unit that the file must give and the range of the value. A board may name a
family file whose figures it shares; what the board file itself says goes first. docs/boards.md shows the format.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from nashc.errors import NashcError, did_you_mean

T = TypeVar("T")

LANE_KINDS = ("dsp", "dsp_packed", "lut8x8", "lut8x4", "shift", "shift_dsp", "shift5", "adder", "adder6", "vector")
_FIGURE_KEYS = ("value", "unit", "source")
_LARGEST_FILE = 256 * 1024
_MOST = 1e18
_LEAST_POSITIVE = 1e-9


def figure(unit: str, *, least: float = 0, most: float = _MOST, default: Any = MISSING) -> Any:
    """A dataclass field that a board file gives as {value, unit, source} with least <= value <= most."""
    return field(default=default, metadata={"unit": unit, "least": least, "most": most})


def positive(unit: str, *, most: float = _MOST, default: Any = MISSING) -> Any:
    """A figure that is not zero; an integer one is at least 1."""
    return figure(unit, least=_LEAST_POSITIVE, most=most, default=default)


@dataclass(frozen=True, slots=True)
class Dram:
    """The memory behind the accelerator: `bytes_per_second` is the peak of the bus, `efficiency` the share of it that
    long bursts reach; each burst of at most `burst_bytes` (a page that an AXI4 burst may not cross) costs
    `burst_latency_ns` from request to first beat."""

    bytes_per_second: float = positive("B/s")
    efficiency: float = positive("1", most=1)
    burst_latency_ns: float = figure("ns")
    burst_bytes: int = positive("B", default=4096)


@dataclass(frozen=True, slots=True)
class LaneCost:
    """One lane: one operation a cycle. `scalar` is a lane with an accumulator of its own, `tree` a lane's share of a
    16-wide dot product with its adder tree and one accumulator."""

    kind: str
    dsp_per_lane: float = figure("dsp")
    lut_scalar: float = figure("lut")
    ff_scalar: float = figure("ff")
    lut_tree: float = figure("lut")
    ff_tree: float = figure("ff")
    weight_bits_max: int = positive("bit", most=32)
    activation_bits: int = positive("bit", most=32)


@dataclass(frozen=True, slots=True)
class TemplateCost:
    """What a chunk costs beyond its lanes: control and DMA once, accumulator and requantise (a multiplier for the
    channel's scale) per output lane, and a multiplexer for each 64-bit BRAM bank of the on-chip memory and chunk.
    `ram64_lut` LUTs are a distributed RAM of 64 words of `ram64_bits` with one write and one read port, or two of 32
    words."""

    lut_chunk_base: float = figure("lut")
    lut_per_output_lane: float = figure("lut")
    ff_chunk_base: float = figure("ff")
    ff_per_output_lane: float = figure("ff")
    dsp_per_output_lane: float = figure("dsp")
    lut_mux_per_bank: float = figure("lut")
    ram64_lut: int = positive("lut")
    ram64_bits: int = positive("bit")


@dataclass(frozen=True, slots=True)
class Energy:
    """Unit energies: an operation of each unit, and one bit moved through each level of the memory hierarchy."""

    conv8_pj: float = figure("pJ")
    conv4_pj: float = figure("pJ")
    shift_pj: float = figure("pJ")
    adder_pj: float = figure("pJ")
    vector_pj: float = figure("pJ")
    dram_pj_per_bit: float = figure("pJ/bit")
    buffer_pj_per_bit: float = figure("pJ/bit")
    noc_pj_per_bit: float = figure("pJ/bit")
    rf_pj_per_bit: float = figure("pJ/bit")


@dataclass(frozen=True, slots=True)
class Host:
    """The CPU next to the fabric, for nodes that no chunk can run: a rough rate of output elements."""

    elements_per_second: float = positive("element/s")


@dataclass(frozen=True, slots=True)
class Board:
    """An FPGA board: what it has, what a lane costs on it, and where each figure comes from.

    `lutram` of the LUTs can be distributed RAM. `sources` maps the dotted name of every figure ("lanes.shift.lut_tree")
    to the text that supports it.
    """

    name: str
    part: str
    family: str
    clock_mhz: float = positive("MHz")
    lut: int = positive("lut")
    lutram: int = figure("lut")
    ff: int = positive("ff")
    dsp: int = figure("dsp")
    bram36: int = positive("bram36")
    uram: int = figure("uram")
    usable_logic: float = positive("1", most=1)
    usable_blocks: float = positive("1", most=1)
    dram: Dram = field(kw_only=True)
    lanes: Mapping[str, LaneCost] = field(kw_only=True)
    template: TemplateCost = field(kw_only=True)
    energy: Energy = field(kw_only=True)
    host: Host = field(kw_only=True)
    sources: Mapping[str, str] = field(kw_only=True, repr=False)

    def __hash__(self) -> int:
        """Of a few fields: a search looks things up by board all the time."""
        return hash((self.name, self.clock_mhz, self.lut))

    @property
    def usable_lut(self) -> int:
        return _share(self.lut, self.usable_logic)

    @property
    def usable_lutram(self) -> int:
        return _share(self.lutram, self.usable_logic)

    @property
    def usable_ff(self) -> int:
        return _share(self.ff, self.usable_logic)

    @property
    def usable_dsp(self) -> int:
        return _share(self.dsp, self.usable_blocks)

    @property
    def usable_bram36(self) -> int:
        return _share(self.bram36, self.usable_blocks)

    @property
    def usable_uram(self) -> int:
        return _share(self.uram, self.usable_blocks)

    @property
    def dram_bytes_per_cycle(self) -> float:
        """What long bursts reach in one cycle of the accelerator clock: peak x efficiency / clock."""
        return self.dram.bytes_per_second * self.dram.efficiency / (self.clock_mhz * 1e6)

    @property
    def burst_latency_cycles(self) -> int:
        """`dram.burst_latency_ns` in whole cycles of the accelerator clock, rounded up."""
        return math.ceil(self.dram.burst_latency_ns * self.clock_mhz / 1000 - 1e-9)


def _share(count: int, usable: float) -> int:
    return math.floor(count * usable + 1e-9)


def board_names() -> tuple[str, ...]:
    """The boards that ship with nashc, sorted."""
    return tuple(sorted(path.stem for path in _targets().glob("*.toml")))


def family_names() -> tuple[str, ...]:
    """The families that a board file may name, sorted."""
    return tuple(sorted(path.stem for path in (_targets() / "families").glob("*.toml")))


def load_board(name_or_path: str) -> Board:
    """The board of that name, or of a board file: anything with a '/' or that ends in .toml is a path.

    Raises NashcError that names file, table and key for whatever is missing, unknown, ill-typed or out of range.
    """
    path = _board_path(name_or_path)
    board_file = _File(str(path), _read_toml(path))
    family = _text(board_file.table.pop("family", ""), "family", board_file.name, empty=True)
    layers = [board_file]
    if family:
        family_path = _family_path(family, path)
        layers.append(_File(str(family_path), _read_toml(family_path)))
    sources: dict[str, str] = {}
    given = {"name": path.stem, "family": family, "sources": sources}
    return _section(Board, layers, "", sources, given)


def _targets() -> Path:
    return Path(str(resources.files("nashc.targets")))


def _board_path(name_or_path: str) -> Path:
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return Path(name_or_path)
    if name_or_path not in board_names():
        raise NashcError(f"unknown target '{name_or_path}'", hint=did_you_mean(name_or_path, board_names()))
    return _targets() / f"{name_or_path}.toml"


def _family_path(family: str, board: Path) -> Path:
    if family.endswith(".toml"):
        return board.parent / family
    if family not in family_names():
        raise NashcError(
            f"unknown family '{family}'", where=f"{board} key 'family'", hint=did_you_mean(family, family_names())
        )
    return _targets() / "families" / f"{family}.toml"


def _read_toml(path: Path) -> dict[str, Any]:
    """The top table of a TOML file; any failure is a NashcError that names the file."""
    try:
        if not path.exists():
            raise NashcError("no such board file", where=str(path), hint=f"known targets: {', '.join(board_names())}")
        if not path.is_file():
            raise NashcError("not a file", where=str(path), hint="a board file is one .toml file")
        if path.stat().st_size > _LARGEST_FILE:
            raise NashcError("larger than 256 KiB", where=str(path), hint="a board file is a page or two of TOML")
        return tomllib.loads(path.read_bytes().decode())
    except UnicodeDecodeError as error:
        raise NashcError("not UTF-8 text", where=str(path), hint="a board file is a TOML file") from error
    except RecursionError as error:
        raise NashcError("nested too deeply", where=str(path), hint="a board file is a TOML file") from error
    except ValueError as error:
        raise NashcError(f"not TOML: {error}", where=str(path), hint="docs/boards.md shows the format") from error
    except OSError as error:
        raise NashcError(f"cannot be read: {error.strerror}", where=str(path)) from error


@dataclass(frozen=True, slots=True)
class _File:
    """One table of one file; a section is read from the layers board file, family file in this order."""

    name: str
    table: dict[str, Any]


def _section(cls: type[T], layers: list[_File], table: str, sources: dict[str, str], given: Mapping[str, object]) -> T:
    """A dataclass of the schema from a table; `given` are the fields that the file does not spell."""
    schema = {f.name: f for f in fields(cls) if f.name not in given}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    for layer in layers:
        _refuse_unknown(layer.table, schema, _where(layer.name, table))
    values: dict[str, object] = dict(given)
    for key, spec in schema.items():
        found = [layer for layer in layers if key in layer.table]
        dotted = f"{table}.{key}" if table else key
        if not found:
            if spec.default is MISSING:
                raise _missing(key, layers, table, spec)
        elif spec.metadata:
            where = _where(found[0].name, table)
            values[key], sources[dotted] = _figure(found[0].table[key], key, spec, hints[key], where)
        elif hints[key] is str:
            values[key] = _text(found[0].table[key], key, _where(found[0].name, table))
        else:
            inner = [_File(layer.name, _table(layer.table[key], key, _where(layer.name, table))) for layer in found]
            values[key] = (
                _section(hints[key], inner, dotted, sources, {})
                if is_dataclass(hints[key])
                else _lanes(inner, dotted, sources)
            )
    return cls(**values)


def _lanes(layers: list[_File], table: str, sources: dict[str, str]) -> dict[str, LaneCost]:
    for layer in layers:
        _refuse_unknown(layer.table, LANE_KINDS, _where(layer.name, table))
    lanes: dict[str, LaneCost] = {}
    for kind in LANE_KINDS:
        found = [layer for layer in layers if kind in layer.table]
        if not found:
            raise _missing(kind, layers, table)
        inner = [_File(layer.name, _table(layer.table[kind], kind, _where(layer.name, table))) for layer in found]
        lanes[kind] = _section(LaneCost, inner, f"{table}.{kind}", sources, {"kind": kind})
    return lanes


def _figure(raw: object, key: str, spec: Field[Any], kind: type, where: str) -> tuple[float, str]:
    """Value and source of one {value, unit, source} table, checked against the field that declares it."""
    unit, least, most = spec.metadata["unit"], spec.metadata["least"], spec.metadata["most"]
    where = f"{where} key '{key}'"
    if not isinstance(raw, dict):
        hint = f'write {key} = {{ value = ..., unit = "{unit}", source = "..." }}'
        raise NashcError(f"expected a figure with its unit and source, got {_shown(raw)}", where=where, hint=hint)
    _refuse_unknown(raw, _FIGURE_KEYS, where)
    for part in _FIGURE_KEYS:
        if part not in raw:
            raise NashcError(f"missing '{part}'", where=where, hint=f"a figure has {', '.join(_FIGURE_KEYS)}")
    if raw["unit"] != unit:
        raise NashcError(f"unit is {_shown(raw['unit'])}, expected '{unit}'", where=where)
    value = raw["value"]
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        expected = "a whole number" if kind is int else "a number"
        raise NashcError(f"value {_shown(value)} is not {expected}", where=where)
    if not least <= value <= most:  # also refuses NaN
        low = "more than 0" if least == _LEAST_POSITIVE else f"at least {least}"
        high = "" if most == _MOST else f" and at most {most}"
        raise NashcError(f"value {_shown(value)} is out of range", where=where, hint=f"expected {low}{high}")
    return kind(value), _text(raw["source"], "source", where)


def _text(raw: object, key: str, where: str, *, empty: bool = False) -> str:
    if not isinstance(raw, str) or not (raw.strip() or empty):
        raise NashcError(f"'{key}' is {_shown(raw)}, expected a text", where=where)
    return raw


def _table(raw: object, key: str, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise NashcError(f"'{key}' is {_shown(raw)}, expected a table", where=where)
    return raw


def _shown(raw: object) -> str:
    """A value of a file as an error shows it: escaped, and cut where a hostile file made it huge."""
    try:
        text = repr(raw)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a table thousands deep
        return "a huge value"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _refuse_unknown(table: Mapping[str, Any], known: Mapping[str, Any] | tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise NashcError(f"unknown key {_shown(key)}", where=where, hint=did_you_mean(key, known))


def _missing(key: str, layers: list[_File], table: str, spec: Field[Any] | None = None) -> NashcError:
    files = " or ".join(layer.name for layer in layers)
    hint = "" if len(layers) > 1 else f"or name a family that has it: {', '.join(family_names())}"
    unit = f" (a figure in '{spec.metadata['unit']}')" if spec is not None and spec.metadata else ""
    return NashcError(f"missing key '{key}'{unit}", where=_where(files, table), hint=hint)


def _where(file: str, table: str) -> str:
    return f"{file} [{table}]" if table else file
