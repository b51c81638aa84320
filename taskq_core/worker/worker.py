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
import math
import os
import random
import socket
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from taskq_core.app import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.connection import ANSWER_TIMEOUT_S
from taskq_core.broker.operations import limits, new_tasks, views
from taskq_core.broker.operations import runs as run_ops
from taskq_core.broker.operations import services as service_ops
from taskq_core.broker.pipelines import Pipeline
from taskq_core.broker.sync import SyncRunner
from taskq_core.clock import SYSTEM_CLOCK, Clock, RedisClock
from taskq_core.errors import BrokerError, TaskQError
from taskq_core.execution.lifespan import Lifespan
from taskq_core.repair.reconcile import FindingKind
from taskq_core.service.blocking import DaemonThreads
from taskq_core.service.health import HealthServer, open_health_server
from taskq_core.service.loop import serve
from taskq_core.service.user_code import abandon, unlisted
from taskq_core.service.worker_control import WorkerAction, request_for
from taskq_core.telemetry import WorkerMetrics, gauges
from taskq_core.wire import QueueKeys, QueueOrder, ServerInfo, TaskMessage
from taskq_core.wire.ids import worker_token
from taskq_core.worker.aggregator import AT_ONCE, Aggregator
from taskq_core.worker.burst import Burst
from taskq_core.worker.claiming import Claims
from taskq_core.worker.combining import FunctionCaller
from taskq_core.worker.config import WorkerConfig
from taskq_core.worker.dead_letters import DeadLetters
from taskq_core.worker.dispatcher import Dispatcher
from taskq_core.worker.exchange_spans import ExchangeSpans
from taskq_core.worker.executor import Executor
from taskq_core.worker.fetcher import Fetcher
from taskq_core.worker.forwarder import Forwarder
from taskq_core.worker.gauges import WorkerGauges
from taskq_core.worker.health import Health, Pulse
from taskq_core.worker.janitor import Janitor
from taskq_core.worker.keepalive import Keepalive
from taskq_core.worker.leadership import Leadership
from taskq_core.worker.limiter import Limiter
from taskq_core.worker.listener import GuardedListener, WorkerListener
from taskq_core.worker.liveness import Host, hold
from taskq_core.worker.loop_watch import LoopWatch
from taskq_core.worker.outcome import given_back
from taskq_core.worker.process import run_as_process
from taskq_core.worker.processes import TaskProcesses
from taskq_core.worker.progress import ProgressWriter
from taskq_core.worker.reconciler import Reconciler
from taskq_core.worker.recoverer import Recoverer, delay_after_loss, loss_counts
from taskq_core.worker.reporter import ErrorReporter
from taskq_core.worker.rights import check_rights
from taskq_core.worker.run import Ending, Run
from taskq_core.worker.run_counters import RunCounters
from taskq_core.worker.run_log import RunLog, runs_text
from taskq_core.worker.sampler import Fleet, Sampler, Sampling
from taskq_core.worker.settler import Settler
from taskq_core.worker.starts import Starts
from taskq_core.worker.subscriber import Subscriber
from taskq_core.worker.takeover import Takeover
from taskq_core.worker.waker import Waker, Watcher
from taskq_core.worker.warnings import WorkerWarnings

if TYPE_CHECKING:
    from taskq_core.scheduler import Scheduler
    from taskq_core.worker.relay import Relay

logger = logging.getLogger("taskq.worker")

