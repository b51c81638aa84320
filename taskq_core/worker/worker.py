"""A running worker: its services, its states, its end.

::

    new --> active --> stopped --> closed
             stop()      drained: every run has ended and is settled, or was given back

`stop` lets running tasks finish for the grace; what still runs then is told to end and goes back to the head of its
queue without using an attempt. `abort`, or a second signal, ends the grace at once. SIGTSTP only stops fetching.
"""

import asyncio
import contextlib
import gc
import logging
import math
import os
import random
import signal
import socket
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from taskq_core.app import TaskQ
from taskq_core.broker import operations
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.connection import ANSWER_TIMEOUT_S
from taskq_core.broker.lanes import Lane
from taskq_core.broker.operations import ClaimCode
from taskq_core.broker.sync import SyncRunner
from taskq_core.clock import SYSTEM_CLOCK, Clock, RedisClock
from taskq_core.errors import BrokerError, LeaseLostError, PayloadError, TaskArgumentsError, TaskQError
from taskq_core.health import HealthServer, open_health_server
from taskq_core.lifespan import Lifespan
from taskq_core.reconcile import FindingKind
from taskq_core.scheduler import Scheduler
from taskq_core.service import serve
from taskq_core.telemetry import WorkerMetrics, gauges, unwrap
from taskq_core.wire import QueueKeys, QueueOrder, ServerInfo, TaskMessage, TaskState
from taskq_core.worker.aggregator import AT_ONCE, Aggregator, FunctionCaller
from taskq_core.worker.carrier import Carrier
from taskq_core.worker.config import WorkerConfig
from taskq_core.worker.exchange_spans import ExchangeSpans
from taskq_core.worker.executor import Executor
from taskq_core.worker.fetcher import Fetcher
from taskq_core.worker.forwarder import Forwarder
from taskq_core.worker.gauges import WorkerGauges
from taskq_core.worker.health import Health, Pulse
from taskq_core.worker.janitor import Janitor
from taskq_core.worker.keepalive import Keepalive
from taskq_core.worker.letters import DeadLetters
from taskq_core.worker.limiter import Limiter
from taskq_core.worker.listener import GuardedListener, WorkerListener
from taskq_core.worker.notes import NoteWriter
from taskq_core.worker.outcome import counts_as_failure, given_back
from taskq_core.worker.reconciler import Reconciler
from taskq_core.worker.recoverer import Recoverer
from taskq_core.worker.relay import Relay
from taskq_core.worker.reporter import ErrorReporter
from taskq_core.worker.rights import check_rights
from taskq_core.worker.run import Ending, Run
from taskq_core.worker.sampler import Fleet, Sampler
from taskq_core.worker.settler import Settler
from taskq_core.worker.subscriber import Subscriber
from taskq_core.worker.tally import Tally
from taskq_core.worker.waker import Waker, Watcher

logger = logging.getLogger("taskq.worker")

