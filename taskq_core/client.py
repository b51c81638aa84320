"""Enqueue tasks: `Client` for blocking code, `AsyncClient` for coroutines.

Both prepare a task in the same way (arguments bound and checked, payload encoded, id chosen, trace written into the
headers) before anything is sent, and both read the answer in the same way. They differ only in the runner that sends.
Where a framework adapter put a `TransactionHook`, it may postpone the sending to the commit.
"""

import asyncio
import math
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar, overload

from taskq_core.broker import operations
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import (
    BATCH_BYTES,
    BATCH_MAX,
    EnqueueCode,
    NewTask,
    Operation,
    ReceiptLane,
    StoredTask,
)
from taskq_core.broker.sync import Pending, SyncRunner
from taskq_core.codec import decode_result
from taskq_core.errors import (
    BrokerError,
    BrokerUnavailableError,
    BulkEnqueueError,
    DuplicateTaskError,
    EnqueueError,
    EnqueueUnknownError,
    PayloadTooLargeError,
    ResultNotKeptError,
    ResultTimeoutError,
    TaskFailedError,
    TaskIdConflictError,
    TaskNotFoundError,
)
from taskq_core.ids import new_task_id, new_token
from taskq_core.records import TaskInfo, task_info
from taskq_core.result import TaskHandle
from taskq_core.settings import Duration, seconds
from taskq_core.task import Signature
from taskq_core.telemetry import ClientMetrics, ProducerSpan, Tracing, inject, type_name, wrap
from taskq_core.waiting import FIRST_LOOK_S, LAST_LOOK_S, EndHub
from taskq_core.wire import Keys, QueueKeys, TaskState, decode_message

R = TypeVar("R")

PAYLOAD_WARNS = 1 << 20
"""Bytes of payload from which a warning is given: 1 MiB."""
PAYLOAD_MAX = 16 << 20
"""Most bytes of payload: 16 MiB."""
REGISTER_EVERY_S = 10.0
"""Seconds after which a client notes a queue again as known, in case another process removed it."""


class PayloadSizeWarning(UserWarning):
    """A payload is large; Redis keeps it in memory until the task is gone."""


class TransactionHook(Protocol):
    """Postpones sending to the commit of a surrounding database transaction."""

    def defer(self, send: Callable[[], None]) -> bool:
        """Call `send` when the transaction commits and return True; return False if none is open."""
        ...

    async def adefer(self, send: Callable[[], None]) -> bool:
        """As `defer`, asked from a coroutine. `send` is called in blocking code."""
        ...


class Prepared(Generic[R]):
    """A task ready to be sent."""

    __slots__ = ("handle", "queue", "span", "task")

    def __init__(self, queue: QueueKeys, task: NewTask, handle: TaskHandle[R], span: ProducerSpan) -> None:
        self.queue = queue
        self.task = task
        self.handle = handle
        self.span = span

    def settle(self, code: str) -> EnqueueError | None:
        """Return the error that an enqueue code stands for, or None."""
        if code == EnqueueCode.STORED:
            return None
        kind = DuplicateTaskError if code == EnqueueCode.DUPLICATE else TaskIdConflictError
        return kind(self.handle.name, self.handle.queue, self.handle.id)

    def failure(self, cause: BrokerError) -> EnqueueError:
        """Return the error for a send that failed."""
        unknown = isinstance(cause, BrokerUnavailableError) and cause.may_have_happened
        kind = EnqueueUnknownError if unknown else EnqueueError
        error = kind(self.handle.name, self.handle.queue, self.handle.id, str(cause))
        error.__cause__ = cause
        return error


