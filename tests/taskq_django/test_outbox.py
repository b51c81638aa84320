"""`ENQUEUE = "outbox"`: a task is written in the transaction of the data it belongs to, and sent from there."""

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.db.models.functions import Now
from django.test import TestCase
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader

from taskq_core import (
    ConfigurationError,
    DuplicateTaskError,
    Settings,
    TaskIdConflictError,
    TaskNotSentError,
    TaskQ,
    TaskState,
    Unique,
    WorkflowDefinitionError,
    WorkflowNotSentError,
    WorkflowTimeoutError,
    chain,
    group,
)
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import BrokerAuthenticationError, BrokerUnavailableError
from taskq_core.inspector import Inspector
from taskq_core.outbox import Delivery
from taskq_core.outbox.delivery import SEND_S
from taskq_core.worker import Worker, WorkerConfig
from taskq_django import async_client, client, taskq
from taskq_django.models import OutboxTask
from taskq_django.outbox import DatabaseTable
from tests.redis_server import RedisServer
from tests.taskq_django.shop.tasks import greet, restock

BOTH = ["default", "other"]
pytestmark = pytest.mark.redis


class RollbackError(Exception):
    """Leaves a transaction."""


@contextmanager
def rolled_back(using: str = "default") -> Iterator[None]:
    with suppress(RollbackError), transaction.atomic(using=using):
        yield
        raise RollbackError


@pytest.fixture(autouse=True)
def outbox(redis: RedisServer, settings: Any) -> None:
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "outbox"}


@contextmanager
def redis_away(settings: Any) -> Iterator[None]:
    there = settings.TASKQ
    settings.TASKQ = {**there, "URL": "unix:///nowhere/at/all.sock", "ENQUEUE_TIMEOUT": 0.01}
    try:
        yield
    finally:
        settings.TASKQ = there


def names() -> list[str]:
    return sorted(task.name for task in Inspector(taskq).tasks().tasks)  # type: ignore[union-attr]  # all are readable here


def waiting(alias: str = "default") -> list[str]:
    return list(OutboxTask.objects.using(alias).order_by("pk").values_list("name", flat=True))


def relay(alias: str = "default") -> Any:
    return taskq.runtime.delivery.deliver(DatabaseTable(alias))


@pytest.mark.django_db(transaction=True)
def test_outside_a_transaction_a_task_is_sent_at_once() -> None:
    handle = greet.delay("Ada")

    assert handle.is_sent
    assert names() == ["shop:greet"]
    assert waiting() == []


@pytest.mark.django_db(transaction=True, databases=BOTH)
@pytest.mark.parametrize("alias", BOTH)
def test_a_row_stands_in_the_database_of_the_transaction_until_it_commits(alias: str) -> None:
    with transaction.atomic(using=alias):
        handle = greet.delay("Ada")

        assert waiting(alias) == ["shop:greet"]
        assert names() == []
        with pytest.raises(TaskNotSentError, match="ask after the commit"):
            handle.refresh()

    assert waiting(alias) == []
    assert names() == ["shop:greet"]
    assert handle.refresh().id == handle.id


@pytest.mark.django_db(transaction=True)
def test_a_rollback_takes_the_row_with_it() -> None:
    with rolled_back():
        greet.delay("Ada")
        client.enqueue_many(greet.s(name) for name in ("Edsger", "Barbara"))

    assert waiting() == []
    assert names() == []


@pytest.mark.django_db(transaction=True)
def test_a_savepoint_takes_only_its_own() -> None:
    with transaction.atomic():
        restock.delay("kept")
        with rolled_back():
            greet.delay("Ada")

    assert names() == ["shop:restock"]


@pytest.mark.django_db(transaction=True)
def test_while_redis_is_away_views_keep_working_and_rows_wait(settings: Any) -> None:
    with redis_away(settings):
        with transaction.atomic():
            handle = greet.delay("Ada")
            many = client.enqueue_many(restock.s(sku) for sku in ("a", "b"))

        assert handle.is_sent
        assert len(many) == 2
        assert waiting() == ["shop:greet", "shop:restock", "shop:restock"]

    assert len(relay().stored) == 3

    assert waiting() == []
    assert names() == ["shop:greet", "shop:restock", "shop:restock"]


