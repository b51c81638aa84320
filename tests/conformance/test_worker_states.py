"""Compare the state in Redis around a run of taskq's worker and scheduler with that of Go Asynq's.

These are the scenarios of `test_states` for which a process has to run. Some of their times are those of a real clock,
so a time is compared by its meaning: the end of the run, a time after it, the day of it.
"""

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taskq_core import Discard, RawTask, SkipRetry, TaskContext, TaskQ, TaskState
from taskq_core.errors import TaskStateError
from taskq_core.inspector import AsyncInspector
from taskq_core.scheduler import Scheduler, SchedulerConfig
from taskq_core.wire import SchedulerEntry, decode_message, encode_message
from taskq_core.worker import Worker, WorkerConfig, WorkerListener
from tests.conformance.stores import Broker
from tests.conformance.test_states import compare, expected, load, of, theirs
from tests.rows import rows
from tests.taskq_core.worker.conftest import until

pytestmark = pytest.mark.redis

DAYS_KEPT_S = 90 * 86_400

TEXTS = {
    "boom": "ValueError: boom",
    "bad input: skip retry for the task": "bad input",
    "panic error cause by: panic [github.com/hibiken/asynq/vectors/client.go:144]: oh no": "RuntimeError: oh no",
}
"""Texts of failures that are others here: with the class of the exception, and of `SkipRetry` the reason alone."""
CANCELLED = "what somebody cancelled is archived and not run again behind their back, where Go retries it"
UNKNOWN = "a task of an unknown type goes back for other workers and uses no attempt, where Go's fails"
DIFFERENCES = {
    "work_cancelled": (CANCELLED, b"archived", "context canceled"),
    "work_unknown_type": (UNKNOWN, b"retry", 'handler not found for task "x:unknown": no worker that took it'),
}
"""By scenario: what differs and why, the state of the task here, and how its error begins."""


class Started(WorkerListener):
    """Tells when a task has started."""

    per_task = True

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def task_started(self, context: TaskContext) -> None:
        self.event.set()


def function_for(words: str) -> Callable[[TaskContext, RawTask], Awaitable[None]]:
    """Return a function that does what Go's handler of a scenario does."""

    async def handle(context: TaskContext, task: RawTask) -> None:
        match words:
            case "nil":
                pass
            case "writes result bytes 0001ff, returns nil":
                context.write_result(b"\x00\x01\xff")
            case "error boom":
                raise ValueError("boom")
            case "error 'bad input: skip retry for the task' wrapping SkipRetry":
                raise SkipRetry("bad input")
            case "error wrapping RevokeTask":
                raise Discard
            case "panic":
                raise RuntimeError("oh no")
            case "returns the context's error" | "sleeps 1.5 s":
                await asyncio.Event().wait()
            case _:
                pytest.fail(f"called, though its handler is: {words}")

    return handle


async def _is_idle(inspector: AsyncInspector) -> bool:
    return not await inspector.count("default", TaskState.ACTIVE)


async def _is_cancelled(inspector: AsyncInspector) -> bool:
    try:
        return await inspector.cancel_task("id-1") > 0
    except TaskStateError:  # an earlier request has already reached the worker
        return True


async def work(app: TaskQ, scenario: dict[str, Any]) -> None:
    """Run a worker as long as the scenario goes on."""
    started = Started()
    is_stopped = scenario["name"] in ("work_cancelled", "work_shutdown_requeue")
    worker = Worker(app, WorkerConfig(burst=not is_stopped, shutdown_grace=0.3), listener=started)
    running = asyncio.create_task(worker.arun())
    try:
        if is_stopped:
            await started.event.wait()
        if scenario["name"] == "work_cancelled":
            inspector = AsyncInspector(app)
            await until(lambda: _is_cancelled(inspector), "the worker listens")
            await until(lambda: _is_idle(inspector), "the task has ended")
        if is_stopped:
            worker.stop()
        assert await running == 0
    finally:
        worker.abort()