class BulkResult(Sequence[TaskHandle[Any]]):
    """What `enqueue_many` enqueued: a sequence of handles, made when asked for.

    Attributes:
        errors: One per task that was refused: its unique lock or its id was taken.
    """

    def __init__(self, make_handle: "Callable[[Signature[Any], str], TaskHandle[Any]]") -> None:
        self._make_handle = make_handle
        self._ids: list[str] = []
        self._calls: list[Signature[Any]] = []
        self._deferred: list[TaskHandle[Any]] | None = None
        self.errors: list[EnqueueError] = []

    def add(self, call: Signature[Any], task_id: str) -> None:
        """Note an enqueued task. For clients."""
        self._calls.append(call)
        self._ids.append(task_id)

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the enqueued tasks, in order."""
        return self._ids

    def raise_errors(self) -> None:
        """Raise what was refused as an `ExceptionGroup`, if anything was."""
        if self.errors:
            raise ExceptionGroup(f"{len(self.errors)} tasks were not enqueued", self.errors)

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> TaskHandle[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[TaskHandle[Any]]: ...
    def __getitem__(self, index: int | slice) -> TaskHandle[Any] | list[TaskHandle[Any]]:
        if isinstance(index, slice):
            pairs = zip(self._calls[index], self._ids[index], strict=True)
            return [self._make_handle(call, task_id) for call, task_id in pairs]
        return self._make_handle(self._calls[index], self._ids[index])

    def __repr__(self) -> str:
        return f"<{len(self)} tasks enqueued, {len(self.errors)} refused>"


class _Batch:
    """Tasks of one queue that go in one script call."""

    __slots__ = ("bytes", "calls", "queue", "spans", "tasks")

    def __init__(self, queue: QueueKeys) -> None:
        self.queue = queue
        self.tasks: list[NewTask] = []
        self.calls: list[Signature[Any]] = []
        self.bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self.tasks) >= BATCH_MAX or self.bytes >= BATCH_BYTES

    def add(self, call: Signature[Any], task: NewTask) -> None:
        self.tasks.append(task)
        self.calls.append(call)
        self.bytes += len(task.message)


class Preparer:
    """Turns calls into messages: the part of enqueueing without input or output.

    Args:
        keys: Key names.
        tracing: Opens producer spans.
        envelope: Write payloads with their trace inside, for peers without headers.
        server: Host and port of Redis, for spans.
    """

    def __init__(self, keys: Keys, tracing: Tracing, *, envelope: bool, server: tuple[str, int] | None = None) -> None:
        self.keys = keys
        self.tracing = tracing
        self.metrics = ClientMetrics()
        self._envelope = envelope
        self._server: tuple[str | None, int | None] = server or (None, None)
        self._registered: dict[str, float] = {}

    def prepare(self, call: Signature[R], source: Any) -> Prepared[R]:
        """Return a task ready to be sent, with a producer span of its own."""
        plan = call.task.plan(self.keys)
        payload = self._payload(call)
        task_id = plan.options.task_id or new_task_id()
        host, port = self._server
        span = self.tracing.start_producer(
            plan.queue.name, call.task.name, task_id, server_address=host, server_port=port
        )
        try:
            headers = dict(plan.headers)
            span.inject(headers)
            task = self._new_task(call, plan, task_id, payload, headers)
        except BaseException as error:
            span.end(error)
            raise
        return Prepared(plan.queue, task, self.handle(call, task_id, source), span)

    def _payload(self, call: Signature[Any]) -> bytes:
        payload = call.task.encode(call.args, call.kwargs)
        if len(payload) >= PAYLOAD_WARNS:
            if len(payload) > PAYLOAD_MAX:
                raise PayloadTooLargeError(call.task.name, len(payload), PAYLOAD_MAX)
            warnings.warn(
                f"the payload of task {call.task.name!r} is {len(payload)} bytes, which Redis keeps in memory; "
                "store the data elsewhere and pass its address",
                PayloadSizeWarning,
                stacklevel=5,
            )
        return payload

    def _new_task(
        self, call: Signature[Any], plan: Any, task_id: str, payload: bytes, headers: dict[str, str]
    ) -> NewTask:
        unique_key = plan.queue.unique(call.task.name, payload) if plan.unique_s else ""
        if self._envelope:
            payload = wrap(payload, headers)
        message = plan.template.encode(task_id, payload, headers, unique_key)
        return NewTask(task_id, message, plan.start_at_s, plan.start_in_ms, unique_key, plan.unique_s)

    def handle(self, call: Signature[R], task_id: str, source: Any) -> TaskHandle[R]:
        """Return the handle of a call."""
        task = call.task
        options = task.options
        return TaskHandle(
            source,
            id=task_id,
            queue=options.queue,
            name=task.name,
            is_kept=options.retention_s > 0,
            result_type=task.result_type,
        )

    def batches(self, calls: Iterable[Signature[Any]]) -> Iterator[_Batch]:
        """Gather calls into batches by queue, each full or, at the end, what is left."""
        filler = BatchFiller(self)
        for call in calls:
            batch = filler.add(call)
            if batch is not None:
                yield batch
        yield from filler.rest()

    def unregistered(self, queue: QueueKeys) -> Operation[int] | None:
        """Return the operation that notes a queue as known, if that was not done lately."""
        now = time.monotonic()
        if now - self._registered.get(queue.name, -math.inf) < REGISTER_EVERY_S:
            return None
        return operations.register_queue(self.keys.queues, (queue.name,))

    def note_registered(self, queue: QueueKeys) -> None:
        """Note that a queue was registered just now."""
        self._registered[queue.name] = time.monotonic()


class BatchFiller:
    """Gathers calls into batches by queue."""

    def __init__(self, preparer: Preparer) -> None:
        self._preparer = preparer
        self._open: dict[str, _Batch] = {}
        self._headers: dict[str, str] = {}
        inject(self._headers, baggage=preparer.tracing.baggage)

    def add(self, call: Signature[Any]) -> _Batch | None:
        """Add a call and return its batch if that is full now."""
        preparer = self._preparer
        plan = call.task.plan(preparer.keys)
        task_id = plan.options.task_id or new_task_id()
        headers = {**plan.headers, **self._headers} if plan.headers else self._headers
        task = preparer._new_task(call, plan, task_id, preparer._payload(call), headers)
        batch = self._open.get(plan.queue.name)
        if batch is None:
            batch = self._open[plan.queue.name] = _Batch(plan.queue)
        batch.add(call, task)
        return self._open.pop(plan.queue.name) if batch.is_full else None

    def rest(self) -> list[_Batch]:
        """Return the batches that are not full."""
        return list(self._open.values())


def _settle_batch(batch: _Batch, codes: str, result: BulkResult) -> None:
    if codes.count(EnqueueCode.STORED) == len(batch.tasks):
        result._calls += batch.calls
        result._ids += [task.task_id for task in batch.tasks]
        return
    for call, task, code in zip(batch.calls, batch.tasks, codes, strict=True):
        if code == EnqueueCode.STORED:
            result.add(call, task.task_id)
        else:
            kind = DuplicateTaskError if code == EnqueueCode.DUPLICATE else TaskIdConflictError
            result.errors.append(kind(call.task.name, batch.queue.name, task.task_id))


def _bulk_error(result: BulkResult, batch: _Batch, cause: BrokerError) -> BulkEnqueueError:
    may_have_happened = isinstance(cause, BrokerUnavailableError) and cause.may_have_happened
    error = BulkEnqueueError(len(result), tuple(task.task_id for task in batch.tasks), may_have_happened)
    error.__cause__ = cause
    return error


_NOT_YET = object()


def _outcome(handle: TaskHandle[Any], stored: StoredTask | None) -> Any:
    """Return the result of a task that has ended, `_NOT_YET` while it has not, or raise what became of it."""
    if stored is None:
        raise TaskNotFoundError(handle.queue, handle.id)
    if stored.state is TaskState.COMPLETED:
        return decode_result(stored.result, handle.result_type) if stored.result else None
    if stored.state is TaskState.ARCHIVED:
        text = decode_message(stored.message).error_msg
        raise TaskFailedError(handle.queue, handle.id, f"it failed and was archived: {text}" if text else "archived")
    return _NOT_YET


def _check_kept(handle: TaskHandle[Any]) -> None:
    if not handle.is_kept:
        raise ResultNotKeptError(
            handle.queue,
            handle.id,
            "it keeps no result because its retention is 0; give the task retention=, for example "
            "@task(retention=3600), or set DEFAULTS['retention']",
        )


def _found(handle: TaskHandle[Any], stored: StoredTask | None) -> TaskInfo:
    if stored is None:
        raise TaskNotFoundError(handle.queue, handle.id)
    return task_info(stored)


_CANCELLABLE = (TaskState.PENDING, TaskState.SCHEDULED, TaskState.RETRY, TaskState.AGGREGATING)


class Client:
    """Enqueues from blocking code. Safe to share between threads."""

    def __init__(
        self, preparer: Preparer, runner: SyncRunner, *, timeout_s: float, hook: TransactionHook | None = None
    ) -> None:
        self._preparer = preparer
        self._runner = runner
        self._timeout_s = timeout_s
        self._hook = hook
        self._lanes: deque[ReceiptLane] = deque()
        self._register_lock = threading.Lock()
        self._async_source: Any = None

    def bind_async(self, source: "AsyncClient") -> None:
        """Let handles made here answer coroutines as well."""
        self._async_source = source

    def enqueue(self, call: Signature[R]) -> TaskHandle[R]:
        """Enqueue one call and return its handle.

        Raises:
            TaskArgumentsError, PayloadTooLargeError: The call does not fit; nothing was written.
            DuplicateTaskError, TaskIdConflictError: The lock or the id is taken.
            EnqueueError: Redis refused or was not reached within the enqueue timeout; `EnqueueUnknownError` when the task
                may have been written all the same.
        """
        prepared = self._preparer.prepare(call, self)
        if self._hook is not None and self._hook.defer(lambda: self.send_deferred((prepared,))):
            prepared.handle.mark_deferred()
        else:
            self._send(prepared)
        return prepared.handle

    def send_deferred(self, waiting: Sequence[Prepared[Any]]) -> None:
        """Send tasks whose transaction has committed. Their handles note what went wrong, which is raised as well."""
        for prepared in waiting:
            try:
                self._send(prepared)
            except EnqueueError as error:
                prepared.handle.mark_sent(error)
                raise
            prepared.handle.mark_sent()

    def _send(self, prepared: Prepared[Any]) -> None:
        try:
            codes = self._send_tasks(prepared.queue, (prepared.task,))
            error = prepared.settle(codes)
        except BrokerError as cause:
            error = prepared.failure(cause)
        except BaseException as interruption:
            prepared.span.end(interruption)
            raise
        prepared.span.end(error)
        if error is not None:
            raise error

    def _send_tasks(self, queue: QueueKeys, tasks: Sequence[NewTask]) -> str:
        deadline = time.monotonic() + self._timeout_s
        self._register(queue)
        lane = self._take_lane()
        try:
            operation = operations.enqueue(queue, tasks, lane)
            return self._runner.run(operation, patience_s=max(0.0, deadline - time.monotonic()))
        finally:
            self._lanes.append(lane)

    def _register(self, queue: QueueKeys) -> None:
        operation = self._preparer.unregistered(queue)
        if operation is not None:
            try:
                self._runner.run(operation, patience_s=self._timeout_s)
            except BrokerUnavailableError as error:
                error.may_have_happened = False  # the task itself was not sent
                raise
            self._preparer.note_registered(queue)

    def _take_lane(self) -> ReceiptLane:
        try:
            return self._lanes.pop()
        except IndexError:
            return ReceiptLane(new_token())

    def enqueue_many(self, calls: Iterable[Signature[Any]]) -> BulkResult:
        """Enqueue any number of calls, streamed in batches of one script call each.

        A call that does not fit raises where it stands in the iterable; batches before it are enqueued by then. Inside a
        transaction all are prepared now and sent at the commit.

        Returns:
            The handles, and one error for each task whose lock or id was taken.

        Raises:
            TaskArgumentsError, PayloadTooLargeError: A call does not fit.
            BulkEnqueueError: Redis refused or was not reached; it says how many were enqueued before.
        """
        result = BulkResult(lambda call, task_id: self._preparer.handle(call, task_id, self))
        if self._hook is not None:
            batches: list[_Batch] = []
            if self._hook.defer(lambda: self._send_batches(batches, result)):
                batches += self._preparer.batches(calls)
                return result
        self._send_batches(self._preparer.batches(calls), result)
        return result

    def _send_batches(self, batches: Iterable[_Batch], result: BulkResult) -> None:
        """Send batches, preparing each while the one before is on its way."""
        lane = self._take_lane()
        flying: tuple[_Batch, Pending[str]] | None = None
        try:
            for batch in batches:
                self._register_for(batch, result)
                operation = operations.enqueue(batch.queue, batch.tasks, lane)
                if flying is not None:
                    self._land(flying, result)
                flying = (batch, self._begin(batch, operation, result))
            if flying is not None:
                self._land(flying, result)
                flying = None
        finally:
            if flying is None:
                self._lanes.append(lane)

    def _register_for(self, batch: _Batch, result: BulkResult) -> None:
        try:
            self._register(batch.queue)
        except BrokerError as cause:
            raise _bulk_error(result, batch, cause) from cause

    def _begin(self, batch: _Batch, operation: Operation[str], result: BulkResult) -> Pending[str]:
        try:
            return self._runner.begin(operation)
        except BrokerError as cause:
            raise _bulk_error(result, batch, cause) from cause

    def _land(self, flying: tuple[_Batch, Pending[str]], result: BulkResult) -> None:
        batch, pending = flying
        try:
            codes = pending.finish(patience_s=self._timeout_s)
        except BrokerError as cause:
            raise _bulk_error(result, batch, cause) from cause
        _settle_batch(batch, codes, result)

    # --- what handles ask ---------------------------------------------------------------------------------------------

    def wait_for_result(self, handle: TaskHandle[Any], timeout: Duration | None) -> Any:
        """Block until the task has ended and return what it returned."""
        _check_kept(handle)
        deadline = math.inf if timeout is None else time.monotonic() + seconds("timeout", timeout)
        queue = self._preparer.keys.queue(handle.queue)
        look = operations.look(queue, handle.id, tell_end=True)
        outcome = _outcome(handle, self._runner.run(look, patience_s=self._timeout_s))
        if outcome is not _NOT_YET:
            return outcome
        subscription = self._runner.subscribe(queue.done)
        pause_s = FIRST_LOOK_S
        try:
            while True:
                outcome = _outcome(handle, self._runner.run(look, patience_s=self._timeout_s))
                if outcome is not _NOT_YET:
                    return outcome
                next_look = min(time.monotonic() + pause_s, deadline)
                pause_s = min(2 * pause_s, LAST_LOOK_S)
                while (left := next_look - time.monotonic()) > 0 and subscription.next(left) != handle.id:
                    pass
                if time.monotonic() >= deadline:
                    raise ResultTimeoutError(handle.queue, handle.id, f"it has not ended within {timeout} s")
        finally:
            subscription.close()

    async def await_result(self, handle: TaskHandle[Any], timeout: Duration | None) -> Any:
        """Wait until the task has ended and return what it returned."""
        return await self._async_source.await_result(handle, timeout)

    def fetch_info(self, handle: TaskHandle[Any]) -> TaskInfo:
        """Read the task."""
        queue = self._preparer.keys.queue(handle.queue)
        return _found(handle, self._runner.run(operations.look(queue, handle.id), patience_s=self._timeout_s))

    async def afetch_info(self, handle: TaskHandle[Any]) -> TaskInfo:
        """Read the task."""
        info: TaskInfo = await self._async_source.afetch_info(handle)
        return info

    def cancel_task(self, handle: TaskHandle[Any]) -> bool:
        """Delete the task if it waits, or ask its worker to cancel it."""
        keys = self._preparer.keys
        state = self._runner.run(operations.revoke(keys.queue(handle.queue), handle.id), patience_s=self._timeout_s)
        if state is TaskState.ACTIVE:
            self._runner.run(operations.cancel(keys.cancel, handle.id), patience_s=self._timeout_s)
            return True
        return state in _CANCELLABLE

    async def acancel_task(self, handle: TaskHandle[Any]) -> bool:
        """Delete the task if it waits, or ask its worker to cancel it."""
        cancelled: bool = await self._async_source.acancel_task(handle)
        return cancelled


class AsyncClient:
    """Enqueues from coroutines.

    What one tick of the event loop enqueues goes to Redis in one script call per queue. A call that was cancelled while
    its task was on the way does not take it back.
    """

    def __init__(
        self,
        preparer: Preparer,
        runner: AsyncRunner,
        *,
        timeout_s: float,
        blocking: Client,
        hook: TransactionHook | None = None,
    ) -> None:
        self._preparer = preparer
        self._runner = runner
        self._timeout_s = timeout_s
        self._blocking = blocking
        self._hook = hook
        self._outboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Outbox] = weakref.WeakKeyDictionary()
        self._hub = EndHub(runner)
        self._lanes: deque[ReceiptLane] = deque()

    async def enqueue(self, call: Signature[R]) -> TaskHandle[R]:
        """Enqueue one call and return its handle. Raises as `Client.enqueue`."""
        prepared = self._preparer.prepare(call, self._blocking)
        if self._hook is not None and await self._hook.adefer(lambda: self._blocking.send_deferred((prepared,))):
            prepared.handle.mark_deferred()
            return prepared.handle
        loop = asyncio.get_running_loop()
        outbox = self._outboxes.get(loop)
        if outbox is None:
            outbox = self._outboxes[loop] = _Outbox(self, loop)
        await outbox.put(prepared)
        return prepared.handle

    async def enqueue_many(self, calls: Iterable[Signature[Any]] | AsyncIterable[Signature[Any]]) -> BulkResult:
        """Enqueue any number of calls, streamed. Takes asynchronous iterables too. As `Client.enqueue_many`."""
        result = BulkResult(lambda call, task_id: self._preparer.handle(call, task_id, self._blocking))
        if self._hook is not None:
            batches: list[_Batch] = []
            if await self._hook.adefer(lambda: self._blocking._send_batches(batches, result)):
                batches += [batch async for batch in self._batches(calls)]
                return result
        flying: tuple[_Batch, asyncio.Task[str]] | None = None
        try:
            async for batch in self._batches(calls):
                if flying is not None:
                    await self._land(flying, result)
                flying = (batch, asyncio.ensure_future(self.send_tasks(batch.queue, batch.tasks)))
                await asyncio.sleep(0)  # lets it reach the socket, and others run between batches
            if flying is not None:
                landing, flying = flying, None
                await self._land(landing, result)
        finally:
            if flying is not None:
                flying[1].cancel()
        return result

    async def _batches(self, calls: Iterable[Signature[Any]] | AsyncIterable[Signature[Any]]) -> AsyncIterator[_Batch]:
        if not isinstance(calls, AsyncIterable):
            for batch in self._preparer.batches(calls):
                yield batch
            return
        filler = BatchFiller(self._preparer)
        async for call in calls:
            full = filler.add(call)
            if full is not None:
                yield full
        for batch in filler.rest():
            yield batch

    async def _land(self, flying: "tuple[_Batch, asyncio.Task[str]]", result: BulkResult) -> None:
        batch, sending = flying
        try:
            codes = await sending
        except BrokerError as cause:
            raise _bulk_error(result, batch, cause) from cause
        _settle_batch(batch, codes, result)

    async def send_tasks(self, queue: QueueKeys, tasks: Sequence[NewTask]) -> str:
        """Send tasks of one queue and return their enqueue codes. For the outbox."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        operation = self._preparer.unregistered(queue)
        if operation is not None:
            try:
                await self._runner.run(operation, patience_s=self._timeout_s)
            except BrokerUnavailableError as error:
                error.may_have_happened = False  # the tasks themselves were not sent
                raise
            self._preparer.note_registered(queue)
        lane = self._lanes.pop() if self._lanes else ReceiptLane(new_token())
        enqueue = operations.enqueue(queue, tasks, lane)
        codes = await self._runner.run(enqueue, patience_s=max(0.0, deadline - loop.time()))
        self._lanes.append(lane)  # only after an answer: a lane with a call in doubt is not used again
        return codes

    # --- what handles ask ---------------------------------------------------------------------------------------------

    async def await_result(self, handle: TaskHandle[Any], timeout: Duration | None) -> Any:
        """Wait until the task has ended and return what it returned."""
        _check_kept(handle)
        loop = asyncio.get_running_loop()
        deadline = math.inf if timeout is None else loop.time() + seconds("timeout", timeout)
        queue = self._preparer.keys.queue(handle.queue)
        look = operations.look(queue, handle.id, tell_end=True)
        outcome = _outcome(handle, await self._runner.run(look, patience_s=self._timeout_s))
        if outcome is not _NOT_YET:
            return outcome
        pause_s = FIRST_LOOK_S
        async with self._hub.listen(queue.done, handle.id) as ended:
            while True:
                ended.clear()
                outcome = _outcome(handle, await self._runner.run(look, patience_s=self._timeout_s))
                if outcome is not _NOT_YET:
                    return outcome
                left = deadline - loop.time()
                if left <= 0:
                    raise ResultTimeoutError(handle.queue, handle.id, f"it has not ended within {timeout} s")
                await _wait(ended.wait(), min(pause_s, left))
                pause_s = min(2 * pause_s, LAST_LOOK_S)

    async def afetch_info(self, handle: TaskHandle[Any]) -> TaskInfo:
        """Read the task."""
        queue = self._preparer.keys.queue(handle.queue)
        return _found(handle, await self._runner.run(operations.look(queue, handle.id), patience_s=self._timeout_s))

    async def acancel_task(self, handle: TaskHandle[Any]) -> bool:
        """Delete the task if it waits, or ask its worker to cancel it."""
        keys = self._preparer.keys
        revoke = operations.revoke(keys.queue(handle.queue), handle.id)
        state = await self._runner.run(revoke, patience_s=self._timeout_s)
        if state is TaskState.ACTIVE:
            await self._runner.run(operations.cancel(keys.cancel, handle.id), patience_s=self._timeout_s)
            return True
        return state in _CANCELLABLE


