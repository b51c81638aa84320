"""Test `taskq_django.testing` and the setting `EAGER`: tasks run in the test and its transactions."""

import asyncio
import os
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase, override_settings
from django.test.utils import CaptureQueriesContext

from taskq_core import ConfigurationError, EnqueueError, TaskState
from taskq_django import client, task, taskq
from taskq_django.models import OutboxTask
from taskq_django.testing import adrain, capture, drain, eager
from tests.logged import logged_here
from tests.rows import rows
from tests.taskq_django.shop.tasks import greet

NOWHERE = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01, "QUEUES": {"default": 1}}


class RollbackError(Exception):
    """Raised to roll a transaction back."""


@task(name="testing:rename", retention=60)
def rename(old: str, new: str) -> int:
    return Group.objects.filter(name=old).update(name=new)


@task(name="testing:arename", retention=60)
async def arename(old: str, new: str) -> int:
    return await Group.objects.filter(name=old).aupdate(name=new)


@task(name="testing:find", max_retry=0)
def find(name: str) -> None:
    Group.objects.get(name=name)


@task(name="testing:fail", max_retry=0, retention=60)
def fail() -> None:
    raise ValueError("no")


@override_settings(TASKQ=NOWHERE)
class TestCaptureInTestCase(TestCase):
    def test_capture_includes_tasks_that_a_commit_sends(self) -> None:
        with capture() as tasks, self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            greet.delay("Ada")
            client.enqueue_many([greet.s("Grace")])
            tasks.assert_nothing_enqueued()

        tasks.assert_enqueued(greet, count=2)

    def test_the_transaction_of_the_test_counts_as_committed(self) -> None:
        with capture() as tasks:
            greet.delay("Ada")
            tasks.assert_enqueued(greet, count=1)
            with transaction.atomic():
                with transaction.atomic(savepoint=False):
                    client.enqueue_many([greet.s("Grace")])
                tasks.assert_enqueued(greet, count=1)
            tasks.assert_enqueued(greet, count=2)

    def test_rolled_back_tasks_are_not_captured(self) -> None:
        with capture() as tasks:
            with transaction.atomic():
                greet.delay("Ada")
                with suppress(RollbackError), transaction.atomic():
                    greet.delay("Grace")
                    raise RollbackError
            with suppress(RollbackError), transaction.atomic():
                greet.delay("Edsger")
                raise RollbackError

        assert [task.arguments["name"] for task in tasks.enqueued] == ["Ada"]

    def test_other_on_commit_hooks_do_not_run(self) -> None:
        ran: list[str] = []

        with capture() as tasks:
            with self.captureOnCommitCallbacks() as callbacks, transaction.atomic():
                transaction.on_commit(lambda: ran.append("hook"))
                greet.delay("Ada")
            assert (len(callbacks), ran) == (1, [])
            tasks.assert_enqueued(greet)

    def test_it_works_below_async_to_sync(self) -> None:
        async def view() -> None:
            await greet.adelay("Ada")

        with capture() as tasks:
            with transaction.atomic():
                async_to_sync(view)()
                tasks.assert_nothing_enqueued()
            tasks.assert_enqueued(greet, "Ada")

    def test_tasks_that_wait_for_the_end_of_a_block_are_named(self) -> None:
        with capture() as tasks, transaction.atomic():
            greet.delay("Ada")

            with pytest.raises(AssertionError, match=r"1 more wait .*: check after the `atomic` block has ended"):
                tasks.assert_enqueued(greet)

    def test_tasks_that_wait_for_a_commit_are_named(self) -> None:
        with capture(as_committed=False) as tasks:
            greet.delay("Ada")
            greet.delay("Grace")

            with pytest.raises(AssertionError) as caught:
                tasks.assert_enqueued(greet)

        assert str(caught.value) == (
            "shop:greet() was not enqueued; nothing was enqueued\n"
            "2 more wait for the commit of the transaction around them, which Django's TestCase never commits: "
            "use captureOnCommitCallbacks(execute=True)"
        )

    def test_captured_tasks_see_the_data_of_the_test(self) -> None:
        """Tasks see even uncommitted rows, in plain functions and in coroutines."""
        Group.objects.create(name="a")

        with capture() as tasks:
            with self.captureOnCommitCallbacks(execute=True):
                handles = [rename.delay("a", "b"), arename.delay("b", "c")]
            tasks.run()

            assert [handle.result() for handle in handles] == [1, 1]
        assert Group.objects.get().name == "c"

    async def test_it_works_in_an_async_test(self) -> None:
        await Group.objects.acreate(name="a")

        with capture() as tasks:
            handles = [await rename.adelay("a", "b")]
            with override_settings(TASKQ={**NOWHERE, "ENQUEUE": "immediate"}):
                handles.append(await arename.adelay("b", "c"))
            await tasks.arun()

            assert [await handle.aresult() for handle in handles] == [1, 1]
        assert (await Group.objects.aget()).name == "c"


