"""Durable tasks of the soak: two steps, a sleep, and signals that arrive about when they are waited for.

The task writes each execution of a step, and each result that it gets from a step. A worker sends the signals a moment
later, and writes which ones arrived.
"""

import asyncio
import itertools
import os
import random
from typing import Any

from taskq_core import TaskContext, TaskHandle, current_task
from taskq_core.errors import TaskQError
from tests.soak import program
from tests.soak.program import app

_numbers = itertools.count(1)
_senders: set[asyncio.Task[None]] = set()


def _new_value() -> str:
    return f"{os.getpid()}-{next(_numbers)}"


async def work(step: str) -> str:
    """Return a value that no other execution has."""
    value = _new_value()
    program.note("durable", step=step, ran=value)
    await asyncio.sleep(random.uniform(0, 0.2))
    return value


async def ask_for_signals() -> str:
    """Send two signals a moment later, from this process. If the process ends before, they are not sent."""
    context = current_task()
    sender = asyncio.create_task(_send(app.get(context.id, queue=context.queue), context.id))
    _senders.add(sender)
    sender.add_done_callback(_senders.discard)
    return await work("ask")


async def _send(handle: TaskHandle[Any], task_id: str) -> None:
    for _ in range(2):
        await asyncio.sleep(random.uniform(0, 0.5))
        value = _new_value()
        program.ledger.write("durable", id=task_id, run=0, sending=value)
        try:
            await handle.asignal("go", value)
        except TaskQError:
            continue  # the task has ended, or it is unknown whether the signal arrived
        program.ledger.write("durable", id=task_id, run=0, sent=value)


@app.task(name="durable")
async def durable(context: TaskContext, slot: int) -> None:
    """Write the value of each step and each signal, in every run."""

    def has(step: str, value: str | None) -> None:
        program.note("durable", step=step, has=value)

    has("ask", await context.astep("ask", ask_for_signals))
    has("first signal", await context.areceive("go", str, timeout=2, default=None))
    await context.asleep(0.3)
    has("work", await context.astep("work", work, "work"))
    has("second signal", await context.areceive("go", str, timeout=1, default=None))
    program.effects.put(slot)
