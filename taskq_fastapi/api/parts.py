"""Clients, access rules and parameters that the route modules share."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Path, Query
from pydantic import BeforeValidator, Field
from starlette.convertors import Convertor, register_url_convertor

from taskq_core import TaskQ
from taskq_core.inspector import PAGE_SIZE_MAX, AsyncInspector
from taskq_core.settings import CONCURRENCY_MAX
from taskq_core.views import AsyncDashboard
from taskq_fastapi.api.access import Access

BULK_S = 1.0
"""Seconds after which a request on many tasks ends and returns a cursor."""
AGE_MAX = 10**9

QueuePath = Annotated[str, Path(description="Name of the queue.", examples=["default"])]
TaskIdPath = Annotated[str, Path(description="Id of the task.", examples=["01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"])]
QueueQuery = Annotated[str, Query(description="Name of the queue.", examples=["default"])]
AnyQueueQuery = Annotated[str | None, Query(description="Name of the queue. Default: all.", examples=["default"])]
GroupQuery = Annotated[
    str | None, Query(description="Name of the group. Requires the state aggregating and a queue.", examples=["user:7"])
]
PageQuery = Annotated[int, Query(ge=1, le=10**9, description="Number of the page, from 1.")]
PageSizeQuery = Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX, description="Maximum number of items on a page.")]
DaysQuery = Annotated[int, Query(ge=1, le=90, description="Number of days, today included.")]
CursorQuery = Annotated[str | None, Query(description="`next` of the previous answer, to continue.")]


def whole(value: object) -> object:
    """Check that a value is a whole number, before pydantic converts it: accept 5 and 5.0, but neither true nor "5"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a whole number")
    return value


Age = Annotated[int, Field(ge=0, le=AGE_MAX), BeforeValidator(whole)]
"""An age in seconds in the body of a request. `Field` comes first, because only then the schema contains the bounds."""
Concurrency = Annotated[int, Field(ge=1, le=CONCURRENCY_MAX), BeforeValidator(whole)]
"""A concurrency in the body of a request."""


class AnyText(Convertor[str]):
    """A part of a path that may be any text, even with slashes and line breaks, because producers choose ids."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        """Return the text unchanged."""
        return value

    def to_string(self, value: str) -> str:
        """Return the text unchanged."""
        return value


register_url_convertor("taskq_any", AnyText())


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects that the route functions use.

    Attributes:
        taskq: The queue application.
        inspector: Reads and changes queues and tasks.
        dashboard: Reads the records that dashboards show.
        access: The access rules.
    """

    taskq: TaskQ
    inspector: AsyncInspector
    dashboard: AsyncDashboard
    access: Access


def time_left(seconds: float = BULK_S) -> Callable[[], bool]:
    """Return a function that returns False once this many seconds have passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end
