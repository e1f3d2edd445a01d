"""nashc compile."""

from __future__ import annotations

from typing import Any

import click

from nashc.cli.command import Command
from nashc.cli.options import model_options, search_options
from nashc.cli.show import show
from nashc.cli.types import BOARD, File, Name
from nashc.core.options import BASELINES, Options


@click.command("compile", cls=Command, examples={
    "nashc compile model.onnx --target fpga-zc706 -o out":
        "the fastest design; out/ gets report.txt, design.json and the annotated model.onnx",
    "nashc compile model.onnx --target my-board.toml --objective energy --budget 2m -o out":
        "least energy on a board of your own, two minutes a search",
    "nashc compile model.onnx --target fpga-zcu102 --baseline conv-only --max-dsp 800 -o out":
        "with at most 800 DSPs, beside the best that convolutions alone reach",
})  # fmt: skip
@model_options
@search_options
@click.option("--target", required=True, type=BOARD, help="A board (see `nashc targets`) or a board file.")
@click.option("-o", "--out", type=File(), help="Directory for design.json, model.onnx, report.html, report.txt.")
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
    """Find the best accelerator and mappings of MODEL on a board.

    With them come the memory plan, a schedule, and a certificate of how far from the best the design can be. -v
    explains each decision.
    """
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
