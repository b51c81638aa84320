"""One Python file of a Celery project: its syntax tree, and the meaning of its names and expressions.

All files are read before the first is rewritten, so that calls of tasks in other files are recognized. The root folder
of imports is unknown, so dotted names are compared by their ends: `src.shop.tasks.send` is also `shop.tasks.send`.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import libcst as cst
from libcst.metadata import (
    Assignment,
    ImportAssignment,
    MetadataWrapper,
    PositionProvider,
    QualifiedNameSource,
    ScopeProvider,
)

MARK = "# TODO taskq: "
"""Start of each comment that names code which was not translated."""
CANVAS = ("chain", "group", "chord")
OPTION_HINTS = {
    "priority": "taskq's option priority takes 9 first and 0, its default, last; with Redis, Celery takes 0 first",
    "shadow": "the option named of a workflow, or the arguments, show in the dashboard what a task is for",
}
"""What replaces options of tasks and calls that are not translated."""
_APP_MODULES = ("celery", "celery_app", "celeryapp")
_TASK_DECORATORS = ("celery.shared_task", "celery.app.shared_task", "celery.task")
Function = cst.FunctionDef
Node = cst.CSTNode
N = TypeVar("N", bound=cst.CSTNode)


class CannotTranslateError(Exception):
    """The code has no equivalent in taskq. The text of the exception is the reason."""


@dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """A Celery task of the project.

    Attributes:
        place: The dotted name of the task's function.
        name: Name of the task in Celery.
        options: The arguments of its decorator, by name. Settings for all tasks provide defaults.
        parameters: Names of its parameters without `self`, None if it takes `*args` or positional-only arguments.
        left: Reason why the task is not rewritten, "" if it is rewritten.
        queue: The queue to which `task_routes` sends the task.
        is_read: Whether code of the project reads the task's result.
        types: Types of parameters without annotation, from the arguments of calls.
        sent: The options that a call by name (`send_task`) has to pass.
        obstacle: An option of the task that a call by name cannot pass, "" if there is no such option.
    """

    place: str
    name: str
    file: "File"
    node: Function
    decorator: cst.BaseExpression
    options: Mapping[str, cst.BaseExpression]
    parameters: tuple[str, ...] | None
    left: str = ""
    queue: str | None = None
    is_read: bool = False
    types: dict[str, set[str]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    obstacle: str = ""

    @property
    def names(self) -> list[str]:
        """The names by which Celery may call the task: `name=`, or else each possible end of its dotted name."""
        if "name" in self.options:
            return [self.name]
        parts = self.place.split(".")
        return [".".join(parts[number:]) for number in range(len(parts) - 1)]


class Project:
    """The Celery tasks and apps that the files of a project define."""

    def __init__(self) -> None:
        self.apps: set[str] = set()
        self.tasks: list[Task] = []
        self.is_routed = False
        self._by_end: dict[str, list[Task]] = {}
        self._by_name: dict[str, Task] = {}
        self._by_node: dict[Node, Task] = {}

    def add(self, task: Task) -> None:
        """Add a task."""
        self.tasks.append(task)
        self._by_node[task.node] = task
        for name in task.names:
            self._by_name.setdefault(name, task)
        self._by_end.setdefault(task.place.rpartition(".")[2], []).append(task)

    def at(self, dotted: str) -> Task | None:
        """Return the task whose function has this dotted name."""
        found = self._by_end.get(dotted.rpartition(".")[2], ())
        return next((task for task in found if ends_with(task.place, dotted)), None)

    def named(self, name: str) -> Task | None:
        """Return the task that Celery calls by this name."""
        return self._by_name.get(name)

    def defined_by(self, function: Function) -> Task | None:
        """Return the task that a function becomes."""
        return self._by_node.get(function)

    def is_app(self, dotted: str) -> bool:
        """Return whether a dotted name is a Celery app: defined in one of the files, or in a module named `celery`."""
        parts = dotted.split(".")
        is_usual = len(parts) > 2 and parts[-2] in _APP_MODULES and parts[-1] in ("app", "celery_app", "celery")
        return is_usual or dotted == "celery.current_app" or any(ends_with(app, dotted) for app in self.apps)


@dataclass(frozen=True, slots=True)
class Meaning:
    """The object to which an expression refers, as far as it concerns tasks.

    Attributes:
        kind: `task`, `signature`, `canvas`, `list` (of signatures, or of other values) or `handle`.
        tasks: The tasks that it refers to.
    """

    kind: str
    tasks: tuple[Task, ...] = ()

    @property
    def is_left(self) -> bool:
        """Whether it remains an object of Celery."""
        return any(task.left for task in self.tasks)


class File:
    """One Python file: its syntax tree and the meaning of its names.

    Args:
        path: Path of the file.
        data: Content of the file.
        project: The tasks and apps of all files.

    Attributes:
        tree: The syntax tree.
        module: Dotted name of the module, from the root of the file system.
        package: The dotted name of its package.
        marks: Comments to write above statements.
        notes: Hints that the user should read, as (line, sentence).

    Raises:
        cst.ParserSyntaxError: The content is not valid Python.
    """

    def __init__(self, path: Path, data: bytes, project: Project) -> None:
        self.path, self.project = path, project
        self.tree = cst.parse_module(data)
        parts = [part for part in path.with_suffix("").parts if part != path.anchor]
        is_package = parts[-1] == "__init__"
        self.module = ".".join(parts[:-1] if is_package else parts)
        self.package = self.module if is_package else self.module.rpartition(".")[0]
        self._wrapper = MetadataWrapper(self.tree, unsafe_skip_copy=True)
        self._scopes: Any = self._wrapper.resolve(ScopeProvider)
        self._parents: dict[Node, Node] = {}
        self._by_kind: dict[type[Node], list[Any]] = {}
        self._meanings: dict[Node, Meaning | None] = {}
        for node in _walk(self.tree):
            self._by_kind.setdefault(type(node), []).append(node)
            self._parents |= dict.fromkeys(_children(node), node)
        self.marks: dict[Node, list[str]] = {}
        self.notes: list[tuple[int, str]] = []

    def mark(self, node: Node, text: str) -> None:
        """Add a comment above the statement that contains a node."""
        while not hasattr(node, "leading_lines") or isinstance(node, cst.Decorator):
            node = self._parents[node]
        self.marks.setdefault(node, []).append(text)

    def note(self, node: Node, text: str) -> None:
        """Report a hint that the user should read, without a comment in the file."""
        found = (self._wrapper.resolve(PositionProvider)[node].start.line, text)
        if found not in self.notes:
            self.notes.append(found)

    def parent(self, node: Node) -> Node:
        """Return the parent of a node."""
        return self._parents[node]

    def parents(self, node: Node) -> Iterator[Node]:
        """Yield the ancestors of a node, the nearest first."""
        while (above := self._parents.get(node)) is not None:
            yield above
            node = above

    def all(self, kind: type[N]) -> list[N]:
        """Return all nodes of a type, in source order."""
        return self._by_kind.get(kind, [])

    # --- names --------------------------------------------------------------------------------------------------------

    def dotted(self, node: Node) -> str | None:
        """Return the dotted name to which an expression refers, None if it refers to none or to several."""
        first = node
        while isinstance(first, cst.Attribute):
            first = first.value
        scope = self._scopes.get(node) if isinstance(first, cst.Name) else None
        names = scope.get_qualified_names_for(node) if scope is not None else ()
        if len(names) != 1:
            return None
        name = next(iter(names))
        return f"{self.module}.{name.name}" if name.source is QualifiedNameSource.LOCAL else self._absolute(name.name)

    def _absolute(self, name: str) -> str:
        """Return the absolute name of a relative import."""
        rest = name.lstrip(".")
        level = len(name) - len(rest)
        package = self.package.split(".")
        return ".".join([*package[: len(package) - level + 1], rest]) if level else name

    def celery(self, node: Node) -> str | None:
        """Return the name of a Celery object to which an expression refers, such as `schedules.crontab`."""
        dotted = self.dotted(node) or ""
        return dotted.removeprefix("celery.") if dotted.startswith("celery.") else None

    def is_app(self, node: Node) -> bool:
        """Return whether an expression is a Celery app."""
        dotted = self.dotted(node)
        return dotted is not None and self.project.is_app(dotted)

    @cached_property
    def imported_as(self) -> str:
        """The dotted name by which the file is imported. It begins at the outermost folder with an `__init__.py`."""
        parts = [] if self.path.stem == "__init__" else [self.path.stem]
        folder = self.path.resolve().parent
        while (folder / "__init__.py").exists():
            parts.insert(0, folder.name)
            folder = folder.parent
        return ".".join(parts)

    @cached_property
    def imports(self) -> dict[str, str]:
        """The dotted names of imported objects, by the name under which the file uses them."""
        found = {}
        for scope in {scope for scope in self._scopes.values() if scope is not None}:
            for each in scope.assignments:
                if isinstance(each, ImportAssignment):
                    for origin in each.get_qualified_names_for(each.name):
                        found[each.name] = self._absolute(origin.name)
        return found

    def bound(self) -> set[str]:
        """Return the names that the file binds, except imports from Celery."""
        imported = self.imports
        return {
            each.name
            for scope in {scope for scope in self._scopes.values() if scope is not None}
            for each in scope.assignments
            if isinstance(each, Assignment)
            and not (isinstance(each, ImportAssignment) and imported.get(each.name, "").startswith("celery."))
        }

    def value_of(self, node: cst.BaseExpression) -> cst.BaseExpression:
        """Return the value of a name that is assigned exactly once. Return any other expression unchanged."""
        seen: set[Node] = set()
        while isinstance(node, cst.Name) and node not in seen:
            seen.add(node)
            scope = self._scopes.get(node)
            found = list(scope[node.value]) if scope is not None else []
            bound_at: Any = getattr(found[0], "node", None) if len(found) == 1 else None
            target = self._parents.get(bound_at)
            assign = self._parents.get(target) if isinstance(target, cst.AssignTarget) else None
            if not isinstance(assign, cst.Assign):
                break
            node = assign.value
        return node

    # --- expressions --------------------------------------------------------------------------------------------------

    def meaning(self, node: cst.BaseExpression) -> Meaning | None:
        """Return the object to which an expression refers, None if the expression is unrelated to tasks."""
        if node not in self._meanings:
            self._meanings[node] = None  # the value of a name may contain the name itself
            self._meanings[node] = self._find_meaning(node)
        return self._meanings[node]

    def _find_meaning(self, node: cst.BaseExpression) -> Meaning | None:
        dotted = self.dotted(node) if isinstance(node, cst.Name | cst.Attribute) else None
        task = self.project.at(dotted) if dotted else None
        if task is not None:
            return Meaning("task", (task,))
        value = self.value_of(node)
        if value is not node:
            return self.meaning(value)
        if isinstance(node, cst.List | cst.Tuple | cst.ListComp | cst.GeneratorExp):
            return Meaning("list", self.signed(node))
        if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.BitOr):
            sides = [self.meaning(node.left), self.meaning(node.right)]
            found = [each for each in sides if each is not None and each.kind in ("signature", "canvas")]
            return Meaning("canvas", _tasks(found)) if found else None
        return self._meaning_of_call(node) if isinstance(node, cst.Call) else None

    def _meaning_of_call(self, call: cst.Call) -> Meaning | None:
        if self.canvas(call):
            return Meaning("canvas", self.signed(call) or self.signed(self._outermost(call)))
        if isinstance(call.func, cst.Attribute):
            verb, of = call.func.attr.value, self.meaning(call.func.value)
            if of is None:
                return None
            if verb in ("s", "si") and of.kind in ("task", "signature"):
                return Meaning("signature", of.tasks)
            if verb in ("set", "using") and of.kind in ("signature", "task"):
                return of
            if verb in ("on_error", "on_success") and of.kind in ("signature", "canvas"):
                return Meaning("canvas", _tasks([of, Meaning("", self.signed(call))]))
            if verb in DELAYS and of.kind in ("task", "signature", "canvas"):
                return Meaning("handle", of.tasks)
            return None
        of = self.meaning(call.func)
        return Meaning("handle", of.tasks) if of is not None and of.kind == "canvas" else None

    def canvas(self, call: cst.Call) -> str:
        """Return `chain`, `group` or `chord` if a call makes one of Celery, "" for any other call."""
        made = self.celery(call.func) if isinstance(call.func, cst.Name | cst.Attribute) else None
        return name if (name := (made or "").removeprefix("canvas.")) in CANVAS else ""

    def signed(self, node: Node) -> tuple[Task, ...]:
        """Return the tasks of which a piece of code contains signatures, also in the values of its names."""
        names = [each for each in nodes(node, cst.Name) if self.value_of(each) is not each]
        calls = [
            each
            for each in nodes(node, cst.Call)
            if isinstance(each.func, cst.Attribute) and each.func.attr.value in ("s", "si")
        ]
        found = [self.meaning(each) for each in (*names, *calls)]
        return _tasks(each for each in found if each is not None and each.kind in ("signature", "canvas", "list"))

    def _outermost(self, node: Node) -> Node:
        """Return the statement of the module that contains a node."""
        *_, statement, _module = [node, *self.parents(node)]
        return statement

    def type_of(self, node: cst.BaseExpression) -> str | None:
        """Return the type of an expression's value if it is certain, for example `datetime.datetime`."""
        node = self.value_of(node)
        if isinstance(node, cst.BinaryOperation):
            return self.type_of(node.left)
        if not isinstance(node, cst.Call):
            return None
        made = self.dotted(node.func)
        if made is None and isinstance(node.func, cst.Attribute) and isinstance(node.func.value, cst.Call):
            of = self.type_of(node.func.value)
            if of == "datetime.datetime" and node.func.attr.value in ("date", "replace", "astimezone"):
                return "datetime.date" if node.func.attr.value == "date" else of
        return next((kind for kind, makers in _MAKERS.items() if made in (kind, *makers)), None)


