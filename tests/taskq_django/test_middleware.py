"""Tasks get healthy database connections and leave none behind."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import DatabaseError, connection, connections, transaction
from django.db.backends.base import base
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.db.models.signals import post_init

from taskq_core import ScheduleHook, TaskContext, testing
from taskq_core.errors import TaskInterrupted
from taskq_django.app import DjangoTaskQ
from taskq_django.bridge import DjangoBridge
from taskq_django.middleware import DatabaseMiddleware, _idle_connections, close_idle_connections, was_interrupted

pytestmark = pytest.mark.django_db(transaction=True)
CONTEXT = TaskContext(id="1", name="shop:greet", queue="default")


@contextmanager
def meeting_at_every_read(parties: int) -> Iterator[threading.Barrier]:
    """Make the thread of each query that reads a group wait until all parties have read their group."""
    barrier = threading.Barrier(parties)

    def meet(**kwargs: Any) -> None:
        barrier.wait(timeout=60)

    post_init.connect(meet, sender=Group)
    try:
        yield barrier
    finally:
        post_init.disconnect(meet, sender=Group)


def in_thread(function: Any) -> Any:
    """Run a function as a worker does, in a separate thread, and return its result or error."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return outcome[0]


def is_usable(wrapper: Any) -> bool:
    """Query the database for its usability, like the backends of databases other than SQLite."""
    try:
        wrapper.connection.execute("SELECT 1")
    except sqlite3.Error:
        return False
    return True


async def test_eight_coroutines_query_the_database_concurrently() -> None:
    """All eight are inside a query at the same time, because the barrier waits for all of them."""
    await Group.objects.acreate(name="staff")
    middleware = DatabaseMiddleware()

    async def read() -> str:
        return (await Group.objects.aget(name="staff")).name

    with meeting_at_every_read(8) as barrier:
        results = await asyncio.gather(*(middleware.aaround(CONTEXT, read) for _ in range(8)))

    assert results == ["staff"] * 8
    assert not barrier.broken


async def test_a_coroutines_connections_are_closed_at_its_end() -> None:
    seen: list[Any] = []

    async def read() -> None:
        await Group.objects.acount()
        seen.append(await sync_to_async(lambda: connections["default"])())
        assert seen[0].connection is not None

    await DatabaseMiddleware().aaround(CONTEXT, read)

    assert seen[0].connection is None


class TestCoroutinesWithConnMaxAge:
    @pytest.fixture(autouse=True)
    def _max_age(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
        yield
        close_idle_connections()

    async def use(self, *, error: BaseException | None = None) -> Any:
        """Run a coroutine that uses the database, and return its connection."""
        seen: list[Any] = []

        async def read() -> None:
            await Group.objects.acount()
            seen.append(await sync_to_async(lambda: connections["default"])())
            if error is not None:
                raise error

        with suppress(type(error) if error is not None else ()):
            await DatabaseMiddleware().aaround(CONTEXT, read)
        return seen[0]

    async def test_the_next_coroutine_has_the_same_connection(self) -> None:
        first = await self.use(error=ValueError())

        assert first.connection is not None
        assert await self.use() is first

    @pytest.fixture
    def age(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        """Connections may be a minute old. The returned function makes all of them older."""
        skipped_s = [0.0]
        monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 60)
        monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + sum(skipped_s)))
        return skipped_s.append

    async def test_a_connection_past_its_age_is_replaced(self, age: Callable[[float], None]) -> None:
        wrapper = await self.use()
        first = wrapper.connection

        age(30)
        await self.use()
        assert wrapper.connection is first

        age(40)
        await self.use()
        assert wrapper.connection not in (first, None)

    async def test_a_connection_that_expires_during_the_coroutine_is_closed(self, age: Callable[[float], None]) -> None:
        seen: list[Any] = []

        async def read_for_long() -> None:
            await Group.objects.acount()
            seen.append(await sync_to_async(lambda: connections["default"])())
            age(70)

        await DatabaseMiddleware().aaround(CONTEXT, read_for_long)

        assert seen[0].connection is None

    async def test_a_coroutine_after_a_cancelled_one_gets_a_new_connection(self) -> None:
        first = await self.use(error=asyncio.CancelledError())

        assert first.connection is None
        assert await self.use() is not first

    async def test_the_end_of_a_worker_closes_the_connection(self) -> None:
        first = await self.use()

        await asyncio.to_thread(DjangoBridge().close_idle)

        assert first.connection is None
        assert await self.use() is not first


