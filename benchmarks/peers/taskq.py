"""Adapter for taskq itself. The settings follow docs/how-to/run-a-worker.md: `--concurrency`."""

from collections.abc import Iterable

from benchmarks.peers.tasks import SETTING, TEXT, URL, ran, slept, waited
from taskq_core import Signature, TaskQ

if SETTING.get("telemetry"):
    from taskq_core.telemetry import configure

    configure("benchmark")

app = TaskQ(URL, enqueue_timeout=60)  # long, so that a busy machine does not make a measurement fail


async def noop(number: int, text: str) -> None:
    """Do nothing."""
    ran(number, text)


if SETTING.get("kind") == "plain":
    TASKS = {"noop": app.task(name="noop")(ran), "io": app.task(name="io")(slept)}
else:
    TASKS = {"noop": app.task(name="noop")(noop), "io": app.task(name="io")(waited)}


def enqueue(kind: str, number: int) -> None:
    """Enqueue one task."""
    TASKS[kind].delay(number, TEXT)


def enqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many tasks from a generator."""
    task = TASKS[kind]
    app.client.enqueue_many(Signature(task, (number, TEXT), {}) for number in numbers)


async def connect() -> None:
    """Do nothing, because the first call opens the connections."""


async def close() -> None:
    """Close the connections."""
    await app.aclose()


async def aenqueue(kind: str, number: int) -> None:
    """Enqueue one task."""
    await TASKS[kind].adelay(number, TEXT)
