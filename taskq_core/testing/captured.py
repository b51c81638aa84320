"""`capture` and `eager`: replace Redis by a store in memory, and record the tasks that are enqueued.

The store is empty at first and private to the block. The store runs the same scripts as Redis: duplicate ids and unique
locks are refused, handles return states and results, and an `Inspector` can read it. It replaces Redis for the whole
queue application, in all threads and event loops, also for clients that were created before.
"""

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from taskq_core.app import TaskQ
from taskq_core.broker.memory import memory_endpoint
from taskq_core.broker.operations import runs as run_ops
from taskq_core.broker.operations import views
from taskq_core.broker.operations.new_tasks import NewTask
from taskq_core.client.runtime import Store
from taskq_core.errors import BrokerReplyError, ConfigurationError
from taskq_core.settings import Duration, EnqueueMode, seconds
from taskq_core.testing.inline import InlineWorker
from taskq_core.testing.passing import PassingTime, start_now
from taskq_core.testing.records import (
    Call,
    EnqueuedTask,
    TaskLike,
    TaskRun,
    describe,
    enqueued_task,
    failures,
    raise_failures,
)
from taskq_core.testing.steps import drive
from taskq_core.testing.watched import watched_store
from taskq_core.wire import QueueKeys, decode_message
from taskq_core.worker.run import Run

logger = logging.getLogger("taskq.testing")

MOST_RUNS = 10_000
"""Maximum number of runs in one call of `run`. It stops tasks that enqueue each other without end."""
MOST_INSIDE = 50
"""Maximum depth of eager tasks that enqueue each other. At a depth of about 80, Python would raise `RecursionError`."""
MOST_ATTEMPTS = 1_000
"""Maximum number of attempts of an eager task. It stops a task that snoozes without end."""

_inside: ContextVar[int] = ContextVar("taskq_inside", default=0)
"""Number of eager tasks, nested in each other, inside which this code runs."""