@pytest.mark.django_db(transaction=True, databases=BOTH)
def test_a_result_can_be_awaited_while_the_row_still_waits(redis: RedisServer, settings: Any) -> None:
    with redis_away(settings):
        handle = greet.delay("Ada")
    fresh = taskq.client  # the handle belongs to a client of other settings
    handle._source = fresh
    with pytest.raises(TaskNotSentError, match="waits in the outbox for a worker"):
        handle.refresh()
    worker = threading.Thread(target=Worker(taskq, WorkerConfig(queues={"default": 1}, burst=True)).run)

    worker.start()

    assert handle.result(timeout=60) == "hello Ada"
    worker.join()


@pytest.mark.django_db(transaction=True, databases=BOTH)
def test_a_worker_relays_every_database_and_a_burst_waits_for_it(redis: RedisServer, settings: Any) -> None:
    with redis_away(settings):
        for alias in BOTH:
            with transaction.atomic(using=alias):
                greet.using(retention=60).delay(alias)

    Worker(taskq, WorkerConfig(queues={"default": 1}, burst=True)).run()

    assert [waiting(alias) for alias in BOTH] == [[], []]
    assert Inspector(taskq).queue_info("default").sizes[TaskState.COMPLETED] == 2
    assert not redis.client.keys("*delivered")


@pytest.mark.django_db(transaction=True)
def test_a_start_after_a_time_counts_from_the_enqueue(settings: Any) -> None:
    with redis_away(settings):
        greet.using(run_after=0.05).delay("soon")
        greet.using(run_after=3600).delay("later")
    OutboxTask.objects.update(created_at="2020-01-01T00:00:00Z")  # as if Redis had been away for years

    relay()

    assert sorted(task.state for task in Inspector(taskq).tasks().tasks) == ["pending", "pending"]


@pytest.mark.django_db(transaction=True)
def test_what_is_refused_is_told_and_dropped(caplog: pytest.LogCaptureFixture) -> None:
    first = greet.using(task_id="one").delay("Ada")
    second = greet.using(task_id="one").delay("Ada")
    locked = greet.using(unique_for=60).delay("Grace")
    twin = greet.using(unique_for=60).delay("Grace")

    assert first.refresh()
    assert locked.refresh()
    for handle, error in ((second, TaskIdConflictError), (twin, DuplicateTaskError)):
        with pytest.raises(TaskNotSentError) as caught:
            handle.refresh()
        assert isinstance(handle._failure, error), caught
    assert waiting() == []
    assert "from the outbox was dropped: another task has its id" in caplog.text
    assert "from the outbox was dropped: another task has its unique lock" in caplog.text
    assert "Ada" not in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_full_queue_keeps_its_rows_waiting_and_holds_up_no_other(settings: Any) -> None:
    settings.TASKQ = {**settings.TASKQ, "LIMITS": {"default": {"MAX_PENDING": 1}}}
    for name in ("Ada", "Grace"):
        greet.delay(name)
    restock.delay("a")

    assert names() == ["shop:greet", "shop:restock"]
    assert waiting() == ["shop:greet"]

    Inspector(taskq).delete_all("default", TaskState.PENDING)
    OutboxTask.objects.update(claimed_until=None)  # the time for which it was put off is over
    relay()

    assert waiting() == []


@pytest.mark.django_db(transaction=True)
def test_many_rows_go_in_batches_in_their_order(redis: RedisServer, settings: Any) -> None:
    with redis_away(settings), transaction.atomic():
        many = client.enqueue_many(restock.s(str(number)) for number in range(450))

    counts = []
    while claimed := relay().claimed:
        counts.append(claimed)

    assert counts == [200, 200, 50]
    pending = redis.client.lrange("asynq:{low}:pending", 0, -1)
    assert [each.decode() for each in reversed(pending)] == list(many.ids)


