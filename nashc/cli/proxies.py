"""nashc proxies."""

from __future__ import annotations

import click

from nashc.cli.options import pairs_of
from nashc.cli.show import show
from nashc.cli.types import File


@click.group("proxies")
def proxies() -> None:
    """Zero-shot proxies: list them, or rank them by trained networks."""


@proxies.command("list")
def list_command() -> None:
    """All proxies and their sources."""
    from nashc.report.proxies import proxies_report

    show(proxies_report())


@proxies.command("bench")
@click.argument("results", type=File())
@click.option("--data", multiple=True, callback=pairs_of, metavar="NAME=DIR", help="Where a data set of RESULTS lies.")
@click.option("--space", "spaces", multiple=True, help="Only networks of this space.")
@click.option("--proxy", "names", multiple=True, help="Only this proxy.")
def bench_command(results: str, data: dict[str, str], spaces: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Rank proxies by how well they order the trained networks of RESULTS, a file of JSON lines."""
    from nashc.report.proxies import bench_report, bench_shown

    show(bench_report(*bench_shown(results, data, spaces, names)))
