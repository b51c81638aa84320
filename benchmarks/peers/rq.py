"""RQ. Setting after https://python-rq.org/docs/ (`enqueue_many`) and its page on workers (`SimpleWorker`).

Results are kept for 500 s by default and for no time here.
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
    """Enqueue one."""
    queue.enqueue(TASKS[kind], number, TEXT, result_ttl=0)


def enqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many in pipelines."""
    left = iter(numbers)
    while some := list(islice(left, _BATCH)):
        queue.enqueue_many([Queue.prepare_data(TASKS[kind], (number, TEXT), result_ttl=0) for number in some])
