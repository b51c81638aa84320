"""The interface through which the steps of a run read and write their record."""

from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from taskq_core.broker.operations.steps import LoadedSteps

R = TypeVar("R")


class StepStore(Protocol):
    """Reads and writes the record of the steps of one run. Workers implement it.

    Its coroutines run on the worker's event loop. They raise `TaskInterrupted` if the run must end, and `StepError` if
    the record is lost.
    """

    is_closed: bool
    """True once the function has ended. Code that it started may still run."""

    async def load(self) -> LoadedSteps:
        """Return Redis's time and the record."""
        ...

    async def store(self, field: str, value: bytes, *, missed: str = "") -> bytes:
        """Store a field, and return its value: an earlier one if the field is already stored.

        `missed` is the name of a signal for which the task stops waiting.
        """
        ...

    async def start_children(self, name: str, workflow_id: str, calls: Sequence[Any]) -> None:
        """Enqueue sub-tasks as a workflow with this id, unless it exists."""
        ...

    async def read_children(self, workflow_id: str) -> bytes | None:
        """Return the results of sub-tasks as a JSON list, None if some run again. Raise the error of a failed one."""
        ...

    async def emit(self, step: str, value: bytes, attempt: int) -> None:
        """Buffer a value that an attempt emitted. Wait while the buffer is full."""
        ...

    def span(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager that records the span of a step."""
        ...

    def wait_for(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine of this store, or of `Steps`, from blocking code."""
        ...

    async def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine of this store, or of `Steps`, from a coroutine on any event loop."""
        ...
