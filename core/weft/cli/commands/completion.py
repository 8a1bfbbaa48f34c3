"""`weft completion`: what makes Tab know commands, agents and skills."""

from __future__ import annotations

import click

from weft.cli.options import examples


@click.command(
    epilog=examples(
        "weft completion bash > ~/.local/share/bash-completion/completions/weft",
        "weft completion zsh  > ~/.zfunc/_weft",
        "weft completion fish > ~/.config/fish/completions/weft.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from weft.cli.app import root

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root, {}, "weft", "_WEFT_COMPLETE").source())
