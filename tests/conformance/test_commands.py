"""Count the commands that Redis runs for a task. Each additional command fails a test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.raw import raw_drain, raw_enqueue
from taskq_core import TaskQ
from taskq_core.broker.connection import Endpoint
from taskq_core.broker.operations import runs
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.sync import SyncRunner
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis
TASKS = 50
NOBODY_COUNTS = {"config", "command", "info", "script|load", "hello", "auth", "ping", "select"}


@pytest.fixture
def taskq(redis_server: RedisServer) -> Iterator[TaskQ]:
    taskq = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    yield taskq
    taskq.close()


def commands_of(server: RedisServer, act: Callable[[], object]) -> dict[str, int]:
    """Return how often each command was run, also by scripts."""
    server.client.config_resetstat()
    act()
    stats: Any = server.client.info("commandstats")
    counts = {name.removeprefix("cmdstat_"): figures["calls"] for name, figures in stats.items()}
    return {name: count for name, count in counts.items() if name not in NOBODY_COUNTS and "|" not in name}


def test_an_enqueue_takes_a_fixed_number_of_commands(taskq: TaskQ, redis_server: RedisServer) -> None:
    task = taskq.remote("note")
    task.delay()  # connects, and loads the script

    assert commands_of(redis_server, task.delay) == {
        **dict.fromkeys(("evalsha", "time", "get", "exists", "hset", "lpush", "set"), 1),
        "llen": 3,
    }


def test_a_bulk_enqueue_takes_a_fixed_number_of_commands(taskq: TaskQ, redis_server: RedisServer) -> None:
    task = taskq.remote("note")
    task.delay()

    counts = commands_of(redis_server, lambda: taskq.client.enqueue_many([task.s() for _ in range(400)]))

    assert {name: counts.pop(name) for name in ("exists", "hset")} == {"exists": 400, "hset": 400}
    assert counts == {**dict.fromkeys(("evalsha", "time", "get", "lpush", "set"), 2), "llen": 6}


class TestRuns:
    """Test a turn of a worker: settled tasks and new tasks."""

    @pytest.fixture
    def run(self, taskq: TaskQ, redis_server: RedisServer) -> Iterator[Callable[[Operation[Any]], Any]]:
        runner = SyncRunner(Endpoint(redis_server.unix_url, embedded_folder=Path("unused")), timeout_s=30)
        keys = taskq.runtime.keys.queue("default")
        for script in (runs.dequeue(keys, owner="w", call=0, limit=1, lease_s=30), runs.settle(keys, [], owner="w")):
            runner.run(script)
        taskq.client.enqueue_many([taskq.remote("note").s() for _ in range(2 * TASKS)])
        yield runner.run
        runner.close()

    def test_a_dequeue_takes_a_fixed_number_of_commands(
        self, taskq: TaskQ, redis_server: RedisServer, run: Callable[[Operation[Any]], Any]
    ) -> None:
        keys = taskq.runtime.keys.queue("default")
        counts = commands_of(redis_server, lambda: run(runs.dequeue(keys, owner="w", call=1, limit=TASKS, lease_s=30)))

        of_each = ("hlen", "hstrlen", "hget", "hset", "hdel")
        assert {name: counts.pop(name) for name in of_each} == dict.fromkeys(of_each, TASKS)
        assert counts == {
            **dict.fromkeys(("evalsha", "time", "get", "exists", "zcard", "rpop", "lpush", "zadd", "zrem", "set"), 1),
            "llen": 3,  # a fourth command if there is no token yet
        }

    def test_a_dequeue_of_an_empty_queue_takes_a_fixed_number_of_commands(
        self, taskq: TaskQ, redis_server: RedisServer, run: Callable[[Operation[Any]], Any]
    ) -> None:
        """Idle workers send such a request now and then."""
        keys = taskq.runtime.keys.queue("other")

        counts = commands_of(redis_server, lambda: run(runs.dequeue(keys, owner="w", call=1, limit=TASKS, lease_s=30)))

        assert counts == dict.fromkeys(("evalsha", "time", "get", "llen"), 1)

    def test_settling_as_done_takes_a_fixed_number_of_commands(
        self, taskq: TaskQ, redis_server: RedisServer, run: Callable[[Operation[Any]], Any]
    ) -> None:
        """Tasks of one turn are adjacent, so one command removes them, and one command deletes them."""
        keys = taskq.runtime.keys.queue("default")
        first = run(runs.dequeue(keys, owner="w", call=1, limit=TASKS, lease_s=30))
        run(runs.dequeue(keys, owner="w", call=2, limit=TASKS, lease_s=30))
        done = runs.settle_done(keys, [(each, 1) for each in [task_id for task_id, _ in first.tasks]], owner="w")

        assert commands_of(redis_server, lambda: run(done)) == {
            **dict.fromkeys(("evalsha", "time", "zmscore", "lrange", "ltrim", "del", "zrem", "expireat"), 1),
            **dict.fromkeys(("hlen", "hget"), TASKS),
            "incrby": 2,
        }

    def test_settling_and_dequeuing_takes_a_fixed_number_of_commands(
        self, taskq: TaskQ, redis_server: RedisServer, run: Callable[[Operation[Any]], Any]
    ) -> None:
        """This is one turn of a worker with short tasks."""
        keys = taskq.runtime.keys.queue("default")
        first = run(runs.dequeue(keys, owner="w", call=1, limit=TASKS, lease_s=30))
        asked = runs.dequeue(keys, owner="w", call=2, limit=TASKS, lease_s=30)
        turn = runs.settle_and_dequeue([(each, 1) for each in [task_id for task_id, _ in first.tasks]], asked)
        redis_server.client.script_load(turn.script.text if turn.script else "")

        assert commands_of(redis_server, lambda: run(turn)) == {
            **dict.fromkeys(("evalsha", "time", "get", "zmscore", "lrange", "ltrim", "del", "expireat"), 1),
            **dict.fromkeys(("exists", "rpop", "lpush", "zadd", "set"), 1),
            "zrem": 2,
            **dict.fromkeys(("hstrlen", "hset", "hdel"), TASKS),
            **dict.fromkeys(("hlen", "hget"), 2 * TASKS),
            "llen": 2,
            "incrby": 2,
        }

    def test_completing_with_a_result_takes_a_fixed_number_of_commands(
        self, taskq: TaskQ, redis_server: RedisServer, run: Callable[[Operation[Any]], Any]
    ) -> None:
        keys = taskq.runtime.keys.queue("default")
        taken = run(runs.dequeue(keys, owner="w", call=1, limit=TASKS, lease_s=30))
        kept = [
            Settlement(task_id, Outcome.COMPLETE, 1, message, seconds=60, result=b"1", record=b"{}")
            for task_id, message in taken.tasks
        ]

        counts = commands_of(redis_server, lambda: run(runs.settle(keys, kept, owner="w")))

        assert {name: round(count / TASKS) for name, count in counts.items() if count >= TASKS} == {
            **dict.fromkeys(("hlen", "hget", "zadd", "hset", "hdel"), 1),
        }


def test_the_raw_benchmark_drains_what_it_enqueues(redis_server: RedisServer) -> None:
    """It sends these scripts directly, and must read their raw replies."""
    assert raw_enqueue(redis_server.url, count=10, batch=2)["tasks_per_s"] > 0
    redis_server.flushall()
    assert raw_drain(redis_server.url, count=100, concurrency=10)["tasks_per_s"] > 0
    assert redis_server.client.llen("asynq:{default}:pending") == 0
