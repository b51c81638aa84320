"""Test `capture`: tasks go to a store in memory, are recorded, and run when the test requests it."""

import asyncio
import threading
import unittest
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import (
    BrokerUnavailableError,
    ConfigurationError,
    Discard,
    DuplicateTaskError,
    EnqueueError,
    ResultNotKeptError,
    Retry,
    SkipRetry,
    Snooze,
    TaskArgumentsError,
    TaskContext,
    TaskFailedError,
    TaskIdConflictError,
    TaskNotFoundError,
    TaskQ,
    TaskState,
    current_task,
)
from taskq_core.inspector import Inspector
from taskq_core.tasks.middleware import Middleware
from taskq_core.testing import EnqueuedTask, capture, eager


class TestWhereTasksGo:
    @pytest.mark.parametrize("helper", [capture, eager])
    def test_only_a_taskq_is_accepted(self, helper: Any) -> None:
        expected = f"{helper.__name__} takes a TaskQ, got object"
        with pytest.raises(ConfigurationError, match=expected), helper(object()):
            pass

    def test_capture_sends_nothing(self, taskq: TaskQ) -> None:
        """A Redis that is not there is not missed, neither by calls nor by handles."""
        add = taskq.task(name="add", retention=60)(lambda a, b=0: a + b)

        with capture(taskq) as tasks:
            handle = add.delay(1, b=2)
            assert handle.refresh().state is TaskState.PENDING

        assert [task.id for task in tasks.enqueued] == [handle.id]

    def test_redis_is_used_again_after_the_block(self, taskq: TaskQ) -> None:
        note = taskq.remote("note")
        client = taskq.client

        with capture(taskq):
            note.delay()

        for enqueue in (note.delay, lambda: client.enqueue(note.s())):
            with pytest.raises(EnqueueError):
                enqueue()

    def test_redis_is_used_again_after_an_exception(self, taskq: TaskQ) -> None:
        with pytest.raises(ZeroDivisionError), capture(taskq):
            raise ZeroDivisionError

        with pytest.raises(EnqueueError):
            taskq.remote("note").delay()

    def test_clients_created_before_the_block_are_captured(self, taskq: TaskQ) -> None:
        note = taskq.remote("note")
        client, async_client = taskq.client, taskq.async_client

        with capture(taskq) as tasks:
            client.enqueue(note.s(n=1))
            client.enqueue_many(note.s(n=n) for n in (2, 3))
            asyncio.run(_enqueue(async_client, note))

        assert [task.arguments["n"] for task in tasks.enqueued] == [1, 2, 3, 4, 5]

    def test_settings_changed_inside_the_block_are_captured(self, taskq: TaskQ) -> None:
        note = taskq.remote("note")

        with capture(taskq) as tasks:
            taskq.configure(replace(taskq.settings, prefix="other"))
            note.delay()
            taskq.close()
            note.delay()

        assert len(tasks.enqueued) == 2
        with pytest.raises(EnqueueError):
            note.delay()

    def test_handles_work_after_the_application_was_closed_inside_the_block(self, taskq: TaskQ) -> None:
        """The lifespan of an app closes its application like this."""
        with capture(taskq):
            handle = taskq.remote("note").delay()
            taskq.close()

            assert handle.refresh().state is TaskState.PENDING
            assert asyncio.run(handle.arefresh()).state is TaskState.PENDING

    def test_handles_do_not_work_after_the_block(self, taskq: TaskQ) -> None:
        """The store of the block is gone, and Redis never had the tasks."""
        with capture(taskq):
            closed = taskq.remote("note").delay()
            taskq.close()
            handle = taskq.remote("note").delay()

        for each in (closed, handle):
            with pytest.raises(BrokerUnavailableError):
                each.refresh()
            with pytest.raises(BrokerUnavailableError):
                asyncio.run(each.arefresh())

    def test_blocks_can_be_nested(self, taskq: TaskQ) -> None:
        note = taskq.remote("note")

        with capture(taskq) as outer:
            note.delay(n=1)
            with capture(taskq) as inner:
                note.delay(n=2)
            note.delay(n=3)

        assert [task.arguments["n"] for task in outer.enqueued] == [1, 3]
        assert [task.arguments["n"] for task in inner.enqueued] == [2]

    def test_enqueues_of_other_threads_are_captured(self, taskq: TaskQ) -> None:
        note = taskq.remote("note")

        with capture(taskq) as tasks:
            thread = threading.Thread(target=note.delay)
            thread.start()
            thread.join()

        assert len(tasks.enqueued) == 1

    def test_two_applications_are_captured_separately(self, taskq: TaskQ) -> None:
        other = TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=0.01)

        with capture(taskq) as tasks, pytest.raises(EnqueueError):
            other.remote("note").delay()

        assert tasks.enqueued == []

    def test_a_duplicate_id_or_lock_is_refused(self, taskq: TaskQ) -> None:
        note = taskq.remote("note")

        with capture(taskq) as tasks:
            note.using(task_id="a").delay()
            with pytest.raises(TaskIdConflictError):
                note.using(task_id="a").delay()
            note.using(unique_for=60).delay(n=1)
            with pytest.raises(DuplicateTaskError):
                note.using(unique_for=60).delay(n=1)
            result = taskq.client.enqueue_many([note.using(task_id=each).s() for each in ("a", "b")])

        assert result.ids == ["b"]
        assert len(tasks.enqueued) == 3

    def test_handles_and_inspectors_work_inside_the_block(self, taskq: TaskQ) -> None:
        with capture(taskq):
            handle = taskq.remote("note").delay()

            assert Inspector(taskq).queue_info("default").sizes[TaskState.PENDING] == 1
            assert handle.cancel()
            with pytest.raises(TaskNotFoundError):
                handle.refresh()

    def test_arguments_are_checked(self, taskq: TaskQ) -> None:
        @taskq.task(name="add")
        def add(a: int) -> None: ...

        with capture(taskq) as tasks:
            with pytest.raises(TaskArgumentsError):
                add.delay("one")  # type: ignore[arg-type]  # the mistake under test

            tasks.assert_nothing_enqueued()

    async def test_it_works_in_coroutines(self, taskq: TaskQ) -> None:
        note = taskq.remote("note")

        with capture(taskq) as tasks:
            await asyncio.gather(*(note.adelay(n=n) for n in range(60)))

        assert sorted(task.arguments["n"] for task in tasks.enqueued) == list(range(60))  # type: ignore[type-var]


