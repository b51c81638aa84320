"""The table of a worker's background services: which there are, and what each of them needs.

To add one, write a class with the shape of `service.loop.Service`, and add a line here.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import TypeVar

from taskq_core.broker.operations.limits import declare_limits
from taskq_core.broker.operations.new_tasks import register_queue
from taskq_core.broker.pipelines import Pipeline
from taskq_core.errors import BrokerError
from taskq_core.service.loop import Service, serve
from taskq_core.service.user_code import unlisted
from taskq_core.worker.aggregator import AT_ONCE, Aggregator
from taskq_core.worker.change_feed import ChangeFeed
from taskq_core.worker.combining import Combiner
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
        """Reserved connections, which are closed last."""
        self.feed = ChangeFeed(context.runner)
        """Reports changes of keys to the services of all queues."""
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, *services: Service) -> None:
        """Add services."""
        self.all += services

    def of(self, kind: type[S]) -> Iterator[S]:
        """Yield the services of a class."""
        return (each for each in self.all if isinstance(each, kind))

    def new_pipeline(self) -> Pipeline:
        """Return a reserved connection."""
        pipeline = self._context.runner.new_pipeline()
        self.pipelines.append(pipeline)
        return pipeline

    def add_of_queues(
        self,
        fetcher: Fetcher,
        starts: Starts,
        leaderships: Mapping[str, Leadership],
        dead_letters: Mapping[str, DeadLetters],
        gauges: WorkerGauges,
    ) -> None:
        """Add the services that each queue has."""
        context = self._context
        combiner = Combiner(context.app, AT_ONCE * len(context.queues))
        fleet = Fleet(context)
        turn = asyncio.Lock()
        asks_ahead = _asks_ahead(context, starts)
        for queues in [[queue] for queue in context.queues] if context.runner.endpoint.is_cluster else [context.queues]:
            self.add(Waker(context, queues, self.new_pipeline(), fetcher, leaderships, asks_ahead=asks_ahead))
        for queue in context.queues:
            leadership, letters = leaderships[queue.name], dead_letters[queue.name]
            self.add(
                leadership,
                letters,
                Aggregator(context, queue, combiner, leadership),
                Forwarder(context, queue, leadership),
                Reconciler(context, queue, turn),
                Recoverer(context, queue, letters.expects),
                Janitor(context, queue, leadership),
                Sampler(context, queue, leadership, fleet, gauges.keep_sample),
                Limiter(context, queue, leadership, self.new_pipeline()),
                Watcher(context, queue, leadership, self.feed, self.new_pipeline(), starts.room(queue.name)[1]),
            )
        self.add(WorkerWarnings(context, fleet), gauges)

    def add_relays(self, gauges: WorkerGauges) -> None:
        """Add a relay for each outbox of the application."""
        if self._context.app.outbox_tables:
            from taskq_core.worker.relay import Relay  # not at the top: few workers have an outbox

            gauges.relays = [Relay(self._context, table) for table in self._context.app.outbox_tables]
            self.add(*gauges.relays)

    async def register_queues(self, starts: Starts) -> None:
        """Let tools see the queues, also empty ones, and the limits of their tasks. Clients register queues as well."""
        context = self._context
        with contextlib.suppress(BrokerError):
            await context.runner.run(register_queue(context.keys.queues, tuple(context.config.queues)))
            if specs := starts.specs:
                for queue in context.queues:
                    await context.runner.run(declare_limits(queue, specs))

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all of them."""
        for each in self.all:
            self._tasks.append(unlisted(asyncio.create_task(serve(each.name, each.work), name=f"taskq {each.name}")))

    async def stop(self) -> None:
        """End all loops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def resign(self, timeout_s: float) -> None:
        """Give up all leases, so that other workers take over at once; but within so many seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                for service in self.all:
                    await service.resign()
        except (BrokerError, TimeoutError) as error:
            logger.debug("leases could not be given up: %s; they end by themselves", error)

    async def disconnect(self) -> None:
        """Close the reserved connections."""
        for pipeline in self.pipelines:
            await pipeline.close()
        await self.feed.close()

    def close(self) -> None:
        """Let their threads end."""
        for service in self.all:
            service.close()


def _asks_ahead(context: WorkerContext, starts: Starts) -> bool:
    """Return whether the worker may ask for tasks behind the wait for a token.

    It may not with caps on queues: the end of a task lets in others, and nothing says so. Nor in burst mode: a request
    on its way would always count as work. Nor on a cluster, which may send the wait on to another node, or with a store
    in memory, whose connections cannot break.
    """
    endpoint = context.runner.endpoint
    return not (starts.caps or context.config.burst or endpoint.is_cluster or endpoint.is_memory)
