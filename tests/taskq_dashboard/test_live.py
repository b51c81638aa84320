"""Test the live updates of dashboard pages: the events of their streams, and the requests to Redis."""

import asyncio
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.errors import BrokerUnavailableError
from taskq_core.inspector import AsyncInspector, Inspector
from taskq_core.views.event_streams import QUIET_S
from taskq_core.wire import TaskState
from taskq_dashboard import site
from taskq_dashboard.site import STREAM_S
from tests.clock import Clock
from tests.rows import rows
from tests.taskq_dashboard.dashboards import dashboard_of, looking
from tests.taskq_fastapi.streams import stream

pytestmark = pytest.mark.redis
OFTEN = f"taskq_settings=theme=system&interval=2&rows=20; taskq_secret={'s' * 43}"


SELDOM = OFTEN.replace("interval=2", "interval=20")


def open_stream(app: Any, path: str = "/", *, user: str = "olga:operator", cookie: str = OFTEN, **options: Any) -> Any:
    return stream(app, path, accept="text/event-stream", x_user=user, cookie=cookie, **options)


@pytest.fixture
def filled(taskq: TaskQ) -> TaskQ:
    taskq.remote("note").delay(word="w")
    return taskq


async def test_a_stream_sends_the_content_of_the_page_and_its_changes(filled: TaskQ, clock: Clock) -> None:
    async with open_stream(dashboard_of(filled), clock=clock) as page:
        first = await page.next()
        Inspector(filled).pause("default")
        second = await page.next()
        while "status-paused" not in second.data:
            second = await page.next()

    assert page.answer_headers["content-type"].startswith("text/event-stream")
    assert page.answer_headers["cache-control"] == "no-store"
    assert (first.kind, second.kind) == ("page", "page")
    assert "status-no-worker" in first.data
    assert "<html" not in first.data
    assert first.id != second.id


async def test_a_reconnecting_client_receives_only_new_events(filled: TaskQ, clock: Clock) -> None:
    app = dashboard_of(filled)
    Inspector(filled).delete_all("default", TaskState.PENDING)  # its latency grows, so each reading would be a change
    async with open_stream(app) as page:
        first = await page.next()
    async with open_stream(app, last_event_id=first.id, clock=clock) as again:
        await filled.remote("note").using(run_after=60).adelay(word="w")
        second = await again.next()

    assert second.id != first.id
    assert "1 scheduled" in second.data


async def test_a_redis_outage_is_reported_once_and_the_page_recovers(
    filled: TaskQ, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(*args: Any, **options: Any) -> Any:
        raise BrokerUnavailableError("cannot reach unix:///run/redis.sock")

    async with open_stream(dashboard_of(filled), clock=clock) as page:
        assert (await page.next()).kind == "page"
        with monkeypatch.context() as away:
            away.setattr(AsyncRunner, "run", unreachable)
            event = await page.next()
            assert event.kind == "trouble"
            assert "/run/redis.sock" not in event.data
            await clock.advance(10)
        assert (await page.next()).kind == "page"

    assert page.text.count("event: trouble") == 1


async def test_a_deleted_queue_ends_the_stream(filled: TaskQ, clock: Clock) -> None:
    async with open_stream(dashboard_of(filled), "/queue?name=default", clock=clock) as page:
        assert (await page.next()).kind == "page"
        await AsyncInspector(filled).remove_queue("default", force=True)
        event = await page.next()
        while event.kind == "page":
            event = await page.next()

        assert event.kind == "gone"
        assert "default" in event.data
        assert await page.next() is None


@pytest.mark.parametrize(("path", "user", "status"), [("/", "", 403), ("/nowhere", "olga:operator", 404)])
async def test_a_stream_requires_the_permission_of_its_page(filled: TaskQ, path: str, user: str, status: int) -> None:
    async with open_stream(dashboard_of(filled), path, user=user) as page:
        assert await page.next() is None

    assert page.status == status


async def test_a_page_without_live_updates_has_no_stream(filled: TaskQ) -> None:
    async with looking(dashboard_of(filled), accept="text/event-stream") as web:
        assert (await web.get("/settings")).status_code == 204
        web.cookies.set("taskq_settings", "interval=0")
        assert (await web.get("/")).status_code == 204


async def test_the_streams_of_one_user_leave_room_for_other_users(
    filled: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "PERSON_STREAMS_MAX", 2)
    app = dashboard_of(filled)

    async with open_stream(app) as first, open_stream(app) as second:
        for page in (first, second):
            await page.next()
        async with open_stream(app) as third:
            assert await third.next() is None
        async with open_stream(app, user="vera:viewer") as other:
            assert (await other.next()).kind == "page"
    async with open_stream(app) as again:
        assert (await again.next()).kind == "page"

    assert (third.status, third.answer_headers["retry-after"]) == (503, "10")


async def test_a_stream_ends_when_its_client_disconnects(filled: TaskQ) -> None:
    app = dashboard_of(filled)
    before = len(asyncio.all_tasks())
    async with open_stream(app, cookie=SELDOM) as page:  # no reading is due when the client disconnects
        await page.next()

    assert len(asyncio.all_tasks()) == before


@rows("path", ["/redis", "/metrics"])
async def test_a_long_refresh_interval_does_not_delay_the_end_of_a_stream(
    filled: TaskQ, clock: Clock, path: str
) -> None:
    """A stopping server waits for the end of its streams."""
    async with open_stream(dashboard_of(filled), path, clock=clock) as page:
        assert (await page.next()).kind == "page"
        await clock.advance(QUIET_S + 1)
        assert page.text.endswith(": keep-alive\n\n")
        assert page.text.count("event: page") == 1
        await clock.advance(STREAM_S - QUIET_S)

        assert page.is_over
