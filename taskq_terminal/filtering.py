"""Parse the filter of the tasks screen."""

import difflib
import shlex
from datetime import timedelta
from typing import Any

import click

from taskq_core import TaskState
from taskq_core.cli.plugin import DURATION
from taskq_core.errors import ConfigurationError
from taskq_core.inspector import TaskFilter

HINT = "part of id, type, queue, payload or error, and any of type:mail error:timeout payload:42 older:1h newer:30m"
_WORDS = {"type": "name_part", "error": "error", "payload": "payload", "older": "older_than", "newer": "newer_than"}
_AGES = ("older", "newer")


def wanted_of(text: str, *, queue: str | None, state: TaskState | None, in_payload: bool) -> TaskFilter:
    """Parse a filter: words of the form name:value set fields of the filter, and all other words are its text.

    Args:
        text: The filter. Quotes enclose values with spaces.
        queue: The queue.
        state: The state.
        in_payload: Whether payloads may be searched.

    Raises:
        ConfigurationError: The filter is invalid.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigurationError(f"the filter cannot be read: {error}") from None
    fields: dict[str, Any] = {}
    rest = []
    for word in words:
        name, colon, value = word.partition(":")
        if name not in _WORDS or not colon:
            near = difflib.get_close_matches(name, _WORDS, n=1, cutoff=0.8) if colon else []
            if near:
                raise ConfigurationError(f"a filter has no {name!r}; did you mean {near[0]!r}?")
            rest.append(word)
            continue
        if not value:
            raise ConfigurationError(f"{name} needs a value, as in {name}:{'1h' if name in _AGES else 'text'}")
        if name == "payload" and not in_payload:
            raise ConfigurationError("hidden payloads cannot be searched")
        fields[_WORDS[name]] = duration_of(value) if name in _AGES else value
    return TaskFilter(queue=queue, state=state, text=" ".join(rest), in_payload=in_payload, **fields)


def duration_of(text: str) -> timedelta:
    """Parse a duration.

    Raises:
        ConfigurationError: The text is not a duration.
    """
    try:
        return DURATION.convert(text.strip(), None, None)
    except click.BadParameter as error:
        raise ConfigurationError(error.message) from None
