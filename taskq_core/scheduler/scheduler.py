"""Run a scheduler, alone or as services of a worker.

The scheduler reads the entries of the application, gets more entries from providers, and runs these services:

| service   | does                                                                          |
|-----------|-------------------------------------------------------------------------------|
| leader    | holds the lease, and runs a ticker for each queue, which enqueues due tasks   |
| announcer | shows the entries to tools                                                    |
| poller    | one per provider: reads its entries                                           |
| follower  | one per table: reads its entries, and records their runs in it                |
| runtime   | reads entries that were added or paused at run time                           |

Any number of schedulers may run. See `leader` for the election, and `ticker` for why each firing is enqueued once.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from taskq_core.app import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.waiting import RedisWait
from taskq_core.clock import SYSTEM_CLOCK, Clock, RedisClock
from taskq_core.errors import BrokerError, TaskQError
from taskq_core.scheduler.announcer import Announcer
from taskq_core.scheduler.config import SchedulerConfig
from taskq_core.scheduler.context import SchedulerContext
from taskq_core.scheduler.entries import EntryBook
from taskq_core.scheduler.follower import Follower
from taskq_core.scheduler.health import SchedulerState
from taskq_core.scheduler.leader import Leader
from taskq_core.scheduler.listener import SchedulerListener
from taskq_core.scheduler.poller import Poller, RuntimeFollower
from taskq_core.service.blocking import run_service
from taskq_core.service.calls import Caller
from taskq_core.service.health import open_health_server
from taskq_core.service.loop import Service, serve
from taskq_core.service.outage import Outage, start_problem
from taskq_core.service.signals import signal_handlers
from taskq_core.settings import Settings
from taskq_core.tasks.periodic import Firing, FiringOutcome
from taskq_core.telemetry import Reading, gauges, names

if TYPE_CHECKING:
    from taskq_core.service.health_server import HealthServer

logger = logging.getLogger("taskq.scheduler")

PROVIDERS_S = 5.0
"""Seconds to wait for the first entries of providers and tables. After that, the scheduler leads without their
entries."""
HOOK_THREADS = 8
"""Maximum number of hooks that run at once in threads. Each thread may hold its own database connections."""
GAUGES_S = 5.0
"""Seconds between two checks for a configured OpenTelemetry SDK that exports gauges."""
OWN_ENTRIES = 0
"""Source number of the application's own entries. Providers, tables and run-time schedules have larger numbers. If two
sources use the same id, the smaller number wins."""


class Scheduler:
    """Enqueues the periodic tasks of a queue application.

    Args:
        app: The queue application.
        config: How it runs.
        listener: Receives its events.
        clock: Source of time.
    """

    def __init__(
        self,
        app: TaskQ,
        config: SchedulerConfig | None = None,
        *,
        listener: SchedulerListener | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.app = app
        app.import_tasks()
        self.config = config or SchedulerConfig()
        self.id = str(uuid.uuid4())
        self.host = socket.gethostname() or "unknown-host"
        self._listener = listener or SchedulerListener()
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._read_version: tuple[int, Settings] | None = None
        self._status = "new"
        self._health_server: HealthServer | None = None
        self._wait: RedisWait | None = None
        self._has_listener_failed = False

    # --- as a separate process ----------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until stopped, on a new event loop. Handle SIGTERM and SIGINT if this is the main thread.

        Returns:
            0 when it was stopped, 1 when it could not start.
        """
        return run_service(self._run_with_signals())

    async def _run_with_signals(self) -> int:
        with signal_handlers(dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._stopping.set)):
            return await self.arun()

    def stop(self) -> None:
        """Stop the scheduler, from any thread. Another scheduler takes over within seconds."""
        if self._loop is None:
            self._stopping.set()
        else:
            with contextlib.suppress(RuntimeError):  # the event loop is closed: the scheduler has stopped
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def arun(self) -> int:
        """Run until stopped, on the current event loop, without signal handlers. Return the same codes as `run`."""
        if self._loop is not None:
            raise RuntimeError("a scheduler runs only once; create another one")
        self._loop = asyncio.get_running_loop()
        try:
            host, port = self.config.health_host, self.config.health_port
            self._health_server = await open_health_server("scheduler", self, host, port)
        except OSError:
            return 1
        try:
            return await self._live()
        finally:
            if self._health_server is not None:
                await self._health_server.close()

    async def _live(self) -> int:
        runtime = self.app.runtime
        runner = AsyncRunner(runtime.endpoint)
        outage = Outage(self._clock)
        try:
            try:
                wait = RedisWait(runner, "scheduler", self._stopping, is_enabled=self.config.wait_for_redis)
                self._wait = wait
                if not await wait.run():
                    return 0
                self.open(runner, outage)
                gauges.add(self.readings)
            except TaskQError as error:
                logger.error("the scheduler cannot start: %s", start_problem(error))
                return 1
            wanted = [(each.name, each.work) for each in self.services()] + [("gauges", self._refresh_gauges)]
            services = [
                asyncio.create_task(serve(name, work, outage=outage), name=f"taskq {name}") for name, work in wanted
            ]
            try:
                self._notify(self._listener.started, self)
                await self._stopping.wait()
            finally:
                for task in services:
                    task.cancel()
                await asyncio.gather(*services, return_exceptions=True)
                await self.close()
            return 0
        finally:
            gauges.remove(self.readings)
            await runner.aclose()

    def readings(self) -> Sequence[Reading]:
        """Return gauge readings for the metrics export, none if there are no entries. Callable from any thread."""
        return (Reading(names.SCHEDULER_LEADING, int(self.leads), {}),) if self.entry_count else ()

    async def _refresh_gauges(self) -> float:
        gauges.refresh()
        return GAUGES_S

    # --- inside a worker, or after a connection is open ---------------------------------------------------------------

    def open(self, runner: AsyncRunner, outage: Outage) -> None:
        """Read the entries and create the services. Send nothing yet.

        Args:
            runner: Sends operations. The caller closes it.
            outage: Logs when Redis is unavailable.

        Raises:
            ConfigurationError, TaskArgumentsError: An entry is not usable.
        """
        app, keys = self.app, self.app.runtime.keys
        self._book = EntryBook(keys, zone=app.settings.time_zone)
        self._read_entries()
        redis_clock = RedisClock(self._clock)
        context = SchedulerContext(app, self.config, self._book, runner, self._clock, redis_clock, outage)
        self._hooks = Caller(HOOK_THREADS, name="a hook or middleware")
        self._leader = Leader(context, call=self._hooks, fired=self._fired, prepare=self._prepare)
        self._announcer = Announcer(context, keys.scheduler(self.host, os.getpid(), self.id), self._leader)
        sources = itertools.count(OWN_ENTRIES + 1)
        self._pollers = [Poller(each, self._book, source=next(sources)) for each in app.timetable.providers]
        self._followers = [Follower(context, each, next(sources), self._leader) for each in app.timetable.tables]
        self._runtime = RuntimeFollower(context, next(sources))
        self._ready_by = self._clock.monotonic() + PROVIDERS_S
        self._status = "active"

    def services(self) -> list[Service]:
        """Return the services to run after `open`; a worker runs them together with its own services."""
        return [self._leader, self._announcer, *self._pollers, *self._followers, self._runtime]

    async def close(self) -> None:
        """End the tickers, resign the lease and delete the entries shown to tools.

        Call it after the services have ended.
        """
        self._status = "closed"
        await self._leader.finish()
        try:
            for follower in self._followers:
                await follower.finish()
            await self._leader.resign()
            await self._announcer.withdraw()
        except BrokerError as error:
            logger.warning(
                "the scheduler could not give up its lease: %s; another scheduler takes over when the lease ends", error
            )
        self._hooks.close()
        for poller in self._pollers:
            poller.close()

    @property
    def leads(self) -> bool:
        """True while this scheduler leads, and so enqueues."""
        return self._leader.leads

    @property
    def health_port(self) -> int | None:
        """Port of the health endpoints, None if they are off."""
        return None if self._health_server is None else self._health_server.port

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether this scheduler is ready, and the body of the health response."""
        if self._status == "new":
            reason = "" if self._wait is None else self._wait.reason
            return SchedulerState(self._status, False, 0, None, {}, reason).report()
        leader = self._leader
        return SchedulerState(self._status, leader.leads, self.entry_count, leader.answer_age_s, leader.turns).report()

    @property
    def entry_count(self) -> int:
        """Number of schedule entries."""
        return len(self._book.entries)

    def _prepare(self) -> float:
        sources: list[Poller | Follower | RuntimeFollower] = [*self._pollers, *self._followers, self._runtime]
        if not all(each.was_read for each in sources) and self._clock.monotonic() < self._ready_by:
            return 0.02
        try:
            self._read_entries()
        except TaskQError as error:
            logger.error("the changed periodic tasks are not usable; the previous ones stay in force: %s", error)
        return 0.0

    def _read_entries(self) -> None:
        """Read the application's schedule entries again, if its timetable or settings have changed."""
        version = (self.app.timetable.version, self.app.settings)
        if self._read_version is None or self._read_version[0] != version[0] or self._read_version[1] is not version[1]:
            is_first, self._read_version = self._read_version is None, version
            try:
                self._book.replace(OWN_ENTRIES, self.app.periodic_tasks())
            except TaskQError:
                if is_first:
                    self._read_version = None
                raise

    def _fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
        for follower in self._followers:
            follower.on_fired(firing, outcome)
        self._notify(self._listener.fired, firing, outcome, error)

    def _notify(self, method: Callable[..., None], *arguments: object) -> None:
        try:
            method(*arguments)
        except Exception:
            if not self._has_listener_failed:
                logger.exception("the scheduler's listener failed")
            self._has_listener_failed = True


def run_scheduler(
    app: TaskQ, config: SchedulerConfig | None = None, *, listener: SchedulerListener | None = None
) -> int:
    """Run a scheduler until it is stopped. Return the same codes as `Scheduler.run`."""
    return Scheduler(app, config, listener=listener).run()
