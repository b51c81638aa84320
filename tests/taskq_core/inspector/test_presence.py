"""Workers, schedulers and the store itself."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskNotFoundError, TaskQ
from taskq_core.broker.operations import runs
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import EntryNotFoundError, TaskStateError
from taskq_core.inspector import AsyncInspector, Inspector
from taskq_core.wire import SchedulerEnqueueEvent, SchedulerEntry, ServerInfo, WorkerInfo
from taskq_core.worker import Worker, WorkerConfig
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.inspector.conftest import Ask, Enqueue

pytestmark = pytest.mark.redis
LATER_S = 4_000_000_000
NOW_NS = 2_000_000_000_123_456_000


async def test_a_running_worker_is_shown_with_its_task(app: TaskQ, enqueue: Enqueue, clock: Clock) -> None:
    started, end = asyncio.Event(), asyncio.Event()

    @app.task(name="email:deliver")
    async def deliver(to: str) -> None:
        started.set()
        await end.wait()

    inspector = AsyncInspector(app)
    handle = enqueue(timeout=60)
    config = WorkerConfig(queues={"default": 2, "low": 1}, strict_priority=True, concurrency=3)
    worker = Worker(app, config)
    running = asyncio.ensure_future(worker.arun())
    await started.wait()
    await clock.advance(6)  # a heartbeat
    (process,) = await inspector.servers()

    assert (dict(process.queues), process.strict_priority, process.concurrency) == ({"default": 2, "low": 1}, True, 3)
    assert process.status == "active"
    assert process.started_at is not None
    (task,) = process.running
    assert (task.task_id, task.name, task.queue) == (handle.id, "email:deliver", "default")
    assert task.deadline - task.started_at == timedelta(seconds=60)
    end.set()
    worker.stop()
    assert await running == 0
    assert await inspector.servers() == []


async def test_many_servers_are_listed_in_order(ask: Ask, redis_server: RedisServer) -> None:
    """One call cannot read all of these servers. Unreadable records are left out."""
    client = redis_server.client
    for number in range(600):
        info = ServerInfo(host="h", pid=number, server_id=f"s{number}", concurrency=1)
        key = f"asynq:servers:{{h:{number}:s{number}}}"
        client.set(key, info.encode())
        client.zadd("asynq:servers", {key: LATER_S})
    client.set("asynq:servers:{h:9:s9}", b"\xff\xff")
    task = WorkerInfo(host="h", pid=1, server_id="s1", task_id="t", task_type="x", queue="q", start_time_ns=NOW_NS)
    client.hset("asynq:workers:{h:1:s1}", mapping={"t": task.encode(), "u": b"\xff\xff"})
    client.zadd("asynq:workers", {"asynq:workers:{h:1:s1}": LATER_S})

    servers = await ask("servers")

    assert [server.pid for server in servers] == [number for number in range(600) if number != 9]
    assert [(each.task_id, each.deadline) for each in servers[1].running] == [("t", None)]


async def test_a_heartbeat_between_two_pages_hides_no_server(
    app: TaskQ, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of the first page move to the end, and the rest comes forward."""
    client = redis_server.client
    for number in range(600):
        info = ServerInfo(host="h", pid=number, server_id=f"s{number}", concurrency=1)
        client.set(f"asynq:servers:{{h:{number}:s{number}}}", info.encode())
        client.zadd("asynq:servers", {f"asynq:servers:{{h:{number}:s{number}}}": LATER_S + number})
    real = SyncRunner.run

    def run(self: SyncRunner, operation: Any, **more: Any) -> Any:
        answer = real(self, operation, **more)
        if operation.name == "list_alive":
            for number in range(20):
                client.zincrby("asynq:servers", 10_000, f"asynq:servers:{{h:{number}:s{number}}}")
        return answer

    monkeypatch.setattr(SyncRunner, "run", run)

    assert [server.pid for server in Inspector(app).servers()] == list(range(600))


