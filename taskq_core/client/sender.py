"""Decide how and when tasks are sent: make the request plans of all enqueues, and postpone sends to a commit.

This module does no I/O.

`Client` and `AsyncClient` execute the plans of `Sender`: they send each operation and return its response to the plan,
or wait if the plan yields a pause. `TransactionHook` and `SendAtLastCommit` postpone a send to the commit of a database
transaction, or to the last of several commits.

The enqueue script refuses tasks if their queue is full. Depending on the setting `LIMITS`, a client then waits for
room. The limit only applies to enqueues by clients, not to scheduled tasks, retries or tasks that an operator moves.
"""

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from taskq_core.broker.operations import new_tasks
from taskq_core.broker.operations.new_tasks import Codes, NewTask, ReceiptSlot, StoreCode
from taskq_core.broker.operations.operation import BATCH_BYTES, Operation
from taskq_core.client.bulk import Batch, BulkResult
from taskq_core.client.circuit import Circuit
from taskq_core.client.preparer import Preparer
from taskq_core.errors import BrokerError, BrokerReplicationError, QueueFullError, TaskQError
from taskq_core.settings import QueueLimit, WhenFull, seconds
from taskq_core.wire import QueueKeys
from taskq_core.wire.tokens import new_token

T = TypeVar("T")
SendPlan = Generator[tuple[Operation[Any] | None, float], Any, T]
"""Yields either an operation with its deadline, or None with the time until which the client waits. Times are
monotonic."""

FIRST_PAUSE_S = 0.02
"""Maximum length in seconds of the first pause. The client then tries a full queue again. The pause doubles with each
attempt."""
LAST_PAUSE_S = 0.5
"""Maximum length in seconds of each pause before a client tries a full queue again."""
IN_FLIGHT_MAX = 16
"""Maximum number of batches of a bulk enqueue that are sent before Redis has answered the first of them."""
IN_FLIGHT_BYTES = BATCH_BYTES // 2
"""Maximum bytes of messages in these batches, unless a single batch has more."""
_LOST = (
    "The transaction has committed, but the task was not sent and will not be sent again. With the setting "
    "ENQUEUE = 'outbox', the task is a row of the transaction, and a worker sends it when Redis is available again."
)


