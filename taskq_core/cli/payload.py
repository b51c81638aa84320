"""A payload on the command line: as text, from a file, or from standard input."""

from collections.abc import Callable
from typing import Any, BinaryIO

import click


def payload_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--payload` and `--payload-file` to a command."""
    of_file = click.option(
        "--payload-file", type=click.File("rb"), metavar="PATH", help="file with the payload; - is standard input"
    )
    return click.option("-l", "--payload", metavar="TEXT", help="payload; JSON for tasks of taskq")(of_file(function))


def payload_of(text: str | None, file: BinaryIO | None) -> bytes:
    """Return the payload that one of the two holds.

    Raises:
        click.UsageError: Neither is given, or both are.
    """
    if (text is None) is (file is None):
        raise click.UsageError("give either --payload or --payload-file", click.get_current_context())
    return file.read() if file is not None else (text or "").encode("utf-8", "surrogateescape")
