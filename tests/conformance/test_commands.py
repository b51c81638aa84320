"""Count the commands that Redis runs for a task. Each additional command fails a test."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.raw import raw_drain, raw_enqueue
from taskq_core import TaskQ
from taskq_core.broker.connection import Endpoint
from taskq_core.broker.operations import new_tasks, runs
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.sync import SyncRunner
from taskq_core.wire import Keys
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis
TASKS = 50
NOBODY_COUNTS = {"config", "command", "info", "script|load", "hello", "auth", "ping", "select"}


def commands_of(server: RedisServer, act: Callable[[], object]) -> dict[str, int]:
    """Return how often each command was run, also by scripts."""
    server.client.config_resetstat()
    act()
    stats: Any = server.client.info("commandstats")
    counts = {name.removeprefix("cmdstat_"): figures["calls"] for name, figures in stats.items()}
    return {name: count for name, count in counts.items() if name not in NOBODY_COUNTS and "|" not in name}


def times(count: int, commands: str) -> dict[str, int]:
    return dict.fromkeys(commands.split(), count)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, {**times(1, "evalsha time get exists hset lpush set"), "llen": 3}),
        (400, {**times(2, "evalsha time get lpush set"), **times(400, "exists hset"), "llen": 6}),
    ],
)
def test_an_enqueue_takes_a_fixed_number_of_commands(
    redis_server: RedisServer, count: int, expected: dict[str, int]
) -> None:
    with closing(TaskQ(redis_server.unix_url, enqueue_timeout=30)) as taskq:
        task = taskq.remote("note")
        task.delay()  # connects, and loads the script

        counts = commands_of(redis_server, lambda: taskq.client.enqueue_many([task.s() for _ in range(count)]))

    assert counts == expected


QUEUE = Keys().queue("default")
TURN = runs.dequeue(QUEUE, owner="w", call=2, limit=TASKS, lease_s=30)
IDS = [f"id-{number}" for number in range(TASKS)]
TURNS: dict[str, tuple[Operation[Any], dict[str, int]]] = {
    "dequeue": (
        TURN,
        {
            **times(TASKS, "hlen hstrlen hget hset hdel"),
            **times(1, "evalsha time get exists zcard rpop lpush zadd zrem set"),
            "llen": 3,  # a fourth command if there is no token yet
        },
    ),
    "dequeue of an empty queue, which idle workers send now and then": (
        runs.dequeue(Keys().queue("other"), owner="w", call=1, limit=TASKS, lease_s=30),
        times(1, "evalsha time get llen"),
    ),
    "settle as done: one command removes adjacent tasks, and one deletes them": (
        runs.settle_done(QUEUE, [(each, 1) for each in IDS], owner="w"),
        {
            **times(1, "evalsha time zmscore lrange ltrim del zrem expireat"),
            **times(TASKS, "hlen hget"),
            "incrby": 2,
        },
    ),
    "settle and dequeue": (
        runs.settle_and_dequeue([(each, 1) for each in IDS], TURN),
        {
            **times(1, "evalsha time get zmscore lrange ltrim del expireat exists rpop lpush zadd set"),
            **times(2, "zrem llen incrby"),
            **times(TASKS, "hstrlen hset hdel"),
            **times(2 * TASKS, "hlen hget"),
        },
    ),
}


@pytest.mark.parametrize(("operation", "expected"), TURNS.values(), ids=TURNS)
def test_a_turn_of_a_worker_takes_a_fixed_number_of_commands(
    redis_server: RedisServer, operation: Operation[Any], expected: dict[str, int]
) -> None:
    runner = SyncRunner(Endpoint(redis_server.unix_url, embedded_folder=Path("unused")), timeout_s=30)
    tasks = [NewTask(each, b"m") for each in (*IDS, *(f"next-{each}" for each in IDS))]
    runner.run(new_tasks.enqueue(QUEUE, tasks, ReceiptSlot("t")))
    runner.run(runs.dequeue(QUEUE, owner="w", call=1, limit=TASKS, lease_s=30))
    assert operation.script is not None
    redis_server.client.script_load(operation.script.text)

    counts = commands_of(redis_server, lambda: runner.run(operation))

    runner.close()
    assert counts == expected


def test_the_raw_benchmark_drains_what_it_enqueues(redis_server: RedisServer) -> None:
    """It sends these scripts directly, and must read their raw replies."""
    assert raw_enqueue(redis_server.url, count=10, batch=2)["tasks_per_s"] > 0
    redis_server.flushall()
    assert raw_drain(redis_server.url, count=100, concurrency=10)["tasks_per_s"] > 0
    assert redis_server.client.llen("asynq:{default}:pending") == 0
