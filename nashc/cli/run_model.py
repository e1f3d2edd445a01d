"""nashc run; the module is not called run, which is a function of nashc.cli."""

from __future__ import annotations

import click

from nashc.cli.command import Command
from nashc.cli.show import show
from nashc.cli.types import File
from nashc.core.options import MOST_THREADS


@click.command("run", cls=Command, examples={
    "nashc run model.onnx --input x.npy --output y.npz": "one input, all outputs",
    "nashc run model.onnx --input image=x.npy --compare -v": "each node beside the NumPy reference, on equal inputs",
})  # fmt: skip
@click.argument("model", type=File())
@click.option("--input", "inputs", type=File(), metavar="[NAME=]FILE.npy", multiple=True, help="An input array.")
@click.option("--output", "out", type=File(), metavar="FILE.npz", help="Write the outputs into this file.")
@click.option("--reference", is_flag=True, help="Run the NumPy reference instead of onnxruntime.")
@click.option("--compare", is_flag=True, help="Show the first node where onnxruntime and the reference part.")
@click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="Threads of onnxruntime instead of one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else.")
@click.option("-v", "--verbose", is_flag=True, help="All nodes that were compared, and operators that stay in float.")
def run_command(
    model: str, inputs: tuple[str, ...], out: str | None, reference: bool, compare: bool, threads: int | None,
    as_json: bool, verbose: bool,
) -> None:  # fmt: skip
    """Run MODEL in onnxruntime with native shift and adder kernels."""
    from nashc.report import run as report
    from nashc.runtime.files import run_files

    ran = run_files(model, inputs, reference=reference, against_reference=compare, threads=threads, out=out)
    click.echo(report.kernel_warning(ran), err=True, nl=False)
    if as_json:
        click.echo(report.run_json(ran), nl=False)
    else:
        show(report.run_report(ran, out, verbose=verbose))
