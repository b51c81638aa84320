"""The console script `taskq`: find the queue application that was named and hand it to the subcommand."""

import argparse
import importlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from taskq_core.app import TaskQ
from taskq_core.cli import worker
from taskq_core.errors import ConfigurationError, TaskQError

_LOG_LEVELS = (logging.ERROR, logging.INFO, logging.INFO, logging.DEBUG)


def main(arguments: Sequence[str] | None = None, *, stdout: TextIO | None = None) -> int:
    """Run the `taskq` command and return its exit status.

    Args:
        arguments: What stands after `taskq` on the command line; None takes it from there.
        stdout: Where to write; None is standard output.

    Returns:
        0 for success, 1 for a problem that was told on standard error. A wrong command line exits with 2.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=_LOG_LEVELS[options.verbosity], format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return worker.run(load_app(options.app), vars(options), stdout=stdout or sys.stdout)
    except TaskQError as error:
        sys.stderr.write(f"taskq: {error}\n")
        return 1


def load_app(target: str) -> TaskQ:
    """Import a queue application.

    Args:
        target: `module:attribute`, for example `shop.queue:taskq`. The attribute may have dots. Modules are looked for
            in the working directory first.

    Raises:
        ConfigurationError: There is no such module or attribute, or it is no `TaskQ`.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigurationError(f"{target!r} does not name a queue application; give module:attribute")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there and imports something that is not
        raise ConfigurationError(f"there is no module {error.name!r} in {folder} or on Python's path") from None
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ConfigurationError(f"{module_name!r} has no attribute {attribute!r}") from None
    if not isinstance(found, TaskQ):
        raise ConfigurationError(f"{target!r} is no TaskQ but of type {type(found).__name__!r}")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="taskq", description="A task queue on Redis.")
    parser.add_argument("--version", action="version", version=importlib.metadata.version("taskq-asynq"))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "worker",
        help="run tasks",
        description=worker.DESCRIPTION,
        epilog=worker.epilog("shop.queue:taskq "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("app", metavar="module:attribute", help="the TaskQ object, for example shop.queue:taskq")
    worker.add_arguments(run)
    run.add_argument(
        "-v",
        "--verbosity",
        type=int,
        choices=(0, 1, 2, 3),
        default=1,
        help="0 says nothing, 1 what is run (default), 2 also one line per task, 3 also the log's details",
    )
    return parser
