"""Adapter for RQ. The settings follow https://python-rq.org/docs/ (`enqueue_many`, and `SimpleWorker` for workers).

Results are not stored. RQ's default is 500 s.
"""

from collections.abc import Iterable
from itertools import islice

from redis import Redis
from rq import Queue

from benchmarks.peers.tasks import TEXT, URL, ran, slept

queue = Queue("bench", connection=Redis.from_url(URL))
TASKS = {"noop": ran, "io": slept}
_BATCH = 500


def enqueue(kind: str, number: int) -> None:
    """Enqueue one task."""
    queue.enqueue(TASKS[kind], number, TEXT, result_ttl=0)


def enqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many tasks in pipelines."""
    left = iter(numbers)
    while some := list(islice(left, _BATCH)):
        queue.enqueue_many([Queue.prepare_data(TASKS[kind], (number, TEXT), result_ttl=0) for number in some])
