"""Take back the tasks of a worker process that has ended, without waiting until their leases expire.

The worker's token identifies its tasks in Redis. The script that moves a task compares the token again. So it does not
move a task that was settled or that another worker has taken.

The loss counts as an attempt, as at the end of a lease, so a task that kills its process stops after `max_retry + 1`
runs. `delay_after_loss` computes the delay of the next run.
"""

import math
from collections.abc import AsyncIterator, Collection, Sequence
from functools import partial

from taskq_core.app import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.operation import MESSAGE_MAX
from taskq_core.broker.operations.services import Expired, ExpiredTask, Recovery, list_held, recover
from taskq_core.errors import WireFormatError
from taskq_core.settings import Settings
from taskq_core.wire import QueueKeys, decode_message
from taskq_core.wire.durations import NS_PER_S
from taskq_core.worker.dead_letters import needs_dead_letter
from taskq_core.worker.recoverer import BATCH, decide, log_recovery
from taskq_core.worker.run import ends_at


async def list_overrun(
    runner: AsyncRunner, queues: Sequence[QueueKeys], token: str, *, grace_s: float
) -> list[tuple[str, str]]:
    """Return queue and id of the tasks that a worker still holds `grace_s` seconds after their timeout or deadline.

    Such a task may block its whole process, which then does not answer its supervisor.

    Raises:
        BrokerError: Redis refused or was not reached.
    """
    found = []
    for queue in queues:
        async for held in _held(runner, queue, token, MESSAGE_MAX):
            now_s = held.now_ns / 1e9
            found += [(queue.name, task.task_id) for task in held.tasks if _ends_s(task) + grace_s < now_s]
    return found


def _ends_s(task: ExpiredTask) -> float:
    """Return the Unix time by which a task has to end, or infinity if that time is unknown."""
    if task.started_s is None:
        return math.inf
    try:
        message = decode_message(task.message)
    except WireFormatError:
        return math.inf
    return ends_at(message, task.started_s, clock_ahead_s=0.0)


async def _held(runner: AsyncRunner, queue: QueueKeys, token: str, max_message: int) -> AsyncIterator[Expired]:
    """Yield the tasks of a queue that a worker holds, some at a time."""
    cursor = ""
    while cursor != "0":
        held = await runner.run(list_held(queue, owner=token, cursor=cursor or "0", max_message=max_message))
        cursor = held.cursor
        yield held.found


async def take_back(
    runner: AsyncRunner,
    queues: Sequence[QueueKeys],
    token: str,
    app: TaskQ,
    *,
    overran: Collection[tuple[str, str]] = (),
) -> int:
    """Take back all tasks that an ended worker holds: retry or archive them. Return the number of tasks.

    Args:
        runner: Sends operations.
        queues: Key names of the queues that the worker served.
        token: Token of the worker, whose process has ended.
        app: The queue application. The options of its tasks decide whether a loss counts as a failure.
        overran: Queue and id of the tasks that ran past their timeout or deadline. Their runs count as timed out.

    Raises:
        BrokerError: Redis refused or was not reached. Some tasks may have been taken back.
    """
    count = 0
    is_dead_letter_needed = partial(needs_dead_letter, app)
    for queue in queues:
        async for held in _held(runner, queue, token, app.settings.max_message_bytes):
            now_s, tasks = held.now_ns // NS_PER_S, held.tasks
            for start in range(0, len(tasks), BATCH):
                recoveries = [
                    decide(
                        app, queue, task, now_s, is_dead_letter_needed, is_overrun=(queue.name, task.task_id) in overran
                    )
                    for task in tasks[start : start + BATCH]
                ]
                count += await _take(runner, queue, token, recoveries, app.settings)
    return count


async def _take(
    runner: AsyncRunner, queue: QueueKeys, token: str, recoveries: list[Recovery], settings: Settings
) -> int:
    count = 0
    archive, max_message = settings.archive.limits(queue.name), settings.max_message_bytes
    while recoveries:
        request = recover(queue, recoveries, grace_s=0, archive=archive, gone=token, max_message=max_message)
        codes = await runner.run(request)
        for recovery, code in zip(recoveries, codes, strict=True):
            if code == "1":
                count += 1
                log_recovery(queue, recovery, "a task's process has ended")
        recoveries = [each for each, code in zip(recoveries, codes, strict=True) if code == "2"]
    return count
