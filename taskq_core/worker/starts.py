"""Start fetched tasks: at once, or after a request to Redis.

Two kinds of tasks need a request. All others start at once.

- The task has limits that its producer did not know, so they are not in its message. A claim (a request for permits)
  checks them.
- The run may be the last run of its task. The worker first marks it as started in Redis, because a task whose last run
  was lost is archived only if that run had started. So a task with `max_retry=0` runs at least once, and a task that
  kills its worker stops after `max_retry + 1` runs.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from taskq_core.broker.operations import limits as limit_ops
from taskq_core.broker.operations import runs as run_ops
from taskq_core.broker.operations.limits import ClaimCode
from taskq_core.broker.operations.operation import BATCH_MAX
from taskq_core.broker.operations.runs import Dequeued
from taskq_core.errors import PayloadError, TaskArgumentsError, WireFormatError
from taskq_core.tasks.limits import HEADER
from taskq_core.wire import EXPIRES, QueueKeys, decode_message
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.counted_log import CountedLog
from taskq_core.worker.run import Run
from taskq_core.worker.settler import Settler

logger = logging.getLogger("taskq.worker")

_EXPIRES = EXPIRES.encode()


class Starts:
    """Starts fetched tasks: checks their limits, and marks the last run of a task as started.

    Used on the event loop only.

    Args:
        context: The worker.
        settler: Returns tasks that cannot start to their queue.
        start: Starts a run at a monotonic time.

    Attributes:
        limits: Limits of tasks, by the task's name.
    """

    def __init__(self, context: WorkerContext, settler: Settler, start: Callable[[Run, float], None]) -> None:
        self._context = context
        self._settler = settler
        self._start_now = start
        self._batch: list[Run] = []
        # Runs that wait for Redis to allow their start. This is no set of task ids, because two runs of one task may
        # wait.
        self._waiting: set[Run] = set()
        self._log_dropped = CountedLog(
            logger, logging.ERROR, "dropped %d ids from queue %s because they have no stored message"
        )
        self._log_foreign = CountedLog(
            logger, logging.ERROR, "%d tasks in queue %s name a unique lock of another queue; they run without a lock"
        )
        self._log_too_large = CountedLog(
            logger,
            logging.ERROR,
            "moved %d tasks of queue %s to quarantine unread, because their messages are larger than MAX_MESSAGE_SIZE; "
            "taskq doctor lists them",
        )
        app = context.app
        self.limits = {name: task.limits for name, task in app.tasks.items() if task.limits is not None}

    def receive(
        self, queue: QueueKeys, number: int, answer: Dequeued, lease_until: float, now: float, *, is_wanted: bool
    ) -> list[Run]:
        """Start the tasks that a dequeue handed out, and return their runs.

        Args:
            queue: The queue.
            number: Number of the dequeue.
            answer: Answer to the dequeue.
            lease_until: Monotonic time at which the leases end.
            now: Monotonic time.
            is_wanted: Whether the tasks may start. If not, they go back to their queue.
        """
        if answer.dropped:
            self._log_dropped.add(answer.dropped, queue.name)
        if answer.too_large:
            self._log_too_large.add(answer.too_large, queue.name)
        foreign_locks = 0  # task messages whose unique key is a key of another queue
        waits = iter(answer.waits_s) if answer.waits_s else None
        runs: list[Run] = []
        for task_id, data in answer.tasks:
            wait_s = None if waits is None else next(waits)
            try:
                message = decode_message(data)
            except WireFormatError:
                self._set_aside(queue, task_id, number)
                continue
            if message.unique_key and not queue.is_lock(message.unique_key):
                message.unique_key = ""
                foreign_locks += 1
            # Decoding the headers costs a tenth of an empty task, so the raw bytes are searched instead.
            run = Run(queue, task_id, message, lease_until, number=number, may_expire=_EXPIRES in data)
            runs.append(run)
            if wait_s is not None:
                self._context.metrics.waited(queue.name, run.name, wait_s)
            # The process or its event loop was suspended until the lease had expired.
            if now >= lease_until:
                self._settler.return_unstarted(run, now, "arrived after its lease had ended")
            elif not is_wanted:
                self._settler.return_unstarted(run, now, "arrived after its request was cancelled")
            else:
                self.start(run, now)
        if foreign_locks or answer.foreign_locks:
            self._log_foreign.add(max(foreign_locks, answer.foreign_locks), queue.name)
        return runs

    def start(self, run: Run, now: float) -> None:
        """Start a run at once, or after its limits were checked and its start was recorded. `now` is monotonic."""
        if run.name in self.limits and HEADER not in run.message.headers:
            self._waiting.add(run)
            self._context.background.start(self._claim(run))
        else:
            self._start(run, now)

    def _set_aside(self, queue: QueueKeys, task_id: str, number: int) -> None:
        """Move an undecodable task to quarantine, and free its slot."""
        facts = {"queue": queue.name, "task_id": task_id}
        logger.error("a task of queue %s cannot be decoded and is moved to quarantine", queue.name, extra=facts)
        self._context.background.start(self._quarantine(queue, task_id, number))

    async def _quarantine(self, queue: QueueKeys, task_id: str, number: int) -> None:
        context = self._context
        try:
            await context.runner.run(run_ops.quarantine(queue, task_id, owner=context.token, run=number))
        finally:
            # If `quarantine` failed, the recoverer quarantines the task after its lease has ended.
            self._settler.release(1, queue.name)

    def flush_logs(self) -> None:
        """Log the counts of events that were not logged yet."""
        self._log_dropped.flush()
        self._log_foreign.flush()
        self._log_too_large.flush()

    # --- limits -------------------------------------------------------------------------------------------------------

    @property
    def specs(self) -> Mapping[str, str]:
        """Limits of this worker's tasks in the form that Redis stores, by the limit's name."""
        return {name: spec for limits in self.limits.values() for name, spec in limits.specs.items()}

    def room(self, queue: str) -> tuple[int | None, int | None]:
        """Return how many more tasks of a queue this worker may run, and the maximum of all workers. None: no limit."""
        cap = self._context.caps.get(queue)
        if cap is None:
            return None, None
        left = None
        if cap.worker_concurrency is not None:
            keys = self._context.running.keys() | {run.key for run in self._waiting}
            left = cap.worker_concurrency - sum(name == queue for name, _ in keys)
        return left, cap.concurrency

    async def _claim(self, run: Run) -> None:
        """Ask Redis for a permit of each limit of a task, and start its run if all limits allow it now.

        Raises:
            BrokerError: Redis did not answer. The task returns to its queue when its lease ends.
        """
        context = self._context
        code = ClaimCode.NOT_OWNED
        try:
            limit = self._limit_of(run)
            if limit is None:
                code = ClaimCode.RUN
            else:
                claim = limit_ops.claim(run.queue, run.task_id, limit, owner=context.token, run=run.number)
                code = await context.runner.run(claim, patience_s=self._left_s(run))
        finally:
            self._waiting.discard(run)
            if code == ClaimCode.RUN:
                self._start(run, context.clock.monotonic())
            else:
                # The task waits for its limit, or its lease has ended. Its slot is free again.
                self._settler.release(1, run.queue.name)

    def _limit_of(self, run: Run) -> str | None:
        """Return the limits of a task as the text of a message header. Return None if its arguments are not valid."""
        task = self._context.app.tasks[run.name]
        limits = self.limits[run.name]
        try:
            arguments: Mapping[str, object] = {}
            if limits.need_arguments:
                arguments = task.codec.decode(run.message.payload)
            return limits.text(arguments)
        except (PayloadError, TaskArgumentsError) as error:
            run.error = error
            return None

    def _left_s(self, run: Run) -> float:
        return max(0.0, run.lease_until - self._context.clock.monotonic())

    # --- last attempts ------------------------------------------------------------------------------------------------

    def _start(self, run: Run, now: float) -> None:
        message = run.message
        if message.retried < message.retry:
            self._start_now(run, now)
            return
        if not self._batch:  # send one request for all runs of a dequeue, which arrive in the same loop cycle
            asyncio.get_running_loop().call_soon(self._mark_batch)
        self._batch.append(run)
        self._waiting.add(run)

    def _mark_batch(self) -> None:
        by_queue: dict[QueueKeys, list[Run]] = {}
        for run in self._batch:
            by_queue.setdefault(run.queue, []).append(run)
        self._batch = []
        for queue, runs in by_queue.items():
            for first in range(0, len(runs), BATCH_MAX):
                self._context.background.start(self._mark(queue, runs[first : first + BATCH_MAX]))

    async def _mark(self, queue: QueueKeys, runs: list[Run]) -> None:
        """Mark the runs as started in Redis, then start them. Give back runs whose lease has ended.

        Raises:
            BrokerError: Redis did not answer before a lease ended. The tasks are returned to their queues.
        """
        context = self._context
        marked = [False] * len(runs)
        try:
            mark = run_ops.mark_starts(queue, [(run.task_id, run.number) for run in runs], owner=context.token)
            marked = await context.runner.run(mark, patience_s=min(map(self._left_s, runs)))
        finally:
            now = context.clock.monotonic()
            for run, is_marked in zip(runs, marked, strict=True):
                self._waiting.discard(run)
                if not is_marked or now >= run.lease_until:
                    self._settler.return_unstarted(run, now, "was not started before its lease ended")
                elif context.stopping.is_set():
                    self._settler.return_unstarted(run, now, "was not started before the worker stopped")
                else:
                    self._start_now(run, now)