class Captured:
    """Records the tasks that are enqueued in a block, and their runs. It stays readable after the block.

    Attributes:
        enqueued: All stored tasks, in order, with later changes by `Unique`. Refused tasks are not included.
        runs: All ended runs, in order.
    """

    def __init__(self, app: TaskQ, *, state: Mapping[str, Any] | None = None, propagates: bool = False) -> None:
        self._app = app
        self._store = watched_store(memory_endpoint(), self, propagates=propagates)
        self._inline = InlineWorker(app, self._store.runner, state)
        self.enqueued: list[EnqueuedTask] = []
        self.runs: list[TaskRun] = []

    def __repr__(self) -> str:
        return f"<{len(self.enqueued)} tasks enqueued, {len(self.runs)} runs>"

    # --- look ---------------------------------------------------------------------------------------------------------

    def find(self, task: TaskLike, *args: object, queue: str | None = None, **kwargs: object) -> list[EnqueuedTask]:
        """Return the enqueued tasks that match a call. The arguments are those of `assert_enqueued`."""
        call = self._call(task, args, kwargs)
        return [each for each in self.enqueued if call.matches(each) and queue in (None, each.queue)]

    def _call(self, task: TaskLike, args: Sequence[object], kwargs: Mapping[str, object]) -> Call:
        return Call(self._app.registered_form(task), args, kwargs)

    def assert_enqueued(
        self, task: TaskLike, *args: object, count: int | None = None, queue: str | None = None, **kwargs: object
    ) -> list[EnqueuedTask]:
        """Check that a task was enqueued.

        Args:
            task: A task or its name, which match any call that has the arguments given here; or a signature,
                `task.s(...)`, which matches exactly this call.
            *args: Positional arguments.
            count: Required number of matching tasks. None: at least one.
            queue: Required queue. None: any queue.
            **kwargs: Arguments by name. Pass a signature if a parameter is named `count` or `queue`.

        Returns:
            The matching tasks, in order, for checks of their options.

        Raises:
            AssertionError: The task was not enqueued. The message lists the enqueued tasks with their arguments.
            TypeError: `task` is not a task, a name or a signature.
            TaskArgumentsError: The task has no such parameter, or the value does not match the annotation.
        """
        __tracebackhide__ = True
        found = self.find(task, *args, queue=queue, **kwargs)
        if (len(found) == count) if count is not None else found:
            return found
        note = self._app.waiting_note()
        expected = f"{self._call(task, args, kwargs)}{f' in {queue!r}' if queue is not None else ''}"
        problem = "was not enqueued" if count is None else f"was expected {_times(count)}, but {_times(len(found))}"
        raise AssertionError("\n".join(filter(None, (f"{expected} {problem}; {describe(self.enqueued)}", note))))

    def assert_not_enqueued(self, task: TaskLike, *args: object, queue: str | None = None, **kwargs: object) -> None:
        """Check that no matching call was enqueued. Takes the arguments of `assert_enqueued`.

        Raises:
            AssertionError: A matching call was enqueued.
        """
        __tracebackhide__ = True
        self.assert_enqueued(task, *args, count=0, queue=queue, **kwargs)

    def assert_nothing_enqueued(self) -> None:
        """Check that no task was enqueued.

        Raises:
            AssertionError: Tasks were enqueued. The message lists them.
        """
        __tracebackhide__ = True
        if self.enqueued:
            raise AssertionError(describe(self.enqueued))

    # --- run ----------------------------------------------------------------------------------------------------------

    def run(self, *, advance: Duration | None = None, raises: bool = True) -> list[TaskRun]:
        """Run all due tasks in this thread, and the tasks that they enqueue, until no task is due.

        Tasks whose code is in another program are not run.

        Args:
            advance: Simulate that this much time passes for scheduled tasks and retries. None: no time passes.
            raises: Raise the errors of failed tasks. False: only return the runs.

        Returns:
            The runs, in order.

        Raises:
            Exception: The last run of a task failed. It is the exception of the first such task.
        """
        return drive(self._run(advance, raises, on_loop=False))

    async def arun(self, *, advance: Duration | None = None, raises: bool = True) -> list[TaskRun]:
        """Run all due tasks from a coroutine, on this event loop, as `run` does."""
        return await self._run(advance, raises, on_loop=True)

    async def _run(self, advance: Duration | None, raises: bool, *, on_loop: bool) -> list[TaskRun]:
        first = len(self.runs)
        with closing(self._due(advance)) as due:
            for run in due:
                self._note(await self._inline.run(run, on_loop=on_loop))
        runs = self.runs[first:]
        if raises:
            raise_failures(runs)
        return runs

    def _note(self, run: TaskRun) -> None:
        self.runs.append(run)

    def _due(self, advance: Duration | None) -> Generator[Run, None, None]:
        """Yield due runs one after the other.

        When none is left, advance the time until further tasks are due, and yield their runs.
        """
        passing = PassingTime(
            self._store.runner, self._queues(), 0.0 if advance is None else seconds("advance", advance)
        )
        waiting: list[Run] = []
        left_alone: list[Run] = []
        count = 0
        try:
            while True:
                self._inline.dispatch(self._queues())
                for queue in self._queues():
                    for run in self._inline.take(queue):
                        (waiting if self._inline.can_run(run.name) else left_alone).append(run)
                if not waiting and (advance is None or not passing.skip()):
                    passing.finish()
                    return
                while waiting:
                    if count >= MOST_RUNS:
                        raise RuntimeError(f"tasks seem to enqueue each other without end: more than {count} runs")
                    count += 1
                    yield waiting.pop(0)
        finally:
            self._inline.give_back([*left_alone, *waiting])

    def _queues(self) -> list[QueueKeys]:
        """Return the queues of the settings, in the order of strict priority, and then all other queues."""
        keys = self._app.runtime.keys
        weights = self._app.settings.queues
        names = self._store.runner.run(views.list_queues(keys.queues))
        return [keys.queue(name) for name in sorted(names, key=lambda name: (-weights.get(name, 0), name))]

    # --- for the store ------------------------------------------------------------------------------------------------

    async def stored(self, tasks: Sequence[NewTask], *, on_loop: bool) -> None:
        """Record tasks that an enqueue has stored."""
        self._remember(tasks)

    async def signalled(self, queue_name: str, task_id: str, *, on_loop: bool) -> None:
        """Do nothing: the task waits until the test calls `run`."""

    async def begun(self, *, on_loop: bool) -> None:
        """Do nothing: started workflow steps wait until the test calls `run`."""

    def changed(self, task: NewTask, task_id: str) -> None:
        """Record that an enqueue changed an existing task instead of storing a new task (option `unique`)."""
        new = enqueued_task(task, self._app.tasks)
        is_moved = task.moves_start or new.run_after is not None or new.run_at is not None
        for position, known in enumerate(self.enqueued):
            if (known.id, known.queue) == (task_id, new.queue):
                args, start = known if task.moves_start else new, new if is_moved else known
                self.enqueued[position] = replace(args, id=task_id, run_after=start.run_after, run_at=start.run_at)

    def _remember(self, tasks: Sequence[NewTask]) -> None:
        self.enqueued += [enqueued_task(task, self._app.tasks) for task in tasks]


