"""The requests of task and workflow handles, for blocking code and for coroutines."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import views
from taskq_core.broker.operations.steps import StreamPage, read_stream
from taskq_core.broker.operations.views import StoredTask
from taskq_core.broker.plans import RequestPlan, arun_plan, run_plan
from taskq_core.broker.sync import SyncRunner, SyncSubscription
from taskq_core.errors import BrokerUnavailableError
from taskq_core.handles.patience import Patience
from taskq_core.handles.subscription import EndHub, Find, TaskFollower
from taskq_core.settings import Duration
from taskq_core.warnings import warn_if_blocking
from taskq_core.wire import Keys, QueueKeys

T = TypeVar("T")

NOT_YET: Any = object()
"""Value that `poll` returns if the task or workflow has not ended in time."""


class HandleSource:
    """Executes the request plans of handles, and waits for the end of tasks and workflows.

    Args:
        keys: Key names.
        runner: Sends the requests of blocking code.
        async_runner: Sends the requests of coroutines.
        timeout_s: Maximum seconds of one request.
        find_in_outbox: Finds a task that waits in an outbox.
    """

    def __init__(
        self,
        keys: Keys,
        runner: SyncRunner,
        async_runner: AsyncRunner,
        *,
        timeout_s: float,
        find_in_outbox: Find | None = None,
    ) -> None:
        self.keys = keys
        self.timeout_s = timeout_s
        self._find_in_outbox = find_in_outbox
        self.send_through(runner, async_runner)

    def send_through(self, runner: SyncRunner, async_runner: AsyncRunner) -> None:
        """Replace both runners. All further requests of handles go through the new ones."""
        self.runner, self.async_runner = runner, async_runner
        self._hub = EndHub(async_runner)

    def run(self, plan: RequestPlan[T], patience_s: float | None = None) -> T:
        """Execute a request plan and return its result. `patience_s`: maximum seconds of one request."""
        return run_plan(plan, partial(self.runner.run, patience_s=patience_s or self.timeout_s))

    async def arun(self, plan: RequestPlan[T], patience_s: float | None = None) -> T:
        """Execute a request plan from a coroutine."""
        return await arun_plan(plan, partial(self.async_runner.run, patience_s=patience_s or self.timeout_s))

    def patience(self, timeout: Duration | None) -> Patience:
        """Return how long a reader with a timeout goes on."""
        return Patience(timeout, read_s=self.timeout_s)

    def follower(self, queue: str, task_id: str) -> "BlockingFollower":
        """Return an object that reads one task repeatedly."""
        return BlockingFollower(self.runner, self.keys.queue(queue), task_id)

    def afollower(self, queue: str, task_id: str) -> TaskFollower:
        """Return an object that reads one task repeatedly from a coroutine."""
        return TaskFollower(
            self.async_runner,
            self._hub,
            self.keys.queue(queue),
            task_id,
            patience_s=self.timeout_s,
            find_in_outbox=self._find_in_outbox,
        )

    def poll(self, plan: Callable[[], RequestPlan[T]], queue: str, task_id: str, timeout: Duration | None) -> T:
        """Execute a plan until its result is not `NOT_YET`, or the time is over. Return the last result.

        Execute the plan again when a message on the queue's channel names the task, and also from time to time.

        Raises:
            BrokerUnavailableError: The time is over, and Redis does not answer.
        """
        warn_if_blocking(".result()", ".aresult()", until="until the task or workflow has ended")
        patience = self.patience(timeout)
        with contextlib.closing(self.follower(queue, task_id)) as follower:
            while True:
                try:
                    if (result := self.run(plan(), patience.read_s())) is not NOT_YET:
                        return result
                    patience.record_answer()
                except BrokerUnavailableError as error:
                    patience.record_unavailable(error)
                if (pause_s := patience.pause_s()) is None:
                    not_yet: T = NOT_YET
                    return not_yet
                follower.wait(pause_s)

    async def apoll(self, plan: Callable[[], RequestPlan[T]], queue: str, task_id: str, timeout: Duration | None) -> T:
        """Execute a plan until its result is not `NOT_YET`. Like `poll`, for coroutines."""
        patience = self.patience(timeout)
        async with self.afollower(queue, task_id) as follower:
            while True:
                try:
                    if (result := await self.arun(plan(), patience.read_s())) is not NOT_YET:
                        return result
                    patience.record_answer()
                except BrokerUnavailableError as error:
                    patience.record_unavailable(error)
                if (pause_s := patience.pause_s()) is None:
                    not_yet: T = NOT_YET
                    return not_yet
                await follower.wait(pause_s)


class BlockingFollower:
    """Reads one task repeatedly from blocking code."""

    def __init__(self, runner: SyncRunner, queue: QueueKeys, task_id: str) -> None:
        self._runner = runner
        self._queue = queue
        self._task_id = task_id
        self._has_waited = False
        self._subscription: SyncSubscription | None = None

    def read(self, patience_s: float) -> StoredTask | None:
        """Return the task as stored in Redis, None if it does not exist.

        After a `wait`, also ask workers to publish messages about the task.
        """
        request = views.read_task(self._queue, self._task_id, publish_changes=self._has_waited)
        return self._runner.run(request, patience_s=patience_s)

    def read_stream(self, after: str, patience_s: float) -> StreamPage:
        """Return the next values that the task emitted after a position."""
        return self._runner.run(read_stream(self._queue, self._task_id, after=after), patience_s=patience_s)

    def wait(self, timeout_s: float) -> None:
        """Wait until the task should be read again: at most the timeout, and less after a message about the task."""
        is_first, self._has_waited = not self._has_waited, True
        if self._subscription is None:
            if not is_first:  # a pause, in case Redis closes each connection at once
                time.sleep(timeout_s)
            with contextlib.suppress(BrokerUnavailableError):
                self._subscription = self._runner.subscribe(self._queue.done)
            return  # messages before the subscription were missed, so the caller must read the task now
        until = time.monotonic() + timeout_s
        try:
            while (left_s := until - time.monotonic()) > 0:
                if self._subscription.next(left_s) == self._task_id:
                    return
        except BrokerUnavailableError:
            self.close()

    def close(self) -> None:
        """End the subscription."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
