"""Test `taskq_django.TaskQBackend`: tasks of Django's task framework, enqueued to Redis and run by a worker."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from taskq_core import (
    Concurrency,
    DuplicateTaskError,
    EnqueueError,
    RateLimit,
    ResultTooLargeError,
    TaskArgumentsError,
    TaskState,
    Unique,
)
from taskq_core.broker.operations import runs
from taskq_core.inspector import Inspector
from taskq_core.tasks.options import CALL_OPTIONS, TaskOptionsDict, task_options
from taskq_core.worker import Worker, WorkerConfig
from taskq_django import TaskQBackend, taskq
from taskq_django.tasks_backend.facts import HEADER
from taskq_django.tasks_backend.framework import (
    BaseTaskBackend,
    InvalidTask,
    TaskResultDoesNotExist,
    TaskResultStatus,
)
from taskq_django.tasks_backend.options import REFUSED_OPTIONS, TASK_OPTIONS
from taskq_django.testing import adrain, drain
from tests.clock import at_time
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.parcels import tasks as parcels
from tests.taskq_django.shop.tasks import greet

pytestmark = pytest.mark.redis
READY, RUNNING, FAILED, SUCCESSFUL = (
    TaskResultStatus.READY,
    TaskResultStatus.RUNNING,
    TaskResultStatus.FAILED,
    TaskResultStatus.SUCCESSFUL,
)


@pytest.fixture(autouse=True)
def redis(redis_server: RedisServer, settings: Any) -> Iterator[RedisServer]:
    """Return an empty Redis that `TASKQ` points to. Workers serve the queues that `TASKS` needs."""
    settings.TASKQ = {"URL": redis_server.unix_url, "ENQUEUE_TIMEOUT": 30}
    yield redis_server
    taskq.close()


@pytest.fixture
def inspector() -> Inspector:
    return Inspector(taskq)


def backend() -> TaskQBackend:
    found = parcels.label.get_backend()
    assert isinstance(found, TaskQBackend)
    return found


def refreshed(result: Any) -> Any:
    result.refresh()
    return result


# --- the contract -----------------------------------------------------------------------------------------------------


def test_the_backend_declares_its_features() -> None:
    found = backend()

    assert isinstance(found, BaseTaskBackend)
    assert (found.supports_defer, found.supports_async_task) == (True, True)
    assert (found.supports_get_result, found.supports_priority) == (True, True)


@rows("name", ["label", "weigh", "track"])
def test_a_call_waits_and_a_worker_runs_it(name: str) -> None:
    task = getattr(parcels, name)
    before = timezone.now()
    result = task.enqueue(7)
    waiting = (result.status, result.is_finished, result.attempts, result.started_at, result.finished_at)
    with pytest.raises(ValueError, match="has not finished yet"):
        _ = result.return_value

    drain()

    assert waiting == (READY, False, 0, None, None)
    result.refresh()
    assert (result.status, result.is_finished, result.attempts) == (SUCCESSFUL, True, 1)
    assert result.return_value == {
        "label": {"args": [7], "kwargs": {}},
        "weigh": [7, "kg", False],
        "track": "parcel 7 is on its way",
    }.get(name)
    assert before <= result.enqueued_at <= result.started_at == result.last_attempted_at <= result.finished_at
    assert result.finished_at <= timezone.now() + timedelta(seconds=5)
    assert len(result.worker_ids[0]) == 16
    assert (result.task, result.args, result.kwargs, result.errors) == (task, [7], {}, [])


def test_a_workflow_passes_a_result_to_a_task_of_the_framework() -> None:
    label = taskq.tasks[parcels.label.module_path]
    workflow = (greet.s("Ada") | label.s(7, note="x").using(retention=600)).delay()

    drain()

    assert workflow.result(0) == {"args": ["hello Ada", 7], "kwargs": {"note": "x"}}


def test_a_return_value_that_was_too_large(settings: Any) -> None:
    """The task is successful, but reading its return value raises `ValueError`, as for a task without a value."""
    settings.TASKQ = {**settings.TASKQ, "DEFAULTS": {"max_result_bytes": 10}}
    result = parcels.track.enqueue(7)

    drain()

    result.refresh()
    assert result.status == SUCCESSFUL
    with pytest.raises(ResultTooLargeError, match="its result of 24 bytes was not stored"):
        _ = result.return_value
    assert issubclass(ResultTooLargeError, ValueError)


async def test_coroutines_enqueue_and_read_without_the_blocking_client(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """`aenqueue`, `aget_result` and `arefresh` go through the asynchronous client."""
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "immediate"}
    monkeypatch.setattr(taskq.runtime.runner, "run", lambda *_, **__: pytest.fail("blocking"))

    results = await asyncio.gather(*(parcels.track.aenqueue(number) for number in range(20)))
    found = await parcels.track.aget_result(results[3].id)
    monkeypatch.undo()
    await adrain()
    await found.arefresh()

    assert found.return_value == "parcel 3 is on its way"
    assert len({result.id for result in results}) == 20


@rows(
    ("args", "kwargs"),
    [((1, 2), {"three": 3}), ((), {}), ((), {"args": 1, "kwargs": 2}), (({"a": [None, True, 1.5, "ä"]},), {})],
)
def test_arguments_come_back_as_they_were_given(args: Any, kwargs: Any) -> None:
    result = parcels.label.enqueue(*args, **kwargs)

    drain()

    found = parcels.label.get_result(result.id)
    assert (found.args, found.kwargs) == (list(args), kwargs)
    assert found.return_value == {"args": list(args), "kwargs": kwargs}


def test_arguments_without_a_json_form_are_refused_and_nothing_is_enqueued(redis: RedisServer) -> None:
    with pytest.raises(TypeError, match="Unsupported type"):
        parcels.label.enqueue(datetime.now(UTC))
    with pytest.raises(TaskArgumentsError, match="NaN and infinity"):
        parcels.label.enqueue(float("nan"))
    with pytest.raises(TaskArgumentsError, match="UTF-8"):
        parcels.label.enqueue("\ud800")
    with pytest.raises(TypeError, match="missing a required argument: 'parcel'"):
        parcels.weigh.enqueue(unit="kg")

    assert not redis.client.keys("asynq:*")


@pytest.mark.parametrize("name", ["lose", "alose"])
def test_a_failure_is_read_with_class_and_traceback(name: str) -> None:
    result = getattr(parcels, name).enqueue(7)

    drain(raises=False)

    found = backend().get_result(result.id)
    (error,) = found.errors
    assert (found.status, found.is_finished, found.attempts) == (FAILED, True, 1)
    assert error.exception_class_path == "tests.taskq_django.parcels.tasks.LostError"
    assert error.exception_class is parcels.LostError
    assert error.traceback.startswith("Traceback (most recent call last):\n")
    assert f"in {name}\n" in error.traceback
    assert error.traceback.endswith("LostError: parcel 7 is nowhere\n")
    assert "taskq_django/tasks_backend" not in error.traceback
    assert found.started_at <= found.finished_at
    with pytest.raises(ValueError, match="Task failed"):
        _ = found.return_value


def test_a_system_exit_and_a_result_without_a_json_form_are_failures() -> None:
    quit_early, opened = parcels.quit_early.enqueue(), parcels.open_box.enqueue()

    drain(raises=False)

    assert [refreshed(each).status for each in (quit_early, opened)] == [FAILED, FAILED]
    assert quit_early.errors[0].exception_class is SystemExit
    assert opened.errors[0].exception_class is TypeError
    assert "Unsupported type" in opened.errors[0].traceback
    assert opened._return_value is None


@pytest.mark.parametrize("name", ["stamp", "astamp"])
def test_a_task_may_take_its_context(name: str) -> None:
    result = getattr(parcels, name).enqueue(5)

    drain()

    result.refresh()
    expected = {"stamp": [result.id, 1, "RUNNING", 5, [5], {}], "astamp": [result.id, 1, 5]}[name]
    assert result.return_value == expected


def test_a_result_lists_every_attempt() -> None:
    """A task that waits for a retry is ready. Its result and its context list errors and workers of all attempts."""
    result = parcels.deliver.using(max_retry=3).enqueue(3, pause_s=20)
    lost = "tests.taskq_django.parcels.tasks.LostError"
    drain(raises=False)
    between = parcels.deliver.get_result(result.id)

    drain(raises=False, advance=60)

    result.refresh()
    assert (between.status, between.finished_at, between.attempts) == (READY, None, 1)
    assert [each.exception_class_path for each in between.errors] == [lost]
    assert (result.status, result.attempts) == (SUCCESSFUL, 3)
    assert result.return_value == [[lost, lost], 3]
    assert "nobody at door 2" in result.errors[1].traceback
    assert result.started_at < result.last_attempted_at <= result.finished_at
    assert result.started_at == between.started_at


def test_a_running_task_has_the_status_running() -> None:
    parcels.gate.clear()
    result = parcels.wait_at_gate.enqueue()
    working = threading.Thread(target=drain)
    working.start()
    try:
        deadline = time.monotonic() + 60
        while refreshed(result).status != RUNNING:
            assert time.monotonic() < deadline
        running = (result.attempts, result.started_at == result.last_attempted_at, result.finished_at)
    finally:
        parcels.gate.set()
        working.join()

    assert running == (1, True, None)
    assert result.enqueued_at <= result.started_at
    assert refreshed(result).return_value == "through"


async def test_a_task_whose_worker_was_lost_has_failed() -> None:
    """The result does not stay in the state running. A task of Django's framework runs once by default."""
    result = await parcels.label.aenqueue()
    keys = taskq.runtime.keys.queue("default")
    taken = at_time(int((time.time() - 90) * 1e9), runs.dequeue(keys, owner="lost", call=1, limit=1, lease_s=1))
    ((task_id, _),) = (await taskq.runtime.async_runner.run(taken)).tasks
    started = at_time(int((time.time() - 90) * 1e9), runs.mark_starts(keys, [(task_id, 1)], owner="lost"))
    await taskq.runtime.async_runner.run(started)
    worker = Worker(taskq, WorkerConfig(queues={"default": 1}))
    working = asyncio.create_task(worker.arun())
    try:
        async with asyncio.timeout(60):
            while not result.is_finished:
                await result.arefresh()
    finally:
        worker.stop()
        await working

    assert (result.status, result.attempts, result.worker_ids) == (FAILED, 1, ["lost"])
    assert result.errors[0].exception_class_path == "taskq_core.errors.LeaseLostError"


