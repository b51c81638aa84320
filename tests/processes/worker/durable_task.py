"""A durable task that does everything once, and keeps a ledger of what it did, for tests of crashes.

The ledger is in Redis: `mark:<name>:steps` has each execution of a step with its result, `mark:<name>:children` the id
of the task for each run of a sub-task, and `mark:<name>:wrong` each of them that began after its result was stored.
"""

import asyncio
import contextlib
import uuid
from typing import Any

import redis

from taskq_core import TaskContext, TaskQ, current_task

SIGNALS = ["one", "two"]
STEPS = ("first", "a", "b", "last")


class Ledger:
    """Registers the tasks with an application, and writes the ledger to a server that is never killed."""

    def __init__(self, app: TaskQ) -> None:
        self._app = app
        self.notes: Any = None

        @app.task(name="durable_child", retry_delay=0, max_retry=20)
        async def child(name: str, number: int) -> int:
            self.record(f"{name}:children", current_task().id)
            self.check_child(name)
            return number

        @app.task(name="durable", retry_delay=0, max_retry=30)
        async def durable(context: TaskContext, name: str) -> list[Any]:
            first = await context.astep("first", self.step, name, "first")
            both = await asyncio.gather(
                context.astep("a", self.step, name, "a"), context.astep("b", self.step, name, "b")
            )
            await context.aemit("before")
            one = await context.areceive("go", str)
            numbers = await context.acall(child.s(name, 1), child.s(name, 2))
            await context.asleep(0.2)
            two = await context.areceive("go", str, timeout=600)
            last = await context.astep("last", self.step, name, "last")
            await context.aemit("after")
            return [first, *both, last, one, two, *numbers]

    def record(self, name: str, what: str) -> None:
        self.notes.rpush(f"mark:{name}", what)

    def check_child(self, name: str) -> None:
        """Write to the ledger whether a result of this sub-task was already stored."""
        context = current_task()
        task = self._app.runtime.keys.queue(context.queue).task(context.id)
        with contextlib.suppress(redis.ConnectionError), redis.from_url(str(self._app.settings.url)) as work:
            group, _, _, workflow = work.hget(task, "taskq_step").decode().split()
            if work.hexists(f"{workflow}:g0", group.removeprefix("0.")):
                self.record(f"{name}:wrong", context.id)

    async def step(self, name: str, step: str) -> str:
        """Return a new result. Write it to the ledger, and whether a result was already stored."""
        context = current_task()
        record = self._app.runtime.keys.queue(context.queue).steps_of(context.id)
        with contextlib.suppress(redis.ConnectionError), redis.from_url(str(self._app.settings.url)) as work:
            if work.hexists(record, f"s:{step}"):
                self.record(f"{name}:wrong", step)
        result = f"{step} {uuid.uuid4().hex}"
        self.record(f"{name}:steps", result)
        await context.aemit(result)
        return result
