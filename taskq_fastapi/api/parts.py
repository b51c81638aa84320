"""What the routes are made of: the queue application, who may do what, and the parameters they share."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Path, Query
from starlette.convertors import Convertor, register_url_convertor

from taskq_core.inspector import PAGE_SIZE_MAX, AsyncInspector
from taskq_core.views import AsyncDashboard
from taskq_fastapi.api.access import Access

BULK_S = 1.0
"""Seconds after which a piece of work on many tasks ends and tells where to go on."""
AGE_MAX = 10**9

QueuePath = Annotated[str, Path(description="Name of the queue.", examples=["default"])]
TaskIdPath = Annotated[str, Path(description="Id of the task.", examples=["01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"])]
QueueQuery = Annotated[str, Query(description="Name of the queue.", examples=["default"])]
AnyQueueQuery = Annotated[str | None, Query(description="Their queue; any, if it is left out.", examples=["default"])]
GroupQuery = Annotated[
    str | None, Query(description="Their group, with the state aggregating and a queue.", examples=["user:7"])
]
PageQuery = Annotated[int, Query(ge=1, le=10**9, description="Number of the page, from 1.")]
PageSizeQuery = Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX, description="Most items on a page.")]
DaysQuery = Annotated[int, Query(ge=1, le=90, description="Days back, today included.")]
CursorQuery = Annotated[str | None, Query(description="`next` of the answer before, to go on.")]
OlderQuery = Annotated[
    int | None, Query(ge=0, le=AGE_MAX, description="Their time is longer ago than so many seconds.", examples=[3600])
]
NewerQuery = Annotated[
    int | None,
    Query(ge=0, le=AGE_MAX, description="Their time is not longer ago than so many seconds.", examples=[86400]),
]


class AnyText(Convertor[str]):
    """A part of a path that is any text, with slashes and line breaks: ids are what producers make them."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        """Return it as it is."""
        return value

    def to_string(self, value: str) -> str:
        """Return it as it is."""
        return value


register_url_convertor("taskq_any", AnyText())


@dataclass(frozen=True, slots=True)
class Parts:
    """What routes work with.

    Attributes:
        inspector: Looks at the store and changes it.
        dashboard: What an operator looks at.
        access: Who may do what.
    """

    inspector: AsyncInspector
    dashboard: AsyncDashboard
    access: Access


def time_left(seconds: float = BULK_S) -> Callable[[], bool]:
    """Return what says whether there is time left."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end
