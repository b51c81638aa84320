"""Celery's code in one file as taskq's.

A task is rewritten as a whole or not at all: its decorator, its parameter `self` and what it does with it. Calls are
rewritten one by one, where what they call is known to be a task, a signature, a canvas or a result.
"""

import ast
from collections.abc import Iterator

from taskq_core.migration.calls import CALLED, Calls
from taskq_core.migration.kinds import Kinds
from taskq_core.migration.names import CANVAS, is_app_made, is_task_decorator
from taskq_core.migration.rewriting import File, joined, literal
from taskq_core.migration.routes import Routes
from taskq_core.migration.schedules import CannotTranslateError
from taskq_core.migration.source import Part
from taskq_core.migration.tasks import Decorated, body_edits, options_sent, task_options
from taskq_core.migration.values import Configured, Settings, setting_name, taskq_dict

_LOOKED_AT = ("ready", "successful", "failed", "status", "state", "result", "info", "traceback", "date_done")
_HANDLE_HINTS = dict.fromkeys(_LOOKED_AT, "ask handle.refresh() for state, result and last_error") | {
    "forget": "a result is gone when its retention is over",
    "revoke": "handle.cancel() also ends a task that runs",
    "children": "a workflow has handle.graph()",
    "parent": "a workflow has handle.graph()",
}

_OF_TASKS = (
    *("apply_async", "apply", "subtask", "signature", "chunks", "run", "request", "retry", "update_state", "app"),
    *("max_retries", "default_retry_delay", "AsyncResult", "backend", "rate_limit", "ignore_result"),
)
"""What tasks of Celery have and tasks here have not."""


