"""`taskq completion`: print the completion script of a shell."""

import click
from click.shell_completion import get_completion_class

from taskq_core.cli.base import COMPLETE_VARIABLE, Command
from taskq_core.cli.session import Session


@click.command(
    "completion",
    cls=Command,
    epilog="""\
examples:
  bash   eval "$(%(prog)s bash)"         in ~/.bashrc
  zsh    eval "$(%(prog)s zsh)"          in ~/.zshrc
  fish   %(prog)s fish | source          in ~/.config/fish/config.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the shell completion script."""
    kind = get_completion_class(shell)
    assert kind is not None  # the argument allows only shells that click supports
    root = context.find_root()
    script = kind(root.command, {}, root.info_name or "taskq", COMPLETE_VARIABLE).source()
    (context.find_object(Session) or Session()).output.stdout.write(script + "\n")
