"""Warnings of taskq: probable mistakes that are not errors.

Each class has a `code`, as errors have. `taskq explain CODE` shows the causes of a warning and their fixes.
"""

import asyncio
import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar

from taskq_core.errors import code_of

_ROOT = Path(__file__).parents[1]
_OURS = tuple(str(_ROOT / package) for package in ("taskq_core", "taskq_django", "taskq_fastapi", "taskq_sqlalchemy"))


class TaskQWarning(UserWarning):
    """Base class of all warnings of taskq."""

    code: ClassVar[str] = "warning"
    """Stable name of the kind of warning, such as `payload-size` for `PayloadSizeWarning`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in vars(cls):
            cls.code = code_of(cls.__name__)


class PayloadSizeWarning(TaskQWarning):
    """A payload is large. Redis keeps it in memory until the task is deleted."""


class ArgumentTypeWarning(TaskQWarning):
    """The task will get an argument with another type than in the call, because its parameter has no annotation."""


class BlockingEnqueueWarning(TaskQWarning, RuntimeWarning):
    """A blocking call in a coroutine, such as `delay` or `handle.result`, stops the event loop until it returns."""


class TaskQDeprecationWarning(TaskQWarning, DeprecationWarning):
    """A name, an option or a setting is deprecated. The text names its replacement and the release that removes it."""

    code = "deprecation"


class EnqueueInTransactionWarning(TaskQWarning):
    """A task was sent before the surrounding database transaction committed, so its worker may not see the new rows."""


class QueueUnservedWarning(TaskQWarning):
    """A task was enqueued to a queue that the setting `QUEUES` does not name."""


class WorkflowUnservedWarning(TaskQWarning):
    """A workflow of only remote tasks was enqueued.

    It does not advance, because no taskq worker serves its home queue.
    """


def warn_caller(message: str, category: type[TaskQWarning]) -> None:
    """Issue a warning that points to the nearest calling line outside taskq."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


_warned_of_blocking = False


def warn_if_blocking(call: str, instead: str, *, until: str = "for a round trip to Redis") -> None:
    """Warn if a blocking call is made on a running event loop. Warn once per process."""
    global _warned_of_blocking
    if asyncio._get_running_loop() is not None and not _warned_of_blocking:
        _warned_of_blocking = True
        warn_caller(
            f"{call} blocks the running event loop {until}; await {instead} instead",
            BlockingEnqueueWarning,
        )


def warn_deprecated(what: str, *, removed_in: str, instead: str) -> None:
    """Warn that the calling line outside taskq uses a deprecated name.

    Args:
        what: The deprecated name, as the beginning of a sentence: "`Client.put`".
        removed_in: The release that removes the name, such as "0.3". A test fails if that release still has the name.
        instead: The replacement, as the rest of "use ...".
    """
    warn_caller(f"{what} is removed in taskq {removed_in}; use {instead}", TaskQDeprecationWarning)
