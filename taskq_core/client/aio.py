"""The client for coroutines."""

import asyncio
import time
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import arun_plan
from taskq_core.client.bulk import Batch, BatchFiller, BulkResult, aiterate, batches, with_later
from taskq_core.client.circuit import CircuitState
from taskq_core.client.merging import Merger
from taskq_core.client.outbox import OutboxSender
from taskq_core.client.preparer import Prepared
from taskq_core.client.sender import Sender, SendPlan, TransactionHook, Wait
from taskq_core.client.sync import Client
from taskq_core.errors import BrokerError, BulkEnqueueError, QueueFullError
from taskq_core.handles.handle import TaskHandle
from taskq_core.handles.subscription import TaskFollower
from taskq_core.tasks.canvas import Signature
from taskq_core.wire import QueueKeys, validate_queue_name, validate_task_id

R = TypeVar("R")
T = TypeVar("T")
Calls = Iterable[Signature[Any]] | AsyncIterable[Signature[Any]]


class AsyncClient:
    """Enqueues from coroutines.

    Enqueues in one cycle of the event loop are sent to Redis together: one script call per queue, or a few script calls
    if there are many tasks. If the caller is cancelled while its task is being sent, the task is still enqueued.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        blocking: Client,
        hook: TransactionHook | None = None,
        outbox: OutboxSender | None = None,
    ) -> None:
        self._sender = sender
        self._preparer = sender.preparer
        self._source = sender.preparer.source
        self._blocking = blocking
        self._hook = hook
        self._outbox = outbox
        self._observer = sender.preparer.observer
        self._mergers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Merger] = weakref.WeakKeyDictionary()
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def circuit_state(self) -> CircuitState:
        """State of the circuit breaker, which both clients share. See `Client.circuit_state`."""
        return self._blocking.circuit_state

    async def enqueue(self, call: Signature[R]) -> TaskHandle[R]:
        """Enqueue one call and return its handle. Raises the errors of `Client.enqueue`."""
        middleware = self._preparer.middleware
        if middleware.sees_calls:
            call = await middleware.aoutgoing(call)
        prepared = self._preparer.prepare(call)
        if self._outbox is not None:
            await self._outbox.asend(prepared)
        elif self._hook is not None and await self._hook.adefer(
            lambda: self._blocking.send_deferred(prepared), prepared.handle.mark_rolled_back
        ):
            self._preparer.defer(prepared)
        else:
            # Send the task together with others of the same loop cycle.
            loop, started = asyncio.get_running_loop(), time.monotonic()
            merger = self._mergers.get(loop)
            if merger is None:
                merger = self._mergers[loop] = Merger(self._sender, self._answer)
            try:
                await merger.put(prepared)
            except QueueFullError as error:
                await self._send_again(prepared, merger, error, started)
            if self._observer is not None and self._observer.wants_enqueued():
                await self._observer.anotify_enqueued((prepared.handle,))
        return prepared.handle

    async def _send_again(self, prepared: Prepared[Any], merger: Merger, error: QueueFullError, started: float) -> None:
        """Wait until the full queue of a refused task has room. Raise the last error if that takes too long."""
        wait = self._sender.wait(prepared.queue.name)
        while (pause_s := wait.pause_s()) is not None:
            try:
                await asyncio.sleep(pause_s)
            except BaseException as interruption:
                prepared.span.end(interruption)
                raise
            try:
                return await merger.put(prepared)
            except QueueFullError as refused:
                error = refused
        self._preparer.record_sent(prepared, error, started)
        raise error

    async def enqueue_many(self, calls: Calls) -> BulkResult:
        """Enqueue any number of calls in batches. Also accepts asynchronous iterables. See `Client.enqueue_many`.

        If the caller is cancelled, the batches that are being sent are still enqueued.
        """
        result = BulkResult(self._preparer.handle)
        waiting: list[Batch] = []
        if self._outbox is not None:
            await self._outbox.asend_many(self._batches(calls, is_deferred=True), result)
        elif self._hook is not None and await self._hook.adefer(
            lambda: self._blocking.send_deferred_batches(waiting, result), result.mark_rolled_back
        ):
            waiting += [batch async for batch in self._batches(calls, is_deferred=True)]
            result.defer(waiting)
        else:
            await self._send_batches(self._batches(calls), result)
        return result

    async def _send_batches(self, prepared: AsyncIterator[Batch], result: BulkResult) -> None:
        """Send batches in order. Those that are prepared during a round trip are sent together in the next one."""
        in_flight: asyncio.Task[None] | None = None
        waiting: list[Batch] = []
        waits: dict[str, Wait] = {}

        def send_waiting(previous: asyncio.Task[None] | None) -> None:
            """Start to send the waiting batches, after those of `previous` were stored."""
            nonlocal in_flight
            if previous is not in_flight or not waiting:
                return
            if previous is None or (not previous.cancelled() and previous.exception() is None):
                in_flight = self._start(self._store(waiting[:], result, waits))
                in_flight.add_done_callback(send_waiting)
                waiting.clear()

        async def wait_and_send() -> None:
            previous = in_flight
            if previous is not None:
                await asyncio.shield(previous)
            send_waiting(previous)

        async def send_all() -> None:
            await wait_and_send()
            await wait_and_send()

        try:
            try:
                async for batch in prepared:
                    while waiting and self._sender.must_wait(batch, waiting):
                        await wait_and_send()
                    waiting.append(batch)
                    if in_flight is None or in_flight.done():
                        await wait_and_send()
                    await asyncio.sleep(0)  # start the send now, and let other asyncio tasks run
            except BulkEnqueueError:
                raise
            except Exception:  # a later call could not be prepared
                await send_all()
                raise
            await send_all()
        except Exception as error:
            result.note_progress(error)
            raise
        finally:
            waiting.clear()
            if self._observer is not None and self._observer.wants_enqueued():
                await self._observer.anotify_enqueued(result[:])

    async def _batches(self, calls: Calls, *, is_deferred: bool = False) -> AsyncIterator[Batch]:
        middleware = self._preparer.middleware
        if not isinstance(calls, AsyncIterable) and not middleware.sees_calls:
            for batch in batches(self._preparer, calls, is_deferred=is_deferred):
                yield batch
            return
        filler = BatchFiller(self._preparer, is_deferred=is_deferred)
        async for call in aiterate(calls):
            full = filler.add(await middleware.aoutgoing(call))
            if full is not None:
                yield full
        for batch in filler.rest():
            yield batch

    async def _store(self, group: Sequence[Batch], result: BulkResult, waits: dict[str, Wait]) -> None:
        """Store batches. The first requests of all batches are sent in one write."""
        plans = []
        for batch in group:
            name = batch.queue.name
            if name not in waits:
                waits[name] = self._sender.wait(name)
            plans.append(self._sender.store_batch(batch, result, waits[name]))
        runner = self._source.async_runner
        # While Redis fails, the first failure ends the bulk enqueue.
        if len(plans) == 1 or self._sender.circuit.failures or not runner.sends_together:
            for plan in plans:
                await arun_plan(plan, self._answer)
            return
        requests = [next(plan) for plan in plans]
        answers = await runner.try_together([each for each, _ in requests if each is not None])
        first: BulkEnqueueError | None = None
        later: list[tuple[Batch, BulkEnqueueError | None]] = []
        for batch, plan, request, answer in zip(group, plans, requests, answers, strict=True):
            failed = None
            try:
                await self._finish(plan, request, answer, may_repeat=first is None)
            except BulkEnqueueError as error:
                failed = error
            if first is None:
                first = failed
            else:
                later.append((batch, failed))
        if first is not None:
            raise with_later(first, later) from first.__cause__

    async def _finish(
        self, plan: SendPlan[None], first: tuple[Operation[Any] | None, float], answer: Any, *, may_repeat: bool
    ) -> None:
        """Execute the rest of a request plan, whose first request was sent and got this answer or error."""

        async def respond(request: tuple[Operation[Any] | None, float]) -> Any:
            operation, until = request
            if request is not first or operation is None:
                return await self._answer(request)
            if not isinstance(answer, BrokerError):
                return answer
            patience_s = max(0.0, until - time.monotonic()) if may_repeat else None
            return await self._source.async_runner.run(operation, patience_s=patience_s, failure=answer)

        await arun_plan(plan, respond, first)

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a coroutine in a separate asyncio task, which continues if the caller is cancelled."""
        sending = asyncio.get_running_loop().create_task(work)
        self._sending.add(sending)
        sending.add_done_callback(self._forget_sending)
        return sending

    def _forget_sending(self, sending: "asyncio.Task[None]") -> None:
        self._sending.discard(sending)
        if not sending.cancelled():
            # Read the error, because asyncio would log it if the caller was cancelled and does not wait for the send.
            sending.exception()

    def _answer(self, request: tuple[Operation[Any] | None, float]) -> Awaitable[Any]:
        operation, until = request
        left_s = max(0.0, until - time.monotonic())
        if operation is None:
            return asyncio.sleep(left_s)
        return self._source.async_runner.run(operation, patience_s=left_s)

    # --- for workflows and status routes ------------------------------------------------------------------------------

    async def run(self, operation: Operation[T]) -> T:
        """Send one operation and return its response. See `Client.run`."""
        return await arun_plan(self._sender.run(operation), self._answer)

    async def register(self, queue: QueueKeys) -> None:
        """Add a queue to the set of known queues, unless this client has done so recently."""
        await arun_plan(self._sender.register(queue), self._answer)

    def follow(self, queue: str, task_id: str) -> TaskFollower:
        """Return an object for `async with`. It reads one task repeatedly, and waits for changes of the task.

        Raises:
            ConfigurationError: The name or the id is not valid.
        """
        return self._source.afollower(validate_queue_name(queue), validate_task_id(task_id))
