"""Register and run tasks of Django's framework as tasks of taskq.

`BackendTask` is registered under the default name, `module.qualname`, and a worker runs it like any other task. Around
the function it follows the framework's rules: it passes the context, returns JSON values, and sends signals.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

from asgiref.sync import sync_to_async

from taskq_core import Discard, PayloadError, Snooze, Task, TaskContext, TaskHandle, TaskInfo, TaskQError
from taskq_core.codec import References
from taskq_core.handles.attempts import class_path, origin_of, traceback_text
from taskq_core.tasks.options import TaskOptions, task_options
from taskq_core.telemetry import RunOutcome
from taskq_django.app import taskq
from taskq_django.tasks_backend import framework
from taskq_django.tasks_backend.codec import REFUSAL, JsonArgumentsCodec
from taskq_django.tasks_backend.facts import read_facts
from taskq_django.tasks_backend.framework import (
    AnyResult,
    AnyTask,
    TaskResultStatus,
    normalize_json,
    task_finished,
    task_started,
)
from taskq_django.tasks_backend.options import DEFAULTS
from taskq_django.tasks_backend.results import UNKNOWN_WORKER, StoredTaskError, called, new_result, put, set_status
from taskq_django.tasks_backend.signalling import (
    Announcer,
    announcement_of,
    asend_signal,
    open_announcements,
    send_failure_signal,
    send_signal,
)
from taskq_django.tasks_backend.tasks import options_of

logger = logging.getLogger("taskq.django")

_running: dict[tuple[str, str], AnyResult] = {}
"""Results of current runs by queue and task id, until their outcome is known."""


class BackendTask(Task[..., Any]):
    """A task of Django's framework in taskq's registry.

    Attributes:
        task: The framework's task.
    """

    interface = "django.tasks"

    def __init__(self, task: AnyTask) -> None:
        self.task = task
        self.is_coroutine = inspect.iscoroutinefunction(task.func)
        self._merged: tuple[object, object, TaskOptions] | None = None
        super().__init__(task.func, name=None, strict=False, options=options_of(task), enqueuer=taskq)
        self.takes_context = True
        self.body = self._arun if self.is_coroutine else self._run
        self.result_type = Any

    def _make_codec(
        self, function: Callable[..., Any], strict: bool, injected: frozenset[str], references: References | None
    ) -> JsonArgumentsCodec:
        """Return a codec that ignores annotations, as the framework does."""
        injected = frozenset({"context"}) if self.task.takes_context else frozenset()
        return JsonArgumentsCodec(function, name=self.name, injected=injected, strict=strict)

    @property
    def json_codec(self) -> JsonArgumentsCodec:
        """The codec of the task's arguments, typed as `JsonArgumentsCodec`."""
        return cast("JsonArgumentsCodec", self.codec)

    @property
    def backend(self) -> Any:
        """The backend in the definition of the task."""
        return self.task.get_backend()

    @property
    def options(self) -> TaskOptions:
        """Options of the task. They override the options of the backend, which override the settings.

        A task of another backend has no backend options.
        """
        defaults = self._enqueuer.task_defaults
        of_backend = getattr(self.backend, "own_defaults", None)
        known = self._merged
        if known is None or known[0] is not defaults or known[1] is not of_backend:
            own = {} if of_backend is None else {**of_backend, "queue": self.backend.queue_for(self.task)}
            merged = {**DEFAULTS, **defaults, **own, **self._own_options}
            known = self._merged = (defaults, of_backend, task_options(merged))
        return known[2]

    def using(self, **options: Any) -> "BackendTask":
        """Return a copy with other options, as `Task.using` does."""
        copy = super().using(**options)
        copy._merged = None
        return copy

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function directly, in the calling code and without a context."""
        return self.function(*args, **kwargs)

    # --- runs ---------------------------------------------------------------------------------------------------------

    def _run(self, context: TaskContext, /, **arguments: object) -> object:
        """Run a plain function in the worker's thread."""
        run = _Run(self, context, arguments)
        if context.retried:
            with _reading_attempts(self, context) as handle:
                run.remember(handle.refresh())
        if run.announcement is not None:
            run.announcement.send()
        send_signal(task_started, run.sender, run.result)
        with run:
            run.check()
            value = normalize_json(self.function(*run.args, **run.kwargs))
            run.succeed(value)
            send_signal(task_finished, run.sender, run.result)
        return value

    async def _arun(self, context: TaskContext, /, **arguments: object) -> object:
        """Run a coroutine function on the worker's event loop."""
        run = _Run(self, context, arguments)
        if context.retried:
            with _reading_attempts(self, context) as handle:
                run.remember(await handle.arefresh())
        if run.announcement is not None:
            await sync_to_async(run.announcement.send, thread_sensitive=True)()
        await asend_signal(task_started, run.sender, run.result)
        with run:
            run.check()
            value = normalize_json(await self.function(*run.args, **run.kwargs))
            run.succeed(value)
            await asend_signal(task_finished, run.sender, run.result)
        return value


