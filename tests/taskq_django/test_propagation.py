"""Test that a run has the language, time zone and request id of its enqueue, and that its log shows them."""

import asyncio
import dataclasses
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from asgiref.sync import sync_to_async
from django.core.checks import run_checks
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from django.utils import timezone, translation

from taskq_core import ConfigurationError, TaskInfo, TaskState
from taskq_core.execution.propagation import LANGUAGE, REQUEST_ID, TIME_ZONE, request_id
from taskq_core.inspector import Inspector
from taskq_core.scheduler import Scheduler
from taskq_core.wire import ENQUEUED
from taskq_django import client, schedule, task, taskq
from taskq_django.propagation import propagated
from taskq_django.request_id import RequestIdMiddleware, get_request_id
from taskq_django.signals import task_enqueued
from taskq_django.testing import adrain, capture, drain, eager
from tests.clock import Clock
from tests.logged import logged_here
from tests.redis_server import RedisServer
from tests.rows import rows

NOWHERE = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01}
logger = logging.getLogger("tests.propagation")
seen: list[tuple[str | None, str, str]] = []


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clear the recorded values, and disable the header with the time of the enqueue, which every task has."""
    seen.clear()
    monkeypatch.setattr(
        "taskq_django.app.propagated", lambda settings: propagated(dataclasses.replace(settings, enqueued_at=False))
    )
    taskq.reload()
    yield
    taskq.reload()


def surroundings() -> tuple[str | None, str, str]:
    return translation.get_language(), timezone.get_current_timezone_name(), get_request_id()


DEFAULT = ("en-us", "America/Chicago", "")  # Django's own defaults


@task(name="carrying:look")
def look() -> None:
    seen.append(surroundings())
    logger.info("looking")


@task(name="carrying:alook")
async def alook() -> None:
    await asyncio.sleep(0)
    seen.append(surroundings())
    seen.append(await sync_to_async(surroundings)())


@task(name="carrying:pass-on")
def pass_on() -> None:
    look.delay()


@contextmanager
def of_a_request(language: str = "de", zone: Any = "Europe/Berlin", known: str = "r-1") -> Iterator[None]:
    token = request_id.set(known)
    with translation.override(language), timezone.override(zone):
        yield
    request_id.reset(token)


class TestInAWorker:
    @pytest.mark.redis
    def test_plain_tasks_run_with_the_callers_language_time_zone_and_request_id(self, redis: RedisServer) -> None:
        """Each run has its own values, and none of them stay in the thread for the next run."""
        with of_a_request():
            look.delay()
        look.delay()
        with of_a_request("fr", "Asia/Tokyo", "r-2"):
            look.delay()
        drain()
        look.delay()
        drain()

        assert sorted(seen[:3], key=repr) == sorted(
            [("de", "Europe/Berlin", "r-1"), DEFAULT, ("fr", "Asia/Tokyo", "r-2")], key=repr
        )
        assert seen[3:] == [DEFAULT]

    @pytest.mark.redis
    async def test_coroutines_run_with_the_callers_language_time_zone_and_request_id(self, redis: RedisServer) -> None:
        """Values are separate for coroutines on one loop, and also set in the blocking code that they call."""
        with of_a_request():
            await alook.adelay()
        await alook.adelay()
        await adrain()

        assert sorted(seen, key=repr) == sorted([("de", "Europe/Berlin", "r-1"), DEFAULT] * 2, key=repr)
        assert surroundings() == DEFAULT

    @pytest.mark.redis
    def test_a_task_passes_the_values_on_to_tasks_it_enqueues(self, redis: RedisServer) -> None:
        with of_a_request():
            pass_on.delay()
        drain()

        assert seen == [("de", "Europe/Berlin", "r-1")]

    @pytest.mark.redis
    def test_each_task_of_a_batch_has_its_callers_language(self, redis: RedisServer) -> None:
        def calls() -> Iterator[Any]:
            for language in ("de", "fr", "de"):
                with translation.override(language):
                    yield look.s()
            yield look.s()

        client.enqueue_many(calls())
        drain()

        assert sorted(str(language) for language, *_ in seen) == ["de", "de", "en-us", "fr"]

    @pytest.mark.redis
    @pytest.mark.django_db(transaction=True)
    def test_values_are_propagated_through_the_outbox(self, redis: RedisServer, settings: Any) -> None:
        settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "outbox"}
        with of_a_request():
            look.delay()
        drain()

        assert seen == [("de", "Europe/Berlin", "r-1")]

    @pytest.mark.redis
    def test_a_failed_run_restores_the_defaults(self, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(look, "body", lambda: seen[0])  # an IndexError
        with of_a_request():
            look.using(max_retry=0).delay()
        assert [run.outcome for run in drain(raises=False)] == ["archived"]
        monkeypatch.undo()
        look.delay()
        drain()

        assert seen == [DEFAULT]

    @pytest.mark.redis
    @rows(
        "headers",
        [
            {},
            {LANGUAGE: "xx", TIME_ZONE: "Mars/Olympus"},
            {LANGUAGE: "../../etc", TIME_ZONE: "../../etc/passwd"},
            {LANGUAGE: "", TIME_ZONE: "", REQUEST_ID: ""},
            {LANGUAGE: "d" * 300, TIME_ZONE: "+99:99", REQUEST_ID: "r" * 300},
            {LANGUAGE: "de\n", TIME_ZONE: "Europe", REQUEST_ID: "a\nb"},
        ],
    )
    def test_invalid_headers_are_ignored(
        self, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
    ) -> None:
        """Another program, such as a Go service, may write any headers."""
        seen.clear()
        _ = taskq.settings  # the propagated values follow the settings
        monkeypatch.setattr(taskq, "propagate", lambda: headers)
        taskq.close()
        handle = look.delay()
        assert handle.refresh().headers == headers
        drain()

        assert seen == [DEFAULT]

    @pytest.mark.redis
    async def test_a_periodic_task_has_no_propagated_headers(self, redis: RedisServer) -> None:
        """Values that are active where its scheduler was started have no effect."""
        loop, stored, handles = asyncio.get_running_loop(), asyncio.Event(), []

        def note(handle: Any, **named: Any) -> None:
            handles.append(handle)
            loop.call_soon_threadsafe(stored.set)

        entry = schedule("@every 1s", look.s(), id="carrying")
        task_enqueued.connect(note)
        try:
            with of_a_request():
                scheduler = Scheduler(taskq)
                running = asyncio.create_task(scheduler.arun())
                await asyncio.wait_for(stored.wait(), 60)
                scheduler.stop()
                await running
        finally:
            task_enqueued.disconnect(note)
            taskq.unschedule(entry.id)

        assert (await handles[0].arefresh()).headers == {}


class TestEnqueueing:
    @pytest.fixture(autouse=True)
    def _nowhere(self, settings: Any) -> None:
        settings.TASKQ = NOWHERE

    def test_an_enqueue_writes_the_documented_headers(self) -> None:
        with capture() as tasks, of_a_request():
            look.delay()

        assert tasks.enqueued[0].headers == {
            "taskq-language": "de",
            "taskq-timezone": "Europe/Berlin",
            "taskq-request-id": "r-1",
        }

    def test_default_values_are_not_written(self) -> None:
        with capture() as tasks:
            look.delay()
            with of_a_request("en-us", "America/Chicago", ""):
                look.delay()
            with translation.override(None):
                look.delay()

        assert [task.headers for task in tasks.enqueued] == [{}] * 3

    def test_a_changed_default_language_takes_effect(self, settings: Any) -> None:
        """Django's handler of changed settings resets its storage of the active language."""
        settings.LANGUAGE_CODE = "fr"

        def enqueue() -> None:
            look.delay()
            with translation.override("de"):
                look.delay()

        with capture() as tasks:
            Context().run(enqueue)

        assert [task.headers for task in tasks.enqueued] == [{}, {LANGUAGE: "de"}]

    @rows(
        ("zone", "written"),
        [
            (ZoneInfo("Asia/Kolkata"), "Asia/Kolkata"),
            (UTC, "UTC"),
        ],
    )
    def test_every_type_of_time_zone_is_written(self, zone: Any, written: str) -> None:
        seen.clear()
        with eager() as tasks:
            with timezone.override(zone):
                look.delay()
                now = timezone.localtime().utcoffset()
            assert tasks.enqueued[0].headers == {"taskq-timezone": written}

        with timezone.override(zone):
            assert timezone.localtime().utcoffset() == now
        assert len(seen) == 1

    @rows(
        ("propagate", "left"),
        [
            (False, set()),
            ({"LANGUAGE": False}, {"taskq-timezone", "taskq-request-id"}),
            ({"TIME_ZONE": False}, {"taskq-language", "taskq-request-id"}),
            ({"REQUEST_ID": False}, {"taskq-language", "taskq-timezone"}),
        ],
    )
    def test_the_setting_disables_each_header(self, settings: Any, propagate: Any, left: set[str]) -> None:
        settings.TASKQ = {**NOWHERE, "PROPAGATE": propagate}
        with capture() as tasks, of_a_request():
            look.delay()

        assert set(tasks.enqueued[0].headers) == left

    def test_the_setting_disables_propagation_in_the_worker(self, settings: Any) -> None:
        with capture() as tasks:
            with of_a_request():
                look.delay()
            settings.TASKQ = {**NOWHERE, "PROPAGATE": False}
            tasks.run()

        assert seen == [DEFAULT]

    @rows(
        ("value", "problem"),
        [
            (True, "PROPAGATE must be a dict of LANGUAGE, TIME_ZONE, ENQUEUED_AT and REQUEST_ID, or False, got True"),
            ({"LANGUAGE": "de"}, "PROPAGATE['LANGUAGE'] must be True or False, got 'de'"),
            (
                {"REQUEST_ID": "guid"},
                "PROPAGATE['REQUEST_ID'] must be True, False or the path of a function, got 'guid'",
            ),
            ({"TIMEZONE": True}, "unknown setting in PROPAGATE 'TIMEZONE'; did you mean 'TIME_ZONE'?"),
        ],
    )
    def test_invalid_propagation_settings_are_refused(self, settings: Any, value: object, problem: str) -> None:
        settings.TASKQ = {"PROPAGATE": value}
        with pytest.raises(ConfigurationError) as caught:
            _ = taskq.settings
        assert str(caught.value) == problem

    def test_explicit_headers_override_propagated_ones(self) -> None:
        """User headers may take seven KiB. Propagated values are added as long as they fit."""
        with capture() as tasks, of_a_request():
            look.using(headers={"own": "x" * (7 * 1024 - 3)}).delay()
            look.using(headers={"own": "x" * (7 * 1024 - 3 - 30)}).delay()

        assert [set(task.headers) for task in tasks.enqueued] == [{"own"}, {"own", "taskq-language"}]


