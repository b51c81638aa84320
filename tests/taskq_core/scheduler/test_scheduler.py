"""Test a running scheduler: the tasks it enqueues, its published entries, its hooks, and failures."""

import asyncio
import contextlib
import logging
import threading
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskq_core import PeriodicTask, ScheduleHook, TaskQ
from taskq_core.errors import ConfigurationError, TaskInterrupted
from taskq_core.scheduler import Scheduler, SchedulerConfig, SchedulerListener
from taskq_core.scheduler.ticker import PUT_OFF_S, tick_task_id
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.middleware import Middleware
from taskq_core.tasks.periodic import Firing, FiringOutcome
from taskq_core.wire import SchedulerEntry
from tests.clock import Clock
from tests.logged import logged_here
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.scheduler.conftest import HOUR, PATIENCE_S, Fired, Looker, Runner, until

ENQUEUED = FiringOutcome.ENQUEUED


class TestFiring:
    async def test_a_firing_is_enqueued_in_its_second(
        self, app: TaskQ, start: Runner, looker: Looker, clock: Clock
    ) -> None:
        """The firing is a plain task, with an id that every scheduler would give it."""

        @app.periodic("* * * * * *", id="beat")
        @app.task(name="beat")
        def beat() -> None: ...

        fired = Fired()
        await start(listener=fired)
        await clock.advance(3)
        await until(lambda: len(fired.all) >= 3)

        ticks = [at_s for _, at_s, _ in fired.all]
        assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
        for message, (_, at_s, outcome) in zip(looker.pending(), fired.all, strict=False):
            assert (message.type, message.payload, outcome) == ("beat", b"{}", ENQUEUED)
            assert message.id == tick_task_id("beat", "beat", at_s)
            assert uuid.UUID(message.id).version == 5
            since = looker.raw.hget(looker.keys.queue("default").task(message.id), "pending_since")
            assert int(since) // 1_000_000_000 >= at_s, "never before its second"

    async def test_arguments_and_options_of_the_entry_are_used(self, app: TaskQ, start: Runner, looker: Looker) -> None:
        @app.task(name="report", max_retry=9, timeout=60)
        def report(kind: str, days: int = 7) -> None: ...

        entry = app.schedule("@every 1h", report.s("sales"), queue="low", max_retry=2, retention=60)
        looker.set_mark(entry, looker.now_s() - HOUR)
        await start()
        (message,) = await until(lambda: looker.pending("low"))

        assert message.payload == b'{"kind":"sales"}'
        assert (message.queue, message.retry, message.timeout, message.retention) == ("low", 2, 60, 60)
        assert b"low" in looker.raw.smembers("asynq:queues")

    async def test_entries_of_the_setting_schedule_are_enqueued(
        self, redis_server: RedisServer, start: Runner, looker: Looker
    ) -> None:
        """Entries may name tasks that are registered here and tasks of another program."""
        app = TaskQ(
            redis_server.url,
            schedule={
                "sales": {"task": "report", "cron": "@every 1h", "kwargs": {"kind": "sales"}, "queue": "low"},
                "go": {"task": "go:task", "spec": "@every 1h", "remote": True, "options": {"max_retry": 1}},
            },
        )

        @app.task(name="report")
        def report(kind: str) -> None: ...

        for entry in app.periodic_tasks():
            looker.set_mark(entry, looker.now_s() - HOUR)
        await start(app=app)

        (low,) = await until(lambda: looker.pending("low"))
        (remote,) = await until(looker.pending)
        assert (low.type, low.payload) == ("report", b'{"kind":"sales"}')
        assert (remote.type, remote.payload, remote.retry) == ("go:task", b"{}", 1)
        await app.aclose()

    async def test_a_duplicate_id_and_a_held_lock_count_as_enqueued(
        self, app: TaskQ, start: Runner, looker: Looker
    ) -> None:
        """A fixed id lets a firing pass while the task of the one before is there."""

        @app.task(name="slow", retention=600)
        def slow(kind: str) -> None: ...

        by_id = app.schedule("@every 1h", slow.s("id"), id="by_id", task_id="slow", catch_up="all", window=9 * HOUR)
        by_lock = app.schedule("@every 1h", slow.s("l"), id="by_lock", unique_for=60, catch_up="all", window=9 * HOUR)
        last_s = looker.now_s()
        for entry in (by_id, by_lock):
            looker.set_mark(entry, last_s - 2 * HOUR)
        fired = Fired()
        await start(listener=fired)
        await until(lambda: len(fired.all) == 4)

        assert fired.outcomes("by_id") == [ENQUEUED, FiringOutcome.ID_TAKEN]
        assert fired.outcomes("by_lock") == [ENQUEUED, FiringOutcome.DUPLICATE]
        assert len(looker.pending()) == 2
        await until(lambda: len(looker.history("by_id")) == len(looker.history("by_lock")) == 1)
        assert looker.mark(by_id) == looker.mark(by_lock) == last_s

    async def test_a_full_queue_accepts_periodic_tasks(
        self, redis_server: RedisServer, start: Runner, looker: Looker
    ) -> None:
        """The setting `LIMITS` holds clients up, not the timetable: a firing is not lost because others filled it."""
        app = TaskQ(redis_server.url, limits={"default": 1}, enqueue_timeout=30)
        await app.remote("filler").adelay()
        entry = app.schedule("@every 1h", app.remote("report").s(), id="report")
        looker.set_mark(entry, looker.now_s() - HOUR)
        fired = Fired()

        await start(app=app, listener=fired)
        await until(lambda: fired.all)

        assert fired.outcomes("report") == [ENQUEUED]
        assert [each.type for each in looker.pending()] == ["filler", "report"]
        await app.aclose()