async def _enqueue(client: Any, note: Any) -> None:
    await client.enqueue(note.s(n=4))
    await client.enqueue_many([note.s(n=5)])


class TestRecords:
    @pytest.mark.filterwarnings("ignore::taskq_core.QueueUnservedWarning")
    def test_a_record_has_the_options_of_its_call(self, taskq: TaskQ) -> None:
        @taskq.task(name="report", queue="low", max_retry=2, timeout=90, retention=60, headers={"tenant": "a"})
        def report(day: datetime, title: str = "none") -> None: ...

        day = datetime(2030, 1, 2, tzinfo=UTC)
        with capture(taskq) as tasks:
            handle = report.using(run_after=90, unique_for=60).delay(day)

        (task,) = tasks.enqueued
        assert task == EnqueuedTask(
            id=handle.id,
            name="report",
            queue="low",
            arguments={"day": day},
            payload=b'{"day":"2030-01-02T00:00:00Z"}',
            headers={"tenant": "a"},
            max_retry=2,
            timeout=timedelta(seconds=90),
            deadline=None,
            retention=timedelta(seconds=60),
            group="",
            run_after=timedelta(seconds=90),
            run_at=None,
            is_unique=True,
        )
        assert str(task) == f"report(day={day!r}) in 'low', 0:01:30"

    def test_records_have_the_requested_times(self, taskq: TaskQ) -> None:
        moment = datetime(2030, 1, 2, tzinfo=UTC)

        with capture(taskq) as tasks:
            taskq.remote("note").using(run_after=moment, deadline=moment).delay()

        assert (tasks.enqueued[0].run_at, tasks.enqueued[0].deadline) == (moment, moment)
        assert tasks.enqueued[0].run_after is None

    def test_a_payload_that_is_no_json_object_has_no_arguments(self, taskq: TaskQ) -> None:
        with capture(taskq) as tasks:
            taskq.remote("note").delay(b"\x00\xff")

        assert (tasks.enqueued[0].arguments, tasks.enqueued[0].payload) == ({}, b"\x00\xff")


