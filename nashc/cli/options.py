"""Options that several commands share, as decorators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from nashc.cli.types import Batch, Duration, File, Name, Numbers, Positive, Shape, among
from nashc.core.options import OBJECTIVES
from nashc.errors import NashcError

if TYPE_CHECKING:
    from nashc.data import Preprocess

Command = Callable[..., Any]


def shapes_of(ctx: click.Context, param: click.Parameter, pairs: tuple[tuple[str, tuple[int, ...]], ...]) -> Any:
    """The --shape options as one mapping."""
    shapes = dict(pairs)
    if len(shapes) < len(pairs):
        raise NashcError("--shape names an input twice", hint="give one shape for each input")
    return shapes


def pairs_of(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE options as one mapping."""
    found: dict[str, str] = {}
    for text in given:
        name, _, kind = text.rpartition("=")
        if not name or not kind:
            raise click.BadParameter(f"'{text}' is not {param.metavar}", ctx, param)
        found[name] = kind
    return found


def model_options(command: Command) -> Command:
    """What every command that reads a model takes."""
    for add in (
        click.option("-v", "--verbose", is_flag=True, help="More details; a traceback for internal errors."),
        click.option(
            "--shape",
            "shapes",
            type=Shape(),
            metavar="NAME=D,D,...",
            multiple=True,
            callback=shapes_of,
            help="Shape of an input.",
        ),
        click.argument("model", type=File()),
    ):
        command = add(command)
    return command


def search_options(command: Command) -> Command:
    """The fields of Options, each with its flag."""
    objective = click.option(
        "--objective", type=Name("objective", OBJECTIVES), default="fps", show_default=True, help="Goal."
    )
    return objective(limit_options(command))


def limit_options(command: Command) -> Command:
    """The fields of Options but the objective."""
    count = click.IntRange(min=0)
    for add in (
        click.option(
            "--budget", "budget_seconds", type=Duration(), metavar="30s|2m|1h", help="Time limit of each search."
        ),
        click.option("--clock", "clock_mhz", type=Positive(), metavar="MHZ", help="Clock instead of the board's."),
        click.option("--max-bram", "max_bram36", type=count, help="Use at most this many BRAM36 blocks."),
        click.option("--max-dsp", type=count, help="Use at most this many DSPs."),
        click.option("--max-lut", type=count, help="Use at most this many LUTs."),
        click.option("--max-latency-ms", type=Positive(), help="Refuse designs with a longer latency."),
        click.option(
            "--batch",
            type=Batch(),
            metavar="N|auto",
            default="auto",
            show_default=True,
            help="Images that share weights.",
        ),
    ):
        command = add(command)
    return command


def data_options(command: Command) -> Command:
    """How a data set becomes the model's input: the fields of Preprocess, and labels and split. None: not given."""
    for add in (
        click.option(
            "--split",
            shell_complete=among("train", "val", "test"),
            help="Of a data set with several: train, val or test.  [default: test]",
        ),
        click.option("--labels", metavar="FILE|name:REGEX", help="Labels instead of the data set's own."),
        click.option("--interpolation", help="How --resize samples: nearest, bilinear, bicubic, ..."),
        click.option("--crop", type=Numbers(int), metavar="H,W", help="Centre crop after the resize."),
        click.option("--resize", type=Numbers(int), metavar="N|H,W", help="Shorter side, or height and width."),
        click.option("--layout", shell_complete=among("nchw", "nhwc"), help="nchw or nhwc."),
        click.option("--channels", shell_complete=among("rgb", "bgr", "gray"), help="rgb, bgr or gray."),
        click.option("--scale", type=float, help="Pixels 0..255 are multiplied by it first."),
        click.option("--std", type=Numbers(float), metavar="S,...", help="Divides (pixel * scale - mean)."),
        click.option("--mean", type=Numbers(float), metavar="M,...", help="In units of pixel * scale."),
    ):
        command = add(command)
    return command


def preprocess_from(props: Mapping[str, str], flags: Mapping[str, Any]) -> Preprocess:
    """The preprocessing of a model with these metadata_props; the `data_options` that are given win over them.

    Flags of other names are ignored. With neither metadata nor flags it is the default, which a note on stderr says.
    """
    from nashc.data.choose import chosen_preprocess

    preprocess, origin = chosen_preprocess(props, flags)
    if origin == "default":
        click.echo(f"note: the model stores no preprocessing and no flag says any: {preprocess}", err=True)
    return preprocess
