"""nashc proxies."""

from __future__ import annotations

import click

from nashc.cli.command import Group
from nashc.cli.options import pairs_of
from nashc.cli.show import show
from nashc.cli.types import File, among, items, space_names

NAMES = ("hybrid", "az-nas", "zen", "zico", "naswot", "synflow", "grad-norm", "parameters", "flops")
"""For completion, as the library that registers them needs torch; a test holds them against it."""


@click.group("proxies", cls=Group, examples={
    "nashc proxies list": "what there is to choose from",
    "nashc proxies bench results.jsonl --data cifar16=cifar10/": "how well each one orders networks that were trained",
})  # fmt: skip
def proxies() -> None:
    """List zero-shot proxies, or rank them by trained networks."""


@proxies.command("list", examples={"nashc proxies list": "the names that nashc search --proxy takes"})
def list_command() -> None:
    """All proxies and their sources."""
    from nashc.report.proxies import proxies_report

    show(proxies_report())


@proxies.command("bench", examples={
    "nashc proxies bench results.jsonl --data cifar16=cifar10/": "all proxies on all networks of the file",
    "nashc proxies bench results.jsonl --data cifar16=cifar10/ --space resnet-cifar --proxy hybrid --proxy zen":
        "two proxies on the networks of one space",
})  # fmt: skip
@click.argument("results", type=File())
@click.option("--data", multiple=True, callback=pairs_of, metavar="NAME=DIR", help="Where a data set of RESULTS lies.")
@click.option("--space", "spaces", multiple=True, help="Only networks of this space.",
              shell_complete=lambda ctx, param, typed: items(space_names(), typed))  # fmt: skip
@click.option("--proxy", "names", multiple=True, shell_complete=among(*NAMES), help="Only this proxy.")
def bench_command(results: str, data: dict[str, str], spaces: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Rank proxies by how well they order the trained networks of RESULTS, a file of JSON lines."""
    from nashc.report.proxies import bench_report, bench_shown

    show(bench_report(*bench_shown(results, data, spaces, names)))
