"""Run the `taskq` command in the process of a test."""

import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from click.testing import CliRunner, Result

from taskq_core.cli import main


def invoke(words: Sequence[str], **options: Any) -> Result:
    """Run a command line with other streams, like `CliRunner.invoke`."""
    console: Any = SimpleNamespace(main=lambda args, prog_name: sys.exit(main(args)))
    return CliRunner().invoke(console, words, prog_name="taskq", **options)
