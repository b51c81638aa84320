"""The client of coroutines: what one tick of the event loop enqueues goes to Redis together."""

import asyncio
import math
import time
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import views
from taskq_core.broker.operations.new_tasks import Admitted, NewTask
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import RequestPlan, arun_plan
from taskq_core.client import changing
from taskq_core.client.admission import Admission, Wait, admitted
from taskq_core.client.bulk import Batch, BatchFiller, BulkResult, SentBatch, batches, so_far
from taskq_core.client.circuit import Circuit, CircuitState
from taskq_core.client.commits import TransactionHook
from taskq_core.client.merging import Merger
from taskq_core.client.outbox import OutboxSender
from taskq_core.client.preparer import Prepared, Preparer
from taskq_core.client.receipts import ReceiptSlots
from taskq_core.client.sync import Client
from taskq_core.errors import (
    BrokerError,
    BulkEnqueueError,
    EnqueueError,
    QueueFullError,
)
from taskq_core.handles.events import FIRST_LOOK_S, LAST_LOOK_S
from taskq_core.handles.handle import TaskHandle
from taskq_core.handles.outcomes import NOT_YET, check_kept, found, outcome_of, timed_out
from taskq_core.handles.records import TaskInfo
from taskq_core.handles.subscription import EndHub, TaskFollower
from taskq_core.settings import Duration, seconds
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.middleware import MiddlewareStack
from taskq_core.tasks.observer import Observer
from taskq_core.wire import QueueKeys, validate_queue_name, validate_task_id

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