class TestRun:
    @pytest.fixture
    def ran(self) -> list[Any]:
        return []

    def test_no_task_runs_without_a_call_of_run(self, taskq: TaskQ, ran: list[Any]) -> None:
        with capture(taskq) as tasks:
            taskq.task(name="note")(lambda n: ran.append(n)).delay(1)
            assert ran == []

            runs = tasks.run()

        assert ran == [1]
        assert [(run.name, run.outcome, run.attempt) for run in runs] == [("note", "completed", 1)]
        assert tasks.runs == runs

    def test_arguments_are_encoded_and_decoded(self, taskq: TaskQ, ran: list[Any]) -> None:
        @taskq.task(name="note")
        def note(moment: datetime, anything: Any) -> None:
            ran.append((moment, anything))

        moment = datetime(2030, 1, 2, tzinfo=UTC)
        with capture(taskq) as tasks:
            note.delay(moment, (1, 2))
            tasks.run()

        assert ran == [(moment, [1, 2])]

    def test_tasks_run_in_the_calling_thread(self, taskq: TaskQ, ran: list[Any]) -> None:
        with capture(taskq) as tasks:
            taskq.task(name="note")(lambda: ran.append(threading.current_thread())).delay()
            tasks.run()

        assert ran == [threading.current_thread()]

    def test_blocking_code_runs_coroutine_tasks(self, taskq: TaskQ) -> None:
        @taskq.task(name="double", retention=60)
        async def double(n: int) -> int:
            await asyncio.sleep(0)
            return 2 * n

        with capture(taskq) as tasks:
            handle = double.delay(4)
            tasks.run()

            assert handle.result(timeout=60) == 8

    async def test_coroutines_run_all_kinds_of_tasks(self, taskq: TaskQ) -> None:
        """A coroutine runs on the running loop, and a plain function runs outside of it."""
        loops: list[Any] = []

        @taskq.task(name="coroutine", retention=60)
        async def coroutine() -> str:
            loops.append(asyncio.get_running_loop())
            return current_task().name

        @taskq.task(name="plain", retention=60)
        def plain() -> str:
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            return current_task().name

        with capture(taskq) as tasks:
            handles = [await coroutine.adelay(), await plain.adelay()]
            await tasks.arun()

            assert [await handle.aresult(timeout=60) for handle in handles] == ["coroutine", "plain"]
        assert loops == [asyncio.get_running_loop()]

    def test_tasks_enqueued_by_tasks_run(self, taskq: TaskQ, ran: list[Any]) -> None:
        @taskq.task(name="count_down")
        def count_down(n: int) -> None:
            ran.append(n)
            if n:
                count_down.delay(n - 1)

        with capture(taskq) as tasks:
            count_down.delay(3)
            tasks.run()

        assert ran == [3, 2, 1, 0]
        tasks.assert_enqueued(count_down, count=4)

    def test_an_endless_chain_of_tasks_is_an_error(self, taskq: TaskQ, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("taskq_core.testing.captured.MOST_RUNS", 20)

        @taskq.task(name="again")
        def again() -> None:
            again.delay()

        with capture(taskq) as tasks:
            again.delay()

            with pytest.raises(RuntimeError, match="20 runs"):
                tasks.run()

    @pytest.mark.filterwarnings("ignore::taskq_core.QueueUnservedWarning")
    def test_queues_are_ordered_by_their_weight(self, taskq: TaskQ, ran: list[Any]) -> None:
        note = taskq.task(name="note")(lambda n: ran.append(n))

        with capture(taskq) as tasks:
            for number, queue in enumerate(("unserved", "default", "critical", "critical")):
                note.using(queue=queue).delay(number)
            tasks.run()

        assert ran == [2, 3, 1, 0]

    def test_a_task_has_its_context(self, taskq: TaskQ) -> None:
        @taskq.task(name="tell", retention=60, headers={"tenant": "a"}, max_retry=7, timeout=60)
        def tell(context: TaskContext) -> list[Any]:
            assert current_task() is context
            assert context.deadline is not None
            assert not context.local
            return [context.id, context.queue, context.attempt, context.max_retry, dict(context.headers)]

        with capture(taskq) as tasks:
            handle = tell.delay()
            tasks.run()

            assert handle.result() == [handle.id, "default", 1, 7, {"tenant": "a"}]

    def test_a_task_writes_its_result_while_it_runs(self, taskq: TaskQ) -> None:
        @taskq.task(name="tell", retention=60)
        def tell(context: TaskContext) -> None:
            context.write_result(b"half")
            states.append(Inspector(taskq).task("default", context.id).result)  # type: ignore[union-attr]

        states: list[bytes] = []
        with capture(taskq) as tasks:
            tell.delay()
            tasks.run()

        assert states == [b"half"]

    def test_middleware_wraps_runs_except_worker_middleware(self, taskq: TaskQ, ran: list[Any]) -> None:
        class Around(Middleware):
            def around(self, context: TaskContext, call: Any) -> object:
                ran.append(f"around {context.name}")
                return call()

            async def aaround(self, context: TaskContext, call: Any) -> object:
                ran.append(f"aaround {context.name}")
                return await call()

        class OfWorkers(Around):
            only_in_workers = True

        for each in (Around(), OfWorkers()):
            taskq.use(each)

        @taskq.task(name="coroutine")
        async def coroutine() -> None: ...

        with capture(taskq) as tasks:
            taskq.task(name="plain")(lambda: None).delay()
            coroutine.delay()
            tasks.run()

        assert ran == ["around plain", "aaround coroutine"]

    def test_tasks_without_code_stay_pending(self, taskq: TaskQ, ran: list[Any]) -> None:
        with capture(taskq) as tasks:
            handles = [taskq.remote("go:task").delay() for _ in range(2)]
            taskq.task(name="note")(lambda: ran.append(1)).delay()

            runs = tasks.run()

            assert [run.name for run in runs] == ["note"]
            page = Inspector(taskq).tasks("default", TaskState.PENDING)
            assert [task.id for task in page.tasks] == [handle.id for handle in handles]

    def test_handlers_run_tasks_that_match_their_pattern(self, taskq: TaskQ, ran: list[Any]) -> None:
        @taskq.handler("email:")
        def handle(message: Any) -> None:
            ran.append((message.type, message.payload))

        with capture(taskq) as tasks:
            taskq.remote("email:welcome").delay(to="a@b.c")
            tasks.run()

        assert ran == [("email:welcome", b'{"to":"a@b.c"}')]

    def test_tasks_of_a_paused_queue_do_not_run(self, taskq: TaskQ, ran: list[Any]) -> None:
        with capture(taskq) as tasks:
            taskq.task(name="note")(lambda: ran.append(1)).delay()
            Inspector(taskq).pause("default")

            assert tasks.run() == []

    def test_an_interrupted_test_leaves_the_task_where_it_was(self, taskq: TaskQ) -> None:
        @taskq.task(name="stop")
        def stop() -> None:
            raise KeyboardInterrupt

        with capture(taskq) as tasks:
            handles = [stop.delay(), stop.delay()]
            with pytest.raises(KeyboardInterrupt):
                tasks.run()

            page = Inspector(taskq).tasks("default", TaskState.PENDING)
        assert {task.id for task in page.tasks} == {handle.id for handle in handles}


class TestFailures:
    @pytest.fixture
    def fail(self, taskq: TaskQ) -> Any:
        @taskq.task(name="fail", max_retry=2, retry_delay=30, retention=60)
        def fail(until: int = 99) -> int:
            attempt = current_task().attempt
            if attempt < until:
                raise ValueError(f"attempt {attempt}")
            return attempt

        return fail

    def test_failures_are_raised(self, taskq: TaskQ, fail: Any) -> None:
        """The exception is the task's own, with a note that names the task."""
        with capture(taskq) as tasks:
            handle = fail.delay()
            fail.delay(until=1)

            with pytest.raises(ValueError, match="attempt 1") as caught:
                tasks.run()

        error = caught.value
        assert repr(error) == "ValueError('attempt 1')"
        assert error.__notes__ == [f"in task 'fail' ({handle.id}), attempt 1, retried"]
        assert len(tasks.runs) == 2

    def test_failures_can_be_returned_instead_of_raised(self, taskq: TaskQ, fail: Any) -> None:
        with capture(taskq) as tasks:
            handle = fail.delay()

            (run,) = tasks.run(raises=False)

            assert (run.outcome, run.has_failed) == ("retried", True)
            assert handle.refresh().state is TaskState.RETRY
            assert handle.refresh().last_error == "ValueError: attempt 1"

    def test_retries_wait_for_their_time(self, taskq: TaskQ, fail: Any) -> None:
        with capture(taskq) as tasks:
            handle = fail.delay(until=2)
            tasks.run(raises=False)

            assert tasks.run(advance=25) == []
            (run,) = tasks.run(advance=10)

            assert (run.outcome, run.attempt) == ("completed", 2)
            assert handle.result() == 2

    def test_a_task_that_succeeds_after_retries_is_no_failure(self, taskq: TaskQ, fail: Any) -> None:
        with capture(taskq) as tasks:
            fail.delay(until=3)

            runs = tasks.run(advance=timedelta(minutes=5))

        assert [run.outcome for run in runs] == ["retried", "retried", "completed"]

    def test_a_task_without_attempts_left_is_archived(self, taskq: TaskQ, fail: Any) -> None:
        with capture(taskq) as tasks:
            handle = fail.delay()

            runs = tasks.run(advance=timedelta(days=1), raises=False)

            assert [run.outcome for run in runs] == ["retried", "retried", "archived"]
            with pytest.raises(TaskFailedError, match="attempt 3"):
                handle.result()

    @pytest.mark.parametrize(
        ("error", "outcome"),
        [(Discard(), "discarded"), (SkipRetry("no"), "archived"), (Snooze(60), "snoozed"), (Retry(60), "retried")],
    )
    def test_snooze_and_discard_work(self, taskq: TaskQ, error: BaseException, outcome: str) -> None:
        @taskq.task(name="steer")
        def steer() -> None:
            raise error

        with capture(taskq) as tasks:
            steer.delay()

            assert [run.outcome for run in tasks.run(raises=False)] == [outcome]

    def test_a_task_without_retention_explains_its_missing_result(self, taskq: TaskQ) -> None:
        with capture(taskq) as tasks:
            handle = taskq.task(name="note")(lambda: 1).delay()
            tasks.run()

            with pytest.raises(ResultNotKeptError):
                handle.result()

    def test_error_handlers_are_called(self, taskq: TaskQ, fail: Any) -> None:
        told: list[Any] = []

        @taskq.on_error
        def plain(error: BaseException, context: TaskContext) -> None:
            told.append((str(error), context.name, context.outcome))
            raise RuntimeError("is logged and harms nothing")

        @taskq.on_error
        async def coroutine(error: BaseException, context: TaskContext) -> None:
            told.append(str(error))

        with capture(taskq) as tasks:
            fail.delay()
            tasks.run(raises=False)

        assert told == [("attempt 1", "fail", "retried"), "attempt 1"]

    async def test_it_works_in_coroutines(self, taskq: TaskQ, fail: Any) -> None:
        told: list[Any] = []
        taskq.on_error(lambda error, context: told.append(str(error)))

        with capture(taskq) as tasks:
            await fail.adelay()
            with pytest.raises(ValueError, match="attempt 1"):
                await tasks.arun()

        assert told == ["attempt 1"]


class TestTime:
    def test_run_without_until_advances_no_time(self, taskq: TaskQ) -> None:
        with capture(taskq) as tasks:
            taskq.task(name="note", run_after=5)(lambda: None).delay()

            assert tasks.run() == []

    def test_scheduled_tasks_run_in_the_order_of_their_starts(self, taskq: TaskQ) -> None:
        """This includes tasks scheduled by a task, with their delay after it, across all queues."""
        ran: list[str] = []

        @taskq.task(name="note")
        def note(word: str, then_s: int = 0) -> None:
            ran.append(word)
            if then_s:
                note.using(run_after=then_s).delay(f"{word}, later")

        with capture(taskq) as tasks:
            note.using(run_after=7200, queue="critical").delay("two hours")
            note.using(run_after=3600).delay("one hour", then_s=1800)
            note.using(run_after=timedelta(days=2)).delay("two days")
            note.delay("now")

            tasks.run(advance=timedelta(days=1))

        assert ran == ["now", "one hour", "one hour, later", "two hours"]

    def test_advanced_time_is_kept(self, taskq: TaskQ) -> None:
        with capture(taskq) as tasks:
            note = taskq.task(name="note")(lambda: None)
            note.using(run_after=50).delay()
            note.using(run_after=100).delay()

            assert len(tasks.run(advance=60)) == 1
            assert len(tasks.run(advance=55)) == 1


class TestUnittest(unittest.TestCase):
    def test_capture_works_as_a_context_of_a_unittest(self) -> None:
        taskq = TaskQ("redis://127.0.0.1:1/0")
        tasks = self.enterContext(capture(taskq))

        taskq.remote("note").delay()

        tasks.assert_enqueued("note")


class TestUnittestAsync(unittest.IsolatedAsyncioTestCase):
    async def test_capture_works_as_a_context_of_a_unittest(self) -> None:
        taskq = TaskQ("redis://127.0.0.1:1/0")
        tasks = self.enterContext(capture(taskq))

        await taskq.remote("note").adelay()

        tasks.assert_enqueued("note")
