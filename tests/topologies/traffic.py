"""Traffic for tests of failures: a blocking and an asyncio producer and a worker, with a ledger outside Redis.

A producer gives each task a unique id. If an enqueue fails, it repeats it with the same id, as an application does that
must not lose a task. Every acknowledged task must run. The ledger counts the runs of each task.

Figures are logged: `python -m pytest tests/topologies -o log_cli=true -o log_cli_level=INFO`.
"""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

from taskq_core import EnqueueError, TaskIdConflictError, TaskQ, current_task
from taskq_core.broker.operations import views
from taskq_core.errors import BrokerError
from taskq_core.wire import TaskState
from taskq_core.worker import Worker, WorkerConfig

logger = logging.getLogger("tests.topologies")

SHRUNK: dict[str, Any] = {
    "lease": 2,
    "heartbeat": 0.5,
    "lease_grace": 1,
    "recover_every": 0.3,
    "reconcile_every": 1,
    "leader_lease": 1,
    "safety_net": 1,
}
"""Short intervals of the worker, so that a lost task runs again after a few seconds instead of a minute."""
PAUSE_S = 0.003
"""Pause of a producer after each enqueue, in seconds."""
PATIENCE_S = 60.0
"""Timeout of all waits, in seconds."""


class Ledger:
    """The acknowledged tasks and the runs of each task, by task id."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.acknowledged: dict[str, str] = {}  # id to the kind of producer
        self.executed: Counter[str] = Counter()
        self.problems: Counter[str] = Counter()

    def lost(self) -> set[str]:
        """Return the ids that were acknowledged and have not run."""
        with self.lock:
            return set(self.acknowledged) - set(self.executed)

    @property
    def repeated(self) -> int:
        """The number of runs after the first run of each task."""
        with self.lock:
            return sum(count - 1 for count in self.executed.values())

    def log(self, what: str, recoveries: Sequence[float]) -> None:
        """Log the figures of a test."""
        times = ", ".join(f"{each:.2f}" for each in recoveries)
        logger.info(
            "%s: %d acknowledged, %d lost, %d repeated runs; errors of producers: %s; seconds of recoveries: %s",
            *(what, len(self.acknowledged), len(self.lost()), self.repeated, dict(self.problems), times),
        )

    def mark(self) -> tuple[Counter[str], int]:
        """Return the number of acknowledged tasks of each producer, and the number of tasks that have run."""
        with self.lock:
            return Counter(self.acknowledged.values()), len(self.executed)


class Traffic:
    """Two producers and a worker, which run while the context is open.

    Args:
        url: URL of Redis.
        queues: Queues that are used in turn.
        producer_urls: URLs for the blocking and the asyncio producer; None for `url`.
        repeats: Whether producers repeat a failed enqueue until it is acknowledged. Otherwise they use the next id.
        is_patient: Use timeouts and leases of a minute, for tests in which no enqueue may fail.
        **options: Options of the tasks.
    """

    def __init__(
        self,
        url: str,
        *,
        queues: Sequence[str] = ("default",),
        producer_urls: tuple[str, str] | None = None,
        repeats: bool = True,
        is_patient: bool = False,
        **options: Any,
    ) -> None:
        self.ledger = Ledger()
        self.queues = tuple(queues)
        self._repeats = repeats
        self._options = options
        self._worker_app = TaskQ(url, queues=list(queues))
        first, second = producer_urls or (url, url)
        self._apps = tuple(TaskQ(each, enqueue_timeout=60.0 if is_patient else 1.0) for each in (first, second))
        self._config = {**SHRUNK, "lease": 60} if is_patient else SHRUNK
        self._stopping = threading.Event()
        self._ended = threading.Event()

    async def __aenter__(self) -> Self:
        @self._worker_app.task(name="work")
        async def work() -> None:
            self.ledger.executed[current_task().id] += 1

        config = WorkerConfig.from_settings(self._worker_app.settings, **self._config)
        self.worker = Worker(self._worker_app, config)
        self._running = asyncio.create_task(self.worker.arun())
        self._thread = threading.Thread(target=self._produce, name="producer")
        self._thread.start()
        self._coroutine = asyncio.create_task(self._aproduce())
        await self.until_flowing()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stop_producers()
        self.worker.stop()
        try:
            await asyncio.wait_for(self._running, PATIENCE_S)
        finally:
            for app in (*self._apps, self._worker_app):
                await app.aclose()

    async def until_flowing(self, tasks: int = 5) -> float:
        """Wait until each producer has enqueued `tasks` tasks and as many have run. Return the seconds this took."""
        started = time.monotonic()
        before, ran = self.ledger.mark()
        while True:
            now, running = self.ledger.mark()
            if all(now[each] >= before[each] + tasks for each in ("blocking", "asyncio")) and running >= ran + tasks:
                return time.monotonic() - started
            self._check(started, f"the traffic does not continue: {self.ledger.problems.most_common(3)}")
            await asyncio.sleep(0.005)

    async def finish(self) -> None:
        """Stop the producers, and wait until all acknowledged tasks have run or all queues are idle."""
        await self._stop_producers()
        started = time.monotonic()
        while self.ledger.lost() and not await self._is_at_rest():
            self._check(started, f"{len(self.ledger.lost())} tasks do not run")
            await asyncio.sleep(0.05)

    async def _is_at_rest(self) -> bool:
        """Return whether two checks in a row find no waiting and no running task in any queue."""
        for _ in range(2):
            for name in self.queues:
                counts = await self._counts(name)
                if counts is None or counts:
                    return False
            await asyncio.sleep(0.3)
        return True

    async def _counts(self, name: str) -> int | None:
        runtime = self._worker_app.runtime
        with suppress(BrokerError):
            answer = await runtime.async_runner.run(views.count_tasks(runtime.keys.queue(name)), patience_s=1)
            return sum(count for state, count in answer.sizes.items() if state is not TaskState.COMPLETED)
        return None

    def _check(self, started: float, problem: str) -> None:
        assert not self._running.done(), "the worker has ended"
        assert time.monotonic() - started < PATIENCE_S, problem

    async def _stop_producers(self) -> None:
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)
        await self._coroutine

    def _calls(self, app: TaskQ, kind: str) -> Any:
        task = app.remote("work", **self._options)
        number = 0
        while not self._stopping.is_set():
            queue = self.queues[number % len(self.queues)]
            task_id = f"{kind}-{number}"
            yield task_id, task.using(task_id=task_id, queue=queue).s()
            number += 1

    def _record(self, task_id: str, kind: str, error: EnqueueError | None) -> bool:
        """Record the result of an enqueue. Return whether the producer goes on to the next task."""
        with self.ledger.lock:
            if error is None or isinstance(
                error, TaskIdConflictError
            ):  # only this producer uses the id, so the task is stored
                self.ledger.acknowledged[task_id] = kind
                return True
            self.ledger.problems[type(error).__name__] += 1
            return not self._repeats

    def _produce(self) -> None:
        for task_id, call in self._calls(self._apps[0], "blocking"):
            is_done = False
            while not is_done and not self._stopping.is_set():
                error = None
                try:
                    self._apps[0].client.enqueue(call)
                except EnqueueError as caught:
                    error = caught
                is_done = self._record(task_id, "blocking", error)
                time.sleep(PAUSE_S if error is None else 0.05)

    async def _aproduce(self) -> None:
        for task_id, call in self._calls(self._apps[1], "asyncio"):
            is_done = False
            while not is_done and not self._stopping.is_set():
                error = None
                try:
                    await self._apps[1].async_client.enqueue(call)
                except EnqueueError as caught:
                    error = caught
                is_done = self._record(task_id, "asyncio", error)
                await asyncio.sleep(PAUSE_S if error is None else 0.05)
