"""nashc schema."""

from __future__ import annotations

import click

from nashc.cli.command import Command


@click.command("schema", cls=Command, examples={"nashc schema > design.schema.json": "for a validator or an editor"})
def schema() -> None:
    """Print the JSON Schema of design.json."""
    from nashc.artifact import json_schema

    click.echo(json_schema(), nl=False)
