"""dramatiq. Setting after https://dramatiq.io/guide.html and https://dramatiq.io/advanced.html (prefetch).

Its middleware is the default one without Prometheus, which would open a port. There is no bulk call.
"""

from collections.abc import Iterable

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.tasks import TEXT, URL, ran, slept

broker = RedisBroker(url=URL)
dramatiq.set_broker(broker)
TASKS = {"noop": dramatiq.actor(ran, actor_name="noop"), "io": dramatiq.actor(slept, actor_name="io")}


def enqueue(kind: str, number: int) -> None:
    """Enqueue one."""
    TASKS[kind].send(number, TEXT)


def enqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many, one after another."""
    send = TASKS[kind].send
    for number in numbers:
        send(number, TEXT)
