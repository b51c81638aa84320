"""What a worker may run by the limits of its queues, and of tasks whose producer knew nothing of their limits."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from taskq_core.app import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import limits as limit_ops
from taskq_core.broker.operations.limits import ClaimCode
from taskq_core.clock import Clock
from taskq_core.errors import PayloadError, TaskArgumentsError
from taskq_core.telemetry import unwrap
from taskq_core.worker.run import Run


class Claims:
    """Says how many more tasks of a queue may run here, and asks for what a limit has to allow first.

    Args:
        app: The queue application, whose settings and tasks name the limits.
        queues: Names of the worker's queues.
        runner: Sends operations.
        clock: Source of monotonic time.
        owner: Token of the worker.
        running: Queue and id of what runs.
        start: Starts a run.
        release: Gives back slots.
    """

    def __init__(
        self,
        app: TaskQ,
        queues: Collection[str],
        runner: AsyncRunner,
        clock: Clock,
        *,
        owner: str,
        running: Callable[[], Collection[tuple[str, str]]],
        start: Callable[[Run, float], None],
        release: Callable[[int], None],
    ) -> None:
        self._tasks = app.tasks
        self._runner = runner
        self._clock = clock
        self._owner = owner
        self._running = running
        self._start = start
        self._release = release
        self._claiming: Counter[str] = Counter()
        self.caps = {
            name: limit
            for name, limit in app.settings.limits.items()
            if name in queues and (limit.concurrency is not None or limit.worker_concurrency is not None)
        }
        """What says how many tasks of a queue run at once, by the queue's name."""
        self.limits = {name: task.limits for name, task in app.tasks.items() if task.limits is not None}
        """Limits of tasks, by the task's name."""

    @property
    def specs(self) -> Mapping[str, str]:
        """Each limit that a task names, as it is stored."""
        return {name: spec for limits in self.limits.values() for name, spec in limits.specs.items()}

    def room(self, queue: str) -> tuple[int | None, int | None]:
        """Return how many more tasks of a queue this worker may run, and how many may be active in all."""
        cap = self.caps.get(queue)
        if cap is None:
            return None, None
        left = None
        if cap.worker_concurrency is not None:
            running = sum(name == queue for name, _ in self._running())
            left = cap.worker_concurrency - running - self._claiming[queue]
        return left, cap.concurrency

    def frees_room(self, runs: Collection[Run]) -> bool:
        """Whether there may be room for others of a queue once these runs have ended."""
        return bool(self.caps) and any(run.queue.name in self.caps for run in runs)

    def begin(self, run: Run) -> None:
        """Count a run that is going to be claimed as one that runs."""
        self._claiming[run.queue.name] += 1

    async def claim(self, run: Run) -> None:
        """Start a run that was begun, once its limits allow it.

        Raises:
            BrokerError: Redis does not say whether they do; the task is back when its lease ends.
        """
        code = ClaimCode.NOT_OWNED
        try:
            limit = self._limit_of(run)
            if limit is None:
                code = ClaimCode.RUN
            else:
                step = limit_ops.claim(run.queue, run.task_id, limit, owner=self._owner, run=run.number)
                code = await self._runner.run(step, patience_s=max(0.0, run.lease_until - self._clock.monotonic()))
        finally:
            self._claiming[run.queue.name] -= 1
            if code == ClaimCode.RUN:
                self._start(run, self._clock.monotonic())
            else:
                self._release(1)  # of one that is not known to wait, the lease ends

    def _limit_of(self, run: Run) -> str | None:
        """Return the limits of a task as it would carry them; None if it has to fail, with the error in the run."""
        task = self._tasks[run.name]
        limits = self.limits[run.name]
        try:
            arguments: Mapping[str, object] = {}
            if limits.need_arguments:
                payload, _ = unwrap(run.message.payload, task.codec.parameters)
                arguments = task.codec.decode(payload)
            return limits.text(arguments)
        except (PayloadError, TaskArgumentsError) as error:
            run.error = error
            return None
