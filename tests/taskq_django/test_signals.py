"""Test signals about tasks: their senders and arguments in web process and worker, and failing receivers."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.dispatch import Signal

from taskq_core import (
    DuplicateTaskError,
    EnqueueError,
    PayloadError,
    RawTask,
    RemoteTask,
    SkipRetry,
    Snooze,
    TaskState,
)
from taskq_core.errors import Discard
from taskq_django import client, task, taskq
from taskq_django.signals import task_enqueued, task_failed, task_retried, task_started, task_succeeded
from taskq_django.testing import adrain, drain
from tests.redis_server import RedisServer
from tests.rows import rows

SIGNALS = {
    "enqueued": task_enqueued,
    "started": task_started,
    "succeeded": task_succeeded,
    "retried": task_retried,
    "failed": task_failed,
}
NOWHERE = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01}


@task(name="signals:double", max_retry=1)
def double(number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    if number == 0:
        raise SkipRetry("nothing to do")
    return 2 * number


@task(name="signals:adouble")
async def adouble(number: int) -> int:
    return 2 * number


@task(name="signals:steer")
def steer(how: str) -> None:
    raise Snooze(60) if how == "snooze" else Discard


class SignalRecorder:
    """Collect the sent signals in order."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.named: list[dict[str, Any]] = []

    def receiver(self, word: str) -> Callable[..., None]:
        def note(sender: object, signal: Signal, **named: Any) -> None:
            self.sent.append((word, sender))
            self.named.append(named)

        return note

    @property
    def words(self) -> list[str]:
        return [word for word, _ in self.sent]


@contextmanager
def connected(signal: Signal, receiver: Callable[..., Any], **options: Any) -> Iterator[None]:
    signal.connect(receiver, weak=False, **options)
    try:
        yield
    finally:
        signal.disconnect(receiver, sender=options.get("sender"))


@pytest.fixture
def recorder() -> Iterator[SignalRecorder]:
    recorder = SignalRecorder()
    receivers = {word: recorder.receiver(word) for word in SIGNALS}
    for word, signal in SIGNALS.items():
        signal.connect(receivers[word])
    yield recorder
    for word, signal in SIGNALS.items():
        signal.disconnect(receivers[word])


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    taskq.close()