class Wait:
    """The time for which one call may wait for room in a full queue.

    The time begins when the queue first refuses a task.

    Args:
        longest_s: Maximum total waiting time in seconds. 0: do not wait.
        jitter: Returns the random factor for the length of a pause, so that clients do not try at the same time.
    """

    def __init__(
        self,
        longest_s: float,
        *,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311 - jitter, no secret
    ) -> None:
        self._longest_s = longest_s
        self._jitter = jitter
        self._deadline: float | None = None
        self._pause_s = FIRST_PAUSE_S
        self.is_over = False
        """True once the queue was still full and no waiting time was left."""

    def pause_s(self) -> float | None:
        """Return the seconds until the next attempt, or None if no time is left."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._longest_s
        left_s = self._deadline - now
        if self.is_over or left_s <= 0:
            self.is_over = True
            return None
        pause_s = min(self._jitter() * self._pause_s, left_s)
        self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)
        return pause_s

    def renew(self) -> None:
        """Restart the waiting time for the next batch, unless an earlier batch has used up its time."""
        self._deadline = None
        self._pause_s = FIRST_PAUSE_S


class Sender:
    """Makes the request plans that send new tasks.

    Args:
        preparer: Registers queues and counts tasks.
        circuit: The circuit breaker.
        limits: Limits of queues by queue name.
        timeout_s: Maximum seconds to wait for a response of Redis. Also the default for the wait for room.
    """

    def __init__(
        self, preparer: Preparer, circuit: Circuit, limits: Mapping[str, QueueLimit], *, timeout_s: float
    ) -> None:
        self.preparer = preparer
        self.circuit = circuit
        self.timeout_s = timeout_s
        self._limits = limits

    def reset(self) -> None:
        """Forget registered queues, and failures to reach Redis, because the client now uses another store."""
        self.circuit.reset()
        self.preparer.forget_registered()

    def max_pending(self, queue: str) -> int | None:
        """Return the maximum number of pending tasks of a queue; None for no limit."""
        limit = self._limits.get(queue)
        return None if limit is None else limit.max_pending

    def wait(self, queue: str, *, most_s: float | None = None) -> Wait:
        """Return how long a call may wait for room in a queue, at most `most_s`."""
        limit = self._limits.get(queue)
        if limit is None or limit.when_full is WhenFull.REJECT:
            return Wait(0.0)
        own = limit.block_timeout
        longest_s = self.timeout_s if own is None else seconds("BLOCK_TIMEOUT", own)
        return Wait(longest_s if most_s is None else min(longest_s, most_s))

    def must_wait(self, batch: Batch, sent: Sequence[Batch]) -> bool:
        """Return whether a bulk enqueue must wait for an answer to sent batches before it sends another batch.

        Several batches are on their way at the same time, so that the client and Redis work during a round trip: at
        most `IN_FLIGHT_MAX` batches of `IN_FLIGHT_BYTES`. A batch that may need several requests is sent alone, so that
        no later batch overtakes it: its queue may be full or must be registered, replicas must confirm it, or Redis has
        failed.
        """
        return (
            len(sent) >= IN_FLIGHT_MAX
            or sum([each.bytes for each in sent]) + batch.bytes > IN_FLIGHT_BYTES
            or batch.queue.name in self._limits
            or any(each.tasks[0].confirm is not None for each in (*sent, batch))
            or self.circuit.failures > 0
            or self.preparer.is_unregistered(batch.queue)
        )

    def run(self, operation: Operation[T]) -> SendPlan[T]:
        """Run one operation under the circuit breaker."""
        with self.circuit.call():
            answer: T = yield operation, time.monotonic() + self.timeout_s
        return answer

    def register(self, queue: QueueKeys) -> SendPlan[None]:
        """Add a queue to the set of known queues, unless this client has done so recently."""
        if self.preparer.is_unregistered(queue):
            with self.circuit.call():
                yield from self._register(queue, time.monotonic() + self.timeout_s)

    def _register(self, queue: QueueKeys, deadline: float) -> SendPlan[None]:
        try:
            yield new_tasks.register_queue(self.preparer.keys.queues, (queue.name,)), deadline
        except BrokerError as error:
            error.may_have_happened = False  # only the queue's name was sent, and no task
            raise
        self.preparer.record_registered(queue)

    def store(self, queue: QueueKeys, tasks: Sequence[NewTask], timeout_s: float) -> SendPlan[Codes]:
        """Store tasks of one queue in one script call. Return the outcome of each task."""
        circuit, now = self.circuit, time.monotonic()
        deadline = now + timeout_s
        is_probe = circuit.failures > 0 and circuit.begin()
        try:
            if now >= self.preparer.registered_until.get(queue.name, 0.0):
                yield from self._register(queue, deadline)
            slot = take_slot()
            limit = self._limits.get(queue.name)
            most = None if limit is None else limit.max_pending
            answer: Codes = yield new_tasks.enqueue(queue, tasks, slot, max_pending=most), deadline
        except BaseException as error:
            circuit.end(error, is_probe=is_probe)
            raise
        if circuit.failures:
            circuit.end(None, is_probe=is_probe)
        give_back_slot(slot)
        return answer

    def store_batch(self, batch: Batch, result: BulkResult, wait: Wait) -> SendPlan[None]:
        """Store a batch and add its tasks to the result. While the queue is full, wait and send refused tasks again."""
        started = time.monotonic()
        batch.span.begin()
        count = len(batch.tasks)
        wait.renew()
        try:
            while True:
                answer = yield from self.store(batch.queue, batch.tasks, self.timeout_s)
                pause_s = wait.pause_s() if StoreCode.FULL in answer else None
                if pause_s is None:
                    break
                refused, stored, stored_answer = batch.split(answer)
                if stored.tasks:
                    self._count(stored, result.add(stored, stored_answer), started)
                    batch = refused
                yield None, time.monotonic() + pause_s
        except BrokerError as cause:
            error = result.failure(batch, cause)
            batch.span.end(error, count=count)
            self._count(batch, [error] * len(batch.tasks), started)
            raise error from cause
        self._count(batch, result.add(batch, answer), started)
        batch.span.end(count=count)

    def _count(self, batch: Batch, errors: Sequence[BaseException | None], started: float) -> None:
        """Count the tasks of a batch, by name and error. `errors` is empty, or has one entry for each task."""
        duration_s: float | None = time.monotonic() - started
        for (name, error_type), count in batch.count(errors).items():
            self.preparer.metrics.sent(batch.queue.name, name, count, duration_s=duration_s, error_type=error_type)
            duration_s = None  # record the duration once for each script call


class TransactionHook(Protocol):
    """Postpones sending to the commit of a surrounding database transaction."""

    def defer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
        """Call `send` when the open transaction commits, or `dropped` if it is rolled back, and return True.

        Return False if no transaction is open.
        """
        ...

    async def adefer(self, send: Callable[[], None], dropped: Callable[[], None]) -> bool:
        """Postpone a send from a coroutine, as `defer` does. `send` is called in blocking code."""
        ...


class SendAtLastCommit:
    """Calls `send` once, after the last of several transactions has committed. Call this object at each commit.

    If one of the transactions is rolled back, `dropped` is called instead. Django does not report rollbacks: it only
    forgets the hooks of the transaction. So an object that is deleted before all commits counts as dropped too. Safe to
    call from any thread.

    Args:
        commits: Number of transactions that have not committed yet, at least 1.
        send: The function to call after the commits.
        dropped: The function to call after a rollback. It must not raise.
    """

    def __init__(self, commits: int, send: Callable[[], None], dropped: Callable[[], None]) -> None:
        self._commits = commits
        self._send: Callable[[], None] | None = send
        self._dropped = dropped
        self._lock = threading.Lock()

    def __call__(self) -> None:
        """Count a commit, and send at the last one. Add a note to the error of a failed send that the task is lost."""
        with self._lock:
            self._commits -= 1
            if self._commits or self._send is None:
                return
            send, self._send = self._send, None
        try:
            send()
        except TaskQError as error:
            cause = error.__cause__
            is_stored = isinstance(cause, BrokerReplicationError)
            if isinstance(error, QueueFullError) or (isinstance(cause, BrokerError) and not is_stored):
                error.add_note(_LOST)
            raise

    def drop(self) -> None:
        """Count a rollback, after which nothing is sent."""
        with self._lock:
            send, self._send = self._send, None
        if send is not None:
            self._dropped()

    def __del__(self) -> None:
        if self._send is not None:
            self.drop()


_free_slots: deque[ReceiptSlot] = deque()
"""Receipt slots that no caller uses now. For each slot, Redis stores the number and the answer of its last request. It
thereby recognizes a repeated request. The slot of a failed request is dropped, because that request may still reach
Redis and overwrite the answer of the slot's next request."""


def take_slot() -> ReceiptSlot:
    """Return a receipt slot for exclusive use until `give_back_slot`."""
    try:
        return _free_slots.pop()
    except IndexError:
        return ReceiptSlot(new_token())


give_back_slot = _free_slots.append
"""Return a slot whose request was answered, so that other callers can take it."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_slots.clear)  # a child process must not use the slots of its parent