@pytest.mark.django_db(transaction=True)
def test_a_claim_holds_no_more_bytes_than_it_may(redis: RedisServer, settings: Any) -> None:
    with redis_away(settings):
        for _ in range(6):
            greet.delay("x" * 1_000_000)
    table = DatabaseTable("default")

    first = table.claim("one", most=100, most_bytes=3_500_000, seconds=60)
    rest = table.claim("two", most=100, most_bytes=3_500_000, seconds=60)

    assert [len(first), len(rest)] == [4, 2]


@pytest.mark.django_db(transaction=True)
def test_claimed_rows_are_left_alone_until_the_claim_ends(settings: Any) -> None:
    with redis_away(settings):
        greet.delay("Ada")
    table = DatabaseTable("default")
    (row,) = table.claim("one", most=10, most_bytes=100, seconds=60)

    assert table.claim("two", most=10, most_bytes=100, seconds=60) == []
    table.delete("two", [row.receipt])  # not its own
    assert waiting() == ["shop:greet"]

    table.release("one", [row.receipt], seconds=0)
    assert len(table.claim("two", most=10, most_bytes=100, seconds=-1)) == 1
    assert len(table.claim("three", most=10, most_bytes=100, seconds=60)) == 1, "a claim that has ended is free"


@pytest.mark.django_db(transaction=True)
def test_a_sender_that_lost_its_claim_leaves_the_receipt_to_the_next(redis: RedisServer, settings: Any) -> None:
    """It was suspended before it deleted the row. Without the receipt, the next sender would store the task again."""
    with redis_away(settings):
        greet.delay("Ada")

    class Slow(DatabaseTable):
        def delete(self, claim: str, receipts: Sequence[str]) -> int:
            OutboxTask.objects.update(claim="next")
            return super().delete(claim, receipts)

    taskq.runtime.delivery.deliver(Slow("default"))
    redis.client.delete(*redis.client.keys("asynq:{default}:t:*"), "asynq:{default}:pending")  # the task has run
    OutboxTask.objects.update(claimed_until=None)

    assert len(relay().stored) == 1
    assert waiting() == []
    assert redis.client.llen("asynq:{default}:pending") == 0


@pytest.mark.django_db(transaction=True)
def test_coroutines_write_in_the_transaction_of_the_code_around_them() -> None:
    async def view() -> None:
        await greet.adelay("Ada")
        await async_client.enqueue_many([restock.s("a"), restock.s("b")])

    with rolled_back():
        async_to_sync(view)()
    assert waiting() == []

    with transaction.atomic():
        async_to_sync(view)()
        assert names() == []

    assert names() == ["shop:greet", "shop:restock", "shop:restock"]


@pytest.mark.django_db(transaction=True)
def test_coroutines_without_a_transaction() -> None:
    async def view() -> int:
        await greet.adelay("Ada")
        many = await async_client.enqueue_many(restock.s(str(number)) for number in range(300))
        return len(many)

    assert asyncio.run(view()) == 300

    assert waiting() == []
    connections.close_all()


@pytest.mark.django_db(transaction=True)
def test_figures_tell_how_many_wait_and_how_long(settings: Any) -> None:
    table = DatabaseTable("default")
    assert (table.figures().waiting, table.figures().oldest_s) == (0, None)
    with redis_away(settings):
        greet.delay("Ada")
        greet.delay("Grace")
    OutboxTask.objects.filter(pk=OutboxTask.objects.earliest("pk").pk).update(created_at="2020-01-01T00:00:00Z")

    figures = table.figures()

    assert figures.waiting == 2
    assert figures.oldest_s is not None
    assert figures.oldest_s > 86_400


