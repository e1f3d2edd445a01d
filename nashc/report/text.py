"""What all tables share: names from model files as safe text, a table style, rendering to a string."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import StringIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

WIDTH = 100


def safe(text: object) -> str:
    """A name from a file for a terminal: control, bidirectional and invisible characters become \\uXXXX."""
    return "".join(c if c.isprintable() else _escaped(c) for c in str(text))


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def cell(text: object, style: str = "") -> Text:
    """A table cell that is data: no markup is read in it."""
    return Text(safe(text), style=style)


def table(title: str, *columns: str) -> Table:
    """A plain table; a column whose heading starts with '>' is right-aligned, '!' keeps it on one line."""
    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", padding=(0, 1, 0, 0))
    made.min_width = min(len(title), WIDTH)
    for column in columns:
        heading = column.lstrip(">!")
        flags = column[: len(column) - len(heading)]
        made.add_column(
            heading,
            justify="right" if ">" in flags else "left",
            no_wrap="!" in flags or ">" in flags,
            overflow="fold",
        )
    return made


@dataclass(frozen=True, slots=True)
class Record:
    """A row of `records`: a name, the operator behind it, and its columns; `loud` ones are red."""

    name: str
    op: str
    columns: tuple[str, ...]
    loud: bool = False


def records(title: str, headings: tuple[str, ...], rows: Sequence[Record]) -> Text:
    """Two lines a row: number, name and operator; below them the columns. Room for names of any length.

    A column whose heading starts with '>' is right-aligned.
    """
    cells = [tuple(h.lstrip(">") for h in headings), *(tuple(map(safe, row.columns)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [heading.startswith(">") for heading in headings]

    def line(row: tuple[str, ...]) -> str:
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        return "  " + " ".join(parts).rstrip()

    number = len(str(len(rows)))
    text = Text()
    text.append(f"{title}\n\n{'#':>{number}} layer (operator)\n{line(cells[0])}\n", style="bold")
    for i, (row, shown) in enumerate(zip(rows, cells[1:], strict=True)):
        style = "bold red" if row.loud else ""
        text.append(f"{i:>{number}} {safe(row.name)} ({safe(row.op)})\n{line(shown)}\n", style=style)
    return text


def wrote(names: str) -> Text:
    """Where files are, on one line however long: a path that is broken in two cannot be copied."""
    return Text(f"wrote {safe(names)}", no_wrap=True, overflow="ignore")


def render(content: RenderableType, width: int = WIDTH, *, color: bool = False) -> str:
    """The content as text, at least as wide as its tables need; without colour it has no escape codes."""
    buffer = StringIO()
    console = Console(
        file=buffer,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    console.print(Group(content), crop=False)  # in a group, a line that must not wrap does not
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def kib(bits: float) -> str:
    return f"{bits / 8192:,.1f}"


def percent(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole > 0 else "-"


def exact_percent(share: Fraction) -> str:
    """Two decimals, and more where a value would look like another one: 89.996% is not 90%."""
    number = float(share * 100)
    return f"{number:.2f}%" if abs(number - round(number, 2)) < 1e-9 else f"{number:.4f}%"


def figure(value: float) -> str:
    """A number to four digits, whole thousands grouped."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
