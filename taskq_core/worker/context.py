"""The record of objects that the parts of one worker share: configuration, connections, clocks and running tasks."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from taskq_core.app import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.services import resign
from taskq_core.broker.pipelines import Pipeline
from taskq_core.clock import SYSTEM_CLOCK, Clock, RedisClock
from taskq_core.errors import BrokerError
from taskq_core.service.calls import Caller
from taskq_core.service.loop import Service
from taskq_core.service.outage import Outage
from taskq_core.service.user_code import abandon, unlisted
from taskq_core.telemetry import WorkerMetrics
from taskq_core.wire import QueueKeys
from taskq_core.wire.samples import QueueSample
from taskq_core.worker.config import WorkerConfig
from taskq_core.worker.fleet import Fleet
from taskq_core.worker.key_check import KeyCheck
from taskq_core.worker.listener import WorkerListener
from taskq_core.worker.run import Run

if TYPE_CHECKING:
    from taskq_core.worker.dead_letters import DeadLetters

logger = logging.getLogger("taskq.worker")

MANY_QUEUES = 100
"""Number of queues above which a worker does regular work for each idle queue less often."""


class Background:
    """Runs coroutines as asyncio tasks in the background, and logs their errors."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Start a coroutine as a background asyncio task, and return the asyncio task."""
        task = asyncio.get_running_loop().create_task(_guarded(work))
        # After `close`, leave the asyncio task in asyncio's list, so that the end of the event loop cancels it.
        if not self._is_closed:
            unlisted(task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` for the running coroutines, then cancel the coroutines that still run."""
        self._is_closed = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            abandon(task)


async def _guarded(work: Awaitable[None]) -> None:
    try:
        await work
    except BrokerError as error:
        logger.error("%s", error)
    except Exception:
        logger.exception("a background task failed")


class WorkerContext:
    """Configuration, connections, clocks and running tasks of one worker.

    Args:
        app: The queue application.
        config: How the worker runs.
        runner: Sends operations.
        token: Identifies the worker as the holder of leases.
        clock: Source of time.
        listener: Receives the worker's events.
        stopping: Set when the worker stops.
        on_exhausted: Called with a description when functions that do not end take all threads or slots, so that the
            process should be replaced.

    Attributes:
        queues: Key names of the queues that the worker serves.
        pace: Factor by which regular work for each idle queue is rarer, so that an idle worker with any number of
            queues above `MANY_QUEUES` sends the same number of commands.
        redis_clock: Redis's time.
        outage: Logs when Redis is unavailable, and when it answers again.
        caps: Maximum numbers of concurrent tasks of queues, by the queue's name.
        running: Runs by queue and id, from their start until their settlement is confirmed.
        fleet: Reads how busy the workers of queues are.
        samples: Last stored sample of each queue that this worker leads, and the monotonic time of the sample.
        dead_letters: Handles archived tasks, by the queue's name.
        reconciling: Lock that a reconciler holds during a pass, so that only one pass runs at a time.
        pipelines: Reserved connections.
        background: Runs coroutines in the background.
        lock_s: Minimum seconds for which a starting task holds its unique lock.
    """

    def __init__(
        self,
        app: TaskQ,
        config: WorkerConfig,
        runner: AsyncRunner,
        *,
        token: str,
        clock: Clock = SYSTEM_CLOCK,
        listener: WorkerListener | None = None,
        stopping: asyncio.Event | None = None,
        on_exhausted: Callable[[str], object] = logger.error,
    ) -> None:
        self.app = app
        self.config = config
        self.runner = runner
        self.token = token
        self.clock = clock
        self.redis_clock = RedisClock(clock)
        self.outage = Outage(clock)
        self.listener = listener or WorkerListener()
        self.stopping = stopping or asyncio.Event()
        self.on_exhausted = on_exhausted
        self.keys = app.runtime.keys
        self.queues = tuple(self.keys.queue(name) for name in config.queues)
        self.pace = max(1.0, len(self.queues) / MANY_QUEUES)
        self.caps = {
            name: limit
            for name, limit in app.settings.limits.items()
            if name in config.queues and (limit.concurrency is not None or limit.worker_concurrency is not None)
        }
        self.metrics = WorkerMetrics(server=app.runtime.tracing.server)
        self.background = Background()
        self.running: dict[tuple[str, str], Run] = {}
        self.fleet = Fleet(self.keys, runner, clock)
        self.samples: dict[str, tuple[QueueSample, float]] = {}
        self.dead_letters: dict[str, DeadLetters] = {}
        self.reconciling = asyncio.Lock()
        self.pipelines: list[Pipeline] = []
        self._key_checks: dict[tuple[str, ...], dict[str, KeyCheck]] = {}
        self._callers: list[Caller] = []
        self.lease_s = int(config.span("lease"))
        self.grace_s = config.span("lease_grace")
        self.heartbeat_s = config.span("heartbeat")
        self.leader_s = config.span("leader_lease")
        self.lock_s = self.lease_s + math.ceil(self.grace_s)

    @property
    def leader_ms(self) -> int:
        """Lifetime of a leader lease in milliseconds, after which another worker takes over from a silent leader."""
        return int(self.leader_s * 1000)

    @property
    def groups(self) -> Sequence[Sequence[QueueKeys]]:
        """The queues in groups whose keys one command may name: all of them, or in a cluster one by one.

        In a cluster, one node that hangs must not delay queues on other nodes.
        """
        return [(queue,) for queue in self.queues] if self.runner.endpoint.is_cluster else [self.queues]

    async def may_have(self, queue: QueueKeys, *names: str) -> bool:
        """Return whether a queue of this worker may have one of some keys, named by attributes of `QueueKeys`.

        Queues share an answer of Redis that is at most a second old.

        Raises:
            BrokerError: Redis refused or could not be reached.
        """
        checks = self._key_checks.get(names)
        if checks is None:
            checks = self._key_checks[names] = {}
            for group in self.groups:
                checks |= dict.fromkeys([each.name for each in group], KeyCheck(self.runner, self.clock, group, names))
        return await checks[queue.name].has(queue)

    def new_pipeline(self) -> Pipeline:
        """Return a reserved connection, which the worker closes when it ends."""
        pipeline = self.runner.new_pipeline()
        self.pipelines.append(pipeline)
        return pipeline

    def new_caller(self, size: int, *, name: str, on_exhausted: Callable[[str], object] | None = None) -> Caller:
        """Return a `Caller` for user functions, which the worker closes when it ends."""
        caller = Caller(size, name=name, on_exhausted=on_exhausted)
        self._callers.append(caller)
        return caller

    def close_callers(self) -> None:
        """Let the threads of user functions end."""
        for caller in self._callers:
            caller.close()


class WorkerService(Service):
    """Base class of the background services of a worker.

    Args:
        context: The worker.
    """

    leader_keys: Sequence[str] = ()
    """Redis keys of the leader leases that the service may hold."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._app = context.app
        self._runner = context.runner
        self._clock = context.clock

    async def resign(self) -> None:
        """Give up the leader leases of this service, so that another worker can take over at once."""
        for key in self.leader_keys:
            await self._runner.run(resign(key, owner=self._context.token))
