"""Find the files of a project, rewrite them together, and show or write the changes.

A file is written only if the new text is valid Python. The file keeps its encoding, line endings and permissions.
"""

import ast
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import libcst as cst
from libcst import matchers as m

from taskq_core.errors import ConfigurationError
from taskq_migrate.calls import Calls
from taskq_migrate.rewriting import Edits, Rewriter
from taskq_migrate.settings import (
    Configured,
    Setting,
    Settings,
    app_settings,
    discovered,
    django_settings,
    is_spent,
    periodic_calls,
    queue_module,
    route_tasks,
    take_periodic_call,
    task_defaults,
)
from taskq_migrate.source import (
    MARK,
    CannotTranslateError,
    File,
    Project,
    Task,
    assignments,
    constant,
    elements,
    find_apps,
    find_tasks,
    literal,
    top_level,
)
from taskq_migrate.tasks import check, untyped_dates
from taskq_migrate.usage import record_usage

_SKIPPED = {"node_modules", "site-packages", "__pycache__", "build", "dist"}
_MAKES_TASKS = re.compile(rb"celery|add_periodic_task|@[\w.]+\.task\b|broker_url|INSTALLED_APPS", re.IGNORECASE)
"""Matches files that define tasks or settings. Other files are parsed only if they contain the name of a task, and
`_USES_TASKS` matches."""
_USES_TASKS = re.compile(
    rb"\.(?:s|si|delay\w*|apply\w*|subtask|signature|chunks|map|starmap|AsyncResult|send_task)\b\s*\("
)
"""Matches files that call tasks or create signatures."""
_IMPORTS_DJANGO = re.compile(rb"^\s*(from|import) django\b", re.MULTILINE)
_APPS = {
    "django_celery_beat": "enter its periodic tasks in taskq's admin, then remove it",
    "django_celery_results": "taskq stores results with their tasks in Redis; remove it and its tables",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The queue application of the rewritten code: Django's adapter, or a `TaskQ` in a module.

    Attributes:
        module: The module to import from: `taskq_django`, or the module that contains the `TaskQ`.
        name: The name of the `TaskQ` in this module, "" for Django.
    """

    module: str = "taskq_django"
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Convert an option of the command, `django` or `module:name`, to a target.

        Raises:
            ConfigurationError: The text is neither `django` nor `module:name`.
        """
        if text == "django":
            return cls()
        module, colon, name = text.partition(":")
        if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
            raise ConfigurationError(f"a target must be django or MODULE:NAME, such as shop.queue:taskq, got {text!r}")
        return cls(module=module, name=name)


@dataclass(slots=True, kw_only=True)
class Change:
    """The change of one file.

    Attributes:
        path: The file.
        old: The text before the change; "" for a new file.
        new: The text after the change.
        notes: Hints that the user should read, as (line of the old text, sentence). The code works without a change.
        error: Reason why the file was not changed, "" if it was rewritten.
    """

    path: Path
    old: str = ""
    new: str = ""
    notes: list[tuple[int, str]] = field(default_factory=list)
    error: str = ""
    encoding: str = "utf-8"

    @property
    def is_change(self) -> bool:
        """Whether the new text differs from the old text."""
        return self.new != self.old

    @property
    def marks(self) -> list[tuple[int, str]]:
        """The comments in the new text that name code which was not translated, as (line, text)."""
        lines = enumerate(self.new.splitlines(), 1)
        return [(number, line.strip().removeprefix(MARK)) for number, line in lines if line.lstrip().startswith(MARK)]

    def diff(self) -> str:
        """Return the change as a unified diff, "" if nothing changed."""
        name = self.path.as_posix()
        before = "/dev/null" if not self.old and self.new else name
        lines = difflib.unified_diff(
            self.old.splitlines(keepends=True), self.new.splitlines(keepends=True), before, name
        )
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

    def write(self) -> None:
        """Replace the old text by the new one.

        Raises:
            OSError: The file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(self.new.encode(self.encoding))


@dataclass(slots=True, kw_only=True)
class Migration:
    """The result of a migration: the changes of all files that were read."""

    changes: list[Change]

    @property
    def changed(self) -> list[Change]:
        """The files whose text changes."""
        return [each for each in self.changes if each.is_change]

    @property
    def failed(self) -> list[Change]:
        """The files that could not be read or rewritten."""
        return [each for each in self.changes if each.error]


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield each Python file in some folders once. Skip virtual environments, hidden folders and links.

    Raises:
        ConfigurationError: A path does not exist.
    """
    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found = sorted(_walk(path))
        elif path.is_file():
            found = [path]
        else:
            raise ConfigurationError(f"no such file or folder: {str(path)!r}")
        for each in found:
            if each.resolve() not in seen:
                seen.add(each.resolve())
                yield each


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = [
            each
            for each in folders
            if not each.startswith(".") and each not in _SKIPPED and not (Path(root, each) / "pyvenv.cfg").exists()
        ]
        yield from (Path(root, each) for each in files if each.endswith(".py") and not Path(root, each).is_symlink())


def migrate_celery(paths: Sequence[Path], target: Target | None = None) -> Migration:
    """Return the changes that rewrite Celery code in files and folders for taskq. Nothing is written.

    Args:
        paths: Files, and folders that are searched for `*.py`. Only calls of tasks in these files are rewritten.
        target: The queue application of the new code. None: Django's adapter, if one of the files imports Django.

    Raises:
        ConfigurationError: A path does not exist, or no target is given and no file imports Django.
    """
    project, changes = Project(), [Change(path=path) for path in find_files(paths)]
    texts = {change.path: _read(change) for change in changes}
    is_django = any(_IMPORTS_DJANGO.search(data) for data in texts.values())
    files: dict[Path, File] = {}
    _parse((each for each in changes if _MAKES_TASKS.search(texts[each.path])), texts, files, project)
    for find in (find_apps, find_tasks):
        for file in files.values():
            find(file)
    names = {name for task in project.tasks for name in (task.node.name.value, task.name)}
    words = {re.split(r"\W", name)[-1].encode() for name in names}
    others = (each for each in changes if each.path not in files and not each.error)
    used = (
        each
        for each in others
        if _USES_TASKS.search(texts[each.path]) and not words.isdisjoint(re.findall(rb"\w+", texts[each.path]))
    )
    _parse(used, texts, files, project)
    if target is None:
        if not is_django:
            raise ConfigurationError("no file imports Django; give the TaskQ of the new code with --to MODULE:NAME")
        target = Target()
    queue_path = None if not target.name else _queue_path(paths[0], target)
    edits = Edits(module=target.module, app=target.name)
    plan = _Plan(list(files.values()), project, edits, is_quiet=queue_path is not None and queue_path.exists())
    plan.read()
    for change in changes:
        if change.path in files:
            _rewrite(change, files[change.path], edits)
    if queue_path is not None and plan.settings.configured:
        changes.append(_queue_file(queue_path, target, plan.settings.configured))
    return Migration(changes=changes)


def _read(change: Change) -> bytes:
    try:
        return change.path.read_bytes()
    except OSError as error:
        change.error = f"the file cannot be read: {error}"
        return b""


def _parse(changes: Iterable[Change], texts: dict[Path, bytes], files: dict[Path, File], project: Project) -> None:
    for change in changes:
        try:
            files[change.path] = file = File(change.path, texts[change.path], project)
            change.encoding = file.tree.encoding
            change.old = change.new = texts[change.path].decode(change.encoding)
        except (cst.ParserSyntaxError, SyntaxError, ValueError, RecursionError) as error:
            change.error = f"the file cannot be read: {error}"


class _Plan:
    """Reads all files, and collects the project's tasks, its settings, and the edits to make."""

    def __init__(self, files: list[File], project: Project, edits: Edits, *, is_quiet: bool) -> None:
        self.files, self.project, self.edits, self.is_django = files, project, edits, not edits.app
        self.settings = Settings(project, is_django=self.is_django, is_quiet=is_quiet)

    def read(self) -> None:
        """Read all files: settings, then tasks, then calls."""
        of_files = {file: django_settings(file) for file in self.files} if self.is_django else {}
        of_app = [each for file in self.files for each in app_settings(file, self.files)]
        every = [*of_app, *(each for found in of_files.values() for each in found)]
        self.edits.is_strict = any(
            each.name == "task_time_limit" and constant(each.value) is not None for each in every
        )
        route_tasks(every, self.project)
        defaults = task_defaults(every)
        for task in self.project.tasks:
            task.options = defaults | dict(task.options)
        self._check_tasks()
        for file in self.files:
            record_usage(file, self.settings)
        if any(each.name == "result_expires" for each in every) or "retention" in self.settings.configured.defaults:
            for task in self.project.tasks:
                task.is_read = False  # a default retention for all tasks exists, so this task needs no option for it
        for task in self.project.tasks:
            queue = constant(task.options.get("queue"))
            if isinstance(queue, str) and not task.left:
                self.settings.add_queues([literal(queue)])
            for name in untyped_dates(task) if not task.left else ():
                task.file.mark(task.node, f"annotate {name}: without a type, a date or a decimal arrives as text")
        if not self.is_django:
            self._take(self.settings, of_app)
            return
        main = self._main_file(of_files) if every or self.project.tasks else None
        if main is None:
            for each in of_app:
                each.file.mark(each.node, f"move {each.name} to the setting TASKQ")
            return
        self._configure_django(main, of_files, of_app)

    def _check_tasks(self) -> None:
        for task in self.project.tasks:
            try:
                check(task)
            except CannotTranslateError as error:
                task.left = str(error)
        calls = [(file, Calls(file)) for file in self.files]
        refused = [(file, *found) for file, of_file in calls for found in of_file.refused()]
        for file, node, tasks, text in refused:
            file.mark(node, text)
            for task in tasks:
                self._leave(task, f"a call in {file.imported_as} cannot be rewritten: {text}")
        workflows: dict[Task, list[tuple[Task, ...]]] = {}
        for each in {tasks for _, of_file in calls for tasks in of_file.workflows() if len(tasks) > 1}:
            for task in each:
                workflows.setdefault(task, []).append(each)
        rest = [task for task in self.project.tasks if task.left]
        while rest:
            name = (task := rest.pop()).node.name.value
            for other in (each for tasks in workflows.pop(task, ()) for each in tasks if not each.left):
                self._leave(other, f"a workflow contains it and {name}, which also remains a Celery task")
                rest.append(other)

    def _leave(self, task: Task, why: str) -> None:
        task.left = task.left or why

    def _take(self, settings: Settings, found: list[Setting]) -> None:
        for each in found:
            settings.take(each)
        for file in self.files if settings is self.settings else ():
            for found_call in file.all(cst.Call):
                if m.matches(found_call.func, m.Attribute(attr=m.Name("autodiscover_tasks"))):
                    try:
                        discovered(file, found_call, settings, is_django=self.is_django)
                    except CannotTranslateError as error:
                        file.mark(found_call, str(error))
            for function, calls in periodic_calls(file):
                for call in calls:
                    try:
                        take_periodic_call(file, call, settings)
                        self.edits.done.add(call)
                    except CannotTranslateError as error:
                        file.mark(call, str(error))
                if is_spent(function, self.edits.done):
                    self.edits.done.add(function)

    # --- Django -------------------------------------------------------------------------------------------------------

    def _main_file(self, of_files: dict[File, list[Setting]]) -> File | None:
        """Return the settings file to which `TASKQ` is added: the file with `INSTALLED_APPS`."""
        for file in self.files:
            if any(name == "INSTALLED_APPS" for _, name, _ in assignments(file)):
                return file
        return next((file for file, found in of_files.items() if found), None)

    def _configure_django(self, main: File, of_files: dict[File, list[Setting]], of_app: list[Setting]) -> None:
        self._install(main)
        for file, found in of_files.items():
            written = next((line for line, name, _ in assignments(file) if name == "TASKQ"), None)
            settings = self.settings if file is main else Settings(self.project, is_django=True)
            settings.is_quiet = written is not None
            self._take(settings, [*found, *(of_app if file is main else ())])
            configured = settings.configured
            if file is main and any("@every" not in each["cron"] for each in configured.schedule.values()):
                # Without `time_zone`, taskq would use Django's TIME_ZONE, but Celery's default is UTC.
                configured.values.setdefault("time_zone", '"UTC"')
            if configured:
                is_of_other = any(
                    isinstance(statement, cst.ImportFrom) and isinstance(statement.names, cst.ImportStar)
                    for _, statement in top_level(file)
                )
                base = ["    **TASKQ,"] if file is not main and is_of_other else []
                text = "\n".join(["TASKQ = {", *base, *configured.lines(upper=True), "}", ""])
                place = (
                    found[-1].node
                    if found
                    else next(line for line, name, _ in assignments(file) if name == "INSTALLED_APPS")
                )
                if written is None:
                    self.edits.below[place] = text
                elif found:
                    file.note(written, "TASKQ exists already; it should contain Celery's settings:\n" + text)

    def _install(self, main: File) -> None:
        for line, name, value in assignments(main):
            if name != "INSTALLED_APPS":
                continue
            apps = [constant(each) for each in elements(value) or ()]
            for app in apps:
                if app in _APPS:
                    main.mark(line, f"{app}: {_APPS[app]}")
            if not apps:
                main.mark(line, "add taskq_django to INSTALLED_APPS")
            elif "taskq_django" not in apps:
                self.edits.installed = value


def _rewrite(change: Change, file: File, edits: Edits) -> None:
    try:
        tree = Rewriter(file, edits).result()
        ast.parse(tree.code)
        tree.code.encode(change.encoding)
        change.new = tree.code
    except (SyntaxError, ValueError) as error:
        change.error = f"the file was not changed: {error}"
    change.notes = file.notes


def _queue_path(path: Path, target: Target) -> Path:
    """Return the path of the new module with the `TaskQ`, in the folder that contains its top-level package."""
    base = path if path.is_dir() else path.parent
    parts = target.module.split(".")
    if base.name == parts[0] and not (base / parts[0]).is_dir():
        base = base.parent
    return base.joinpath(*parts).with_suffix(".py")


def _queue_file(path: Path, target: Target, configured: Configured) -> Change:
    change = Change(path=path)
    text = queue_module(configured, target.name)
    if path.exists():
        change.old = change.new = path.read_text(encoding="utf-8")
        change.notes.append((1, "the file exists already; it should contain Celery's settings:\n" + text))
    else:
        change.new = text
    return change
