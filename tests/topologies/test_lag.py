"""A lagging replica becomes primary, and a primary that is cut off continues: test which tasks are lost.

The replica gets its data through a relay that drops or holds bytes. A frozen replica would not lag, because the data
would wait in its socket.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskq_core import (
    EnqueueError,
    EnqueueUnknownError,
    NotReplicatedError,
    TaskHandle,
    TaskIdConflictError,
    TaskQ,
)
from tests.redis_server import RedisServer
from tests.relay import Relay

pytestmark = [pytest.mark.redis, pytest.mark.slow]

NAME = RedisServer.MASTER_NAME
LAG_S = 5
"""`min-replicas-max-lag` of the primary that is cut off."""


def wait_until(condition: Callable[[], Any], what: str, *, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.02)  # before the next check


@contextmanager
def start_pair(**options: str) -> Iterator[tuple[RedisServer, Relay, RedisServer]]:
    """Start a primary, a relay to it, and a replica that has its first copy through the relay."""
    with (
        RedisServer(tcp=True, options=options) as primary,
        Relay(("127.0.0.1", primary.port)) as relay,
        RedisServer(tcp=True, options={"replicaof": ("127.0.0.1", str(relay.port))}) as replica,
    ):
        wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up", "the replica joins")
        yield primary, relay, replica


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[TaskQ]:
    taskq = TaskQ(url, **settings)
    yield taskq
    await taskq.aclose()


async def outcomes(task: Any, ids: list[str]) -> list[str]:
    """Enqueue tasks together, and return the ids of the acknowledged tasks."""
    answers = await asyncio.gather(*[task.using(task_id=each).adelay() for each in ids], return_exceptions=True)
    # The response that replicas have not confirmed a task may be too late itself. test_replicated.py waits for it.
    assert {type(answer) for answer in answers} <= {TaskHandle, NotReplicatedError, EnqueueUnknownError}
    return [each for each, answer in zip(ids, answers, strict=True) if isinstance(answer, TaskHandle)]


def ids_in(server: RedisServer) -> set[str]:
    return {each.decode() for each in server.client.lrange("asynq:{default}:pending", 0, -1)}


async def test_a_lagging_replica_takes_over() -> None:
    """Acknowledged plain enqueues are lost. Acknowledged replicated enqueues survive."""
    with start_pair() as (primary, relay, replica):
        async with (
            opened(primary.url, enqueue_timeout=2.0) as taskq,
            opened(primary.url, enqueue_timeout=60.0) as patient,
        ):
            plain, safe = patient.remote("t"), taskq.remote("t", replicated=True)
            before = await outcomes(patient.remote("t", replicated=True), [f"before-{number}" for number in range(50)])
            relay.swallow("replies")
            lost = await outcomes(plain, [f"plain-{number}" for number in range(50)])
            unsafe = await outcomes(safe, [f"safe-{number}" for number in range(50)])
            on_primary = ids_in(primary)
        primary.kill()
        replica.command("REPLICAOF", "NO", "ONE")

        assert len(on_primary) == 150
        assert len(before) == len(lost) == 50
        assert unsafe == [], "a task was acknowledged that the replica does not have"
        assert ids_in(replica) == set(before)


async def test_a_primary_that_is_cut_off() -> None:
    """It acknowledges tasks that will be lost until `min-replicas-max-lag`, but never tasks with `replicated`."""
    with start_pair(**{"min-replicas-to-write": "1", "min-replicas-max-lag": str(LAG_S)}) as (primary, relay, replica):
        watched = cast("RedisServer", SimpleNamespace(port=relay.port, password=None))
        with RedisServer(sentinel_of=watched) as sentinel:
            sentinel.wait_for_primary(60)
            sentinel.command("SENTINEL", "DEBUG", "info-period", 500, "publish-period", 500)
            url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{NAME}"
            wait_until(lambda: sentinel.command("SENTINEL", "REPLICAS", NAME), "the Sentinel knows the replica")
            async with (
                opened(primary.unix_url, enqueue_timeout=2) as inside,
                opened(primary.unix_url, enqueue_timeout=60) as patient,
                opened(url, enqueue_timeout=0.5) as outside,
            ):
                await patient.remote("t", replicated=True, task_id="before").adelay()
                relay.hold("requests", "replies")
                sentinel.wait_for_primary(0.5)

                assert await outcomes(inside.remote("t", replicated=True), ["unsafe-1", "unsafe-2"]) == []
                exposed = await enqueue_until_refused(inside)
                with pytest.raises(EnqueueError, match="NOREPLICAS"):
                    await inside.remote("t").adelay()
                stored_inside = ids_in(primary)
                await until_stored(outside, "taken-over")
                relay.forward()
                wait_until(lambda: primary.client.info("replication")["role"] == "slave", "it is a replica")
                wait_until(lambda: primary.client.info("replication")["master_link_status"] == "up", "it has a copy")

            assert {"before", "unsafe-1", "unsafe-2", *exposed} == stored_inside
            assert ids_in(replica) == ids_in(primary) == {"before", "taken-over"}


async def enqueue_until_refused(taskq: TaskQ) -> list[str]:
    """Enqueue until the primary refuses, and return the ids of the tasks that it acknowledged before."""
    acknowledged = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        task_id = f"exposed-{len(acknowledged)}"
        try:
            with suppress(TaskIdConflictError):  # an attempt without a response stored it
                await taskq.remote("t", task_id=task_id).adelay()
        except EnqueueError as error:
            if "NOREPLICAS" in str(error):
                return acknowledged
            continue  # no response in time: repeat with the same id
        acknowledged.append(task_id)
        await asyncio.sleep(0.01)
    raise AssertionError("the primary did not refuse within 60 s")


async def until_stored(taskq: TaskQ, task_id: str) -> None:
    """Repeat an enqueue until it succeeds."""
    deadline = time.monotonic() + 60
    while True:
        try:
            await taskq.remote("t", task_id=task_id).adelay()
        except TaskIdConflictError:
            return  # an attempt without a response stored it
        except EnqueueError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        else:
            return
