"""A running worker: its services, its states, its end.

::

    new --> active --> stopped --> closed
             stop()      drained: every run has ended and is settled, or was given back

`stop` lets running tasks finish for the grace; what still runs then is told to end and goes back to the head of its
queue without using an attempt. `abort`, or a second signal, ends the grace at once. SIGTSTP only stops fetching.
"""

import asyncio
import contextlib
import logging
import os
import socket
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from taskq_core.app import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.connection import ANSWER_TIMEOUT_S
from taskq_core.broker.operations import limits, new_tasks, views
from taskq_core.broker.operations import services as service_ops
from taskq_core.broker.sync import SyncRunner
from taskq_core.clock import SYSTEM_CLOCK, Clock
from taskq_core.errors import BrokerError, TaskQError
from taskq_core.execution.lifespan import Lifespan
from taskq_core.repair.reconcile import FindingKind
from taskq_core.service.calls import Caller
from taskq_core.service.health import HealthServer, open_health_server
from taskq_core.service.user_code import unlisted
from taskq_core.service.worker_control import WorkerAction, request_for
from taskq_core.wire import ServerInfo
from taskq_core.wire.ids import worker_token
from taskq_core.worker.aggregator import Aggregator
from taskq_core.worker.burst import Burst
from taskq_core.worker.config import WorkerConfig
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.dead_letters import DeadLetters
from taskq_core.worker.dispatcher import Dispatcher
from taskq_core.worker.executor import Executor
from taskq_core.worker.fetcher import Fetcher
from taskq_core.worker.forwarder import Forwarder
from taskq_core.worker.gauges import WorkerGauges
from taskq_core.worker.health import Health, Pulse
from taskq_core.worker.keepalive import Keepalive
from taskq_core.worker.leadership import Leadership
from taskq_core.worker.listener import WorkerListener
from taskq_core.worker.liveness import hold, place, supervisor_name
from taskq_core.worker.loop_watch import LoopWatch
from taskq_core.worker.outcome import given_back
from taskq_core.worker.process import run_as_process
from taskq_core.worker.reconciler import Reconciler
from taskq_core.worker.reporter import ErrorReporter
from taskq_core.worker.rights import check_rights
from taskq_core.worker.run import Ending, Run
from taskq_core.worker.run_counters import RunCounters
from taskq_core.worker.run_log import runs_text
from taskq_core.worker.services import Services
from taskq_core.worker.settler import Settler
from taskq_core.worker.starts import Starts
from taskq_core.worker.subscriber import PrimaryFollower, Subscriber
from taskq_core.worker.takeover import Takeover
from taskq_core.worker.waker import Waker

if TYPE_CHECKING:
    from taskq_core.scheduler import Scheduler

logger = logging.getLogger("taskq.worker")

START_PATIENCE_S = 5.0
"""Seconds a worker waits for Redis to answer when it starts."""
CONNECTIONS = 2
"""Most connections that background services share. They are opened when needed, and closed when idle."""
CLUSTER_CONNECTIONS = 16
"""The same for a cluster, where calls to a node that is away must not hold up calls to the others."""
CALLED_OFF_S = 0.5
"""Seconds for which a worker that ends waits before all else for what it has asked for to be called off."""
WAITING_LOG_S = 5.0
"""Seconds between two log lines about the tasks for which a stopping worker waits."""
RETIRE_LOOK_S = 0.05
"""Seconds between two checks for the last task of a worker that retires."""
ENDING_S = 2.0
"""Seconds that each part gets to end when the worker does."""


def _new_scheduler(app: TaskQ, clock: Clock) -> "Scheduler":
    from taskq_core.scheduler import Scheduler  # not at the top: a worker without one saves the memory

    return Scheduler(app, clock=clock)


