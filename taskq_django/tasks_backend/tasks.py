"""Define `TaskQTask`, a task of Django's framework with taskq's options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Self

from taskq_core import ConfigurationError, Unique
from taskq_core.settings import Duration
from taskq_core.tasks.options import check_call_options
from taskq_core.tasks.retry import RetryDelay
from taskq_django.tasks_backend.framework import AnyTask, InvalidTask
from taskq_django.tasks_backend.options import TASK_OPTIONS

_Errors = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, kw_only=True)
class TaskQTask(AnyTask):
    """The task that the framework's `@task` returns if its backend is `TaskQBackend`.

    It accepts taskq's task options in `using(...)`, and since Django 6.1 and with the package django-tasks also in
    `@task(...)`. None means the default of the backend's `OPTIONS` or of `TASKQ`.
    """

    run_after: datetime | timedelta | None = None  # type: ignore[assignment]  # the framework's field accepts no timedelta
    """Earliest start: a datetime, or a duration after each enqueue."""
    max_retry: int | None = None
    retry_delay: RetryDelay = field(default=None, hash=False)
    retry_on: _Errors | None = None
    no_retry_on: _Errors | None = None
    is_failure: Callable[[BaseException], bool] | None = None
    timeout: Duration | None = None
    deadline: datetime | None = None
    retention: Duration | None = None
    unique_for: Duration | None = None
    unique: Unique | None = None
    aggregate: str | None = None
    headers: Mapping[str, str] | None = field(default=None, hash=False)
    replicated: bool | int | None = None
    fsynced: bool | None = None

    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | timedelta | None = None,
        backend: str | None = None,
        **options: Any,
    ) -> Self:
        """Return a copy with other options: the framework's, or taskq's.

        Args:
            priority: -100 to 100, the higher the sooner.
            queue_name: Queue, one of the backend's `QUEUES`.
            run_after: Not before this moment, or this time after each enqueue.
            backend: Alias in `TASKS`. Other backends do not know taskq's options.
            **options: Task options of taskq: max_retry, timeout, retention, ... Set options that workers read from
                the registered task, such as retry_delay, in `@task(...)` or in the backend's `OPTIONS`.

        Raises:
            InvalidTask: The backend refuses an option.
            TypeError: An option is unknown.
        """
        try:
            check_call_options({name: options[name] for name in TASK_OPTIONS if options.get(name) is not None})
        except ConfigurationError as error:
            raise InvalidTask(str(error)) from error
        given = {"priority": priority, "queue_name": queue_name, "run_after": run_after, "backend": backend, **options}
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def options_of(task: AnyTask) -> dict[str, Any]:
    """Return the taskq options that a task sets itself. A task of another backend has none."""
    return {name: value for name in TASK_OPTIONS if (value := getattr(task, name, None)) is not None}
