"""Parameter types for click: durations, times, headers, states and queues.

As in Asynq's command, times are RFC 3339, and durations have Go's form (`1h30m`) or are numbers of seconds.
"""

import difflib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import click
from click.shell_completion import CompletionItem

from taskq_core.errors import WireFormatError
from taskq_core.wire import TaskState, parse_duration, timedelta_of_ns


class DurationType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A duration: `90s`, `1h30m`, or a number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration as a `timedelta`."""
        if isinstance(value, timedelta):
            return value
        text = f"{value}s" if str(value).replace(".", "", 1).isdigit() else str(value)
        try:
            duration = timedelta_of_ns(parse_duration(text))
        except WireFormatError:
            self.fail(f"{value!r} is not a duration; use for example 90s, 1h30m or a number of seconds", param, ctx)
        if duration < timedelta(0):
            self.fail(f"{value!r} is negative", param, ctx)
        return duration


class MomentType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A date and time in RFC 3339, with a time zone."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time as an aware `datetime`."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a time; use for example 2030-01-31T12:00:00Z", param, ctx)
        if moment.utcoffset() is None:
            self.fail(f"{value!r} has no time zone; append Z (UTC) or an offset such as +02:00", param, ctx)
        return moment


class HeaderType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A header, `name=value`."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return name and value."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is not a header; use name=value", param, ctx)
        return name, text


class StateType(click.Choice[str]):
    """Accept only the task states that the command supports."""

    def __init__(self, states: Sequence[TaskState]) -> None:
        super().__init__([state.value for state in states])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the state."""
        near = difflib.get_close_matches(str(value), self.choices, n=1)
        if near and value not in list(TaskState):  # on Python 3.11, `in TaskState` fails for a str
            self.fail(f"no state {value!r}; did you mean {near[0]!r}?", param, ctx)
        return TaskState(super().convert(value, param, ctx))


class QueueType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A queue's name, with shell completion."""

    name = "queue"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the queues whose names begin with the typed text. Return none if Redis cannot be reached."""
        session = ctx.find_root().obj
        if session is None or session.given.get("ask_password"):
            return []  # a password prompt would disturb the line that the user is typing
        try:
            queues = session.inspector.queues()
        except Exception:  # the code of --app may raise any exception, and a traceback would disturb the typed line
            return []
        return [CompletionItem(name) for name in queues if name.startswith(incomplete) and name.isprintable()]


DURATION = DurationType()
MOMENT = MomentType()
HEADER = HeaderType()
QUEUE = QueueType()
