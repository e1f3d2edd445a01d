"""nashc inspect."""

from __future__ import annotations

import click

from nashc.cli.options import model_options
from nashc.cli.show import show
from nashc.cli.types import File


@click.command("inspect")
@model_options
@click.option("--target", type=File(), help="Also compare with the memory of this board.")
def inspect_command(model: str, shapes: dict[str, tuple[int, ...]], target: str | None, verbose: bool) -> None:
    """Show the layers of MODEL and what would run where, without a search."""
    from nashc.board import load_board
    from nashc.importer import import_model
    from nashc.report.network import network_report

    board = load_board(target) if target is not None else None
    show(network_report(import_model(model, shapes), board, verbose=verbose))
