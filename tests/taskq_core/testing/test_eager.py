"""`eager`: a task runs inside the call that enqueues it."""

import asyncio
import logging
import threading
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any

import pytest

from taskq_core import (
    DuplicateTaskError,
    EnqueueError,
    ResultNotKeptError,
    Snooze,
    TaskFailedError,
    TaskNotFoundError,
    TaskQ,
    TaskState,
    current_task,
)
from taskq_core.broker.operations.operation import BATCH_MAX
from taskq_core.inspector import Inspector
from taskq_core.testing import capture, eager
from taskq_core.testing.captured import StandingEager
from tests.logged import logged_here


@pytest.fixture
def ran() -> list[Any]:
    return []


@pytest.fixture
def fail(taskq: TaskQ) -> Any:
    @taskq.task(name="fail", max_retry=2, retry_delay=30, retention=60)
    def fail(until: int = 99) -> int:
        attempt = current_task().attempt
        if attempt < until:
            raise ValueError(f"attempt {attempt}")
        return attempt

    return fail


def test_a_task_has_run_when_the_call_returns(taskq: TaskQ, ran: list[Any]) -> None:
    """The task runs in this thread, and its result is read from the store."""

    @taskq.task(name="pair", retention=60)
    def pair(a: int, b: int = 2) -> tuple[int, int]:
        ran.append(threading.current_thread())
        return a, b

    with eager(taskq) as tasks:
        handle = pair.delay(1)
        assert ran == [threading.current_thread()]
        assert handle.result() == (1, 2)

    tasks.assert_enqueued(pair, a=1)
    assert [run.outcome for run in tasks.runs] == ["completed"]


def test_results_are_stored(taskq: TaskQ) -> None:
    with eager(taskq):
        handle = taskq.task(name="note")(lambda: 1).delay()

        with pytest.raises(ResultNotKeptError):
            handle.result()
        with pytest.raises(TaskNotFoundError):
            handle.refresh()


def test_a_delayed_task_runs_at_once(taskq: TaskQ, ran: list[Any]) -> None:
    with eager(taskq):
        taskq.task(name="note")(lambda: ran.append(1)).using(run_after=3600).delay()

    assert ran == [1]


def test_a_bulk_enqueue_runs_all_tasks(taskq: TaskQ, ran: list[Any]) -> None:
    note = taskq.task(name="note")(lambda n: ran.append(n))

    with eager(taskq):
        taskq.client.enqueue_many(note.s(n) for n in range(BATCH_MAX + 5))

    assert ran == list(range(BATCH_MAX + 5))


def test_a_task_enqueued_by_a_task_runs_inside_it(taskq: TaskQ, ran: list[Any]) -> None:
    @taskq.task(name="outer")
    def outer() -> None:
        ran.append("outer begins")
        inner.delay()
        ran.append("outer ends")

    @taskq.task(name="inner")
    async def inner() -> None:
        ran.append(current_task().name)

    with eager(taskq):
        outer.delay()

    assert ran == ["outer begins", "inner", "outer ends"]


def test_a_unique_lock_is_held_during_the_run_and_released_after_it(taskq: TaskQ, ran: list[Any]) -> None:
    @taskq.task(name="once", unique_for=60)
    def once() -> None:
        with pytest.raises(DuplicateTaskError):
            once.delay()
        ran.append(1)

    with eager(taskq):
        once.delay()
        once.delay()

    assert ran == [1, 1]


def test_blocking_code_below_a_coroutine_runs_coroutine_tasks(taskq: TaskQ, ran: list[Any]) -> None:
    """They run on another event loop, because the call blocks the current one."""
    word: ContextVar[str] = ContextVar("word")

    @taskq.task(name="coroutine")
    async def coroutine() -> None:
        ran.append((word.get(), asyncio.get_running_loop()))

    async def main() -> None:
        word.set("seen")
        taskq.client.enqueue(coroutine.s())
        (seen,) = ran
        assert seen[0] == "seen"
        assert seen[1] is not asyncio.get_running_loop()

    with eager(taskq):
        asyncio.run(main())


async def test_it_works_in_coroutines(taskq: TaskQ) -> None:
    @taskq.task(name="double", retention=60)
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    @taskq.task(name="negative", retention=60)
    def negative(n: int) -> int:
        return -n

    with eager(taskq):
        handles = await asyncio.gather(*(each.adelay(n) for n in range(20) for each in (double, negative)))
        results = [await handle.aresult() for handle in handles]

    assert results == [each(n) for n in range(20) for each in (lambda n: 2 * n, lambda n: -n)]