async def _wait(waiting: Awaitable[Any], timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await waiting
    except TimeoutError:
        pass


class _Outbox:
    """Gathers what one event loop enqueues in one tick."""

    def __init__(self, client: AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = weakref.ref(loop)
        self._waiting: list[tuple[Prepared[Any], asyncio.Future[None]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    def put(self, prepared: Prepared[Any]) -> "asyncio.Future[None]":
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((prepared, future))
        return future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        by_queue: dict[QueueKeys, list[tuple[Prepared[Any], asyncio.Future[None]]]] = {}
        for item in waiting:
            by_queue.setdefault(item[0].queue, []).append(item)
        for queue, items in by_queue.items():
            start = size = 0
            for index, (prepared, _) in enumerate(items):
                size += len(prepared.task.message)
                if index + 1 - start >= BATCH_MAX or size >= BATCH_BYTES:
                    self._start(queue, items[start : index + 1])
                    start, size = index + 1, 0
            if start < len(items):
                self._start(queue, items[start:])

    def _start(self, queue: QueueKeys, items: "list[tuple[Prepared[Any], asyncio.Future[None]]]") -> None:
        task = asyncio.get_running_loop().create_task(self._send(queue, items))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, queue: QueueKeys, items: "list[tuple[Prepared[Any], asyncio.Future[None]]]") -> None:
        try:
            codes = await self._client.send_tasks(queue, [prepared.task for prepared, _ in items])
            errors: list[BaseException | None] = [
                prepared.settle(code) for (prepared, _), code in zip(items, codes, strict=True)
            ]
        except BrokerError as cause:
            errors = [prepared.failure(cause) for prepared, _ in items]
        except BaseException as interruption:
            for prepared, future in items:
                prepared.span.end(interruption)
                future.cancel()
            raise
        for (prepared, future), error in zip(items, errors, strict=True):
            prepared.span.end(error)
            if future.done():
                continue  # the caller was cancelled meanwhile; its task is enqueued all the same
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
