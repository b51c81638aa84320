"""Test that tasks are sent only after all transactions around their enqueue have committed."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import TestCase

from taskq_core import (
    BulkEnqueueError,
    EnqueueError,
    EnqueueInTransactionWarning,
    NotReplicatedError,
    TaskNotSentError,
    TaskState,
    WorkflowNotSentError,
    chain,
    group,
)
from taskq_core.inspector import Inspector
from taskq_django import client, taskq
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.shop.tasks import greet, restock

BOTH = ["default", "other"]
pytestmark = pytest.mark.redis


class RollbackError(Exception):
    """Raised to roll a transaction back."""


@contextmanager
def rolled_back(using: str = "default") -> Iterator[None]:
    """A transaction that does not commit."""
    with suppress(RollbackError), transaction.atomic(using=using):
        yield
        raise RollbackError


def names(inspector: Inspector) -> list[str]:
    return sorted(task.name for task in inspector.tasks().tasks)  # type: ignore[union-attr]  # all are readable here


@pytest.mark.django_db(transaction=True)
def test_a_task_outside_of_a_transaction_is_sent_at_once(inspector: Inspector) -> None:
    handle = greet.delay("Ada")

    assert handle.is_sent
    assert names(inspector) == ["shop:greet"]


@pytest.mark.django_db(transaction=True)
def test_enqueue_immediately_does_not_wait_for_the_commit_and_warns(inspector: Inspector, settings: Any) -> None:
    """The warning names the line that enqueues. Outside a transaction, no warning is raised."""
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "immediate"}

    greet.delay("Ada")
    with transaction.atomic():
        with pytest.warns(EnqueueInTransactionWarning, match="a rollback does not stop it") as caught:
            greet.delay("Grace")
        inside = names(inspector)

    assert inside == ["shop:greet", "shop:greet"]
    assert [each.filename for each in caught if each.category is EnqueueInTransactionWarning] == [__file__]


@pytest.mark.django_db(transaction=False)
def test_the_transaction_of_a_test_causes_no_warning(inspector: Inspector, settings: Any) -> None:
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "immediate"}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert greet.delay("Ada").is_sent


@pytest.mark.django_db(transaction=True, databases=BOTH)
@pytest.mark.parametrize("alias", BOTH)
def test_a_task_is_sent_at_the_commit_of_any_database(inspector: Inspector, alias: str) -> None:
    with transaction.atomic(using=alias):
        handle = greet.delay("Ada")

        assert handle.id
        assert not handle.is_sent
        assert names(inspector) == []

    assert handle.is_sent
    assert names(inspector) == ["shop:greet"]
    assert handle.refresh().id == handle.id


@pytest.mark.django_db(transaction=True)
def test_a_full_queue_refuses_at_the_commit(
    redis: RedisServer, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The commit is kept, Django logs the error, and the handle shows it."""
    settings.TASKQ = {**settings.TASKQ, "LIMITS": {"default": 1}}

    with caplog.at_level(logging.ERROR), transaction.atomic():
        first, second = greet.delay("Ada"), greet.delay("Grace")

    assert (first.is_sent, second.is_sent) == (True, False)
    assert "queue 'default' is full; 1 tasks are pending, and the limit is 1" in caplog.text
    assert names(Inspector(taskq)) == ["shop:greet"]
    with pytest.raises(TaskNotSentError, match="queue 'default' is full"):
        second.refresh()


