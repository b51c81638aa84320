"""A queue application and a scenario that leaves every kind of data in Redis.

Ids, arguments and times are fixed, so that two runs differ only in clocks and random values. Run as a program it uses a
private Redis and prints its final content, the golden file of a release.

    python -m tests.processes.releases.scenario > tests/golden/release-0.1.0.json
"""

import asyncio
import json
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

from taskq_core import (
    Concurrency,
    GroupedTask,
    QueueUnservedWarning,
    Signature,
    TaskQ,
    Unique,
    chain,
    chord,
    current_task,
)
from taskq_core.broker.operations import runs
from taskq_core.inspector import Inspector
from taskq_core.worker import Worker, WorkerConfig
from tests.processes.releases.dump import dump
from tests.redis_server import RedisServer

FAR = datetime(2099, 12, 31, 12, tzinfo=UTC)
DECADES_S = 50 * 365 * 86_400
"""Retention of ended tasks, so long that the golden file can be read for years."""
QUEUES = {"default": 1, "later": 1, "low": 1}


def application(url: str) -> TaskQ:
    """Return the application, with its tasks."""
    taskq = TaskQ(url, queues=QUEUES, defaults={"retention": DECADES_S, "timeout": 60}, enqueue_timeout=30)

    @taskq.task(name="mail:send")
    async def send(to: str, subject: str = "Hello") -> dict[str, str]:
        return {"to": to, "subject": subject}

    @taskq.task(name="mail:broken", max_retry=0)
    async def broken(to: str) -> None:
        raise ValueError(f"no such address: {to}")

    @taskq.task(name="mail:flaky", max_retry=3, retry_delay=DECADES_S)
    async def flaky(to: str) -> str:
        if current_task().attempt == 1:
            raise TimeoutError("busy")
        return to

    @taskq.task(name="sum:add")
    async def add(a: int, b: int) -> int:
        return a + b

    @taskq.task(name="sum:total", queue="later")
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    @taskq.task(name="sum:twice", queue="later")
    async def twice(number: int) -> int:
        return 2 * number

    @taskq.task(name="search:index", unique=Unique(args=["page"]))
    async def index(page: int, reason: str = "") -> int:
        return page

    @taskq.task(name="bank:ask", concurrency=Concurrency(1, key="account"))
    async def ask(account: str) -> str:
        return account

    @taskq.task(name="notice:one")
    async def notify(text: str) -> str:
        return text

    @taskq.task(name="notice:digest", task_id="digest-1")
    async def send_digest(texts: list[str]) -> str:
        return ", ".join(texts)

    @taskq.aggregator("user:", grace=1)
    def digest(group: str, tasks: list[GroupedTask]) -> Signature[str]:
        return send_digest.s([task.kwargs["text"] for task in tasks])

    return taskq


async def play(url: str) -> None:
    """Run the scenario."""
    taskq = application(url)
    task = {name: taskq.tasks[name] for name in taskq.tasks}
    send, add = task["mail:send"], task["sum:add"]

    # Tasks that a worker ran: completed, archived, to be retried, and workflows whose next step waits in another queue.
    await send.using(task_id="done-1").adelay("a@example.com", subject="é")
    await task["mail:broken"].using(task_id="broken-1").adelay("b@example.com")
    await task["mail:flaky"].using(task_id="flaky-1").adelay("c@example.com")
    await taskq.aenqueue_workflow(chain(add.s(1, 2), task["sum:twice"].s()))
    await taskq.aenqueue_workflow(chord([add.s(number, 1) for number in range(3)], task["sum:total"].s()))
    await Worker(taskq, WorkerConfig(queues={"default": 1}, burst=True)).arun()

    # Waiting tasks: plain, with every option, scheduled, for a limit, in a group, unique, in a paused queue.
    await send.using(task_id="plain-1").adelay("d@example.com")
    everything = send.using(
        task_id="options-1",
        max_retry=7,
        timeout=90,
        deadline=FAR,
        expires=FAR,
        on_expiry="discard",
        dead_letter="mail:lost",
        priority=3,
        retry_priority=5,
        headers={"tenant": "north"},
    )
    await everything.adelay("e@example.com", subject="all")
    await send.using(task_id="scheduled-1", run_after=FAR).adelay("f@example.com")
    for number in (1, 2):
        await task["bank:ask"].using(task_id=f"limited-{number}").adelay("acc-1")
    for number in (1, 2):
        await task["notice:one"].using(task_id=f"grouped-{number}", aggregate="user:7").adelay(f"text {number}")
    await task["search:index"].using(task_id="unique-1").adelay(7, reason="edited")
    await send.using(task_id="locked-1", unique_for=DECADES_S).adelay("g@example.com")
    await send.using(task_id="low-1", queue="low").adelay("h@example.com")
    Inspector(taskq).pause("low")

    # Tasks that a worker was running when it was killed.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QueueUnservedWarning)  # the worker of the queue has ended
        await send.using(task_id="active-1", queue="busy").adelay("i@example.com")
    busy = taskq.runtime.keys.queue("busy")
    await taskq.runtime.async_runner.run(runs.dequeue(busy, owner="w-gone", call=1, limit=1, lease_s=30))
    await taskq.aclose()


def main() -> None:
    """Print the content of Redis after the scenario."""
    with RedisServer() as server:
        asyncio.run(play(server.unix_url))
        text = json.dumps(dump(server.client), indent=1, sort_keys=True)
    sys.stdout.write(text.replace(str(Path(__file__).parents[3]), "/srv/taskq") + "\n")  # paths in tracebacks


if __name__ == "__main__":
    main()
