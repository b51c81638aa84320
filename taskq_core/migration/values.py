"""Celery's settings as taskq's, and its beat schedule as `SCHEDULE`.

Values are carried over as they are written, so that what comes from the environment still does.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from taskq_core.migration.names import Names, Project
from taskq_core.migration.routes import Routes
from taskq_core.migration.schedules import CannotTranslateError, seconds_of, spec_of
from taskq_core.migration.source import Source

_OLD_NAMES = {"broker_url": "broker_url", "celerybeat_schedule": "beat_schedule", "celery_timezone": "timezone"}
"""Names of before Celery 4 that begin otherwise."""
_NEEDLESS = {
    "accept_content": "payloads are JSON",
    "task_serializer": "payloads are JSON",
    "result_serializer": "payloads are JSON",
    "enable_utc": "times are aware",
    "result_backend": "a result is kept with its task, for its `retention`",
    "task_acks_late": "a task is settled when it has ended",
    "task_reject_on_worker_lost": "a task of a lost worker runs again",
    "task_acks_on_failure_or_timeout": "a failed task is settled",
    "task_track_started": "the state `active` is always told",
    "task_send_sent_event": "events need not be switched on",
    "worker_send_task_events": "events need not be switched on",
    "worker_prefetch_multiplier": "a worker takes tasks for free slots only",
    "broker_connection_retry": "a worker always connects again",
    "broker_connection_retry_on_startup": "a worker always connects again",
    "broker_connection_max_retries": "a worker always connects again",
    "task_create_missing_queues": "a queue is there with its first task",
    "task_store_errors_even_if_ignored": "the error stands with the archived task",
    "worker_hijack_root_logger": "logging is left to the project",
    "beat_scheduler": "schedulers are part of taskq",
    "imports": "tasks are found in tasks.py, or imported by the module of the TaskQ",
}
_PLAIN = {
    "timezone": "time_zone",
    "worker_concurrency": "concurrency",
    "task_always_eager": "eager",
    "task_eager_propagates": "eager_propagates",
}
_DEFAULTS = {
    "task_default_queue": "queue",
    "result_expires": "retention",
    "task_time_limit": "timeout",
    "task_soft_time_limit": "timeout",
}


@dataclass(slots=True)
class Configured:
    """Settings of taskq as pieces of code, by their name in lower case.

    Attributes:
        values: What is plain.
        defaults: Options of all tasks.
        schedule: Periodic tasks, by their id.
        is_there: The settings are written down already, so what cannot be taken is told and not marked.
    """

    values: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)
    schedule: dict[str, dict[str, str]] = field(default_factory=dict)
    is_there: bool = False

    def __bool__(self) -> bool:
        return bool(self.values or self.defaults or self.schedule)

    def lines(self, *, upper: bool) -> Iterator[str]:
        """Yield the lines of a dict with names in upper case, or of keyword arguments."""

        def put(name: str, value: str) -> str:
            return f'    "{name.upper()}": {value},' if upper else f"    {name}={value},"

        for name, value in self.values.items():
            yield put(name, value)
        if "queue" in self.defaults and "queues" not in self.values:
            yield put("queues", f"[{self.defaults['queue']}]")
        if self.defaults:
            yield put("defaults", "{" + ", ".join(f'"{name}": {text}' for name, text in self.defaults.items()) + "}")
        if self.schedule:
            yield put("schedule", "{").removesuffix(",")
            for entry, values in self.schedule.items():
                yield f"        {entry}: {{{', '.join(f'{_quoted(key)}: {text}' for key, text in values.items())}}},"
            yield "    },"


def _quoted(key: str) -> str:
    return f'"{key}"'


def queue_module(configured: Configured, name: str) -> str:
    """Return a module that makes a `TaskQ` of settings."""
    lines = list(configured.lines(upper=False))
    head = ["from taskq_core import TaskQ", ""]
    if any("os." in line for line in lines):
        head = ["import os", "", *head]
    return "\n".join([*head, f"{name} = TaskQ(", *lines, ")", ""])


def taskq_dict(configured: Configured) -> str:
    """Return Django's setting `TASKQ`."""
    return "\n".join(["TASKQ = {", *configured.lines(upper=True), "}"])


def setting_name(text: str) -> str | None:
    """Return Celery's own name of a setting of Django, None for what is no setting of Celery."""
    lower = text.lower()
    if lower in _OLD_NAMES:
        return _OLD_NAMES[lower]
    return lower.removeprefix("celery_") if lower.startswith("celery_") else None


