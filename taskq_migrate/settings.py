"""Translate Celery's settings, routes and periodic tasks into taskq's settings.

Expressions are copied unchanged. So if the old code read a value from the environment, the new code does so too.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import libcst as cst
from libcst import matchers as m

from taskq_migrate.schedules import seconds_of, spec_of
from taskq_migrate.source import (
    OPTION_HINTS,
    CannotTranslateError,
    File,
    Node,
    Project,
    Task,
    assignments,
    bound,
    code,
    constant,
    elements,
    ends_with,
    entries,
    keywords,
    literal,
    makes_app,
    nodes,
    top_level,
)
from taskq_migrate.tasks import RESULT_KEPT_S

_OTHER_NAMES = {
    "broker": "broker_url",
    "backend": "result_backend",
    "eager_propagates_exceptions": "task_eager_propagates",
    "celeryd_task_time_limit": "task_time_limit",
    "celeryd_task_soft_time_limit": "task_soft_time_limit",
    "task_result_expires": "result_expires",
    "send_events": "worker_send_task_events",
    "include": "imports",
}
"""Current names of settings, by their name before Celery 4 or as an argument of `Celery(...)`."""
_HAS_NO_EVENTS = "taskq has no events; the dashboard, the metrics, on_error and on_archived replace their receivers"
_JSON = ("json", "application/json")
_NOT_JSON = "taskq payloads are JSON; pass values that JSON can represent, or annotate the parameters"
_NEEDLESS: dict[str, tuple[tuple[object, ...], str, str]] = {
    "accept_content": (_JSON, "payloads are JSON", _NOT_JSON),
    "result_accept_content": (_JSON, "payloads are JSON", _NOT_JSON),
    "task_serializer": (_JSON, "payloads are JSON", _NOT_JSON),
    "result_serializer": (_JSON, "payloads are JSON", _NOT_JSON),
    "enable_utc": (
        (True,),
        "taskq stores times in UTC",
        "set TIME_ZONE, in which cron lines are read, and pass datetimes with a time zone to run_after",
    ),
    "task_acks_late": (
        (True, False),
        "each task has options that settle it as before",
        "no literal; add no_retry_on=Exception instead of max_retry=0 to tasks that run again if a worker is killed",
    ),
    "task_ignore_result": (
        (True, False),
        "only tasks whose results the project reads have retention",
        "no literal; add retention=0 to tasks without a result",
    ),
    "task_default_rate_limit": ((...,), "each task has the option rate_limit", "no literal; see rate_limit"),
    "task_reject_on_worker_lost": (
        (True, False),
        "a task with acks_late runs again if its worker is killed",
        "no literal; see max_retry and no_retry_on",
    ),
    "task_acks_on_failure_or_timeout": (
        (True,),
        "a task that fails is settled",
        "a failed task is archived, and `taskq task run` runs it again",
    ),
    "task_track_started": ((True, False), "a running task is always `active`", ""),
    "task_store_errors_even_if_ignored": ((True, False), "the error is always stored with the archived task", ""),
    "task_send_sent_event": ((False,), "there are no events", _HAS_NO_EVENTS),
    "worker_send_task_events": ((False,), "there are no events", _HAS_NO_EVENTS),
    "worker_prefetch_multiplier": ((...,), "a worker takes tasks for free slots only", ""),
    "broker_connection_retry": ((True,), "a worker always reconnects", "a worker always reconnects, and does not exit"),
    "broker_connection_retry_on_startup": (
        (True,),
        "a worker always reconnects",
        "a worker always reconnects, and does not exit",
    ),
    "broker_connection_max_retries": ((), "", "a worker always reconnects, and does not exit"),
    "task_create_missing_queues": (
        (True,),
        "a queue exists from its first task on",
        "a queue exists from its first task on; add each queue to QUEUES, so that workers serve it",
    ),
    "worker_hijack_root_logger": (
        (False,),
        "logging is configured by the project",
        "a worker does not change the handlers of the project; configure them in the project",
    ),
    "worker_pool": (
        ("threads",),
        "plain functions run in threads",
        "plain functions run in threads, and coroutines on the event loop; for CPU-bound tasks see --processes",
    ),
    "beat_scheduler": (
        ("celery.beat:PersistentScheduler", "celery.beat.PersistentScheduler"),
        "schedulers are part of taskq",
        "enter the periodic tasks of this scheduler in SCHEDULE, or in taskq's admin",
    ),
}
"""Settings without a successor: the values with which nothing is lost (`...`: all), the reason, and otherwise what the
user has to do."""
_PLAIN = {
    "broker_url": "url",
    "timezone": "time_zone",
    "worker_concurrency": "concurrency",
    "task_always_eager": "eager",
    "task_eager_propagates": "eager_propagates",
}
_DEFAULTS = {"task_default_queue": "queue", "result_expires": "retention", "task_soft_time_limit": "timeout"}


@dataclass(slots=True, kw_only=True)
class Setting:
    """A Celery setting found in a file, under its current name in Celery.

    `is_settings_file` is True if the new settings are written to the same file, so that the copied value may use names
    of that file.
    """

    name: str
    value: cst.BaseExpression
    file: File
    node: Node
    is_settings_file: bool = False


@dataclass(slots=True)
class Configured:
    """The translated taskq settings: source code by lowercase name."""

    values: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)
    schedule: dict[str, dict[str, str]] = field(default_factory=dict)
    queues: list[str] = field(default_factory=list)
    include: list[str] = field(default_factory=list)
    autodiscover: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.values, self.defaults, self.schedule, self.queues, self.include, self.autodiscover))

    def lines(self, *, upper: bool) -> Iterator[str]:
        """Yield the source lines: entries of a dict with uppercase names, or keyword arguments."""
        queues = list(dict.fromkeys([self.defaults.get("queue", '"default"'), *self.queues]))
        values = dict(self.values)
        if queues != ['"default"']:
            values["queues"] = f"[{', '.join(queues)}]"
        for name, modules in (("include", self.include), ("autodiscover", self.autodiscover)):
            if modules:
                values[name] = f"[{', '.join(dict.fromkeys(modules))}]"
        if self.defaults:
            values["defaults"] = "{" + ", ".join(f'"{name}": {text}' for name, text in self.defaults.items()) + "}"
        for name, value in values.items():
            yield f'    "{name.upper()}": {value},' if upper else f"    {name}={value},"
        if self.schedule:
            yield '    "SCHEDULE": {' if upper else "    schedule={"
            for entry, options in self.schedule.items():
                inner = ", ".join(f'"{key}": {text}' for key, text in options.items())
                yield f"        {literal(entry)}: {{{inner}}},"
            yield "    },"


def queue_module(configured: Configured, name: str) -> str:
    """Return the source code of a module that creates a `TaskQ` with these settings."""
    lines = list(configured.lines(upper=False))
    head = ["import os", ""] if any("os." in line for line in lines) else []
    return "\n".join([*head, "from taskq_core import TaskQ", "", f"{name} = TaskQ(", *lines, ")", ""])


# --- find settings ----------------------------------------------------------------------------------------------------


def django_settings(file: File) -> list[Setting]:
    """Return the Celery settings in a Django settings file."""
    found = []
    for line, name, value in assignments(file):
        if name.startswith("CELERY") or name == "BROKER_URL":
            found.append(Setting(name=current_name(name), value=value, file=file, node=line, is_settings_file=True))
    return found


def current_name(name: str) -> str:
    """Return the name of a setting since Celery 4, such as `task_acks_late` for `CELERY_ACKS_LATE`."""
    name = name.lower().removeprefix("celery_")
    name = _OTHER_NAMES.get(name, name)
    name = re.sub("^celerybeat_", "beat_", re.sub("^celeryd_", "worker_", name))
    known = {*_NEEDLESS, *_PLAIN, *_DEFAULTS, "beat_schedule", "task_routes", "task_queues", "task_time_limit"}
    return f"task_{name}" if name not in known and f"task_{name}" in known else name


def app_settings(file: File, files: Iterable[File]) -> Iterator[Setting]:
    """Yield the settings of a Celery app: its constructor arguments, `app.conf`, and its settings module."""
    conf = m.Attribute(attr=m.Name("conf"))
    statement: Any  # typed as Any, because mypy does not see that `matches` checks the type
    for line, statement in top_level(file):
        value: Any = getattr(statement, "value", statement)
        given: dict[str, cst.BaseExpression] = {}
        if makes_app(file, value):
            given = {name: each for name, each in keywords(value).items() if name in ("broker", "backend", "include")}
        elif m.matches(statement, m.Assign(targets=[m.AssignTarget(m.Attribute(conf))])):
            target = statement.targets[0].target
            given = {target.attr.value: value} if file.is_app(target.value.value) else {}
        elif m.matches(value, m.Call(m.Attribute(conf, m.Name("update")))) and file.is_app(value.func.value.value):
            given = keywords(value)
        elif m.matches(value, m.Call(m.Attribute(attr=m.Name("config_from_object")))) and file.is_app(value.func.value):
            yield from _settings_module(file, value, files)
        for name, each in given.items():
            yield Setting(name=current_name(name) or "update()", value=each, file=file, node=line)


def _settings_module(file: File, call: cst.Call, files: Iterable[File]) -> Iterator[Setting]:
    """Yield the settings of the module that `config_from_object` names."""
    given = call.args[0].value if call.args else None
    module = constant(given) if isinstance(given, cst.SimpleString) or given is None else file.dotted(given)
    found = [each for each in files if isinstance(module, str) and ends_with(each.module, module)]
    if not found and "django.conf" not in str(module):
        file.mark(call, "config_from_object: these settings were not found; write them into the settings of taskq")
    for other in found:
        for line, name, value in assignments(other):
            if not name.startswith("_"):
                yield Setting(name=current_name(name), value=value, file=other, node=line)


def task_defaults(settings: Iterable[Setting]) -> dict[str, cst.BaseExpression]:
    """Return the options of the decorator that settings set for all tasks."""
    names = {"task_acks_late": "acks_late", "task_ignore_result": "ignore_result"}
    names["task_default_rate_limit"] = "rate_limit"
    found = [(names[each.name], each.value) for each in settings if each.name in names]
    return {name: value for name, value in reversed(found) if constant(value) not in (..., None, False)}


def route_tasks(settings: Iterable[Setting], project: Project) -> None:
    """Set the queue of tasks that `task_routes` names."""
    found = [each for each in settings if each.name == "task_routes"]
    routes = _routes(found[0].value)[0] if len(found) == 1 else {}
    project.is_routed = len(found) == 1
    for task in project.tasks:
        exact = next((name for name in task.names if name in routes), None)
        patterns = (each for each in routes if "*" in each and any(fnmatchcase(name, each) for name in task.names))
        route = exact or next(patterns, None)
        task.queue = routes[route] if route else None


def _routes(value: cst.BaseExpression) -> tuple[dict[str, str], list[str]]:
    """Return queues by task name or pattern, and what else the routes contain.

    Celery takes a dict, or a list of dicts, pairs and functions. The value of a route is a dict or a queue.
    """
    found: dict[str, str] = {}
    others = []
    for part in elements(value) or [value]:
        pair = elements(part) or ()
        routes = [(constant(pair[0]), pair[1])] if len(pair) == 2 else entries(part)
        if routes is None or (len(pair) != 2 and not isinstance(part, cst.Dict)):
            others.append(f"{code(part)} is not a literal route")
        for name, route in routes or ():
            options = dict(entries(route) or [("queue", route)])
            queue = constant(options.pop("queue", None))
            if not isinstance(name, str) or not isinstance(queue, str):
                others.append(f"the route of {name if isinstance(name, str) else '...'} has no literal queue")
                continue
            found.setdefault(name, queue)
            others += [f"{name}: {key}: {OPTION_HINTS.get(str(key), 'no equivalent')}" for key in options]
    return found, others


# --- translating ------------------------------------------------------------------------------------------------------


class Settings:
    """Translates Celery settings and collects the taskq settings.

    Args:
        project: The tasks and apps.
        is_django: Whether the result is Django's setting `TASKQ`.
        is_quiet: True if an earlier run of the command has written the settings. A setting without equivalent then
            causes a hint instead of a comment in the file.
    """

    def __init__(self, project: Project, *, is_django: bool, is_quiet: bool = False) -> None:
        self.configured = Configured()
        self.is_quiet = is_quiet
        self._project = project
        self._is_django = is_django

    def take(self, setting: Setting) -> None:
        """Translate a setting.

        Add a comment above a setting without equivalent, or a hint if taskq does not need the setting.
        """
        try:
            self._take(setting)
        except CannotTranslateError as error:
            (setting.file.note if self.is_quiet else setting.file.mark)(setting.node, str(error))

    def _take(self, setting: Setting) -> None:
        name, value = setting.name, setting.value
        if constant(value) is None:
            return
        if name in _NEEDLESS:
            harmless, reason, todo = _NEEDLESS[name]
            values = [constant(each) for each in elements(value) or [value]]
            is_unclear = bool(todo) and ... in values
            if is_unclear or (... not in harmless and not all(each in harmless for each in values)):
                raise CannotTranslateError(f"{name}: {todo or 'the value is not a literal'}")
            setting.file.note(setting.node, f"{name} is not needed: {reason}")
        elif name == "result_backend":
            text = "results are stored in Redis, by tasks with retention: those whose results this project reads"
            if re.match(r"django-|db\+|mongodb|file|s3|elasticsearch", str(constant(value))):
                raise CannotTranslateError(f"result_backend: {text}; a program that reads this backend finds none")
            setting.file.note(setting.node, f"result_backend: {text}; add it if other programs read more")
        elif name == "imports":
            self._include(setting)
        elif name == "beat_schedule":
            self._take_schedule(setting)
        elif name == "task_routes":
            self._take_routes(setting)
        elif name == "task_queues":
            self._take_queues(setting)
        elif name == "task_time_limit":  # Celery kills a task at this limit; taskq only with executor="process"
            self.configured.defaults.setdefault("timeout", self._text(setting, value))
        elif name in _PLAIN:
            text = self._text(setting, value)
            address = constant(value)
            if name == "broker_url" and isinstance(address, str) and not address.startswith(("redis", "unix")):
                raise CannotTranslateError("broker_url: taskq needs Redis or Valkey")
            if name.startswith("task_") and not self._is_django:
                raise CannotTranslateError(f"{name} has no equivalent; use taskq_core.testing in tests")
            self.configured.values[_PLAIN[name]] = text
        elif name in _DEFAULTS:
            self.configured.defaults[_DEFAULTS[name]] = self._text(setting, value)
        else:
            raise CannotTranslateError(f"{name} has no equivalent")

    def _text(self, setting: Setting, value: cst.BaseExpression) -> str:
        """Return the source code for the value of a setting. Durations become seconds.

        Raises:
            CannotTranslateError: The value uses names of another file.
        """
        names = {each.value for each in nodes(value, cst.Name) if setting.file.dotted(each)}
        if not setting.is_settings_file and (names - {"os", "True", "False", "None"}):
            raise CannotTranslateError(f"{setting.name}: the value uses names of this file; copy it by hand")
        seconds = seconds_of(code(value))
        return code(value) if seconds is None else f"{seconds:g}"

    def _include(self, setting: Setting) -> None:
        """Add the modules of `imports` to the setting `INCLUDE`."""
        found = elements(setting.value)
        if found is None and isinstance(constant(setting.value), str):
            found = [setting.value]
        whole = [f"*{self._text(setting, setting.value)}"] if found is None else []
        self.configured.include += [*whole, *(self._text(setting, each) for each in found or ())]

    def _take_routes(self, setting: Setting) -> None:
        routes, problems = _routes(setting.value)
        names = [name for task in self._project.tasks if not task.left for name in task.names]
        others = [route for route in routes if not any(fnmatchcase(name, route) for name in names)]
        self.add_queues(literal(queue) for queue in routes.values())
        if others:
            problems.append(f"no rewritten task has the name {', '.join(others)}")
        if not self._project.is_routed:
            problems = ["it is set more than once; add the option queue to the tasks"]
        if problems:
            raise CannotTranslateError(f"task_routes: {'; '.join(problems)}")
        setting.file.note(setting.node, "task_routes is not needed: each task has the option queue")

    def _take_queues(self, setting: Setting) -> None:
        names = [name for name, _ in entries(setting.value) or ()]
        for each in elements(setting.value) or ():
            first = each.args[0].value if isinstance(each, cst.Call) and each.args else each
            names.append(constant(first))
        if not names or not all(isinstance(name, str) for name in names):
            raise CannotTranslateError(
                "task_queues: the names of the queues are not literals; list the queues in QUEUES"
            )
        self.add_queues(literal(name) for name in names)

    def add_queues(self, queues: Iterable[str]) -> None:
        """Add queues (source code of string literals) that workers have to serve."""
        self.configured.queues = list(dict.fromkeys([*self.configured.queues, *queues]))

    def keep_all_results(self) -> None:
        """Set the default option `retention` to the time for which Celery stores results."""
        self.configured.defaults.setdefault("retention", str(RESULT_KEPT_S))

    # --- periodic tasks -----------------------------------------------------------------------------------------------

    def _take_schedule(self, setting: Setting) -> None:
        written = entries(setting.value)
        if written is None:
            raise CannotTranslateError("beat_schedule is not a literal dict")
        problems = []
        for name, entry in written:
            try:
                if not isinstance(name, str):
                    raise CannotTranslateError("the name of the entry is not a literal")
                self.configured.schedule[name] = self._entry(setting, dict(entries(entry) or ()))
            except CannotTranslateError as error:
                problems.append(f"beat entry {name!r} was left out: {error}")
        if problems:
            raise CannotTranslateError("; ".join(problems))

    def _entry(self, setting: Setting, given: dict[str, cst.BaseExpression]) -> dict[str, str]:
        unknown = given.keys() - {"task", "schedule", "args", "kwargs", "options", "relative", "enabled"}
        name, schedule = constant(given.get("task")), given.get("schedule")
        if unknown or schedule is None or not isinstance(name, str):
            raise CannotTranslateError(
                f"the entry has unknown keys {sorted(unknown)}" if unknown else "the task or schedule is not a literal"
            )
        return self.entry(
            setting, name, schedule, given.get("args"), given.get("kwargs"), entries(given.get("options", cst.Dict([])))
        )

    def entry(
        self,
        setting: Setting,
        name: str,
        schedule: cst.BaseExpression,
        args: cst.BaseExpression | None,
        kwargs: cst.BaseExpression | None,
        options: list[tuple[str, cst.BaseExpression]] | None,
    ) -> dict[str, str]:
        """Translate a periodic task of Celery to an entry of `SCHEDULE`.

        Raises:
            CannotTranslateError: The entry has no equivalent.
        """
        task = self._project.named(name)
        if task is not None and task.left:
            raise CannotTranslateError("the task of the entry was not rewritten")
        found = {"task": literal(name), "cron": literal(spec_of(code(schedule)))}
        pieces = self._arguments(setting, task, args, kwargs)
        if pieces:
            found["kwargs"] = "{" + ", ".join(pieces) + "}"
        if options is None:
            raise CannotTranslateError("the options of the entry are not a literal dict")
        for option, value in options:
            if option not in ("queue", "expires"):
                raise CannotTranslateError(f"the option {option!r} of the entry has no equivalent")
            found[option] = self._text(setting, value)
            if option == "queue":
                self.add_queues([found[option]])
        return found

    def _arguments(
        self, setting: Setting, task: Task | None, args: cst.BaseExpression | None, kwargs: cst.BaseExpression | None
    ) -> list[str]:
        positional = elements(args) if args is not None else []
        named = entries(kwargs) if kwargs is not None else []
        if positional is None or named is None:
            raise CannotTranslateError("the arguments of the entry are not literals")
        parameters = (task.parameters if task is not None else None) or ()
        if len(positional) > len(parameters):
            raise CannotTranslateError(
                "the entry needs kwargs instead of args, because the task's parameter names are unknown"
            )
        pairs = [*zip(parameters, positional, strict=False), *named]
        return [f"{literal(str(name))}: {self._argument(setting, value)}" for name, value in pairs]

    def _argument(self, setting: Setting, value: cst.BaseExpression) -> str:
        self._text(setting, value)
        return code(value)


def discovered(file: File, call: cst.Call, settings: Settings, *, is_django: bool) -> None:
    """Translate a call of `autodiscover_tasks` into `INCLUDE` or `AUTODISCOVER`.

    Raises:
        CannotTranslateError: The call has no equivalent.
    """
    given = bound(call, ("packages", "related_name", "force"), "autodiscover_tasks")
    packages, related = given.get("packages"), constant(given.get("related_name", cst.SimpleString('"tasks"')))
    names = elements(packages) if packages is not None else None
    is_of_apps = is_django and (packages is None or "INSTALLED_APPS" in code(packages))
    if is_of_apps and isinstance(related, str):
        settings.configured.autodiscover += [literal("tasks"), literal(related)] if related != "tasks" else []
    elif names is not None and all(isinstance(constant(each), str) for each in names) and related is not ...:
        modules = [f"{constant(each)}.{related}" if related else constant(each) for each in names]
        known = {task.file.imported_as for task in file.project.tasks}
        settings.configured.include += [literal(each) for each in modules if each in known]
    else:
        raise CannotTranslateError("autodiscover_tasks: list the modules with tasks in INCLUDE or AUTODISCOVER")


def periodic_calls(file: File) -> Iterator[tuple[cst.FunctionDef, list[cst.Call]]]:
    """Yield each function that the app's start-up signals call, with its calls of `add_periodic_task`."""
    for node in file.tree.body:
        signals = [code(each.decorator) for each in node.decorators] if isinstance(node, cst.FunctionDef) else []
        if any(re.search(r"\.on_after_(configure|finalize)\.connect\b", each) for each in signals):
            made = [each for each in nodes(node, cst.Call) if code(each.func).endswith(".add_periodic_task")]
            yield cst.ensure_type(node, cst.FunctionDef), made


