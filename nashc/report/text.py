"""What all tables share: names from model files as safe text, a table style, rendering to a string."""

from __future__ import annotations

from io import StringIO

from rich import box
from rich.console import Console, RenderableType
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


def lines_cell(*lines: str) -> Text:
    """A table cell with one line for each text, whatever it holds."""
    return Text("\n".join(map(safe, lines)))


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
    console.print(content)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def kib(bits: float) -> str:
    return f"{bits / 8192:,.1f}"


def percent(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole > 0 else "-"


def figure(value: float) -> str:
    """A number to four digits, whole thousands grouped."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
