"""nashc check."""

from __future__ import annotations

from typing import Any

import click

from nashc.cli.command import Command
from nashc.cli.options import data_options, shapes_of
from nashc.cli.show import show
from nashc.cli.types import BOARD, Duration, File, Percent, Positive, Shape
from nashc.core.options import MOST_THREADS

GATE_FAILED = 1
COUNT = click.IntRange(min=0)


@click.command("check", cls=Command, examples={
    "nashc check hybrid.onnx --against model.onnx --data val/ --max-drop 0.5%":
        "fails where it gets more than half a point fewer of the images right than the model before",
    "nashc check model.onnx --target fpga-zc706 --min-fps 500 --max-dsp 800":
        "compiles and fails where that is too slow or takes too much",
    "nashc check --config nashc-check.toml --junit gates.xml": "the gates of a file; a report for the build server",
})  # fmt: skip
@click.argument("model", type=File(), required=False)
@click.option("--config", type=File(), help="Take what is not on the command line from this nashc-check.toml.")
@click.option("--against", type=File(), help="The model to compare with, usually the one before quantisation.")
@click.option("--data", type=File(), help="Images: a folder, .npy, .npz, CIFAR or idx files.")
@data_options
@click.option("--count", type=click.IntRange(min=1), help="A random subset of so many images.")
@click.option("--seed", type=COUNT, help="Of the subset.  [default: 0]")
@click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="Threads of onnxruntime instead of one a core.")
@click.option("--target", type=BOARD, help="Compile for this board (see `nashc targets`) or board file.")
@click.option("--design", type=File(), help="Take this design.json of MODEL instead of compiling.")
@click.option("--budget", type=Duration(), metavar="30s|2m|1h", help="Time limit of the search.")
@click.option("--shape", type=Shape(), metavar="NAME=D,D,...", multiple=True, callback=shapes_of,
              help="Shape of an input, for the compile.")  # fmt: skip
@click.option("--min-accuracy", type=Percent(), help="Gate: top-1.")
@click.option("--min-top5", type=Percent(), help="Gate: top-5.")
@click.option("--max-drop", type=Percent(), help="Gate: points of top-1 below --against.")
@click.option("--min-agreement", type=Percent(), help="Gate: images with the same best class as --against.")
@click.option("--min-sqnr-db", type=float, help="Gate: SQNR of each output against --against.")
@click.option("--min-fps", type=Positive(), help="Gate: images a second.")
@click.option("--max-latency-ms", type=Positive(), help="Gate: latency of one batch.")
@click.option("--max-lut", type=COUNT, help="Gate: LUTs.")
@click.option("--max-dsp", type=COUNT, help="Gate: DSPs.")
@click.option("--max-bram", type=COUNT, help="Gate: BRAM36 blocks.")
@click.option("--junit", type=File(), metavar="FILE.xml", help="Write the gates as JUnit XML.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else.")
@click.pass_context
def check_command(ctx: click.Context, /, config: str | None, as_json: bool, **given: Any) -> None:
    """Gate MODEL on accuracy and on speed, for a build server.

    Exit code 0 if all gates pass, 1 if one fails, 2 for errors.

    Without MODEL and --config, nashc-check.toml of the current directory says what to check; its keys are these options
    without dashes in front.
    """
    from nashc.check import requested
    from nashc.report import check as report

    checked = report.check_shown(requested(config, given))
    if as_json:
        click.echo(report.check_json(checked), nl=False)
    else:
        show(report.check_report(checked))
    if not checked.passed:
        ctx.exit(GATE_FAILED)