class TestRuns:
    @pytest.mark.redis
    def test_a_plain_task_sends_signals(self, redis: RedisServer, recorder: SignalRecorder) -> None:
        handle = double.delay(3)
        drain()

        assert recorder.sent == [("enqueued", double), ("started", double), ("succeeded", double)]
        enqueued, started, succeeded = recorder.named
        assert all(
            (each["task_id"], each["name"], each["queue"]) == (handle.id, "signals:double", "default")
            for each in recorder.named
        )
        assert enqueued.keys() == {"task_id", "name", "queue", "handle"}
        assert enqueued["handle"] is handle
        assert started["context"].attempt == 1
        assert (succeeded["result"], succeeded["context"].outcome) == (6, "completed")

    @pytest.mark.redis
    async def test_a_coroutine_sends_signals(self, redis: RedisServer, recorder: SignalRecorder) -> None:
        await adouble.using(retention=60).adelay(3)
        await adrain()

        assert recorder.sent == [("enqueued", adouble), ("started", adouble), ("succeeded", adouble)]
        assert recorder.named[2]["result"] == 6

    @pytest.mark.redis
    def test_failures_send_signals(self, redis: RedisServer, recorder: SignalRecorder) -> None:
        double.delay(-1)
        drain(advance=3600, raises=False)

        assert recorder.words == ["enqueued", "started", "retried", "started", "failed"]
        _, _, retried, _, failed = recorder.named
        assert [str(each["error"]) for each in (retried, failed)] == ["negative"] * 2
        assert [each["context"].outcome for each in (retried, failed)] == ["retried", "archived"]
        assert [each["context"].attempt for each in (retried, failed)] == [1, 2]

    @pytest.mark.redis
    def test_an_unreadable_payload_sends_task_failed(self, redis: RedisServer, recorder: SignalRecorder) -> None:
        """The function never starts."""
        taskq.remote("signals:double").delay(b'{"number":"x"}')
        drain(raises=False)

        assert recorder.sent == [("enqueued", double), ("failed", double)]
        assert isinstance(recorder.named[1]["error"], PayloadError)

    @pytest.mark.redis
    def test_snooze_sends_task_retried_and_discard_sends_no_outcome(
        self, redis: RedisServer, recorder: SignalRecorder
    ) -> None:
        steer.delay("snooze")
        steer.delay("discard")
        drain()

        assert sorted(recorder.words[2:]) == ["retried", "started", "started"]
        (retried,) = [named for word, named in zip(recorder.words, recorder.named, strict=True) if word == "retried"]
        assert (type(retried["error"]), retried["context"].outcome) == (Snooze, "snoozed")

    @pytest.mark.redis
    def test_a_registered_handler_sends_signals(
        self, redis: RedisServer, recorder: SignalRecorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A handler has no registered tasks, so the sender is a description of the type."""
        monkeypatch.setattr(taskq.handlers, "_by_pattern", {})
        monkeypatch.setattr(taskq.handlers, "_lengths", ())

        @taskq.handler("signals:raw:")
        def handle(message: RawTask) -> None: ...

        taskq.remote("signals:raw:one").delay(b"{}")
        drain()

        assert recorder.sent == [("enqueued", RemoteTask), ("started", RawTask), ("succeeded", RawTask)]


class TestEnqueued:
    @pytest.mark.redis
    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("mode", ["on_commit", "outbox"])
    def test_task_enqueued_is_sent_after_the_commit_and_never_after_a_rollback(
        self, redis: RedisServer, settings: Any, recorder: SignalRecorder, mode: str
    ) -> None:
        settings.TASKQ = {**settings.TASKQ, "ENQUEUE": mode}
        with transaction.atomic():
            handle = double.delay(1)
            many = client.enqueue_many([double.s(2), double.s(3)])
            assert recorder.sent == []
        with transaction.atomic():
            double.delay(4)
            client.enqueue_many([double.s(5)])
            transaction.set_rollback(True)

        assert recorder.words == ["enqueued"] * 3
        assert [named["task_id"] for named in recorder.named] == [handle.id, *many.ids]
        assert [named["handle"].is_sent for named in recorder.named] == [True] * 3

    @pytest.mark.redis
    def test_enqueue_many_sends_a_signal_for_each_stored_task(
        self, redis: RedisServer, recorder: SignalRecorder
    ) -> None:
        double.using(task_id="taken").delay(1)
        result = client.enqueue_many([double.s(2), double.s(3).using(task_id="taken"), adouble.s(4)])

        assert len(result.errors) == 1
        assert [sender for _, sender in recorder.sent] == [double, double, adouble]

    @pytest.mark.redis
    def test_a_refused_task_sends_no_signal(self, redis: RedisServer, settings: Any, recorder: SignalRecorder) -> None:
        once = double.using(unique_for=60)
        once.delay(1)
        with pytest.raises(DuplicateTaskError):
            once.delay(1)
        settings.TASKQ = NOWHERE
        with pytest.raises(EnqueueError):
            double.delay(1)

        assert recorder.words == ["enqueued"]

    @pytest.mark.redis
    def test_an_aggregated_task_sends_task_enqueued(
        self, redis: RedisServer, recorder: SignalRecorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The function of the aggregator sends no signal."""
        monkeypatch.setattr(taskq, "aggregators", type(taskq.aggregators)())

        @taskq.aggregator("signals", grace=1)
        def combine(group: str, tasks: list[Any]) -> Any:
            return double.s(len(tasks))

        adouble.using(aggregate="signals").delay(1)
        adouble.using(aggregate="signals").delay(2)
        drain(advance=5)

        assert [sender for _, sender in recorder.sent] == [adouble, adouble, double, double, double]
        assert sorted(recorder.words[2:]) == ["enqueued", "started", "succeeded"]
        assert [named["result"] for named in recorder.named if "result" in named] == [4]


class TestReceivers:
    @pytest.mark.redis
    @rows(("error", "logger"), [(ValueError("broken"), "django.dispatch"), (SystemExit("broken"), "taskq.signals")])
    def test_a_receiver_that_raises_changes_nothing(
        self, redis: RedisServer, caplog: pytest.LogCaptureFixture, error: BaseException, logger: str
    ) -> None:
        """Each error is logged: here eight times, for two enqueued tasks, three starts and three outcomes."""

        def break_(**named: Any) -> None:
            raise error

        for signal in SIGNALS.values():
            signal.connect(break_)
        try:
            with caplog.at_level(logging.ERROR):
                handle = double.using(retention=60).delay(2)
                double.delay(-1)
                drain(advance=3600, raises=False)
        finally:
            for signal in SIGNALS.values():
                signal.disconnect(break_)

        assert handle.result(timeout=60) == 4
        assert redis.client.zcard("asynq:{default}:archived") == 1
        assert len([record for record in caplog.records if record.name == logger]) == 8

    @pytest.mark.redis
    def test_coroutine_receivers_are_awaited(self, redis: RedisServer) -> None:
        seen: list[str] = []

        async def note(name: str, signal: Signal, **named: Any) -> None:
            await asyncio.sleep(0)
            seen.append(name)

        with connected(task_enqueued, note), connected(task_started, note), connected(task_succeeded, note):
            double.delay(1)
            adouble.delay(1)
            drain()

        assert sorted(seen) == ["signals:adouble"] * 3 + ["signals:double"] * 3

    @pytest.mark.redis
    @pytest.mark.django_db(transaction=True)
    async def test_receivers_in_a_worker_use_the_database_and_leave_no_connection_open(
        self, redis: RedisServer
    ) -> None:
        """Receivers run outside the event loop's thread, and for a coroutine in the thread with its connections."""
        await Group.objects.acreate(name="staff")
        seen: list[tuple[int, Any, bool]] = []

        def count(**named: Any) -> None:
            seen.append((Group.objects.count(), connection.connection, threading.current_thread() is here))

        here = threading.current_thread()
        with connected(task_started, count), connected(task_succeeded, count):
            await adouble.adelay(1)
            await adrain()

        assert [(number, is_here) for number, _, is_here in seen] == [(1, False)] * 2
        for _, raw, _ in seen:
            with pytest.raises(Exception, match="closed"):
                await sync_to_async(raw.execute)("SELECT 1")


class TestCost:
    @pytest.mark.redis
    def test_without_receivers_a_run_does_no_signal_work(
        self, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without receivers, no signal is sent and no thread starts."""

        def fail(*args: object, **named: object) -> None:
            raise AssertionError("a signal was sent without a receiver")

        for signal in SIGNALS.values():
            for name in ("send_robust", "asend_robust"):
                monkeypatch.setattr(signal, name, fail)
        monkeypatch.setattr("taskq_core.tasks.observer.Observer.notify_enqueued", fail)
        monkeypatch.setattr("taskq_core.worker.reporter.ErrorReporter._call_all", fail)
        handle = double.using(retention=60, run_after=timedelta(0)).delay(2)
        double.delay(-1)
        drain(raises=False)

        assert handle.refresh().state is TaskState.COMPLETED
        assert redis.client.zcard("asynq:{default}:retry") == 1