class TestCatchUp:
    @pytest.mark.parametrize(("policy", "count"), [("skip", 0), ("one", 1), ("all", 3)])
    async def test_missed_firings_follow_the_catch_up_policy(
        self, app: TaskQ, start: Runner, looker: Looker, policy: str, count: int, clock: Clock
    ) -> None:
        """The last firing of the spec is long enough ago, whenever the test runs."""

        @app.task(name="work")
        def work() -> None: ...

        now = datetime.fromtimestamp(looker.now_s() - 300, UTC)
        missed = app.schedule(f"{now.minute} * * * *", work, id="missed", catch_up=policy, window=3 * HOUR)
        beat = app.schedule("* * * * * *", work, id="beat")
        looker.set_mark(missed, looker.now_s() - 10 * HOUR)
        fired = Fired()
        await start(listener=fired)
        await clock.advance(1)
        await until(lambda: fired.outcomes("beat"))

        assert fired.outcomes("missed") == [ENQUEUED] * count
        await until(lambda: looker.mark(beat) >= looker.now_s() - 1, "and goes on in time")

    async def test_many_missed_firings_are_enqueued_in_batches(self, app: TaskQ, start: Runner, looker: Looker) -> None:
        @app.task(name="work")
        def work() -> None: ...

        begin = looker.now_s() - 1000
        entry = app.schedule("* * * * * *", work, id="beat", catch_up="all")
        looker.set_mark(entry, begin)
        fired = Fired()
        await start(listener=fired)
        await until(lambda: len(fired.all) >= 1000)

        assert [at_s for _, at_s, _ in fired.all] == list(range(begin + 1, begin + 1 + len(fired.all)))
        stored = [message.id for message in looker.pending()]  # one more, maybe, that is just on its way back to us
        assert len(stored) == len(set(stored))
        assert {tick_task_id("beat", "work", at_s) for _, at_s, _ in fired.all} <= set(stored)

    async def test_an_entry_with_many_missed_firings_does_not_delay_others(
        self, app: TaskQ, start: Runner, looker: Looker
    ) -> None:
        """Both entries share one queue. One batch holds at most a hundred firings."""

        @app.task(name="work")
        def work() -> None: ...

        late = app.schedule("* * * * * *", work, id="late", catch_up="all")
        on_time = app.schedule("@every 1h", work, id="on time")
        looker.set_mark(late, looker.now_s() - 1000)
        looker.set_mark(on_time, looker.now_s() - HOUR)
        fired = Fired()
        await start(listener=fired)
        await until(lambda: len(fired.all) > 1000)

        assert fired.outcomes("on time") == [ENQUEUED]
        assert [entry_id for entry_id, _, _ in fired.all].index("on time") < 100

    async def test_a_new_entry_and_a_changed_schedule_start_now(
        self, app: TaskQ, start: Runner, looker: Looker, clock: Clock
    ) -> None:
        @app.task(name="work")
        def work() -> None: ...

        begun_s = looker.now_s()
        looker.set_mark(PeriodicTask("@every 2h", work, id="entry"), begun_s - 9 * HOUR)
        entry = app.schedule("@every 1h", work, id="entry", catch_up="all", window=9 * HOUR)
        await start()
        await clock.advance(2)
        await until(lambda: looker.mark(entry) >= begun_s)

        assert looker.pending() == []


