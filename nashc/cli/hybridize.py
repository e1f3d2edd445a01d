"""nashc hybridize."""

from __future__ import annotations

from typing import Any

import click

from nashc.cli.command import Command, given_options, refuse_options
from nashc.cli.options import data_options, limit_options, model_options, pairs_of, preprocess_from
from nashc.cli.show import show
from nashc.cli.types import BOARD, SEED, Duration, File, Percent, among


def _names(ctx: click.Context, param: click.Parameter, given: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in given.split(",")))


@click.command("hybridize", cls=Command, examples={
    "nashc hybridize model.onnx --target fpga-zc706 --calib images/ -o hybrid.onnx":
        "no labels, no training: the fastest types of layers for the board that keep the accuracy",
    "nashc hybridize model.onnx --target fpga-zc706 --calib images/ --data val/ --max-drop 1% --plot curve.png "
    "-o hybrid.onnx": "with a budget of one point of accuracy on labelled images, and the curve as a picture",
    "nashc hybridize model.onnx --target fpga-zc706 --calib images/ --finetune train/ --max-time 1h -o hybrid.onnx":
        "with adder layers, which an hour of training makes possible",
})  # fmt: skip
@model_options
@click.option("--target", required=True, type=BOARD, help="A board (see `nashc targets`) or a board file.")
@click.option("--calib", required=True, type=File(), help="Images to calibrate with; labels are not read.")
@click.option(
    "-o", "--out", required=True, type=File(), help="The ONNX file to write; the curve goes beside it as .json."
)
@click.option("--count", type=click.IntRange(min=1), default=256, show_default=True, help="Images of --calib.")
@click.option("--data", type=File(), help="Other images to measure accuracy on, with labels if they have some.")
@data_options
@click.option("--max-drop", type=Percent(), help="Points of top-1 that may be lost.  [default: 0.5%]")
@click.option(
    "--min-sqnr-db", type=float, help="SQNR that every output keeps, where none scores classes.  [default: 20]"
)
@click.option("--types", callback=_names, default="conv8,conv4,shift1,shift2", show_default=True,
              help="Layer types to choose from: also shift3.")  # fmt: skip
@click.option("--keep", multiple=True, metavar="PATTERN", help="Convolutions that stay 8-bit.")
@click.option(
    "--force", multiple=True, callback=pairs_of, metavar="PATTERN=TYPE", help="The type of these convolutions."
)
@click.option("--calibration", default="mse", show_default=True, shell_complete=among("min-max", "percentile", "mse"),
              help="Range of activations: min-max, percentile or mse.")  # fmt: skip
@click.option("--finetune", type=File(), help="Images to train adder layers on; without it there are none.")
@click.option("--adders", multiple=True, metavar="PATTERN",
              help="Convolutions that become adder layers.  [default: the last half of the work]")  # fmt: skip
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="Of --finetune.")
@click.option("--max-time", type=Duration(), metavar="30s|2m|1h", help="Fewer epochs where they would take longer.")
@click.option("--checkpoint", type=File(), metavar="DIR", help="Where training is kept, to go on if it is interrupted.")
@click.option("--plot", type=File(), metavar="FILE", help="Draw the curve: .html, .png, .svg or .pdf.")
@click.option("--designs", type=File(), metavar="DIR", help="Write the design of each point, and its page, in there.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Which images are drawn.")
@limit_options
@click.option("--json", "as_json", is_flag=True, help="Print the curve as JSON on stdout, and nothing else.")
@click.pass_context
def hybridize_command(
    ctx: click.Context, /, model: str, target: str, calib: str, out: str, shapes: dict[str, tuple[int, ...]],
    plot: str | None, as_json: bool, verbose: bool, **given: Any,
) -> None:  # fmt: skip
    """Turn a trained float CNN into an integer hybrid for a board.

    Layers become 8- or 4-bit convolutions or shift layers, whichever run fastest together while the model keeps its
    accuracy. Adder layers need training: see --finetune.
    """
    from nashc.core.options import Options
    from nashc.hybridize.files import Finetune, Job, curve_json
    from nashc.hybridize.original import metadata_of
    from nashc.hybridize.pipeline import SEARCH_SECONDS, HybridOptions
    from nashc.report import hybridize as report

    asked = given_options(ctx)
    if given["finetune"] is None:
        refuse_options(ctx, asked & {"adders", "epochs", "max_time", "checkpoint"}, "without --finetune")
    if given["data"] is None:
        refuse_options(ctx, asked & {"labels"}, "without --data")
    limits = {
        name: given[name] for name in ("batch", "clock_mhz", "max_bram36", "max_dsp", "max_lut", "max_latency_ms")
    }
    search = Options(budget_seconds=given["budget_seconds"] or SEARCH_SECONDS, **limits)
    options = HybridOptions(
        types=given["types"], keep=given["keep"], force=given["force"], calibration=given["calibration"],
        search=search, max_drop=None if given["max_drop"] is None else float(given["max_drop"]),
        min_sqnr_db=given["min_sqnr_db"],
    )  # fmt: skip
    training = None
    if given["finetune"] is not None:
        minutes = None if given["max_time"] is None else given["max_time"] / 60
        training = Finetune(given["finetune"], given["adders"], given["epochs"], minutes, given["checkpoint"])
    job = Job(
        model, target, calib, out, preprocess_from(metadata_of(model), given), shapes, given["data"], given["labels"],
        given["split"], given["count"], given["seed"], training, given["designs"], options,
    )  # fmt: skip
    made = report.hybridize_shown(job, plot)
    if as_json:
        click.echo(curve_json(made), nl=False)
    else:
        show(report.hybridize_report(made, verbose=verbose))
