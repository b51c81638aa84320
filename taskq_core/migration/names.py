"""What the names of a Celery project stand for: its tasks and its apps, and what a file has imported of them.

All files are looked at first, so that a call in one is known to be of a task of another. A file's dotted name begins
wherever its imports may begin, so names are compared by their ends: `shop.tasks.send` is in `src/shop/tasks.py`.
"""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

CANVAS = ("chain", "group", "chord")
_MODULES = ("celery", "celery_app", "celeryapp")


@dataclass(frozen=True, slots=True)
class Known:
    """A task of the project.

    Attributes:
        name: Its name in Celery.
        parameters: The names of its parameters, None where they are not plain.
        is_named_after_its_place: Whether its name is where it stands, so that it may begin later.
    """

    name: str
    parameters: tuple[str, ...] | None
    is_named_after_its_place: bool = True


@dataclass(frozen=True, slots=True)
class Sent:
    """What a caller has to say for a task that is sent by its name.

    Attributes:
        options: The options that travel with each call, as code.
        obstacle: An option that has to travel and cannot be written at the call, "" if all can.
    """

    options: list[str]
    obstacle: str = ""


class Project:
    """All that is known of the files together, by dotted names that begin at the root of the path.

    Attributes:
        apps: Celery's apps.
        sent: What a caller has to say for a task that is sent by its name, by dotted name.
    """

    def __init__(self) -> None:
        self.apps: set[str] = set()
        self.sent: dict[str, Sent] = {}
        self._tasks: dict[str, dict[str, Known]] = {}
        self._left: set[str] = set()

    def add_task(self, dotted: str, known: Known) -> None:
        """Note a task that a file defines."""
        self._tasks.setdefault(dotted.rpartition(".")[2], {})[dotted] = known

    def leave(self, dotted: str) -> None:
        """Leave a task to Celery, so that calls of it stay as they are."""
        self._left.add(dotted)

    def kind(self, dotted: str) -> str | None:
        """Return `task` for the name of a task, `left` for one that stays Celery's, None for anything else."""
        for name in self._tasks.get(dotted.rpartition(".")[2], ()):
            if _ends(name, dotted):
                return "left" if name in self._left else "task"
        return None

    def task_named(self, name: str) -> Known | None:
        """Return the task of a name in Celery, unless it stays Celery's."""
        found = self._find_named(name)
        return None if found is None or found[0] in self._left else found[1]

    def task_at(self, dotted: str) -> Known | None:
        """Return the task that stands somewhere."""
        return self._tasks.get(dotted.rpartition(".")[2], {}).get(dotted)

    def tasks(self) -> list[Known]:
        """Return all tasks but those that stay Celery's."""
        return [known for tasks in self._tasks.values() for dotted, known in tasks.items() if dotted not in self._left]

    def sent_with(self, name: str) -> Sent | None:
        """Return what a caller has to say for the task of a name, None if it was not rewritten."""
        found = self._find_named(name)
        return None if found is None else self.sent.get(found[0])

    def is_left(self, name: str) -> bool:
        """Whether the task of a name in Celery stays Celery's."""
        found = self._find_named(name)
        return found is not None and found[0] in self._left

    def _find_named(self, name: str) -> tuple[str, Known] | None:
        for tasks in self._tasks.values():
            for dotted, known in tasks.items():
                if known.name == name or _ends(known.name, name):
                    return dotted, known
        return None

    def is_app(self, dotted: str) -> bool:
        """Whether a dotted name stands for a Celery app."""
        return any(_ends(name, dotted) for name in self.apps)


def _ends(whole: str, end: str) -> bool:
    return whole == end or whole.endswith("." + end)