# --- ids --------------------------------------------------------------------------------------------------------------


def test_results_are_found_by_id_alone(inspector: Inspector) -> None:
    """This includes a task that an operator moved. Ids are short, as the framework requires."""
    result = parcels.label.enqueue(1)
    assert len(result.id) <= 64

    inspector.move_task("default", result.id, "default-low")

    assert backend().get_result(result.id).args == [1]


@rows("wrong", ["123", "", "0" * 32 + "-c522b539", "a\nb"])
async def test_get_result_of_an_unknown_id_is_refused(wrong: str) -> None:
    with pytest.raises(TaskResultDoesNotExist):
        parcels.label.get_result(wrong)
    with pytest.raises(TaskResultDoesNotExist):
        await parcels.label.aget_result(wrong)


def test_a_result_of_another_task_is_refused() -> None:
    other = parcels.lose.enqueue(1)
    ours = greet.delay("Ada")

    with pytest.raises(Exception, match="Task does not match"):
        parcels.label.get_result(other.id)
    with pytest.raises(TaskResultDoesNotExist):
        parcels.label.get_result(ours.id)


# --- when and where ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_delta", [True, False])
def test_a_task_may_be_deferred(as_delta: bool) -> None:
    """`run_after` is a fixed time, or a duration after each enqueue."""
    delay = timedelta(hours=1)
    run_after: Any = delay if as_delta else timezone.now() + delay
    later = parcels.label.using(run_after=run_after)
    result = later.enqueue()
    drain()
    waiting = parcels.label.get_result(result.id)

    drain(advance=3700)

    assert (waiting.status, waiting.task.run_after) == (READY, run_after)
    assert waiting.task == later
    assert refreshed(result).status == SUCCESSFUL


