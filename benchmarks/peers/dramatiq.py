"""Adapter for dramatiq. The settings follow https://dramatiq.io/guide.html and https://dramatiq.io/advanced.html.

It has the default middleware except Prometheus, which would open a port. dramatiq has no bulk enqueue.
"""

from collections.abc import Callable, Iterable

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware.asyncio import AsyncIO

from benchmarks.peers.tasks import SETTING, TEXT, URL, ran, slept, waited
from benchmarks.peers.telemetry import configured

if configured():
    from opentelemetry_instrumentor_dramatiq import DramatiqInstrumentor

    DramatiqInstrumentor().instrument()

broker = RedisBroker(url=URL)
dramatiq.set_broker(broker)


async def noop(number: int, text: str) -> None:
    """Do nothing."""
    ran(number, text)


FUNCTIONS: dict[str, Callable[[int, str], object]]
if SETTING.get("kind") == "coroutine":
    broker.add_middleware(AsyncIO())
    FUNCTIONS = {"noop": noop, "io": waited}
else:
    FUNCTIONS = {"noop": ran, "io": slept}
TASKS = {name: dramatiq.actor(function, actor_name=name) for name, function in FUNCTIONS.items()}


def enqueue(kind: str, number: int) -> None:
    """Enqueue one task."""
    TASKS[kind].send(number, TEXT)


def enqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many tasks, one after another."""
    send = TASKS[kind].send
    for number in numbers:
        send(number, TEXT)