START_PATIENCE_S = 5.0
"""Seconds a worker waits for Redis to answer when it starts."""
ENDING_S = 2.0
"""Seconds that each part gets to end when the worker does."""


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
        self.config = config or WorkerConfig.from_settings(app.settings)
        self.id = str(uuid.uuid4())
        self.host = socket.gethostname() or "unknown-host"
        self.status = "new"
        self._listener = GuardedListener(listener or WorkerListener())
        self._clock = clock
        self._when_idle = when_idle
        self._token = self.id.replace("-", "")[:16]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._aborting = asyncio.Event()
        self._scheduler = Scheduler(app, clock=clock) if self.config.with_scheduler else None
        self._reconcilers: list[Reconciler] = []
        self._health_server: HealthServer | None = None
        self._health: Health | None = None
        self.is_watched = False
        """Whether somebody asks for its report, so that it looks after its health without telling it over HTTP."""

    # --- from outside -------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until it is stopped, on an event loop of its own, with signals handled if this is the main thread.

        Returns:
            0 when it was stopped, 1 when it could not start.
        """
        loop = (_loop_factory() or asyncio.new_event_loop)()
        try:
            with _rarer_garbage_collection():
                return loop.run_until_complete(self._run_with_signals())
        finally:
            _close(loop)

    async def _run_with_signals(self) -> int:
        if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
            return await self.arun()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(signal.SIGTSTP, self.pause)
        try:
            return await self.arun()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTSTP):
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._aborting.set()
        self._stopping.set()

    def stop(self) -> None:
        """Stop gracefully, from any thread."""
        self._from_any_thread(self._stopping.set)

    def abort(self) -> None:
        """Stop without waiting for running tasks, from any thread."""
        self._from_any_thread(self._stopping.set)
        self._from_any_thread(self._aborting.set)

    def pause(self) -> None:
        """Take no new tasks from now on; running ones go on. From the event loop."""
        if self.status == "active":
            logger.info("no new tasks are taken")
            self.status = "stopped"
            self._fetcher.is_fetching = False

    def _from_any_thread(self, call: Callable[[], object]) -> None:
        if self._loop is None:
            call()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has stopped
                self._loop.call_soon_threadsafe(call)

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
        self._lanes: list[Lane] = []
        self._helpers: set[asyncio.Task[None]] = set()
        self._aggregators: list[Aggregator] = []
        self._letters: dict[str, DeadLetters] = {}
        self._cancelling: set[tuple[str, str]] = set()
        self._forwarders: list[Forwarder] = []
        self._relays: list[Relay] = []
        self._queues = [self._keys.queue(name) for name in self.config.queues]
        scheduler = None if self._scheduler is None else self._scheduler.health
        health = self._health = Health(self._queues, self._pulse, self._clock, scheduler)
        try:
            host, port = self.config.health_host, self.config.health_port
            self._health_server = await open_health_server("worker", health, host, port)
        except OSError:
            self.status = "closed"
            return 1
        try:
            return await self._live()
        finally:
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
            await self._runner.run(operations.ping(), patience_s=START_PATIENCE_S)
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
            try:
                await self._lifespan.close(max(self.config.span("shutdown_grace"), ENDING_S), self._aborting)
            except Exception:
                logger.exception("the worker's lifespan failed")
                status = 1
        return status

    async def _work(self) -> None:
        self._started_ns = int(self._clock.time() * 1e9)
        self._build()
        self.status = "active"
        self._keepalive.start()
        self._gauges.open()
        lanes = [asyncio.create_task(each, name="taskq lane") for each in self._fetch_lanes()]
        services = [asyncio.create_task(serve(name, work), name=f"taskq {name}") for name, work in self._services()]
        try:
            await self._register_queues()
            self._listener.started(self)
            await self._stopping.wait()
            logger.info("stopping; %d tasks run", self.running_count)
            await self._drain()
        except asyncio.CancelledError:  # who runs this worker in a loop of its own wants it to end now
            self._aborting.set()
            await self._drain()
            raise
        finally:
            self.status = "closed"
            self._gauges.close()
            self._fetcher.is_closing = True
            self._fetcher.notify()
            await self._close(lanes, services)

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
        self._tally = Tally(self._runner, owner=self._token, redis_time=self._redis_clock.time)
        self._settler = Settler(
            self._token,
            self._clock,
            redis_time=self._redis_clock.time,
            lease_margin_s=grace_s,
            metrics=self.metrics,
            listener=self._listener,
            released=self._released,
            archive=self.app.settings.archive,
            report=self._reporter.report,
            wants=self.app.observer.wants_ended,
            archived=self._is_told,
            settled=self._tally.add,
            carry=lambda queue: self._carrier.call(queue),
        )
        self._notes = NoteWriter(
            self._runner,
            self._clock,
            owner=self._token,
            ended=self._ended,
            is_stopping=self._stopping.is_set,
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
            stuck=lambda run: self.metrics.stuck(run.queue.name, run.name),
            state=MappingProxyType(self._lifespan.state),
        )
        self._caps = {
            name: limit
            for name, limit in self.app.settings.limits.items()
            if name in config.queues and (limit.concurrency is not None or limit.worker_concurrency is not None)
        }
        self._claiming: Counter[str] = Counter()
        self._limits = {name: task.limits for name, task in self.app.tasks.items() if task.limits is not None}
        self._fetcher = Fetcher(
            self._keys,
            QueueOrder(config.queues, config.strict_priority, random.Random()),  # noqa: S311 - fairness, no secret
            self._settler,
            self._executor.start,
            self._set_aside,
            self._clock,
            self._redis_clock,
            owner=self._token,
            concurrency=config.concurrency,
            lease_s=lease_s,
            lock_s=lease_s + math.ceil(grace_s),
            room=self._room if self._caps else None,
            limited=self._limits,
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
        )

    def _fetch_lanes(self) -> list[Coroutine[Any, Any, None]]:
        # Lanes overlap Redis's work with Python's. With two of them each side still sleeps between the turns of the
        # other, and waking costs more than a batch; with few slots the smaller batches would cost more than that.
        concurrency = self.config.concurrency
        count = 1 if concurrency < 20 else 4
        share = -(-concurrency // count)
        return [self._fetcher.serve(self._new_lane(), number, share) for number in range(count)]

    def _new_lane(self) -> Lane:
        lane = self._runner.new_lane()
        self._lanes.append(lane)
        return lane

    def _services(self) -> list[tuple[str, Callable[[], Awaitable[float]]]]:
        config, clock, runner, token = self.config, self._clock, self._runner, self._token
        leader_s = config.span("leader_lease")
        services: list[tuple[str, Callable[[], Awaitable[float]]]] = [
            ("subscriber", Subscriber(runner, self._keys.cancel, self._cancel).work)
        ]
        if runner.endpoint.has_sentinels:
            services.append(("follower", runner.follow_primary))
        self._aggregator_calls = FunctionCaller(self.app, clock, size=AT_ONCE * len(self._queues))
        groups = [[queue] for queue in self._queues] if runner.endpoint.is_cluster else [self._queues]
        for group in groups:
            safety_net_s = config.span("safety_net")
            services.append(("waker", Waker(group, self._new_lane(), self._fetcher, safety_net_s=safety_net_s).work))
        services.append(("tally", self._tally.work))
        turn = asyncio.Lock()
        fleet = Fleet(self._keys, runner, clock)
        for queue in self._queues:
            archive = self.app.settings.archive.limits(queue.name)
            aggregator = Aggregator(
                queue,
                runner,
                self.app,
                self._aggregator_calls,
                clock,
                owner=token,
                every_s=config.span("aggregate_every"),
                leader_s=leader_s,
            )
            self._aggregators.append(aggregator)
            forwarder = Forwarder(queue, runner, clock, self._redis_clock, owner=token, leader_s=leader_s)
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
            letters = DeadLetters(queue, runner, self.app, clock, every_s=config.span("letters_every"))
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
                        counts=partial(self._counts_when_lost, queue),
                        archived=partial(self._wants_letter, letters),
                    ).work,
                ),
                (
                    "janitor",
                    Janitor(
                        queue,
                        runner,
                        owner=token,
                        every_s=config.span("clean_every"),
                        archive=archive,
                        sampler=Sampler(queue, self._keys.queues, runner, fleet, noted=self._gauges.stood),
                    ).work,
                ),
                (
                    "limiter",
                    Limiter(
                        queue,
                        runner,
                        self._new_lane(),
                        clock,
                        owner=token,
                        leader_s=leader_s,
                        check_every_s=config.span("reconcile_every"),
                    ).work,
                ),
                (
                    "watcher",
                    Watcher(queue, runner, self._new_lane(), clock, owner=token, leader_s=2 * leader_s).work,
                ),
            ]
        self._carrier = Carrier(
            self._keys,
            self._queues,
            runner,
            owner=token,
            every_s=config.span("carry_every"),
            leader_s=max(leader_s, 3 * config.span("carry_every")),
        )
        services.append(("carrier", self._carrier.work))
        for table in self.app.outbox_tables:
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
        services.append(("gauges", self._gauges.work))
        if self._scheduler is not None:
            services += self._scheduler.services()
        if self._health is not None and (self.is_watched or self._health_server is not None):
            services.append(("health", partial(self._health.work, runner)))
        if config.burst:
            services.append(("burst", self._end_burst))
        return services

    async def _register_queues(self) -> None:
        with contextlib.suppress(BrokerError):  # clients register queues too; this only shows empty ones to tools
            await self._runner.run(operations.register_queue(self._keys.queues, self._queue_names))
            specs = {name: spec for limits in self._limits.values() for name, spec in limits.specs.items()}
            if specs:
                for queue in self._queues:
                    await self._runner.run(operations.declare_limits(queue, specs))

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
        )

    # --- runs ---------------------------------------------------------------------------------------------------------

    def _ended(self, run: Run) -> None:
        if run.notes is not None and self._notes.of(run).hold_back():
            return
        self._settler.add(run)
        self._fetcher.notify()

    def _released(self, runs: Sequence[Run]) -> None:
        running = self._executor.running
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
        if self._caps and any(run.queue.name in self._caps for run in runs):
            self._fetcher.wake()  # there is room for others of that queue

    def _room(self, queue: str) -> tuple[int | None, int | None]:
        """Return how many more tasks of a queue this worker may run, and how many may be active in all."""
        cap = self._caps.get(queue)
        if cap is None:
            return None, None
        left = None
        if cap.worker_concurrency is not None:
            running = sum(name == queue for name, _ in self._executor.running)
            left = cap.worker_concurrency - running - self._claiming[queue]
        return left, cap.concurrency

    def _lost_from_thread(self, runs: list[Run]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._lost, runs)

    def _lost(self, runs: list[Run]) -> None:
        for run in runs:
            if self._executor.running.get(run.key) is run:
                self._executor.end(run, Ending.LEASE_LOST)

    def _counts_when_lost(self, queue: QueueKeys, message: TaskMessage) -> bool:
        """Whether it is a failure that the worker of a task went silent."""
        is_failure = self.app.find_handler(message.type).options.is_failure
        error = LeaseLostError(queue.name, message.id)
        return counts_as_failure(is_failure, error, name=message.type, queue=queue.name, task_id=message.id)

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
            run.wish = await self._runner.run(operations.read_cancel(run.queue, run.task_id))
        finally:
            self._cancelling.discard(run.key)
            self._executor.end(run, Ending.CANCELLED)

    def _background(self, work: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except BrokerError as error:
                logger.error("%s", error)

        task = asyncio.ensure_future(guarded())
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    def _set_aside(self, queue: QueueKeys, task_id: str) -> None:
        logger.error(
            "a task of queue %s cannot be read and is set aside",
            queue.name,
            extra={"queue": queue.name, "task_id": task_id},
        )

        async def set_aside() -> None:
            try:
                await self._runner.run(operations.quarantine(queue, task_id, owner=self._token))
            finally:
                self._fetcher.release(1)  # if it failed, the lease ends and the recoverer sets it aside

        self._background(set_aside())

    def _claim(self, run: Run) -> None:
        """Start a run whose producer knew nothing of its limits, once they allow it."""
        queue = run.queue.name
        self._claiming[queue] += 1

        async def claim() -> None:
            code = ClaimCode.NOT_OWNED
            try:
                limit = self._limit_of(run)
                if limit is None:
                    code = ClaimCode.RUN
                else:
                    step = operations.claim(run.queue, run.task_id, limit, owner=self._token)
                    code = await self._runner.run(step, patience_s=max(0.0, run.lease_until - self._clock.monotonic()))
            finally:
                self._claiming[queue] -= 1
                if code == ClaimCode.RUN:
                    self._executor.start(run, self._clock.monotonic())
                else:
                    self._fetcher.release(1)  # of one that is not known to wait, the lease ends

        self._background(claim())

    def _limit_of(self, run: Run) -> str | None:
        """Return the limits of a task as it would carry them; None if it has to fail, with the error in the run."""
        task = self.app.tasks[run.name]
        limits = self._limits[run.name]
        try:
            arguments: Mapping[str, object] = {}
            if limits.need_arguments:
                payload, _ = unwrap(run.message.payload, task.codec.parameters)
                arguments = task.codec.decode(payload)
            return limits.text(arguments)
        except (PayloadError, TaskArgumentsError) as error:
            run.error = error
            return None

    # --- end ----------------------------------------------------------------------------------------------------------

    async def _end_burst(self) -> float:
        """Stop once nothing is pending, due, limited by a rate or running, and nobody brings more."""
        if not await self._has_finished():
            return 0.05
        if self._when_idle is not None:
            if await self._when_idle(self):
                return 0.005
            if not await self._has_finished():  # something came while it was asked
                return 0.05
        self._stopping.set()
        return 0.05

    async def _has_finished(self) -> bool:
        turns = self._fetcher.turns
        if not self._is_out_of_work or await self._is_work_left():
            return False
        # What was taken and has ended meanwhile may have let in others, which were looked for before that.
        return self._is_out_of_work and self._fetcher.turns == turns

    async def forward(self) -> None:
        """Move due tasks to pending now, rather than just after the next second."""
        for forwarder in self._forwarders:
            await forwarder.work()

    @property
    def _is_out_of_work(self) -> bool:
        services: tuple[Aggregator | Relay | DeadLetters, ...] = (
            *self._aggregators,
            *self._relays,
            *self._letters.values(),
        )
        has_looked = all(each.has_looked for each in services)
        has_looked = has_looked and self._carrier.has_looked and not self._carrier.is_busy
        return has_looked and self._fetcher.is_idle and self._is_quiet and not self._settler.count

    async def _is_work_left(self) -> bool:
        """True if a queue that is not paused has a task that is pending, due but not forwarded, or limited by a rate.

        One that waits for a place is let in by who frees it, and is pending then.
        """
        for queue in self._queues:
            for state in (TaskState.SCHEDULED, TaskState.RETRY):  # first: what is forwarded meanwhile is pending then
                page = await self._runner.run(operations.list_tasks(queue, state, skip=0, count=1))
                if any(task.score is not None and task.score <= self._redis_clock.time() for task in page.tasks):
                    return True
            is_moving = await self._runner.run(operations.limits_move(queue))
            counts = await self._runner.run(operations.count_tasks(queue))
            if (is_moving or counts.sizes[TaskState.PENDING]) and not counts.is_paused:
                return True
        return False

    async def _drain(self) -> None:
        """Wait for running tasks, then give back what still runs."""
        self.status = "stopped"
        self._fetcher.is_fetching = False
        for aggregator in self._aggregators:
            aggregator.is_stopping = True
        await self._wait_for_end(self.config.span("shutdown_grace"), self._aborting)
        for run in list(self._executor.running.values()):
            self._executor.end(run, Ending.SHUTDOWN)
        interrupt_grace_s = self.config.span("interrupt_grace")
        await asyncio.gather(*(aggregator.close(interrupt_grace_s) for aggregator in self._aggregators))
        await self._wait_for_end(interrupt_grace_s, None)
        stuck = [run for run in self._executor.running.values() if run.settlement is None]
        for run in stuck:
            # Its thread ends with this process, which is the next thing to happen.
            logger.warning(
                "task %s did not end when told to; it is given back",
                run.name,
                extra={"queue": run.queue.name, "task_id": run.task_id},
            )
            run.settlement = given_back(run)
            self._settler.requeue(run)
        self._fetcher.notify()
        await self._wait_for_end(ENDING_S, None)

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
        """True if nothing runs or waits to be settled, and no answer can bring further tasks."""
        if self._executor.running or any(aggregator.is_busy for aggregator in self._aggregators):
            return False
        return self._fetcher.free >= self.config.concurrency or self._fetcher.is_failing

    async def _close(self, lanes: "list[asyncio.Task[None]]", services: "list[asyncio.Task[None]]") -> None:
        await asyncio.wait(lanes, timeout=ENDING_S)
        for task in (*lanes, *services):
            task.cancel()
        await asyncio.gather(*lanes, *services, return_exceptions=True)
        if self._scheduler is not None:
            await self._scheduler.close()
        with contextlib.suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(ENDING_S):
                await self._tally.hand_in()
        with contextlib.suppress(BrokerError):
            for queue in self._queues:
                await self._runner.run(operations.rouse(queue))  # a token this worker took on its way out
                for service in ("forwarder", "janitor", "limiter", "watcher", "carrier"):
                    await self._runner.run(operations.resign(queue, service, owner=self._token))
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
        self._executor.close()
        self.metrics.flush()
        await asyncio.to_thread(self._keepalive.stop)
        for lane in self._lanes:
            await lane.close()
        await self._runner.aclose()


GARBAGE_THRESHOLD = 10_000
"""Objects made before young ones are collected. Python's 700 to 2000 come round every few hundred tasks."""


@contextlib.contextmanager
def _rarer_garbage_collection() -> Iterator[None]:
    """Collect less often while a worker has the process, and leave what was loaded before it out of it.

    A run leaves no cycles of its own behind, so there is little to find.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    if before[0]:  # 0 means that somebody turned it off
        gc.set_threshold(max(before[0], GARBAGE_THRESHOLD), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows, PyPy: the loop of the standard library
        return None
    return uvloop.new_event_loop


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Close the loop. What swallows its cancellation is left behind: its task was given back, the process ends."""
    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=ENDING_S))
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), ENDING_S))
    finally:
        loop.close()