def test_a_run_after_in_the_past_runs_now() -> None:
    results = [parcels.label.using(run_after=each).enqueue() for each in (timedelta(-1), timezone.now() - timedelta(9))]

    drain()

    assert [refreshed(each).status for each in results] == [SUCCESSFUL, SUCCESSFUL]


@rows(("priority", "queue"), [(100, "default-high"), (1, "default-high"), (0, "default"), (-1, "default-low")])
def test_each_priority_band_has_a_separate_queue(priority: int, queue: str, inspector: Inspector) -> None:
    result = parcels.label.using(priority=priority).enqueue()

    assert inspector.task(queue, result.id).id == result.id
    found = parcels.label.get_result(result.id)
    assert (found.task.priority, found.task.queue_name) == (priority, "default")


def test_the_higher_band_is_served_first_with_strict_priority(settings: Any) -> None:
    settings.TASKQ = {**settings.TASKQ, "STRICT_PRIORITY": True, "CONCURRENCY": 1}
    for priority in (-5, 0, 5):
        parcels.label.using(priority=priority).enqueue()

    queues = [run.queue for run in drain()]

    assert queues == ["default-high", "default", "default-low"]


def test_a_band_that_no_worker_serves_is_not_used(settings: Any) -> None:
    """A task is never sent to a queue without a worker."""
    settings.TASKQ = {**settings.TASKQ, "QUEUES": {"default": 1}}
    result = parcels.label.using(priority=50).enqueue()

    drain()

    assert refreshed(result).status == SUCCESSFUL
    assert result.task.priority == 50


