"""nashc --version."""

from __future__ import annotations

import platform
from importlib.metadata import version

import click


def version_text() -> str:
    """The version alone on the first line, then what this install runs on."""
    rows = {
        "kernels": _kernels(),
        "search": _search(),
        "onnxruntime": _onnxruntime(),
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
    }
    return "\n".join([f"nashc {version('nashc')}", *(f"{name:11} {what}" for name, what in rows.items())])


def print_version(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    """The callback of --version."""
    if asked and not ctx.resilient_parsing:
        click.echo(version_text())
        ctx.exit()


def _kernels() -> str:
    """Of the shift and adder operators: the instruction set that they run with, which is the best of the machine's."""
    from nashc.ops.native import available, instruction_sets

    if not available():
        return "none (nashc was built without a C++ compiler): models run through standard operators, slower"
    try:
        best, *others = instruction_sets()
    except OSError:
        return "none (built for another machine): models run through standard operators, slower"
    return f"native, {best}" + (f" (also: {', '.join(others)})" if others else "")


def _search() -> str:
    from nashc.search.compiled import library

    return "compiled" if library() is not None else "not compiled: slower, and it finds poorer designs"


def _onnxruntime() -> str:
    try:
        from onnxruntime import __version__  # type: ignore[import-untyped]
    except ImportError:
        return "not installed"
    return str(__version__)
