"""Workers and servers for tests in real time, with short intervals."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskq_core import TaskQ
from tests.taskq_core.worker.conftest import SHRUNK, Runner, app, exchanges, queue, read, start_process

__all__ = ["app", "exchanges", "queue", "read", "start", "start_process"]

SHORT: dict[str, Any] = {**SHRUNK, "lease": 10}
"""Settings of a worker on the event loop of the test. Its lease is longer than in worker processes, because the loop
stalls on a busy machine. Tests in which a lease must expire or be extended pass a shorter one."""


@pytest.fixture
async def start(app: TaskQ) -> AsyncIterator[Runner]:
    """Return a function that starts workers of `app`."""
    runner = Runner(app, SHORT)
    yield runner
    await runner.close()
    await app.aclose()