class Worker:
    """Runs the tasks of a queue application.

    Args:
        app: The queue application.
        config: How it runs; taken from the application's settings when left out.
        listener: Told of its life.
        clock: Source of time.
        when_idle: Asked by a worker in burst mode that has nothing left to do; True if there may be work now.
    """

    def __init__(
        self,
        app: TaskQ,
        config: WorkerConfig | None = None,
        *,
        listener: WorkerListener | None = None,
        clock: Clock = SYSTEM_CLOCK,
        when_idle: "Callable[[Worker], Awaitable[bool]] | None" = None,
    ) -> None:
        self.app = app
        app.import_tasks()
        self.config = config or WorkerConfig.from_settings(app.settings)
        self.id = str(uuid.uuid4())
        self.host = socket.gethostname() or "unknown-host"
        self.status = "new"
        self._listener = listener
        self._clock = clock
        self._when_idle = when_idle
        self.token = worker_token(self.id)
        """Identifies it as the holder of leases."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._aborting = asyncio.Event()
        self._scheduler = _new_scheduler(app, clock) if self.config.with_scheduler else None
        self._health_server: HealthServer | None = None
        self._health: Health | None = None
        self.has_supervisor = False
        """Whether the parent process takes back its tasks when it dies."""
        self.is_watched = False
        """Whether a caller polls its report, so that it checks its health without an HTTP server."""
        self.on_worn_out: Callable[[], None] | None = None
        """Called when there are as many abandoned functions as slots, so that its process is replaced."""
        self.on_stop_asked: Callable[[], None] = self.stop
        """Called when an operator asks it to stop."""
        self.has_retired = False
        """Whether it stopped by itself, for its process to be replaced."""

    # --- from outside -------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until it is stopped, on an event loop of its own, with signals handled if this is the main thread.

        Returns:
            0 when it was stopped, 1 when it could not start.
        """
        return run_as_process(self)

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Stop gracefully, from any thread."""
        self.has_retired = False
        self.on_loop(self._stopping.set)

    def abort(self) -> None:
        """Stop without waiting for running tasks, from any thread."""
        self.has_retired = False
        self.on_loop(self._stopping.set)
        self.on_loop(self._aborting.set)

    def retire(self) -> None:
        """Take no new tasks, and stop once running ones have ended, from any thread.

        It does not wait for functions that still run after an interruption. They count as timed out or cancelled.
        """
        self.on_loop(lambda: self._context.background.start(self._retire()))

    async def _retire(self) -> None:
        self.pause()
        await asyncio.sleep(RETIRE_LOOK_S)  # a dequeue on its way may bring tasks
        while not self.is_stopping and any(run.is_abandoned or not run.is_stuck for run in self.runs):  # noqa: ASYNC110 - several things
            await asyncio.sleep(RETIRE_LOOK_S)
        if not self.is_stopping:
            self.has_retired = True
            self._stopping.set()
            if self.runs:
                self._aborting.set()

    def pause(self) -> None:
        """Take no new tasks from now on; running ones go on. From the event loop."""
        if self.status == "active":
            logger.info("no new tasks are taken")
            self.status = "stopped"
            self._stop_fetching()

    def resume(self) -> None:
        """Take tasks again after `pause`. From the event loop."""
        if self.status == "stopped" and not self.is_stopping:
            logger.info("taking tasks again")
            self.status = "active"
            self._fetcher.is_fetching = True
            self._fetcher.wake()

    def scale(self, concurrency: int) -> None:
        """Change the concurrency. Running tasks finish. From the event loop.

        Raises:
            ConfigurationError: The number is not usable.
        """
        self.config = replace(self.config, concurrency=concurrency)
        self._executor.resize(concurrency)
        self._fetcher.resize(concurrency)
        logger.info("concurrency is now %d", concurrency)

    def _control(self, message: str) -> None:
        """Carry out a request of an operator to this worker."""
        request = request_for(self.id, message)
        if request is None or self.status not in ("active", "stopped"):
            return
        logger.info("an operator requested: %s", request.action)
        if request.action == WorkerAction.QUIET:
            self.pause()
        elif request.action == WorkerAction.RESUME:
            self.resume()
        elif request.concurrency is not None:
            self.scale(request.concurrency)
        else:
            self.on_stop_asked()

    def _stop_fetching(self) -> None:
        self._fetcher.is_fetching = False
        self._call_off()

    def _call_off(self) -> None:
        for waker in self._services.of(Waker):
            waker.call_off()

    def on_loop(self, call: Callable[[], object]) -> None:
        """Call something on its event loop soon, from any thread; at once while it has none, never after its end."""
        if self._loop is None:
            call()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has stopped
                self._loop.call_soon_threadsafe(call)

    @property
    def runs(self) -> list[Run]:
        """What runs now, or waits for its settlement. Any thread may ask."""
        return [] if self.status in ("new", "closed") else list(self._context.running.values())

    @property
    def running_count(self) -> int:
        """Tasks that run now."""
        return 0 if self.status == "new" else len(self._context.running)

    @property
    def ended_count(self) -> int:
        """Tasks that have ended here, whatever became of them."""
        return 0 if self.status == "new" else self._settler.ended_count

    @property
    def ignored_fields(self) -> int:
        """Payload fields that no parameter took, since the start: a newer producer sends more than this code knows."""
        return self._executor.ignored_fields

    @property
    def repairs(self) -> Mapping[FindingKind, int]:
        """Damage this worker has repaired, by kind. It should stay at zero."""
        if self.status == "new":
            return {}
        return sum((each.repairs for each in self._services.of(Reconciler)), Counter[FindingKind]())

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether it is ready, and the body that says so; from any thread. True only if it `is_watched`."""
        if self._health is None:
            return False, {"status": "starting", "reason": "no task is taken yet"}
        return self._health.report()

    @property
    def health_port(self) -> int | None:
        """Port at which its health is told, None where it is not."""
        return None if self._health_server is None else self._health_server.port

    # --- life ---------------------------------------------------------------------------------------------------------

    async def arun(self) -> int:
        """Run until it is stopped, on the running event loop, without signal handlers. Returns as `run`."""
        if self._loop is not None:
            raise RuntimeError(f"a worker runs once; this one is {self.status}")
        self._loop = asyncio.get_running_loop()
        endpoint = self.app.runtime.endpoint
        runner = AsyncRunner(endpoint, max_connections=CLUSTER_CONNECTIONS if endpoint.is_cluster else CONNECTIONS)
        self._context = WorkerContext(
            self.app,
            self.config,
            runner,
            token=self.token,
            clock=self._clock,
            listener=self._listener,
            stopping=self._stopping,
        )
        scheduler = None if self._scheduler is None else self._scheduler.health
        self._health = Health(self._context.queues, self._pulse, self._clock, runner, scheduler)
        try:
            host, port = self.config.health_host, self.config.health_port
            self._health_server = await open_health_server("worker", self._health, host, port)
        except OSError:
            self.status = "closed"
            return 1
        self._socket_name = hold(self.token)
        try:
            return await self._live(runner)
        finally:
            self.status = "closed"
            await runner.aclose()
            if self._socket_name is not None:
                self._socket_name.close()
            if self._health_server is not None:
                await self._health_server.close()

    async def _live(self, runner: AsyncRunner) -> int:
        endpoint = self.app.runtime.endpoint
        try:
            await asyncio.to_thread(endpoint.open)
            await runner.run(views.ping(), patience_s=START_PATIENCE_S)
            await check_rights(runner, self._context.queues)
            if self._scheduler is not None:
                self._scheduler.open(runner)
        except TaskQError as error:
            logger.error("the worker cannot start: %s", error)
            return 1
        if self._stopping.is_set():
            return 0
        lifespan = Lifespan(self.app.lifespans)
        try:
            if not await lifespan.open(self._stopping):
                return 0
        except Exception:
            logger.exception("the worker cannot start: its lifespan failed")
            return 1
        status = 0
        try:
            await self._work(MappingProxyType(lifespan.state))
        finally:
            if self.app.lifespans:
                logger.info("stopping: closing the worker's lifespan")
            try:
                await lifespan.close(max(self.config.span("shutdown_grace"), ENDING_S), self._aborting)
            except Exception:
                logger.exception("the worker's lifespan failed")
                status = 1
            await self._close_idle()
        return status

    async def _close_idle(self) -> None:
        """Close what runs left open, such as database connections. The threads of the loop may all hang."""
        call = Caller(1, name="the bridge")
        with contextlib.suppress(TimeoutError):
            await call(self.app.bridge.close_idle, timeout_s=ENDING_S)
        call.close()

    async def _work(self, state: Mapping[str, Any]) -> None:
        self._started_ns = int(self._clock.time() * 1e9)
        self._build(state)
        self.status = "active"
        self._keepalive.start()
        self._gauges.open()
        pipelines = [unlisted(asyncio.create_task(each, name="taskq pipeline")) for each in self._fetch_pipelines()]
        self._services.start()
        try:
            await self._register_queues()
            self._context.listener.started(self)
            await self._stopping.wait()
            await self._drain()
        except asyncio.CancelledError:  # who runs this worker in a loop of its own wants it to end now
            self._aborting.set()
            await _to_the_end(self._drain())
            raise
        finally:
            self.status = "closed"
            self._gauges.close()
            self._fetcher.is_closing = True
            self._fetcher.notify()
            try:
                await _to_the_end(self._close(pipelines))
            finally:
                self._fetcher.flush_logs()
                self._keepalive.leave()  # else its thread would show for ever a worker that is gone
                logger.info("stopped: %d tasks ended here", self.ended_count)

    def _build(self, state: Mapping[str, Any]) -> None:
        context = self._context
        context.metrics.expect([queue.name for queue in context.queues], [kind.value for kind in FindingKind])
        takeovers = self._new_takeovers()
        # A takeover frees the lead of a dead worker, which would last for seconds otherwise.
        after = [each.has_looked for each in takeovers]
        services = self._services = Services(context)
        leaderships = {queue.name: Leadership(context, queue, services.feed, after=after) for queue in context.queues}
        dead_letters = {queue.name: DeadLetters(context, queue, leaderships[queue.name]) for queue in context.queues}
        dispatcher = Dispatcher(context, leaderships)
        counters = self._counters = RunCounters(context)
        self._reporter = ErrorReporter(context)
        settler = self._settler = Settler(
            context, reporter=self._reporter, counters=counters, dead_letters=dead_letters, dispatcher=dispatcher
        )
        self._executor = Executor(
            context, settler, state=state, socket_name=self._socket_name, on_worn_out=self._worn_out
        )
        self._starts = Starts(context, settler, self._executor.start)
        self._fetcher = Fetcher(context, settler, self._starts)
        timeout_s = min(ANSWER_TIMEOUT_S, context.heartbeat_s)
        self._keepalive = Keepalive(
            SyncRunner(self.app.runtime.endpoint, timeout_s=timeout_s, max_idle=1),
            context,
            describe=self.describe,
            lost=self._lost_from_thread,
            look=LoopWatch(asyncio.get_running_loop(), context).look,
        )
        self._gauges = WorkerGauges(context, self._pulse, self._scheduler)
        keys = context.keys
        services.add(Subscriber(context, {keys.cancel: self._cancel, keys.control: self._control}), *takeovers)
        services.add_of_queues(self._fetcher, self._starts, leaderships, dead_letters, self._gauges)
        services.add_relays(self._gauges)
        services.add(dispatcher, counters)
        if self._scheduler is not None:
            services.add(*self._scheduler.services())
        if self._health is not None and (self.is_watched or self._health_server is not None):
            services.add(self._health)
        if context.runner.endpoint.has_sentinels:
            services.add(PrimaryFollower(context, self._call_off))
        if self.config.burst:
            when_idle = None if self._when_idle is None else partial(self._when_idle, self)
            services.add(Burst(context, self._fetcher, is_quiet=self._has_finished, when_idle=when_idle))

    def _fetch_pipelines(self) -> list[Coroutine[Any, Any, None]]:
        # Several pipelines overlap Redis's work with Python's. With two, each side still sleeps between turns of
        # the other, and waking costs more than a batch. With few slots, smaller batches would cost more. Three
        # pipelines drained fastest at 10, 12, 20, 50 and 200 slots.
        concurrency = self.config.concurrency
        count = 1 if concurrency < 6 else 3
        share = -(-concurrency // count)
        return [self._fetcher.serve(self._services.new_pipeline(), number, share) for number in range(count)]

    def _new_takeovers(self) -> list[Takeover]:
        """Return a `Takeover` for each queue, none if this host cannot prove that a worker has ended."""
        here = place()
        if self._socket_name is None or not here or self._context.runner.endpoint.is_memory:
            return []
        supervisor = supervisor_name(os.getppid()) if self.has_supervisor else ""
        return [Takeover(self._context, queue, here, supervisor) for queue in self._context.queues]

    async def _register_queues(self) -> None:
        context = self._context
        with contextlib.suppress(BrokerError):  # clients register queues too; this only shows empty ones to tools
            await context.runner.run(new_tasks.register_queue(context.keys.queues, tuple(context.config.queues)))
            if specs := self._starts.specs:
                for queue in context.queues:
                    await context.runner.run(limits.declare_limits(queue, specs))

    def describe(self) -> ServerInfo:
        """Return the worker's presence, as tools read it."""
        return ServerInfo(
            host=self.host,
            pid=os.getpid(),
            server_id=self.id,
            concurrency=self.config.concurrency,
            queues=dict(self.config.queues),
            strict_priority=self.config.strict_priority,
            status=self.status,
            start_time_ns=self._started_ns,
            active_worker_count=self.running_count,
            processed=self._counters.processed,
            failed=self._counters.failed,
        )

    def _pulse(self) -> Pulse:
        if self.status in ("new", "closed"):
            return Pulse(self.status, 0, self.config.concurrency, None, False, False)
        fetcher, last = self._fetcher, self._fetcher.last_answer
        return Pulse(
            self.status,
            self.running_count,
            self.config.concurrency,
            None if last is None else self._clock.monotonic() - last,
            fetcher.is_failing,
            fetcher.can_take,
        )

    # --- runs ---------------------------------------------------------------------------------------------------------

    def _worn_out(self, abandoned: int) -> None:
        if self.on_worn_out is not None:
            self.on_worn_out()
        else:
            logger.error(
                "%d abandoned functions still run; any further one keeps its slot. Restart this process", abandoned
            )

    def _lost_from_thread(self, runs: list[Run]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._lost, runs)

    def _lost(self, runs: list[Run]) -> None:
        for run in runs:
            if self._context.running.get(run.key) is run:
                self._executor.end(run, Ending.LEASE_LOST)

    def _cancel(self, task_id: str) -> None:
        """Cancel the runs of a task here, in whichever of the queues."""
        for queue in self._context.queues:
            run = self._context.running.get((queue.name, task_id))
            if run is not None and not run.is_cancelling:  # a flood of messages asks Redis once
                run.is_cancelling = True
                self._context.background.start(self._cancel_run(run))

    async def _cancel_run(self, run: Run) -> None:
        """Cancel a run once it is known what becomes of its task. Without an answer, the task is archived."""
        try:
            run.wish = await self._context.runner.run(service_ops.read_cancel(run.queue, run.task_id))
        finally:
            run.is_cancelling = False
            self._executor.end(run, Ending.CANCELLED)

    # --- end ----------------------------------------------------------------------------------------------------------

    async def forward(self) -> None:
        """Move due tasks to pending now, rather than just after the next second."""
        for forwarder in self._services.of(Forwarder):
            await forwarder.move()

    async def _drain(self) -> None:
        """Wait for running tasks, then give back what still runs."""
        self.status = "stopped"
        self._stop_fetching()
        await self._fetcher.wait_until_sure(CALLED_OFF_S)
        aggregators = list(self._services.of(Aggregator))
        for aggregator in aggregators:
            aggregator.is_stopping = True
        await self._wait_for_tasks(self.config.span("shutdown_grace"))
        for run in self.runs:
            self._executor.end(run, Ending.SHUTDOWN)
        interrupt_grace_s = self.config.span("interrupt_grace")
        await asyncio.gather(*(aggregator.drain(interrupt_grace_s) for aggregator in aggregators))
        await self._wait_for_end(interrupt_grace_s)
        for run in self.runs:
            # Its thread ends with this process, which is the next thing to happen.
            if run.settlement is not None:
                continue
            if run.is_stuck and run.ending in (Ending.TIMEOUT, Ending.CANCELLED):
                self._settler.add(run)  # requeueing would only repeat the hang
                continue
            logger.warning("task %s did not end when interrupted; it is given back", run.name, extra=run.facts)
            run.settlement = given_back(run)
            self._settler.requeue(run)
        await self._wait_for_end(ENDING_S)

    async def _wait_for_tasks(self, seconds: float) -> None:
        """Wait for running tasks until the time is over or the worker aborts, and log what it waits for."""
        assert self._loop is not None
        until = self._loop.time() + seconds
        while not self._aborting.is_set() and not self._is_quiet and (left_s := until - self._loop.time()) > 0:
            if runs := self.runs:
                text = runs_text(runs, self._clock.monotonic())
                logger.info("stopping: waiting up to %.0fs for %d running tasks: %s", left_s, len(runs), text)
            await self._wait_for_end(min(left_s, WAITING_LOG_S), self._aborting)
        if runs := self.runs:
            text = runs_text(runs, self._clock.monotonic())
            logger.warning("stopping: %d tasks still run and go back to their queue: %s", len(runs), text)

    async def _wait_for_end(self, seconds: float, event: asyncio.Event | None = None) -> None:
        """Wait until nothing runs and all is settled, the time is over, or the event is set."""
        assert self._loop is not None
        until = self._loop.time() + seconds
        while (  # noqa: ASYNC110 - it waits for several things at once, and only while the worker stops
            not self._is_quiet and self._loop.time() < until and not (event is not None and event.is_set())
        ):
            await asyncio.sleep(min(0.02, max(0.0, until - self._loop.time())))

    @property
    def _is_quiet(self) -> bool:
        """True if nothing runs or waits to be settled, and no answer can bring further tasks, or none comes."""
        if self._context.running or any(aggregator.is_busy for aggregator in self._services.of(Aggregator)):
            return False
        return self._is_empty or self._fetcher.is_failing

    @property
    def _is_empty(self) -> bool:
        """True if all slots are free, and no answer can bring tasks for them."""
        return self._fetcher.free >= self.config.concurrency and not self._fetcher.doubts

    def _has_finished(self) -> bool:
        """Whether nothing is left to do, and no service may still bring tasks."""
        is_idle = all(each.is_idle for each in self._services.all)
        return is_idle and self._is_quiet and self._is_empty and not self._settler.count

    async def _close(self, pipelines: "list[asyncio.Task[None]]") -> None:
        services, context = self._services, self._context
        await asyncio.wait(pipelines, timeout=ENDING_S)
        for task in pipelines:
            task.cancel()
        await asyncio.gather(*pipelines, return_exceptions=True)
        await services.stop()
        if self._scheduler is not None:
            await self._scheduler.close()
        with contextlib.suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(ENDING_S):
                await self._counters.hand_in()
                for queue in context.queues:  # this worker may have taken a token while it stopped
                    await context.runner.run(service_ops.notify(queue))
        await services.resign(ENDING_S)
        services.close()
        await context.background.close(ENDING_S)
        self._reporter.close()
        await self._executor.close(ENDING_S)
        context.metrics.flush()
        await self._keepalive.stop()
        await services.disconnect()


async def _to_the_end(ending: Coroutine[Any, Any, None]) -> None:
    """Await what has to come to its end. A cancellation meanwhile is raised once it has."""
    task = unlisted(asyncio.create_task(ending, name="taskq ending"))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    failure = None if task.cancelled() else task.exception()
    if failure is not None:
        logger.error("a worker that was cancelled did not end as it should", exc_info=failure)
    raise cancelled
