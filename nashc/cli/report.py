"""nashc report."""

from __future__ import annotations

import click

from nashc.cli.command import Command
from nashc.cli.show import show
from nashc.cli.types import Duration, File


@click.command("report", cls=Command, examples={
    "nashc report out/design.json": "write out/report.html, which opens from disk",
    "nashc report out --what-helps --budget 20s": "which resource, if there were a tenth more of it, buys most",
    "nashc report before/design.json --diff after/design.json --markdown": "two designs, for a pull request",
})  # fmt: skip
@click.argument("path", type=File())
@click.option("-o", "--out", type=File(), help="The page.  [default: report.html, diff.html or pareto.html beside it]")
@click.option("--diff", type=File(), metavar="OTHER", help="Show another design beside this one.")
@click.option("--check", "checked", type=File(), help="What `nashc check --json` printed: shows the accuracy.")
@click.option("--what-helps", "helps", is_flag=True, help="Search again with a tenth more of each resource.")
@click.option("--budget", "seconds", type=Duration(), metavar="30s|2m|1h", help="Of each of these searches.")
@click.option("--markdown", is_flag=True, help="Print Markdown for a pull request instead.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the layers as CSV instead.")
@click.option("-v", "--verbose", is_flag=True, help="A traceback for internal errors.")
def report_command(markdown: bool, as_csv: bool, verbose: bool, **asked: object) -> None:
    """Show a design or a search as a page for the browser.

    PATH is a design.json, a pareto.json, the .json beside a hybrid, or a folder that has one of them.
    """
    from nashc.report.written import Ask, report_csv, report_markdown, report_page

    if markdown and as_csv:
        raise click.UsageError("--markdown and --csv do not go together.")
    ask = Ask(**asked)  # type: ignore[arg-type]
    if markdown or as_csv:
        click.echo((report_markdown if markdown else report_csv)(ask), nl=False)
    else:
        show(report_page(ask))
