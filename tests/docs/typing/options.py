"""Read by type checkers, never run. A line that ends in `# error` must be refused by each of them, no other may be."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from taskq_core import RemoteTask, Signature, TaskHandle, TaskQ, TaskState, current_task, exponential

taskq = TaskQ("redis://localhost", concurrency=3, defaults={"max_retry": 3})


@taskq.task(
    name="t",
    strict=True,
    queue="q",
    max_retry=3,
    retry_delay=exponential(1, limit=timedelta(minutes=5)),
    retry_on=OSError,
    no_retry_on=(ValueError, KeyError),
    timeout=timedelta(seconds=5),
    deadline=datetime(2030, 1, 1, tzinfo=UTC),
    retention=60,
    unique_for=timedelta(hours=1),
    headers={"a": "b"},
    replicated=True,
    fsynced=False,
)
def task() -> None: ...


@taskq.task(quue="x")  # error
def misspelt() -> None: ...


@taskq.task(max_retry="3")  # error
def mistyped() -> None: ...


task.using(run_after=5, task_id="x").using(run_after=datetime.now(UTC))
taskq.task(retry_delay=[1, 5.5, timedelta(minutes=1)])
taskq.task(retry_delay=lambda retried, error: 5 * retried)
task.using(replicated=2)
task.using(replicated="all")  # error
task.using(run_at=5)  # error
task.using(run_after="5")  # error
task.using(headers={"a": 1})  # error
taskq.task(retry_on="OSError")  # error
task.using(retry_on=OSError)  # error
task.s().using(trace="link")  # error
taskq.remote("t", retry_delay=5)  # error
task.s().using(quue="x")  # error


async def remote() -> None:
    report = taskq.remote("report:build", queue="go", retention=60)
    assert_type(report, RemoteTask)
    assert_type(report.using(queue="x"), RemoteTask)
    assert_type(report.delay(To="a@b.c", n=5), TaskHandle[Any])
    assert_type(await report.adelay(b"bytes"), TaskHandle[Any])
    assert_type(report.s(a=1), Signature[Any])
    report.delay("text")  # error
    report(a=1)  # error
    taskq.remote("report:build", quue="go")  # error
    taskq.remote()  # error


def looking(handle: TaskHandle[int]) -> None:
    info = handle.refresh()
    assert_type(info.state, TaskState)
    assert_type(info.next_run_at, datetime | None)
    assert_type(info.timeout, timedelta | None)
    assert_type(handle.cancel(), bool)
    assert_type(handle.id, str)
    assert_type(taskq.client.enqueue_many([task.s()]).raise_errors(), None)
    assert_type(current_task().attempt, int)
    assert_type(current_task().headers, Mapping[str, str])
    info.state = TaskState.ACTIVE  # error
    handle.result(timeout="5")  # error
    current_task().write_result("text")  # error
