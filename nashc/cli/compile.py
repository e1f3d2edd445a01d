"""nashc compile."""

from __future__ import annotations

from typing import Any

import click

from nashc.cli.options import model_options, search_options
from nashc.cli.show import show
from nashc.cli.types import File, Name
from nashc.core.options import BASELINES, Options


@click.command("compile")
@model_options
@search_options
@click.option("--target", required=True, type=File(), help="A board (see `nashc targets`) or a board file.")
@click.option("-o", "--out", type=File(), help="Directory for design.json, model.onnx and report.txt.")
@click.option("--baseline", "baselines", type=Name("baseline", BASELINES), multiple=True, help="Also search this one.")
@click.option("--strict", is_flag=True, help="Refuse models with nodes that no unit of the accelerator runs.")
@click.option("--json", "as_json", is_flag=True, help="Print design.json on stdout, and nothing else.")
@click.option("--explain-space", "explain", is_flag=True, help="Print the declared accelerator space and stop.")
def compile_command(
    model: str,
    target: str,
    shapes: dict[str, tuple[int, ...]],
    out: str | None,
    baselines: tuple[str, ...],
    strict: bool,
    as_json: bool,
    explain: bool,
    verbose: bool,
    **limits: Any,
) -> None:
    """Find the best accelerator, memory plan and mappings of MODEL on a board."""
    from nashc import artifact, compiler
    from nashc.report import deliver

    options = Options(**limits)
    if explain:
        click.echo(compiler.explain_space(model, target, shapes, options))
    elif out is None and not as_json:
        raise click.UsageError("Missing option '-o' / '--out' (or --json, to print the design).")
    else:
        click.echo(deliver.uncompiled_warning(), err=True, nl=False)
        compiled = deliver.compile_to(out, model, target, shapes, options, baselines, strict=strict)
        if as_json:
            click.echo(deliver.host_warning(compiled), err=True, nl=False)
            click.echo(artifact.dump(compiled), nl=False)
        else:
            show(deliver.human_form(compiled, out, verbose=verbose))
