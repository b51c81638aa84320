"""Workers and servers, as the tests of the worker have them, with short times: here time is real."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskq_core import TaskQ
from tests.taskq_core.worker.conftest import SHRUNK, Runner, app, exchanges, queue, read, start_process

__all__ = ["app", "exchanges", "queue", "read", "start", "start_process"]

SHORT: dict[str, Any] = {**SHRUNK, "lease": 10}
"""Times of a worker on the test's loop, which stalls when the machine is busy. So its lease is longer than others'.
Where one is to end, or to be extended for want of time, a test says so."""


@pytest.fixture
async def start(app: TaskQ) -> AsyncIterator[Runner]:
    """Start workers of `app`."""
    runner = Runner(app, SHORT)
    yield runner
    await runner.close()
    await app.aclose()
