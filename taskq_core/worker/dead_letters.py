"""Tell of archived tasks: call the functions that want to know, and enqueue the tasks that take their place.

Whoever archives a task notes in the same step that it is to be told of. Any number of workers may look for such notes,
and those that archived something do; each takes a few for a minute or so, and takes them back when all is done. One
that dies in between leaves them to the next, so everything happens at least once; what fails is done again every half
minute, for as long as the task is in the archive. Nothing that happens here touches the archived task.
"""

import asyncio
import contextlib
import logging
from dataclasses import replace
from functools import partial
from typing import Any

from taskq_core.app import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.dead_letters import DeadLetterBatch, end_dead_letter, take_dead_letters
from taskq_core.broker.operations.services import count_keys
from taskq_core.broker.operations.views import look
from taskq_core.clock import Clock
from taskq_core.errors import BrokerError, TaskIdConflictError, WireFormatError
from taskq_core.handles.records import TaskInfo, task_info
from taskq_core.service.loop import jittered
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.dead_letters import ArchiveHandler, letter_arguments, letter_id, read_dead_letter
from taskq_core.tasks.task import Task
from taskq_core.wire import DEAD_LETTER, QueueKeys, TaskMessage, TaskState
from taskq_core.worker.calls import FunctionThreads, call_coroutine
from taskq_core.worker.leadership import Leadership, Topic

logger = logging.getLogger("taskq.worker")

AT_ONCE = 4
"""Archived tasks of one queue that are told of at the same time."""
CLAIM_S = 60.0
"""Seconds after which an archived task is told of again if nobody said that it was, and for each function as many more
as it may take."""
LONGEST_S = 30.0
"""Seconds after which a function that is told is told to end."""
SOON_S = 0.05
"""Seconds after which a look follows the end of a run that is to be told of: its outcome is on the way."""


class DeadLetters:
    """Tells of the archived tasks of one queue.

    Args:
        queue: Key names of the queue.
        runner: Sends operations.
        app: The queue application, whose functions are called and in whose name tasks are enqueued.
        clock: Source of monotonic time.
        every_s: Seconds between two looks.
        leadership: Says whether there may be archived tasks to handle. None: Redis is asked each time.
    """

    def __init__(
        self,
        queue: QueueKeys,
        runner: AsyncRunner,
        app: TaskQ,
        clock: Clock,
        *,
        every_s: float,
        leadership: Leadership | None = None,
    ) -> None:
        self._queue = queue
        self._runner = runner
        self._app = app
        self._every_s = every_s
        self._again_in_s = max(1, round(6 * every_s))
        self._threads = FunctionThreads(AT_ONCE, clock)
        self._soon = asyncio.Event()
        self._is_expected = False
        self._leadership = leadership
        if leadership is not None:
            leadership.wakes(self._soon)
        self.has_looked = False
        """True once a look has found nothing and nothing has come since."""

    def wants(self, message: TaskMessage) -> bool:
        """Whether it is to be told of a task that is archived."""
        return wants_letter(self._app, message)

    def expect(self) -> None:
        """A task that is to be told of is being archived: look soon."""
        self.has_looked = False
        self._is_expected = True
        self._soon.set()

    async def work(self) -> float:
        """Tell of what is due, and wait until it is time to look again."""
        self._soon.clear()
        if self._is_expected:
            self._is_expected = False
            await asyncio.sleep(SOON_S)
        elif not await self._may_be_some():
            await self._rest()
            return 0.0
        claim_s = round(CLAIM_S + LONGEST_S * len(self._app.archive_handlers))
        letters = await self._runner.run(take_dead_letters(self._queue, claim_s=claim_s, limit=AT_ONCE))
        if letters.task_ids:
            await asyncio.gather(*[self._tell(task_id, letters) for task_id in letters.task_ids])
            return 0.0
        await self._rest()
        return 0.0

    async def _may_be_some(self) -> bool:
        leadership = self._leadership
        if leadership is None or not leadership.has_looked:
            return True
        if leadership.leads:
            return leadership.has(Topic.LETTERS)
        # The program of the worker that leads may have other functions that want to know, or none.
        return bool(self._app.archive_handlers) and await self._runner.run(count_keys((self._queue.letters,))) > 0

    async def _rest(self) -> None:
        self.has_looked = not self._is_expected
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._soon.wait(), jittered(self._every_s))

    async def _tell(self, task_id: str, letters: DeadLetterBatch) -> None:
        again_in_s: int | None = None
        try:
            stored = await self._runner.run(look(self._queue, task_id))
            if stored is not None and stored.state is TaskState.ARCHIVED:  # else it was run again, or deleted
                # The message may name another task, and handlers act on the one they are given.
                task = replace(task_info(stored), queue=self._queue.name, id=task_id)
                await call_coroutine(partial(self._tell_of, task), None)
        except (BrokerError, WireFormatError) as error:
            logger.error("an archived task cannot be told of yet: %s", error, extra=self._facts(task_id))
            again_in_s = self._again_in_s
        except Exception:
            logger.exception("telling of an archived task failed; it is done again", extra=self._facts(task_id))
            again_in_s = self._again_in_s
        await self._runner.run(end_dead_letter(self._queue, task_id, until_s=letters.until_s, again_in_s=again_in_s))

    async def _tell_of(self, task: TaskInfo) -> None:
        with self._app.runtime.tracing.continued(task.headers):
            for handler in tuple(self._app.archive_handlers):
                await self._call(handler, task)
            wanted = read_dead_letter(task.headers)
            if wanted is not None:
                with contextlib.suppress(TaskIdConflictError):  # it was enqueued before
                    await self._app.aenqueue(self._letter(task, *wanted))

    async def _call(self, handler: ArchiveHandler, task: TaskInfo) -> None:
        call = partial(handler.function, task)
        if handler.is_coroutine:
            await call_coroutine(call, LONGEST_S)
            return
        await self._threads.run(
            partial(self._traced, task, call),
            queue=self._queue,
            ident=task.id,
            name=f"handler of archived tasks {handler.name}",
            timeout_s=LONGEST_S,
        )

    def _traced(self, task: TaskInfo, call: Any) -> object:
        with self._app.runtime.tracing.continued(task.headers):
            return self._app.timetable.guard(call)()

    def _letter(self, task: TaskInfo, queue: str, name: str) -> Signature[Any]:
        """Return the call that is enqueued for an archived task. None is enqueued for that one in turn."""
        arguments = letter_arguments(task)
        options: Any = {"queue": queue, "task_id": letter_id(task), "dead_letter": None}
        known = self._app.find_task(name)
        if isinstance(known, Task):
            takes_all = known.codec.named_rest is not None
            taken = {name: value for name, value in arguments.items() if takes_all or name in known.codec.parameters}
            return Signature(known.using(**options), (), taken)
        return self._app.remote(name, **options).s(**arguments)

    def _facts(self, task_id: str) -> dict[str, object]:
        return {"queue": self._queue.name, "task_id": task_id}

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()


def wants_letter(app: TaskQ, message: TaskMessage) -> bool:
    """Whether somebody is to be told of a task that is archived."""
    return bool(app.archive_handlers) or DEAD_LETTER in message.headers
