"""Adapter for taskiq. The settings follow https://taskiq-python.github.io/guide/cli.html and taskiq-redis's README.

The broker is `RedisStreamBroker`, which acknowledges tasks, or `ListQueueBroker`, which loses the tasks of a worker
that dies. taskiq has no bulk enqueue, so 50 coroutines enqueue at the same time.
"""

import asyncio
from collections.abc import Iterable

from taskiq_redis import ListQueueBroker, RedisStreamBroker

from benchmarks.peers.tasks import SETTING, TEXT, URL, ran, slept, waited
from benchmarks.peers.telemetry import configured

_CALLERS = 50
# The group reads from the start of the stream, so that tasks enqueued before the first worker starts also run.
broker = ListQueueBroker(URL) if SETTING.get("broker") == "list" else RedisStreamBroker(URL, consumer_id="0")
if configured():
    from taskiq.instrumentation import TaskiqInstrumentor

    TaskiqInstrumentor().instrument_broker(broker)


async def noop(number: int, text: str) -> None:
    """Do nothing."""
    ran(number, text)


FUNCTIONS = {"noop": ran, "io": slept} if SETTING.get("kind") == "plain" else {"noop": noop, "io": waited}
TASKS = {name: broker.task(task_name=name)(function) for name, function in FUNCTIONS.items()}


async def connect() -> None:
    """Open connections."""
    await broker.startup()


async def close() -> None:
    """Close the connections."""
    await broker.shutdown()


async def aenqueue(kind: str, number: int) -> None:
    """Enqueue one task."""
    await TASKS[kind].kiq(number, TEXT)


async def aenqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many tasks from 50 coroutines."""
    left = iter(numbers)

    async def caller() -> None:
        for number in left:
            await TASKS[kind].kiq(number, TEXT)

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
