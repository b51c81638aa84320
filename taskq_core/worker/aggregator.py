"""Combine the tasks of each group into one task.

::

    group --collect--> set --function--> one task       combine: store the task and delete the set, or do neither
      ^                 |
      +----reclaim------+   after the set's deadline, if the function failed or its worker was lost

The aggregator checks the groups of one queue about every second. It moves the members of due groups into sets, and
calls the application's function to turn each set into one task. One script stores the combined task and deletes the
set, so a crash leaves either the members or the combined task, never both. After its deadline, a set goes back to its
group, even if another program such as Go Asynq made it. The same happens to sets whose function failed.

One worker per queue holds a lease and checks, because a check costs Redis work for every group. Taking a set is one
script, so two workers that check at the same time take no member twice. Only workers with the same aggregators share a
lease, so a worker of another program or release does not keep the others from checking. If all slots of the leader are
busy, it does not renew the lease, and another worker takes over.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from taskq_core.broker.operations.aggregation import (
    GATHER_MAX,
    CollectCode,
    GroupCheck,
    collect_groups,
    combine,
    expel,
    give_back,
    list_groups,
    read_members,
    reclaim,
    sweep,
)
from taskq_core.broker.operations.new_tasks import StoreCode
from taskq_core.broker.operations.operation import BATCH_MAX
from taskq_core.client.preparer import Prepared, new_task_id
from taskq_core.errors import BrokerError, Discard, EnqueueError, WireFormatError
from taskq_core.service.loop import jittered
from taskq_core.tasks.aggregation import Aggregation, GroupedTask
from taskq_core.tasks.canvas import Signature
from taskq_core.wire import QueueKeys, decode_message
from taskq_core.worker.combining import Combiner
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.counted_log import CountedLog
from taskq_core.worker.leadership import Leadership, QueueService, Topic

logger = logging.getLogger("taskq.worker")

AT_ONCE = 4
"""Maximum number of sets of one queue that are combined concurrently."""
PATIENCE_S = 5.0
"""Maximum seconds for which a failed call to Redis is repeated. Redis applies a repeated call only once."""
CUT_S = 1
"""Seconds that are added to the timeout of a set, because Redis rounds the set's deadline down to a whole second."""
WITHOUT_EVERY_S = 10.0
"""Seconds between two checks by a worker without aggregators. Such a worker only returns expired sets to their
groups."""


class _Check(Struct, frozen=True):
    """A group that may be due, with the aggregator that combines it."""

    aggregation: Aggregation
    what: GroupCheck


