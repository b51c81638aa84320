"""The client of blocking code."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

from taskq_core.broker.operations import views
from taskq_core.broker.operations.new_tasks import Admitted, NewTask
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import RequestPlan, run_plan
from taskq_core.broker.sync import Pending, SyncRunner
from taskq_core.client import changing
from taskq_core.client.admission import Admission, Wait, admitted
from taskq_core.client.bulk import Batch, BulkResult, SentBatch, batches, so_far
from taskq_core.client.circuit import Call, Circuit, CircuitState
from taskq_core.client.commits import TransactionHook
from taskq_core.client.outbox import OutboxSender
from taskq_core.client.preparer import Prepared, Preparer
from taskq_core.client.receipts import ReceiptSlots
from taskq_core.errors import (
    BrokerError,
    BrokerReplicationError,
    BrokerUnavailableError,
    BulkEnqueueError,
    EnqueueError,
    QueueFullError,
)
from taskq_core.handles.events import FIRST_LOOK_S, LAST_LOOK_S, TaskEvents
from taskq_core.handles.handle import AsyncHandleSource, TaskHandle
from taskq_core.handles.outcomes import (
    NOT_YET,
    BlockingFollower,
    EndSubscription,
    check_kept,
    found,
    outcome_of,
    timed_out,
)
from taskq_core.handles.records import TaskInfo
from taskq_core.handles.subscription import TaskFollower
from taskq_core.settings import Duration, seconds
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.observer import Observer
from taskq_core.warnings import warn_if_blocking
from taskq_core.wire import QueueKeys

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


AFTER_FAILURE_S = 0.05
"""Seconds a deferred send may take while Redis has just failed to answer this thread."""


class AsyncSource(AsyncHandleSource, Protocol):
    """What answers coroutines for the handles of a blocking client."""

    def follow(self, queue: str, task_id: str) -> TaskFollower:
        """Return what looks at one task again and again and hears of its end."""
        ...


class _InFlightBatch:
    """A batch that was sent and not yet answered."""

    __slots__ = ("call", "landing", "pending", "started")

    def __init__(self, landing: SentBatch, pending: Pending[Any], call: Call, started: float) -> None:
        self.landing = landing
        self.pending = pending
        self.call = call
        self.started = started


class Client:
    """Enqueues from blocking code. Safe to share between threads."""

    def __init__(
        self,
        preparer: Preparer,
        runner: SyncRunner,
        *,
        timeout_s: float,
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
        self._hook = hook
        self._outbox = outbox
        self._receipts = ReceiptSlots()
        self._spell = threading.local()
        self._async_source: AsyncSource

    def send_through(self, runner: SyncRunner) -> None:
        """Send through another runner from now on."""
        self._runner = runner
        self._receipts = ReceiptSlots()
        self._circuit.reset()
        self._preparer.forget_registered()
        if self._outbox is not None:
            self._outbox.send_through(runner)

    @property
    def circuit_state(self) -> CircuitState:
        """Whether Redis is asked, or was out of reach too often: the state of the circuit breaker."""
        return self._circuit.state

    def bind_async(self, source: AsyncSource) -> None:
        """Let handles made here answer coroutines as well."""
        self._async_source = source

    def enqueue(self, call: Signature[R]) -> TaskHandle[R]:
        """Enqueue one call and return its handle.

        Raises:
            TaskArgumentsError, PayloadTooLargeError: The call does not fit; nothing was written.
            DuplicateTaskError, TaskIdConflictError: The lock or the id is taken.
            QueueFullError: The queue is as full as the setting `LIMITS` allows, also after waiting where it says so.
            ConfigurationError: The task belongs to another queue application.
            EnqueueError: Redis refused or was not reached within the enqueue timeout, or the circuit breaker is open
                (its cause says which); `EnqueueUnknownError` when the task may have been written all the same,
                `NotReplicatedError` when it was, but its replicas have not confirmed it.
        """
        warn_if_blocking("Client.enqueue()", "AsyncClient.enqueue() (in FastAPI: ClientDep)")
        middleware = self._preparer.middleware
        if middleware.sees_calls:
            call = middleware.outgoing(call)
        prepared = self._preparer.prepare(call, self)
        if self._outbox is not None:
            self._outbox.send(prepared)
        elif self._hook is not None and self._hook.defer(lambda: self.send_deferred(prepared)):
            prepared.handle.mark_deferred()
        else:
            self._send_at_once(prepared)
        return prepared.handle

    def defer(self, call: Signature[R], hook: TransactionHook) -> TaskHandle[R]:
        """Enqueue one call when the hook says so, whatever the application's own way is. For adapters.

        Middleware looks at the call, and it is checked, now.

        Raises:
            TaskArgumentsError, PayloadTooLargeError: The call does not fit.
            EnqueueError: As for `enqueue`, if no transaction is open.
        """
        prepared = self._preparer.prepare(self._preparer.middleware.outgoing(call), self)
        if hook.defer(lambda: self.send_deferred(prepared)):
            prepared.handle.mark_deferred()
        else:
            self._send_at_once(prepared)
        return prepared.handle

    def defer_many(self, calls: Iterable[Signature[Any]], hook: TransactionHook) -> BulkResult:
        """Enqueue any number of calls when the hook says so. As `defer`; none is enqueued if one does not fit."""
        result = BulkResult(lambda task, task_id: self._preparer.handle(task, task_id, self))
        waiting = list(batches(self._preparer, map(self._preparer.middleware.outgoing, calls)))
        if hook.defer(lambda: self.send_deferred_batches(waiting, result)):
            result.defer(waiting)
        else:
            self._send_batches(waiting, result, self._admission.wait)
        return result

    def _send_at_once(self, prepared: Prepared[Any]) -> None:
        self._send(prepared, self._timeout_s, self._admission.wait(prepared.queue.name))
        if self._observer.wants_enqueued():
            self._observer.tell_enqueued((prepared.handle,))

    def send_deferred(self, prepared: Prepared[Any]) -> None:
        """Send a task whose transaction has committed. Its handle notes what went wrong, which is raised as well."""
        wait = self._deferred_wait(prepared.queue.name)
        try:
            self._send(prepared, self._deferred_timeout_s(), wait)
        except EnqueueError as error:
            self._note_backoff(error)
            self._note_wait(prepared.queue.name, wait)
            prepared.handle.mark_sent(error)
            raise
        except Exception:
            prepared.handle.mark_sent()  # what a task raises that ran while it was sent
            raise
        prepared.handle.mark_sent()
        if self._observer.wants_enqueued():
            self._observer.tell_enqueued((prepared.handle,))

    def _deferred_timeout_s(self) -> float:
        """Return how long a deferred send may take: a moment only, while Redis has just failed to answer this thread.

        One commit may send many tasks, and its caller waits for them all.
        """
        is_spell = time.monotonic() - getattr(self._spell, "failed_at", -math.inf) < self._timeout_s
        return min(AFTER_FAILURE_S, self._timeout_s) if is_spell else self._timeout_s

    def _note_backoff(self, error: BaseException) -> None:
        if isinstance(error.__cause__, BrokerUnavailableError | BrokerReplicationError):
            self._spell.failed_at = time.monotonic()

    def _deferred_wait(self, queue: str) -> Wait:
        """Return how long a deferred send may wait for room: no longer than for Redis, and not soon after in vain."""
        is_spell = time.monotonic() - getattr(self._spell, "full_at", {}).get(queue, -math.inf) < self._timeout_s
        return self._admission.wait(queue, most_s=0.0 if is_spell else self._timeout_s)

    def _note_wait(self, queue: str, wait: Wait) -> None:
        if wait.is_over:
            self._spell.full_at = {**getattr(self._spell, "full_at", {}), queue: time.monotonic()}

    def _send(self, prepared: Prepared[Any], timeout_s: float, wait: Wait) -> None:
        started = begun = time.monotonic()
        try:
            while True:
                answer = self._send_tasks(prepared.queue, (prepared.task,), begun + timeout_s)
                error = prepared.settle_alone(answer)
                pause_s = wait.pause_s() if isinstance(error, QueueFullError) else None
                if pause_s is None:
                    break
                time.sleep(pause_s)
                begun = time.monotonic()
        except BrokerError as cause:
            error = prepared.failure(cause)
        except BaseException as interruption:
            prepared.span.end(interruption)
            raise
        self._preparer.note_sent(prepared, error, started)
        if error is not None:
            raise error

    def _send_tasks(self, queue: QueueKeys, tasks: Sequence[NewTask], deadline: float) -> Admitted:
        with self._circuit.call():
            self._register(queue, deadline)
            slot = self._receipts.take()
            operation = self._admission.enqueue(queue, tasks, slot)
            answer = self._runner.run(operation, patience_s=max(0.0, deadline - time.monotonic()))
        self._receipts.give_back(slot)
        return admitted(answer)

    def _register(self, queue: QueueKeys, deadline: float) -> None:
        operation = self._preparer.unregistered(queue)
        if operation is not None:
            try:
                self._runner.run(operation, patience_s=max(0.0, deadline - time.monotonic()))
            except BrokerError as error:
                error.may_have_happened = False  # the task itself was not sent
                raise
            self._preparer.note_registered(queue)

    def enqueue_many(self, calls: Iterable[Signature[Any]]) -> BulkResult:
        """Enqueue any number of calls, streamed in batches of one script call each.

        A call that does not fit raises where it stands in the iterable; full batches before it are enqueued by then,
        and a note on the error says how many tasks that makes. Inside a transaction all are prepared first and sent at
        the commit, or none if one does not fit. Where the setting `LIMITS` lets clients wait for room, each batch waits
        until all of it was taken; once that took too long, the rest is tried without waiting.

        Returns:
            The handles, and one error for each task whose lock or id was taken, or whose queue was full.

        Raises:
            TaskArgumentsError, PayloadTooLargeError: A call does not fit.
            BulkEnqueueError: Redis refused or was not reached; it says how many were enqueued before.
        """
        warn_if_blocking("Client.enqueue_many()", "AsyncClient.enqueue_many() (in FastAPI: ClientDep)")
        middleware = self._preparer.middleware
        if middleware.sees_calls:
            calls = map(middleware.outgoing, calls)
        result = BulkResult(lambda task, task_id: self._preparer.handle(task, task_id, self))
        if self._outbox is not None:
            self._outbox.send_many(batches(self._preparer, calls), result)
            return result
        waiting: list[Batch] = []
        if self._hook is not None and self._hook.defer(lambda: self.send_deferred_batches(waiting, result)):
            prepared = list(batches(self._preparer, calls))
            result.defer(prepared)
            waiting += prepared
        else:
            self._send_batches(batches(self._preparer, calls), result, self._admission.wait)
        return result

    def send_deferred_batches(self, waiting: Sequence[Batch], result: BulkResult) -> None:
        """Send tasks whose transaction has committed. As `send_deferred`."""
        early = result.begin()
        failure: BaseException | None = None
        waits: dict[str, Wait] = {}

        def wait(queue: str) -> Wait:
            waits[queue] = self._deferred_wait(queue)
            return waits[queue]

        try:
            self._send_batches(waiting, result, wait)
        except BaseException as error:
            failure = error
            raise
        finally:
            for queue, waited in waits.items():
                self._note_wait(queue, waited)
            early.settle(result, failure)

    def _send_batches(self, batches: Iterable[Batch], result: BulkResult, wait: Callable[[str], Wait]) -> None:
        """Send batches, preparing each while the one before is on its way. `wait` says how long for room in a queue."""
        slot = self._receipts.take()
        flying: _InFlightBatch | None = None
        waits: dict[str, Wait] = {}
        told = len(result)
        try:
            for batch in batches:
                if flying is not None:
                    landing, flying = flying, None
                    self._land(landing, waits)
                if batch.queue.name not in waits:
                    waits[batch.queue.name] = wait(batch.queue.name)
                # Numbered only now: the batch before may have needed further calls, and the numbers of a slot grow.
                operation = self._admission.enqueue(batch.queue, batch.tasks, slot)
                flying = self._begin(batch, operation, result)
            if flying is not None:
                landing, flying = flying, None
                self._land(landing, waits)
        except Exception as error:
            if flying is not None:  # a later call did not fit: what is on its way still counts
                self._land(flying, waits)
            if not isinstance(error, BulkEnqueueError):
                error.add_note(so_far(result))
            raise
        finally:
            if self._observer.wants_enqueued():
                self._observer.tell_enqueued(result[told:])
        self._receipts.give_back(slot)

    def _begin(self, batch: Batch, operation: Operation[Any], result: BulkResult) -> "_InFlightBatch":
        landing = SentBatch(self._preparer, batch, result)
        started = time.monotonic()
        call: Call | None = None
        try:
            call = self._circuit.call()
            self._register(batch.queue, started + self._timeout_s)
            return _InFlightBatch(landing, self._runner.begin(operation), call, started)
        except BaseException as error:
            if call is not None:
                call.end(error)
            if isinstance(error, BrokerError):
                raise landing.fail(error, time.monotonic() - started) from error
            raise

    def _land(self, flight: "_InFlightBatch", waits: Mapping[str, Wait]) -> None:
        landing = flight.landing
        wait = waits[landing.batch.queue.name]
        wait.renew()
        try:
            with flight.call:
                answer = admitted(flight.pending.finish(patience_s=self._timeout_s))
            while (pause_s := landing.settle(answer, wait, time.monotonic() - flight.started)) is not None:
                time.sleep(pause_s)
                batch = landing.batch
                answer = self._send_tasks(batch.queue, batch.tasks, time.monotonic() + self._timeout_s)
        except BrokerError as cause:
            raise landing.fail(cause, time.monotonic() - flight.started) from cause

    # --- for workflows ------------------------------------------------------------------------------------------------

    def run(self, operation: Operation[T]) -> T:
        """Send one operation and return its answer, with the circuit breaker and the timeout of an enqueue."""
        with self._circuit.call():
            return self._runner.run(operation, patience_s=self._timeout_s)

    def register(self, queue: QueueKeys) -> None:
        """Note a queue as known, if that was not done lately."""
        with self._circuit.call():
            self._register(queue, time.monotonic() + self._timeout_s)

    def subscribe_end(self, channel: str, task_id: str) -> EndSubscription:
        """Return what listens for the end of a task or a workflow."""
        return EndSubscription(self._runner, channel, task_id)

    # --- what handles ask ---------------------------------------------------------------------------------------------

    def wait_for_result(self, handle: TaskHandle[Any], timeout: Duration | None) -> Any:
        """Block until the task has ended and return what it returned."""
        check_kept(handle)
        timeout_s = math.inf if timeout is None else seconds("timeout", timeout)
        deadline = time.monotonic() + timeout_s
        queue = self._preparer.keys.queue(handle.queue)
        look = views.look(queue, handle.id, tell_end=True)
        outcome = outcome_of(handle, self._runner.run(look, patience_s=self._timeout_s))
        if outcome is not NOT_YET:
            return outcome
        subscription = EndSubscription(self._runner, queue.done, handle.id)
        pause_s = FIRST_LOOK_S
        try:
            subscription.open()
            while True:
                outcome = outcome_of(handle, self._runner.run(look, patience_s=self._timeout_s))
                if outcome is not NOT_YET:
                    return outcome
                if time.monotonic() >= deadline:
                    raise timed_out(handle, timeout_s)
                subscription.listen(min(time.monotonic() + pause_s, deadline))
                pause_s = min(2 * pause_s, LAST_LOOK_S)
        finally:
            subscription.close()

    async def await_result(self, handle: TaskHandle[Any], timeout: Duration | None) -> Any:
        """Wait until the task has ended and return what it returned."""
        return await self._async_source.await_result(handle, timeout)

    def fetch_info(self, handle: TaskHandle[Any]) -> TaskInfo:
        """Read the task."""
        queue = self._preparer.keys.queue(handle.queue)
        return found(handle, self._runner.run(views.look(queue, handle.id), patience_s=self._timeout_s))

    async def afetch_info(self, handle: TaskHandle[Any]) -> TaskInfo:
        """Read the task."""
        return await self._async_source.afetch_info(handle)

    def follow_task(self, handle: TaskHandle[Any], after: str | None, timeout: Duration | None) -> TaskEvents:
        """Return what happens to the task from now on."""
        queue = self._preparer.keys.queue(handle.queue)
        return TaskEvents(
            handle.queue,
            handle.id,
            follow=lambda: BlockingFollower(self._runner, queue, handle.id),
            afollow=lambda: self._async_source.follow(handle.queue, handle.id),
            is_late=lambda: handle.is_late,
            after=after,
            timeout=timeout,
            patience_s=self._timeout_s,
        )

    def _run_plan(self, plan: RequestPlan[S]) -> S:
        return run_plan(plan, partial(self._runner.run, patience_s=self._timeout_s))

    def cancel_task(self, handle: TaskHandle[Any], *, retry: bool = False, keep: bool | None = None) -> bool:
        """Cancel the task. As `TaskHandle.cancel`."""
        keys = self._preparer.keys
        return self._run_plan(changing.cancel(keys, keys.queue(handle.queue), handle.id, retry=retry, keep=keep))

    async def acancel_task(self, handle: TaskHandle[Any], *, retry: bool = False, keep: bool | None = None) -> bool:
        """Cancel the task. As `TaskHandle.cancel`."""
        return await self._async_source.acancel_task(handle, retry=retry, keep=keep)

    def reschedule_task(
        self, handle: TaskHandle[Any], *, at: datetime | None, after: Duration | None, call: Signature[Any] | None
    ) -> None:
        """Let the task wait until another time. As `TaskHandle.reschedule`."""
        self._run_plan(changing.reschedule_handle(self._preparer.keys, handle, at=at, after=after, call=call))

    async def areschedule_task(
        self, handle: TaskHandle[Any], *, at: datetime | None, after: Duration | None, call: Signature[Any] | None
    ) -> None:
        """Let the task wait until another time. As `TaskHandle.reschedule`."""
        await self._async_source.areschedule_task(handle, at=at, after=after, call=call)

    def move_task(self, handle: TaskHandle[Any], to_queue: str) -> None:
        """Move the task to another queue. As `TaskHandle.move`."""
        self._run_plan(changing.move_handle(self._preparer.keys, handle, to_queue))

    async def amove_task(self, handle: TaskHandle[Any], to_queue: str) -> None:
        """Move the task to another queue. As `TaskHandle.move`."""
        await self._async_source.amove_task(handle, to_queue)
