"""nashc inspect."""

from __future__ import annotations

import click

from nashc.cli.command import Command
from nashc.cli.options import model_options
from nashc.cli.show import show
from nashc.cli.types import BOARD


@click.command("inspect", cls=Command, examples={
    "nashc inspect model.onnx": "the layers and the unit of each",
    "nashc inspect model.onnx --shape image=1,3,224,224 --target fpga-kv260 -v":
        "of a model with free sizes, beside the memory of a board, with the nodes that became no layer",
})  # fmt: skip
@model_options
@click.option("--target", type=BOARD, help="Also compare with the memory of this board.")
def inspect_command(model: str, shapes: dict[str, tuple[int, ...]], target: str | None, verbose: bool) -> None:
    """Show the layers of MODEL and what would run where, no search."""
    from nashc.board import load_board
    from nashc.importer import import_model
    from nashc.report.network import network_report

    board = load_board(target) if target is not None else None
    show(network_report(import_model(model, shapes), board, verbose=verbose))
