"""Request plans that are interrupted."""

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
    """Such as Ctrl-C while Redis is asked: a plan that stays suspended would keep what it holds."""
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