class _Run:
    """One run of a task, with its `TaskResult`, which the function and the receivers of signals get.

    As a context manager it ends the run, unless `RunObserver` reports its end later.
    """

    def __init__(self, task: BackendTask, context: TaskContext, arguments: Mapping[str, object]) -> None:
        self._facts = read_facts(context.headers, task.task)
        self._refusal = cast("PayloadError | None", arguments.get(REFUSAL))
        args, kwargs = (
            ([], {}) if self._refusal is not None else task.json_codec.split(arguments, self._facts.positional)
        )
        self._key = (context.queue, context.id)
        self._worker = context.worker
        self.result = new_result(called(task.task, self._facts), context.id, args, kwargs)
        self.sender = type(self.result.task.get_backend())
        self.announcement = announcement_of(context.id)
        now = datetime.now(UTC)
        put(
            self.result,
            status=TaskResultStatus.RUNNING,
            enqueued_at=self._facts.enqueued_at,
            started_at=now,
            last_attempted_at=now,
            worker_ids=[*([UNKNOWN_WORKER] * context.retried), self._worker],
        )
        self.args: list[Any] = self.result.args
        self.kwargs: dict[str, Any] = self.result.kwargs
        if task.task.takes_context:
            self.args = [framework.TaskContext(task_result=self.result), *self.args]

    def remember(self, info: TaskInfo | None) -> None:
        """Add stored errors and times of earlier attempts to the result."""
        if info is not None and info.worker == self._worker:
            set_status(self.result, info, self._facts)

    def check(self) -> None:
        """Raise the error of a payload that does not fit the function.

        Raises:
            PayloadError: The payload does not fit.
        """
        if self._refusal is not None:
            raise self._refusal

    def __enter__(self) -> None:
        _running[self._key] = self.result

    def __exit__(self, kind: object, error: BaseException | None, stack: object) -> None:
        if isinstance(error, Snooze | Discard | KeyboardInterrupt):  # the framework has no signal for these outcomes
            _running.pop(self._key, None)

    def succeed(self, value: object) -> None:
        """Set the result's status and return value after the function has returned."""
        _running.pop(self._key, None)
        put(self.result, status=TaskResultStatus.SUCCESSFUL, _return_value=value)
        object.__setattr__(self.result, "finished_at", None)
        put(self.result, finished_at=datetime.now(UTC))
        if self.announcement is not None:
            self.announcement.outcome = self.result


@contextmanager
def _reading_attempts(task: BackendTask, context: TaskContext) -> Iterator[TaskHandle[Any]]:
    """Yield a handle to read the earlier attempts of a task.

    If the read fails, the run continues, and its result has only the number of the attempts.
    """
    handle: TaskHandle[Any] = TaskHandle(
        taskq.runtime.source, id=context.id, queue=context.queue, name=task.name, is_kept=True
    )
    try:
        yield handle
    except TaskQError as error:
        logger.warning(
            "cannot read the earlier attempts of task %s: %s",
            context.name,
            error,
            extra={"queue": context.queue, "task_id": context.id},
        )


class RunObserver(Announcer):
    """Sends `task_finished` of failed runs of the framework's tasks. Successful runs send it themselves."""

    def wants_ended(self, outcome: str) -> bool:
        """Return whether a task of the framework is running that may have ended with this outcome."""
        return bool(_running) and outcome != RunOutcome.COMPLETED

    def ended(self, context: TaskContext, result: object, error: BaseException | None) -> None:
        """Send `task_finished` if the task is archived. A task that will be retried has not finished."""
        known = _running.pop((context.queue, context.id), None)
        if known is None or error is None or context.outcome != RunOutcome.ARCHIVED:
            return
        origin = origin_of(error)
        known.errors.append(StoredTaskError(exception_class_path=class_path(origin), traceback=traceback_text(origin)))
        put(known, status=TaskResultStatus.FAILED, finished_at=datetime.now(UTC))
        send_failure_signal(task_finished, type(known.task.get_backend()), known, origin)


taskq.observer.framework, taskq.observer.announced = RunObserver(), open_announcements