class TestShown:
    async def test_entries_are_stored_in_the_format_of_asynq(
        self, app: TaskQ, start: Runner, looker: Looker, clock: Clock
    ) -> None:
        @app.task(name="report")
        def report(kind: str) -> None: ...

        daily = app.schedule("0 9 * * *", report.s("a"), id="daily", tz="Asia/Tokyo", queue="low", max_retry=3)
        beat = app.schedule("@every 1h", report.s("b"), id="beat")
        last_s = looker.now_s() - HOUR
        looker.set_mark(beat, last_s)
        scheduler = await start()
        due_s = [daily.schedule("UTC").next_after(looker.now_s())]

        def shown() -> list[SchedulerEntry]:
            """Both, once all is known of them. They expire soon, so that they are looked at once."""
            found = looker.entries()
            is_known = all(each.next_enqueue_time_ns for each in found) and any(
                each.prev_enqueue_time_ns for each in found
            )
            return found if len(found) == 2 and is_known else []

        await clock.advance(3)
        first, second = await until(shown)  # the order is turned round, as upstream
        assert (second.id, second.spec, second.task_type) == ("daily", "CRON_TZ=Asia/Tokyo 0 9 * * *", "report")
        assert second.task_payload == b'{"kind":"a"}'
        assert second.enqueue_options == ('Queue("low")', "MaxRetry(3)")
        assert second.prev_enqueue_time_ns is None
        due_s.append(daily.schedule("UTC").next_after(looker.now_s()))  # another, if it was due just now
        assert second.next_enqueue_time_ns in [each * 10**9 for each in due_s if each]
        assert (first.id, first.spec, first.enqueue_options) == ("beat", "@every 1h", ())
        assert first.prev_enqueue_time_ns == (last_s + HOUR) * 10**9
        assert first.next_enqueue_time_ns == (last_s + 2 * HOUR) * 10**9
        (key,) = looker.raw.zrange("asynq:schedulers", 0, -1)
        assert key.decode().startswith(f"asynq:schedulers:{{{scheduler.host}:")
        await until(lambda: 10 < looker.raw.ttl(key) <= 20, "it is shown for as long as two heartbeats")

        await start.stop(scheduler)
        assert looker.raw.keys("asynq:schedulers*") == []

    async def test_several_schedulers_list_each_entry_once(
        self, app: TaskQ, start: Runner, looker: Looker, clock: Clock
    ) -> None:
        @app.periodic("@every 1s", id="beat")
        @app.task(name="beat")
        def beat() -> None: ...

        schedulers = [await start() for _ in range(3)]
        fired_before = len(looker.pending())
        await clock.advance(4)
        await until(lambda: len(looker.pending()) >= fired_before + 2)

        assert [each.leads for each in schedulers].count(True) == 1
        await until(lambda: [each.id for each in looker.entries()] == ["beat"])

    async def test_the_history_names_task_and_time(self, app: TaskQ, start: Runner, looker: Looker) -> None:
        @app.task(name="work")
        def work() -> None: ...

        entry = app.schedule("@every 1h", work, id="entry")
        looker.set_mark(entry, looker.now_s() - HOUR)
        scheduler = await start()
        (event,) = await until(lambda: looker.history("entry"))
        await start.stop(scheduler)

        assert event.task_id == looker.pending()[0].id
        assert event.enqueue_time_ns is not None
        assert abs(event.enqueue_time_ns / 1e9 - looker.now_s()) < 60
        assert looker.history("entry") == [event], "it outlives the scheduler, unlike upstream"
        assert looker.raw.ttl("asynq:scheduler_history:entry") > 89 * 86_400, "and expires 90 days later"

    async def test_a_damaged_history_affects_no_other_entry(self, app: TaskQ, start: Runner, looker: Looker) -> None:
        @app.task(name="work")
        def work() -> None: ...

        names = [f"entry-{number:02}" for number in range(40)]
        looker.raw.set(looker.keys.scheduler_history(names[0]), "damaged")
        for name in names:
            looker.set_mark(app.schedule("@every 1h", work, id=name), looker.now_s() - HOUR)
        await start()

        await until(lambda: all(looker.history(name) for name in names[1:]))


