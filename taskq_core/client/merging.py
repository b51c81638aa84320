"""Send what one tick of an event loop enqueues together: in one script call per queue, or a few where it is much."""

import asyncio
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from taskq_core.broker.operations.new_tasks import Admitted, NewTask
from taskq_core.broker.operations.operation import BATCH_BYTES, BATCH_MAX
from taskq_core.client.preparer import Prepared, failures
from taskq_core.errors import BrokerError, EnqueueError, QueueFullError
from taskq_core.wire import QueueKeys

WORTH_A_CALL = 25
"""Tasks that, enqueued in one tick of an event loop, are worth a call to Redis of their own."""
MOST_CALLS = 4
"""Calls that the tasks of one tick and queue are spread over."""


class Sender(Protocol):
    """What a merger hands its tasks to."""

    async def send_tasks(self, queue: QueueKeys, tasks: Sequence[NewTask]) -> Admitted:
        """Send tasks of one queue and return what became of each."""
        ...

    def note_sent(self, prepared: Prepared[Any], error: EnqueueError | None, started: float) -> None:
        """Close the span of a task and count it."""
        ...


def batch_size(count: int) -> int:
    """Return how many tasks of one tick go in one call.

    In more than one, so that Redis stores one while Python wakes the callers of another. Otherwise callers that go on
    to enqueue again stay in step with each other, and either side waits for the other.
    """
    calls = max(1, min(MOST_CALLS, count // WORTH_A_CALL))
    return min(BATCH_MAX, -(-count // calls))


if sys.version_info >= (3, 12):

    def _begin(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        # Eagerly: it is written in this turn of the loop, not in the next.
        return asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)

else:

    def _begin(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        return asyncio.get_running_loop().create_task(work)


class Merger:
    """Gathers what one event loop enqueues in one tick.

    Args:
        client: Sends it.
    """

    def __init__(self, client: Sender) -> None:
        self._client = client
        self._waiting: list[tuple[Prepared[Any], asyncio.Future[None]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    def put(self, prepared: Prepared[Any]) -> "asyncio.Future[None]":
        """Send a task with the others of this tick. The future ends when it is stored, or with its error.

        What a full queue refuses is not counted as sent: its caller may wait for room and put it here again.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((prepared, future))
        return future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        by_queue: dict[object, list[tuple[Prepared[Any], asyncio.Future[None]]]] = {}
        for item in waiting:
            prepared, confirm = item[0], item[0].task.confirm
            by_queue.setdefault(prepared.queue if confirm is None else (prepared.queue, confirm), []).append(item)
        for items in by_queue.values():
            queue = items[0][0].queue
            most = batch_size(len(items))
            start = size = 0
            for index, (prepared, _) in enumerate(items):
                size += len(prepared.task.message)
                if index + 1 - start >= most or size >= BATCH_BYTES:
                    self._start(queue, items[start : index + 1])
                    start, size = index + 1, 0
            if start < len(items):
                self._start(queue, items[start:])

    def _start(self, queue: QueueKeys, items: "list[tuple[Prepared[Any], asyncio.Future[None]]]") -> None:
        task = _begin(self._send(queue, items))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, queue: QueueKeys, items: "list[tuple[Prepared[Any], asyncio.Future[None]]]") -> None:
        started = time.monotonic()
        errors: list[EnqueueError | None]
        try:
            answer = await self._client.send_tasks(queue, [prepared.task for prepared, _ in items])
            told = zip(items, answer.each(), strict=True)
            errors = [prepared.settle(code, answer, holder) for (prepared, _), (code, holder) in told]
        except BrokerError as cause:
            errors = list(failures([prepared for prepared, _ in items], cause))
        except Exception as mistake:  # no answer of Redis: a mistake, or what a task raised that ran while it was sent
            for prepared, future in items:
                prepared.span.end(mistake)
                if not future.done():
                    future.set_exception(mistake)
            return
        except BaseException as interruption:
            for prepared, future in items:
                prepared.span.end(interruption)
                future.cancel()  # the loop is ending
            raise
        for (prepared, future), error in zip(items, errors, strict=True):
            if not isinstance(error, QueueFullError) or future.done():  # else the caller may wait for room
                self._client.note_sent(prepared, error, started)
            if future.done():
                continue  # the caller was cancelled meanwhile; its task is enqueued all the same
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