async def test_entries_are_listed_with_their_history(ask: Ask, redis_server: RedisServer) -> None:
    entry = SchedulerEntry(
        id="nightly",
        spec="0 2 * * *",
        task_type="backup",
        task_payload=b"{}",
        enqueue_options=('Queue("low")',),
        next_enqueue_time_ns=NOW_NS,
    )
    client = redis_server.client
    client.rpush("asynq:schedulers:{h:1:s}", entry.encode(), b"\xff\xff")
    client.zadd("asynq:schedulers", {"asynq:schedulers:{h:1:s}": LATER_S})
    for number in range(3):
        event = SchedulerEnqueueEvent(task_id=f"t{number}", enqueue_time_ns=NOW_NS + number * 10**9)
        client.zadd("asynq:scheduler_history:nightly", {event.encode(): 2_000_000_000 + number})

    (found,) = await ask("scheduler_entries")
    events = await ask("scheduler_events", "nightly", page=1, page_size=2)
    more = await ask("scheduler_events", "nightly", page=2, page_size=2)

    assert (found.id, found.spec, found.name, found.payload) == ("nightly", "0 2 * * *", "backup", b"{}")
    assert (found.options, found.previous_run_at) == (('Queue("low")',), None)
    assert found.next_run_at.timestamp() == NOW_NS / 1e9
    assert [event.task_id for event in (*events, *more)] == ["t2", "t1", "t0"]
    with pytest.raises(EntryNotFoundError, match=r"no periodic entry 'nigthly'; did you mean 'nightly'\?"):
        await ask("scheduler_events", "nigthly")
    with pytest.raises(ConfigurationError, match="page must be"):
        await ask("scheduler_events", "nightly", page=0)


async def test_an_entry_has_history_without_a_scheduler_and_a_scheduler_without_history(
    ask: Ask, redis_server: RedisServer
) -> None:
    client = redis_server.client
    client.rpush("asynq:schedulers:{h:1:s}", SchedulerEntry(id="new", spec="@daily", task_type="t").encode())
    client.zadd("asynq:schedulers", {"asynq:schedulers:{h:1:s}": LATER_S})
    event = SchedulerEnqueueEvent(task_id="t1", enqueue_time_ns=NOW_NS)
    client.zadd("asynq:scheduler_history:old", {event.encode(): 2_000_000_000})

    assert await ask("scheduler_events", "new") == []
    assert [each.task_id for each in await ask("scheduler_events", "old")] == ["t1"]
    assert await ask("scheduler_events", "old", page=2) == [], "a page beyond the last is empty"


async def test_cancel_returns_the_number_of_notified_workers(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """Redis itself counts subscribers of all its databases, and workers of other queues."""
    client = redis_server.client
    for name, serves in (("here", "low"), ("elsewhere", "other")):
        info = ServerInfo(host=name, pid=1, server_id="s", concurrency=1, queues={serves: 1})
        client.set(f"asynq:servers:{{{name}:1:s}}", info.encode())
        client.zadd("asynq:servers", {f"asynq:servers:{{{name}:1:s}}": LATER_S})
    enqueue(queue="low", task_id="id-1")
    app.runtime.runner.run(runs.dequeue(app.runtime.keys.queue("low"), owner="w", call=1, limit=1, lease_s=30))
    assert await ask("cancel_task", "id-1") == 0
    heard = [client.pubsub(ignore_subscribe_messages=True) for _ in range(3)]
    for each in heard:
        each.subscribe("asynq:cancel")
        each.get_message(timeout=60)

    assert await ask("cancel_task", "id-1") == 1

    for each in heard:
        each.close()


async def test_cancel_stores_the_requested_outcome(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    enqueue(task_id="id-1")
    app.runtime.runner.run(runs.dequeue(app.runtime.keys.queue("default"), owner="w", call=1, limit=1, lease_s=30))

    await ask("cancel_task", "id-1", retry=True)

    assert redis_server.client.hget("asynq:{default}:t:id-1", "taskq_cancel").endswith(b":retry")


async def test_a_task_that_does_not_run_is_not_cancelled(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    """No worker is notified."""
    enqueue(task_id="waits")
    listening = redis_server.client.pubsub(ignore_subscribe_messages=True)
    listening.subscribe("asynq:cancel")
    listening.get_message(timeout=60)

    with pytest.raises(TaskNotFoundError, match="no task 'nobody' in any queue"):
        await ask("cancel_task", "nobody")
    with pytest.raises(TaskStateError, match="task 'waits' in queue 'default' is pending: only a running task"):
        await ask("cancel_task", "waits")

    redis_server.client.publish("asynq:cancel", "last")
    assert listening.get_message(timeout=60)["data"] == b"last"
    listening.close()


async def test_the_figures_of_redis_are_returned(ask: Ask, redis_server: RedisServer) -> None:
    info = await ask("redis_info")

    assert info["redis_version"] == redis_server.client.info()["redis_version"]
    assert isinstance(info["connected_clients"], int)


async def test_without_a_cluster_there_are_no_nodes(ask: Ask, enqueue: Enqueue) -> None:
    enqueue()

    assert await ask("cluster_nodes", "default") == []
    assert await ask("key_slot", "default") == 5718  # same as CLUSTER KEYSLOT in Redis
