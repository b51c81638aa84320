"""Errors of requests to the dashboard. Their text is shown to the user."""

from collections.abc import Iterable

from taskq_core.errors import TaskQError
from taskq_core.settings.language import gettext


class BadRequestError(TaskQError, ValueError):
    """A request says something that is not usable; the text says what, and is shown."""


class NotFoundError(TaskQError, LookupError):
    """What an address means is not there; the text says what, and is shown."""


def unknown_choice(name: str, choices: Iterable[object], got: object) -> BadRequestError:
    """Return the error of a request that names none of the choices there are."""
    listed = ", ".join(map(str, choices))
    return BadRequestError(
        gettext("%(name)s must be one of %(choices)s, got %(got)r", name=name, choices=listed, got=str(got)[:50])
    )