@pytest.mark.django_db(transaction=True)
def test_the_error_of_a_failed_enqueue_at_the_commit_mentions_the_outbox(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The test loses one task, a batch and a workflow. The log explains each time how to use the outbox."""
    settings.TASKQ = {**settings.TASKQ, "URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01}

    with caplog.at_level(logging.ERROR, "django.db.backends.base"), transaction.atomic():
        handle = greet.delay("Ada")
        client.enqueue_many([greet.s("Ada")])
        (greet.s("Ada") | greet.si("Grace")).delay()

    assert isinstance(handle.send_error, EnqueueError)
    notes = [record.exc_info[1].__notes__ for record in caplog.records if record.exc_info and record.exc_info[1]]
    assert len(notes) == 3
    assert all("ENQUEUE = 'outbox'" in note[-1] for note in notes)
    assert "ENQUEUE = 'outbox'" in caplog.text


@pytest.mark.django_db(transaction=True, databases=BOTH)
@rows("alias", BOTH)
def test_nothing_is_enqueued_on_rollback(inspector: Inspector, alias: str) -> None:
    with rolled_back(alias):
        handle = greet.delay("Ada")
        client.enqueue(greet.s("Grace"))
        client.enqueue_many(greet.s(name) for name in ("Edsger", "Barbara"))

    assert names(inspector) == []
    with pytest.raises(TaskNotSentError, match="its transaction was rolled back"):
        handle.refresh()


@pytest.mark.django_db(transaction=True)
def test_a_rolled_back_savepoint_takes_its_tasks_with_it(inspector: Inspector) -> None:
    with transaction.atomic():
        restock.delay("kept")
        with rolled_back():
            greet.delay("Ada")

    assert names(inspector) == ["shop:restock"]


@pytest.mark.django_db(transaction=True, databases=BOTH)
@pytest.mark.parametrize(("outer", "inner"), [BOTH, BOTH[::-1]])
def test_a_task_waits_for_the_last_of_several_transactions(inspector: Inspector, outer: str, inner: str) -> None:
    with transaction.atomic(using=outer):
        with transaction.atomic(using=inner):
            greet.delay("Ada")
        after_the_inner_commit = names(inspector)

    assert after_the_inner_commit == []
    assert names(inspector) == ["shop:greet"]


@pytest.mark.django_db(transaction=True, databases=BOTH)
@rows(("outer", "inner"), [BOTH, BOTH[::-1]])
def test_a_rollback_of_one_of_several_databases_is_enough(inspector: Inspector, outer: str, inner: str) -> None:
    with transaction.atomic(using=outer), rolled_back(inner):
        handle = greet.delay("Ada")

    assert names(inspector) == []
    with pytest.raises(TaskNotSentError, match="its transaction was rolled back"):
        handle.result()


@pytest.mark.django_db(transaction=True)
def test_clients_obey_the_same_rule(inspector: Inspector) -> None:
    with transaction.atomic():
        client.enqueue(greet.s("Ada"))
        result = client.enqueue_many(greet.s(str(number)) for number in range(3))
        before = names(inspector)

    assert before == []
    assert names(inspector) == ["shop:greet"] * 4
    assert len(result) == 3


@pytest.mark.django_db(transaction=True)
def test_arguments_are_bound_and_checked_where_delay_is_called(inspector: Inspector) -> None:
    """The arguments are fixed at the enqueue. Later changes to the objects before the commit have no effect."""
    with transaction.atomic():
        amounts = [1, 2]
        handle = taskq.remote("go:sum").delay(amounts=amounts)
        amounts.append(3)
        with pytest.raises(TypeError, match="name"):
            greet.delay()  # type: ignore[call-arg]  # the mistake that this test makes on purpose

    assert inspector.task("default", handle.id).payload == b'{"amounts":[1,2]}'  # type: ignore[union-attr]  # readable


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_rolled_back", [False, True])
def test_adelay_waits_for_the_commit_of_its_callers_transaction(inspector: Inspector, is_rolled_back: bool) -> None:
    async def enqueue() -> None:
        handle = await greet.adelay("Ada")
        assert not handle.is_sent
        await taskq.async_client.enqueue_many([greet.s("Grace")])

    with rolled_back() if is_rolled_back else transaction.atomic():
        async_to_sync(enqueue)()
        inside = names(inspector)

    assert inside == []
    assert names(inspector) == ([] if is_rolled_back else ["shop:greet", "shop:greet"])


@pytest.mark.django_db(transaction=True)
async def test_adelay_without_a_transaction_sends_at_once(redis: RedisServer) -> None:
    handle = await greet.adelay("Ada")

    assert handle.is_sent
    assert (await handle.arefresh()).name == "shop:greet"
    await taskq.aclose()


@pytest.mark.django_db(transaction=True)
def test_missing_confirmations_of_replicas_at_the_commit_are_logged(
    redis: RedisServer, settings: Any, caplog: Any
) -> None:
    """The task exists. The error is in the log and in the handle, because the server has no replica."""
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE_TIMEOUT": 1, "DEFAULTS": {"replicated": True}}

    with caplog.at_level(logging.ERROR, logger="django.db"), transaction.atomic():
        handle = greet.delay("Ada")
        many = taskq.client.enqueue_many([greet.s("Grace")])

    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [
        NotReplicatedError,
        BulkEnqueueError,
    ]
    assert redis.client.llen("asynq:{default}:pending") == 2
    with pytest.raises(TaskNotSentError, match="is in queue 'default', but not confirmed"):
        handle.refresh()
    assert len(many) == 0


@pytest.mark.django_db(transaction=True, databases=BOTH)
@pytest.mark.parametrize("aliases", [["default"], BOTH])
def test_a_redis_outage_at_the_commit_is_logged_and_other_hooks_run(
    settings: Any, caplog: Any, aliases: list[str]
) -> None:
    """The commit waits at most for the enqueue timeout. Log and handle have the error with the task id."""
    settings.TASKQ = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01}
    ran: list[str] = []

    with caplog.at_level(logging.ERROR, logger="django.db"), ExitStack() as transactions:
        for alias in aliases:
            transactions.enter_context(transaction.atomic(using=alias))
        handle = greet.delay("Ada")
        transaction.on_commit(lambda: ran.append("after"))

    assert ran == ["after"]
    assert "taskq's sending of a task" in caplog.text
    assert not handle.is_sent
    with pytest.raises(TaskNotSentError, match=handle.id):
        handle.refresh()
    with pytest.raises(TaskNotSentError, match="the send after the commit failed"):
        handle.result()
    error = next(record.exc_info[1] for record in caplog.records if record.exc_info)
    assert isinstance(error, EnqueueError)
    assert error.task_id == handle.id


@pytest.mark.redis
class TestInDjangoTestCase(TestCase):
    """Tests the behavior in Django's own test classes."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, inspector: Inspector) -> None:
        self.inspector = inspector

    def test_captured_callbacks_send(self) -> None:
        with self.captureOnCommitCallbacks(execute=True) as callbacks, transaction.atomic():
            greet.delay("Ada")

        assert len(callbacks) == 1
        assert names(self.inspector) == ["shop:greet"]


@pytest.mark.django_db(transaction=True)
def test_a_workflow_is_sent_at_the_commit(inspector: Inspector) -> None:
    """The whole workflow is built before the commit: a generator of group members is evaluated once."""
    read: list[int] = []

    def members() -> Iterator[Any]:
        for number in range(250):
            read.append(number)
            yield greet.si(str(number))

    with transaction.atomic():
        handle = (group(members()) | greet.si("Ada")).delay()
        assert (len(read), names(inspector), handle.is_sent) == (250, [], False)
        with pytest.raises(WorkflowNotSentError):
            handle.refresh()
    with rolled_back():
        chain(greet.s("never")).delay()

    assert handle.is_sent
    assert handle.refresh().total == 251
    assert len(read) == 250
    assert inspector.count("default", TaskState.PENDING) == 250


@pytest.mark.django_db(transaction=True)
def test_a_workflow_is_sent_at_the_commit_from_coroutines(inspector: Inspector) -> None:
    async def enqueue() -> Any:
        return await chain(greet.si("Ada"), greet.si("Grace")).adelay()

    with transaction.atomic():
        handle = async_to_sync(enqueue)()
        assert names(inspector) == []

    assert handle.refresh().total == 2