class AsyncClient:
    """Enqueues from coroutines.

    What one tick of the event loop enqueues goes to Redis together: in one script call per queue, or a few where it is
    much. A call that was cancelled while its task was on the way does not take it back.
    """

    def __init__(
        self,
        preparer: Preparer,
        runner: AsyncRunner,
        *,
        timeout_s: float,
        blocking: Client,
        admission: Admission,
        circuit: Circuit,
        hook: TransactionHook | None = None,
        outbox: OutboxSender | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._preparer = preparer
        self._observer = observer or Observer()
        self._runner = runner
        self._timeout_s = timeout_s
        self._admission = admission
        self._circuit = circuit
        self._blocking = blocking
        self._hook = hook
        self._outbox = outbox
        self._mergers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Merger] = weakref.WeakKeyDictionary()
        self._hub = EndHub(runner)
        self._receipts = ReceiptSlots()
        self._landing: set[asyncio.Task[None]] = set()

    def send_through(self, runner: AsyncRunner) -> None:
        """Send through another runner from now on."""
        self._runner = runner
        self._receipts = ReceiptSlots()
        self._hub = EndHub(runner)
        self._circuit.reset()
        self._preparer.forget_registered()

    @property
    def circuit_state(self) -> CircuitState:
        """Whether Redis is asked, or was out of reach too often. As `Client.circuit_state`, and the same."""
        return self._circuit.state

    async def enqueue(self, call: Signature[R]) -> TaskHandle[R]:
        """Enqueue one call and return its handle. Raises as `Client.enqueue`."""
        middleware = self._preparer.middleware
        if middleware.sees_calls:
            call = await middleware.aoutgoing(call)
        prepared = self._preparer.prepare(call, self._blocking)
        if self._outbox is not None:
            await self._outbox.asend(prepared)
            return prepared.handle
        if self._hook is not None and await self._hook.adefer(lambda: self._blocking.send_deferred(prepared)):
            prepared.handle.mark_deferred()
            return prepared.handle
        loop = asyncio.get_running_loop()
        merger = self._mergers.get(loop)
        if merger is None:
            merger = self._mergers[loop] = Merger(self)
        await self._put(merger, prepared)
        if self._observer.wants_enqueued():
            await self._observer.atell_enqueued((prepared.handle,))
        return prepared.handle

    async def _put(self, merger: "Merger", prepared: Prepared[Any]) -> None:
        """Send a task with the others of its tick, again and again while its queue is full and it may wait."""
        started = time.monotonic()
        wait: Wait | None = None
        while True:
            try:
                await merger.put(prepared)
                return
            except QueueFullError as error:
                wait = wait or self._admission.wait(prepared.queue.name)
                pause_s = wait.pause_s()
                if pause_s is None:
                    self.note_sent(prepared, error, started)
                    raise
            try:
                await asyncio.sleep(pause_s)
            except BaseException as interruption:
                prepared.span.end(interruption)
                raise

    async def enqueue_many(self, calls: Iterable[Signature[Any]] | AsyncIterable[Signature[Any]]) -> BulkResult:
        """Enqueue any number of calls, streamed. Takes asynchronous iterables too. As `Client.enqueue_many`.

        When it is cancelled, the batch on its way is still sent.
        """
        middleware = self._preparer.middleware
        if middleware.sees_calls:
            calls = _shown(middleware, calls)
        result = BulkResult(lambda task, task_id: self._preparer.handle(task, task_id, self._blocking))
        if self._outbox is not None:
            await self._outbox.asend_many(self._batches(calls), result)
            return result
        waiting: list[Batch] = []
        if self._hook is not None and await self._hook.adefer(
            lambda: self._blocking.send_deferred_batches(waiting, result)
        ):
            prepared = [batch async for batch in self._batches(calls)]
            result.defer(prepared)
            waiting += prepared
            return result
        flying: asyncio.Task[None] | None = None
        waits: dict[str, Wait] = {}
        try:
            async for batch in self._batches(calls):
                if flying is not None:
                    landing, flying = flying, None
                    await asyncio.shield(landing)
                flying = self._start(batch, result, waits)
                await asyncio.sleep(0)  # lets it reach the socket, and others run between batches
            if flying is not None:
                landing, flying = flying, None
                await asyncio.shield(landing)
        except Exception as error:
            if flying is not None:  # a later call did not fit: what is on its way still counts
                await asyncio.shield(flying)
            if not isinstance(error, BulkEnqueueError):
                error.add_note(so_far(result))
            raise
        finally:
            if self._observer.wants_enqueued():
                await self._observer.atell_enqueued(result[:])
        return result

    async def _batches(self, calls: Iterable[Signature[Any]] | AsyncIterable[Signature[Any]]) -> AsyncIterator[Batch]:
        if not isinstance(calls, AsyncIterable):
            for batch in batches(self._preparer, calls):
                yield batch
            return
        filler = BatchFiller(self._preparer)
        async for call in calls:
            full = filler.add(call)
            if full is not None:
                yield full
        for batch in filler.rest():
            yield batch

    def _start(self, batch: Batch, result: BulkResult, waits: dict[str, Wait]) -> "asyncio.Task[None]":
        """Send a batch in a task of its own, which goes on when the caller is cancelled."""
        name = batch.queue.name
        wait = waits.get(name) or waits.setdefault(name, self._admission.wait(name))
        sending = asyncio.get_running_loop().create_task(self._send_batch(batch, result, wait))
        self._landing.add(sending)
        sending.add_done_callback(self._landed)
        return sending

    def _landed(self, sending: "asyncio.Task[None]") -> None:
        self._landing.discard(sending)
        if not sending.cancelled():
            sending.exception()  # seen: nobody waits for it any more if the caller was cancelled

    async def _send_batch(self, batch: Batch, result: BulkResult, wait: Wait) -> None:
        landing = SentBatch(self._preparer, batch, result)
        started = time.monotonic()
        wait.renew()
        try:
            answer = await self.send_tasks(batch.queue, batch.tasks)
            while (pause_s := landing.settle(answer, wait, time.monotonic() - started)) is not None:
                await asyncio.sleep(pause_s)
                answer = await self.send_tasks(batch.queue, landing.batch.tasks)
        except BrokerError as cause:
            raise landing.fail(cause, time.monotonic() - started) from cause

    async def send_tasks(self, queue: QueueKeys, tasks: Sequence[NewTask]) -> Admitted:
        """Send tasks of one queue and return what became of each. For the merger."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        with self._circuit.call():
            await self._register(queue)
            slot = self._receipts.take()
            enqueue = self._admission.enqueue(queue, tasks, slot)
            answer = await self._runner.run(enqueue, patience_s=max(0.0, deadline - loop.time()))
        self._receipts.give_back(slot)
        return admitted(answer)

    async def _register(self, queue: QueueKeys) -> None:
        operation = self._preparer.unregistered(queue)
        if operation is not None:
            try:
                await self._runner.run(operation, patience_s=self._timeout_s)
            except BrokerError as error:
                error.may_have_happened = False  # the tasks themselves were not sent
                raise
            self._preparer.note_registered(queue)

    def note_sent(self, prepared: Prepared[Any], error: EnqueueError | None, started: float) -> None:
        """Close the span of a task and count it. For the merger."""
        self._preparer.note_sent(prepared, error, started)

    # --- for workflows ------------------------------------------------------------------------------------------------

    async def run(self, operation: Operation[T]) -> T:
        """Send one operation and return its answer. As `Client.run`."""
        with self._circuit.call():
            return await self._runner.run(operation, patience_s=self._timeout_s)

    async def register(self, queue: QueueKeys) -> None:
        """Note a queue as known, if that was not done lately."""
        with self._circuit.call():
            await self._register(queue)

    def listen(self, channel: str, task_id: str) -> AbstractAsyncContextManager[asyncio.Event]:
        """Return what gives an event that is set when a task or a workflow is said to have ended."""
        return self._hub.listen(channel, task_id)

    # --- what handles ask ---------------------------------------------------------------------------------------------

    async def await_result(self, handle: TaskHandle[Any], timeout: Duration | None) -> Any:
        """Wait until the task has ended and return what it returned."""
        check_kept(handle)
        timeout_s = math.inf if timeout is None else seconds("timeout", timeout)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        queue = self._preparer.keys.queue(handle.queue)
        look = views.look(queue, handle.id, tell_end=True)
        outcome = outcome_of(handle, await self._runner.run(look, patience_s=self._timeout_s))
        if outcome is not NOT_YET:
            return outcome
        pause_s = FIRST_LOOK_S
        async with self._hub.listen(queue.done, handle.id) as ended:
            while True:
                left = deadline - loop.time()
                if left <= 0:
                    raise timed_out(handle, timeout_s)
                await _wait(ended.wait(), min(pause_s, left))
                ended.clear()
                outcome = outcome_of(handle, await self._runner.run(look, patience_s=self._timeout_s))
                if outcome is not NOT_YET:
                    return outcome
                pause_s = min(2 * pause_s, LAST_LOOK_S)

    async def afetch_info(self, handle: TaskHandle[Any]) -> TaskInfo:
        """Read the task."""
        queue = self._preparer.keys.queue(handle.queue)
        return found(handle, await self._runner.run(views.look(queue, handle.id), patience_s=self._timeout_s))

    def follow(self, queue: str, task_id: str) -> TaskFollower:
        """Return what looks at one task again and again and hears of its end, for `async with`.

        Raises:
            ConfigurationError: The name or the id cannot be one.
        """
        keys = self._preparer.keys.queue(validate_queue_name(queue))
        return TaskFollower(
            self._runner,
            self._hub,
            keys,
            validate_task_id(task_id),
            patience_s=self._timeout_s,
            find_in_outbox=None if self._outbox is None else self._outbox.afind,
        )

    async def _run_plan(self, plan: RequestPlan[S]) -> S:
        return await arun_plan(plan, partial(self._runner.run, patience_s=self._timeout_s))

    async def acancel_task(self, handle: TaskHandle[Any], *, retry: bool = False, keep: bool | None = None) -> bool:
        """Cancel the task. As `TaskHandle.cancel`."""
        keys = self._preparer.keys
        return await self._run_plan(changing.cancel(keys, keys.queue(handle.queue), handle.id, retry=retry, keep=keep))

    async def areschedule_task(
        self, handle: TaskHandle[Any], *, at: datetime | None, after: Duration | None, call: Signature[Any] | None
    ) -> None:
        """Let the task wait until another time. As `TaskHandle.reschedule`."""
        await self._run_plan(changing.reschedule_handle(self._preparer.keys, handle, at=at, after=after, call=call))

    async def amove_task(self, handle: TaskHandle[Any], to_queue: str) -> None:
        """Move the task to another queue. As `TaskHandle.move`."""
        await self._run_plan(changing.move_handle(self._preparer.keys, handle, to_queue))


async def _shown(
    middleware: MiddlewareStack, calls: Iterable[Signature[Any]] | AsyncIterable[Signature[Any]]
) -> AsyncIterator[Signature[Any]]:
    """Yield calls as the middleware that looks at calls leaves them."""
    if isinstance(calls, AsyncIterable):
        async for call in calls:
            yield await middleware.aoutgoing(call)
        return
    for call in calls:
        yield await middleware.aoutgoing(call)


async def _wait(waiting: Awaitable[Any], timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await waiting
    except TimeoutError:
        pass
