"""Define `TaskQTask`, a task of Django's framework with taskq's options."""

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from taskq_core import ConfigurationError
from taskq_core.settings import nearest_hint
from taskq_core.tasks.options import check_call_options
from taskq_django.tasks_backend.framework import AnyTask, InvalidTask
from taskq_django.tasks_backend.options import REFUSED_OPTIONS, TASK_OPTIONS

if TYPE_CHECKING:
    _OptionsTask = AnyTask
else:  # type checkers cannot read these fields. Options may be unhashable, such as a dict.
    _OptionsTask = make_dataclass(
        "_OptionsTask",
        [(name, Any, field(default=None, hash=False)) for name in TASK_OPTIONS],
        bases=(AnyTask,),
        frozen=True,
        kw_only=True,
    )


@dataclass(frozen=True, kw_only=True)
class TaskQTask(_OptionsTask):
    """The task that the framework's `@task` returns if its backend is `TaskQBackend`.

    It has a field for each of taskq's task options in `TASK_OPTIONS`. It accepts them in `using(...)`, and since Django
    6.1 and with the package django-tasks also in `@task(...)`. None means the default of the backend's `OPTIONS` or of
    `TASKQ`.
    """

    run_after: datetime | timedelta | None = None  # type: ignore[assignment]  # the framework's field accepts no timedelta
    """Earliest start: a datetime, or a duration after each enqueue."""

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
            TypeError: An option is unknown, or tasks of the framework cannot have it.
        """
        for name in options:
            if name not in TASK_OPTIONS:
                reason = REFUSED_OPTIONS.get(name)
                hint = nearest_hint(name, TASK_OPTIONS) if reason is None else f": {reason}"
                raise TypeError(f"using() got an unexpected keyword argument {name!r}{hint}")
        given = _without_none(options)
        try:
            check_call_options(given)
        except ConfigurationError as error:
            raise InvalidTask(str(error)) from error
        own = {"priority": priority, "queue_name": queue_name, "run_after": run_after, "backend": backend}
        return replace(self, **given, **_without_none(own))


def options_of(task: AnyTask) -> dict[str, Any]:
    """Return the taskq options that a task sets itself. A task of another backend has none."""
    return _without_none({name: getattr(task, name, None) for name in TASK_OPTIONS})


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
