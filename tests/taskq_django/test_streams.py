"""Test an async Django view that streams the values that a task emits."""

import asyncio
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponseBase
from django.urls import path

from taskq_core import TaskContext
from taskq_core.testing import adrain
from taskq_django import task, taskq
from taskq_django.streams import _streams, stream_response
from tests.redis_server import RedisServer
from tests.taskq_fastapi.streams import stream

pytestmark = pytest.mark.redis


async def show_words(request: HttpRequest, task_id: str) -> HttpResponseBase:
    return stream_response(request, await taskq.aget(task_id))


urlpatterns = [path("words/<str:task_id>", show_words)]


async def test_a_view_streams_what_a_task_emits_until_the_browser_leaves(redis: RedisServer, settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    gate, site = asyncio.Event(), ASGIHandler()

    @task(name="words", retention=60)
    async def words(context: TaskContext) -> None:
        await context.aemit("a")
        await gate.wait()
        await context.aemit("b")

    handle = await words.adelay()
    draining = asyncio.create_task(adrain(taskq))
    async with stream(site, f"/words/{handle.id}") as events:
        first = await events.next()
        open_streams = _streams._open.total()
    left = (_streams._open.total(), taskq.runtime.source._hub._channels.get(asyncio.get_running_loop()))
    gate.set()
    await draining
    async with stream(site, f"/words/{handle.id}", last_event_id=first.id) as events:
        rest = [await events.next() for _ in range(3)]
    async with stream(site, f"/words/{handle.id}", last_event_id="end") as events:
        assert await events.next() is None

    assert (first.kind, first.data["value"], open_streams) == ("item", "a", 1)
    assert left in ((0, None), (0, {}))
    assert [each and (each.kind, each.data.get("value")) for each in rest] == [("item", "b"), ("end", None), None]
    assert events.status == 204