def from_elsewhere() -> uuid.UUID:
    return uuid.UUID(int=7)


def broken() -> str:
    raise ValueError("broken")


class TestTheRequestsId:
    @pytest.fixture(autouse=True)
    def _nowhere(self, settings: Any) -> None:
        settings.TASKQ = NOWHERE

    @rows(
        ("given", "is_kept"),
        [("abc-123", True), ("", False), ("a b", False), ("x" * 129, False), ("a\x00", False), ("<script>", False)],
    )
    def test_the_request_id_comes_from_the_header_or_is_new(self, given: str, is_kept: bool) -> None:
        known: list[Any] = []

        def view(request: HttpRequest) -> HttpResponse:
            known.append((get_request_id(), request.id))  # type: ignore[attr-defined]  # set by the middleware
            look.delay()
            return HttpResponse()

        with capture() as tasks:
            response: Any = RequestIdMiddleware(view)(RequestFactory().get("/", headers={"X-Request-ID": given}))

        assert (response.headers["X-Request-ID"] == given) is is_kept
        assert known == [(response.headers["X-Request-ID"],) * 2]
        assert tasks.enqueued[0].headers == {"taskq-request-id": known[0][0]}
        assert get_request_id() == ""

    async def test_an_async_request_has_a_request_id(self) -> None:
        async def view(request: HttpRequest) -> HttpResponse:
            await look.adelay()
            return HttpResponse(headers={"X-Request-ID": "its own"})

        middleware = RequestIdMiddleware(view)
        with capture() as tasks:
            response = await middleware(AsyncRequestFactory().get("/", headers={"X-Request-ID": "r-9"}))  # type: ignore[misc]

        assert tasks.enqueued[0].headers == {"taskq-request-id": "r-9"}
        assert response.headers["X-Request-ID"] == "its own"
        assert get_request_id() == ""

    def test_the_request_id_can_come_from_another_package(self, settings: Any) -> None:
        settings.TASKQ = {**NOWHERE, "PROPAGATE": {"REQUEST_ID": f"{__name__}.from_elsewhere"}}
        with capture() as tasks:
            look.delay()

        assert tasks.enqueued[0].headers == {"taskq-request-id": str(uuid.UUID(int=7))}

    @pytest.mark.parametrize("path", [f"{__name__}.broken", f"{__name__}.nothing", "nowhere.function"])
    def test_a_failing_request_id_function_is_logged(
        self, settings: Any, caplog: pytest.LogCaptureFixture, path: str
    ) -> None:
        settings.TASKQ = {**NOWHERE, "PROPAGATE": {"REQUEST_ID": path}}
        with capture() as tasks, caplog.at_level(logging.ERROR, logger="taskq.propagation"):
            look.delay()

        assert tasks.enqueued[0].headers == {}
        assert [record.getMessage() for record in logged_here(caplog)] == [
            "PROPAGATE['REQUEST_ID'] failed; the task is enqueued without it"
        ]