@pytest.mark.parametrize("is_coroutine", [False, True])
def test_drain_leaves_no_connection_open(monkeypatch: pytest.MonkeyPatch, is_coroutine: bool) -> None:
    """An open connection would prevent dropping the test database."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
    seen: list[Any] = []

    def count() -> None:
        Group.objects.count()
        seen.append((connections["default"], connections["default"].connection is not None))

    async def acount() -> None:
        await sync_to_async(count)()

    application = DjangoTaskQ()
    used = application.task(name="count")(acount if is_coroutine else count)
    with testing.capture(application):
        used.delay()
        testing.drain(application, queues=["default"])

    ((wrapper, was_open),) = seen
    assert was_open
    assert wrapper.connection is None


async def test_a_cancelled_coroutine_waits_for_its_query_and_closes() -> None:
    """A coroutine that is cancelled during a query ends when its thread has finished with the connection."""
    entered, release = threading.Event(), threading.Event()
    seen: list[Any] = []

    def query() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        seen.append(connections["default"])
        entered.set()
        release.wait(60)

    async def read() -> None:
        await sync_to_async(query)()

    task = asyncio.create_task(DatabaseMiddleware().aaround(CONTEXT, read))  # type: ignore[arg-type]  # a coroutine
    await asyncio.to_thread(entered.wait, 60)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert seen[0].connection is None


async def test_the_thread_of_a_coroutine_ends_with_it_and_holds_up_no_process() -> None:
    async def use() -> list[threading.Thread]:
        return [await sync_to_async(threading.current_thread)() for _ in range(3)]

    (thread,) = set(await DatabaseMiddleware().aaround(CONTEXT, use))  # type: ignore[call-overload]  # the return value of `use`

    assert thread.daemon
    await asyncio.to_thread(thread.join, 60)
    assert not thread.is_alive()


async def test_a_coroutine_without_blocking_code_starts_no_thread() -> None:
    before = set(threading.enumerate())

    async def nothing() -> set[threading.Thread]:
        return set(threading.enumerate())

    assert (
        await DatabaseMiddleware().aaround(CONTEXT, nothing) <= before
    )  # the database may have closed an existing connection


def test_a_plain_task_does_not_see_the_query_log_of_the_previous_task(settings: Any) -> None:
    settings.DEBUG = True

    def run() -> int:
        Group.objects.count()
        return int(DatabaseMiddleware().around(CONTEXT, lambda: len(connection.queries)))  # type: ignore[call-overload]

    assert in_thread(run) == 0


@pytest.mark.parametrize(("max_age", "is_kept"), [(0, False), (None, True)])
def test_a_plain_tasks_connection_lives_as_long_as_conn_max_age(
    monkeypatch: pytest.MonkeyPatch, max_age: int | None, is_kept: bool
) -> None:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", max_age)

    def run() -> bool:
        DatabaseMiddleware().around(CONTEXT, Group.objects.count)
        return connections["default"].connection is not None

    assert in_thread(run) is is_kept


def test_a_thread_that_ends_closes_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread also ends like this after a function that continued after its interruption."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)

    def run() -> tuple[Any, bool]:
        DatabaseMiddleware().around(CONTEXT, Group.objects.count)
        wrapper = connections["default"]
        was_open = wrapper.connection is not None
        DjangoBridge().close_thread()
        return wrapper, was_open

    wrapper, was_open = in_thread(run)

    assert was_open
    assert wrapper.connection is None
    assert wrapper not in _idle_connections


def test_a_connection_that_was_cut_is_replaced_for_the_next_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart of the database one task fails, and the next task of its thread gets a new connection."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
    monkeypatch.setattr(DatabaseWrapper, "is_usable", is_usable)

    def task() -> int:
        found = Group.objects.count()
        connections["default"].connection.close()
        return found + Group.objects.count()

    def run() -> Any:
        with pytest.raises(DatabaseError):
            DatabaseMiddleware().around(CONTEXT, task)
        return DatabaseMiddleware().around(CONTEXT, Group.objects.count)

    assert in_thread(run) == 0


@pytest.mark.parametrize(("is_checked", "outcomes"), [(False, ["DatabaseError", 0]), (True, [0, 0])])
def test_a_broken_connection_fails_one_task_unless_health_checks_are_on(
    monkeypatch: pytest.MonkeyPatch, is_checked: bool, outcomes: list[Any]
) -> None:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
    monkeypatch.setitem(connections.settings["default"], "CONN_HEALTH_CHECKS", is_checked)
    monkeypatch.setattr(DatabaseWrapper, "is_usable", is_usable)

    def run() -> Any:
        DatabaseMiddleware().around(CONTEXT, Group.objects.count)
        connections["default"].connection.close()
        return [outcome() for _ in range(2)]

    def outcome() -> Any:
        try:
            return DatabaseMiddleware().around(CONTEXT, Group.objects.count)
        except DatabaseError:
            return "DatabaseError"

    assert in_thread(run) == outcomes


@pytest.mark.parametrize("is_atomic", [False, True])
def test_connections_of_an_interrupted_task_are_discarded(is_atomic: bool) -> None:
    """Such a connection may be in the middle of an exchange, so the next task gets a new one."""
    used: list[Any] = []

    def task() -> None:
        if is_atomic:
            with transaction.atomic():
                use()
        use()

    def use() -> None:
        Group.objects.count()
        used.append((connections["default"], connections["default"].connection))
        raise TaskInterrupted

    def run() -> Any:
        with pytest.raises(TaskInterrupted):
            DatabaseMiddleware().around(CONTEXT, task)  # type: ignore[arg-type]  # returns nothing
        return connections["default"], Group.objects.count()

    wrapper, count = in_thread(run)

    assert wrapper is not used[0][0]
    assert count == 0
    with pytest.raises(Exception, match="closed"):
        used[0][1].execute("SELECT 1")


def test_the_connection_of_a_plain_error_handler_is_managed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is managed like that of a task, and the function itself is not changed."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    seen: list[Any] = []
    application = DjangoTaskQ()

    @application.on_error
    def note(error: BaseException, context: TaskContext) -> None:
        seen.append((Group.objects.count(), error, context))

    def run() -> bool:
        application.error_handlers[0].guarded(error, CONTEXT)
        return connections["default"].connection is not None

    error = ValueError()
    assert in_thread(run) is False
    assert seen == [(0, error, CONTEXT)]
    assert note.__name__ == "note"
    assert application.error_handlers[0].is_coroutine is False


async def test_a_coroutine_error_handlers_connection_is_closed() -> None:
    seen: list[Any] = []
    application = DjangoTaskQ()

    @application.on_error
    async def note(error: BaseException, context: TaskContext) -> None:
        await Group.objects.acount()
        seen.append(await sync_to_async(lambda: connections["default"])())
        assert seen[0].connection is not None

    assert application.error_handlers[0].is_coroutine is True
    await application.error_handlers[0].guarded(ValueError(), CONTEXT)

    assert seen[0].connection is None


def test_the_connection_of_a_schedule_hook_is_managed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is managed like that of a task, because a scheduler runs longer than a database keeps a connection."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    seen: list[int] = []

    class RecordingHook(ScheduleHook):
        def before_enqueue(self, firing: object) -> None:
            seen.append(Group.objects.count())

    application = DjangoTaskQ()
    application.add_schedule_hook(RecordingHook())
    (hook,) = application.timetable.before_hooks

    def run() -> bool:
        hook(None)
        return connections["default"].connection is not None

    assert in_thread(run) is False
    assert seen == [0]
    assert application.timetable.after_hooks == [], "what it does not override is not called"


def test_the_connection_of_a_provider_is_managed(monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes a function that reads only while its result is iterated."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    application = DjangoTaskQ()
    application.schedule_provider(lambda: (Group.objects.count() for _ in range(2)))  # type: ignore[arg-type,return-value]
    (provider,) = application.timetable.providers

    def run() -> tuple[object, bool]:
        return provider.function(), connections["default"].connection is not None

    assert in_thread(run) == ([0, 0], False)


def test_an_interruption_is_recognized_inside_another_exception() -> None:
    cleaning_up_failed = ValueError()
    cleaning_up_failed.__context__ = TaskInterrupted()

    assert was_interrupted(cleaning_up_failed)
    assert not was_interrupted(ValueError())