def _times(count: int) -> str:
    return f"{count} time{'' if count == 1 else 's'}"


class Eager(Captured):
    """Captures tasks, and runs each one inside the call that enqueues it.

    Args:
        app: The queue application.
        retries: Retry failed and snoozed tasks at once, until they succeed or are archived.
        propagates: Raise the final error of a task from the call that enqueues it. If several tasks are sent together,
            all of them run, and the first error is raised.
        state: See `capture`.
    """

    def __init__(
        self, app: TaskQ, *, retries: bool, propagates: bool = False, state: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(app, state=state, propagates=propagates)
        self._retries = retries

    async def stored(self, tasks: Sequence[NewTask], *, on_loop: bool) -> None:
        """Record tasks that an enqueue has stored, and run them."""
        self._remember(tasks)
        await self._run_at_once(self._runnable(tasks), on_loop)

    async def begun(self, *, on_loop: bool) -> None:
        """Run workflow steps that were started, and the steps that follow them."""
        await self._run_at_once(self._steps(), on_loop)

    async def signalled(self, queue_name: str, task_id: str, *, on_loop: bool) -> None:
        """Continue a task that received a signal, if it waits for nothing else."""
        await self._run_at_once(iter([(self._app.runtime.keys.queue(queue_name), task_id)]), on_loop, is_waiting=True)

    async def _run_at_once(
        self, tasks: Iterator[tuple[QueueKeys, str]], on_loop: bool, *, is_waiting: bool = False
    ) -> None:
        last: dict[str, TaskRun] = {}
        with _one_deeper():
            for queue, task_id in tasks:
                for run in self._attempts(queue, task_id, is_waiting=is_waiting):
                    last[task_id] = await self._inline.run(run, on_loop=on_loop)
                    self._note(last[task_id])
        if self._store.propagates:
            for error in failures(last.values()):
                raise error

    def _steps(self) -> Iterator[tuple[QueueKeys, str]]:
        """Yield each started workflow step once, including steps that start in the meantime."""
        known: set[tuple[str, str]] = set()
        while True:
            queues = self._queues()
            self._inline.dispatch(queues)
            found = [(queue, task_id) for queue in queues for task_id in self._inline.pending_steps(queue)]
            new = [(queue, task_id) for queue, task_id in found if (queue.name, task_id) not in known]
            if not new:
                return
            for queue, task_id in new:
                known.add((queue.name, task_id))
                yield queue, task_id

    def _runnable(self, tasks: Sequence[NewTask]) -> Iterator[tuple[QueueKeys, str]]:
        keys = self._app.runtime.keys
        for task in tasks:
            message = decode_message(task.message)
            if self._inline.can_run(message.type):
                yield keys.queue(message.queue), task.task_id

    def _attempts(self, queue: QueueKeys, task_id: str, *, is_waiting: bool = False) -> Iterator[Run]:
        """Yield each attempt of a task. The caller runs it.

        After an interruption there is another attempt, as in a worker. A sleep is skipped. A task that waits for a
        signal or for sub-tasks continues only if the signal was sent or the sub-tasks have ended.
        """
        left = MOST_ATTEMPTS if self._retries else 1
        while left:
            if not is_waiting:
                start_now(self._store.runner, queue, task_id)
            run = self._inline.claim(queue, task_id)
            if run is None:
                return
            yield run
            settlement = run.settlement
            is_waiting = (
                settlement is not None
                and settlement.outcome is run_ops.Outcome.WAIT
                and b" z:" not in settlement.record
            )
            if settlement is None or settlement.outcome not in (run_ops.Outcome.REQUEUE, run_ops.Outcome.WAIT):
                left -= 1


@contextmanager
def _one_deeper() -> Iterator[None]:
    """Count one more level of nested eager tasks while the block runs.

    Raises:
        BrokerReplyError: Too many tasks are nested. The caller gets the error from the enqueue.
    """
    inside = _inside.get() + 1
    if inside > MOST_INSIDE:
        raise BrokerReplyError(
            f"tasks seem to enqueue each other without end: {MOST_INSIDE} tasks run inside each other"
        )
    token = _inside.set(inside)
    try:
        yield
    finally:
        _inside.reset(token)


class StandingEager(Eager):
    """Runs tasks as `Eager` does, for the lifetime of a process. It records no tasks, and logs failures."""

    def __init__(self, app: TaskQ) -> None:
        super().__init__(app, retries=False, propagates=app.settings.eager_propagates)

    @property
    def store(self) -> Store:
        """The store that replaces Redis."""
        return self._store

    def _remember(self, tasks: Sequence[NewTask]) -> None:
        """Record nothing. The process may run for long, and the records would fill its memory."""

    def _attempts(self, queue: QueueKeys, task_id: str, *, is_waiting: bool = False) -> Iterator[Run]:
        """Yield the only attempt of a task. A failure is final, because nothing would retry the task later."""
        for run in super()._attempts(queue, task_id, is_waiting=is_waiting):
            run.message.retry = run.message.retried
            yield run

    def _note(self, run: TaskRun) -> None:
        if run.has_failed and not self._store.propagates:
            logger.error(
                "task %s failed",
                run.name,
                exc_info=run.error,
                extra={"queue": run.queue, "task_id": run.id, "attempt": run.attempt},
            )


@contextmanager
def capture(app: TaskQ, *, state: Mapping[str, Any] | None = None) -> Iterator[Captured]:
    """Capture the tasks that are enqueued in a `with` block. Nothing is sent to Redis, and no task runs by itself.

    Args:
        app: The queue application.
        state: Value of `context.state` for tasks that `run` runs, because worker lifespans run only in a worker, such
            as that of `drain`.

    Raises:
        ConfigurationError: `app` is not a TaskQ, or fakeredis is not installed. The extra `testing` installs it.

    Example:
        `with capture(taskq) as tasks: signup("a@b.c")`, then `tasks.assert_enqueued(send_email, to="a@b.c")`.
    """
    _check_app("capture", app)
    with _diverted(app, Captured(app, state=state)) as tasks:
        yield tasks


@contextmanager
def eager(
    app: TaskQ,
    *,
    retries: bool = False,
    raises: bool = True,
    propagates: bool = False,
    state: Mapping[str, Any] | None = None,
) -> Iterator[Captured]:
    """Run each task that is enqueued in a `with` block at once, inside the call that enqueues it.

    Arguments are encoded and decoded, middleware and traces work as in a worker, and results are read from the store.
    Delays are skipped. A plain function runs in the thread that enqueues it, and a coroutine ends before the call
    returns. The handle has the exception of a failed task; `propagates` also raises it from the enqueue.

    Args:
        app: The queue application.
        retries: Retry failed and snoozed tasks at once, until they succeed or are archived. False: failed and snoozed
            tasks wait.
        raises: Raise the errors of failed tasks at the end of the block, unless the block itself raises an error.
        propagates: Raise the error of a failed task from the call that enqueues it, such as `delay()`, instead of at
            the end of the block. With `retries`, the error of the last run. Tasks that are sent together all run first.
        state: See `capture`.

    Raises:
        Exception: The last run of a task in the block failed. It is the exception of the first such task.
        ConfigurationError: `app` is not a TaskQ, fakeredis is not installed (the extra `testing` installs it), or
            `propagates` is used with an outbox.
    """
    _check_app("eager", app)
    if propagates and app.settings.enqueue is EnqueueMode.OUTBOX:
        raise ConfigurationError(
            "propagates cannot be used with ENQUEUE = 'outbox', because the enqueue ends when the row is written"
        )
    with _diverted(app, Eager(app, retries=retries, propagates=propagates, state=state)) as tasks:
        yield tasks
    if raises and not propagates:
        raise_failures(tasks.runs)


def _check_app(function: str, app: object) -> None:
    if not isinstance(app, TaskQ):
        raise ConfigurationError(f"{function} takes a TaskQ, got {type(app).__name__}")


@contextmanager
def _diverted(app: TaskQ, tasks: Captured) -> Iterator[Captured]:
    before = app.divert(tasks._store)
    try:
        yield tasks
    finally:
        app.divert(before)
        tasks._store.close()
