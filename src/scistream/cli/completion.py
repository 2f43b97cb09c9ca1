"""`s2uc completion`: what a shell reads so that it completes commands and options."""

from __future__ import annotations

from typing import Final

import click

from scistream.cli.calling import examples
from scistream.cli.common import tell

__all__ = ["complete"]

_PROGRAM: Final = "s2uc"
_SHELLS: Final = ("bash", "zsh", "fish")


@click.command(
    "completion",
    epilog=examples("s2uc completion bash"),
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def complete(context: click.Context, shell: str) -> None:
    """Print the completion for a shell: bash, zsh or fish.

    In ~/.bashrc: eval "$(s2uc completion bash)"; the other shells alike.
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    if made is None:
        raise AssertionError(shell)
    root = context.find_root()
    tell(made(root.command, {}, _PROGRAM, f"_{_PROGRAM.upper()}_COMPLETE").source())
