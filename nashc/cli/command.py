"""What commands have beyond click's: examples and sections in their help, and options that depend on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

from nashc.errors import NashcError


class Command(click.Command):
    """A command whose help ends with examples: real command lines, each with a word on what it does."""

    def __init__(self, *args: Any, examples: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples" if len(self.examples) > 1 else "Example"):
            for line, what in self.examples.items():  # never wrapped: what is shown can be pasted
                formatter.write(f"  # {what}\n  {line}\n")
        super().format_epilog(ctx, formatter)


class Group(Command, click.Group):
    """A group of such commands."""

    command_class = Command


class Root(Group):
    """The command line: its commands in sections, a heading and their order for each."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.sections: dict[str, Sequence[click.Command]] = {}

    def add_section(self, heading: str, *commands: click.Command) -> None:
        self.sections[heading] = commands
        for command in commands:
            self.add_command(command)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [str(command.name) for commands in self.sections.values() for command in commands]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for heading, commands in self.sections.items():
            with formatter.section(heading):
                limit = formatter.width - formatter.current_indent - width - 2
                formatter.write_dl([(f"{c.name:{width}}", c.get_short_help_str(limit)) for c in commands])


def given_options(ctx: click.Context) -> set[str]:
    """Names of the parameters that are on the command line."""
    names = {str(param.name) for param in ctx.command.params}
    return {name for name in names if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}


def refuse_options(ctx: click.Context, names: set[str], where: str) -> None:
    """Raises NashcError for options that would change nothing: what the user asked for would not be what ran."""
    unused = [max(param.opts, key=len) for param in ctx.command.params if param.name in names]
    if unused:
        raise NashcError(f"no effect {where}: {', '.join(unused)}", where=ctx.command_path, hint="leave it out")
