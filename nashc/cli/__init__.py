"""The command line: each command parses its options and calls the library.

The library is imported inside the commands: `--help` is quick, and Ctrl-C is quiet from the first moment.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from nashc.cli.check import check_command
from nashc.cli.command import Root
from nashc.cli.compile import compile_command
from nashc.cli.completion import completion
from nashc.cli.export import export_command
from nashc.cli.hybridize import hybridize_command
from nashc.cli.inspect import inspect_command
from nashc.cli.proxies import proxies
from nashc.cli.report import report_command
from nashc.cli.run_model import run_command
from nashc.cli.schema import schema
from nashc.cli.search import search_command
from nashc.cli.targets import targets
from nashc.cli.train import train_command
from nashc.cli.version import print_version
from nashc.errors import NashcError

DONE, BAD_INPUT, DEFECT, INTERRUPTED, PIPE_CLOSED, TERMINATED = 0, 2, 3, 130, 141, 143
SEARCH_EXTRA = ("torch", "safetensors", "optuna", "sqlalchemy", "threadpoolctl")
"""Packages that training and export need, and the rest does not."""


EXIT_CODES = """\b
Exit codes: 0 done; 1 a gate failed (check); 2 bad input or usage, in one line;
3 a defect of nashc (-v shows where); 130, 143 interrupted; 141 nobody reads stdout."""


@click.group(cls=Root, epilog=EXIT_CODES, context_settings={
    "help_option_names": ["-h", "--help"], "max_content_width": 100,
}, examples={
    "nashc targets": "choose a board",
    "nashc compile model.onnx --target fpga-zc706 -o out": "the fastest design for a model on it",
})  # fmt: skip
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=print_version,
              help="Show the version, its kernels, and what it runs on.")  # fmt: skip
def cli() -> None:
    """Deploy multiplication-reduced hybrid CNNs on FPGAs.

    `nashc COMMAND --help` shows the options of a command, with examples.
    """


cli.add_section("Compile", compile_command, inspect_command, check_command, report_command)
cli.add_section("Models", hybridize_command, export_command, run_command)
cli.add_section("Search and training", search_command, train_command, proxies)
cli.add_section("Boards and files", targets, schema, completion)


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
        if (stopped := _stop_behind(error)) is not None:
            return TERMINATED if isinstance(stopped, SystemExit) else _fail("interrupted", INTERRUPTED)
        if isinstance(error, ModuleNotFoundError) and error.name in SEARCH_EXTRA:
            return _fail(f"error: {error.name} is not installed; run pip install 'nashc[search]'")
        if {"-v", "--verbose"} & set(args):
            traceback.print_exc()
        return _fail(f"internal error, please report: {type(error).__name__}: {error} (-v shows where)", DEFECT)
    return code if isinstance(code, int) else DONE


def _stop_behind(error: BaseException | None) -> BaseException | None:
    """The interrupt, or what SIGTERM raised (`_terminate`), that an error comes of: a library that is just being loaded
    may turn it into an error of its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code == TERMINATED):
            return error
        error = error.__cause__ or error.__context__
    return None


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
