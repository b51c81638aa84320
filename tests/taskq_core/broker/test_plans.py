"""Test the interruption of request plans."""

import asyncio
from typing import Any

import pytest

from taskq_core.broker.operations import views
from taskq_core.broker.plans import RequestPlan, arun_plan, run_plan


def plan(ended: list[str]) -> RequestPlan[None]:
    try:
        yield views.ping()
    finally:
        ended.append("ended")


def test_an_interrupt_ends_a_plan_at_once() -> None:
    """Ctrl-C during a request must close the plan, so that the plan releases its resources."""
    ended: list[str] = []
    suspended = plan(ended)

    def interrupt(operation: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_plan(suspended, interrupt)
    assert ended == ["ended"]


async def test_a_cancellation_ends_a_plan_at_once() -> None:
    ended: list[str] = []
    suspended = plan(ended)

    async def cancelled(operation: Any) -> Any:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await arun_plan(suspended, cancelled)
    assert ended == ["ended"]