@rows(
    ("path", "problem"),
    [
        (f"{__name__}.from_elsewhere", None),
        (f"{__name__}.nothing", "does not define"),
        ("nowhere.function", "No module named 'nowhere'"),
        (f"{__name__}.NOWHERE", "is not a function"),
    ],
)
def test_a_system_check_reports_a_path_without_a_function(settings: Any, path: str, problem: str | None) -> None:
    settings.TASKQ = {"PROPAGATE": {"REQUEST_ID": path}}

    found = [each for each in run_checks() if str(each.id).startswith("taskq.")]

    assert [each.id for each in found] == ([] if problem is None else ["taskq.E032"])
    assert all((problem or "") in each.msg for each in found)


@pytest.mark.usefixtures("redis")
def test_the_time_of_the_enqueue_is_known_after_the_run(
    settings: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq_django.app.propagated", propagated)
    taskq.reload()
    enqueued = datetime.now(UTC)
    handle = look.using(retention=60, run_after=30).delay()

    clock.skip(31)
    drain()

    info = Inspector(taskq).task(handle.queue, handle.id)
    assert isinstance(info, TaskInfo)
    assert info.state is TaskState.COMPLETED
    assert info.enqueued_at is not None
    assert abs(info.enqueued_at - enqueued) < timedelta(seconds=5)

    settings.TASKQ = {**settings.TASKQ, "PROPAGATE": {"ENQUEUED_AT": False}}
    with capture() as tasks:
        look.delay()
    assert ENQUEUED not in tasks.enqueued[0].headers