def is_spent(function: cst.FunctionDef, done: Collection[Node]) -> bool:
    """Return whether a function contains only imports once the calls in `done` are removed."""
    statements = [
        each
        for line in function.body.body
        for each in (line.body if isinstance(line, cst.SimpleStatementLine) else (line,))
    ]
    return all(
        isinstance(each, cst.Import | cst.ImportFrom | cst.Pass) or (isinstance(each, cst.Expr) and each.value in done)
        for each in statements
    )


def take_periodic_call(file: File, call: cst.Call, settings: Settings) -> None:
    """Translate a call of `add_periodic_task` into an entry of `SCHEDULE`.

    Raises:
        CannotTranslateError: The call is inside a condition or loop, or has no equivalent.
    """
    statement = file.parent(call)
    if not (
        isinstance(statement, cst.Expr)
        and isinstance(file.parent(file.parent(file.parent(statement))), cst.FunctionDef)
    ):
        raise CannotTranslateError("add_periodic_task is called in a condition or loop; list each entry in SCHEDULE")
    given = bound(call, ("schedule", "sig", "args", "kwargs", "name"), "add_periodic_task")
    signature, schedule = given.pop("sig", None), given.pop("schedule", None)
    args, kwargs, name = given.pop("args", None), given.pop("kwargs", None), constant(given.pop("name", None))
    meaning = file.meaning(signature) if signature is not None else None
    if schedule is None or meaning is None or meaning.kind not in ("task", "signature") or len(meaning.tasks) != 1:
        raise CannotTranslateError("add_periodic_task: the signature in this call is not of a known task")
    (task,) = meaning.tasks
    options = list(given.items())
    while isinstance(signature, cst.Call) and m.matches(signature.func, m.Attribute(attr=m.Name("set"))):
        options += keywords(signature).items()
        signature = cst.ensure_type(signature.func, cst.Attribute).value
    if isinstance(signature, cst.Call):
        if any(each.star for each in signature.args) or args is not None or kwargs is not None:
            raise CannotTranslateError("add_periodic_task: the arguments of this call are not literals")
        args = cst.List([cst.Element(each.value) for each in signature.args if not each.keyword])
        named = [(each.keyword.value, each.value) for each in signature.args if each.keyword]
        kwargs = cst.Dict([cst.DictElement(cst.SimpleString(literal(key)), value) for key, value in named])
    setting = Setting(name="add_periodic_task", value=schedule, file=file, node=statement)
    entry = settings.entry(setting, task.name, schedule, args, kwargs, options)
    settings.configured.schedule[name if isinstance(name, str) else _entry_name(task, settings)] = entry


def _entry_name(task: Task, settings: Settings) -> str:
    base = task.node.name.value
    number = sum(entry.split(" ")[0] == base for entry in settings.configured.schedule)
    return f"{base} {number + 1}" if number else base