class TestChanges:
    async def test_entries_can_be_added_and_removed_while_it_runs(
        self, app: TaskQ, start: Runner, looker: Looker, clock: Clock
    ) -> None:
        @app.task(name="work")
        def work() -> None: ...

        fired = Fired()
        scheduler = await start(listener=fired)
        entry = PeriodicTask("@every 1h", work, id="beat")
        looker.set_mark(entry, looker.now_s() - HOUR)
        app.schedule("@every 1h", work, id="beat")
        await clock.advance(3)
        await until(lambda: fired.outcomes("beat") and looker.history("beat"))

        assert app.unschedule("beat") is True
        assert app.unschedule("beat") is False
        await clock.advance(5)
        await until(lambda: scheduler.entry_count == 0)
        await until(lambda: looker.entries() == [])

    async def test_a_provider_is_polled_and_its_changes_are_applied(
        self, app: TaskQ, start: Runner, looker: Looker, clock: Clock
    ) -> None:
        @app.task(name="work")
        def work(number: int) -> None: ...

        wanted: list[PeriodicTask] = [PeriodicTask("@every 1h", work.s(1), id="one")]

        @app.schedule_provider(every=60)
        def provide() -> Iterable[PeriodicTask]:
            yield from wanted

        await start()
        await clock.advance(3)
        await until(lambda: [each.id for each in looker.entries()] == ["one"])
        before = await until(lambda: looker.mark(wanted[0]), "it is dealt with")
        wanted.append(PeriodicTask("@every 1h", work.s(2), id="two"))
        await clock.advance(62)
        await until(lambda: [each.id for each in looker.entries()] == ["two", "one"])
        assert looker.mark(wanted[0]) == before, "what did not change goes on"

        del wanted[0]
        await clock.advance(62)
        await until(lambda: [each.id for each in looker.entries()] == ["two"])

    async def test_while_a_provider_fails_its_entries_stay(
        self, app: TaskQ, start: Runner, looker: Looker, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        @app.task(name="work")
        def work() -> None: ...

        answers: list[Any] = [[PeriodicTask("@every 1h", work, id="one")], ["no entry"], ValueError("no database")]
        asked = 0

        async def provide() -> Any:
            nonlocal asked
            answer = answers[min(asked, 2)]
            asked += 1
            if isinstance(answer, Exception):
                raise answer
            return answer

        app.schedule_provider(provide, every=60)
        scheduler = await start()
        await clock.advance(200)
        await until(lambda: asked >= 4)

        assert scheduler.entry_count == 1
        assert "no database" in caplog.text
        assert "a provider must return PeriodicTask objects, got 'no entry'" in caplog.text

    async def test_a_slow_provider_is_logged_and_delays_nothing(
        self, app: TaskQ, start: Runner, looker: Looker, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        end = threading.Event()

        @app.schedule_provider(every=60)
        def provide() -> Iterable[PeriodicTask]:
            end.wait()
            return [PeriodicTask("@every 1h", app.remote("late"), id="late")]

        app.schedule("* * * * * *", app.remote("beat"), id="beat")
        scheduler = await start()
        await clock.advance(40)
        await until(lambda: len(looker.pending()) >= 30, "it waited 5 s for the provider")

        assert "a provider of periodic tasks has not answered for 30 s" in caplog.text
        end.set()
        await until(lambda: scheduler.entry_count == 2)

    async def test_a_provided_entry_cannot_use_an_id_of_the_application(
        self, app: TaskQ, start: Runner, looker: Looker, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        @app.task(name="work")
        def work(number: int) -> None: ...

        app.schedule("@every 1h", work.s(1), id="one")
        app.schedule_provider(lambda: [PeriodicTask("@every 2h", work.s(2), id="one")])
        await start()
        await clock.advance(3)
        (entry,) = await until(looker.entries)

        assert entry.spec == "@every 1h"
        assert "a periodic task from a provider is skipped, because its id one is already in use" in caplog.text


class TestHooks:
    async def test_hooks_are_called_before_and_after_a_firing(self, app: TaskQ, start: Runner, looker: Looker) -> None:
        told: list[tuple[str, str, Any]] = []

        class Plain(ScheduleHook):
            def before_enqueue(self, firing: Firing) -> None:
                told.append(("before", firing.task_id, firing.at))

            def after_enqueue(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
                told.append(("after", firing.task_id, (outcome, error)))

        class Coroutine(ScheduleHook):
            async def after_enqueue(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
                told.append(("awaited", firing.task_id, looker.pending()[0].id))

        @app.task(name="work")
        def work() -> None: ...

        app.add_schedule_hook(Plain())
        app.add_schedule_hook(Coroutine())
        entry = app.schedule("@every 1h", work, id="entry")
        at_s = looker.now_s()
        looker.set_mark(entry, at_s - HOUR)
        await start()
        await until(lambda: len(told) == 3)

        task_id = tick_task_id("entry", "work", at_s)
        assert told == [
            ("before", task_id, datetime.fromtimestamp(at_s, UTC)),
            ("after", task_id, (ENQUEUED, None)),
            ("awaited", task_id, task_id),
        ]

    async def test_hooks_receive_the_error_of_a_firing(
        self, app: TaskQ, start: Runner, looker: Looker, clock: Clock
    ) -> None:
        told: list[tuple[FiringOutcome, Exception | None]] = []

        class Noting(ScheduleHook):
            def after_enqueue(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
                told.append((outcome, error))

        @app.task(name="work")
        def work() -> None: ...

        app.add_schedule_hook(Noting())
        looker.set_mark(app.schedule("@every 1h", work), looker.now_s() - HOUR)
        looker.raw.config_set("maxmemory", 1)
        try:
            await start()
            await until(lambda: told)
        finally:
            looker.raw.config_set("maxmemory", 0)
        await clock.advance(10)
        await until(lambda: told[-1] == (ENQUEUED, None))

        assert {outcome for outcome, _ in told[:-1]} == {FiringOutcome.FAILED}
        assert "memory limit" in str(told[0][1])

    async def test_a_failing_hook_changes_nothing(
        self, app: TaskQ, start: Runner, looker: Looker, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(ScheduleHook):
            def before_enqueue(self, firing: Firing) -> None:
                raise ValueError("broken before")

            async def after_enqueue(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
                raise ValueError("broken after")

        @app.task(name="work")
        def work() -> None: ...

        app.add_schedule_hook(Broken())
        looker.set_mark(app.schedule("@every 1h", work), looker.now_s() - HOUR)
        await start()
        await until(looker.pending)
        await until(lambda: "broken after" in caplog.text)

        assert "broken before" in caplog.text

    async def test_a_started_firing_is_completed(
        self, app: TaskQ, start: Runner, looker: Looker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The scheduler is stopped after the hook's `before` call, and still makes the `after` call."""
        told: list[FiringOutcome] = []
        begun, go_on = asyncio.Event(), asyncio.Event()

        class Slow(ScheduleHook):
            async def before_enqueue(self, firing: Firing) -> None:
                begun.set()
                await go_on.wait()

            def after_enqueue(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
                told.append(outcome)

        monkeypatch.setattr("taskq_core.scheduler.leader.ENDING_S", PATIENCE_S)
        monkeypatch.setattr("taskq_core.scheduler.ticker.HOOK_S", PATIENCE_S)
        app.add_schedule_hook(Slow())
        looker.set_mark(app.schedule("@every 1h", app.remote("work"), id="entry"), looker.now_s() - HOUR)
        scheduler = await start()
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        stopping = asyncio.create_task(start.stop(scheduler))
        await asyncio.sleep(0)
        go_on.set()

        assert await stopping == 0
        assert told == [ENQUEUED]
        assert len(looker.pending()) == len(looker.history("entry")) == 1
        assert looker.raw.keys("taskq:scheduler:leader:*") == []

    async def test_hooks_of_simultaneous_firings_run_concurrently(
        self, app: TaskQ, start: Runner, looker: Looker
    ) -> None:
        """Fifty firings wait for a slow hook once, not fifty times."""
        told = 0
        all_told = asyncio.Event()

        class Slow(ScheduleHook):
            async def before_enqueue(self, firing: Firing) -> None:
                nonlocal told
                told += 1
                if told == 50:
                    all_told.set()
                await all_told.wait()

        app.add_schedule_hook(Slow())
        for number in range(50):
            entry = app.schedule("@every 1h", app.remote("work"), id=f"entry{number}")
            looker.set_mark(entry, looker.now_s() - HOUR)
        await start()
        await until(lambda: len(looker.pending()) == 50)

        assert told == 50

    async def test_a_cancelled_hook_does_not_end_the_scheduler(
        self, app: TaskQ, start: Runner, looker: Looker, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        """An awaitable inside the hook may be cancelled without cancelling the scheduler."""

        class Cancelled(ScheduleHook):
            async def before_enqueue(self, firing: Firing) -> None:
                raise asyncio.CancelledError

        async def provide() -> Iterable[PeriodicTask]:
            nonlocal asked
            asked += 1
            raise asyncio.CancelledError

        asked = 0
        app.schedule_provider(provide, every=2)
        app.add_schedule_hook(Cancelled())
        app.schedule("* * * * * *", app.remote("beat"), id="beat")
        await start()
        await clock.advance(5)
        await until(lambda: len(looker.pending()) >= 2 and asked >= 2)

        assert "a hook of periodic tasks failed" in caplog.text

    async def test_a_blocking_middleware_runs_in_a_thread(self, app: TaskQ, start: Runner, looker: Looker) -> None:
        """A middleware with coroutine methods runs on the event loop, another one in a thread."""
        threads: dict[str, int] = {}

        class Plain(Middleware):
            def enqueue(self, call: Signature[Any]) -> Signature[Any]:
                threads["plain"] = threading.get_ident()
                return call.with_headers({"plain": "1"})

        class Coroutine(Plain):
            async def aenqueue(self, call: Signature[Any]) -> Signature[Any]:
                threads["coroutine"] = threading.get_ident()
                return call.with_headers({"coroutine": "1"})

        for each in (Plain(), Coroutine()):
            app.use(each)
        looker.set_mark(app.schedule("@every 1h", app.remote("work"), id="entry"), looker.now_s() - HOUR)
        await start()
        (message,) = await until(looker.pending)

        assert threads["coroutine"] == threading.get_ident() != threads["plain"]
        assert (message.headers["plain"], message.headers["coroutine"]) == ("1", "1")

    async def test_a_hanging_middleware_delays_only_its_own_firings(
        self, app: TaskQ, start: Runner, looker: Looker, clock: Clock
    ) -> None:
        """Those of other tasks go on, and when it hangs no more, none is missing."""
        hangs = True

        class Hanging(Middleware):
            async def aenqueue(self, call: Signature[Any]) -> Signature[Any]:
                if call.task.name == "stuck" and hangs:
                    await asyncio.Event().wait()
                return call

        app.use(Hanging())
        for name in ("stuck", "beat"):
            app.schedule("* * * * * *", app.remote(name), id=name)
        fired = Fired()
        await start(listener=fired)
        await clock.advance(20)
        await until(lambda: fired.outcomes("beat").count(ENQUEUED) >= 3 and fired.outcomes("stuck"))

        assert set(fired.outcomes("stuck")) == {FiringOutcome.FAILED}
        assert "a hook or middleware did not end within" in str(fired.errors[0])
        hangs = False
        await clock.advance(12)
        await until(lambda: fired.outcomes("stuck").count(ENQUEUED) >= 4)
        for name in ("stuck", "beat"):
            ticks = [at_s for entry_id, at_s, outcome in fired.all if entry_id == name and outcome is ENQUEUED]
            assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
        first_tried_s = next(at_s for entry_id, at_s, _ in fired.all if entry_id == "stuck")
        assert ("stuck", first_tried_s, ENQUEUED) in fired.all

    async def test_a_middleware_that_blocks_all_threads_is_retried(
        self, app: TaskQ, start: Runner, looker: Looker, monkeypatch: pytest.MonkeyPatch, clock: Clock
    ) -> None:
        """Attempts are spaced, although each fails at once. When a thread is free again, the firing is enqueued."""
        released = threading.Event()

        class Hanging(Middleware):
            def enqueue(self, call: Signature[Any]) -> Signature[Any]:
                while not released.is_set():
                    with contextlib.suppress(TaskInterrupted):
                        released.wait()
                return call

        monkeypatch.setattr("taskq_core.scheduler.scheduler.HOOK_THREADS", 1)
        app.use(Hanging())
        looker.set_mark(app.schedule("@every 1h", app.remote("stuck"), id="stuck"), looker.now_s() - HOUR)
        fired = Fired()
        await start(listener=fired)
        try:
            await until(lambda: "occupy all threads" in str(fired.errors[-1:]), meanwhile=lambda: clock.skip(0.5))
            fired.all.clear()
            began_s = clock.monotonic()
            await asyncio.wait_for(clock.advance(30), PATIENCE_S)  # a busy loop would let it wait forever
            attempts, lasted_s = fired.outcomes("stuck"), clock.monotonic() - began_s
        finally:
            released.set()

        assert set(attempts) == {FiringOutcome.FAILED}
        assert len(attempts) <= lasted_s / PUT_OFF_S + 1
        await until(lambda: fired.outcomes("stuck")[-1] is ENQUEUED, meanwhile=lambda: clock.skip(0.5))

    async def test_postponed_firings_do_not_delay_others_of_their_queue(
        self, app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch, clock: Clock
    ) -> None:
        """Others wait for the hanging middleware only while it is tried."""

        class Hanging(Middleware):
            async def aenqueue(self, call: Signature[Any]) -> Signature[Any]:
                if call.task.name == "stuck":
                    await asyncio.Event().wait()
                return call

        monkeypatch.setattr("taskq_core.scheduler.ticker.PUT_OFF_S", 600)
        app.use(Hanging())
        app.schedule("* * * * * *", app.remote("stuck"), id="stuck")
        app.schedule("* * * * * *", app.remote("beat"), id="beat")
        fired = Fired()
        await start(listener=fired)
        await until(lambda: fired.outcomes("stuck"), meanwhile=lambda: clock.skip(0.5))
        attempts, beats = len(fired.outcomes("stuck")), len(fired.outcomes("beat"))
        await clock.advance(3)

        assert len(fired.outcomes("stuck")) == attempts
        assert len(fired.outcomes("beat")) >= beats + 2

    async def test_a_hanging_queue_does_not_delay_others(
        self, app: TaskQ, start: Runner, looker: Looker, monkeypatch: pytest.MonkeyPatch, clock: Clock
    ) -> None:
        hang = asyncio.Event()

        class Hanging(Middleware):
            async def aenqueue(self, call: Signature[Any]) -> Signature[Any]:
                if call.task.name == "stuck":
                    await hang.wait()
                return call

        monkeypatch.setattr("taskq_core.scheduler.ticker.MIDDLEWARE_S", 600)
        app.use(Hanging())
        app.schedule("* * * * * *", app.remote("stuck"), id="stuck", queue="low")
        app.schedule("* * * * * *", app.remote("beat"), id="beat")
        fired = Fired()
        await start(listener=fired)
        await clock.advance(4)
        await until(lambda: len(fired.outcomes("beat")) >= 3)

        assert fired.outcomes("stuck") == []
        hang.set()
        await clock.advance(3)
        await until(lambda: len(fired.outcomes("stuck")) >= 3)

    async def test_a_queue_that_accepts_no_task_does_not_delay_others(
        self, app: TaskQ, start: Runner, looker: Looker, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        """A key of another type blocks the queue. Its firings are enqueued when the key is gone."""
        bad = looker.keys.queue("bad")
        looker.raw.set(bad.pending, "no list")
        app.schedule("* * * * * *", app.remote("work"), id="broken", queue="bad")
        app.schedule("* * * * * *", app.remote("beat"), id="beat")
        fired = Fired()
        await start(listener=fired)
        await clock.advance(4)
        await until(lambda: len(fired.outcomes("beat")) >= 3 and fired.outcomes("broken"))

        assert set(fired.outcomes("broken")) == {FiringOutcome.FAILED}
        await until(lambda: "periodic tasks of queue bad" in caplog.text)
        first_s = next(at_s for entry_id, at_s, _ in fired.all if entry_id == "broken")
        looker.raw.delete(bad.pending)
        await clock.advance(10)
        await until(lambda: ENQUEUED in fired.outcomes("broken"))
        assert ("broken", first_s, ENQUEUED) in fired.all

    async def test_a_call_that_a_middleware_refuses_is_skipped(
        self, app: TaskQ, start: Runner, looker: Looker, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The failure is reported, and the next firing runs."""

        class Refusing(Middleware):
            def enqueue(self, call: Signature[Any]) -> Signature[Any]:
                if call.task.name == "refused":
                    raise PermissionError("not on Sundays")
                return call.using(queue="elsewhere") if call.task.name == "moved" else call

        @app.task(name="refused")
        def refused() -> None: ...

        @app.task(name="moved")
        def moved() -> None: ...

        @app.task(name="work")
        def work() -> None: ...

        app.use(Refusing())
        entries = [app.schedule("@every 1h", task, id=task.name) for task in (refused, moved, work)]
        last_s = looker.now_s()
        for entry in entries:
            looker.set_mark(entry, last_s - HOUR)
        fired = Fired()
        await start(listener=fired)
        await until(lambda: len(fired.all) == 3)

        assert [outcome for _, _, outcome in fired.all] == [FiringOutcome.REFUSED, FiringOutcome.REFUSED, ENQUEUED]
        assert isinstance(fired.errors[0], PermissionError)
        assert "a middleware moved a periodic task from queue 'default' to 'elsewhere'" in str(fired.errors[1])
        assert looker.mark(entries[0]) == last_s
        assert "periodic task refused was not enqueued" in caplog.text


class TestTrouble:
    async def test_a_task_that_is_not_registered_stops_the_start(
        self, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = TaskQ(redis_server.url, schedule={"nightly": {"task": "work", "cron": "@daily"}})

        @app.task(name="works")
        def works() -> None: ...

        assert await Scheduler(app).arun() == 1

        assert "SCHEDULE['nightly']: unknown task 'work'; did you mean 'works'?" in caplog.text
        await app.aclose()

    async def test_no_redis_ends_a_scheduler_that_must_not_wait(self, caplog: pytest.LogCaptureFixture) -> None:
        assert await Scheduler(TaskQ("redis://localhost:1"), SchedulerConfig(wait_for_redis=False)).arun() == 1

        assert "the scheduler cannot start: cannot reach redis://localhost:1/0" in caplog.text

    async def test_a_scheduler_waits_for_redis(self, caplog: pytest.LogCaptureFixture) -> None:
        scheduler = Scheduler(TaskQ("redis://localhost:1"))
        starting = asyncio.create_task(scheduler.arun())
        await until(lambda: "the scheduler waits for Redis: cannot reach redis://localhost:1/0" in caplog.text)

        is_ready, body = scheduler.report()
        scheduler.stop()

        assert (is_ready, body["status"]) == (False, "waiting")
        assert body["reason"].startswith("Redis is unavailable: cannot reach redis://localhost:1/0")
        assert await starting == 0

    async def test_a_full_redis_postpones_firings(
        self, app: TaskQ, start: Runner, looker: Looker, clock: Clock
    ) -> None:
        """The firing is reported as failed, and enqueued when the queue has room."""

        @app.task(name="work")
        def work() -> None: ...

        entry = app.schedule("@every 1h", work, id="entry")
        looker.set_mark(entry, looker.now_s() - HOUR)
        fired = Fired()
        looker.raw.config_set("maxmemory", 1)
        try:
            await start(listener=fired)
            await until(lambda: FiringOutcome.FAILED in fired.outcomes("entry"))
            assert looker.pending() == []
        finally:
            looker.raw.config_set("maxmemory", 0)
        await clock.advance(10)
        await until(lambda: fired.outcomes("entry")[-1] is ENQUEUED)

        assert len(looker.pending()) == 1
        assert "memory limit" in str(fired.errors[0])

    async def test_several_schedulers_that_believe_to_lead_enqueue_once(
        self, app: TaskQ, start: Runner, looker: Looker, clock: Clock
    ) -> None:
        """The test keeps deleting the lease and the enqueued tasks, whose ids are then free again."""

        @app.periodic("* * * * * *", id="beat")
        @app.task(name="beat")
        def beat() -> None: ...

        (entry,) = app.periodic_tasks()
        fired = Fired()
        before = looker.now_s()
        schedulers = [await start(listener=fired) for _ in range(4)]
        await until(lambda: looker.mark(entry), "one has begun")
        begun = looker.now_s()
        led: set[int] = set()
        taken: list[str] = []
        for _ in range(200):
            for key in looker.raw.keys("taskq:scheduler:leader:*"):
                looker.raw.delete(key)
            for message in looker.pending():
                taken.append(message.id)
                looker.raw.delete(looker.keys.queue("default").task(message.id))
                looker.raw.lrem(looker.keys.queue("default").pending, 0, message.id)
            led.update(number for number, each in enumerate(schedulers) if each.leads)
            if len(fired.all) >= 20 and len(led) == 4:
                break
            await clock.advance(0.3)
        assert len(led) == 4
        for scheduler in schedulers:
            await start.stop(scheduler)  # it has then reported everything that it enqueued

        ticks = sorted(at_s for _, at_s, _ in fired.all)
        assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
        assert before < ticks[0] <= begun + 1
        assert len(taken) == len(set(taken))
        assert set(taken) <= {tick_task_id("beat", "beat", at_s) for at_s in ticks}

    async def test_a_follower_takes_over_when_the_leader_stops(
        self, app: TaskQ, start: Runner, looker: Looker, clock: Clock
    ) -> None:
        @app.periodic("* * * * * *", id="beat")
        @app.task(name="beat")
        def beat() -> None: ...

        first = await start()
        await until(lambda: first.leads)
        second = await start()
        await start.stop(first)

        await clock.advance(3)
        await until(lambda: second.leads)

    async def test_a_leader_that_cannot_renew_its_lease_stops_at_its_expiry(
        self, redis_server: RedisServer, start: Runner, clock: Clock
    ) -> None:
        """It uses its own clock, because Redis does not reply. When Redis replies again, it takes the lead again."""
        with Relay(redis_server.socket_path) as relay:
            app = TaskQ(relay.url)
            app.schedule("@every 1h", app.remote("work"), id="entry")
            scheduler = await start(app=app)
            await until(lambda: scheduler.leads)
            relay.cut()
            relay.refuse()
            clock.skip(7)
            assert scheduler.leads, "its lease lasts 8 s"

            clock.skip(1)
            assert not scheduler.leads
            relay.forward()
            await until(lambda: scheduler.leads, meanwhile=lambda: clock.skip(1))
            await start.stop(scheduler)
            await app.aclose()

    async def test_two_applications_on_one_redis_are_independent(
        self, redis_server: RedisServer, app: TaskQ, start: Runner, looker: Looker, clock: Clock
    ) -> None:
        """Each set of entries has its own leader, and equal ids for different tasks are different entries."""
        other = TaskQ(redis_server.url)
        for each in (app, other):
            name = "ours" if each is app else "theirs"
            each.schedule("* * * * * *", each.remote(name), id="beat")
        await start()
        await start(app=other)

        await clock.advance(2)
        await until(lambda: {message.type for message in looker.pending()} == {"ours", "theirs"})
        await other.aclose()


async def test_each_firing_starts_a_separate_trace(
    app: TaskQ, start: Runner, looker: Looker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds even if the scheduler runs inside a span."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)

    @app.task(name="work")
    def work() -> None: ...

    begin = looker.now_s() - 3 * HOUR
    entry = app.schedule("@every 1h", work, id="entry", catch_up="all", window=9 * HOUR)
    looker.set_mark(entry, begin)
    with trace.get_tracer("test").start_as_current_span("ambient"):
        await start()
    await until(lambda: len(looker.pending()) == 3)
    await until(lambda: len(exporter.get_finished_spans()) == 4)

    sent = [span for span in exporter.get_finished_spans() if span.name == "send default"]
    assert len({span.context.trace_id for span in sent}) == 3
    assert all(span.parent is None for span in sent)
    assert {message.headers["traceparent"].split("-")[1] for message in looker.pending()} == {
        f"{span.context.trace_id:032x}" for span in sent
    }


@pytest.mark.parametrize("name", ["leader_lease", "heartbeat"])
def test_invalid_times_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be at least 1 second"):
        SchedulerConfig(**{name: 0.5})


async def test_a_scheduler_can_run_only_once(app: TaskQ, start: Runner) -> None:
    scheduler = await start()

    with pytest.raises(RuntimeError, match="runs only once"):
        await scheduler.arun()


async def test_a_listener_that_fails_changes_nothing(
    app: TaskQ, start: Runner, looker: Looker, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    class Broken(SchedulerListener):
        def started(self, scheduler: Any) -> None:
            raise ValueError("broken")

        def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
            raise ValueError("broken")

    app.schedule("* * * * * *", app.remote("beat"), id="beat")
    await start(listener=Broken())
    await clock.advance(3)
    await until(lambda: len(looker.pending()) >= 2)

    assert [record.levelno for record in logged_here(caplog)].count(logging.ERROR) == 1, "told once, not every second"
