"""Handle archived tasks: call the application's handlers, and enqueue dead-letter tasks.

The script that archives a task also stores a record, the dead letter. Any worker may claim a few dead letters for about
a minute, handle them, and delete them. If the worker dies before it deletes them, another worker handles them again, so
every handler runs at least once. A failed dead letter is handled again every half minute while the task is in the
archive. The archived task itself never changes.
"""

import asyncio
import contextlib
import logging
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from taskq_core.app import TaskQ
from taskq_core.broker.operations.dead_letters import DeadLetterBatch, end_dead_letter, take_dead_letters
from taskq_core.broker.operations.views import read_task
from taskq_core.errors import BrokerError, TaskIdConflictError, WireFormatError
from taskq_core.handles.records import TaskInfo, task_info
from taskq_core.service.loop import jittered
from taskq_core.service.user_code import contained
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.dead_letters import dead_letter_arguments, dead_letter_id, read_dead_letter
from taskq_core.tasks.task import Task
from taskq_core.wire import DEAD_LETTER, QueueKeys, TaskMessage, TaskState
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.leadership import Leadership, QueueService, Topic

logger = logging.getLogger("taskq.worker")

AT_ONCE = 4
"""Maximum number of archived tasks of one queue that are handled concurrently."""
CLAIM_S = 60.0
"""Seconds after which a claim expires and another worker handles the task. For each handler, `LONGEST_S` is added to
this time."""
LONGEST_S = 30.0
"""Seconds after which a handler of archived tasks is interrupted."""
SOON_S = 0.05
"""Seconds to wait before the check for a task that is being archived, because Redis first has to archive the task."""


class DeadLetters(QueueService):
    """Calls handlers for the archived tasks of one queue, and enqueues their dead-letter tasks."""

    name = "dead letters"

    def __init__(self, context: WorkerContext, queue: QueueKeys, leadership: Leadership) -> None:
        super().__init__(context, queue, leadership)
        context.dead_letters[queue.name] = self
        self._every_s = context.config.span("dead_letters_every")
        self._again_in_s = max(1, round(6 * self._every_s))
        self._call = context.new_caller(AT_ONCE, name="a handler of archived tasks")
        self._is_expected = self._has_checked = False

    @property
    def is_idle(self) -> bool:
        """Whether the last check found no dead letter, and `expects` has expected none since then."""
        return self._has_checked

    def expects(self, message: TaskMessage) -> bool:
        """Return whether a task that is being archived needs a dead letter. If so, let `work` check for it soon."""
        if not needs_dead_letter(self._app, message):
            return False
        self._has_checked = False
        self._is_expected = True
        self._changes.set()
        return True

    async def work(self) -> float:
        """Handle a few archived tasks, or wait until the next check.

        Return 0, so that the caller calls this method again at once.
        """
        self._changes.clear()
        if self._is_expected:
            self._is_expected = False
            await asyncio.sleep(SOON_S)
        elif not await self._may_have_work():
            await self._rest()
            return 0.0
        claim_s = round(CLAIM_S + LONGEST_S * len(self._app.archive_handlers))
        batch = await self._runner.run(take_dead_letters(self._queue, claim_s=claim_s, limit=AT_ONCE))
        if batch.task_ids:
            await asyncio.gather(*[self._handle(task_id, batch) for task_id in batch.task_ids])
        else:
            await self._rest()
        return 0.0

    async def _may_have_work(self) -> bool:
        if not self._leadership.has_checked:
            return True
        if self._leadership.leads:
            return self._leadership.has(Topic.DEAD_LETTERS)
        # The worker that leads the queue looks for archived tasks only if its program has handlers. So other workers
        # look too.
        return bool(self._app.archive_handlers) and await self._context.may_have(self._queue, "letters")

    async def _rest(self) -> None:
        self._has_checked = not self._is_expected
        await self._changes.wait_for(jittered(self._every_s))

    async def _handle(self, task_id: str, batch: DeadLetterBatch) -> None:
        again_in_s: int | None = None
        facts = {"queue": self._queue.name, "task_id": task_id}
        try:
            stored = await self._runner.run(
                read_task(self._queue, task_id, max_message=self._app.settings.max_message_bytes)
            )
            # Skip a task that was run again or deleted after it was archived.
            if stored is not None and stored.state is TaskState.ARCHIVED:
                # A damaged message may contain another queue or id. Use the queue and id under which the task is
                # stored.
                task = replace(task_info(stored), queue=self._queue.name, id=task_id)
                await contained(partial(self._call_handlers, task))
        except (BrokerError, WireFormatError) as error:
            logger.error("the handlers of an archived task cannot be called yet, trying again: %s", error, extra=facts)
            again_in_s = self._again_in_s
        except Exception:
            logger.exception("a handler of an archived task failed; the handlers are called again", extra=facts)
            again_in_s = self._again_in_s
        await self._runner.run(end_dead_letter(self._queue, task_id, until_s=batch.until_s, again_in_s=again_in_s))

    async def _call_handlers(self, task: TaskInfo) -> None:
        guard = self._app.timetable.guard
        with self._app.runtime.tracing.continued(task.headers):
            for handler in tuple(self._app.archive_handlers):
                function = handler.function if handler.is_coroutine else guard(handler.function)
                await self._call(function, task, timeout_s=LONGEST_S)
            wanted = read_dead_letter(task.headers)
            if wanted is not None:
                # Ignore the error if an earlier, interrupted attempt has already enqueued the dead-letter task.
                with contextlib.suppress(TaskIdConflictError):
                    await self._app.aenqueue(self._replacement(task, *wanted))

    def _replacement(self, task: TaskInfo, queue: str, name: str) -> Signature[Any]:
        """Return the dead-letter task to enqueue for an archived task. A dead-letter task has no dead letter itself."""
        arguments = dead_letter_arguments(task)
        options: Any = {"queue": queue, "task_id": dead_letter_id(task), "dead_letter": None}
        known = self._app.find_task(name)
        if isinstance(known, Task):
            takes_all = known.codec.named_rest is not None
            taken = {name: value for name, value in arguments.items() if takes_all or name in known.codec.parameters}
            if known.codec.takes_only_json:
                taken = msgspec.to_builtins(taken)  # the time of archiving becomes text
            return Signature(known.using(**options), (), taken)
        return self._app.remote(name, **options).s(**arguments)


def needs_dead_letter(app: TaskQ, message: TaskMessage) -> bool:
    """Return whether a task needs a dead letter: the app has handlers, or the task names a dead-letter task."""
    return bool(app.archive_handlers) or DEAD_LETTER in message.headers
