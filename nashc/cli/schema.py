"""nashc schema."""

from __future__ import annotations

import click


@click.command("schema")
def schema() -> None:
    """Print the JSON Schema of design.json."""
    from nashc.artifact import json_schema

    click.echo(json_schema(), nl=False)