def module_of(path: Path) -> str:
    """Return the dotted name of a file, from the root of its path."""
    parts = [part for part in path.with_suffix("").parts if part != path.anchor]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class Names:
    """What names mean in one file.

    Args:
        tree: The file.
        module: Its dotted name.
        is_package: Whether it is an `__init__.py`.
    """

    def __init__(self, tree: ast.Module, module: str, *, is_package: bool) -> None:
        self.module = module
        self._package = module if is_package else module.rpartition(".")[0]
        self.imported: dict[str, str] = {}
        self.own: set[str] = set()
        """Names that the file binds other than by what it imports of Celery."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for each in node.names:
                    self.imported[each.asname or each.name.partition(".")[0]] = (
                        each.name if each.asname else each.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom):
                origin = self._origin(node)
                for each in node.names:
                    name, meaning = each.asname or each.name, f"{origin}.{each.name}"
                    if self.imported.setdefault(name, meaning) != meaning:
                        self.own.add(name)  # it means one thing here and another there
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.own.add(node.name)
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                self.own.add(node.id)
            elif isinstance(node, ast.arg):
                self.own.add(node.arg)
            elif isinstance(node, ast.ExceptHandler) and node.name:
                self.own.add(node.name)
        self.bound = self.own | {name for name, origin in self.imported.items() if not origin.startswith("celery.")}

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = self._package.split(".")
        base = package[: len(package) - node.level + 1]
        return ".".join([*base, *([node.module] if node.module else [])])

    @property
    def uses_celery(self) -> bool:
        """Whether it imports anything of Celery."""
        return any(origin == "celery" or origin.startswith("celery.") for origin in self.imported.values())

    def dotted(self, node: ast.expr) -> str | None:
        """Return the dotted name that an expression stands for, beginning with what was imported."""
        if isinstance(node, ast.Name):
            if node.id in self.imported and node.id not in self.own:
                return self.imported[node.id]
            return f"{self.module}.{node.id}"
        if isinstance(node, ast.Attribute):
            above = self.dotted(node.value)
            return None if above is None else f"{above}.{node.attr}"
        return None

    def celery(self, node: ast.expr) -> str | None:
        """Return what of Celery an expression stands for, as `shared_task` or `schedules.crontab`."""
        dotted = self.dotted(node)
        if dotted is None or not dotted.startswith("celery."):
            return None
        return dotted.removeprefix("celery.")

    def is_app(self, node: ast.expr, project: Project) -> bool:
        """Whether it is a Celery app: one of the project, or what a module called `celery` has."""
        dotted = self.dotted(node)
        if dotted is None:
            return False
        if project.is_app(dotted):
            return True
        parts = dotted.split(".")
        return len(parts) > 2 and parts[-2] in _MODULES and parts[-1] in ("app", "celery_app", "celery")


def is_task_decorator(decorator: ast.expr, names: Names, project: Project) -> bool:
    """Whether a decorator makes a Celery task of a function."""
    made = decorator.func if isinstance(decorator, ast.Call) else decorator
    if names.celery(made) in ("shared_task", "app.shared_task", "task"):
        return True
    return isinstance(made, ast.Attribute) and made.attr == "task" and names.is_app(made.value, project)


def is_app_made(node: ast.expr, names: Names) -> TypeGuard[ast.Call]:
    """Whether an expression makes a Celery app."""
    return isinstance(node, ast.Call) and names.celery(node.func) in ("Celery", "app.Celery")


def find_apps(files: Iterable[tuple[ast.Module, Names]], project: Project) -> None:
    """Note the Celery apps that files make."""
    for tree, names in files:
        for node in tree.body:
            if isinstance(node, ast.Assign) and is_app_made(node.value, names):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        project.apps.add(f"{names.module}.{target.id}")


def find_tasks(files: Iterable[tuple[ast.Module, Names]], project: Project) -> None:
    """Note the tasks that files define at their top."""
    for tree, names in files:
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in node.decorator_list:
                    if is_task_decorator(decorator, names, project):
                        options = options_of(decorator)
                        name = options.get("name")
                        dotted = f"{names.module}.{node.name}"
                        given = name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else dotted
                        parameters = _parameters(node, is_bound="bind" in options)
                        project.add_task(dotted, Known(given, parameters, "name" not in options))


def options_of(decorator: ast.expr) -> Mapping[str, ast.expr]:
    """Return the named arguments of a decorator."""
    if not isinstance(decorator, ast.Call):
        return {}
    return {each.arg: each.value for each in decorator.keywords if each.arg}


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef, *, is_bound: bool) -> tuple[str, ...] | None:
    arguments = node.args
    if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
        return None
    return tuple(each.arg for each in arguments.args[1 if is_bound else 0 :])
