"""Simulate that time passes, so that tests need not wait for scheduled tasks and retries.

No clock is changed. The stored times of scheduled tasks, retries and groups are moved earlier by the time until the
first of them is due. The times keep their order and distances. This works in memory and on a real server. Unique locks
and deadlines do not change.
"""

import math
from collections.abc import Iterator, Sequence

from taskq_core.broker.operations import aggregation as aggregation_ops
from taskq_core.broker.operations import rehearsal, views
from taskq_core.broker.sync import SyncRunner
from taskq_core.settings import MAX_SECONDS
from taskq_core.tasks.aggregation import Aggregators
from taskq_core.wire import QueueKeys, TaskState

PAGE = 1_000
"""Maximum number of tasks that one request lists."""
ROUNDED_UP_S = 1
"""Maximum seconds by which a stored start may be later than the requested start, because it is rounded up."""
STATES = (TaskState.SCHEDULED, TaskState.RETRY)


class PassingTime:
    """A limited amount of time that a test simulates.

    Args:
        runner: Sends operations.
        queues: Queues whose waiting tasks are affected.
        most_s: Maximum total seconds, as a whole number.
        aggregators: The aggregators that determine when groups are due. None: no group becomes due.
    """

    def __init__(
        self, runner: SyncRunner, queues: Sequence[QueueKeys], most_s: float, *, aggregators: Aggregators | None = None
    ) -> None:
        self._runner = runner
        self._queues = queues
        self._left_s = int(most_s)
        self._aggregators = aggregators

    def skip(self) -> bool:
        """Advance to the time at which the next task or group is due. Return False if that time is after the limit."""
        wait_s = min((each for queue in self._queues for each in self._waits_s(queue)), default=math.inf)
        if wait_s > self._left_s + ROUNDED_UP_S:
            return False
        self._pass(max(0, int(wait_s)))
        return True

    def finish(self) -> None:
        """Advance by the remaining time, in which no further task becomes due."""
        self._pass(self._left_s)

    def _waits_s(self, queue: QueueKeys) -> Iterator[int]:
        """Yield the whole seconds until the first task of each state is due, and until each group of a queue is due."""
        now_s = math.floor(self._runner.run(views.count_tasks(queue)).now_ns / 1e9)
        for state in STATES:
            for _, start_s in self._list(rehearsal.waiting_key(queue, state), 0, 0):
                yield start_s - now_s
        for group in self._groups(queue):
            aggregation = None if self._aggregators is None else self._aggregators.find(queue.name, group)
            if aggregation is None:
                continue
            key = rehearsal.waiting_key(queue, TaskState.AGGREGATING, group)
            for _, newest_s in self._list(key, -1, -1):
                yield newest_s + aggregation.grace_s - now_s
            if aggregation.max_delay_s:
                for _, oldest_s in self._list(key, 0, 0):
                    yield oldest_s + aggregation.max_delay_s - now_s

    def _groups(self, queue: QueueKeys) -> Iterator[str]:
        cursor = 0
        while True:
            cursor, names = self._runner.run(aggregation_ops.list_groups(queue, cursor))
            yield from names
            if not cursor:
                return

    def _pass(self, by_s: int) -> None:
        if not by_s:
            return
        self._left_s = max(0, self._left_s - by_s)
        for queue in self._queues:
            for state in STATES:
                self._bring_forward(rehearsal.waiting_key(queue, state), by_s)
            for group in set(self._groups(queue)):
                self._bring_forward(rehearsal.waiting_key(queue, TaskState.AGGREGATING, group), by_s)

    def _bring_forward(self, key: str, by_s: int) -> None:
        first = 0
        while page := self._list(key, first, first + PAGE - 1):
            for task_id, _ in page:
                self._runner.run(rehearsal.bring_forward(key, task_id, by_s=by_s))
            first += len(page)

    def _list(self, key: str, first: int, last: int) -> list[tuple[str, int]]:
        return self._runner.run(rehearsal.list_waiting(key, first, last))


def start_now(runner: SyncRunner, queue: QueueKeys, task_id: str) -> None:
    """Make a scheduled task, or a task that waits for a retry, due now."""
    for state in STATES:
        runner.run(rehearsal.bring_forward(rehearsal.waiting_key(queue, state), task_id, by_s=MAX_SECONDS))