@pytest.mark.django_db(transaction=True, databases=BOTH)
def test_the_worker_that_relays_tells_them_whoever_exports_metrics(settings: Any) -> None:
    """A full queue keeps its rows waiting, so that there is something to tell."""
    settings.TASKQ = {**settings.TASKQ, "LIMITS": {"low": {"MAX_PENDING": 1}}}
    with transaction.atomic():
        for _ in range(3):
            greet.using(queue="low").delay("a")
    assert len(waiting()) == 2
    seen: list[dict[str, Any]] = []

    class Watching(MetricReader):
        def _receive_metrics(self, metrics_data: Any, timeout_millis: float = 0, **_: Any) -> None:
            for metric in (each for scope in metrics_data.resource_metrics[0].scope_metrics for each in scope.metrics):
                if metric.name.startswith("asynq.outbox."):
                    seen.extend({metric.name: point.value, **point.attributes} for point in metric.data.data_points)

        def shutdown(self, timeout_millis: float = 0, **_: Any) -> None: ...

    reader = Watching()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics._internal, "_METER_PROVIDER", MeterProvider([reader], shutdown_on_exit=False))
        worker = Worker(taskq, WorkerConfig(queues={"default": 1}))
        thread = threading.Thread(target=worker.run)
        thread.start()
        while len(seen) < 4:  # two figures of two databases
            seen.clear()
            reader.collect()
        worker.stop()
        thread.join()

    rows = {
        each["messaging.asynq.outbox.database"]: each["asynq.outbox.rows"]
        for each in seen
        if "asynq.outbox.rows" in each
    }
    ages = {
        each["messaging.asynq.outbox.database"]: each["asynq.outbox.age"] for each in seen if "asynq.outbox.age" in each
    }
    assert rows == {"default": 2, "other": 0}
    assert ages["default"] >= 0
    assert ages["other"] == 0


