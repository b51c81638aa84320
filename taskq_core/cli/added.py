"""Commands of other packages: entry points of the group `taskq.commands`."""

from importlib.metadata import EntryPoint, entry_points

import click

from taskq_core.errors import ConfigurationError

GROUP = "taskq.commands"


def added_commands(own: frozenset[str]) -> dict[str, EntryPoint]:
    """Return the commands that installed packages add, by name, without importing them.

    Args:
        own: Names that are taken already.

    Raises:
        ConfigurationError: A name exists twice.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in own:
            raise ConfigurationError(
                f"the command {point.name!r} of {_package(point)} has the name of a command of taskq; "
                "uninstall the package, or use a version with another name"
            )
        if point.name in found:
            raise ConfigurationError(
                f"the command {point.name!r} exists twice, in {_package(found[point.name])} and in {_package(point)}; "
                "uninstall one of them"
            )
        found[point.name] = point
    return found


def load_command(point: EntryPoint, kind: type[click.Command]) -> click.Command:
    """Import a command. If that fails, return a command of `kind` whose help says so and that fails with the reason."""
    try:
        found = point.load()
        if isinstance(found, click.Command):
            return found
        problem = f"{point.value} is not a command of click but of type {type(found).__name__!r}"
    except (ImportError, AttributeError) as error:
        problem = str(error)
    text = f"the command {point.name!r} of {_package(point)} cannot be imported: {problem}"

    @click.command(point.name, cls=kind, help="Cannot be imported.", context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1)
    def broken(words: tuple[str, ...]) -> None:
        raise ConfigurationError(text)

    return broken


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name!r}" if point.dist is not None else point.value
