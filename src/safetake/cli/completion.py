"""`safetake completion`: the script that makes a shell complete our words."""

from __future__ import annotations

import click

from safetake.cli.common import Command


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print the completion script for a shell.

    \b
    bash: eval "$(safetake completion bash)"      (in ~/.bashrc)
    zsh:  eval "$(safetake completion zsh)"       (in ~/.zshrc)
    fish: safetake completion fish | source       (in config.fish)
    """
    from click.shell_completion import get_completion_class

    from safetake.cli import output
    from safetake.cli.app import root

    completion = get_completion_class(shell)
    assert completion is not None
    output.line(completion(root, {}, "safetake", "_SAFETAKE_COMPLETE").source())
    return 0