def is_movable(node: ast.expr) -> bool:
    """Whether a value means the same in another file: it is written out, or comes from the environment."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return names <= {"os"} and not any(isinstance(each, ast.Lambda | ast.Await | ast.Yield) for each in ast.walk(node))


class Settings:
    """Takes Celery's settings one after the other.

    Args:
        source: The file they stand in.
        names: What its names mean.
        project: What is known of the tasks.
        configured: Where they go.
        routes: Which queue tasks go to, None where that cannot be put onto them.
        in_place: They stay in their file, so that they may use its names.
    """

    def __init__(
        self,
        source: Source,
        names: Names,
        project: Project,
        configured: Configured,
        *,
        routes: Routes | None,
        in_place: bool,
    ) -> None:
        self._source = source
        self._names = names
        self._project = project
        self._configured = configured
        self._routes = routes
        self._in_place = in_place

    def take(self, name: str, value: ast.expr) -> str | None:
        """Take a setting over, or leave it out if taskq needs none.

        Returns:
            Why it is not needed, None if it was taken.

        Raises:
            CannotTranslateError: It has no equal.
        """
        if name in _NEEDLESS:
            if name.endswith(("serializer", "content")) and "pickle" in self._source.read(value):
                raise CannotTranslateError(f"{name}: payloads are JSON, pickle is not read")
            return f"{name} is not needed: {_NEEDLESS[name]}"
        if name == "beat_schedule":
            self._take_schedule(value)
            return None
        if name in ("task_routes", "routes"):
            return self._take_routes()
        if name == "task_ignore_result":
            return "task_ignore_result is not needed: nothing is kept without `retention`"
        if not self._in_place and not is_movable(value):
            raise CannotTranslateError(f"{name}: its value is not written out")
        text = self._source.read(value)
        if name == "broker_url":
            if isinstance(value, ast.Constant) and not str(value.value).startswith(("redis://", "rediss://")):
                raise CannotTranslateError("broker_url: taskq needs Redis or Valkey")
            self._configured.values["url"] = text
        elif name in _PLAIN:
            if name.startswith("task_") and not self._in_place:
                raise CannotTranslateError(f"{name}: tests use taskq_core.testing")
            self._configured.values[_PLAIN[name]] = text
        elif name in _DEFAULTS:
            seconds = seconds_of(value) if name != "task_default_queue" else None
            if _DEFAULTS[name] in self._configured.defaults and name == "task_time_limit":
                return "task_time_limit is not needed beside task_soft_time_limit"
            self._configured.defaults[_DEFAULTS[name]] = text if seconds is None else f"{seconds:g}"
        else:
            raise CannotTranslateError(f"{name} has no equal that could be put here")
        return None

    def _take_routes(self) -> str:
        if self._routes is None:
            raise CannotTranslateError(
                'task_routes: only a dict of names or patterns to {"queue": "..."} can be put onto tasks'
            )
        others = self._routes.without_task(self._project.tasks())
        if others:
            raise CannotTranslateError(
                f"task_routes: no rewritten task is called {', '.join(others)}; the others have the option queue"
            )
        return "task_routes is not needed: tasks have the option queue now; name the queues in QUEUES, for workers"

    def _take_schedule(self, value: ast.expr) -> None:
        if not isinstance(value, ast.Dict):
            raise CannotTranslateError("beat_schedule is not written out")
        problems = []
        for key, entry in zip(value.keys, value.values, strict=True):
            if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                problems.append("an entry of beat_schedule has no name that is written out")
                continue
            try:
                self._configured.schedule[repr(key.value).replace("'", '"')] = self._entry(entry)
            except CannotTranslateError as error:
                problems.append(f"beat entry {key.value!r} was left out: {error}")
        if problems:
            raise CannotTranslateError("; ".join(problems))

    def _entry(self, entry: ast.expr) -> dict[str, str]:
        if not isinstance(entry, ast.Dict):
            raise CannotTranslateError("it is not written out")
        given: dict[str, ast.expr] = {}
        for key, value in zip(entry.keys, entry.values, strict=True):
            if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                raise CannotTranslateError("it is not written out")
            given[key.value] = value
        unknown = given.keys() - {"task", "schedule", "args", "kwargs", "options", "relative", "enabled"}
        task, schedule = given.get("task"), given.get("schedule")
        if unknown or task is None or schedule is None:
            raise CannotTranslateError(f"it has {sorted(unknown) or 'no task or schedule'}")
        if not isinstance(task, ast.Constant) or not isinstance(task.value, str):
            raise CannotTranslateError("its task is not written out")
        if self._project.is_left(task.value):
            raise CannotTranslateError("its task stays Celery's")
        spec = spec_of(schedule)
        found = {"task": self._source.read(task), "cron": f'"{spec}"'}
        kwargs = self._kwargs(task.value, given.get("args"), given.get("kwargs"))
        if kwargs:
            found["kwargs"] = kwargs
        return found | dict(self._options(given.get("options")))

    def _kwargs(self, task: str, args: ast.expr | None, kwargs: ast.expr | None) -> str:
        pieces = []
        if args is not None:
            if not isinstance(args, ast.List | ast.Tuple):
                raise CannotTranslateError("its args are not written out")
            known = self._project.task_named(task)
            if args.elts and (known is None or known.parameters is None or len(args.elts) > len(known.parameters)):
                raise CannotTranslateError(
                    "its arguments have to be kwargs, and the names of the parameters are not known"
                )
            for name, value in zip(known.parameters or () if known else (), args.elts, strict=False):
                pieces.append(f'"{name}": {self._moved(value)}')
        if kwargs is not None:
            if not isinstance(kwargs, ast.Dict):
                raise CannotTranslateError("its kwargs are not written out")
            for key, value in zip(kwargs.keys, kwargs.values, strict=True):
                if key is None:
                    raise CannotTranslateError("its kwargs are not written out")
                pieces.append(f"{self._moved(key)}: {self._moved(value)}")
        return "{" + ", ".join(pieces) + "}" if pieces else ""

    def _options(self, options: ast.expr | None) -> Iterator[tuple[str, str]]:
        if options is None:
            return
        if not isinstance(options, ast.Dict):
            raise CannotTranslateError("its options are not written out")
        for key, value in zip(options.keys, options.values, strict=True):
            name = key.value if isinstance(key, ast.Constant) else None
            if name not in ("queue", "expires"):
                raise CannotTranslateError(f"its option {name!r} has no equal")
            seconds = seconds_of(value)
            yield str(name), self._moved(value) if seconds is None else f"{seconds:g}"

    def _moved(self, value: ast.expr) -> str:
        if not self._in_place and not is_movable(value):
            raise CannotTranslateError("its values are not written out")
        return self._source.read(value)
