"""nashc targets."""

from __future__ import annotations

import click

from nashc.cli.show import show
from nashc.cli.types import File


@click.group("targets", invoke_without_command=True)
@click.pass_context
def targets(ctx: click.Context) -> None:
    """The boards that ship with nashc."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_targets)


@targets.command("list")
def list_targets() -> None:
    """All boards side by side."""
    from nashc.report.boards import boards_table

    show(boards_table())


@targets.command("show")
@click.argument("name", type=File())
def show_target(name: str) -> None:
    """Every figure of one board (or board file), with its source."""
    from nashc.board import load_board
    from nashc.report.boards import board_report

    show(board_report(load_board(name)))
