"""Delete expired data: tasks and workflows after their retention, and archived tasks by age and number.

Each call is bounded. Only the worker that leads the queue does this. While nothing expires, it checks less and less
often.
"""

from taskq_core.broker.operations.services import clean
from taskq_core.broker.operations.workflows import clean_workflows
from taskq_core.service.loop import jittered
from taskq_core.wire import QueueKeys
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.leadership import Leadership, QueueService, Topic

BATCH = 100
"""Maximum number of tasks of each kind that one script call deletes."""
RAREST = 8
"""Maximum pause between two deletions while no data expires, as a multiple of the usual pause."""


class Janitor(QueueService):
    """Deletes expired tasks and workflows of one queue."""

    name = "janitor"

    def __init__(self, context: WorkerContext, queue: QueueKeys, leadership: Leadership) -> None:
        super().__init__(context, queue, leadership)
        self._every_s = self._rest_s = context.config.span("clean_every")
        self._archive = context.app.settings.archive.limits(queue.name)

    async def work(self) -> float:
        """Delete expired data. Return the seconds until the next call."""
        if not self._leadership.has(Topic.RETAINED):
            self._rest_s = self._every_s
            return jittered(self._every_s)
        deleted = await self._clean()
        self._rest_s = self._every_s if deleted else min(2 * self._rest_s, RAREST * self._context.pace * self._every_s)
        return jittered(self._rest_s)

    async def _clean(self) -> int:
        """Delete expired data by one script call, and return the number of deleted items."""
        deleted = 0
        while True:
            completed, archived = await self._runner.run(clean(self._queue, limit=BATCH, archive=self._archive))
            workflows = await self._runner.run(clean_workflows(self._queue, limit=BATCH))
            deleted += completed + archived + workflows
            if completed < BATCH and archived < BATCH and workflows < BATCH:
                return deleted
