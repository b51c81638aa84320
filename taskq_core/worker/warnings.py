"""Warn once about each problem that delays or loses tasks without an error.

`taskq doctor` finds more problems on request.
"""

import logging
from collections.abc import Collection

from taskq_core.broker.operations.presence import list_alive, server_info
from taskq_core.broker.operations.services import has_worker
from taskq_core.broker.operations.views import list_queues
from taskq_core.clock import SKEW_VISIBLE_S
from taskq_core.errors import BrokerAuthenticationError, BrokerReplyError
from taskq_core.settings import nearest_hint
from taskq_core.worker.context import WorkerContext, WorkerService

logger = logging.getLogger("taskq.worker")

SETTLED_S = 60.0
"""Seconds after the start of this worker at which all workers of a deployment should have started."""
AGAIN_S = 3600.0
"""Seconds between two checks for problems."""


async def warn_of_unknown_queues(context: WorkerContext) -> None:
    """Warn of queues of this worker that neither `QUEUES` nor Redis knows, because their names may be misspelled.

    Call this before the worker registers its queues in Redis.

    Raises:
        BrokerError: Redis refused or could not be reached.
    """
    settings = context.app.settings
    unknown = [name for name in context.config.queues if name not in settings.queues]
    if not settings.has_own_queues or not unknown:
        return
    stored = await context.runner.run(list_queues(context.keys.queues))
    for name in unknown:
        if name not in stored:
            known = ", ".join(settings.queues)
            hint = nearest_hint(name, {*settings.queues, *stored})
            logger.warning(
                "this worker serves queue %r, which is not in QUEUES (%s) and has never been used%s [queue-unknown]",
                name,
                known,
                hint,
            )


class WorkerWarnings(WorkerService):
    """Checks Redis, the other workers and the schedulers for problems, and logs them."""

    name = "warnings"

    def __init__(self, context: WorkerContext) -> None:
        super().__init__(context)
        self._config = context.config
        self._warned: set[str] = set()
        self._has_checked = False

    async def work(self) -> float:
        """Check for problems once, and return the seconds until the next check.

        The first check reports queues that neither this worker nor the setting `QUEUES` names. Later checks, when all
        workers and schedulers of a deployment have started, report every queue that no worker or only Go workers serve,
        and periodic tasks without a scheduler.
        """
        await self._check_eviction()
        self._check_clock()
        if not self._has_checked:
            self._has_checked = True
            await self._check_queues({*self._config.queues, *self._app.settings.queues})
            return SETTLED_S
        await self._check_queues(self._config.queues)
        await self._check_queues_of_go()
        await self._check_schedulers()
        return AGAIN_S

    async def _check_eviction(self) -> None:
        try:
            info = await self._runner.run(server_info())
        except (BrokerAuthenticationError, BrokerReplyError):
            return  # this Redis user may not read server information; `taskq doctor` reports that
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            self._warn_once(
                "eviction",
                "",
                f"Redis drops keys, and with them tasks, when its memory is full: its maxmemory-policy is {policy}, "
                "and should be noeviction",
            )

    def _check_clock(self) -> None:
        ahead_s = self._context.clock.time() - self._context.redis_clock.time()
        if abs(ahead_s) >= SKEW_VISIBLE_S:
            direction = "ahead of" if ahead_s > 0 else "behind"
            self._warn_once("clock-skew", "", f"this machine's clock is {abs(ahead_s):.1f} s {direction} Redis's clock")

    async def _check_queues(self, served: Collection[str]) -> None:
        for queue, names in self._app.task_queues().items():
            if queue in served or (await self._context.fleet.of(queue))[1]:
                continue
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            hint = nearest_hint(queue, served)
            self._warn_once(
                "queue-unserved",
                queue,
                f"no worker serves queue {queue!r}, to which task {names[0]!r}{more} goes{hint}",
            )

    async def _check_queues_of_go(self) -> None:
        """Warn of queues of this program's tasks that only Go workers serve. They do not know these tasks."""
        for queue, names in self._app.task_queues().items():
            if queue in self._config.queues or not (await self._context.fleet.of(queue))[1]:
                continue
            if not await self._runner.run(has_worker(self._context.keys.queue(queue))):
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                self._warn_once(
                    "queue-unserved",
                    queue,
                    f"only Go workers serve queue {queue!r}, to which task {names[0]!r}{more} goes; it fails there "
                    "with 'handler not found'",
                )

    async def _check_schedulers(self) -> None:
        app = self._app
        count = len(app.timetable.entries) + len(app.settings.schedule)
        if self._config.with_scheduler or not count:
            return
        if not await self._runner.run(list_alive(app.runtime.keys.schedulers, skip=0, count=1)):
            self._warn_once(
                "no-scheduler",
                "",
                f"no scheduler runs, so none of the {count} periodic tasks is enqueued; start a worker without "
                "--no-scheduler, or taskq scheduler",
            )

    def _warn_once(self, code: str, subject: str, text: str) -> None:
        if f"{code} {subject}" not in self._warned:
            self._warned.add(f"{code} {subject}")
            logger.warning("%s [%s]", text, code)
