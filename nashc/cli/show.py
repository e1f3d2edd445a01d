"""Tables on stdout."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(content: RenderableType) -> None:
    """Print tables: coloured and as wide as the terminal, plain and 100 columns wide elsewhere."""
    from nashc.report.text import WIDTH, render

    terminal = sys.stdout.isatty()
    width = min(shutil.get_terminal_size((WIDTH, 24)).columns, 160) if terminal else WIDTH
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    click.echo(render(content, width, color=terminal and not plain), nl=False)