START_PATIENCE_S = 5.0
"""Seconds a worker waits for Redis to answer when it starts."""
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
        self._listener = GuardedListener(listener or WorkerListener())
        self._clock = clock
        self._when_idle = when_idle
        self._token = worker_token(self.id)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._aborting = asyncio.Event()
        self._scheduler = _new_scheduler(app, clock) if self.config.with_scheduler else None
        self._reconcilers: list[Reconciler] = []
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
        self.ended_count = 0
        """Tasks that have ended here, whatever became of them."""

    # --- from outside -------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until it is stopped, on an event loop of its own, with signals handled if this is the main thread.

        Returns:
            0 when it was stopped, 1 when it could not start.
        """
        return run_as_process(self)

    @property
    def token(self) -> str:
        """By which tasks that it holds are known as its own."""
        return self._token

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
        self.on_loop(lambda: self._background(self._retire()))

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
        for waker in self._wakers:
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
        return [] if self.status in ("new", "closed") else list(self._executor.running.values())

    @property
    def running_count(self) -> int:
        """Tasks that run now."""
        return len(self._executor.running)

    @property
    def ignored_fields(self) -> int:
        """Payload fields that no parameter took, since the start: a newer producer sends more than this code knows."""
        return self._executor.ignored_fields

    @property
    def repairs(self) -> Mapping[FindingKind, int]:
        """Damage this worker has repaired, by kind. It should stay at zero."""
        return sum((each.repairs for each in self._reconcilers), Counter[FindingKind]())

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
        runtime = self.app.runtime
        self._keys = runtime.keys
        self._runner = AsyncRunner(runtime.endpoint)
        self._pipelines: list[Pipeline] = []
        self._helpers: set[asyncio.Task[None]] = set()
        self._aggregators: list[Aggregator] = []
        self._letters: dict[str, DeadLetters] = {}
        self._cancelling: set[tuple[str, str]] = set()
        self._forwarders: list[Forwarder] = []
        self._leaderships: dict[str, Leadership] = {}
        self._relays: list[Relay] = []
        self._wakers: list[Waker] = []
        self._takeovers: dict[str, Takeover] = {}
        self._queues = [self._keys.queue(name) for name in self.config.queues]
        scheduler = None if self._scheduler is None else self._scheduler.health
        health = self._health = Health(self._queues, self._pulse, self._clock, scheduler)
        try:
            host, port = self.config.health_host, self.config.health_port
            self._health_server = await open_health_server("worker", health, host, port)
        except OSError:
            self.status = "closed"
            return 1
        self._name = hold(self._token)
        try:
            return await self._live()
        finally:
            if self._name is not None:
                self._name.close()
            if self._health_server is not None:
                await self._health_server.close()

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

    async def _live(self) -> int:
        assert self._loop is not None
        runtime = self.app.runtime
        try:
            await asyncio.to_thread(runtime.endpoint.open)
            await self._runner.run(views.ping(), patience_s=START_PATIENCE_S)
            await check_rights(self._runner, self._queues)
            if self._scheduler is not None:
                self._scheduler.open(self._runner)
        except TaskQError as error:
            logger.error("the worker cannot start: %s", error)
            self.status = "closed"
            await self._runner.aclose()
            return 1
        if self._stopping.is_set():
            self.status = "closed"
            await self._runner.aclose()
            return 0
        self._lifespan = Lifespan(self.app.lifespans)
        status, has_opened = 0, False
        try:
            has_opened = await self._lifespan.open(self._stopping)
        except Exception:
            logger.exception("the worker cannot start: its lifespan failed")
            status = 1
        if not has_opened:
            self.status = "closed"
            await self._runner.aclose()
            return status
        try:
            await self._work()
        finally:
            if self.app.lifespans:
                logger.info("stopping: closing the worker's lifespan")
            try:
                await self._lifespan.close(max(self.config.span("shutdown_grace"), ENDING_S), self._aborting)
            except Exception:
                logger.exception("the worker's lifespan failed")
                status = 1
            await self._close_idle()
        return status

    async def _close_idle(self) -> None:
        """Close what runs left open, such as database connections. The threads of the loop may all hang."""
        threads = DaemonThreads(1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDING_S):
                await asyncio.get_running_loop().run_in_executor(threads, self.app.bridge.close_idle)
        threads.shutdown(wait=False)

    async def _work(self) -> None:
        self._started_ns = int(self._clock.time() * 1e9)
        self._build()
        self.status = "active"
        self._keepalive.start()
        self._gauges.open()
        pipelines = [unlisted(asyncio.create_task(each, name="taskq pipeline")) for each in self._fetch_pipelines()]
        services = [
            unlisted(asyncio.create_task(serve(name, work), name=f"taskq {name}")) for name, work in self._services()
        ]
        try:
            await self._register_queues()
            self._listener.started(self)
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
                await _to_the_end(self._close(pipelines, services))
            finally:
                self._fetcher.flush_logs()
                self._keepalive.leave()  # else its thread would show for ever a worker that is gone
                logger.info("stopped: %d tasks ended here", self.ended_count)

    def _build(self) -> None:
        runtime, config = self.app.runtime, self.config
        self._queue_names = tuple(config.queues)
        self._redis_clock = RedisClock(self._clock)
        self.metrics = WorkerMetrics(server=runtime.tracing.server)
        self.metrics.expect(self._queue_names, [kind.value for kind in FindingKind])
        self._gauges = WorkerGauges(
            gauges,
            self._clock,
            metrics=self.metrics,
            pulse=self._pulse,
            relays=self._relays,
            scheduler=self._scheduler,
        )
        lease_s = int(config.span("lease"))
        grace_s = config.span("lease_grace")
        heartbeat_s = config.span("heartbeat")
        self._reporter = ErrorReporter(
            self.app.error_handlers,
            self._clock,
            threads=config.concurrency,
            released=lambda count: self._fetcher.release(count),
            observer=self.app.observer,
            guard=self.app.timetable.guard,
        )
        self._run_counters = RunCounters(self._runner, owner=self._token, redis_time=self._redis_clock.time)
        self._settler = Settler(
            self._token,
            self._clock,
            redis_time=self._redis_clock.time,
            lease_margin_s=grace_s,
            metrics=self.metrics,
            listener=self._listener,
            log=RunLog(runtime.redaction, self.app.settings.log.retry_level),
            released=self._released,
            archive=self.app.settings.archive,
            report=self._reporter.report,
            wants=self.app.observer.wants_ended,
            archived=self._is_told,
            settled=self._run_counters.add,
            carry=lambda queue: self._dispatcher.call(queue),
            unknown_timeout_s=config.span("unknown_task_timeout"),
        )
        self._notes = ProgressWriter(
            self._runner,
            self._clock,
            owner=self._token,
            ended=self._ended,
            is_stopping=self._stopping.is_set,
        )
        processes = None
        if config.task_processes:
            processes = TaskProcesses(
                self.app,
                worker=self._token,
                name=self._name,
                notes_of=self._notes.of,
                deadline_of=lambda run: self._executor.deadline_s(run),
                hold=lambda run: self._executor.hold(run),
                begin=lambda run: self._executor.begin(run),
            )
        self._executor = Executor(
            self.app.find_task,
            self.app.handlers,
            self.app.middleware,
            runtime.tracing,
            self._clock,
            worker=self._token,
            concurrency=config.concurrency,
            redis_time=self._redis_clock.time,
            ended=self._ended,
            notes_of=self._notes.of,
            fields_ignored=self.metrics.ignored_fields,
            trace_malformed=self.metrics.malformed_trace,
            listener=self._listener,
            stuck=self._stuck,
            state=MappingProxyType(self._lifespan.state),
            processes=processes,
        )
        self._starts = Starts(
            self._runner,
            self._clock,
            owner=self._token,
            start=self._executor.start,
            give_back=self._give_back,
            background=self._background,
            is_stopping=self._stopping.is_set,
        )
        self._claims = Claims(
            self.app,
            self._queue_names,
            self._runner,
            self._clock,
            owner=self._token,
            running=lambda: self._executor.running.keys() | self._starts.waiting,
            start=self._starts.start,
            release=lambda count: self._fetcher.release(count),
        )
        self._fetcher = Fetcher(
            self._keys,
            QueueOrder(config.queues, config.strict_priority, random.Random()),  # noqa: S311 - fairness, no secret
            self._settler,
            self._starts.start,
            self._set_aside,
            self._clock,
            self._redis_clock,
            owner=self._token,
            concurrency=config.concurrency,
            lease_s=lease_s,
            lock_s=lease_s + math.ceil(grace_s),
            room=self._claims.room if self._claims.caps else None,
            limited=self._claims.limits,
            claim=self._claim,
            spans=ExchangeSpans.wanted(runtime.tracing),
            metrics=self.metrics,
        )
        self._keepalive = Keepalive(
            SyncRunner(runtime.endpoint, timeout_s=min(ANSWER_TIMEOUT_S, heartbeat_s), max_idle=1),
            self._keys,
            self._clock,
            self._redis_clock,
            owner=self._token,
            describe=self.describe,
            running=lambda: list(self._executor.running.values()),
            lost=self._lost_from_thread,
            every_s=heartbeat_s,
            lease_s=lease_s,
            grace_s=grace_s,
            look=LoopWatch(asyncio.get_running_loop(), self._clock, self._executor.running.values).look,
        )

    def _fetch_pipelines(self) -> list[Coroutine[Any, Any, None]]:
        # Several pipelines overlap Redis's work with Python's. With two, each side still sleeps between turns of
        # the other, and waking costs more than a batch. With few slots, smaller batches would cost more. Three
        # pipelines drained fastest at 10, 12, 20, 50 and 200 slots.
        concurrency = self.config.concurrency
        count = 1 if concurrency < 6 else 3
        share = -(-concurrency // count)
        return [self._fetcher.serve(self._new_pipeline(), number, share) for number in range(count)]

    def _new_pipeline(self) -> Pipeline:
        pipeline = self._runner.new_pipeline()
        self._pipelines.append(pipeline)
        return pipeline

    def _services(self) -> list[tuple[str, Callable[[], Awaitable[float]]]]:
        config, clock, runner, token = self.config, self._clock, self._runner, self._token
        leader_s = config.span("leader_lease")
        services: list[tuple[str, Callable[[], Awaitable[float]]]] = [
            (
                "subscriber",
                Subscriber(runner, {self._keys.cancel: self._cancel, self._keys.control: self._control}).work,
            )
        ]
        if runner.endpoint.has_sentinels:
            services.append(("follower", self._follow_primary))
        self._takeovers = self._new_takeovers()
        services += [("takeover", each.work) for each in self._takeovers.values()]
        self._aggregator_calls = FunctionCaller(self.app, clock, size=AT_ONCE * len(self._queues))
        for queue in self._queues:
            leadership = Leadership(queue, runner, clock, self._redis_clock, owner=token, leader_s=leader_s)
            self._leaderships[queue.name] = leadership
            self._pipelines.append(leadership.pipeline)
            services.append(("leadership", partial(self._lead, leadership, self._takeovers.get(queue.name))))
        groups = [[queue] for queue in self._queues] if runner.endpoint.is_cluster else [self._queues]
        for group in groups:
            waker = Waker(
                group,
                self._new_pipeline(),
                self._fetcher,
                clock,
                safety_net_s=config.span("safety_net"),
                lease_s=config.span("lease"),
                asks_ahead=self._asks_ahead,
                is_led=lambda queue: self._leaderships[queue].is_led,
            )
            self._wakers.append(waker)
            services.append(("waker", waker.work))
        services.append(("run counters", self._run_counters.work))
        turn = asyncio.Lock()
        fleet = Fleet(self._keys, runner, clock)
        for queue in self._queues:
            archive = self.app.settings.archive.limits(queue.name)
            leadership = self._leaderships[queue.name]
            aggregator = Aggregator(
                queue,
                runner,
                self.app,
                self._aggregator_calls,
                clock,
                owner=token,
                every_s=config.span("aggregate_every"),
                leader_s=leader_s,
                leadership=leadership,
            )
            self._aggregators.append(aggregator)
            forwarder = Forwarder(queue, runner, clock, self._redis_clock, leadership, owner=token, leader_s=leader_s)
            self._forwarders.append(forwarder)
            reconciler = Reconciler(
                self._keys,
                queue,
                runner,
                owner=token,
                every_s=config.span("reconcile_every"),
                turn=turn,
                repaired=partial(self.metrics.repaired, queue.name),
            )
            self._reconcilers.append(reconciler)
            letters_every_s = config.span("letters_every")
            letters = DeadLetters(queue, runner, self.app, clock, every_s=letters_every_s, leadership=leadership)
            self._letters[queue.name] = letters
            services += [
                ("aggregator", aggregator.work),
                ("forwarder", forwarder.work),
                ("reconciler", reconciler.work),
                ("letters", letters.work),
                (
                    "recoverer",
                    Recoverer(
                        queue,
                        runner,
                        every_s=config.span("recover_every"),
                        grace_s=config.span("lease_grace"),
                        archive=archive,
                        counts=partial(loss_counts, self.app, queue),
                        archived=partial(self._wants_letter, letters),
                        delay=partial(delay_after_loss, self.app, queue),
                    ).work,
                ),
                (
                    "janitor",
                    Janitor(queue, runner, leadership, every_s=config.span("clean_every"), archive=archive).work,
                ),
                (
                    "sampler",
                    Sampling(
                        Sampler(queue, self._keys.queues, runner, fleet, noted=self._gauges.stood),
                        leadership,
                        clock,
                        self._redis_clock,
                        is_exported=lambda: gauges.is_active,
                    ).work,
                ),
                (
                    "limiter",
                    Limiter(
                        queue,
                        runner,
                        self._new_pipeline(),
                        clock,
                        leadership,
                        owner=token,
                        leader_s=leader_s,
                        check_every_s=config.span("reconcile_every"),
                    ).work,
                ),
                (
                    "watcher",
                    Watcher(
                        queue,
                        runner,
                        self._new_pipeline(),
                        clock,
                        leadership,
                        watch_s=2 * leader_s,
                        max_active=self._claims.room(queue.name)[1],
                    ).work,
                ),
            ]
        self._dispatcher = Dispatcher(
            self._keys,
            self._queues,
            runner,
            owner=token,
            every_s=config.span("carry_every"),
            leader_s=max(leader_s, 3 * config.span("carry_every")),
            leaderships=self._leaderships,
        )
        services.append(("dispatcher", self._dispatcher.work))
        for table in self.app.outbox_tables:
            from taskq_core.worker.relay import Relay  # not above, as the scheduler: few workers have an outbox

            relay = Relay(
                table,
                self.app.runtime.delivery,
                self._keys,
                runner,
                owner=token,
                every_s=config.span("relay_every"),
                leader_s=leader_s,
                clock=clock,
                is_watched=lambda: gauges.is_active,
            )
            self._relays.append(relay)
            services.append(("relay", relay.work))
        adviser = WorkerWarnings(self.app, config, runner, clock, self._redis_clock, fleet)
        services.append(("adviser", adviser.work))
        services.append(("gauges", self._gauges.work))
        if self._scheduler is not None:
            services += self._scheduler.services()
        if self._health is not None and (self.is_watched or self._health_server is not None):
            services.append(("health", partial(self._health.work, runner)))
        if config.burst:
            burst = Burst(
                self._queues,
                runner,
                self._redis_clock,
                self._fetcher,
                is_quiet=lambda: self._has_looked and self._is_quiet and self._is_empty and not self._settler.count,
                when_idle=None if self._when_idle is None else partial(self._when_idle, self),
                stop=self._stopping.set,
            )
            services.append(("burst", burst.work))
        return services

    def _new_takeovers(self) -> dict[str, Takeover]:
        """Return a `Takeover` by queue name, or an empty dict if this host cannot prove that a worker has ended."""
        host = Host()
        worker = host.describe(has_supervisor=self.has_supervisor)
        if worker is None or self._name is None or not host.place() or self._runner.endpoint.is_memory:
            return {}
        lease_s = self.config.span("lease") + self.config.span("lease_grace")
        return {
            queue.name: Takeover(
                self.app,
                queue,
                self._runner,
                self._clock,
                token=self._token,
                worker=worker,
                host=host,
                every_s=self.config.span("heartbeat"),
                lease_s=math.ceil(lease_s),
            )
            for queue in self._queues
        }

    async def _lead(self, leadership: Leadership, takeover: Takeover | None) -> float:
        if takeover is not None:
            await takeover.has_looked.wait()  # it takes the lead from a dead worker, which would last for seconds
        return await leadership.work()

    @property
    def _asks_ahead(self) -> bool:
        """Whether it asks for tasks behind the wait for a token, where slots that are kept for them hold up nothing.

        Where it may run only so many tasks of a queue, the end of one lets others in that nobody tells of. In burst
        mode what is on its way would always count as work. A cluster may send the wait on to another node, and a store
        in memory knows no connection to be broken.
        """
        endpoint = self._runner.endpoint
        return not (self._claims.caps or self.config.burst or endpoint.is_cluster or endpoint.is_memory)

    async def _follow_primary(self) -> float:
        takeovers = self._runner.endpoint.takeovers
        pause_s = await self._runner.follow_primary()
        if self._runner.endpoint.takeovers != takeovers:
            self._call_off()  # the one before would hand out tasks, and forget that when it becomes a replica
        return pause_s

    async def _register_queues(self) -> None:
        with contextlib.suppress(BrokerError):  # clients register queues too; this only shows empty ones to tools
            await self._runner.run(new_tasks.register_queue(self._keys.queues, self._queue_names))
            if specs := self._claims.specs:
                for queue in self._queues:
                    await self._runner.run(limits.declare_limits(queue, specs))

    def describe(self) -> ServerInfo:
        """Return what the worker is now, as tools read it."""
        return ServerInfo(
            host=self.host,
            pid=os.getpid(),
            server_id=self.id,
            concurrency=self.config.concurrency,
            queues=dict(self.config.queues),
            strict_priority=self.config.strict_priority,
            status=self.status,
            start_time_ns=self._started_ns,
            active_worker_count=len(self._executor.running),
            processed=self._run_counters.processed,
            failed=self._run_counters.failed,
        )

    # --- runs ---------------------------------------------------------------------------------------------------------

    def _ended(self, run: Run) -> None:
        if run.notes is not None and not run.is_abandoned and self._notes.of(run).hold_back():
            return
        self._settler.add(run)
        self._fetcher.notify()

    def _give_back(self, run: Run, now: float, why: str) -> None:
        self._settler.give_back(run, now, why)
        self._fetcher.notify()

    def _stuck(self, run: Run) -> None:
        self.metrics.stuck(run.queue.name, run.name)
        if not self._executor.is_worn_out:
            return
        if self.on_worn_out is not None:
            self.on_worn_out()
        else:
            logger.error(
                "%d abandoned functions still run; any further one keeps its slot. Restart this process",
                self._executor.abandoned,
            )

    def _released(self, runs: Sequence[Run]) -> None:
        running = self._executor.running
        self.ended_count += len(runs)
        held = 0
        for run in runs:
            # Ends the cycles, so that no garbage collection is needed.
            run.context = run.error = run.failure = run.coroutine = None
            if running.get(run.key) is run:  # a task that was lost may have come back and run here again
                del running[run.key]
            if run.is_reported:  # its slot is free when error handlers have been told
                run.is_over = True
                held += 1
        self._fetcher.release(len(runs) - held)
        if self._claims.frees_room(runs):
            self._fetcher.wake()

    def _lost_from_thread(self, runs: list[Run]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._lost, runs)

    def _lost(self, runs: list[Run]) -> None:
        for run in runs:
            if self._executor.running.get(run.key) is run:
                self._executor.end(run, Ending.LEASE_LOST)

    def _is_told(self, run: Run) -> bool:
        return self._wants_letter(self._letters[run.queue.name], run.message)

    def _wants_letter(self, letters: DeadLetters, message: TaskMessage) -> bool:
        """Whether it is to be told of a task that is being archived."""
        if not letters.wants(message):
            return False
        letters.expect()
        return True

    def _cancel(self, task_id: str) -> None:
        for run in self._executor.runs_of(self._queue_names, task_id):
            if run.key not in self._cancelling:  # a flood of messages asks Redis once
                self._cancelling.add(run.key)
                self._background(self._cancel_run(run))

    async def _cancel_run(self, run: Run) -> None:
        """Cancel a run once it is known what is to become of its task; without an answer it is archived."""
        try:
            run.wish = await self._runner.run(service_ops.read_cancel(run.queue, run.task_id))
        finally:
            self._cancelling.discard(run.key)
            self._executor.end(run, Ending.CANCELLED)

    def _background(self, work: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except BrokerError as error:
                logger.error("%s", error)

        task = unlisted(asyncio.create_task(guarded()))
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    def _set_aside(self, queue: QueueKeys, task_id: str, run: int) -> None:
        logger.error(
            "a task of queue %s cannot be read and is set aside",
            queue.name,
            extra={"queue": queue.name, "task_id": task_id},
        )

        async def set_aside() -> None:
            try:
                await self._runner.run(run_ops.quarantine(queue, task_id, owner=self._token, run=run))
            finally:
                self._fetcher.release(1)  # if it failed, the lease ends and the recoverer sets it aside

        self._background(set_aside())

    def _claim(self, run: Run) -> None:
        self._claims.begin(run)
        self._background(self._claims.claim(run))

    # --- end ----------------------------------------------------------------------------------------------------------

    async def forward(self) -> None:
        """Move due tasks to pending now, rather than just after the next second."""
        for forwarder in self._forwarders:
            await forwarder.move()

    @property
    def _has_looked(self) -> bool:
        """True if each service has looked once for what it would bring, and brings nothing now."""
        services: tuple[Aggregator | Relay | DeadLetters, ...] = (
            *self._aggregators,
            *self._relays,
            *self._letters.values(),
        )
        return (
            all(each.has_looked for each in services) and self._dispatcher.has_looked and not self._dispatcher.is_busy
        )

    async def _drain(self) -> None:
        """Wait for running tasks, then give back what still runs."""
        self.status = "stopped"
        self._stop_fetching()
        await self._fetcher.wait_until_sure(CALLED_OFF_S)
        for aggregator in self._aggregators:
            aggregator.is_stopping = True
        await self._wait_for_tasks(self.config.span("shutdown_grace"))
        for run in list(self._executor.running.values()):
            self._executor.end(run, Ending.SHUTDOWN)
        interrupt_grace_s = self.config.span("interrupt_grace")
        await asyncio.gather(*(aggregator.close(interrupt_grace_s) for aggregator in self._aggregators))
        await self._wait_for_end(interrupt_grace_s, None)
        stuck = [run for run in self._executor.running.values() if run.settlement is None]
        for run in stuck:
            # Its thread ends with this process, which is the next thing to happen.
            if run.is_stuck and run.ending in (Ending.TIMEOUT, Ending.CANCELLED):
                self._settler.add(run)  # what it was told to end for counts; given back, it would do the same again
                continue
            logger.warning(
                "task %s did not end when told to; it is given back",
                run.name,
                extra={"queue": run.queue.name, "task_id": run.task_id},
            )
            run.settlement = given_back(run)
            self._settler.requeue(run)
        self._fetcher.notify()
        await self._wait_for_end(ENDING_S, None)

    async def _wait_for_tasks(self, seconds: float) -> None:
        """Wait for running tasks until the time is over or the worker aborts, and log what it waits for."""
        assert self._loop is not None
        until = self._loop.time() + seconds
        while not self._aborting.is_set() and not self._is_quiet and (left_s := until - self._loop.time()) > 0:
            if runs := self.runs:
                logger.info(
                    "stopping: waiting up to %.0fs for %d running tasks: %s",
                    left_s,
                    len(runs),
                    runs_text(runs, self._clock.monotonic()),
                )
            await self._wait_for_end(min(left_s, WAITING_LOG_S), self._aborting)
        if runs := self.runs:
            logger.warning(
                "stopping: %d tasks still run and go back to their queue: %s",
                len(runs),
                runs_text(runs, self._clock.monotonic()),
            )

    async def _wait_for_end(self, seconds: float, event: asyncio.Event | None) -> None:
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
        if self._executor.running or any(aggregator.is_busy for aggregator in self._aggregators):
            return False
        return self._is_empty or self._fetcher.is_failing

    @property
    def _is_empty(self) -> bool:
        """True if all slots are free, and no answer can bring tasks for them."""
        return self._fetcher.free >= self.config.concurrency and not self._fetcher.doubts

    async def _close(self, pipelines: "list[asyncio.Task[None]]", services: "list[asyncio.Task[None]]") -> None:
        await asyncio.wait(pipelines, timeout=ENDING_S)
        for task in (*pipelines, *services):
            task.cancel()
        await asyncio.gather(*pipelines, *services, return_exceptions=True)
        if self._scheduler is not None:
            await self._scheduler.close()
        with contextlib.suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(ENDING_S):
                await self._run_counters.hand_in()
        with contextlib.suppress(BrokerError):
            for queue in self._queues:
                await self._runner.run(service_ops.notify(queue))  # this worker may have taken a token while it stopped
                for service in ("forwarder", "limiter", "carrier"):
                    await self._runner.run(service_ops.resign(queue, service, owner=self._token))
            for takeover in self._takeovers.values():
                await takeover.leave()
            for leadership in self._leaderships.values():
                await leadership.resign()
            for aggregator in self._aggregators:
                await aggregator.resign()
            for relay in self._relays:
                await relay.resign()
        self._aggregator_calls.close()
        for relay in self._relays:
            relay.close()
        for letters in self._letters.values():
            letters.close()
        await self._notes.close(ENDING_S)
        await self._reporter.close(ENDING_S)
        if self._helpers:
            await asyncio.wait(self._helpers, timeout=ENDING_S)
            for helper in self._helpers:
                abandon(helper)
        await self._executor.close()
        self.metrics.flush()
        await self._keepalive.stop()
        for pipeline in self._pipelines:
            await pipeline.close()
        await self._runner.aclose()


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
