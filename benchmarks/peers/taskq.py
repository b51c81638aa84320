"""taskq itself under the measurements of its peers. Setting after docs/how-to/run-a-worker.md: `--concurrency`."""

from collections.abc import Iterable

from benchmarks.peers.tasks import SETTING, TEXT, URL, ran, slept, waited
from taskq_core import Signature, TaskQ

app = TaskQ(URL, enqueue_timeout=60)  # a machine that is busy slows a measurement, and ends none


async def noop(number: int, text: str) -> None:
    """Do nothing."""
    ran(number, text)


if SETTING.get("kind") == "plain":
    TASKS = {"noop": app.task(name="noop")(ran), "io": app.task(name="io")(slept)}
else:
    TASKS = {"noop": app.task(name="noop")(noop), "io": app.task(name="io")(waited)}


def enqueue(kind: str, number: int) -> None:
    """Enqueue one."""
    TASKS[kind].delay(number, TEXT)


def enqueue_many(kind: str, numbers: Iterable[int]) -> None:
    """Enqueue many out of a generator."""
    task = TASKS[kind]
    app.client.enqueue_many(Signature(task, (number, TEXT), {}) for number in numbers)


async def connect() -> None:
    """Connections are opened by the first call."""


async def close() -> None:
    """Close them."""
    await app.aclose()


async def aenqueue(kind: str, number: int) -> None:
    """Enqueue one."""
    await TASKS[kind].adelay(number, TEXT)
