"""The durable task of the soak: steps, a sleep, two sub-tasks, a question, and two signals.

The signals are sent about when the task waits for them. Some tasks are cancelled at any time, and undo their work.

One step fails, and the task catches its failure. Another step fails in its first attempt. The task records each
execution of a step and each result of a step or of the sub-tasks. The worker that ran the first step sends the signals
a moment later, answers the question twice, and records which signals and answers arrived.
"""

import asyncio
import itertools
import os
import random
from collections.abc import Callable
from typing import Any

from taskq_core import StepFailedError, TaskContext, TaskHandle, current_task
from taskq_core.errors import TaskQError
from tests.soak import program
from tests.soak.program import app

PARTS = [1, 2]
"""Results of the sub-tasks."""
CANCELLED = 0.2
"""Part of the tasks that are cancelled."""

_numbers = itertools.count(1)
_failed: set[str] = set()
_senders: set[asyncio.Task[None]] = set()


def _new_value() -> str:
    return f"{os.getpid()}-{next(_numbers)}"


async def work(step: str) -> str:
    """Return a value that is different for each execution."""
    value = _new_value()
    program.record("durable", step=step, ran=value)
    await asyncio.sleep(random.uniform(0, 0.2))
    return value


async def decline() -> None:
    """Fail with a text that is different for each execution."""
    value = _new_value()
    program.record("durable", step="charge", ran=value)
    raise ValueError(value)


async def fail_at_first(task_id: str) -> str:
    """Fail in the first execution in this process."""
    if task_id not in _failed:
        _failed.add(task_id)
        raise ValueError("at first")
    return await work("repeated")


async def ask_for_signals() -> str:
    """Start to send two signals, the answers and perhaps a cancellation, unless the process ends first."""
    context = current_task()
    sender = asyncio.create_task(_send(app.get(context.id, queue=context.queue), context.id))
    _senders.add(sender)
    sender.add_done_callback(_senders.discard)
    return await work("ask")


async def _send(handle: TaskHandle[Any], task_id: str) -> None:
    if random.random() < CANCELLED:
        await asyncio.gather(_cancel(handle, task_id), _send_values(handle, task_id))
    else:
        await _send_values(handle, task_id)


async def _cancel(handle: TaskHandle[Any], task_id: str) -> None:
    """Cancel the task within a few seconds. Repeat the request, because its answer may be lost."""
    await asyncio.sleep(random.uniform(0, 4))
    for _ in range(30):
        try:
            if await handle.acancel():
                program.ledger.write("durable", id=task_id, run=0, cancelled=True)
            return
        except TaskQError:
            await asyncio.sleep(0.1)


async def _send_values(handle: TaskHandle[Any], task_id: str) -> None:
    for _ in range(2):
        await asyncio.sleep(random.uniform(0, 0.5))
        value = _new_value()
        program.ledger.write("durable", id=task_id, run=0, sending=value)
        try:
            await handle.asignal("go", value)
        except TaskQError:
            continue  # the task has ended, or the signal may or may not have arrived
        program.ledger.write("durable", id=task_id, run=0, sent=value)
    await _answer(handle, task_id)


async def _answer(handle: TaskHandle[Any], task_id: str) -> None:
    """Wait a few seconds for the question, and answer it twice. Only one answer may succeed."""
    for _ in range(30):
        await asyncio.sleep(0.1)
        try:
            question = await handle.aquestion()
            if question is None:
                continue
            for _ in range(2):
                value = _new_value()
                program.ledger.write("durable", id=task_id, run=0, answering=value)
                await handle.aanswer(question.number, value)
                program.ledger.write("durable", id=task_id, run=0, answered=value)
        except TaskQError:
            continue  # the question was answered, the task has ended, or the answer may or may not have arrived
        return


@app.task(name="part")
async def part(of: str, number: int) -> int:
    """Record a run of a sub-task."""
    program.record("part", of=of, number=number)
    return number


@app.task(name="durable")
async def durable(context: TaskContext, slot: int) -> None:
    """Record the value of each step and each signal, in every run."""

    def has(step: str, value: object) -> None:
        program.record("durable", step=step, has=value)

    has("ask", await context.astep("ask", ask_for_signals))
    try:
        await _order(context, slot, has)
    except asyncio.CancelledError:  # when the worker stops, the step is refused
        has("undo", await context.using(max_retry=9, retry_delay=0.1).astep("undo", work, "undo"))
        raise
    program.effects.put(slot)


async def _order(context: TaskContext, slot: int, has: Callable[[str, object], None]) -> None:
    has("first signal", await context.areceive("go", str, timeout=2, default=None))
    try:
        await context.astep("charge", decline)
    except StepFailedError as error:
        charge = error.text
    has("release", await context.astep("release", work, "release"))
    has("charge", charge)  # its failure is stored before the step "release" begins
    await context.asleep(0.3)
    policy = context.using(max_retry=9, retry_delay=0.1)
    has("repeated", await policy.astep("repeated", fail_at_first, context.id))
    parts = [part.using(queue=context.queue).s(context.id, number) for number in PARTS]
    has("parts", await context.acall(*parts))
    has("work", await context.astep("work", work, "work"))
    has("second signal", await context.areceive("go", str, timeout=1, default=None))
    has("answer", await context.areceive("pay", str, timeout=1, default=None, ask={"slot": slot}))
