"""Create and run the background services of a worker.

To add a service, write a subclass of `service.loop.Service` and add a line here.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from taskq_core.broker.operations.limits import declare_limits
from taskq_core.broker.operations.new_tasks import register_queue
from taskq_core.broker.operations.services import notify
from taskq_core.broker.pipelines import Pipeline
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
from taskq_core.worker.leadership import Leadership
from taskq_core.worker.limiter import Limiter
from taskq_core.worker.reconciler import Reconciler
from taskq_core.worker.recoverer import Recoverer
from taskq_core.worker.sampler import Fleet, Sampler
from taskq_core.worker.starts import Starts
from taskq_core.worker.waker import Waker, Watcher
from taskq_core.worker.warnings import WorkerWarnings

logger = logging.getLogger("taskq.worker")

S = TypeVar("S", bound=Service)


class Services:
    """The services of one worker.

    Args:
        context: The worker.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self.all: list[Service] = []
        self.pipelines: list[Pipeline] = []
        """Reserved connections. They are closed last."""
        self._feeds: list[ChangeFeed] = []
        # Queues share connections, except on a cluster, where a node that hangs must not delay queues on other nodes.
        is_cluster = context.runner.endpoint.is_cluster
        self._groups = [(queue,) for queue in context.queues] if is_cluster else [context.queues]
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, *services: Service) -> None:
        """Add services."""
        self.all += services

    def of(self, kind: type[S]) -> Iterator[S]:
        """Return the services of a class."""
        return (each for each in self.all if isinstance(each, kind))

    def new_pipeline(self) -> Pipeline:
        """Return a reserved connection."""
        pipeline = self._context.runner.new_pipeline()
        self.pipelines.append(pipeline)
        return pipeline

    def new_leaderships(self, after: Sequence[asyncio.Event]) -> dict[str, Leadership]:
        """Return a leadership for each queue, by name.

        Args:
            after: Events to wait for before the first attempt to lead.
        """
        leaderships: dict[str, Leadership] = {}
        for group in self._groups:
            feed = ChangeFeed(self._context.runner)
            self._feeds.append(feed)
            leaderships |= {queue.name: Leadership(self._context, queue, feed, after=after) for queue in group}
        return leaderships

    def add_of_queues(
        self,
        fetcher: Fetcher,
        starts: Starts,
        leaderships: Mapping[str, Leadership],
        dead_letters: Mapping[str, DeadLetters],
        gauges: WorkerGauges,
    ) -> None:
        """Add the services of each queue."""
        context = self._context
        fleet = Fleet(context)
        turn = asyncio.Lock()
        asks_ahead = _asks_ahead(context, starts)
        for group in self._groups:
            self.add(Waker(context, group, self.new_pipeline(), fetcher, leaderships, asks_ahead=asks_ahead))
        for queue in context.queues:
            leadership, dead_letter_service = leaderships[queue.name], dead_letters[queue.name]
            self.add(
                leadership,
                dead_letter_service,
                Aggregator(context, queue, leadership),
                Forwarder(context, queue, leadership),
                Reconciler(context, queue, turn),
                Recoverer(context, queue, dead_letter_service.expects),
                Janitor(context, queue, leadership),
                Sampler(context, queue, leadership, fleet, gauges.keep_sample),
                Limiter(context, queue, leadership, self.new_pipeline()),
                Watcher(context, queue, leadership, self.new_pipeline(), starts.room(queue.name)[1]),
            )
        self.add(WorkerWarnings(context, fleet), gauges)

    def add_relays(self, gauges: WorkerGauges) -> None:
        """Add a relay for each outbox of the application."""
        if self._context.app.outbox_tables:
            from taskq_core.worker.relay import Relay  # imported here because few workers have an outbox

            gauges.relays = [Relay(self._context, table) for table in self._context.app.outbox_tables]
            self.add(*gauges.relays)

    async def register_queues(self, starts: Starts) -> None:
        """Register the queues, even empty ones, and their tasks' limits for tools. Clients register queues as well."""
        context = self._context
        with contextlib.suppress(BrokerError):
            await context.runner.run(register_queue(context.keys.queues, tuple(context.config.queues)))
            if specs := starts.specs:
                for queue in context.queues:
                    await context.runner.run(declare_limits(queue, specs))

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all services."""
        for each in self.all:
            self._tasks.append(unlisted(asyncio.create_task(serve(each.name, each.work), name=f"taskq {each.name}")))

    async def stop(self) -> None:
        """Stop all services."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def return_tokens(self, timeout_s: float) -> None:
        """Put a wake token in each queue with pending tasks: this worker may have taken one while it stopped."""

        async def put(queue: QueueKeys) -> None:
            await self._context.runner.run(notify(queue))

        await self._run_each(map(put, self._context.queues), timeout_s)

    async def resign(self, timeout_s: float) -> None:
        """Give up all leases within `timeout_s`, so that other workers can take over at once."""
        await self._run_each([service.resign() for service in self.all], timeout_s)

    async def _run_each(self, requests: Iterable[Awaitable[object]], timeout_s: float) -> None:
        """Run requests of a stopping worker within `timeout_s`. An error of one does not affect the others."""

        async def limited(request: Awaitable[object]) -> None:
            try:
                async with asyncio.timeout(timeout_s):
                    await request
            except (BrokerError, TimeoutError) as error:
                logger.debug("a request of the stopping worker failed: %r", error)

        await asyncio.gather(*map(limited, requests))

    async def disconnect(self) -> None:
        """Close the reserved connections."""
        for pipeline in self.pipelines:
            await pipeline.close()
        for feed in self._feeds:
            await feed.close()


def _asks_ahead(context: WorkerContext, starts: Starts) -> bool:
    """Return whether the worker may send dequeues behind the wait for a token.

    It may not if queues have caps: the end of a task lets another one start, but puts no token. In burst mode, a
    dequeue in progress would always count as work. A cluster may redirect the wait to another node. The connections of
    an in-memory store cannot break.
    """
    endpoint = context.runner.endpoint
    return not (starts.caps or context.config.burst or endpoint.is_cluster or endpoint.is_memory)
