"""Follow a table of periodic tasks: take up what changes in it, and tell it what its entries have enqueued.

How often an entry ran is counted in Redis, in the very step that stores its task, and taken to the table from there.
So a leader that dies in between leaves the count to the next one, and one that slept cannot count a run again: the
table knows the last run it was told of. While the table cannot be reached, the entries stay as they were, firings go
on, and what they add to the count waits in Redis.
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

SPARED = 20
"""A look at the table is followed by a pause at least so many times as long, so that a large table costs little."""
LONGEST_PAUSE_S = 30.0
"""Longest such pause, in seconds."""
CALL_S = 30.0
"""Seconds a call of the table is waited for. One that hangs keeps its thread, and the next call has another."""
FAREWELL_S = 2.0
"""Seconds that a scheduler which ends takes to tell the table of its last runs."""


class Follower(Service):
    """Follows one table.

    Args:
        context: The scheduler.
        table: The table.
        source: Number of the table in the book.
        leader: Says whether this scheduler leads now.
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
        self._call = Caller(2, name="a table of periodic tasks")  # one may hang
        self._seen: object = None
        self._entries: list[PeriodicTask] = []
        self._untold: set[QueueKeys] = set()  # queues with runs, for all one knows, that the table was not told of
        self._must_note_next = False
        self._led = False
        self._troubles: set[str] = set()  # what cannot be done now, and was told
        self._woken = Signal()
        loop = asyncio.get_running_loop()
        self._unwatch = table.watch(lambda: _call_on(loop, self._woken.set))
        self.was_asked = False
        """True once the table was read, or could not be."""

    def heard(self, firing: Firing, outcome: FiringOutcome) -> None:
        """Take note of a firing that was counted, or may have been, or that is over without a run."""
        if not firing.entry.run_key:
            return
        if outcome in (FiringOutcome.ENQUEUED, FiringOutcome.FAILED):
            self._untold.add(self._keys.queue(firing.entry.call.task.options.queue))
        else:
            self._must_note_next = True

    async def work(self) -> float:
        """Look at the table and tell it what it has to know; return when it is to be looked at again."""
        self._woken.clear()
        begun = self._clock.monotonic()
        is_read = await self._read()
        took_s = self._clock.monotonic() - begun if is_read else 0.0
        pause_s = max(self._table.every_s, min(SPARED * took_s, LONGEST_PAUSE_S))
        self._follow_lead()
        await self._tell()
        await self._note_next()
        await self._woken.wait_for(pause_s)
        return 0.0

    async def _read(self) -> bool:
        """Take up what has changed; return whether the table could be read."""
        try:
            answer = await self._call(self._table.read, self._seen, timeout_s=CALL_S)
            if answer is not None:
                seen, self._entries = answer
                self._book.replace(self._source, self._entries)
                self._seen = seen
                self._must_note_next = True
        except Exception as error:
            self._report("read", f"cannot be read; the entries known so far stay: {error}")
            return False
        finally:
            self.was_asked = True
        self._report("read", "")
        return True

    def _follow_lead(self) -> None:
        """A new leader tells what the one before may have left, and when entries fire next."""
        led, self._led = self._led, self._leader.leads
        if self._led and not led:
            self._untold.update(self._book.by_queue)
            self._must_note_next = True

    async def _tell(self) -> None:
        """Tell the table of runs in the queues that may have some; those that could not be told are kept for later."""
        run_keys = [each.run_key for each in self._entries if each.run_key]
        batches = [run_keys[start : start + RUNS_MAX] for start in range(0, len(run_keys), RUNS_MAX)]
        queues, self._untold = self._untold, set()
        try:
            for queue in list(queues):
                for batch in batches:
                    while ran := await self._runner.run(schedules.take_runs(queue, batch)):
                        if not await self._record(ran):
                            return
                        await self._runner.run(schedules.acknowledge_runs(queue, ran))
                queues.discard(queue)
        finally:
            self._untold |= queues

    async def _record(self, ran: list[Ran]) -> bool:
        runs = [EntryRuns(run_key=each.run_key, count=each.count, last=utc_datetime(each.last_s)) for each in ran]
        try:
            await self._call(self._table.record, runs, timeout_s=CALL_S)
        except Exception as error:
            self._report("write", f"cannot be told of runs; they are counted later: {error}")
            return False
        self._report("write", "")
        return True

    async def _note_next(self) -> None:
        if self._must_note_next and self._leader.leads:
            try:
                await self._call(self._table.note_next, timeout_s=CALL_S)
            except Exception as error:
                self._report("write", f"cannot be told when entries fire next: {error}")
            else:
                self._must_note_next = False
                self._report("write", "")

    def _report(self, what: str, trouble: str) -> None:
        """Say what is wrong when it begins, and that it is over when it ends."""
        if trouble and what not in self._troubles:
            self._troubles.add(what)
            logger.error("the table of periodic tasks %s", trouble)
        elif not trouble and what in self._troubles:
            self._troubles.discard(what)
            logger.warning("the table of periodic tasks can be %s again", "read" if what == "read" else "written")

    async def finish(self) -> None:
        """Tell the table of the last runs, if that takes no time, and let the thread end."""
        self._unwatch()
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self._tell()
        except (TimeoutError, BrokerError) as error:
            logger.warning(
                "the table of periodic tasks was not told of the last runs; the next scheduler does it: %s",
                error if isinstance(error, BrokerError) else f"it took more than {FAREWELL_S:g} s",
            )
        finally:
            self._call.close()


def _call_on(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # it has been closed: nobody follows the table any more
        loop.call_soon_threadsafe(function)
