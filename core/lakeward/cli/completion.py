"""`lakeward completion`: tab completion for the shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

EPILOG = """\b
Examples:
  eval "$(lakeward completion bash)"                      this shell
  lakeward completion zsh > ~/.zfunc/_lakeward            every zsh
  lakeward completion fish > ~/.config/fish/completions/lakeward.fish"""


@click.command(short_help="Tab completion for the shell.", epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that makes SHELL complete lakeward's commands and options."""
    from lakeward.cli import lakeward

    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(completion(lakeward, {}, "lakeward", "_LAKEWARD_COMPLETE").source())
