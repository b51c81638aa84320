"""Errors of requests to the dashboard. Their text is shown to the user."""

from collections.abc import Iterable

from taskq_core.errors import TaskQError
from taskq_core.settings.language import gettext


class BadRequestError(TaskQError, ValueError):
    """A value of a request is not valid. The text is shown to the user.

    Args:
        text: The text.
        field: The field of the form that has the value, "" if the error is not shown next to a field.
    """

    def __init__(self, text: str, *, field: str = "") -> None:
        super().__init__(text)
        self.field = field


class NotFoundError(TaskQError, LookupError):
    """The object that a URL names does not exist. The text is shown to the user."""


def unknown_choice(name: str, choices: Iterable[object], got: object) -> BadRequestError:
    """Return the error for a value that is not one of the choices."""
    listed = ", ".join(map(str, choices))
    return BadRequestError(
        gettext("%(name)s must be one of %(choices)s, got %(got)r", name=name, choices=listed, got=str(got)[:50])
    )