@override_settings(TASKQ=NOWHERE)
class TestEagerInTestCase(TestCase):
    def test_tasks_run_at_the_commit_and_see_the_data_of_the_test(self) -> None:
        Group.objects.create(name="a")

        with eager() as tasks, transaction.atomic():
            rename.delay("a", "b")
            arename.delay("b", "c")
            assert tasks.runs == []

        assert [run.outcome for run in tasks.runs] == ["completed", "completed"]
        assert Group.objects.get().name == "c"

    def test_a_failure_in_a_robust_hook_still_ends_the_block(self) -> None:
        with pytest.raises(ValueError, match="no"), eager():
            self._commit(fail)

    def test_error_handlers_do_not_close_the_connections_of_the_test(self) -> None:
        Group.objects.create(name="a")
        seen: list[int] = []
        taskq.on_error(lambda error, context: seen.append(Group.objects.count()))
        try:
            with eager(raises=False):
                self._commit(fail)
        finally:
            taskq.error_handlers.pop()

        assert seen == [1]
        assert Group.objects.get().name == "a"

    def _commit(self, failing: Any) -> None:
        with transaction.atomic():
            failing.delay()

    def test_a_failure_can_be_raised_by_delay(self) -> None:
        with eager(propagates=True) as tasks:
            with pytest.raises(ValueError, match="no"):
                fail.delay()
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                fail.delay()

        assert [run.outcome for run in tasks.runs] == ["archived", "archived"]


@override_settings(TASKQ={**NOWHERE, "ENQUEUE": "outbox"})
class TestOutboxInTestCase(TestCase):
    """The row is written and sent in the transaction of the test."""

    def test_the_transaction_of_the_test_counts_as_committed(self) -> None:
        with capture() as tasks:
            greet.delay("Ada")
            client.enqueue_many([greet.s("Grace"), greet.s("Edsger")])
            tasks.assert_enqueued(greet, count=3)
            with transaction.atomic():
                greet.delay("Barbara")
                assert OutboxTask.objects.count() == 1
                tasks.assert_enqueued(greet, count=3)
            tasks.assert_enqueued(greet, count=4)

        assert not OutboxTask.objects.exists()

    def test_a_rollback_leaves_no_row(self) -> None:
        with capture() as tasks, suppress(RollbackError), transaction.atomic():
            greet.delay("Ada")
            raise RollbackError

        tasks.assert_nothing_enqueued()
        assert not OutboxTask.objects.exists()

    def test_propagates_is_refused_with_an_outbox(self) -> None:
        with pytest.raises(ConfigurationError, match="propagates cannot be used with ENQUEUE"), eager(propagates=True):
            raise AssertionError


@override_settings(TASKQ=NOWHERE)
class TestInTransactionTestCase(TransactionTestCase):
    def test_a_worker_runs_committed_tasks(self) -> None:
        Group.objects.create(name="a")

        with capture():
            handles = [rename.delay("a", "b")]
            drain()
            handles.append(arename.delay("b", "c"))
            asyncio.run(adrain())

            assert [handle.result() for handle in handles] == [1, 1]
        assert Group.objects.get().name == "c"


@pytest.mark.django_db
def test_a_task_that_fails_in_a_worker_beside_the_transaction_of_a_test_names_the_remedy(settings: Any) -> None:
    """The task does not find the rows of the test. If it writes, SQLite says that the table is locked."""
    settings.TASKQ = NOWHERE
    Group.objects.create(name="a")

    with capture():
        find.delay("a")
        with pytest.raises(Group.DoesNotExist) as failed:
            drain()
        find.delay("a")
        with pytest.raises(Group.DoesNotExist) as afailed:
            async_to_sync(adrain)()

    assert "@pytest.mark.django_db(transaction=True)" in failed.value.__notes__[-1]
    assert "@pytest.mark.django_db(transaction=True)" in afailed.value.__notes__[-1]


@pytest.mark.django_db(transaction=True)
def test_a_failure_in_a_worker_has_no_note_in_a_test_without_a_transaction(settings: Any) -> None:
    settings.TASKQ = NOWHERE

    with capture():
        fail.delay()
        with pytest.raises(ValueError, match="no") as failed:
            drain()

    assert "transaction=True" not in "".join(failed.value.__notes__)


