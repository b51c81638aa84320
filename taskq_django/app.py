"""The queue application of a Django project: one `TaskQ` that follows the settings.

Tasks register with it at import. It reads the settings at the first use, and again after `override_settings`, and keeps
the registered tasks. It does not connect to Redis before the first enqueue.
"""

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from django.apps import apps

from taskq_core import (
    AsyncClient,
    Client,
    ConfigurationError,
    Settings,
    TaskDefinitionError,
    TaskQ,
)
from taskq_core.client.outbox import Outbox
from taskq_core.client.runtime import Runtime, Store
from taskq_core.client.sender import TransactionHook
from taskq_core.settings import EnqueueMode
from taskq_core.tasks.handlers import E, error_handler, origin
from taskq_core.tasks.task import Task
from taskq_django.bridge import DjangoBridge
from taskq_django.conf import read_settings
from taskq_django.middleware import DatabaseMiddleware, on_healthy_connections
from taskq_django.propagation import PropagateMiddleware, propagated
from taskq_django.references import ModelReferences
from taskq_django.sending import SignalMiddleware, SignalObserver
from taskq_django.transaction import CommitHook, ImmediateHook

UNKNOWN_NAMES_MAX = 1000
"""Maximum number of unknown task names that are cached, so that a handler of unknown tasks does not search again at
each run."""


