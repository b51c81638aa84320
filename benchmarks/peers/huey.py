"""Adapter for huey: threads, blocking reads. The settings follow https://huey.readthedocs.io/en/latest/guide.html.

Results are off, as its page on performance recommends if results are not read. huey has no bulk enqueue.
"""

from collections.abc import Iterable

from huey import RedisHuey

from benchmarks.peers.tasks import TEXT, URL, ran, slept

huey = RedisHuey("bench", url=URL, results=False)
TASKS = {"noop": huey.task(name="noop")(ran), "io": huey.task(name="io")(slept)}


def enqueue(kind: str, number: int) -> None:
    """Enqueue one task."""
    TASKS[kind](number, TEXT)


def enqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many tasks, one after another."""
    task = TASKS[kind]
    for number in numbers:
        task(number, TEXT)
