"""Every board that ships loads, and every way to break a board file ends in an error that names file, table and key."""

from __future__ import annotations

import math
import pickle
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nashc.board import LANE_KINDS, Board, board_names, family_names, load_board
from nashc.errors import NashcError

TARGETS = Path(load_board.__globals__["__file__"]).parent.parent / "targets"
Table = dict[str, Any]
Place = tuple[str, ...]


def whole_board(name: str = "fpga-zc706") -> Table:
    """A board file and its family as one table that names no family."""
    board = tomllib.loads((TARGETS / f"{name}.toml").read_text())
    family = tomllib.loads((TARGETS / "families" / f"{board.pop('family')}.toml").read_text())
    return {**family, **board}


def figures(table: Table, at: Place = ()) -> Iterator[Place]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from [(*at, key)] if "value" in value else figures(value, (*at, key))


def tables(table: Table, at: Place = ()) -> Iterator[Place]:
    yield at
    for key, value in table.items():
        if isinstance(value, dict) and "value" not in value:
            yield from tables(value, (*at, key))


def keys(table: Table) -> list[Place]:
    """Every key but those inside a figure: figures, tables and texts."""
    return [(*at, key) for at in tables(table) for key in inside(table, at)]


def inside(table: Table, at: Place) -> Any:
    for key in at:
        table = table[key]
    return table


def toml(table: Table, at: Place = ()) -> str:
    """The table as TOML text; a figure is an inline table."""
    plain = {k: v for k, v in table.items() if not isinstance(v, dict) or "value" in v or "unit" in v}
    lines = [f"[{'.'.join(at)}]"] if at else []
    lines += [f"{key} = {literal(value)}" for key, value in plain.items()]
    rest = [toml(value, (*at, key)) for key, value in table.items() if key not in plain]
    return "\n".join([*lines, *rest]) + "\n"


def literal(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {literal(item)}" for key, item in value.items()) + " }"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value).lower() if isinstance(value, bool) else str(value)


WHOLE = whole_board()
FIGURES, TABLES, KEYS = list(figures(WHOLE)), list(tables(WHOLE)), keys(WHOLE)
any_figure, any_table, any_key = (st.sampled_from(places) for places in (FIGURES, TABLES, KEYS))
several = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def changed(folder: Path, at: Place, **change: Any) -> Path:
    """A board file whose table `at` has the keys of `change`; a key with value None is left out."""
    table = whole_board()
    target = inside(table, at)
    target.update(change)
    for key in [key for key, value in change.items() if value is None]:
        del target[key]
    path = folder / "mine.toml"
    path.write_text(toml(table))
    return path


def error(path: Path, place: Place) -> str:
    """The message of the refusal; it names the file, the table and the key of `place`."""
    with pytest.raises(NashcError) as caught:
        load_board(str(path))
    message = str(caught.value)
    assert str(path) in message
    assert f"'{place[-1]}'" in message
    assert len(place) == 1 or f"[{'.'.join(place[:-1])}]" in message
    return message


@pytest.mark.parametrize("name", board_names())
def test_boards_that_ship_load(name: str) -> None:
    board = load_board(name)
    assert board.name == name
    assert board.family in family_names()
    assert tuple(board.lanes) == LANE_KINDS
    assert all(lane.kind == kind for kind, lane in board.lanes.items())
    assert all(source.strip() for source in board.sources.values())
    assert board.usable_lut <= 0.8 * board.lut + 1e-6
    assert board.dram_bytes_per_cycle * board.clock_mhz * 1e6 == pytest.approx(
        board.dram.efficiency * board.dram.bytes_per_second
    )
    assert board.burst_latency_cycles == math.ceil(board.dram.burst_latency_ns * board.clock_mhz / 1000)


def test_figures_of_zc706() -> None:
    board = load_board("fpga-zc706")
    assert (board.lut, board.ff, board.dsp, board.bram36, board.uram) == (218_600, 437_200, 900, 545, 0)
    assert (board.usable_lut, board.usable_dsp, board.usable_bram36) == (174_880, 855, 517)
    assert board.dram_bytes_per_cycle == pytest.approx(51.2)
    assert board.sources["lanes.shift.lut_tree"].startswith("synth.py")


