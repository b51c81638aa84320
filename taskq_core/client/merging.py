"""Send all enqueues of one event loop cycle together: in one script call per queue, or in a few calls."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from taskq_core.broker.operations.operation import BATCH_BYTES, BATCH_MAX, Operation
from taskq_core.broker.plans import arun_plan
from taskq_core.client.preparer import Prepared, failures
from taskq_core.client.sender import Sender
from taskq_core.errors import BrokerError, EnqueueError, QueueFullError

WORTH_A_CALL = 25
"""Minimum number of tasks in a request, if several requests are sent for the tasks of one loop cycle."""
MOST_CALLS = 4
"""Number of requests that are sent for many tasks of one loop cycle in one queue, or more if their size requires it.

Several requests are faster than one: Redis stores one batch while Python resumes the callers of another. With a single
request, Redis and Python would wait for each other."""
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
"""Options of an asyncio task that sends its request before its constructor returns."""
_Waiting = list[tuple[Prepared[Any], "asyncio.Future[None]"]]


class Merger:
    """Collects the enqueues of one event loop during a loop cycle, and sends them together.

    Args:
        sender: Makes the request plans.
        answer: Sends one operation of a request plan and returns its answer.
    """

    def __init__(self, sender: Sender, answer: Callable[[tuple[Operation[Any] | None, float]], Awaitable[Any]]) -> None:
        self._sender = sender
        self._answer = answer
        self._waiting: _Waiting = []
        self._sending: set[asyncio.Task[None]] = set()

    def put(self, prepared: Prepared[Any]) -> "asyncio.Future[None]":
        """Send a task together with the others of this loop cycle.

        Return a future that is done when the task was stored or refused.

        If the task was refused because its queue is full, the span of the task stays open and the task is not counted,
        because the caller may wait for room and call this method again.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((prepared, future))
        return future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        by_queue: dict[object, _Waiting] = {}
        for item in waiting:
            prepared, confirm = item[0], item[0].task.confirm
            by_queue.setdefault(prepared.queue if confirm is None else (prepared.queue, confirm), []).append(item)
        loop = asyncio.get_running_loop()
        for items in by_queue.values():
            calls = max(1, min(MOST_CALLS, len(items) // WORTH_A_CALL))
            most = min(BATCH_MAX, -(-len(items) // calls))
            start = 0
            while start < len(items):
                end, size = start, 0
                while end < min(start + most, len(items)) and size < BATCH_BYTES:
                    size += len(items[end][0].task.message)
                    end += 1
                task = asyncio.Task(self._send(items[start:end]), loop=loop, **_EAGER)
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)
                start = end

    async def _send(self, batch: _Waiting) -> None:
        started = time.monotonic()
        errors: list[EnqueueError | None]
        plan = self._sender.store(batch[0][0].queue, [prepared.task for prepared, _ in batch], self._sender.timeout_s)
        try:
            answer = await arun_plan(plan, self._answer)
            codes = zip(batch, answer.each(), strict=True)
            errors = [prepared.settle(code, answer, holder) for (prepared, _), (code, holder) in codes]
        except BrokerError as cause:
            errors = list(failures([prepared for prepared, _ in batch], cause))
        except Exception as mistake:  # a bug, or a task that a test runs during the send has raised it
            for prepared, future in batch:
                prepared.span.end(mistake)
                if not future.done():
                    future.set_exception(mistake)
            return
        except BaseException as interruption:
            for prepared, future in batch:
                prepared.span.end(interruption)
                future.cancel()  # the event loop is ending
            raise
        for (prepared, future), error in zip(batch, errors, strict=True):
            # Do not record a QueueFullError while the caller waits, because the caller may send the task again.
            if not isinstance(error, QueueFullError) or future.done():
                self._sender.preparer.record_sent(prepared, error, started)
            if future.done():
                continue  # the caller was cancelled during the send
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