def by_meaning(state: dict[str, Any], texts: dict[str, str]) -> dict[str, Any]:
    """Return a state with its times and texts replaced by names for their meaning."""
    messages = [decode_message(value[b"msg"]) for kind, value in state.values() if kind == "hash"]
    end_s = max((max(each.last_failed_at, each.completed_at) for each in messages), default=0)
    found: dict[str, Any] = {}
    for key, (kind, value) in state.items():
        if kind == "hash":
            (message,) = messages
            for name in ("last_failed_at", "completed_at"):
                if getattr(message, name):
                    assert getattr(message, name) == end_s
                    setattr(message, name, 1)
            message.error_msg = texts.get(message.error_msg, message.error_msg)
            value = {**value, b"msg": encode_message(message)}
        elif key.endswith(":retry"):
            value = [member for member, _ in value]  # Go's follows a real clock; ours is checked below
        elif kind == "zset":
            # The message is written by the worker and stored by a script, which may be some seconds later.
            value = [(member, (score - end_s) // 10) for member, score in value]
        name, _, day = key.rpartition(":")
        found[f"{name}:(day)" if day.startswith("20") else key] = (kind, value)
    return found


@rows("scenario", of("process"))
async def test_a_worker_leaves_the_same_state_as_gos_server(one_server: Broker, scenario: dict[str, Any]) -> None:
    """The scenarios are one run with success, each kind of failure, a cancellation, or a requeue at shutdown."""
    parameters, name = scenario["given"]["parameters"], scenario["name"]
    delay_s = parameters["retry_delay_s"]
    load(one_server, scenario["before"])
    defaults = {"retry_delay": delay_s, "is_failure": (lambda error: False) if "not_failure" in name else None}
    app = TaskQ(one_server.raw, defaults=defaults, enqueue_timeout=30)
    errors: list[BaseException] = []
    app.on_error(lambda error, context: errors.append(error))
    if parameters["handler"] != "none registered":
        app.handler("t:a")(function_for(parameters["handler"]))
    before_s = one_server.raw.time()[0]

    await work(app, scenario)

    after_s = one_server.raw.time()[0]
    await app.aclose()
    found, wanted = by_meaning(theirs(one_server), {}), by_meaning(expected(scenario["after"]), TEXTS)
    if name in DIFFERENCES:
        assert compare(found, wanted), "no difference any more: take it off the list"
        _, state, error = DIFFERENCES[name]
        data, here = one_server.raw.hmget("asynq:{default}:t:id-1", "msg", "state")
        message = decode_message(data)
        assert (here, message.retried) == (state, 0)
        assert message.error_msg.startswith(error)
    else:
        assert not compare(found, wanted)
        for _, retry_s in one_server.raw.zrange("asynq:{default}:retry", 0, -1, withscores=True):
            assert before_s + delay_s <= retry_s <= after_s + delay_s + 1
    for key in one_server.raw.keys("asynq:{default}:*:20*"):
        assert DAYS_KEPT_S - 60 <= one_server.raw.ttl(key) <= DAYS_KEPT_S
    is_reported = scenario["observed"]["error_handler_called_with"] is not None
    is_reported = is_reported and name not in ("work_revoke", "work_unknown_type")
    assert bool(errors) is is_reported, "error handlers are called as Go's is, except for discarded and unknown tasks"


@pytest.mark.parametrize("scenario", of("scheduler_heartbeat"))
async def test_the_published_entries_of_a_scheduler_equal_those_of_go(
    one_server: Broker, scenario: dict[str, Any]
) -> None:
    """All bytes are equal except the next time, which Go's scheduler lacks because it was not started."""
    host, _, scheduler_id = scenario["given"]["parameters"]["scheduler_id"].split(":")
    (index, shown) = scenario["after"]
    golden = bytes.fromhex(shown["value"][0]["hex"])
    entry = SchedulerEntry.decode(golden)
    app = TaskQ(one_server.raw, enqueue_timeout=30)
    app.schedule(entry.spec, app.remote(entry.task_type).s(entry.task_payload), id=entry.id, queue="low", timeout=90)
    every_s = scenario["given"]["parameters"]["heartbeat_interval_s"]
    scheduler = Scheduler(app, SchedulerConfig(heartbeat=every_s))
    scheduler.id, scheduler.host = scheduler_id, host
    key = shown["key"].replace(":4242:", f":{os.getpid()}:")

    began = time.monotonic()
    running = asyncio.create_task(scheduler.arun())
    written = await until(lambda: one_server.raw.lrange(key, 0, -1))
    ttl_s, ((member, score),) = one_server.raw.ttl(key), one_server.raw.zrange(index["key"], 0, -1, withscores=True)
    now_s, passed_s = one_server.raw.time()[0], math.ceil(time.monotonic() - began)
    scheduler.stop()
    assert await running == 0
    await app.aclose()

    ours = SchedulerEntry.decode(written[0])
    assert ours.next_enqueue_time_ns is not None
    assert len(written) == 1
    assert SchedulerEntry(**{**_fields(ours), "next_enqueue_time_ns": None}).encode() == golden
    assert member.decode() == key
    assert shown["ttl_s"] - 1 - passed_s <= ttl_s <= shown["ttl_s"]
    assert now_s + shown["ttl_s"] - 1 - passed_s <= score <= now_s + shown["ttl_s"]


def _fields(entry: SchedulerEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}
