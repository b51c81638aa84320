"""Check the queues, states, groups and ids that a caller names. Errors suggest the nearest name."""

import difflib
from collections.abc import Iterable

from taskq_core.broker.operations import views
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import ConfigurationError, QueueNotFoundError
from taskq_core.wire import Keys, QueueKeys, TaskState

_NAMED = 5
"""Maximum number of names that the hint in an error message lists."""


def known_queue(keys: Keys, name: str) -> RequestPlan[QueueKeys]:
    """Return the keys of a queue.

    Raises:
        QueueNotFoundError: No queue has this name.
    """
    check_text("queue", name)
    if not (yield from ask(views.has_queue(keys.queues, name))):
        raise QueueNotFoundError(name, hint(name, (yield from ask(views.list_queues(keys.queues)))))
    return keys.queue(name)


def known_state(state: TaskState) -> TaskState:
    """Return a state that is given as a `TaskState` or as its value.

    Raises:
        ConfigurationError: The value is not a state.
    """
    try:
        return TaskState(state)
    except ValueError:
        raise ConfigurationError(f"no state {state!r}; {hint(str(state), TaskState, most=len(TaskState))}") from None


def check_group(state: TaskState, group: str | None) -> None:
    """Check that a group is given if the state is aggregating, and that no group is given for other states."""
    if (state is TaskState.AGGREGATING) != (group is not None):
        if group is None:
            raise ConfigurationError(f"state {str(state)!r} needs the name of its group")
        raise ConfigurationError(f"state {str(state)!r} has no groups, got group={group!r}")
    if group is not None:
        check_text("group", group)


def check_text(what: str, value: object) -> None:
    """Check that a value is a string that can be sent to Redis."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{what} must be a string, got {type(value).__name__}")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{what} must be text, got a lone surrogate at position {error.start}") from None


def hint(name: str, existing: Iterable[str], *, most: int = _NAMED) -> str:
    """Return the end of an error message that suggests the nearest name, or lists the existing names."""
    names = [str(each) for each in existing]
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    if not names:
        return "there are none yet"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"there are {', '.join(map(repr, names[:most]))}{more}"