class Rewriter:
    """Rewrites one file.

    Args:
        file: The file.
        configured: Where settings go.
        routes: Which queue tasks go to that name none, None where none is set, or not such as can be put onto them.

    Attributes:
        moved: Names of Celery's that are imported from taskq now.
    """

    def __init__(self, file: File, *, configured: Configured, routes: Routes | None) -> None:
        self.moved: set[str] = set()
        self._file = file
        self._source, self._names, self._project, self._app = file.source, file.names, file.project, file.app
        self._configured = configured
        self._routes = routes
        self._kind = Kinds(file.source, file.names, file.project).of
        self._calls = Calls(file, routes)

    def rewrite_tasks(self) -> None:
        """Put the edits of tasks into the source. To be done in all files before the rest, which asks what was left."""
        for node in ast.walk(self._source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._function(node)

    def rewrite_rest(self) -> None:
        """Put the edits of calls, workflows, imports and settings into the source."""
        for node in ast.walk(self._source.tree):
            if isinstance(node, ast.Call):
                self._calls.rewrite(node)
            elif isinstance(node, ast.Attribute):
                self._attribute(node)
            elif isinstance(node, ast.ClassDef) and any(map(self._is_task_class, node.bases)):
                self._file.mark(
                    node, "a task is a function; what a class did is middleware or a lifespan of the worker"
                )
        self._canvas_imports()
        self._settings()

    def _is_task_class(self, base: ast.expr) -> bool:
        """Whether a base class is `celery.Task`, or the `Task` of an app."""
        if isinstance(base, ast.Attribute) and base.attr == "Task" and self._names.is_app(base.value, self._project):
            return True
        return self._names.celery(base) in ("Task", "app.task.Task")

    def _attribute(self, node: ast.Attribute) -> None:
        """Mark what handles and tasks do not have here, and signatures of tasks that stay Celery's."""
        kind = self._kind(node.value)
        if kind == "handle" and node.attr in _HANDLE_HINTS:
            self._file.mark(node, f".{node.attr}: {_HANDLE_HINTS[node.attr]}")
        elif kind == "task" and node.attr in _OF_TASKS:
            above = self._source.parent(node)
            if not (isinstance(above, ast.Call) and above.func is node and node.attr in CALLED):
                self._file.mark(node, f".{node.attr} has no equal that could be put here")
        elif kind in ("signature", "canvas") and node.attr in ("link", "link_error"):
            self._file.mark(node, f".{node.attr} changes a signature; on_success() and on_error() return a copy")
        elif kind == "left" and node.attr in ("s", "si", "signature", "subtask"):
            self._file.mark(node, "a task that stays Celery's cannot be part of a workflow of taskq")

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        found = [each for each in node.decorator_list if is_task_decorator(each, self._names, self._project)]
        if not found:
            return
        decorator = found[0]
        wanted = {module: set(names) for module, names in self._file.wanted.items()}
        dotted = f"{self._names.module}.{node.name}"
        try:
            self._check_shape(node)
            decorated = Decorated(node, decorator, self._names)
            edits = list(body_edits(decorated, self._source, self._file.want))
            options, notes = task_options(decorated, self._source, self._file.want)
            self._route(dotted, decorated, options)
            maker = (
                f"{self._file.want(self._app, self._file.module)}.task"
                if self._app
                else self._file.want("task", self._file.module)
            )
            arguments: list[Part] = ["(", *joined(options), ")"] if options else []
            edits.append((decorator, (maker, *arguments)))
            if not all(self._source.can_replace(place, *new) for place, new in edits):
                raise CannotTranslateError("a comment stands where its code changes")
        except CannotTranslateError as error:
            self._file.wanted = wanted
            self._project.leave(dotted)
            self._file.mark(node, f"{node.name} is left to Celery: {error}")
            return
        self._project.sent[dotted] = options_sent(options, self._source)
        for place, new in edits:
            self._source.replace(place, *new)
        for note in notes:
            self._file.note(node, f"{node.name}: {note}")
        made = decorator.func if isinstance(decorator, ast.Call) else decorator
        root = made
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name):
            self._file.replaced.add(root.id)

    def _route(self, dotted: str, decorated: Decorated, options: list[list[Part]]) -> None:
        """Put the queue that Celery's routes give to a task beside its other options, unless it names one itself."""
        known = self._project.task_at(dotted)
        if self._routes is not None and known is not None and "queue" not in decorated.options:
            queue = self._routes.queue_of(known)
            if queue is not None:
                options.append([f"queue={literal(queue)}"])

    def _check_shape(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        above = self._source.parent(node)
        if not isinstance(above, ast.Module | ast.If | ast.Try):
            raise CannotTranslateError("a task is a function of a module")
        if node.args.vararg or node.args.kwarg:
            raise CannotTranslateError("a task names its parameters, so that a payload can be checked: no * and **")
        if node.args.posonlyargs:
            raise CannotTranslateError("arguments travel by name, so none may be positional only")
        if any(isinstance(each, ast.Yield | ast.YieldFrom) for each in ast.walk(node)):
            raise CannotTranslateError("it is a generator, which would never run")

    # --- imports and settings -----------------------------------------------------------------------------------------

    def _canvas_imports(self) -> None:
        """Have chain, group and chord imported from taskq under the names that the file uses."""
        for name, origin in self._names.imported.items():
            module, _, what = origin.rpartition(".")
            if module in ("celery", "celery.canvas") and what in CANVAS and name not in self._names.own:
                self._file.wanted.setdefault("taskq_core", set()).add(what if name == what else f"{what} as {name}")
                self.moved.add(name)
            elif origin == "celery.utils.log.get_task_logger":
                self._loggers(name)

    def _loggers(self, name: str) -> None:
        for node in ast.walk(self._source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                if "logging" not in self._names.imported and "logging" in self._names.bound:
                    return
                self._source.replace(node.func, "logging.getLogger")
                self._file.wanted.setdefault("logging", set()).add("")
                self._file.replaced.add(name)

    def _settings(self) -> None:
        if self._app:
            self._app_settings(self._configured)
        else:
            self._app_settings(Configured())
            self._django_settings()

    def _taking(self, configured: Configured, *, in_place: bool) -> Settings:
        return Settings(self._source, self._names, self._project, configured, routes=self._routes, in_place=in_place)

    def _django_settings(self) -> None:
        body = self._source.tree.body
        found = [(setting_name(target.id), node) for node, target in _assigned(body)]
        known = [(name, node) for name, node in found if name is not None]
        if not any(target.id.startswith("CELERY") for _, target in _assigned(body)):
            return
        if any(target.id == "TASKQ" for _, target in _assigned(body)):
            self._file.note(known[0][1], "there is a TASKQ already, so Celery's settings were left alone")
            return
        configured = Configured()
        settings = self._taking(configured, in_place=True)
        for name, node in known:
            self._take(settings, name, node.value, node)
        if configured:
            self._source.insert_after(known[-1][1], "\n" + taskq_dict(configured))
        for name, origin in self._names.imported.items():
            if origin == "celery.schedules.crontab":
                self._file.note(known[0][1], f"once the settings of Celery are gone, so is the use of {name}")

    def _app_settings(self, configured: Configured) -> None:
        """Take what is said to a Celery app: in its making, in `app.conf`, and in `app.conf.update`."""
        settings = self._taking(configured, in_place=False)
        for node in self._source.tree.body:
            if isinstance(node, ast.Assign) and is_app_made(node.value, self._names):
                for each in node.value.keywords:
                    name = {"broker": "broker_url", "backend": "result_backend"}.get(each.arg or "")
                    if name and self._app:
                        self._take(settings, name, each.value, node)
                continue
            for name, value in self._conf(node):
                if self._app:
                    self._take(settings, name, value, node)
                else:
                    self._file.mark(node, f"{name} belongs into the setting TASKQ")

    def _conf(self, node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Attribute) and self._is_conf(target.value):
                yield target.attr, node.value
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            function = node.value.func
            if isinstance(function, ast.Attribute) and function.attr == "update" and self._is_conf(function.value):
                for each in node.value.keywords:
                    yield each.arg or "**", each.value
                for value in node.value.args:
                    yield "update(...)", value

    def _is_conf(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == "conf" and self._names.is_app(node.value, self._project)

    def _take(self, settings: Settings, name: str, value: ast.expr, node: ast.stmt) -> None:
        try:
            needless = settings.take(name, value)
        except CannotTranslateError as error:
            (self._file.note if self._configured.is_there else self._file.mark)(node, str(error))
        else:
            if needless:
                self._file.note(node, needless)


def _assigned(body: list[ast.stmt]) -> list[tuple[ast.Assign, ast.Name]]:
    return [
        (node, target)
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
