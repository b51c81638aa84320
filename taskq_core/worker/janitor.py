"""Delete expired data: completed tasks and workflows after their retention, archived tasks by age and number.

Each call is bounded. The worker that leads the queue acts. While nothing expires, it checks less and less often.
"""

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.operation import ARCHIVE
from taskq_core.broker.operations.services import clean
from taskq_core.broker.operations.workflows import clean_workflows
from taskq_core.service.loop import jittered
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import QueueKeys
from taskq_core.worker.leadership import Leadership, Topic

BATCH = 100
"""Most tasks one script call deletes of each kind."""
RAREST = 8
"""How many times as long it rests at most, while there was nothing to delete."""


class Janitor:
    """Cleans one queue.

    Args:
        queue: Key names of the queue.
        runner: Sends operations.
        leadership: Says whether this worker leads, and whether there is data that can expire.
        every_s: Seconds between two looks.
        archive: How much of the archive is kept.
    """

    def __init__(
        self,
        queue: QueueKeys,
        runner: AsyncRunner,
        leadership: Leadership,
        *,
        every_s: float,
        archive: ArchiveLimits = ARCHIVE,
    ) -> None:
        self._queue = queue
        self._runner = runner
        self._leadership = leadership
        self._every_s = self._rest_s = every_s
        self._archive = archive
        self.deleted = 0
        """Tasks deleted so far."""

    async def work(self) -> float:
        """Delete what is due; return the seconds until the next look."""
        if not self._leadership.has(Topic.KEPT):
            self._rest_s = self._every_s
            return jittered(self._every_s)
        deleted = await self._clean()
        self._rest_s = self._every_s if deleted else min(2 * self._rest_s, RAREST * self._every_s)
        return jittered(self._rest_s)

    async def _clean(self) -> int:
        """Delete all that is due; return how much that was."""
        deleted = 0
        while True:
            completed, archived = await self._runner.run(clean(self._queue, limit=BATCH, archive=self._archive))
            self.deleted += completed + archived
            workflows = await self._runner.run(clean_workflows(self._queue, limit=BATCH))
            deleted += completed + archived + workflows
            if completed < BATCH and archived < BATCH and workflows < BATCH:
                return deleted
