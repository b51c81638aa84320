"""Test features that only Django's outbox has: several databases, the thread of the transaction, test cases.

`tests/taskq_core/client/test_outbox.py` tests all outboxes.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.test import TestCase
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader

from taskq_core import (
    ConfigurationError,
    TaskNotSentError,
    TaskState,
    chain,
)
from taskq_core.inspector import Inspector
from taskq_core.worker import Worker, WorkerConfig
from taskq_django import async_client, client, taskq
from taskq_django.models import OutboxTask
from tests.redis_server import RedisServer
from tests.taskq_django.shop.tasks import greet, restock

BOTH = ["default", "other"]
pytestmark = pytest.mark.redis


class RollbackError(Exception):
    """Raised to roll a transaction back."""


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


@pytest.mark.django_db(transaction=True, databases=BOTH)
@pytest.mark.parametrize("alias", BOTH)
def test_a_row_is_written_in_the_transaction_and_sent_after_the_commit(alias: str) -> None:
    with transaction.atomic(using=alias):
        handle = greet.delay("Ada")

        assert waiting(alias) == ["shop:greet"]
        assert names() == []
        with pytest.raises(TaskNotSentError, match="try again after the commit"):
            handle.refresh()

    assert waiting(alias) == []
    assert names() == ["shop:greet"]
    assert handle.refresh().id == handle.id


class OnlyInDefault:
    """A router that migrates the outbox only to one database, and writes to another one."""

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **_: Any) -> bool | None:
        return db == "default" if model_name == "outboxtask" else None

    def db_for_write(self, model: Any, **_: Any) -> str | None:
        return "other" if model is OutboxTask else None


@pytest.mark.django_db(transaction=True, databases=BOTH)
def test_a_database_without_an_outbox_is_refused_at_the_enqueue(settings: Any) -> None:
    """No worker would read the row, in a transaction of that database or without one."""
    settings.DATABASE_ROUTERS = [OnlyInDefault()]

    with transaction.atomic(using="other"):
        with pytest.raises(ConfigurationError, match=r"open on database 'other', which has no outbox.*of: default"):
            greet.delay("Ada")
        with pytest.raises(ConfigurationError, match="which has no outbox"):
            client.enqueue_many([greet.s("Ada")])
    with pytest.raises(ConfigurationError, match="the router writes to 'other', which has no outbox"):
        greet.delay("Ada")
    with transaction.atomic():
        greet.delay("Grace")

    assert [waiting(alias) for alias in BOTH] == [[], []]
    assert names() == ["shop:greet"]


@pytest.mark.django_db(transaction=True, databases=BOTH)
def test_a_worker_relays_every_database_and_a_burst_waits_for_the_relay(redis: RedisServer, settings: Any) -> None:
    with redis_away(settings):
        for alias in BOTH:
            with transaction.atomic(using=alias):
                greet.using(retention=60).delay(alias)

    Worker(taskq, WorkerConfig(queues={"default": 1}, burst=True)).run()

    assert [waiting(alias) for alias in BOTH] == [[], []]
    assert Inspector(taskq).queue_info("default").sizes[TaskState.COMPLETED] == 2
    assert not redis.client.keys("*delivered")


@pytest.mark.django_db(transaction=True)
def test_a_coroutine_writes_in_the_transaction_of_its_caller() -> None:
    async def view() -> None:
        await greet.adelay("Ada")
        await async_client.enqueue_many([restock.s("a"), restock.s("b")])
        await chain(greet.si("Grace"), greet.si("Barbara")).adelay()

    with suppress(RollbackError), transaction.atomic():
        async_to_sync(view)()
        assert len(waiting()) == 4
        raise RollbackError
    assert waiting() == []

    with transaction.atomic():
        async_to_sync(view)()
        assert names() == []

    assert names() == ["shop:greet", "shop:greet", "shop:restock", "shop:restock"]


@pytest.mark.django_db(transaction=True)
def test_a_coroutine_without_a_transaction_writes_a_row() -> None:
    async def view() -> int:
        await greet.adelay("Ada")
        many = await async_client.enqueue_many(restock.s(str(number)) for number in range(300))
        return len(many)

    assert asyncio.run(view()) == 300

    assert waiting() == []
    connections.close_all()


@pytest.mark.django_db(transaction=True, databases=BOTH)
def test_only_the_relaying_worker_reports_outbox_metrics(settings: Any) -> None:
    """Rows for a full queue stay in the outbox, so that the metrics have rows to count."""
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
        while len(seen) < 4:  # two metrics of two databases
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

    def test_captured_callbacks_send_the_rows(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            greet.delay("Ada")
            assert waiting() == ["shop:greet"]

        assert waiting() == []
