"""The client for blocking code."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from taskq_core.broker.operations.new_tasks import StoreCode
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import run_plan
from taskq_core.broker.sync import Sent, SyncRunner
from taskq_core.client.bulk import Batch, BulkResult, batches, with_later
from taskq_core.client.circuit import CircuitState
from taskq_core.client.outbox import OutboxSender
from taskq_core.client.preparer import Prepared
from taskq_core.client.sender import Sender, SendPlan, TransactionHook, Wait
from taskq_core.errors import (
    BrokerError,
    BrokerReplicationError,
    BrokerUnavailableError,
    BulkEnqueueError,
    EnqueueError,
    QueueFullError,
)
from taskq_core.handles.handle import TaskHandle
from taskq_core.tasks.canvas import Signature
from taskq_core.warnings import warn_if_blocking
from taskq_core.wire import QueueKeys

R = TypeVar("R")
T = TypeVar("T")

AFTER_FAILURE_S = 0.05
"""Maximum seconds that a send after a commit may take, if Redis did not answer an earlier send of this thread shortly
before."""


class _Backoff(threading.local):
    """The times at which sends after a commit last failed in this thread.

    After a failure, the next sends get shorter timeouts, because one commit may send many tasks one after the other.
    """

    def __init__(self) -> None:
        self.unavailable_at = -math.inf
        self.full_at: dict[str, float] = {}


class Client:
    """Enqueues from blocking code. Safe to share between threads."""

    def __init__(
        self,
        sender: Sender,
        *,
        hook: TransactionHook | None = None,
        outbox: OutboxSender | None = None,
    ) -> None:
        self._sender = sender
        self._preparer = sender.preparer
        self._source = sender.preparer.source
        self._hook = hook
        self._outbox = outbox
        self._observer = sender.preparer.observer
        self._backoff = _Backoff()

    @property
    def circuit_state(self) -> CircuitState:
        """State of the circuit breaker. While it is open, enqueues fail at once, because Redis did not answer.

        With an outbox, no enqueue fails: while the circuit is open, workers send the tasks.
        """
        return (self._sender if self._outbox is None else self._outbox).circuit.state

    def enqueue(self, call: Signature[R], hook: TransactionHook | None = None) -> TaskHandle[R]:
        """Enqueue one call and return its handle.

        Args:
            call: The call to enqueue. It is checked and passed through middleware at once, even if its task is sent
                later.
            hook: Postpones the send, instead of the application's hook or outbox. For adapters.

        Raises:
            TaskArgumentsError, PayloadTooLargeError: The arguments are not valid. Nothing was written.
            DuplicateTaskError, TaskIdConflictError: Another task holds the unique lock or has the id.
            QueueFullError: The queue is full by the setting `LIMITS`, also after the wait that the setting may allow.
            ConfigurationError: The task belongs to another queue application.
            EnqueueError: Redis refused the task or did not answer within the enqueue timeout, or the circuit breaker is
                open. The cause of the error shows which.
            EnqueueUnknownError: The connection failed, and the task may have been written.
            NotReplicatedError: The task was written, but its replicas have not confirmed it.
        """
        if asyncio._get_running_loop() is not None and hook is None and self._outbox is None:
            warn_if_blocking("enqueueing a task", ".adelay() or AsyncClient.enqueue() (in FastAPI: ClientDep)")
        middleware = self._preparer.middleware
        if middleware.sees_calls:
            call = middleware.outgoing(call)
        prepared = self._preparer.prepare(call)
        outbox, hook = (self._outbox, self._hook) if hook is None else (None, hook)
        if outbox is not None:
            outbox.send(prepared)
        elif hook is not None and hook.defer(partial(self.send_deferred, prepared), prepared.handle.mark_rolled_back):
            self._preparer.defer(prepared)
        else:
            self._send(prepared, self._sender.timeout_s, self._sender.wait)
            if self._observer is not None and self._observer.wants_enqueued():
                self._observer.notify_enqueued((prepared.handle,))
        return prepared.handle

    def send_deferred(self, prepared: Prepared[Any]) -> None:
        """Send a task whose transaction has committed. Store an error in the handle, and raise it."""
        self._preparer.begin_sending(prepared)
        backoff, timeout_s = self._backoff, self._sender.timeout_s
        failed_lately = time.monotonic() - backoff.unavailable_at < timeout_s
        try:
            self._send(prepared, min(AFTER_FAILURE_S, timeout_s) if failed_lately else timeout_s, self._deferred_wait)
        except EnqueueError as error:
            if isinstance(error.__cause__, BrokerUnavailableError | BrokerReplicationError):
                backoff.unavailable_at = time.monotonic()
            elif isinstance(error, QueueFullError):
                backoff.full_at[error.queue] = time.monotonic()
            prepared.handle.mark_sent(error)
            raise
        except Exception:
            prepared.handle.mark_sent()  # a test runs the task during the send, and the task has raised the error
            raise
        except BaseException as error:
            prepared.handle.mark_sent(error)
            raise
        prepared.handle.mark_sent()
        if self._observer is not None and self._observer.wants_enqueued():
            self._observer.notify_enqueued((prepared.handle,))

    def _deferred_wait(self, queue: str) -> Wait:
        """Return how long a send after a commit may wait for room in a queue.

        The time is 0 if the queue was full recently.
        """
        timeout_s = self._sender.timeout_s
        was_full = time.monotonic() - self._backoff.full_at.get(queue, -math.inf) < timeout_s
        return self._sender.wait(queue, most_s=0.0 if was_full else timeout_s)

    def _send(self, prepared: Prepared[Any], timeout_s: float, wait_for_room: Callable[[str], Wait]) -> None:
        """Send a task. While its queue is full, wait for room and try again."""
        started = time.monotonic()
        wait: Wait | None = None
        try:
            while True:
                answer = run_plan(self._sender.store(prepared.queue, (prepared.task,), timeout_s), self._answer)
                if answer == StoreCode.STORED.value:
                    error = prepared.settle(StoreCode.STORED)
                    break
                ((code, holder),) = answer.each()
                error = prepared.settle(code, answer, holder)
                if not isinstance(error, QueueFullError):
                    break
                wait = wait or wait_for_room(prepared.queue.name)
                pause_s = wait.pause_s()
                if pause_s is None:
                    break
                time.sleep(pause_s)
        except BrokerError as cause:
            error = prepared.failure(cause)
        except BaseException as interruption:
            prepared.span.end(interruption)
            raise
        self._preparer.record_sent(prepared, error, started)
        if error is not None:
            raise error

    def enqueue_many(self, calls: Iterable[Signature[Any]], hook: TransactionHook | None = None) -> BulkResult:
        """Enqueue any number of calls in batches. Each batch takes one script call.

        If a call is not valid, its error is raised. Earlier full batches are then already enqueued, and a note on the
        error has their number of tasks. Inside a transaction, all calls are prepared first and sent at the commit; if
        one of them is not valid, none is sent.

        If the setting `LIMITS` lets clients wait for room, each batch waits until all of it is stored. After one batch
        has waited too long, the other batches do not wait.

        Args:
            calls: The calls.
            hook: See `enqueue`.

        Returns:
            The handles, and one error for each task whose unique lock or id was taken or whose queue was full.

        Raises:
            TaskArgumentsError, PayloadTooLargeError: The arguments of a call are not valid.
            BulkEnqueueError: Redis refused a batch or did not answer. The error has the number of tasks that were
                enqueued before.
        """
        if hook is None and self._outbox is None:
            warn_if_blocking("Client.enqueue_many()", "AsyncClient.enqueue_many() (in FastAPI: ClientDep)")
        middleware = self._preparer.middleware
        if middleware.sees_calls:
            calls = map(middleware.outgoing, calls)
        result = BulkResult(self._preparer.handle)
        waiting: list[Batch] = []
        outbox, hook = (self._outbox, self._hook) if hook is None else (None, hook)
        if outbox is not None:
            outbox.send_many(batches(self._preparer, calls, is_deferred=True), result)
        elif hook is not None and hook.defer(
            partial(self.send_deferred_batches, waiting, result), result.mark_rolled_back
        ):
            # `list` prepares all calls first, so that an error sends nothing
            waiting += list(batches(self._preparer, calls, is_deferred=True))
            result.defer(waiting)
        else:
            self._send_batches(batches(self._preparer, calls), result, self._sender.wait)
        return result

    def send_deferred_batches(self, waiting: Sequence[Batch], result: BulkResult) -> None:
        """Send batches whose transaction has committed. Like `send_deferred`."""
        handles = result.begin()
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
            full = [queue for queue, waited in waits.items() if waited.is_over]
            self._backoff.full_at.update(dict.fromkeys(full, time.monotonic()))
            result.settle(handles, failure)

    def _send_batches(self, prepared: Iterable[Batch], result: BulkResult, wait: Callable[[str], Wait]) -> None:
        """Send batches in order. Prepare further ones while they are being sent. `wait` limits the wait for room."""
        in_flight: deque[_InFlight] = deque()
        waits: dict[str, Wait] = {}
        first = len(result)
        try:
            try:
                for batch in prepared:
                    while in_flight and (in_flight[-1].sent is None or self._must_wait(batch, in_flight)):
                        self._finish(in_flight.popleft())
                    name = batch.queue.name
                    if name not in waits:
                        waits[name] = wait(name)
                    plan = self._sender.store_batch(batch, result, waits[name])
                    after = in_flight[-1].sent if in_flight else None
                    in_flight.append(_InFlight(batch, plan, self._source.runner, after))
            except BulkEnqueueError:
                raise
            except Exception:  # a later call could not be prepared
                self._finish_all(in_flight)
                raise
            self._finish_all(in_flight)
        except BulkEnqueueError as error:
            later = [(sent.batch, self._late_error(sent)) for sent in in_flight if sent.sent is not None]
            raise with_later(error, later) from error.__cause__
        except Exception as error:
            result.note_progress(error)
            raise
        finally:
            if self._observer is not None and self._observer.wants_enqueued():
                self._observer.notify_enqueued(result[first:])

    def _answer(self, request: tuple[Operation[Any] | None, float]) -> Any:
        operation, until = request
        left_s = max(0.0, until - time.monotonic())
        if operation is None:
            return time.sleep(left_s)
        return self._source.runner.run(operation, patience_s=left_s)

    def _must_wait(self, batch: Batch, in_flight: "Iterable[_InFlight]") -> bool:
        return self._sender.must_wait(batch, [each.batch for each in in_flight])

    def _finish_all(self, in_flight: "deque[_InFlight]") -> None:
        while in_flight:
            self._finish(in_flight.popleft())

    def _finish(self, sent: "_InFlight", *, may_repeat: bool = True) -> None:
        """Execute the rest of a request plan whose first request was already sent."""
        patience_s = self._sender.timeout_s if may_repeat else None

        def answer(request: tuple[Operation[Any] | None, float]) -> Any:
            if request is sent.request:
                return self._source.runner.run(sent.operation, patience_s=patience_s, sent=sent.sent)
            return self._answer(request)

        run_plan(sent.plan, answer, sent.request)

    def _late_error(self, sent: "_InFlight") -> BulkEnqueueError | None:
        """Finish a batch that was sent after a failed one. Return its error, if any."""
        try:
            self._finish(sent, may_repeat=False)
        except BulkEnqueueError as error:
            return error
        return None

    # --- for workflows ------------------------------------------------------------------------------------------------

    def run(self, operation: Operation[T]) -> T:
        """Send one operation under the circuit breaker, with the timeout of an enqueue, and return the response."""
        return run_plan(self._sender.run(operation), self._answer)

    def register(self, queue: QueueKeys) -> None:
        """Add a queue to the set of known queues, unless this client has done so recently."""
        run_plan(self._sender.register(queue), self._answer)


class _InFlight:
    """A batch whose first request was sent, but whose response was not read yet. `sent` is None if it was not sent."""

    def __init__(self, batch: Batch, plan: SendPlan[None], runner: SyncRunner, after: Sent | None) -> None:
        self.batch = batch
        self.plan = plan
        self.request = next(plan)
        assert self.request[0] is not None
        self.operation = self.request[0]
        self.sent = runner.begin(self.operation, after)
