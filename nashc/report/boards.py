"""Boards as tables: all of them side by side, or every figure of one with its source."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nashc.board import Board, board_names, load_board
from nashc.report.text import cell, safe, table


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
    heading = f"{safe(board.name)}: {safe(board.part)}" + (f", family {safe(board.family)}" if board.family else "")
    return Group(Text(heading, style="bold"), rows)


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