DELAYS = ("delay", "apply_async", "delay_on_commit", "apply_async_on_commit")
_MAKERS = {
    "datetime.datetime": (
        *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today", "combine", "strptime", "fromisoformat")),
        "django.utils.timezone.now",
        "django.utils.timezone.make_aware",
    ),
    "datetime.date": ("datetime.date.today", "datetime.date.fromisoformat", "django.utils.timezone.localdate"),
    "uuid.UUID": ("uuid.uuid1", "uuid.uuid4", "uuid.uuid5"),
    "decimal.Decimal": (),
}
"""Types that JSON cannot represent, by the functions that create their values."""


def ends_with(whole: str, end: str) -> bool:
    """Return whether a dotted name ends with another dotted name."""
    return whole == end or whole.endswith("." + end)


def code(node: Node) -> str:
    """Return the source code of a node."""
    return cst.Module([]).code_for_node(node)


def constant(node: Node | None) -> Any:
    """Return the value of a literal, `Ellipsis` if it is not one."""
    try:
        return ... if node is None else ast.literal_eval(code(node).strip())
    except (ValueError, SyntaxError, TypeError):
        return ...


def keywords(call: cst.Call) -> dict[str, cst.BaseExpression]:
    """Return the keyword arguments of a call; `**` arguments have the name `**`."""
    return {each.keyword.value if each.keyword else each.star or "": each.value for each in call.args}


