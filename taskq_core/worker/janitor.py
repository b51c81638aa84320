"""Delete what is kept no longer: completed tasks and workflows after their time, archived tasks by age and number.

Each call is bounded. One worker per queue acts, by lease; it notes how the queue stands as well, for charts.
"""

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import ARCHIVE, clean, clean_workflows, lead
from taskq_core.service import jittered
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import QueueKeys
from taskq_core.worker.sampler import Sampler

BATCH = 100
"""Most tasks one script call deletes of each kind."""


class Janitor:
    """Cleans one queue.

    Args:
        queue: Key names of the queue.
        runner: Sends operations.
        owner: Token of the worker.
        every_s: Seconds between two looks.
        archive: How much of the archive is kept.
        sampler: Notes how the queue stands, None where nobody does.
    """

    def __init__(
        self,
        queue: QueueKeys,
        runner: AsyncRunner,
        *,
        owner: str,
        every_s: float,
        archive: ArchiveLimits = ARCHIVE,
        sampler: Sampler | None = None,
    ) -> None:
        self._queue = queue
        self._runner = runner
        self._owner = owner
        self._every_s = every_s
        self._archive = archive
        self._sampler = sampler
        self.deleted = 0
        """Tasks deleted so far."""

    async def work(self) -> float:
        """Delete what is due, and note how the queue stands; return the seconds until the next look."""
        leader_ms = int(self._every_s * 3000)
        if await self._runner.run(lead(self._queue, "janitor", owner=self._owner, leader_ms=leader_ms)):
            while True:
                completed, archived = await self._runner.run(clean(self._queue, limit=BATCH, archive=self._archive))
                self.deleted += completed + archived
                workflows = await self._runner.run(clean_workflows(self._queue, limit=BATCH))
                if completed < BATCH and archived < BATCH and workflows < BATCH:
                    break
            if self._sampler is not None:
                await self._sampler.work()
        return jittered(self._every_s)
