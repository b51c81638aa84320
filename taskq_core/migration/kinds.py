"""What expressions of one file are: tasks, signatures, workflows, handles; told without running anything."""

import ast
from collections.abc import Iterator, Mapping

from taskq_core.migration.names import CANVAS, Names, Project
from taskq_core.migration.source import Source


class Kinds:
    """Tells what expressions of a file are.

    Args:
        source: The file.
        names: What its names mean.
        project: The tasks and apps of all files.
    """

    def __init__(self, source: Source, names: Names, project: Project) -> None:
        self._source = source
        self._names = names
        self._project = project
        self._guessing: set[tuple[ast.AST, str]] = set()
        self._scopes: dict[ast.AST, dict[str, list[ast.expr | None]]] = {}

    def of(self, node: ast.expr) -> str | None:
        """Return `task`, `left` (a task that stays Celery's), `signature`, `canvas` or `handle`, or None."""
        root = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if not (isinstance(root, ast.Name) and self.is_local(root)):
            dotted = self._names.dotted(node)
            known = None if dotted is None else self._project.kind(dotted)
            if known is not None:
                return known
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            sides = {self.of(node.left), self.of(node.right)}
            return "canvas" if sides & {"signature", "canvas"} else None
        if isinstance(node, ast.Name):
            return self._kind_of_name(node)
        if not isinstance(node, ast.Call):
            return None
        made = self._names.celery(node.func)
        if made is not None and made.removeprefix("canvas.") in CANVAS:
            return "canvas"
        if isinstance(node.func, ast.Attribute):
            verb, kind = node.func.attr, self.of(node.func.value)
            if verb in ("s", "si") and kind in ("task", "signature"):
                return "signature"
            if verb in ("set", "using") and kind == "signature":
                return "signature"
            if verb in ("delay", "apply_async") and kind in ("task", "signature", "canvas"):
                return "handle"
        elif self.of(node.func) == "canvas":
            return "handle"
        return None

    def is_local(self, node: ast.Name) -> bool:
        """Whether a function around it binds the name, other than by an import."""
        return any(
            node.id in self._bindings(scope)
            for scope in self._source.parents(node)
            if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        )

    def _kind_of_name(self, node: ast.Name) -> str | None:
        """Return what a name stands for that its function, or the module, binds exactly once."""
        for scope in self._source.parents(node):
            if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Module):
                continue
            bound = self._bindings(scope).get(node.id)
            if bound is None:
                continue
            if len(bound) != 1 or bound[0] is None or (scope, node.id) in self._guessing:
                return None
            self._guessing.add((scope, node.id))
            try:
                return self.of(bound[0])
            finally:
                self._guessing.discard((scope, node.id))
        return None

    def _bindings(self, scope: ast.AST) -> Mapping[str, list[ast.expr | None]]:
        if scope not in self._scopes:
            found: dict[str, list[ast.expr | None]] = {}
            for each in _own(scope):
                if isinstance(each, ast.arg):
                    found.setdefault(each.arg, []).append(None)
                elif isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load):
                    above = self._source.parent(each)
                    is_plain = isinstance(above, ast.Assign) and above.targets == [each]
                    found.setdefault(each.id, []).append(above.value if is_plain else None)  # type: ignore[union-attr]
                elif isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and each is not scope:
                    found.setdefault(each.name, []).append(None)
            self._scopes[scope] = found
        return self._scopes[scope]


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield what stands in a scope itself, and not in functions and classes inside it."""
    stack: list[ast.AST] = list(ast.iter_child_nodes(scope))
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))
