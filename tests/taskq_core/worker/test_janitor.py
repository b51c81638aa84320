"""Test that a running worker deletes data whose retention is over."""

import time
from typing import Any

from taskq_core import TaskQ
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until

DAY_S = 86_400


async def test_a_worker_deletes_ended_tasks_after_their_retention(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Several calls delete completed tasks past their retention and archived tasks older than 90 days."""
    client: Any = redis_server.client
    now_s = int(time.time())
    ends = {
        "completed": {"old": now_s - 10, "young": now_s + 600},
        "archived": {"old": now_s - 91 * DAY_S, "young": now_s - 89 * DAY_S},
    }
    with client.pipeline(transaction=False) as pipeline:
        for state, key in (("completed", queue.completed), ("archived", queue.archived)):
            for age, count in (("old", 150), ("young", 3)):
                for number in range(count):
                    task_id = f"{state}-{age}-{number}"
                    pipeline.zadd(key, {task_id: ends[state][age]})
                    pipeline.hset(queue.task(task_id), mapping={"msg": b"", "state": state})
        pipeline.execute()

    await start(clean_every=0.05)
    await until(lambda: client.zcard(queue.completed) == client.zcard(queue.archived) == 3)

    left = {key.decode().removeprefix(queue.task_prefix) for key in client.keys(f"{queue.task_prefix}*")}
    assert left == {f"{state}-young-{number}" for state in ends for number in range(3)}
