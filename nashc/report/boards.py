"""Boards as tables: all of them side by side, or every figure of one with its source."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nashc.board import Board, board_names, load_board
from nashc.hw.peak import peak_lanes
from nashc.hw.resources import MIXED_LANES, usable
from nashc.report.text import cell, safe, table

CONV, CONV4, SHIFT = (MIXED_LANES[lanes].kinds for lanes in ("mac", "mac4", "shift_mac"))
ADDER = ("adder",)
PEAKS: dict[str, list[tuple[str, ...]]] = {
    "conv, each on a DSP": [("dsp",)],
    "conv, DSPs alone": [("dsp", "dsp_packed")],
    "conv": [CONV],
    "conv, 4-bit weights": [CONV4],
    "shift": [SHIFT],
    "adder": [ADDER],
    "conv + shift": [CONV, SHIFT],
    "conv + adder": [CONV, ADDER],
}
"""What lanes a board may be full of, for activations of 8 bits and, unless it says so, weights of as many."""


def boards_table() -> Table:
    """The boards that ship with nashc."""
    rows = table("Targets", "name", "part", ">LUT", ">FF", ">DSP", ">BRAM36", ">URAM", ">DRAM GB/s", ">MHz")
    for board in map(load_board, board_names()):
        rows.add_row(
            cell(board.name),
            cell(board.part),
            f"{board.lut:,}",
            f"{board.ff:,}",
            f"{board.dsp:,}",
            f"{board.bram36:,}",
            f"{board.uram:,}",
            f"{board.dram.bytes_per_second / 1e9:.4g}",
            f"{board.clock_mhz:g}",
        )
    return rows


def board_report(board: Board) -> Group:
    """Every figure of a board with its unit and where it comes from."""
    rows = table("", "figure", ">value", "!unit", "source")
    for dotted, source in board.sources.items():
        value, unit = _figure(board, dotted)
        rows.add_row(cell(dotted), f"{value:,.6g}" if isinstance(value, float) else f"{value:,}", unit, cell(source))
    return Group(Text(_heading(board), style="bold"), rows, peaks_table(board))


def peaks_table(board: Board) -> Table:
    """The most lanes of each unit that the board has room for, and of mixtures, beside 8-bit convolutions."""
    rows = table(
        "Most 8-bit lanes, with nothing beside them",
        "unit", ">conv share", ">lanes", f">G operations/s at {board.clock_mhz:g} MHz", ">conv = 1",
    )  # fmt: skip
    limit = usable(board, None, None, None)
    most = {name: peak_lanes(board, limit, units) for name, units in PEAKS.items()}
    for name, lanes in most.items():
        total = sum(lanes)
        share = f"{lanes[0] / total:.0%}" if len(lanes) > 1 else ""
        rows.add_row(
            name, share, f"{total:,.0f}", f"{total * board.clock_mhz / 1e3:,.0f}", f"{total / sum(most['conv']):.2f}"
        )
    return rows


def _heading(board: Board) -> str:
    return f"{safe(board.name)}: {safe(board.part)}" + (f", family {safe(board.family)}" if board.family else "")


def _figure(board: Board, dotted: str) -> tuple[Any, str]:
    """Value and unit of a figure by its dotted name, such as lanes.shift.lut_tree."""
    value: Any = board
    unit = ""
    for key in dotted.split("."):
        if is_dataclass(value):
            unit = next(f.metadata.get("unit", "") for f in fields(value) if f.name == key)
            value = getattr(value, key)
        else:
            value = value[key]
    return value, unit