class DjangoTaskQ(TaskQ):
    """A `TaskQ` that takes its settings from Django.

    Whatever uses the settings raises `ConfigurationError` while the `TASKQ` setting is not usable.
    """

    references = ModelReferences()
    """Encodes model instances in arguments as their primary keys."""
    process_set_up = "taskq_django.task_process:set_up"
    unknown_task_hint = "if it is a task of this project, add its module to TASKQ['AUTODISCOVER']"
    built_in = frozenset({"taskq:send-mail"})
    observer: SignalObserver
    """Sends the signals."""
    outbox: Outbox | None = None
    """The outbox in the project's databases. `apps.ready` sets it, once the models are loaded."""
    find_elsewhere: Callable[[str], Task[Any, Any] | None] | None = None
    """Finds a task of `django.tasks` that was declared for another backend. `apps.ready` sets it."""

    mail_queues: Callable[[], set[str]] = staticmethod(set)
    """Returns the queues of the mailers. `apps.ready` sets it."""

    def __init__(self) -> None:
        super().__init__()
        self.observer = SignalObserver(self.tasks)
        self._is_current = False
        self._takes_for_committed = False
        self._sought: set[str] = set()
        self._eager: Store | None = None
        self.bridge = DjangoBridge()
        self.conflicts: list[TaskDefinitionError] = []
        """Tasks whose names were taken, found while Django started. A system check reports them."""
        self._reading = threading.RLock()
        self.use(DatabaseMiddleware())
        self.use(PropagateMiddleware(lambda: self.settings.propagate))
        self.use(SignalMiddleware(self.tasks))
        self.timetable.guard = on_healthy_connections

    def reload(self) -> None:
        """Read the settings again at the next use."""
        with self._reading:
            self._is_current = False
            self._sought.clear()
            self.close()

    def configure(self, settings: Settings, *, transaction: TransactionHook | None = None) -> None:
        """Use these settings instead of Django's, until Django's settings change."""
        with self._reading:
            self.propagate = partial(propagated, settings.propagate)
            super().configure(settings, transaction=transaction)
            self._is_current = True

    def on_error(self, function: E) -> E:
        """Call a function after every failed run, with healthy database connections. As `TaskQ.on_error`."""
        self.error_handlers.append(error_handler(function, guard=on_healthy_connections))
        return function

    def _follow_settings(self) -> None:
        if self._is_current:
            return
        with self._reading:
            if not self._is_current:
                settings = read_settings()
                if settings.eager and settings.enqueue is EnqueueMode.OUTBOX:
                    # EAGER uses no outbox. As with an outbox, tasks are sent at the commit.
                    settings = replace(settings, enqueue=EnqueueMode.ON_COMMIT)
                self.configure(settings, transaction=self._transaction_hook(settings))
                self._set_eager(settings)
                if settings.eager or self._takes_for_committed:
                    from taskq_django.test_cases import take_for_committed  # imported late, because only tests need it

                    self._takes_for_committed = settings.eager
                    take_for_committed(settings.eager)

    def _transaction_hook(self, settings: Settings) -> TransactionHook | None:
        if settings.enqueue is EnqueueMode.ON_COMMIT:
            return CommitHook(self)
        if settings.enqueue is EnqueueMode.IMMEDIATE and not settings.eager:
            return ImmediateHook()
        return None

    @property
    def is_diverted(self) -> bool:
        """Whether `EAGER` or a test replaces Redis."""
        _ = self.settings  # reading the settings applies a change of EAGER
        return self._diverted is not None

    def _set_eager(self, settings: Settings) -> None:
        """Apply the setting `EAGER`: start or stop running tasks at once. If a test has replaced Redis, do nothing."""
        eager = self._eager
        if eager is not None and self._diverted is eager:
            if settings.eager and eager.propagates == settings.eager_propagates:
                return
            self._divert(None)
        if settings.eager and self._diverted is None:
            from taskq_core.testing.captured import StandingEager  # slow: it imports the worker

            self._eager = StandingEager(self).store
            self._divert(self._eager)

    def waiting_note(self) -> str:
        """Return a sentence about tasks of this thread that wait for a commit, for errors of tests. "" if none wait."""
        from taskq_django.test_cases import waiting_note  # imported late, because only tests need it

        return waiting_note()

    def divert(self, store: Store | None) -> Store | None:
        """Send all tasks to another store, or with None to the Redis of the settings again. As `TaskQ.divert`."""
        if store is None:
            self._is_current = False  # read the settings at the next use, because `EAGER` may have to be applied now
        return self._divert(store)

    def _divert(self, store: Store | None) -> Store | None:
        self._ready = None
        return super().divert(store)

    def refuse_eager(self, what: str) -> None:
        """Refuse to start a service that would never receive a task.

        Args:
            what: The service, such as "a worker", for the error.

        Raises:
            ConfigurationError: `EAGER` is set: tasks run where they are enqueued and never reach Redis.
        """
        if self.settings.eager:
            raise ConfigurationError(
                f"TASKQ['EAGER'] is set: each task runs where it is enqueued, and {what} would never receive one"
            )

    @property
    def settings(self) -> Settings:
        """The current settings."""
        self._follow_settings()
        return super().settings

    @property
    def task_defaults(self) -> Mapping[str, Any]:
        """Options of every task that does not set its own."""
        self._follow_settings()
        return super().task_defaults

    def find_task(self, name: str) -> Task[Any, Any] | None:
        """Return the task with a name, or None.

        A task of `django.tasks` may have been defined for another backend. It is searched in the modules that the
        setting `AUTODISCOVER` names. The search never imports a module.
        """
        task = super().find_task(name)
        if task is None and name not in self._sought and self.find_elsewhere is not None:
            task = self.find_elsewhere(name)
            if task is None and len(self._sought) < UNKNOWN_NAMES_MAX:
                self._sought.add(name)
        return task

    def task_queues(self) -> dict[str, list[str]]:
        """Return the names of the tasks of each queue. The task that sends e-mail has the queues of the mailers."""
        found = super().task_queues()
        queues = self.mail_queues()
        if queues:
            found = {queue: [name for name in names if name not in self.built_in] for queue, names in found.items()}
        for queue in queues:
            found.setdefault(queue, []).extend(self.built_in)
        return {queue: names for queue, names in found.items() if names}

    def registered_form(self, task: object) -> object:
        """Return the registered form of a task of `django.tasks`, and anything else unchanged."""
        path = getattr(task, "module_path", None)
        return (self.find_task(path) or task) if isinstance(path, str) else task

    def register(self, task: Task[Any, Any]) -> None:
        """Make a task known to workers.

        While Django starts, a duplicate name is added to `conflicts` instead of raised, so that the system checks
        report it. Until it is corrected, nothing is enqueued and no worker starts.

        Raises:
            TaskDefinitionError: Another function has the name, or the function is registered with both
                `taskq_django.task` and `django.tasks`.
        """
        try:
            known = self._tasks.get(task.name)
            if known is not None and known.interface != task.interface and origin(known) == origin(task):
                raise TaskDefinitionError(
                    f"{task.name!r} is already a task of {known.interface}; a function cannot also be a task of "
                    f"{task.interface}"
                )
            super().register(task)
        except TaskDefinitionError as error:
            if apps.ready:
                raise
            self.conflicts.append(error)
            self._ready = None

    def _open_runtime(self) -> Runtime:
        """Check whether this process may use Redis, and open the runtime of the current settings.

        Raises:
            TaskDefinitionError: Two tasks have one name.
            ConfigurationError: A test would use the Redis of the settings, and `REDIS_IN_TESTS` does not allow it.
        """
        if self.conflicts:
            raise self.conflicts[0]
        self._follow_settings()
        if are_tests_running():
            from taskq_django.test_cases import watch  # imported late, because only tests need it

            watch()
            if self._diverted is None and not self._settings.redis_in_tests:
                raise ConfigurationError(
                    "a test would use the Redis of TASKQ['URL']. Keep its tasks in memory: put "
                    "taskq_django.testing.TaskQTestMixin before the test case, as in class MyTest(TaskQTestMixin, "
                    "TransactionTestCase), use capture() or eager() of taskq_django.testing, or the pytest fixture "
                    "taskq_capture. If this Redis is for tests only, set TASKQ['REDIS_IN_TESTS'] = True"
                )
        return super()._open_runtime()


def are_tests_running() -> bool:
    """Return whether Django's test runner or pytest-django has set up this process for tests."""
    state = getattr(sys.modules.get("django.test.utils"), "_TestState", None)  # Django's test runner sets this
    return hasattr(state, "saved_data")


taskq = DjangoTaskQ()
"""The project's queue application."""

task = taskq.task
"""Decorator that registers a function as a task: `@task` or `@task(queue=..., ...)`."""

periodic = taskq.periodic
"""Decorator that enqueues a task periodically: `@periodic("*/5 * * * *")` above `@task`."""

schedule = taskq.schedule
"""Enqueues a call periodically: `schedule("@hourly", report.s(kind="sales"))`."""

aggregator = taskq.aggregator
"""Decorator for a function that combines each group of tasks into one task: `@aggregator("user:", grace=60)`."""


class _Current:
    """Forwards to the client of the current settings, so that an imported client follows changes of the settings."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(getattr(taskq, self._name), attribute)


client = cast("Client", _Current("client"))
"""Enqueues from blocking code, as `taskq.client`."""

async_client = cast("AsyncClient", _Current("async_client"))
"""Enqueues from coroutines, as `taskq.async_client`."""
