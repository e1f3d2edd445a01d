"""The command line: each command parses its options and calls the library.

Exit codes: 0 done, 2 bad input or usage, 3 a defect of nashc, 130 and 143 interrupted, 141 the reader of a pipe left.
The library is imported inside the commands: `--help` is quick, and Ctrl-C is quiet from the first moment.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from nashc.core.options import BASELINES, OBJECTIVES, Options
from nashc.errors import NashcError, did_you_mean

if TYPE_CHECKING:
    from rich.console import RenderableType

    ParamType = click.ParamType[Any]  # click before 8.4 has no type argument
else:
    ParamType = click.ParamType

DONE, BAD_INPUT, DEFECT, INTERRUPTED, PIPE_CLOSED, TERMINATED = 0, 2, 3, 130, 141, 143
SEARCH_EXTRA = ("torch", "safetensors")
"""Packages that training and export need, and the rest does not."""
Command = Callable[..., Any]


class Name(ParamType):
    """One of some known names, with a did-you-mean."""

    name = "name"

    def __init__(self, kind: str, known: Iterable[str]) -> None:
        self.kind, self.known = kind, tuple(known)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "|".join(self.known)

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.known:
            raise NashcError(f"unknown {self.kind} '{value}'", hint=did_you_mean(value, self.known))
        return value


class Shape(ParamType):
    """NAME=1,3,224,224."""

    name = "shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, _, sizes = value.rpartition("=")
        if not name or not re.fullmatch(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", sizes, re.ASCII):
            self.fail(f"'{value}' is no shape; write NAME=1,3,224,224", param, ctx)
        return name, tuple(int(size) for size in sizes.split(","))


class Batch(ParamType):
    """A number of images, or auto."""

    name = "batch"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto":
            return None
        if not re.fullmatch(r"[0-9]{1,3}", value, re.ASCII) or not 1 <= int(value) <= 256:
            self.fail(f"'{value}' is neither 'auto' nor a number from 1 to 256", param, ctx)
        return int(value)


class Positive(ParamType):
    """A positive number."""

    name = "number"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < 1e12:
            self.fail(f"'{value}' is not a positive number", param, ctx)
        return number


class Duration(ParamType):
    """Seconds, from 30s, 2m or 1h."""

    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(s|m|h)?", value, re.ASCII)
        seconds = float(found[1]) * {"m": 60, "h": 3600}.get(found[2] or "", 1) if found else 0
        if seconds <= 0:
            self.fail(f"'{value}' is no duration; write 30s, 2m or 1h", param, ctx)
        return seconds


class File(ParamType):
    """A path that can stand in a JSON file: its name is UTF-8."""

    name = "path"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value or "\0" in value:
            self.fail("an empty path", param, ctx)
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise NashcError("the path is not UTF-8", where=value, hint="rename the file")
        return value


def _shapes(ctx: click.Context, param: click.Parameter, pairs: tuple[tuple[str, tuple[int, ...]], ...]) -> Any:
    """The --shape options as one mapping."""
    shapes = dict(pairs)
    if len(shapes) < len(pairs):
        raise NashcError("--shape names an input twice", hint="give one shape for each input")
    return shapes


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
            callback=_shapes,
            help="Shape of an input.",
        ),
        click.argument("model", type=File()),
    ):
        command = add(command)
    return command


def search_options(command: Command) -> Command:
    """The fields of Options, each with its flag."""
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
        click.option("--objective", type=Name("objective", OBJECTIVES), default="fps", show_default=True, help="Goal."),
    ):
        command = add(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="nashc", message="nashc %(version)s")
def cli() -> None:
    """Deploy multiplication-reduced hybrid CNNs on FPGAs."""


@cli.command("compile")
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
            _show(deliver.human_form(compiled, out, verbose=verbose))


@cli.command("inspect")
@model_options
@click.option("--target", type=File(), help="Also compare with the memory of this board.")
def inspect_command(model: str, shapes: dict[str, tuple[int, ...]], target: str | None, verbose: bool) -> None:
    """Show the layers of MODEL and what would run where, without a search."""
    from nashc.board import load_board
    from nashc.importer import import_model
    from nashc.report.network import network_report

    board = load_board(target) if target is not None else None
    _show(network_report(import_model(model, shapes), board, verbose=verbose))


@cli.command("export")
@click.argument("factory", metavar="MODULE:FACTORY")
@click.option("--weights", type=File(), help="Weights of the module: a safetensors file (nashc.nn.save).")
@click.option(
    "--shape",
    "shapes",
    type=Shape(),
    metavar="NAME=D,D,...",
    multiple=True,
    required=True,
    callback=_shapes,
    help="An input of forward, in its order, with its shape; the first size is the batch.",
)
@click.option("-o", "--out", required=True, type=File(), help="The ONNX file to write.")
@click.option("--portable", is_flag=True, help="Write the operators' functions too: stock onnxruntime runs the file.")
@click.option("--opset", type=int, help="ONNX opset, 18 to 23.")
@click.option("--fixed-batch", is_flag=True, help="Keep the batch of --shape instead of any.")
def export_command(
    factory: str,
    weights: str | None,
    shapes: dict[str, tuple[int, ...]],
    out: str,
    portable: bool,
    opset: int | None,
    fixed_batch: bool,
) -> None:
    """Write a PyTorch module, with its shift and adder layers, as an ONNX model.

    MODULE:FACTORY says where it comes from: package.module:factory or file.py:factory, a callable without arguments
    that returns a torch.nn.Module. This code of yours is imported and run. Needs `pip install nashc[search]`.
    """
    from nashc.export import export_factory

    written = export_factory(
        factory, shapes, out, weights=weights, portable=portable, opset=opset, dynamic_batch=not fixed_batch
    )
    click.echo(written)


@cli.command("run")
@click.argument("model", type=File())
@click.option("--input", "inputs", type=File(), metavar="[NAME=]FILE.npy", multiple=True, help="An input array.")
@click.option("--output", "out", type=File(), metavar="FILE.npz", help="Write the outputs into this file.")
@click.option("--reference", is_flag=True, help="Run the NumPy reference instead of onnxruntime.")
@click.option("--compare", is_flag=True, help="Show the first node where onnxruntime and the reference part.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of onnxruntime instead of one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else.")
@click.option("-v", "--verbose", is_flag=True, help="All nodes that were compared, and operators that stay in float.")
def run_command(
    model: str, inputs: tuple[str, ...], out: str | None, reference: bool, compare: bool, threads: int | None,
    as_json: bool, verbose: bool,
) -> None:  # fmt: skip
    """Run MODEL in onnxruntime with the native kernels of its shift and adder layers."""
    from nashc.report import run as report
    from nashc.runtime.files import run_files

    ran = run_files(model, inputs, reference=reference, against_reference=compare, threads=threads, out=out)
    click.echo(report.kernel_warning(ran), err=True, nl=False)
    if as_json:
        click.echo(report.run_json(ran), nl=False)
    else:
        _show(report.run_report(ran, out, verbose=verbose))


@cli.group("targets", invoke_without_command=True)
@click.pass_context
def targets(ctx: click.Context) -> None:
    """The boards that ship with nashc."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_targets)


