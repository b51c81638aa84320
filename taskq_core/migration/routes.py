"""Celery's `task_routes` as the option `queue` of the tasks that they are about.

A task that names its queue goes there in both. Celery asks an exact name first and then the patterns, in their order.
"""

import ast
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from taskq_core.migration.names import Known, Names, Project

_SETTINGS = ("CELERY_TASK_ROUTES", "CELERY_ROUTES")


class Routes:
    """Which queue tasks go to, by name.

    Args:
        queues: Names of queues by the name of a task, or by a pattern of names.
    """

    def __init__(self, queues: dict[str, str]) -> None:
        self._queues = queues

    def queue_of(self, known: Known) -> str | None:
        """Return the queue of a task that names none itself, None where no route is about it."""
        found = next((route for name in _names(known) if (route := self._route_of(name))), None)
        return None if found is None else self._queues[found]

    def without_task(self, tasks: Iterable[Known]) -> list[str]:
        """Return the routes that are about none of these tasks."""
        used = {route for known in tasks for name in _names(known) if (route := self._route_of(name))}
        return [route for route in self._queues if route not in used]

    def _route_of(self, name: str) -> str | None:
        if name in self._queues:
            return name
        return next((each for each in self._queues if "*" in each and fnmatchcase(name, each)), None)


def _names(known: Known) -> Iterator[str]:
    """Yield what a task may be called: a file's dotted name begins wherever its imports do."""
    yield known.name
    parts = known.name.split(".") if known.is_named_after_its_place else []
    yield from (".".join(parts[number:]) for number in range(1, len(parts) - 1))


def find_routes(files: Iterable[tuple[ast.Module, Names]], project: Project) -> Routes | None:
    """Return the routes that the files set, None where there are none, or not such as can be put onto tasks."""
    found = [value for tree, names in files for value in _values(tree, names, project)]
    if len(found) != 1 or not isinstance(found[0], ast.Dict):
        return None
    queues = {}
    for key, value in zip(found[0].keys, found[0].values, strict=True):
        queue = _queue(value)
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str) or queue is None:
            return None
        queues[key.value] = queue
    return Routes(queues)


def _values(tree: ast.Module, names: Names, project: Project) -> Iterator[ast.expr]:
    for node in tree.body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            is_django = isinstance(target, ast.Name) and target.id in _SETTINGS
            if isinstance(node, ast.Assign) and (is_django or _is_of_conf(target, "task_routes", names, project)):
                yield node.value
        call = node.value if isinstance(node, ast.Expr) else None
        if isinstance(call, ast.Call) and _is_of_conf(call.func, "update", names, project):
            yield from (each.value for each in call.keywords if each.arg == "task_routes")


def _is_of_conf(node: ast.expr, attribute: str, names: Names, project: Project) -> bool:
    if not isinstance(node, ast.Attribute) or node.attr != attribute or not isinstance(node.value, ast.Attribute):
        return False
    return node.value.attr == "conf" and names.is_app(node.value.value, project)


def _queue(value: ast.expr) -> str | None:
    """Return the queue of a route that says nothing else."""
    if not isinstance(value, ast.Dict) or len(value.keys) != 1:
        return None
    key, queue = value.keys[0], value.values[0]
    if isinstance(key, ast.Constant) and key.value == "queue" and isinstance(queue, ast.Constant):
        return queue.value if isinstance(queue.value, str) else None
    return None
