"""Call a task whose arguments travel as keys: fetch what they refer to first.

It happens inside the middleware and the time limit of the run, where the function would begin, so that what a failed
fetch raises counts as raised by the task, and an adapter's connections are looked after as those of the function.
"""

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from taskq_core.codec import ArgumentsCodec, Found, References
from taskq_core.errors import Discard, MissingReferenceError
from taskq_core.tasks.options import OnMissing, TaskOptions

logger = logging.getLogger("taskq.worker")


class Fetched(Protocol):
    """What is needed of a task."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def codec(self) -> ArgumentsCodec:
        """Its codec."""
        ...

    @property
    def options(self) -> TaskOptions:
        """Its options."""
        ...


def fetching(task: Fetched, function: Callable[..., Any], references: References) -> Callable[..., Any]:
    """Return the body of a plain function: it is called with decoded arguments."""

    def body(*given: object, **decoded: object) -> object:
        found = references.fetch(task.codec.wanted(decoded))
        return function(*given, **_arguments(task, decoded, found))

    return body


def afetching(
    task: Fetched, function: Callable[..., Any], references: References
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return the body of a coroutine function. As `fetching`."""

    async def body(*given: object, **decoded: object) -> object:
        found = await references.afetch(task.codec.wanted(decoded))
        return await function(*given, **_arguments(task, decoded, found))

    return body


def _arguments(task: Fetched, decoded: dict[str, object], found: Found) -> dict[str, object]:
    try:
        return task.codec.with_found(decoded, found)
    except MissingReferenceError as error:
        if task.options.on_missing is OnMissing.FAIL:
            raise
        logger.info("task %s is discarded: the %s it refers to is gone", task.name, error.label)
        raise Discard from error