class TestTheSetting:
    """`EAGER` applies as long as it is set, without a `with` block."""

    @pytest.fixture(autouse=True)
    def _eager(self, settings: Any) -> None:
        settings.TASKQ = {**NOWHERE, "EAGER": True}

    @pytest.mark.django_db
    def test_the_transaction_of_a_test_case_counts_as_committed(self) -> None:
        """The test covers the transactions of pytest-django's `db` and of Django's `TestCase`."""
        Group.objects.create(name="a")

        with transaction.atomic():
            handle = rename.delay("a", "b")
            assert not handle.is_sent

        assert handle.result() == 1
        assert arename.delay("b", "c").result() == 1

    @pytest.mark.django_db
    def test_no_outbox_is_written(self, settings: Any) -> None:
        settings.TASKQ = {**NOWHERE, "EAGER": True, "ENQUEUE": "outbox"}
        with CaptureQueriesContext(connection) as queries:
            assert greet.using(retention=60).delay("Ada").result() == "hello Ada"

        assert len(queries) == 0

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("enqueue", ["on_commit", "immediate", "outbox"])
    def test_a_failure_can_be_raised_where_the_task_is_enqueued(
        self, settings: Any, enqueue: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.TASKQ = {**NOWHERE, "EAGER": True, "EAGER_PROPAGATES": True, "ENQUEUE": enqueue}

        with pytest.raises(ValueError, match="no"):
            fail.delay()
        with pytest.raises(ValueError, match="no"), transaction.atomic():
            fail.delay()
        with pytest.raises(ValueError, match="no"):
            async_to_sync(fail.adelay)()

        assert not [record for record in caplog.records if record.name.startswith("taskq")]
        settings.TASKQ = {**NOWHERE, "EAGER": True, "ENQUEUE": enqueue}
        fail.delay()
        assert [record.getMessage() for record in logged_here(caplog)] == ["task testing:fail failed"]

    @pytest.mark.django_db(transaction=True)
    async def test_tasks_run_at_once_in_a_coroutine(self) -> None:
        await Group.objects.acreate(name="a")

        handles = [await rename.adelay("a", "b"), await arename.adelay("b", "c")]

        assert [await handle.aresult() for handle in handles] == [1, 1]

    def test_override_settings_can_disable_eager(self, settings: Any) -> None:
        handle = greet.using(retention=60).delay("Ada")
        assert handle.refresh().state is TaskState.COMPLETED

        settings.TASKQ = NOWHERE
        with pytest.raises(EnqueueError):
            greet.delay("Ada")

        settings.TASKQ = {**NOWHERE, "EAGER": True}
        assert greet.using(retention=60).delay("Ada").refresh().state is TaskState.COMPLETED

    def test_capture_takes_precedence_over_eager(self) -> None:
        taskq.reload()  # capture must be the first use of the settings
        with capture() as tasks:
            greet.delay("Ada")
            assert tasks.runs == []

        assert len(tasks.enqueued) == 1
        assert greet.using(retention=60).delay("Ada").refresh().state is TaskState.COMPLETED

    @rows(
        ("command", "what"),
        [
            (("runworker", "--burst"), "worker"),
            (("taskq", "worker", "--burst"), "worker"),
            (("runscheduler",), "scheduler"),
            (("taskq", "scheduler"), "scheduler"),
        ],
    )
    def test_workers_and_schedulers_refuse_to_start_with_eager(self, command: tuple[str, ...], what: str) -> None:
        with pytest.raises(CommandError) as caught:
            call_command(*command)

        assert str(caught.value) == (
            f"TASKQ['EAGER'] is set: each task runs where it is enqueued, and a {what} would never receive one "
            "[configuration]"
        )


@pytest.fixture(autouse=True)
def _closed() -> Any:
    yield
    taskq.close()


class TestWithoutABlock(TransactionTestCase):
    """A test without capture must not reach the Redis of the settings."""

    @override_settings(TASKQ={"URL": "redis://127.0.0.1:1/0", "REDIS_IN_TESTS": False})
    def test_a_test_without_capture_cannot_use_the_redis_of_the_settings(self) -> None:
        with (
            patch.dict(os.environ),
            self.assertRaisesMessage(ConfigurationError, "class MyTest(TaskQTestMixin, TransactionTestCase)"),
            transaction.atomic(),
        ):
            del os.environ["TASKQ_REDIS_IN_TESTS"]
            greet.delay("Ada")

        with capture() as tasks:
            greet.delay("Ada")
        tasks.assert_enqueued(greet)