def bound(call: cst.Call, order: tuple[str, ...], verb: str) -> dict[str, cst.BaseExpression]:
    """Return the arguments of a call by parameter name.

    Raises:
        CannotTranslateError: The call has too many arguments, or uses `*` or `**`.
    """
    positional = [each for each in call.args if not each.keyword]
    if len(positional) > len(order) or any(each.star for each in positional):
        raise CannotTranslateError(f"{verb}: the arguments use * or **, or there are too many")
    given = dict(zip(order, (each.value for each in positional), strict=False))
    return given | {each.keyword.value: each.value for each in call.args if each.keyword}


def entries(node: cst.BaseExpression | None) -> list[tuple[Any, cst.BaseExpression]] | None:
    """Return keys and values of a literal dict, None for any other node."""
    if not isinstance(node, cst.Dict) or not all(isinstance(each, cst.DictElement) for each in node.elements):
        return None
    return [(constant(each.key), each.value) for each in node.elements if isinstance(each, cst.DictElement)]


def elements(node: cst.BaseExpression | None) -> list[cst.BaseExpression] | None:
    """Return the elements of a literal list or tuple, None for any other node."""
    if not isinstance(node, cst.List | cst.Tuple) or any(
        isinstance(each, cst.StarredElement) for each in node.elements
    ):
        return None
    return [each.value for each in node.elements]


