"""The `taskq` command.

`main` reads the command line, and `running` runs a worker for it; Django's management commands use both.
"""

from collections.abc import Sequence
from typing import TextIO

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, *, stdout: TextIO | None = None) -> int:
    """Run the `taskq` command and return its exit status. See `taskq_core.cli.command.main`."""
    from taskq_core.cli import command  # imported here, because `manage.py runworker` does not need the module

    return command.main(arguments, stdout=stdout)
