"""Test when a framework task is sent (at the commit, by the outbox, at once), and how tests run it."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

from taskq_core import EnqueueInTransactionWarning
from taskq_django import taskq
from taskq_django.models import OutboxTask
from taskq_django.tasks_backend import running
from taskq_django.tasks_backend.framework import (
    PACKAGE,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_enqueued,
)
from taskq_django.tasks_backend.signalling import open_announcements
from taskq_django.testing import capture, drain, eager
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.parcels import tasks as parcels


class RollbackError(Exception):
    """Raised to roll a transaction back."""


@pytest.fixture(autouse=True)
def redis(redis_server: RedisServer, settings: Any) -> Iterator[RedisServer]:
    settings.TASKQ = {"URL": redis_server.unix_url, "ENQUEUE_TIMEOUT": 30}
    yield redis_server
    taskq.close()
    assert not running._running


@pytest.fixture
def announced() -> Iterator[list[str]]:
    """Collect the ids of tasks for which `task_enqueued` was sent."""
    ids: list[str] = []

    def receiver(sender: Any, task_result: Any, **_: Any) -> None:
        assert task_result.enqueued_at is not None
        ids.append(task_result.id)

    task_enqueued.connect(receiver)
    yield ids
    task_enqueued.disconnect(receiver)


@pytest.mark.redis
@pytest.mark.django_db(transaction=True, databases=["default", "other"])
class TestModes:
    @pytest.mark.parametrize("is_async", [False, True])
    def test_on_commit_is_the_default(self, announced: list[str], is_async: bool) -> None:
        """Until the commit, no task exists and no signal is sent."""
        enqueue = async_to_sync(parcels.label.aenqueue) if is_async else parcels.label.enqueue
        with transaction.atomic(), transaction.atomic(using="other"):
            result = enqueue(1)
            inside = (result.status, result.enqueued_at, list(announced))
            with pytest.raises(TaskResultDoesNotExist):
                parcels.label.get_result(result.id)

        assert inside == (TaskResultStatus.READY, None, [])
        assert announced == [result.id]
        assert result.enqueued_at is not None
        assert parcels.label.get_result(result.id).enqueued_at == result.enqueued_at

    def test_a_rollback_enqueues_nothing(self, announced: list[str], redis: RedisServer) -> None:
        with suppress(RollbackError), transaction.atomic():
            parcels.label.enqueue()
            raise RollbackError

        assert announced == []
        assert not redis.client.keys("asynq:*")
        assert not open_announcements, "nothing is kept for it"

    def test_a_failed_send_at_the_commit_sends_no_task_enqueued_signal(
        self, announced: list[str], settings: Any
    ) -> None:
        settings.TASKQ = {"URL": "unix:///nowhere/at/all.sock", "ENQUEUE_TIMEOUT": 0.01}

        with transaction.atomic():
            parcels.label.enqueue()

        assert announced == []
        assert not open_announcements, "nothing is kept for it"

    def test_immediate_mode_does_not_wait_for_the_commit(self, announced: list[str], settings: Any) -> None:
        settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "immediate"}
        with transaction.atomic():
            with pytest.warns(EnqueueInTransactionWarning):
                result = parcels.label.enqueue()

            assert announced == [result.id]
            assert parcels.label.get_result(result.id).status == TaskResultStatus.READY

    def test_through_the_outbox_a_task_is_found_before_it_is_sent(
        self, announced: list[str], settings: Any, redis: RedisServer
    ) -> None:
        """Redis is not needed before the relay sends the row."""
        there = {**settings.TASKQ, "ENQUEUE": "outbox"}
        settings.TASKQ = {**there, "URL": "unix:///nowhere/at/all.sock", "ENQUEUE_TIMEOUT": 0.01}
        with transaction.atomic():
            result = parcels.weigh.using(priority=3).enqueue(4, unit="lb")
            assert announced == []
        assert announced == [result.id]
        assert OutboxTask.objects.get().task_id == result.id

        settings.TASKQ = there
        waiting = parcels.weigh.get_result(result.id)
        drain()

        assert (waiting.status, waiting.args, waiting.kwargs) == (TaskResultStatus.READY, [4], {"unit": "lb"})
        assert waiting.task.priority == 3
        result.refresh()
        assert result.return_value == [4, "lb", False]
        assert not OutboxTask.objects.exists()


# --- in place of Redis ------------------------------------------------------------------------------------------------


def test_capture_holds_tasks_back() -> None:
    with capture() as tasks:
        result = parcels.weigh.enqueue(4, exact=True)
        waiting = parcels.weigh.get_result(result.id).status
        tasks.assert_enqueued(parcels.weigh, 4, exact=True, count=1)
        tasks.assert_not_enqueued(parcels.weigh, 5)
        tasks.assert_not_enqueued(parcels.label)
        tasks.run()
        result.refresh()

    assert waiting == TaskResultStatus.READY
    assert result.return_value == [4, "kg", True]


def test_eager_runs_retries_as_asked() -> None:
    with eager(retries=True):
        result = parcels.deliver.using(max_retry=5).enqueue(3)

    assert result.status == TaskResultStatus.SUCCESSFUL
    assert (result.attempts, result.return_value) == (3, [["tests.taskq_django.parcels.tasks.LostError"] * 2, 3])


class TestEager:
    """With `EAGER` a call behaves as with the framework's own immediate backend, and its result can be read as well."""

    @pytest.fixture(autouse=True)
    def is_eager(self, settings: Any) -> None:
        settings.TASKQ = {"EAGER": True}

    @rows("name", ["label", "track"])
    def test_an_eager_call_returns_after_the_run(self, name: str) -> None:
        result = getattr(parcels, name).enqueue(1)

        assert (result.status, result.is_finished, result.attempts) == (TaskResultStatus.SUCCESSFUL, True, 1)
        assert result.enqueued_at <= result.started_at <= result.finished_at
        assert result.last_attempted_at == result.started_at
        assert result.args == [1]
        assert getattr(parcels, name).get_result(result.id) == result

    @pytest.mark.parametrize("name", ["lose", "alose"])
    def test_a_failure_is_not_raised(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        result = getattr(parcels, name).enqueue(1)

        assert result.status == TaskResultStatus.FAILED
        assert result.errors[0].exception_class is parcels.LostError
        logged = [each for each in caplog.records if each.name == PACKAGE and each.levelname == "ERROR"]
        assert len(logged) == 1
        assert logged[0].exc_info is not None
        assert isinstance(logged[0].exc_info[1], parcels.LostError)

    def test_an_eager_call_that_fails_with_retries_left_has_ended(self) -> None:
        result = parcels.lose.using(max_retry=3).enqueue(1)

        assert (result.status, result.attempts) == (TaskResultStatus.FAILED, 1)
        assert parcels.lose.get_result(result.id).status == TaskResultStatus.FAILED

    def test_an_exit_is_a_failure_and_an_interrupt_is_not(self) -> None:
        assert parcels.quit_early.enqueue().errors[0].exception_class is SystemExit
        with pytest.raises(KeyboardInterrupt):
            parcels.interrupt.enqueue()

    def test_the_outcome_is_known_without_retention(self) -> None:
        result = parcels.weigh.using(retention=0, priority=7).enqueue(5)
        failed = parcels.lose.using(retention=0).enqueue(5)

        assert (result.status, result.return_value) == (TaskResultStatus.SUCCESSFUL, [5, "kg", False])
        assert failed.status == TaskResultStatus.FAILED
