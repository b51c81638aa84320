"""Test that `drain` stops at its timeout, which is in real time."""

import asyncio

import pytest

from taskq_core import TaskQ, TaskState
from taskq_core.testing import drain
from tests.taskq_core.testing.test_draining import app

__all__ = ["app"]  # the fixture


def test_a_task_that_takes_too_long_is_returned(app: TaskQ) -> None:
    @app.task(name="hang")
    async def hang() -> None:
        await asyncio.Event().wait()

    handle = hang.delay()

    with pytest.raises(TimeoutError):
        drain(app, timeout=0.2)

    assert handle.refresh().state is TaskState.PENDING