@targets.command("list")
def list_targets() -> None:
    """All boards side by side."""
    from nashc.report.boards import boards_table

    _show(boards_table())


@targets.command("show")
@click.argument("name", type=File())
def show_target(name: str) -> None:
    """Every figure of one board (or board file), with its source."""
    from nashc.board import load_board
    from nashc.report.boards import board_report

    _show(board_report(load_board(name)))


@cli.command("schema")
def schema() -> None:
    """Print the JSON Schema of design.json."""
    from nashc.artifact import json_schema

    click.echo(json_schema(), nl=False)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the `nashc` command."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(sys.argv[1:] if args is None else args))


def run(args: Sequence[str]) -> int:
    """Run a command line and return its exit code; every failure is one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    stdout = sys.stdout
    try:
        code = cli.main(list(args), prog_name="nashc", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as stop:
        # click itself answers a closed pipe: it puts a wrapper in the place of stdout and exits
        return _left_pipe() if sys.stdout is not stdout else int(stop.code or 0)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return _left_pipe()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return BAD_INPUT
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "nashc"
        return _fail(f"error: {error.format_message()} See '{where} --help'.")
    except NashcError as error:
        return _fail(f"error: {error}")
    except OSError as error:
        return _fail(f"error: {error.filename or 'input or output'}: {error.strerror or error}")
    except MemoryError:
        return _fail("error: out of memory; use a smaller model or a machine with more memory")
    except RecursionError:
        return _fail("error: the input is nested too deeply")
    except Exception as error:  # a defect of nashc, whatever it is, or an extra that is not installed
        if isinstance(error, ModuleNotFoundError) and error.name in SEARCH_EXTRA:
            return _fail(f"error: {error.name} is not installed; run pip install 'nashc[search]'")
        if {"-v", "--verbose"} & set(args):
            traceback.print_exc()
        return _fail(f"internal error, please report: {type(error).__name__}: {error} (-v shows where)", DEFECT)
    return code if isinstance(code, int) else DONE


def _fail(message: str, code: int = BAD_INPUT) -> int:
    from nashc.report.text import safe

    click.echo(safe(message), err=True)
    return code


def _left_pipe() -> int:
    """Nobody reads stdout any more: let the interpreter flush into nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return PIPE_CLOSED


def _terminate(signum: int, frame: object) -> NoReturn:
    """SIGTERM unwinds like an exception, so that temporary files go."""
    raise SystemExit(TERMINATED)


def _show(content: RenderableType) -> None:
    """Print tables: coloured and as wide as the terminal, plain and 100 columns wide elsewhere."""
    from nashc.report.text import WIDTH, render

    terminal = sys.stdout.isatty()
    width = min(shutil.get_terminal_size((WIDTH, 24)).columns, 160) if terminal else WIDTH
    click.echo(render(content, width, color=terminal and "NO_COLOR" not in os.environ), nl=False)


if __name__ == "__main__":
    main()
