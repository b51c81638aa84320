"""The worker: it starts the services and the fetcher, reacts to signals and operators, and ends gracefully.

::

    new --> active --> stopped --> closed
             stop()      drained: every run is settled, or its task was returned to its queue

`stop` lets running tasks finish within the grace period. After that, they are interrupted and go back to the head of
their queue without using an attempt. `abort`, or a second signal, ends the grace period at once. SIGTSTP only stops
fetching.
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
from taskq_core.broker.sync import SyncRunner
from taskq_core.broker.waiting import RedisWait
from taskq_core.clock import SYSTEM_CLOCK, Clock
from taskq_core.codec.worker_requests import WorkerAction, request_for
from taskq_core.errors import BrokerError, TaskQError
from taskq_core.execution.lifespan import Lifespan
from taskq_core.execution.logs import complete_exported_logs
from taskq_core.repair.reconcile import FindingKind
from taskq_core.service.health import open_health_server
from taskq_core.service.outage import start_problem
from taskq_core.service.user_code import unlisted
from taskq_core.wire import ServerInfo
from taskq_core.wire.tokens import worker_token
from taskq_core.worker.burst import Burst
from taskq_core.worker.config import WorkerConfig
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.dispatcher import Dispatcher
from taskq_core.worker.draining import ENDING_S, Drain, close_idle, to_the_end
from taskq_core.worker.executor import Executor
from taskq_core.worker.fetcher import Fetcher
from taskq_core.worker.forwarder import Forwarder
from taskq_core.worker.gauges import WorkerGauges
from taskq_core.worker.health import Health, Pulse
from taskq_core.worker.keepalive import Keepalive
from taskq_core.worker.listener import WorkerListener, call_guarded
from taskq_core.worker.liveness import hold
from taskq_core.worker.loop_watch import LoopWatch
from taskq_core.worker.process import run_as_process
from taskq_core.worker.reconciler import Reconciler
from taskq_core.worker.rights import check_rights
from taskq_core.worker.run import Run
from taskq_core.worker.run_counters import RunCounters
from taskq_core.worker.services import Services
from taskq_core.worker.settler import Settler
from taskq_core.worker.starts import Starts
from taskq_core.worker.subscriber import PrimaryFollower, Subscriber
from taskq_core.worker.takeover import new_takeovers
from taskq_core.worker.waker import Waker

if TYPE_CHECKING:
    from taskq_core.scheduler import Scheduler
    from taskq_core.service.health_server import HealthServer

logger = logging.getLogger("taskq.worker")

CONNECTIONS, PREFERRED_CONNECTIONS = 16, 2
"""Maximum number of connections that services and tasks share, and the usual number while Redis answers fast."""
RETIRE_LOOK_S = 0.05
"""Seconds between two checks whether a retiring worker has ended its last task."""


class Worker:
    """Fetches and runs the tasks of a queue application.

    Args:
        app: The queue application.
        config: Configuration of the worker. By default, the configuration in the application's settings.
        listener: Receives its events.
        clock: Source of time.
        when_idle: Called by a worker in burst mode that has no work left. Returns whether there may be work again.
    """

    _scheduler: "Scheduler | None" = None

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
        self._clock, self._when_idle = clock, when_idle
        self.token = worker_token(self.id)
        """Identifies this worker as the holder of leases."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping, self._aborting = asyncio.Event(), asyncio.Event()
        self.is_retiring = False
        self._is_built = False
        if self.config.with_scheduler:
            from taskq_core.scheduler import Scheduler  # imported late to save memory in workers without a scheduler

            self._scheduler = Scheduler(app, clock=clock)
        self._health_server: HealthServer | None = None
        self._health: Health | None = None
        self.supervisor = ""
        """Socket name of the parent process if it takes back the tasks of this worker after its death, else ""."""
        self.is_watched = False
        """Whether a caller polls `report`. If so, the worker checks its health even without an HTTP server."""
        self.on_exhausted: Callable[[str], object] = partial(logger.error, "%s. Restart this process")
        """Called with a description when functions that do not end take all slots or threads. By default, log it."""
        self.on_stop_requested: Callable[[], None] = self.stop
        """Called when an operator requests that the worker stops."""
        self.has_retired = False
        """Whether `retire` has stopped the worker, so that its process can be replaced."""

    # --- control ------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until stopped, on a new event loop. Handle signals if this is the main thread.

        Returns:
            0 when it was stopped, 1 when it could not start.
        """
        return run_as_process(self)

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Stop gracefully. Callable from any thread."""
        self.has_retired = False
        self.on_loop(self._stopping.set)

    def abort(self) -> None:
        """Stop without waiting for running tasks. Callable from any thread."""
        self.has_retired = False
        self.on_loop(self._stopping.set)
        self.on_loop(self._aborting.set)

    def retire(self) -> None:
        """Take no new tasks, and stop once running tasks have ended. Callable from any thread.

        Do not wait for functions that ignore an interruption. Their runs count as timed out or cancelled.
        """
        self.on_loop(self._start_retiring)

    def _start_retiring(self) -> None:
        if self._loop is None:  # the worker was not started, so no task runs
            self.has_retired = True
            self._stopping.set()
        elif not self.is_retiring:
            self.is_retiring = True
            self._context.background.start(self._retire())

    async def _retire(self) -> None:
        self.pause()
        await asyncio.sleep(RETIRE_LOOK_S)  # a dequeue in progress may still return tasks
        while not self.is_stopping and any(run.is_abandoned or not run.is_stuck for run in self.runs):  # noqa: ASYNC110 - several things
            await asyncio.sleep(RETIRE_LOOK_S)
        if not self.is_stopping:
            self.has_retired = True
            self._stopping.set()
            if self.runs:
                self._aborting.set()

    def pause(self) -> None:
        """Take no new tasks. Running tasks go on. Call this on the event loop."""
        if self.status == "active":
            logger.info("paused: no new tasks are taken")
            self.status = "stopped"
            self._stop_fetching()

    def resume(self) -> None:
        """Take tasks again after `pause`. Call this on the event loop."""
        if self.status == "stopped" and not self.is_stopping:
            logger.info("resumed: tasks are taken again")
            self.status = "active"
            self._fetcher.is_fetching = True
            self._fetcher.wake()

    def scale(self, concurrency: int) -> None:
        """Change the concurrency. Running tasks finish. Call this on the event loop.

        Raises:
            ConfigurationError: The number is not usable.
        """
        self.config = replace(self.config, concurrency=concurrency)
        self._executor.resize(concurrency)
        self._fetcher.resize(concurrency)
        logger.info("concurrency is now %d", concurrency)

    def _control(self, message: str) -> None:
        """Execute an operator's request to this worker."""
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
            self.on_stop_requested()

    def _stop_fetching(self) -> None:
        self._fetcher.is_fetching = False
        self._call_off()

    def _call_off(self) -> None:
        for waker in self._services.of(Waker):
            waker.call_off()

    def on_loop(self, call: Callable[[], object]) -> None:
        """Call a function on the event loop soon, from any thread. Before the start, call it at once."""
        if self._loop is None:
            call()
        else:
            with contextlib.suppress(RuntimeError):  # the event loop is closed, because the worker has stopped
                self._loop.call_soon_threadsafe(call)

    @property
    def runs(self) -> list[Run]:
        """Runs that have not ended, or whose settlement was not confirmed yet. Callable from any thread."""
        return [] if self.status in ("new", "closed") else list(self._context.running.values())

    @property
    def running_count(self) -> int:
        """Number of tasks that run or wait for their settlement."""
        return 0 if self.status == "new" else len(self._context.running)

    @property
    def ended_count(self) -> int:
        """Number of tasks that have ended on this worker, with any outcome."""
        return self._settler.ended_count if self._is_built else 0

    @property
    def ignored_fields(self) -> int:
        """Number of payload fields without a parameter since the start. A newer producer may send such fields."""
        return self._executor.ignored_fields if self._is_built else 0

    @property
    def repairs(self) -> Mapping[FindingKind, int]:
        """Number of repairs of damaged data by this worker, by kind. All numbers should stay at zero."""
        if not self._is_built:
            return {}
        return sum((each.repairs for each in self._services.of(Reconciler)), Counter[FindingKind]())

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the worker is ready, and the body of the health response. Thread-safe.

        Set `is_watched` first.
        """
        if self._health is None:
            return False, {"status": "starting", "reason": "no task is taken yet"}
        return self._health.report()

    @property
    def health_port(self) -> int | None:
        """Port of the health endpoints, None if there are no health endpoints."""
        return None if self._health_server is None else self._health_server.port

    # --- life ---------------------------------------------------------------------------------------------------------

    async def arun(self) -> int:
        """Run until stopped, on the current event loop, without signal handlers. Return the same codes as `run`."""
        if self._loop is not None:
            raise RuntimeError(f"a worker can run only once, and this worker is already {self.status}")
        self._loop = asyncio.get_running_loop()
        complete_exported_logs()
        endpoint = self.app.runtime.endpoint
        # In a cluster, prefer no connections: requests to a dead node would occupy the few preferred connections.
        preferred = None if endpoint.is_cluster else PREFERRED_CONNECTIONS
        runner = AsyncRunner(endpoint, max_connections=CONNECTIONS, preferred=preferred)
        self._context = WorkerContext(
            self.app,
            self.config,
            runner,
            token=self.token,
            clock=self._clock,
            listener=self._listener,
            stopping=self._stopping,
            on_exhausted=lambda problem: self.on_exhausted(problem),
        )
        wait = RedisWait(runner, "worker", self._stopping, is_enabled=self.config.wait_for_redis)
        self._health = Health(self._context.queues, self._pulse, self._clock, runner, self._scheduler, wait)
        try:
            host, port = self.config.health_host, self.config.health_port
            self._health_server = await open_health_server("worker", self._health, host, port)
        except OSError:
            self.status = "closed"
            return 1
        self._socket_name = hold(self.token)
        try:
            return await self._live(runner, wait)
        finally:
            self.status = "closed"
            await runner.aclose()
            if self._socket_name is not None:
                self._socket_name.close()
            if self._health_server is not None:
                await self._health_server.close()

    async def _live(self, runner: AsyncRunner, wait: RedisWait) -> int:
        try:
            if not await wait.run():
                return 0
            await check_rights(runner, self._context.queues)
            if self._scheduler is not None:
                self._scheduler.open(runner, self._context.outage)
        except TaskQError as error:
            logger.error("the worker cannot start: %s", start_problem(error))
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
            await close_idle(self.app)
        return status

    async def _work(self, state: Mapping[str, Any]) -> None:
        self._started_ns = int(self._clock.time() * 1e9)
        self._build(state)
        self.status = "active"
        self._keepalive.start()
        self._gauges.open()
        pipelines = [unlisted(asyncio.create_task(each, name="taskq pipeline")) for each in self._fetch_pipelines()]
        self._services.start()
        try:
            await self._services.register_queues(self._starts)
            call_guarded(self._context.listener.started, self)
            await self._stopping.wait()
            await self._end_runs()
        except asyncio.CancelledError:  # the caller has cancelled this coroutine, so do not wait for tasks
            self._aborting.set()
            await to_the_end(self._end_runs())
            raise
        finally:
            self.status = "closed"
            self._gauges.close()
            self._fetcher.is_closing = True
            self._fetcher.notify()
            try:
                await to_the_end(self._close(pipelines))
            finally:
                self._starts.flush_logs()
                self._settler.flush_log()
                self._keepalive.request_stop()
                logger.info("stopped: %d tasks have ended on this worker", self.ended_count)

    def _build(self, state: Mapping[str, Any]) -> None:
        context = self._context
        context.metrics.expect(list(context.config.queues), [kind.value for kind in FindingKind])
        takeovers = new_takeovers(context, self._socket_name, supervisor=self.supervisor)
        # Lead queues only after the takeovers, which release the leases of a dead worker. Otherwise, these leases would
        # last for seconds.
        services = self._services = Services(context, after=[each.has_checked for each in takeovers])
        dispatcher = Dispatcher(context, services.leaderships)
        counters = self._counters = RunCounters(context)
        settler = self._settler = Settler(context, counters=counters, dispatcher=dispatcher)
        self._executor = Executor(context, settler, state=state, socket_name=self._socket_name)
        self._starts = Starts(context, settler, self._executor.start)
        self._fetcher = Fetcher(context, settler, self._starts)
        timeout_s = min(ANSWER_TIMEOUT_S, context.heartbeat_s)
        self._keepalive = Keepalive(
            SyncRunner(self.app.runtime.endpoint, timeout_s=timeout_s, max_idle=1),
            context,
            describe=self.describe,
            lost=self._executor.lose,
            check_loop=LoopWatch(asyncio.get_running_loop(), context).check,
        )
        self._gauges = WorkerGauges(context, self._pulse, self._scheduler)
        keys = context.keys
        services.add(
            Subscriber(context, {keys.cancel: self._executor.cancel, keys.control: self._control}),
            *takeovers,
            dispatcher,
            counters,
        )
        services.add_standard(self._fetcher, self._gauges)
        if self._scheduler is not None:
            services.add(*self._scheduler.services())
        if self._health is not None and (self.is_watched or self._health_server is not None):
            services.add(self._health)
        if context.runner.endpoint.has_sentinels:
            services.add(PrimaryFollower(context, self._call_off))
        self._drain = Drain(context, self._fetcher, self._executor, settler, services, self._aborting)
        if self.config.burst:
            when_idle = None if self._when_idle is None else partial(self._when_idle, self)
            services.add(Burst(context, self._fetcher, is_quiet=self._drain.has_finished, when_idle=when_idle))
        self._is_built = True

    def _fetch_pipelines(self) -> list[Coroutine[Any, Any, None]]:
        # Several pipelines let Redis and Python work at the same time. With two pipelines, each side still sleeps while
        # it waits for the other, and waking up takes longer than a batch. With few slots, more pipelines would make
        # batches too small. Three pipelines drained queues fastest at 10, 12, 20, 50 and 200 slots.
        concurrency = self.config.concurrency
        count = 1 if concurrency < 6 else 3
        serve, share = self._fetcher.serve, -(-concurrency // count)
        return [serve(self._context.new_pipeline(), number, share) for number in range(count)]

    def describe(self) -> ServerInfo:
        """Return the description of this worker that tools read from Redis (its presence)."""
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

    # --- end ----------------------------------------------------------------------------------------------------------

    async def forward(self) -> None:
        """Move due tasks of all queues to pending now, instead of just after the next second of Redis's clock."""
        for forwarder in self._services.of(Forwarder):
            await forwarder.move()

    async def _end_runs(self) -> None:
        self.status = "stopped"
        self._stop_fetching()
        await self._drain.run()

    async def _close(self, pipelines: "list[asyncio.Task[None]]") -> None:
        services, context = self._services, self._context
        await asyncio.wait(pipelines, timeout=ENDING_S)
        for task in pipelines:
            task.cancel()
        await asyncio.gather(*pipelines, return_exceptions=True)
        await services.stop()
        if self._scheduler is not None:
            await self._scheduler.close()
        await services.return_tokens(ENDING_S)
        with contextlib.suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(ENDING_S):
                await self._counters.hand_in()
        await services.resign(ENDING_S)
        await context.background.close(ENDING_S)
        context.close_callers()
        await self._executor.close()
        context.metrics.flush()
        await self._keepalive.stop()
        await services.disconnect()