def test_use_tz_may_be_off(settings: Any) -> None:
    settings.USE_TZ = False
    settings.TIME_ZONE = "Europe/Berlin"
    result = parcels.label.using(run_after=datetime.now() + timedelta(minutes=5)).enqueue()  # noqa: DTZ005 - naive, as Django's then are

    drain(advance=301)

    result.refresh()
    assert result.status == SUCCESSFUL
    assert result.enqueued_at.tzinfo is None
    assert abs(result.enqueued_at - datetime.now()) < timedelta(seconds=60)  # noqa: DTZ005 - naive


# --- options ----------------------------------------------------------------------------------------------------------


def test_using_takes_the_options_of_taskq(inspector: Inspector) -> None:
    chosen = parcels.label.using(
        priority=0, max_retry=4, timeout=30, retention=timedelta(minutes=2), headers={"tenant": "a"}
    )
    result = chosen.enqueue()

    info = inspector.task("default", result.id)

    assert (info.max_retry, info.timeout, info.retention) == (4, timedelta(seconds=30), timedelta(minutes=2))
    assert info.headers["tenant"] == "a"
    assert parcels.label.max_retry is None, "the task itself stays as it was"


def test_without_options_a_task_runs_once_and_is_kept_for_a_day(inspector: Inspector) -> None:
    info = inspector.task("default", parcels.label.enqueue().id)

    assert (info.max_retry, info.retention) == (0, timedelta(days=1))


def test_options_of_the_backend_come_before_those_of_the_settings(settings: Any, inspector: Inspector) -> None:
    settings.TASKQ = {
        **settings.TASKQ,
        "DEFAULTS": {"max_retry": 7, "timeout": 9, "retention": 5, "queue": "elsewhere"},
    }
    settings.TASKS = {
        "default": {"BACKEND": "taskq_django.TaskQBackend", "OPTIONS": {"DEFAULTS": {"max_retry": 2}}},
    }

    info = inspector.task("default", parcels.label.using(timeout=4).enqueue().id)

    assert (info.max_retry, info.timeout, info.retention) == (2, timedelta(seconds=4), timedelta(seconds=5))


def test_a_unique_task_is_refused_while_another_waits() -> None:
    unique = parcels.weigh.using(unique_for=60)
    unique.enqueue(1)

    with pytest.raises(DuplicateTaskError):
        unique.enqueue(1)
    unique.enqueue(2)


def test_a_replaced_unique_task_keeps_the_id_of_the_earlier_task() -> None:
    """The task has the arguments of the last enqueue."""
    unique = parcels.weigh.using(unique=Unique(args=[], on_conflict="replace"))
    first = unique.enqueue(1)

    second = unique.enqueue(2)

    assert second.id == first.id
    assert parcels.weigh.get_result(first.id).args == [2]


@rows(
    ("options", "words"),
    [
        ({"queue_name": "nowhere"}, "Queue 'nowhere' is not valid for backend."),
        ({"priority": 101}, "priority must be a whole number between -100 and 100."),
        ({"run_after": datetime(2030, 1, 1)}, "run_after must be an aware datetime."),  # noqa: DTZ001 - the mistake
        ({"run_after": 60}, "run_after must be a datetime or a timedelta, got 60."),
        ({"max_retry": -1}, "max_retry must be between 0"),
        ({"retention": "long"}, "retention"),
    ],
)
def test_invalid_options_are_refused_where_they_are_written(options: Any, words: str) -> None:
    with pytest.raises(InvalidTask, match=words):
        parcels.label.using(**options)


