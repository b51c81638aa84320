"""A replica that lags takes over, and a primary that is cut off goes on: what that costs, and whom it spares.

The replica gets its copy through a relay, which throws bytes away or holds them. A replica that is only stopped would
not lag: the data sent to it waits in its socket.
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
        time.sleep(0.02)  # between two looks at another process


@contextmanager
def start_pair(**options: str) -> Iterator[tuple[RedisServer, Relay, RedisServer]]:
    """A primary, the relay to it, and a replica behind the relay that has its first copy."""
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
    # The answer that replicas have not confirmed, which test_replicated.py awaits, may itself come too late.
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
        assert unsafe == [], "each was told that it is not safe"
        assert ids_in(replica) == set(before)


async def test_a_primary_that_is_cut_off() -> None:
    """It acknowledges what will be lost, but no longer than its replicas may lag, and never as replicated."""
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
    """Enqueue until the primary refuses, which it must; return what it acknowledged till then."""
    acknowledged = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        task_id = f"exposed-{len(acknowledged)}"
        try:
            with suppress(TaskIdConflictError):  # by an attempt that was not answered
                await taskq.remote("t", task_id=task_id).adelay()
        except EnqueueError as error:
            if "NOREPLICAS" in str(error):
                return acknowledged
            continue  # not answered in time: asked again, with the same id
        acknowledged.append(task_id)
        await asyncio.sleep(0.01)
    raise AssertionError("it goes on for ever")


async def until_stored(taskq: TaskQ, task_id: str) -> None:
    """Enqueue again and again until it succeeds."""
    deadline = time.monotonic() + 60
    while True:
        try:
            await taskq.remote("t", task_id=task_id).adelay()
        except TaskIdConflictError:
            return  # by an attempt that was not answered
        except EnqueueError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        else:
            return