def comments(node: Node) -> list[str]:
    """Return the comments in a node."""
    return [each.value for each in nodes(node, cst.Comment)]


def nodes(node: Node, kind: type[N]) -> Iterator[N]:
    """Yield all nodes of a type in a syntax tree, the root included, in about the order of the source."""
    return (each for each in _walk(node) if isinstance(each, kind))


def _walk(node: Node) -> Iterator[Node]:
    rest = [node]
    while rest:
        node = rest.pop()
        yield node
        rest += reversed(_children(node))


def _children(node: Node) -> list[Node]:
    """Return the children of a node. The attribute `children` of libcst copies each node, which is slow."""
    found: list[Node] = []
    for name in _fields(type(node)):
        value = getattr(node, name)
        if isinstance(value, cst.CSTNode):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += value
    return found


@cache
def _fields(kind: type[Node]) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))


def literal(text: str) -> str:
    """Return the source code of a string literal."""
    return repr(text) if '"' in text or "\\" in text else f'"{text}"'


def _tasks(found: Iterable[Meaning]) -> tuple[Task, ...]:
    return tuple(dict.fromkeys(task for each in found for task in each.tasks))


# --- tasks and apps ---------------------------------------------------------------------------------------------------


def top_level(file: File) -> Iterator[tuple[cst.BaseStatement, cst.BaseSmallStatement]]:
    """Yield the simple statements of a module as (line that contains it, statement)."""
    for line in file.tree.body:
        if isinstance(line, cst.SimpleStatementLine):
            for statement in line.body:
                yield line, statement


