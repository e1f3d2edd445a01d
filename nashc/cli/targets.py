"""nashc targets."""

from __future__ import annotations

import click

from nashc.cli.command import Group
from nashc.cli.show import show
from nashc.cli.types import BOARD


@click.group("targets", cls=Group, invoke_without_command=True, examples={
    "nashc targets": "the names that --target takes, with the resources of each",
    "nashc targets show fpga-zcu102": "all figures of one; docs/boards.md says how to write a file for another board",
})  # fmt: skip
@click.pass_context
def targets(ctx: click.Context) -> None:
    """List the boards that ship with nashc, or show one."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_targets)


@targets.command("list", examples={"nashc targets list": "the names that --target takes"})
def list_targets() -> None:
    """All boards side by side."""
    from nashc.report.boards import boards_table

    show(boards_table())


@targets.command("show", examples={
    "nashc targets show fpga-zcu102": "what a lane costs on it, say, and which document says so",
    "nashc targets show my-board.toml": "a file of yours: it must be read without an error before it is a --target",
})  # fmt: skip
@click.argument("name", type=BOARD)
def show_target(name: str) -> None:
    """Every figure of one board (or board file), with its source."""
    from nashc.board import load_board
    from nashc.report.boards import board_report

    show(board_report(load_board(name)))
