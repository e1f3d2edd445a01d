"""nashc completion."""

from __future__ import annotations

import click

from nashc.cli.command import Command
from nashc.cli.types import Name

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_NASHC_COMPLETE"
"""What click looks for when the script asks for completions."""


@click.command("completion", cls=Command, examples={
    'eval "$(nashc completion bash)"': "in this bash; as a line of ~/.bashrc, in every one",
    'eval "$(nashc completion zsh)"': "in this zsh; as a line of ~/.zshrc after compinit, in every one",
    "nashc completion fish > ~/.config/fish/completions/nashc.fish": "in every fish",
})  # fmt: skip
@click.argument("shell", type=Name("shell", SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    It completes commands, options, files and names: boards, baselines, objectives, spaces, proxies, strategies.
    """
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None, "click knows all SHELLS"
    click.echo(complete(ctx.find_root().command, {}, "nashc", VARIABLE).source())
