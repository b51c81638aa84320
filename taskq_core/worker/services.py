"""Create and run the background services of a worker.

To add a service of each queue, write a subclass of `QueueService` and add it to `OF_QUEUE`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from typing import TypeVar

from taskq_core.broker.operations.limits import declare_limits
from taskq_core.broker.operations.new_tasks import register_queue
from taskq_core.broker.operations.services import notify
from taskq_core.errors import BrokerError
from taskq_core.service.loop import Service, serve
from taskq_core.service.user_code import unlisted
from taskq_core.wire.keys import QueueKeys
from taskq_core.worker.aggregator import Aggregator
from taskq_core.worker.change_feed import ChangeFeed
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.dead_letters import DeadLetters
from taskq_core.worker.fetcher import Fetcher
from taskq_core.worker.forwarder import Forwarder
from taskq_core.worker.gauges import WorkerGauges
from taskq_core.worker.janitor import Janitor
from taskq_core.worker.leadership import Leadership, QueueService
from taskq_core.worker.limiter import Limiter
from taskq_core.worker.reconciler import Reconciler
from taskq_core.worker.recoverer import Recoverer
from taskq_core.worker.sampler import Sampler
from taskq_core.worker.starts import Starts
from taskq_core.worker.waker import Waker, Watcher
from taskq_core.worker.warnings import WorkerWarnings, warn_of_unknown_queues

logger = logging.getLogger("taskq.worker")

S = TypeVar("S", bound=Service)

OF_QUEUE: tuple[type[QueueService], ...] = (
    DeadLetters,
    Aggregator,
    Forwarder,
    Reconciler,
    Recoverer,
    Janitor,
    Sampler,
    Limiter,
    Watcher,
)
"""Classes of the services that run for each queue, in addition to its leadership."""


class Services:
    """Creates, starts and stops the background services of one worker.

    Args:
        context: The worker.
        after: Events to wait for before the first attempt to lead a queue.
    """

    def __init__(self, context: WorkerContext, after: Sequence[asyncio.Event]) -> None:
        self._context = context
        self.all: list[Service] = []
        self._feeds: list[ChangeFeed] = []
        self._groups = context.groups  # the services of the queues of a group share connections
        self.leaderships: dict[str, Leadership] = {}
        """The leadership of each queue, by name."""
        for group in self._groups:
            feed = ChangeFeed(context.runner)
            self._feeds.append(feed)
            self.leaderships |= {queue.name: Leadership(context, queue, feed, after=after) for queue in group}
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, *services: Service) -> None:
        """Add services, which `start` starts with the others."""
        self.all += services

    def of(self, kind: type[S]) -> Iterator[S]:
        """Return the services that are instances of a class."""
        return (each for each in self.all if isinstance(each, kind))

    def add_standard(self, fetcher: Fetcher, gauges: WorkerGauges) -> None:
        """Add the services of each queue, and the services that need only the context of the worker."""
        context = self._context
        for group in self._groups:
            self.add(Waker(context, group, fetcher, self.leaderships))
        for queue in context.queues:
            leadership = self.leaderships[queue.name]
            self.add(leadership, *(kind(context, queue, leadership) for kind in OF_QUEUE))
        self.add(WorkerWarnings(context), gauges)
        if context.app.outbox_tables:
            from taskq_core.worker.relay import Relay  # imported here because few workers have an outbox

            gauges.relays = [Relay(context, table) for table in context.app.outbox_tables]
            self.add(*gauges.relays)

    async def register_queues(self, starts: Starts) -> None:
        """Register the queues, even empty ones, and their tasks' limits for tools. Clients register queues as well."""
        context = self._context
        with contextlib.suppress(BrokerError):
            await warn_of_unknown_queues(context)
            await context.runner.run(register_queue(context.keys.queues, tuple(context.config.queues)))
            if specs := starts.specs:
                for queue in context.queues:
                    await context.runner.run(declare_limits(queue, specs))

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all services."""
        for each in self.all:
            work = serve(each.name, each.work, outage=self._context.outage)
            self._tasks.append(unlisted(asyncio.create_task(work, name=f"taskq {each.name}")))

    async def stop(self) -> None:
        """Stop all services."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def return_tokens(self, timeout_s: float) -> None:
        """Put a wake token in each queue with pending tasks, because this worker may have taken one while stopping."""

        async def put(queue: QueueKeys) -> None:
            await self._context.runner.run(notify(queue))

        await self._run_each(map(put, self._context.queues), timeout_s)

    async def resign(self, timeout_s: float) -> None:
        """Give up all leases within `timeout_s`, so that other workers can take over at once."""
        await self._run_each([service.resign() for service in self.all], timeout_s)

    async def _run_each(self, requests: Iterable[Awaitable[object]], timeout_s: float) -> None:
        """Run the last requests of a stopping worker within `timeout_s`.

        If a request fails, the other requests are still sent.
        """

        async def limited(request: Awaitable[object]) -> None:
            try:
                async with asyncio.timeout(timeout_s):
                    await request
            except (BrokerError, TimeoutError) as error:
                logger.debug("a request of the stopping worker failed: %r", error)

        await asyncio.gather(*map(limited, requests))

    async def disconnect(self) -> None:
        """Close the reserved connections."""
        for pipeline in self._context.pipelines:
            await pipeline.close()
        for feed in self._feeds:
            await feed.close()