OPTIONS: dict[str, Any] = {
    "queue": "default",
    "priority": 4,
    "retry_priority": 5,
    "max_retry": 6,
    "timeout": 7,
    "deadline": datetime(2040, 1, 1, tzinfo=UTC),
    "run_after": 8,
    "expires": 900,
    "on_expiry": "discard",
    "dead_letter": parcels.label,
    "retention": 10,
    "task_id": "own",
    "unique_for": 60,
    "unique": Unique(args=["parcel"], on_conflict="replace"),
    "aggregate": "group",
    "rate_limit": RateLimit("100/m", key="parcel"),
    "concurrency": (3, Concurrency(1, key="unit")),
    "sequence": "parcel",
    "headers": {"tenant": "a"},
    "replicated": False,
    "fsynced": False,
    "retry_delay": [1, 2],
    "retry_on": (ValueError,),
    "no_retry_on": (KeyError,),
    "step_errors": (KeyError,),
    "max_emitted": 100,
    "is_failure": bool,
    "trace": "link",
    "max_result_bytes": 100,
    "on_missing": "discard",
    "signals": {"go": bool},
}
"""A value of each task option."""


@rows("name", sorted(TaskOptionsDict.__annotations__.keys() - {"priority", "run_after"}))  # the framework's own
def test_each_option_is_stored_as_for_other_tasks_or_refused_with_the_reason(
    name: str, redis: RedisServer, inspector: Inspector
) -> None:
    option, ours = {name: OPTIONS[name]}, (HEADER, "taskq-enqueued")

    def stored(task: Any, enqueue: str) -> tuple[object, ...]:
        redis.client.flushall()
        info = inspector.task("default", getattr(task.using(**option), enqueue)(1).id)
        headers = {header: text for header, text in info.headers.items() if header not in ours}
        return (
            info.payload,
            headers,
            info.state,
            info.max_retry,
            info.timeout,
            info.deadline,
            info.retention,
            info.group,
        )

    if name in REFUSED_OPTIONS:
        with pytest.raises(TypeError, match=f"'{name}': "):
            parcels.weigh.using(**option)
    elif name in CALL_OPTIONS:
        assert stored(parcels.weigh, "enqueue") == stored(taskq.tasks[parcels.weigh.module_path], "delay")
    else:
        with pytest.raises(InvalidTask, match=f"{name}=.* workers read it from the registered task"):
            parcels.weigh.using(**option)


@rows("task", [parcels.lose, taskq.remote("of another program", max_retry=0)])
def test_a_task_of_the_framework_is_a_dead_letter_of_both_interfaces(task: Any, inspector: Inspector) -> None:
    failing = task.using(dead_letter=parcels.bury)
    enqueued = (getattr(failing, "enqueue", None) or failing.delay)(parcel=1)

    drain(raises=False)

    completed = inspector.tasks("default", TaskState.COMPLETED).tasks
    found = parcels.bury.get_result(next(each.id for each in completed if enqueued.id in each.id))
    assert found.return_value[0] == enqueued.id
    assert datetime.fromisoformat(found.return_value[1]).tzinfo is UTC


@rows("name", TASK_OPTIONS)
def test_the_backend_has_a_default_for_each_option(name: str, settings: Any) -> None:
    value = "dead" if name == "dead_letter" else OPTIONS[name]
    settings.TASKS = {
        "default": {"BACKEND": "taskq_django.TaskQBackend", "OPTIONS": {"DEFAULTS": {name: value}}},
    }

    expected = getattr(task_options({name: value}), name)

    assert getattr(taskq.tasks[parcels.weigh.module_path].options, name) == expected


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="'max_rety'; did you mean 'max_retry'"):
        parcels.label.using(max_rety=3)


# --- Redis ------------------------------------------------------------------------------------------------------------


def test_making_a_backend_connects_to_nothing_and_redis_may_be_away(settings: Any) -> None:
    settings.TASKQ = {"URL": "unix:///nowhere/at/all.sock", "ENQUEUE_TIMEOUT": 0.01}
    made = TaskQBackend("default", {"BACKEND": "taskq_django.TaskQBackend"})

    made.validate_task(parcels.label)
    with pytest.raises(EnqueueError):
        parcels.label.enqueue()


def test_the_stored_message_is_compatible_with_asynq(redis: RedisServer, inspector: Inspector) -> None:
    """Type and payload have the format of every taskq task, so that Go programs and tools can read them."""
    result = parcels.weigh.enqueue(3, unit="lb")

    fields = {name.decode() for name in redis.client.hkeys(f"asynq:{{default}}:t:{result.id}")}  # type: ignore[union-attr]
    info = inspector.task("default", result.id)
    assert (info.name, info.state) == ("tests.taskq_django.parcels.tasks.weigh", TaskState.PENDING)
    assert info.payload == b'{"parcel":3,"unit":"lb"}'
    assert fields == {"msg", "state", "pending_since", "taskq_generation"}  # Go ignores the last one