def assignments(file: File) -> Iterator[tuple[cst.BaseStatement, str, cst.BaseExpression]]:
    """Yield the assignments of a module: line, name and value."""
    for line, statement in top_level(file):
        for each in statement.targets if isinstance(statement, cst.Assign) else ():
            if isinstance(statement, cst.Assign) and isinstance(each.target, cst.Name):
                yield line, each.target.value, statement.value


def makes_app(file: File, value: cst.BaseExpression | None) -> bool:
    """Return whether an expression creates a Celery app."""
    return isinstance(value, cst.Call) and file.celery(value.func) in ("Celery", "app.Celery")


def find_apps(file: File) -> None:
    """Add the Celery apps of a file to the project."""
    file.project.apps |= {f"{file.module}.{name}" for _, name, value in assignments(file) if makes_app(file, value)}


def task_decorator(file: File, node: Function) -> cst.BaseExpression | None:
    """Return the decorator that makes a function a Celery task, None if the function has no such decorator."""
    for each in node.decorators:
        made = each.decorator.func if isinstance(each.decorator, cst.Call) else each.decorator
        is_of_app = isinstance(made, cst.Attribute) and made.attr.value == "task" and file.is_app(made.value)
        if is_of_app or file.dotted(made) in _TASK_DECORATORS:
            return each.decorator
    return None


def find_tasks(file: File) -> None:
    """Add the Celery tasks of a file to the project."""
    for node in file.all(cst.FunctionDef):
        decorator = task_decorator(file, node)
        if decorator is None:
            continue
        options = keywords(decorator) if isinstance(decorator, cst.Call) else {}
        place = f"{file.module}.{node.name.value}"
        name = constant(options.get("name"))
        parameters = [each.name.value for each in node.params.params]
        is_plain = not (
            isinstance(node.params.star_arg, cst.Param) or node.params.star_kwarg or node.params.posonly_params
        )
        file.project.add(
            Task(
                place=place,
                name=name if isinstance(name, str) else f"{file.imported_as}.{node.name.value}",
                file=file,
                node=node,
                decorator=decorator,
                options=options,
                parameters=tuple(parameters[1 if "bind" in options else 0 :]) if is_plain else None,
            )
        )