async def test_coroutines_that_wait_for_each_other_do_not_deadlock(taskq: TaskQ) -> None:
    """Each call runs its own task, so a waiting task does not block others."""
    waits, begun = asyncio.Event(), asyncio.Event()

    @taskq.task(name="wait")
    async def wait() -> None:
        waits.set()
        await begun.wait()

    @taskq.task(name="begin")
    async def begin() -> None:
        begun.set()

    with eager(taskq):
        waiting = asyncio.create_task(wait.adelay())
        await waits.wait()
        await begin.adelay()
        await waiting


def test_each_thread_runs_its_own_tasks(taskq: TaskQ, ran: list[Any]) -> None:
    note = taskq.task(name="note")(lambda n: ran.append((n, threading.current_thread())))
    threads = [threading.Thread(target=lambda n=n: [note.delay(n) for _ in range(10)]) for n in range(4)]

    with eager(taskq):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(ran) == 40
    assert {(n, threads[n]) for n in range(4)} == set(ran)


def test_tasks_without_code_stay_pending(taskq: TaskQ) -> None:
    with eager(taskq) as tasks:
        handle = taskq.remote("go:task").delay()
        assert handle.refresh().state is TaskState.PENDING

    tasks.assert_enqueued("go:task")


class TestFailures:
    def test_failures_reach_the_handle_and_end_the_block(self, taskq: TaskQ, fail: Any) -> None:
        with ExitStack() as stack:
            stack.enter_context(eager(taskq))
            handle = fail.delay()
            assert handle.refresh().state is TaskState.RETRY
            assert handle.refresh().last_error == "ValueError: attempt 1"

            with pytest.raises(ValueError, match="attempt 1") as caught:
                stack.close()

        error = caught.value
        assert repr(error) == "ValueError('attempt 1')"
        assert error.__traceback__ is not None
        assert error.__notes__ == [f"in task 'fail' ({handle.id}), attempt 1, retried"]

    def test_failures_do_not_end_the_block_if_disabled(self, taskq: TaskQ, fail: Any) -> None:
        with eager(taskq, raises=False) as tasks:
            fail.delay()

        assert [run.outcome for run in tasks.runs] == ["retried"]

    def test_an_exception_of_the_block_takes_precedence(self, taskq: TaskQ, fail: Any) -> None:
        with pytest.raises(ZeroDivisionError), eager(taskq):
            raise ZeroDivisionError(fail.delay())

    def test_retries_run_at_once(self, taskq: TaskQ, fail: Any) -> None:
        with eager(taskq, retries=True) as tasks:
            assert fail.delay(until=3).result() == 3

        assert [(run.attempt, run.outcome) for run in tasks.runs] == [(1, "retried"), (2, "retried"), (3, "completed")]

    def test_retries_run_until_the_task_is_archived(self, taskq: TaskQ, fail: Any) -> None:
        with eager(taskq, retries=True, raises=False) as tasks, pytest.raises(TaskFailedError, match="attempt 3"):
            fail.delay().result()

        assert [run.outcome for run in tasks.runs] == ["retried", "retried", "archived"]

    def test_an_endlessly_snoozing_task_stops_after_a_maximum_of_runs(
        self, taskq: TaskQ, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("taskq_core.testing.captured.MOST_ATTEMPTS", 5)

        @taskq.task(name="sleepy")
        def sleepy() -> None:
            raise Snooze(60)

        with eager(taskq, retries=True) as tasks:
            sleepy.delay()

        assert [run.outcome for run in tasks.runs] == ["snoozed"] * 5

    async def test_it_works_in_coroutines(self, taskq: TaskQ) -> None:
        @taskq.task(name="fail")
        async def fail(n: int) -> None:
            if n:
                raise ValueError(n)

        with pytest.raises(ValueError, match="1") as caught, eager(taskq):
            await asyncio.gather(*(fail.adelay(n) for n in range(3)))

        assert [note.partition(" (")[0] for note in caught.value.__notes__] == [
            "in task 'fail'",
            "also failed: ValueError(2) in task 'fail'",
        ]

    def test_a_swallowed_failure_still_ends_the_block(self, taskq: TaskQ, fail: Any) -> None:
        @taskq.task(name="outer")
        def outer() -> None:
            fail.delay()

        with pytest.raises(ValueError, match="attempt 1"), eager(taskq):
            outer.delay()


def test_an_endless_recursion_of_tasks_is_an_error(taskq: TaskQ) -> None:
    """The innermost is refused, whatever the kinds of the functions; those around it have enqueued theirs."""

    @taskq.task(name="plain", max_retry=0)
    def plain(n: int) -> None:
        coroutine.delay(n + 1)

    @taskq.task(name="coroutine", max_retry=0)
    async def coroutine(n: int) -> None:
        await (plain if n == 20 else coroutine).adelay(n + 1)

    endless = "tasks seem to enqueue each other without end: 50 tasks run inside each other"
    with pytest.raises(EnqueueError, match=endless), eager(taskq) as tasks:
        coroutine.delay(1)

    assert [run.outcome for run in tasks.runs] == ["archived"] + ["completed"] * 49


async def test_consecutive_tasks_are_not_nested(taskq: TaskQ, ran: list[Any]) -> None:
    @taskq.task(name="note")
    async def note(n: int) -> None:
        ran.append(n)

    with eager(taskq):
        await asyncio.gather(*(note.adelay(n) for n in range(20)))
        for n in range(20, 60):
            await note.adelay(n)

    assert sorted(ran) == list(range(60))


def test_eager_inside_capture_takes_precedence(taskq: TaskQ, ran: list[Any]) -> None:
    note = taskq.task(name="note")(lambda n: ran.append(n))

    with capture(taskq) as tasks:
        note.delay(1)
        with eager(taskq):
            note.delay(2)

    assert ran == [2]
    assert len(tasks.enqueued) == 1


def test_permanent_eager_mode_stores_no_runs_and_logs_failures(
    taskq: TaskQ, fail: Any, caplog: pytest.LogCaptureFixture
) -> None:
    standing = StandingEager(taskq)
    taskq.divert(standing.store)

    with caplog.at_level(logging.ERROR, logger="taskq.testing"):
        handle = fail.delay()
        taskq.task(name="note")(lambda: None).delay()

    assert (standing.enqueued, standing.runs) == ([], [])
    (record,) = logged_here(caplog)
    assert record.getMessage() == "task fail failed"
    assert record.task_id == handle.id  # type: ignore[attr-defined]  # a field that taskq adds
    assert record.exc_info is not None
    assert Inspector(taskq).queue_info("default").sizes[TaskState.ARCHIVED] == 1, "nobody tries it again"


# --- task failures raised to the caller -------------------------------------------------------------------------------


def test_propagates_raises_the_failure_in_delay(taskq: TaskQ, fail: Any) -> None:
    """The error is raised once, not again at the end of the block. A note names the task."""
    with eager(taskq, propagates=True) as tasks, pytest.raises(ValueError, match="attempt 1") as caught:
        fail.delay()

    (run,) = tasks.runs
    assert caught.value.__notes__ == [f"in task 'fail' ({run.id}), attempt 1, retried"]


async def test_propagates_raises_the_failure_in_a_coroutine(taskq: TaskQ, fail: Any) -> None:
    with eager(taskq, propagates=True):
        with pytest.raises(ValueError, match="attempt 1"):
            await fail.adelay()
        with pytest.raises(ValueError, match="attempt 1"):
            await taskq.async_client.enqueue_many([fail.s()])


def test_propagates_raises_the_last_failure_of_retries(taskq: TaskQ, fail: Any) -> None:
    with eager(taskq, propagates=True, retries=True) as tasks:
        assert fail.delay(until=3).result() == 3
        with pytest.raises(ValueError, match="attempt 3"):
            fail.delay()

    assert len(tasks.runs) == 6


def test_propagates_runs_all_tasks_of_a_batch_first(taskq: TaskQ, fail: Any) -> None:
    with eager(taskq, propagates=True) as tasks, pytest.raises(ValueError, match="attempt 1"):
        taskq.client.enqueue_many([fail.s(), fail.s(until=1), fail.s()])

    assert [run.outcome for run in tasks.runs] == ["retried", "completed", "retried"]


def test_a_failure_of_a_nested_task_fails_both_tasks(taskq: TaskQ, fail: Any) -> None:
    outer = taskq.task(name="outer")(lambda: fail.delay())

    with eager(taskq, propagates=True) as tasks, pytest.raises(ValueError, match="attempt 1"):
        outer.delay()

    assert [run.name for run in tasks.runs] == ["fail", "outer"]


def test_the_store_works_after_any_number_of_failures(taskq: TaskQ, fail: Any) -> None:
    """The circuit breaker counts only failures of Redis, not failures of tasks."""
    with eager(taskq, propagates=True):
        for _ in range(20):
            with pytest.raises(ValueError, match="attempt 1"):
                fail.delay()


def test_propagates_changes_nothing_without_a_failure(taskq: TaskQ, fail: Any) -> None:
    with eager(taskq, propagates=True):
        assert fail.delay(until=1).result() == 1