def test_every_number_of_a_board_has_a_source() -> None:
    board = load_board("fpga-kv260")

    def numbers(value: object, at: str) -> Iterator[str]:
        for f in fields(value) if is_dataclass(value) and not isinstance(value, type) else ():
            inner = getattr(value, f.name)
            dotted = f"{at}.{f.name}".lstrip(".")
            if isinstance(inner, int | float):
                yield dotted
            elif f.name == "lanes":
                for kind, lane in inner.items():
                    yield from numbers(lane, f"lanes.{kind}")
            else:
                yield from numbers(inner, dotted)

    assert set(numbers(board, "")) == set(board.sources)


def test_a_board_is_a_value() -> None:
    board = load_board("fpga-zcu102")
    copy = pickle.loads(pickle.dumps(board))
    assert copy == board
    assert hash(copy) == hash(board)
    assert replace(board, clock_mhz=150.0) != board


def test_the_packed_lane_is_the_sum_of_its_parts() -> None:
    lanes = load_board("fpga-zc706").lanes
    assert lanes["dsp_packed"].lut_tree == pytest.approx(lanes["dsp_packed"].lut_scalar + lanes["dsp"].lut_tree)
    assert lanes["dsp_packed"].ff_tree == pytest.approx(lanes["dsp_packed"].ff_scalar + lanes["dsp"].ff_tree)


def test_a_whole_board_file_needs_no_family(tmp_path: Path) -> None:
    board = load_board(str(changed(tmp_path, ())))
    assert replace(board, name="fpga-zc706", family="7-series") == load_board("fpga-zc706")


def test_a_board_file_overrides_its_family(tmp_path: Path) -> None:
    text = (TARGETS / "fpga-zc706.toml").read_text()
    text += '[lanes.adder]\nlut_tree = { value = 30, unit = "lut", source = "my own synthesis" }\n'
    (tmp_path / "mine.toml").write_text(text)
    mine, shipped = load_board(str(tmp_path / "mine.toml")), load_board("fpga-zc706")
    assert mine.lanes["adder"] == replace(shipped.lanes["adder"], lut_tree=30.0)
    assert mine.lanes["shift"] == shipped.lanes["shift"]
    assert mine.sources["lanes.adder.lut_tree"] == "my own synthesis"


def test_a_family_may_be_a_file_next_to_the_board(tmp_path: Path) -> None:
    (tmp_path / "common.toml").write_text((TARGETS / "families" / "7-series.toml").read_text())
    text = (TARGETS / "fpga-zc706.toml").read_text().replace('"7-series"', '"common.toml"')
    (tmp_path / "mine.toml").write_text(text)
    assert load_board(str(tmp_path / "mine.toml")).lanes == load_board("fpga-zc706").lanes


def test_an_error_in_the_family_names_the_family_file(tmp_path: Path) -> None:
    text = (TARGETS / "families" / "7-series.toml").read_text().replace("lut_tree", "lut_tre", 1)
    (tmp_path / "common.toml").write_text(text)
    text = (TARGETS / "fpga-zc706.toml").read_text().replace('"7-series"', '"common.toml"')
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(NashcError) as caught:
        load_board(str(tmp_path / "mine.toml"))
    assert (
        str(caught.value) == f"{tmp_path / 'common.toml'} [lanes.dsp]: unknown key 'lut_tre'; did you mean 'lut_tree'?"
    )


@several
@given(place=any_key)
def test_a_missing_key(tmp_path: Path, place: Place) -> None:
    if place == ("dram", "burst_bytes"):  # the one figure with a default
        assert load_board(str(changed(tmp_path, place[:-1], burst_bytes=None))).dram.burst_bytes == 4096
        return
    assert "missing key" in error(changed(tmp_path, place[:-1], **{place[-1]: None}), place)


@several
@given(place=any_key)
def test_an_unknown_key(tmp_path: Path, place: Place) -> None:
    typo = place[-1][:-1] + "_x"
    message = error(changed(tmp_path, place[:-1], **{typo: 1}), (*place[:-1], typo))
    assert f"unknown key '{typo}'" in message
    assert "did you mean" in message or "known:" in message


@several
@given(place=any_figure, part=st.sampled_from(["value", "unit", "source"]))
def test_a_figure_without_a_part(tmp_path: Path, place: Place, part: str) -> None:
    assert f"missing '{part}'" in error(changed(tmp_path, place, **{part: None}), place)


