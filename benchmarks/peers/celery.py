"""Adapter for Celery. Settings for many short tasks: https://docs.celeryq.dev/en/stable/userguide/optimizing.html.

Celery has no bulk enqueue in one request to Redis. `enqueue_many` uses one producer, the fastest way that we found.
"""

from collections.abc import Iterable

from celery import Celery

from benchmarks.peers.tasks import SETTING, TEXT, URL, ran, slept
from benchmarks.peers.telemetry import configured

if configured():
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    CeleryInstrumentor().instrument()

app = Celery("bench", broker=URL.partition("?")[0].replace("unix:", "redis+socket:"), set_as_current=True)
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    worker_prefetch_multiplier=SETTING.get("prefetch", 4),
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
TASKS = {"noop": app.task(ran, name="noop"), "io": app.task(slept, name="io")}


def enqueue(kind: str, number: int) -> None:
    """Enqueue one task."""
    TASKS[kind].delay(number, TEXT)


def enqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many tasks with one producer."""
    task = TASKS[kind]
    with app.producer_or_acquire() as producer:
        for number in numbers:
            task.apply_async((number, TEXT), producer=producer)
