"""Read a database table of periodic tasks, and write back how often each of its entries ran.

Redis counts the runs of an entry in the same script that stores its task. The leader copies these counts to the table.
If the leader dies in between, the next leader copies them. The table stores the last run that was recorded, so a leader
that was frozen cannot record a run twice. While the table cannot be reached, the known entries stay in force and the
counts wait in Redis.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from taskq_core.broker.operations import schedules
from taskq_core.broker.operations.schedules import RUNS_MAX, Ran
from taskq_core.clock import utc_datetime
from taskq_core.errors import BrokerError
from taskq_core.scheduler.context import SchedulerContext
from taskq_core.scheduler.leader import Leader
from taskq_core.service.calls import Caller
from taskq_core.service.loop import Service, Signal
from taskq_core.tasks.periodic import EntryRuns, Firing, FiringOutcome, PeriodicTask, ScheduleTable
from taskq_core.wire import QueueKeys

logger = logging.getLogger("taskq.scheduler")

PAUSE_RATIO = 20
"""Length of the pause after a read of the table, as a multiple of the read's duration. So a large table is read less
often."""
LONGEST_PAUSE_S = 30.0
"""Maximum seconds of the pause after a read of the table. The interval that the table itself sets may be longer."""
CALL_S = 30.0
"""Seconds to wait for a call of the table. A hanging call keeps its thread, and the next call uses another."""
FINISH_S = 2.0
"""Seconds that a stopping scheduler spends on recording the last runs in the table."""


class Follower(Service):
    """Keeps the schedule entries of one database table up to date, and writes their runs back to the table.

    Args:
        context: The scheduler.
        table: The table.
        source: Number of the table as a source of the entry book.
        leader: Reports whether this scheduler leads now.
    """

    name = "table of periodic tasks"

    def __init__(self, context: SchedulerContext, table: ScheduleTable, source: int, leader: Leader) -> None:
        self._table = table
        self._book = context.book
        self._keys = context.keys
        self._runner = context.runner
        self._clock = context.clock
        self._source = source
        self._leader = leader
        # Two threads: if one call to the table hangs, another can still run.
        self._call = Caller(2, name="a table of periodic tasks")
        self._version: object = None
        self._entries: list[PeriodicTask] = []
        # Queues whose counts of runs may be in Redis, but not in the table yet.
        self._unrecorded: set[QueueKeys] = set()
        self._must_store_next = False
        self._led = False
        self._problems: set[str] = set()  # operations ("read", "write") whose current failure was already logged
        self._woken = Signal()
        loop = asyncio.get_running_loop()
        self._unwatch = table.watch(lambda: _call_on(loop, self._woken.set))
        self.was_read = False
        """True after the first read of the table, even if the read failed."""

    def on_fired(self, firing: Firing, outcome: FiringOutcome) -> None:
        """Remember that a run, or the next time of its periodic task, must be written to the database table."""
        if not firing.entry.run_key:
            return
        if outcome in (FiringOutcome.ENQUEUED, FiringOutcome.FAILED):
            self._unrecorded.add(self._keys.queue(firing.entry.call.task.options.queue))
        else:
            self._must_store_next = True

    async def work(self) -> float:
        """Read the table, write back runs and next firings, and wait for the next change.

        Return 0, so that the caller calls this method again at once.
        """
        self._woken.clear()
        begun = self._clock.monotonic()
        is_read = await self._read()
        read_s = self._clock.monotonic() - begun if is_read else 0.0
        pause_s = max(self._table.every_s, min(PAUSE_RATIO * read_s, LONGEST_PAUSE_S))
        self._follow_lead()
        await self._record_runs()
        await self._store_next()
        await self._woken.wait_for(pause_s)
        return 0.0

    async def _read(self) -> bool:
        """Read the table if it has changed, and replace its entries in the book. Return whether the read succeeded."""
        try:
            answer = await self._call(self._table.read, self._version, timeout_s=CALL_S)
            if answer is not None:
                version, self._entries = answer
                self._book.replace(self._source, self._entries)
                self._version = version
                self._must_store_next = True
        except Exception as error:
            self._report("read", f"{error}; the entries of the last read stay in force")
            return False
        finally:
            self.was_read = True
        self._report("read", "")
        return True

    def _follow_lead(self) -> None:
        """If this scheduler has just begun to lead, plan all writes that the previous leader may not have made."""
        led, self._led = self._led, self._leader.leads
        if self._led and not led:
            self._unrecorded.update(self._book.by_queue)
            self._must_store_next = True

    async def _record_runs(self) -> None:
        """Copy the counts of runs from Redis to the table, queue by queue.

        If this fails for a queue, try again later.
        """
        run_keys = [each.run_key for each in self._entries if each.run_key]
        batches = [run_keys[start : start + RUNS_MAX] for start in range(0, len(run_keys), RUNS_MAX)]
        queues, self._unrecorded = self._unrecorded, set()
        try:
            for queue in list(queues):
                for batch in batches:
                    while ran := await self._runner.run(schedules.take_runs(queue, batch)):
                        if not await self._record(ran):
                            return
                        await self._runner.run(schedules.acknowledge_runs(queue, ran))
                queues.discard(queue)
        finally:
            self._unrecorded |= queues

    async def _record(self, ran: list[Ran]) -> bool:
        runs = [EntryRuns(run_key=each.run_key, count=each.count, last=utc_datetime(each.last_s)) for each in ran]
        try:
            await self._call(self._table.record, runs, timeout_s=CALL_S)
        except Exception as error:
            self._report("write", f"{error}; the runs will be recorded later")
            return False
        self._report("write", "")
        return True

    async def _store_next(self) -> None:
        if self._must_store_next and self._leader.leads:
            try:
                await self._call(self._table.record_next_firings, timeout_s=CALL_S)
            except Exception as error:
                self._report("write", f"{error}; the next firings of entries are not shown")
            else:
                self._must_store_next = False
                self._report("write", "")

    def _report(self, what: str, problem: str) -> None:
        """Log a problem with the table once when it begins, and once when it ends."""
        if problem and what not in self._problems:
            self._problems.add(what)
            logger.error("cannot %s the table of periodic tasks: %s", what, problem)
        elif not problem and what in self._problems:
            self._problems.discard(what)
            logger.warning("the scheduler can %s the table of periodic tasks again", what)

    async def finish(self) -> None:
        """Copy the last counts of runs to the table, for at most `FINISH_S`, and close the threads."""
        self._unwatch()
        try:
            async with asyncio.timeout(FINISH_S):
                await self._record_runs()
        except (TimeoutError, BrokerError) as error:
            logger.warning(
                "the last runs were not recorded in the table of periodic tasks; the next scheduler records them: %s",
                error if isinstance(error, BrokerError) else f"it took more than {FINISH_S:g} s",
            )
        finally:
            self._call.close()


def _call_on(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the event loop is closed: the follower has ended
        loop.call_soon_threadsafe(function)
