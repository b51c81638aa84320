"""Forged messages, hashes and lists: a worker with all rights touches no key outside the queue they were written to."""

from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.inspector import AsyncInspector
from taskq_core.wire import QueueKeys, build_message, encode_message
from tests.conformance.stores import read_key
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Ends, Runner, status_of_worker, until

pytestmark = pytest.mark.redis

OURS = (b"asynq:{default}:", b"taskq:{default}:", b"asynq:servers", b"asynq:workers", b"asynq:queues", b"asynq:sema:")


def foreign_keys(server: RedisServer) -> dict[bytes, Any]:
    """Return all data that a producer for the queue `default` may not change."""
    # Keys of the queue are not read: a lock of the worker may expire after it was listed.
    names = [key for key in server.client.scan_iter(count=1000) if not key.startswith(OURS)]
    return {key: read_key(server.client, key) for key in names}


def forge(server: RedisServer, queue: QueueKeys, task_id: str, *, lock: str = "", **fields: str) -> None:
    """Write a pending task with redis-py. `lock` is the lock in its message."""
    message = build_message(type="work", id=task_id, queue=queue.name, payload=b"{}", unique_key=lock, retry=0)
    written: dict[Any, Any] = {"msg": encode_message(message), "state": "pending", "pending_since": "1", **fields}
    server.client.hset(queue.task(task_id), mapping=written)
    server.client.lpush(queue.pending, task_id)


async def test_forged_fields_cannot_change_keys_outside_the_queue(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[str] = []

    @app.task(name="work")
    async def work() -> None:
        runs.append("run")
        if len(runs) % 2:
            raise ValueError

    other = app.runtime.keys.queue("other")
    ids = ["a", "b", "c", "d", "e", "f"]
    names = ("session:admin", other.paused, other.unique("t", b""), "session:hash")
    for task_id in ids:  # a lock is freed where it holds the id of its task
        redis_server.client.set(f"session:{task_id}", task_id)
    redis_server.client.set(other.paused, "a")
    redis_server.client.set("session:admin", "b")
    forge(redis_server, queue, "a", lock=other.paused, unique_key=other.paused)
    forge(redis_server, queue, "b", unique_key="session:admin")
    forge(redis_server, queue, "c", lock="session:c")
    forge(redis_server, queue, "d", unique_key=other.unique("t", b"absent"), taskq_unique="w0")
    # A workflow that names the keys of another queue, and steps of hashes that are not workflows.
    workflow = queue.workflow("evil")
    step = encode_message(build_message(type="work", id="next", queue="other", payload=b"{}"))
    redis_server.client.hset(
        workflow,
        mapping={
            "queue": "default",
            "prefix": other.prefix,
            "kept_s": "60",
            "state": "running",
            "open": "2",
            "s0": "p",
            "c0": "1c ",
            "s1": "w",
            "p1": "1",
            "m1": f"next t - default\nH{len(step)}:".encode() + step,
        },
    )
    redis_server.client.hset("session:hash", mapping={"queue": "default", "prefix": "session:", "kept_s": "1"})
    redis_server.client.hset("taskq:session:wf:x", mapping={"state": "running"})
    forge(redis_server, queue, "e", taskq_step=f"0 t e {workflow}", taskq_wait="2", taskq_priority="9:9")
    forge(redis_server, queue, "f", taskq_step="0 t f session:hash", group="x:y", taskq_line="c:z:session")
    forge(redis_server, queue, "g", taskq_step="0 k g taskq:session:wf:x", taskq_limit="c 1 1 session:admin")
    forge(redis_server, queue, "h", taskq_limit="r b/0/0/0 1 x:y")
    for name in names:
        redis_server.client.zadd(queue.aggregation_sets, {name: 1})
        redis_server.client.hset(queue.workflow_notes, f"0 {name}", "d=1")
        redis_server.client.zadd(queue.workflows_out, {f"s {name} 0": 1})
        redis_server.client.zadd("asynq:servers", {name: 10**10})
    before = foreign_keys(redis_server)
    ends = Ends()

    worker = await start(listener=ends, aggregate_every=0.05, dispatch_every=0.05, reconcile_every=0.05)
    await until(lambda: {task_id for task_id, _ in ends.ends} >= {*ids, "g", "h", "next"})
    await until(lambda: not redis_server.client.exists(queue.active, queue.aggregation_sets, queue.workflow_notes))
    await until(lambda: status_of_worker(redis_server) == "active")
    assert len(await AsyncInspector(app).servers()) == 1
    await start.stop(worker)

    assert foreign_keys(redis_server) == before
    assert redis_server.client.hget(workflow, "s1") in (b"d", b"f"), "the step ran at home"
    assert "name a unique lock of another queue" in caplog.text


async def test_a_hundred_thousand_ids_without_a_task_are_dropped_cheaply(
    app: TaskQ,
    start: Runner,
    redis_server: RedisServer,
    queue: QueueKeys,
    exchanges: list[list[tuple[str, Any]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The ids take a hundred calls and two log lines: one for the first ids, one at the end of the worker."""
    count = 100_000
    for first in range(0, count, 10_000):
        redis_server.client.lpush(queue.pending, *(f"ghost-{number}" for number in range(first, first + 10_000)))

    @app.task
    async def work() -> None: ...

    handles = await app.async_client.enqueue_many([work.s() for _ in range(5)])
    worker = await start(concurrency=1, reconcile_every=600)
    for handle in handles:
        await handle.aresult(PATIENCE_S)
    asked = sum(name in ("dequeue", "settle_and_dequeue") for each in exchanges for name, _ in each)
    await start.stop(worker)

    assert worker._fetcher.dropped == count
    assert asked <= 150
    lines = [each.getMessage() for each in caplog.records if "have no stored message" in each.getMessage()]
    assert len(lines) <= 2
    assert sum(int(line.split()[1]) for line in lines) == count
