"""Test `TaskQTestMixin` from the view of a user's test case."""

import unittest
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings

from taskq_django import task, taskq
from taskq_django.testing import TaskQTestMixin
from tests.taskq_django.shop.tasks import greet
from tests.taskq_django.test_testing import NOWHERE, arename, fail, rename


@task(name="testing:cascade", queue="elsewhere", run_after=60)
def cascade(name: str) -> None:
    greet.delay(name)


@override_settings(TASKQ=NOWHERE)
class TestInTestCase(TaskQTestMixin, TestCase):
    def test_tasks_are_captured_and_run_in_the_test(self) -> None:
        """The transaction of the test counts as committed, and tasks see its data."""
        Group.objects.create(name="a")
        with transaction.atomic():
            rename.delay("a", "b")
            self.assert_nothing_enqueued()

        (enqueued,) = self.assert_enqueued(rename, "a", new="b", count=1, queue="default")
        self.assert_not_enqueued(rename, "b")
        (run,) = self.drain()

        assert (run.id, run.outcome) == (enqueued.id, "completed")
        assert Group.objects.get().name == "b"

    @pytest.mark.filterwarnings("ignore::taskq_core.QueueUnservedWarning")
    def test_drain_advances_the_time_of_all_queues(self) -> None:
        cascade.delay("Ada")

        assert self.drain() == []
        assert [run.name for run in self.drain(advance=60)] == ["testing:cascade", "shop:greet"]

    def test_a_failure_fails_the_test(self) -> None:
        fail.delay()

        with pytest.raises(ValueError, match="no"):
            self.drain()
        fail.delay()
        assert [run.outcome for run in self.drain(raises=False)] == ["archived"]

    async def test_it_works_in_a_coroutine_test(self) -> None:
        await Group.objects.acreate(name="a")
        await rename.adelay("a", "b")
        await arename.adelay("b", "c")

        self.assert_enqueued(arename, count=1)
        assert [run.outcome for run in await self.adrain()] == ["completed", "completed"]
        assert (await Group.objects.aget()).name == "c"

    def test_capture_survives_override_settings(self) -> None:
        for enqueue in ("immediate", "outbox", "on_commit"):
            with override_settings(TASKQ={**NOWHERE, "ENQUEUE": enqueue}):
                greet.delay(enqueue)

        self.assert_enqueued(greet, count=3)


@override_settings(TASKQ=NOWHERE)
class TestWithDataOfTheClass(TaskQTestMixin, TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        with transaction.atomic():
            greet.delay("the class")

    def test_tasks_enqueued_in_setup_test_data_are_not_captured(self) -> None:
        with transaction.atomic():
            greet.delay("Ada")

        self.assert_enqueued(greet, count=1)

    test_nor_any_others = test_tasks_enqueued_in_setup_test_data_are_not_captured


@override_settings(TASKQ=NOWHERE)
class TestInTransactionTestCase(TaskQTestMixin, TransactionTestCase):
    def test_a_worker_runs_committed_tasks(self) -> None:
        Group.objects.create(name="a")
        with transaction.atomic():
            rename.delay("a", "b")
            self.assert_nothing_enqueued()

        assert [run.outcome for run in self.drain()] == ["completed"]
        assert Group.objects.get().name == "b"


@override_settings(TASKQ={**NOWHERE, "ENQUEUE": "immediate"})
class TestWithoutADatabase(TaskQTestMixin, SimpleTestCase):
    def test_tasks_are_captured_and_run(self) -> None:
        greet.delay("Ada")

        assert [run.outcome for run in self.drain()] == ["completed"]


def run(case: type[unittest.TestCase]) -> unittest.TestResult:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


def test_a_setup_without_super_raises_an_explanation(settings: Any) -> None:
    settings.TASKQ = NOWHERE

    class Forgetful(TaskQTestMixin, SimpleTestCase):
        def setUp(self) -> None:
            pass

        def test_it(self) -> None:
            self.assert_nothing_enqueued()

    ((_, traceback),) = run(Forgetful).errors

    assert "Forgetful.setUp must call super().setUp() for tasks to be captured" in traceback


def test_the_traceback_of_a_failed_assertion_ends_in_the_test(settings: Any) -> None:
    settings.TASKQ = NOWHERE

    class Expecting(TaskQTestMixin, SimpleTestCase):
        def test_it(self) -> None:
            self.assert_enqueued(greet)

    ((_, traceback),) = run(Expecting).failures

    assert traceback.count("  File ") == 1
    assert "self.assert_enqueued(greet)" in traceback


def test_a_failing_task_fails_an_eager_test_at_its_end(settings: Any) -> None:
    settings.TASKQ = {**NOWHERE, "ENQUEUE": "immediate"}

    class Failing(TaskQTestMixin, SimpleTestCase):
        taskq_eager = True

        def test_it(self) -> None:
            fail.delay()

    ((_, traceback),) = run(Failing).errors

    assert "ValueError: no" in traceback
    assert "in task 'testing:fail'" in traceback
    taskq.close()
