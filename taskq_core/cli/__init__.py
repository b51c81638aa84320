"""The `taskq` command.

`main` reads the command line and `worker` runs a worker for it. Django's management commands use the same `worker`.
"""

from taskq_core.cli.command import main

__all__ = ["main"]
