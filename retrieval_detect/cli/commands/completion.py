"""``rd completion``: the script that teaches a shell rd's commands, options and index names."""

from __future__ import annotations

import click

from retrieval_detect.cli.params import Command


@click.command(
    "completion",
    cls=Command,
    examples="""
        rd completion bash > ~/.local/share/bash-completion/completions/rd
        rd completion zsh > ~/.zfunc/_rd
        rd completion fish > ~/.config/fish/completions/rd.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(completion(ctx.find_root().command, {}, "rd", "_RD_COMPLETE").source())