@several
@given(place=any_figure)
def test_a_figure_with_an_unknown_part(tmp_path: Path, place: Place) -> None:
    assert "unknown key 'sources'; did you mean 'source'?" in error(changed(tmp_path, place, sources="me"), place)


@several
@given(place=any_figure, unit=st.sampled_from(["", "GHz", "lu", "LUT", 1, True]))
def test_a_wrong_unit(tmp_path: Path, place: Place, unit: object) -> None:
    expected = inside(WHOLE, place)["unit"]
    assert f"expected '{expected}'" in error(changed(tmp_path, place, unit=unit), place)


@several
@given(
    place=any_figure,
    value=st.one_of(
        st.floats(max_value=-1e-12, allow_nan=False),
        st.integers(max_value=-1),
        st.sampled_from([math.nan, math.inf, -math.inf, 10**400]),
    ),
)
def test_a_value_out_of_range(tmp_path: Path, place: Place, value: float) -> None:
    message = error(changed(tmp_path, place, value=value), place)
    assert "out of range" in message or "not a whole number" in message


@several
@given(place=any_figure, value=st.sampled_from(["900", True, [900], {"n": 900}]))
def test_a_value_of_the_wrong_type(tmp_path: Path, place: Place, value: object) -> None:
    assert "is not a" in error(changed(tmp_path, place, value=value), place)


@several
@given(place=any_figure, source=st.sampled_from(["", "  ", 7, False]))
def test_a_figure_without_a_real_source(tmp_path: Path, place: Place, source: object) -> None:
    assert "expected a text" in error(changed(tmp_path, place, source=source), place)


@several
@given(place=any_key, value=st.sampled_from([900, 0.5, True, [1]]))
def test_a_bare_value_for_a_figure_a_table_or_a_text(tmp_path: Path, place: Place, value: object) -> None:
    assert "expected a" in error(changed(tmp_path, place[:-1], **{place[-1]: value}), place)


@pytest.mark.parametrize("key", ["efficiency", "usable_logic", "usable_blocks"])
def test_a_share_is_at_most_one(tmp_path: Path, key: str) -> None:
    at = ("dram",) if key == "efficiency" else ()
    for value in (0, 1.01):
        message = error(changed(tmp_path, (*at, key), value=value), (*at, key))
        assert f"value {value} is out of range; expected more than 0 and at most 1" in message


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(NashcError) as caught:
        load_board("fpga-zc760")
    assert str(caught.value) == "unknown target 'fpga-zc760'; did you mean 'fpga-zc706'?"


def test_an_unknown_family_gets_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('family = "7-serie"\n')
    with pytest.raises(NashcError) as caught:
        load_board(str(path))
    assert str(caught.value) == f"{path} key 'family': unknown family '7-serie'; did you mean '7-series'?"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"lut = \xff\xfe", "not UTF-8 text"),
        (b"\x7fELF", "not TOML"),
        (b"lut = {", "not TOML"),
        (b"lut = 1\nlut = 2", "not TOML"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"lut = " + b"9" * 10_000, "not TOML"),
        (b"family = 7", "'family' is 7, expected a text"),
        (b"part.a" + b".a" * 2_000 + b" = 1", "'part' is a huge value, expected a text"),
        (b"part = 0x" + b"f" * 10_000, "'part' is a huge value, expected a text"),
        (b'"\\u001b[2J" = 1', "unknown key '\\x1b[2J'"),
        (b"#" * 300_000, "larger than 256 KiB"),
        (b"", "missing key 'part'"),
    ],
)
def test_a_file_that_is_no_board_file(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(NashcError) as caught:
        load_board(str(path))
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)


@pytest.mark.parametrize("make", ["directory", "missing", "nul"])
def test_a_path_that_is_no_file(tmp_path: Path, make: str) -> None:
    path = tmp_path / "mine.toml"
    if make == "directory":
        path.mkdir()
    name = f"{path}\0" if make == "nul" else str(path)
    with pytest.raises(NashcError) as caught:
        load_board(name)
    assert "no such board file" in str(caught.value) or "not a file" in str(caught.value)


def test_board_is_immutable() -> None:
    board = load_board("fpga-zc706")
    with pytest.raises(AttributeError):
        board.lut = 1  # type: ignore[misc]
    assert isinstance(board, Board)
