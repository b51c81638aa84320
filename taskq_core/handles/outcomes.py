"""What became of a task, for those who ask its handle: how the answer reads, and how blocking code waits for it."""

import time
from typing import Any

from taskq_core.broker.operations import views
from taskq_core.broker.operations.views import StoredTask
from taskq_core.broker.sync import SyncRunner, SyncSubscription
from taskq_core.codec import decode_result
from taskq_core.codec.oversized import read_oversized
from taskq_core.errors import (
    BrokerUnavailableError,
    ResultNotKeptError,
    ResultTimeoutError,
    ResultTooLargeError,
    TaskFailedError,
    TaskNotFoundError,
    TaskNotSentError,
)
from taskq_core.handles.expiry import expired_error
from taskq_core.handles.handle import TaskHandle
from taskq_core.handles.records import TaskInfo, task_info
from taskq_core.wire import QueueKeys, TaskState, decode_message

NOT_YET = object()
"""What `outcome_of` returns of a task that has not ended."""


def outcome_of(handle: TaskHandle[Any], stored: StoredTask | None) -> Any:
    """Return the result of a task that has ended, `NOT_YET` while it has not, or raise what became of it."""
    if stored is None:
        if handle.is_late:
            return NOT_YET
        raise TaskNotFoundError(handle.queue, handle.id)
    handle.is_late = False
    if stored.state is TaskState.COMPLETED:
        if stored.result:
            return decode_result(stored.result, handle.result_type)
        oversized = read_oversized(stored.oversized)
        if oversized is not None:
            raise ResultTooLargeError(handle.queue, handle.id, oversized.size, oversized.limit)
        return None
    if stored.state is TaskState.ARCHIVED:
        message = decode_message(stored.message)
        expired = expired_error(message, handle.queue)
        if expired is not None:
            raise expired
        text = message.error_msg
        raise TaskFailedError(handle.queue, handle.id, f"it failed and was archived: {text}" if text else "archived")
    return NOT_YET


def check_kept(handle: TaskHandle[Any]) -> None:
    """Refuse to wait for a result that is not kept."""
    if not handle.is_kept:
        raise ResultNotKeptError(
            handle.queue,
            handle.id,
            "it keeps no result because its retention is 0; give the task retention=, for example "
            "@task(retention=3600), or set DEFAULTS['retention']",
        )


def found(handle: TaskHandle[Any], stored: StoredTask | None) -> TaskInfo:
    """Return a task as people look at it, or raise that it is gone."""
    if stored is None:
        if handle.is_late:
            raise TaskNotSentError(handle.queue, handle.id, "it waits in the outbox for a worker to send it")
        raise TaskNotFoundError(handle.queue, handle.id)
    return task_info(stored)


def timed_out(handle: TaskHandle[Any], timeout_s: float) -> ResultTimeoutError:
    """Return the error of a caller who has waited long enough."""
    return ResultTimeoutError(handle.queue, handle.id, f"it has not ended within {timeout_s:g} s")


class BlockingFollower:
    """One task, looked at again and again from blocking code. Listens from the first wait on."""

    def __init__(self, runner: SyncRunner, queue: QueueKeys, task_id: str) -> None:
        self._runner = runner
        self._queue = queue
        self._task_id = task_id
        self._subscription: EndSubscription | None = None

    def read(self, patience_s: float) -> StoredTask | None:
        """Return the task as stored in Redis, None if it does not exist."""
        look = views.look(self._queue, self._task_id, tell_changes=self._subscription is not None)
        return self._runner.run(look, patience_s=patience_s)

    def wait(self, timeout_s: float) -> None:
        """Wait until the next read: the timeout, or less if a message says that the task changed."""
        if self._subscription is None:
            self._subscription = EndSubscription(self._runner, self._queue.done, self._task_id)
            self._subscription.open()  # earlier messages are lost, so the caller reads the task now
        else:
            self._subscription.listen(time.monotonic() + timeout_s)

    def close(self) -> None:
        """Stop listening."""
        if self._subscription is not None:
            self._subscription.close()


class EndSubscription:
    """Listens for the end of one task, blocking. Where it cannot, it lets the time pass: the caller looks as well."""

    def __init__(self, runner: SyncRunner, channel: str, task_id: str) -> None:
        self._runner = runner
        self._channel = channel
        self._task_id = task_id
        self._subscription: SyncSubscription | None = None

    def open(self) -> None:
        """Begin to listen."""
        try:
            self._subscription = self._runner.subscribe(self._channel)
        except BrokerUnavailableError:
            self._subscription = None

    def listen(self, until: float) -> None:
        """Return when the task is said to have ended, when messages may have been missed, or at the given time."""
        if self._subscription is None:
            time.sleep(max(0.0, until - time.monotonic()))
            self.open()
            return
        try:
            while (left := until - time.monotonic()) > 0:
                if self._subscription.next(left) == self._task_id:
                    return
        except BrokerUnavailableError:
            self.close()

    def close(self) -> None:
        """Stop listening."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