class TestWithinATestCase(TestCase):
    """Rows are written in the test's own transaction; they are sent when its callbacks are run."""

    def test_callbacks_send(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            greet.delay("Ada")
            assert waiting() == ["shop:greet"]

        assert waiting() == []


def test_without_a_database_the_mode_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'outbox' needs a database"):
        TaskQ(settings=Settings(enqueue="outbox"))  # type: ignore[arg-type]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", [BrokerUnavailableError, BrokerAuthenticationError])
def test_a_message_that_may_have_arrived_stays_claimed(
    redis: RedisServer,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[BrokerUnavailableError | BrokerAuthenticationError],
) -> None:
    """Otherwise a second sender could be done with the row before the first call arrives after all."""

    def lost(*words: Any) -> str:
        error = kind("no answer")
        error.may_have_happened = True
        raise error

    monkeypatch.setattr(Delivery, "_send", lost)
    with caplog.at_level(logging.WARNING):
        greet.delay("Ada")
    monkeypatch.undo()

    assert OutboxTask.objects.filter(claimed_until__gt=Now() + timedelta(seconds=SEND_S)).count() == 1
    assert "1 task waits in the outbox of database 'default': no answer" in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", [BrokerUnavailableError, BrokerAuthenticationError])
def test_a_queue_that_was_not_registered_for_certain_sends_its_rows_later(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, kind: type[BrokerUnavailableError | BrokerAuthenticationError]
) -> None:
    """The rows themselves were not sent, so nothing keeps another sender from them."""
    send = SyncRunner.run

    def refuse(runner: SyncRunner, operation: Any, **more: Any) -> Any:
        if operation.name != "register_queue":
            return send(runner, operation, **more)
        error = kind("no answer")
        error.may_have_happened = True
        raise error

    monkeypatch.setattr(SyncRunner, "run", refuse)
    greet.delay("Ada")
    monkeypatch.undo()

    assert waiting() == ["shop:greet"]
    assert not OutboxTask.objects.filter(claimed_until__gt=Now() + timedelta(seconds=SEND_S)).exists()


@pytest.mark.django_db(transaction=True)
def test_a_row_stays_until_replicas_have_its_task(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskq_core.broker.sync.ANSWER_S", 30.0)  # replicas are waited for once, and not for long
    monkeypatch.setattr("taskq_core.broker.sync.wait_command", lambda wanted, _: ("WAIT", wanted.replicas, 1))
    handle = greet.using(replicated=True).delay("Ada")

    assert waiting() == ["shop:greet"], "this Redis has no replica"
    assert handle.is_sent
    OutboxTask.objects.update(claimed_until=None, replicas=0)  # as if one had come to it

    assert len(relay().stored) == 1

    assert waiting() == []
    assert redis.client.llen("asynq:{default}:pending") == 1, "stored by the first try, and by no other"


@pytest.mark.django_db(transaction=True)
def test_a_workflow_is_a_row_and_sent_after_the_commit() -> None:
    with transaction.atomic():
        handle = chain(greet.si("Ada"), greet.si("Grace")).named("greetings").delay()
        assert (names(), waiting(), handle.is_sent) == ([], ["greetings"], False)
        with pytest.raises(WorkflowNotSentError, match="when the surrounding transaction commits"):
            handle.refresh()
    with rolled_back():
        chain(greet.si("never")).delay()

    assert (names(), waiting(), handle.is_sent) == (["shop:greet"], [], True)
    assert handle.refresh().total == 2
    assert chain(greet.si("at once")).delay().refresh().total == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_workflow_waits_for_redis_with_all_its_members(settings: Any, is_async: bool) -> None:
    """Out of a generator, of any number: in rows of a bounded size, which are stored in whatever order."""

    def whole() -> Any:
        return group(greet.si(str(number)) for number in range(2_100)) | greet.si("Ada")

    async def enqueue() -> Any:
        return await whole().adelay()

    with redis_away(settings), transaction.atomic():
        handle = async_to_sync(enqueue)() if is_async else whole().delay()
    handle._source = taskq.runtime.workflows  # the handle belongs to a client of other settings
    assert handle.is_sent
    assert handle.is_late
    assert waiting() == ["workflow"] * 3
    with pytest.raises(WorkflowNotSentError, match="waits in the outbox"):
        handle.refresh()
    with pytest.raises(WorkflowTimeoutError):
        handle.result(timeout=0)

    OutboxTask.objects.update(claimed_until=None)
    last = OutboxTask.objects.order_by("pk").last()
    assert last is not None
    assert len(taskq.runtime.delivery.deliver(DatabaseTable("default"), [last.receipt]).stored) == 1
    with pytest.raises(WorkflowNotSentError):
        handle.refresh()
    assert len(relay().stored) == 2

    assert waiting() == []
    assert (handle.refresh().total, handle.is_late) == (2_101, False)


@pytest.mark.django_db(transaction=True)
def test_a_workflow_that_cannot_be_made_leaves_no_row() -> None:
    def members() -> Iterator[Any]:
        yield from (greet.si(str(number)) for number in range(300))
        yield "no call"

    with transaction.atomic(), pytest.raises(WorkflowDefinitionError, match="member 300"):
        (group(members()) | greet.si("Ada")).delay()

    assert (names(), waiting()) == ([], [])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", ["outbox", "on_commit"])
@pytest.mark.parametrize("on_conflict", ["return_existing", "replace"])
def test_a_task_that_was_there_before_answers_after_the_commit(settings: Any, mode: str, on_conflict: str) -> None:
    """Each handle is that of the task that stands for its call, one by one and in bulk."""
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": mode}
    task = greet.using(unique=Unique(on_conflict=on_conflict), run_after=60)
    with transaction.atomic():
        first = task.delay("Ada")
        second = task.delay("Ada")
        many = client.enqueue_many([task.s("Ada"), task.s("Grace"), task.s("Grace")])
        early = many[0]
        assert not second.existing

    assert [handle.existing for handle in (first, second, early, *many)] == [False, True, True, True, False, True]
    assert {first.id, second.id, early.id, many[0].id} == {first.id}
    assert many[1].id == many[2].id
    assert second.refresh().id == first.id
    assert names() == ["shop:greet"] * 2
    assert waiting() == []


@pytest.mark.django_db(transaction=True)
def test_a_row_keeps_what_it_does_about_another(settings: Any) -> None:
    """Delivered later, by a worker: the latest arguments win, and the row is gone."""
    task = greet.using(unique=Unique(args=[], on_conflict="replace"), run_after=60)
    first = task.delay("Ada")
    with redis_away(settings):
        task.delay("Grace")
    assert waiting() == ["shop:greet"]
    OutboxTask.objects.update(claimed_until=None)

    delivered = relay()

    assert waiting() == []
    assert list(delivered.existing.values()) == [first.id]
    assert b"Grace" in Inspector(taskq).task("default", first.id).payload
