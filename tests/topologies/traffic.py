"""Traffic through a Redis that fails: producers of both kinds and a worker, with a ledger outside Redis.

A producer gives each task an id of its own and enqueues it, under the same id again where it was not told that it is
stored, as an application would that must not lose it. What was acknowledged must run; how often is counted.

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
"""Times of the worker; a task that was lost is back after a few seconds instead of a minute."""
PAUSE_S = 0.003
"""Seconds a producer rests after each enqueue."""
PATIENCE_S = 60.0
"""Seconds after which something is taken to never happen."""


class Ledger:
    """What producers were told and what has run, by task id."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.acknowledged: dict[str, str] = {}  # id to the producer that was told
        self.executed: Counter[str] = Counter()
        self.problems: Counter[str] = Counter()

    def lost(self) -> set[str]:
        """Ids that were acknowledged and have not run."""
        with self.lock:
            return set(self.acknowledged) - set(self.executed)

    @property
    def repeated(self) -> int:
        """Runs beyond the first of each task."""
        with self.lock:
            return sum(count - 1 for count in self.executed.values())

    def tell(self, what: str, recoveries: Sequence[float]) -> None:
        """Log the figures of a test."""
        times = ", ".join(f"{each:.2f}" for each in recoveries)
        logger.info(
            "%s: %d acknowledged, %d lost, %d run again; producers were told %s; recovery s: %s",
            *(what, len(self.acknowledged), len(self.lost()), self.repeated, dict(self.problems), times),
        )

    def mark(self) -> tuple[Counter[str], int]:
        """How many each producer was told are stored, and how many tasks have run."""
        with self.lock:
            return Counter(self.acknowledged.values()), len(self.executed)


class Traffic:
    """Two producers and a worker, on one URL; an asynchronous context manager.

    Args:
        url: Where Redis is.
        queues: Queues that are used in turn.
        producer_urls: Where the producers enqueue, the blocking one and the other; None: at `url`.
        insists: Producers go on with an id until they are told that it is stored; otherwise they take the next.
        is_patient: Nothing is to fail, so producers and leases have a minute.
        **options: Options of the tasks.
    """

    def __init__(
        self,
        url: str,
        *,
        queues: Sequence[str] = ("default",),
        producer_urls: tuple[str, str] | None = None,
        insists: bool = True,
        is_patient: bool = False,
        **options: Any,
    ) -> None:
        self.ledger = Ledger()
        self.queues = tuple(queues)
        self._insists = insists
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
        """Wait until each producer was told of so many new tasks and as many have run; return the seconds that took."""
        started = time.monotonic()
        before, ran = self.ledger.mark()
        while True:
            now, running = self.ledger.mark()
            if all(now[each] >= before[each] + tasks for each in ("blocking", "asyncio")) and running >= ran + tasks:
                return time.monotonic() - started
            self._check(started, f"the traffic does not go on: {self.ledger.problems.most_common(3)}")
            await asyncio.sleep(0.005)

    async def finish(self) -> None:
        """Stop the producers and wait until all that was acknowledged has run; what is lost stays lost."""
        await self._stop_producers()
        started = time.monotonic()
        while self.ledger.lost() and not await self._is_at_rest():
            self._check(started, f"{len(self.ledger.lost())} tasks do not run")
            await asyncio.sleep(0.05)

    async def _is_at_rest(self) -> bool:
        """True once no task waits or runs in any queue, twice in a row: nothing is left that could still come."""
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

    def _note(self, task_id: str, kind: str, error: EnqueueError | None) -> bool:
        """Note what became of an enqueue. True if the next is to be tried."""
        with self.ledger.lock:
            if error is None or isinstance(error, TaskIdConflictError):  # the id is only ours: it is stored
                self.ledger.acknowledged[task_id] = kind
                return True
            self.ledger.problems[type(error).__name__] += 1
            return not self._insists

    def _produce(self) -> None:
        for task_id, call in self._calls(self._apps[0], "blocking"):
            is_done = False
            while not is_done and not self._stopping.is_set():
                error = None
                try:
                    self._apps[0].client.enqueue(call)
                except EnqueueError as caught:
                    error = caught
                is_done = self._note(task_id, "blocking", error)
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
                is_done = self._note(task_id, "asyncio", error)
                await asyncio.sleep(PAUSE_S if error is None else 0.05)