class Aggregator(QueueService):
    """Combines the groups of one queue into tasks, while this worker leads the queue's aggregation."""

    name = "aggregator"

    def __init__(self, context: WorkerContext, queue: QueueKeys, leadership: Leadership) -> None:
        super().__init__(context, queue, leadership)
        # one thread pool per queue, so that a hanging aggregator function blocks no other queue
        self._combiner = Combiner(context, AT_ONCE)
        self._aggregators = context.app.aggregators
        mark = self._aggregators.fingerprint(queue.name)
        self.service = f"aggregator-{mark}" if mark else "aggregator"
        """Name of the lease that the leader of the queue's aggregation holds."""
        self.leader_keys = (queue.leader(self.service),)
        self._every_s = context.config.span("aggregate_every") if mark else WITHOUT_EVERY_S
        self._leader_ms = int(max(context.leader_s, 3 * self._every_s) * 1000)
        self._running: set[asyncio.Task[None]] = set()
        self._log_dropped = CountedLog(
            logger,
            logging.ERROR,
            "dropped %d entries from the index of sets of grouped tasks in queue %s: their sets do not exist",
        )
        self._logged: set[str] = set()
        self._is_taking = False
        self._has_checked = False
        self.is_stopping = False
        """Set to True to stop the aggregator from taking further sets of tasks."""
        self.combined = 0
        """Number of sets that were combined into a task."""
        self.reclaimed = 0
        """Number of sets that were returned to their groups after their deadline, including sets of other workers."""
        self.failed = 0
        """Number of sets whose combination failed. Their members go back to their group."""

    @property
    def is_idle(self) -> bool:
        """Whether no group can be due, because this worker has checked all groups or another worker leads."""
        return self._has_checked

    @property
    def is_busy(self) -> bool:
        """True while sets are being taken or turned into tasks."""
        return self._is_taking or bool(self._running)

    async def work(self) -> float:
        """Return expired sets to their groups, and combine due groups into tasks.

        Return the seconds until the next call.
        """
        if await self._may_have_work() and await self._reclaim_expired():
            await self._collect_due()
        self._has_checked = True
        return jittered(self._every_s)

    async def _may_have_work(self) -> bool:
        leadership = self._leadership
        if not leadership.has_checked:
            return True
        if leadership.leads:
            return leadership.has(Topic.GROUPS)
        # The worker that leads the queue looks for groups only if its program has aggregators. So other workers look
        # too.
        if not self._aggregators.of_queue(self._queue.name):
            return False
        return await self._context.may_have(self._queue, "groups", "aggregation_sets", "combined")

    async def drain(self, timeout_s: float) -> None:
        """Stop taking sets.

        Return the sets in progress to their groups. Wait at most `timeout_s` until they are returned.
        """
        self.is_stopping = True
        for each in self._running:
            each.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)

    # --- expired sets -------------------------------------------------------------------------------------------------

    async def _reclaim_expired(self) -> bool:
        """Return expired sets to their groups, and delete members of combined sets.

        Return whether this worker leads.
        """
        while True:
            found = await self._runner.run(
                reclaim(
                    self._queue,
                    self.service,
                    owner=self._context.token,
                    leader_ms=self._leader_ms,
                )
            )
            self.reclaimed += found.sets
            if found.sets:
                logger.warning(
                    "%d sets of grouped tasks in queue %s were not combined in time; they are back in their groups",
                    found.sets,
                    self._queue.name,
                )
            if found.dropped:
                self._log_dropped.add(found.dropped, self._queue.name)
            if found.put_off:
                logger.error(
                    "tasks cannot return to %d groups of queue %s: the keys of these groups have a wrong type",
                    found.put_off,
                    self._queue.name,
                )
            if not found.leads:
                return False
            if not (found.sets or found.moved or found.dropped or found.put_off):
                break
        await self._sweep(found.to_sweep)
        return True

    async def _sweep(self, sets: int) -> None:
        while sets:
            _, sets = await self._runner.run(sweep(self._queue))

    async def _sweep_rest(self, size: int) -> None:
        """Delete the remaining members of a combined set, because the script deletes only some of a large set.

        If this fails, the next check deletes them.
        """
        if size > GATHER_MAX:
            with contextlib.suppress(BrokerError):
                await self._sweep(1)

    # --- due groups ---------------------------------------------------------------------------------------------------

    async def _collect_due(self) -> None:
        """Move the members of all due groups into sets."""
        if not self._aggregators.of_queue(self._queue.name):
            return
        cursor = 0
        while not self.is_stopping:
            cursor, names = await self._runner.run(list_groups(self._queue, cursor))
            for start in range(0, len(names), GATHER_MAX):
                await self._collect(names[start : start + GATHER_MAX])
            if cursor == 0:
                return

    async def _collect(self, names: Sequence[str]) -> None:
        """Check these groups. Move the members of a due group into a set as soon as a slot for combining is free."""
        checks = [check for name in names if (check := self._check(name)) is not None]
        while checks:
            while len(self._running) >= AT_ONCE:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            if self.is_stopping:
                return
            operation = collect_groups(
                self._queue,
                [check.what for check in checks],
                limit=AT_ONCE - len(self._running),
            )
            # Set `_is_taking` before the request, because Redis may move tasks into a set that `_running` does not
            # contain yet.
            self._is_taking = True
            try:
                codes = await self._runner.run(operation, patience_s=PATIENCE_S)
            finally:
                self._is_taking = False
            again = []
            for check, code in zip(checks, codes, strict=True):
                if code == CollectCode.TAKEN:
                    self._start(check)
                    # Collect the group again, because it may have more members than one set can contain.
                    if check.what.max_size:
                        again.append(replace(check, what=replace(check.what, set_id=new_task_id())))
                elif code == CollectCode.SEND_AGAIN:
                    again.append(check)
                elif code == CollectCode.NO_GROUP:
                    self._log_once(
                        logging.ERROR, "the key of group %r in queue %s is not a sorted set", check.what.group
                    )
            checks = again

    def _check(self, group: str) -> _Check | None:
        aggregation = self._aggregators.find(self._queue.name, group)
        if aggregation is None:
            self._log_once(
                logging.WARNING, "this worker has no aggregator for group %r of queue %s, in which tasks wait", group
            )
            return None
        return _Check(
            aggregation,
            GroupCheck(
                group,
                new_task_id(),
                timeout_s=aggregation.timeout_s + CUT_S,
                grace_s=aggregation.grace_s,
                max_delay_s=aggregation.max_delay_s,
                max_size=aggregation.max_size or 0,
            ),
        )

    def _log_once(self, level: int, text: str, group: str) -> None:
        """Log a problem with a group only once per queue, because every check finds it again."""
        if text not in self._logged:
            self._logged.add(text)
            logger.log(level, f"{text} (once per queue)", group, self._queue.name)  # noqa: G004 - no data in it

    # --- one set ------------------------------------------------------------------------------------------------------

    def _start(self, check: _Check) -> None:
        task = asyncio.create_task(self._combine_or_give_back(check), name="taskq aggregation")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _combine_or_give_back(self, check: _Check) -> None:
        """Combine the members of a set into one task.

        After any error, the members go back to their group at the set's deadline.
        """
        try:
            await self._combine(check)
        except asyncio.CancelledError:
            try:
                await self._runner.run(give_back(self._queue, check.what.group, check.what.set_id))
            except BrokerError as error:
                logger.error("a set of grouped tasks cannot return to its group now: %s", error)
            raise
        except Exception as error:
            self.failed += 1
            known = isinstance(error, BrokerError | EnqueueError)
            logger.error(
                "aggregator %s failed for group %r of queue %s; its tasks go back to the group after %d s%s",
                check.aggregation.name,
                check.what.group,
                self._queue.name,
                check.aggregation.timeout_s,
                f": {error}" if known else "",
                exc_info=None if known else error,
                extra={"queue": self._queue.name},
            )

    async def _combine(self, check: _Check) -> None:
        group, set_id = check.what.group, check.what.set_id
        found = await self._read(group, set_id)
        if found is None:
            self._log_returned(group)
            return
        tasks, size = found
        if not size:
            return
        if not tasks:
            await self._drop(check, size)
            return
        try:
            result = await self._combiner.combine(check.aggregation, self._queue, set_id, group, tasks)
        except Discard:
            await self._drop(check, size)
            return
        await self._store(check, size, result, tasks)

    async def _read(self, group: str, set_id: str) -> tuple[list[GroupedTask], int] | None:
        """Return the readable tasks of a set, and the number of its members. Return None if the set was deleted."""
        tasks: list[GroupedTask] = []
        unreadable: list[str] = []
        size = missing = 0
        while True:
            read = read_members(self._queue, group, set_id, skip=size, max_message=self._app.settings.max_message_bytes)
            page = await self._runner.run(read, patience_s=PATIENCE_S)
            if page is None:
                return None
            if not page:
                break
            size += len(page)
            for task_id, data in page:
                if not data:
                    missing += 1
                    continue
                try:
                    message = decode_message(data)
                except WireFormatError:
                    unreadable.append(task_id)
                    continue
                task = self._app.tasks.get(message.type)
                tasks.append(GroupedTask(message, None if task is None else task.codec))
        if missing:
            logger.error("%d ids in group %r of queue %s belong to no stored task", missing, group, self._queue.name)
        for start in range(0, len(unreadable), BATCH_MAX):
            ids = unreadable[start : start + BATCH_MAX]
            await self._runner.run(expel(self._queue, group, set_id, ids))
            logger.error(
                "%d tasks in group %r of queue %s cannot be read and are moved to quarantine",
                len(ids),
                group,
                self._queue.name,
            )
        return tasks, size - len(unreadable)

    async def _store(self, check: _Check, size: int, result: Signature[Any], tasks: Sequence[GroupedTask]) -> None:
        """Store the combined task in the members' queue.

        The task continues the trace of the first member, and links to the traces of all members.
        """
        preparer = self._app.runtime.preparer
        group, set_id = check.what.group, check.what.set_id
        if result.task.options.aggregate == group:
            raise ValueError(
                f"the aggregator returned a task with aggregate={group!r}, which would join the same group again"
            )
        options: dict[str, Any] = {"queue": self._queue.name}
        if result.task.options.task_id is None:
            options["task_id"] = set_id
        tracing = preparer.tracing
        with tracing.continued(tasks[0].headers):
            links = tracing.links(each.headers for each in tasks)
            prepared: Prepared[Any] = preparer.prepare(result.using(**options), links=links)
        started = self._context.clock.monotonic()
        error: EnqueueError | None = None
        try:
            operation = combine(self._queue, group, set_id, size, prepared.task)
            code = await self._runner.run(operation, patience_s=PATIENCE_S)
            if code is not StoreCode.GONE:
                error = prepared.settle(code)
        except BrokerError as cause:
            error = prepared.failure(cause)
        except BaseException as interruption:
            prepared.span.end(interruption)
            raise
        if error is None and code is StoreCode.GONE:
            self._log_returned(group)
            return  # the span is not ended, and so not exported: no task was stored
        preparer.record_sent(prepared, error, started)
        if error is not None:
            raise error
        self.combined += 1
        await self._combiner.notify_enqueued(prepared.handle, self._queue)
        await self._sweep_rest(size)

    async def _drop(self, check: _Check, size: int) -> None:
        """Delete the members of a set without storing a task."""
        operation = combine(self._queue, check.what.group, check.what.set_id, size, None)
        if await self._runner.run(operation, patience_s=PATIENCE_S) is StoreCode.GONE:
            self._log_returned(check.what.group)
        else:
            await self._sweep_rest(size)

    def _log_returned(self, group: str) -> None:
        logger.warning(
            "a set of group %r in queue %s returned to its group before it was combined; it will be collected again",
            group,
            self._queue.name,
        )
