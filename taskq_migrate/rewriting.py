"""Rewrite one file, after all files of the project have been read."""

import ast
from dataclasses import dataclass, field

import libcst as cst
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor, RemoveImportsVisitor

from taskq_migrate.calls import Calls, is_canvas
from taskq_migrate.source import MARK, CannotTranslateError, File, Node, code, comments, task_decorator
from taskq_migrate.tasks import IMPORT_HINTS, rewrite_function, task_options

_HANDLE_HINTS = dict.fromkeys(
    ("ready", "successful", "failed", "status", "state", "result", "info", "traceback", "date_done"),
    "handle.refresh() returns state, result and last_error",
) | {
    "forget": "a result is deleted when its retention ends",
    "revoke": "handle.cancel() also ends a running task",
    "children": "a workflow has handle.graph()",
    "parent": "a workflow has handle.graph()",
}
_APP_HINTS = {
    "control": "taskq.get(task_id).cancel() replaces revoke(); see Inspector and the command taskq for the rest",
    "events": "on_error, on_archived and the metrics replace receivers of events",
    "AsyncResult": IMPORT_HINTS["AsyncResult"],
    "GroupResult": "a workflow has handle.graph()",
}
_SIGNAL_HINT = "see on_error, on_archived, worker_lifespan and, in Django, taskq_django.signals"


@dataclass(slots=True, kw_only=True)
class Edits:
    """Edits that need knowledge of the whole project. `Rewriter` applies them to each file.

    Attributes:
        module: The module from which files import `task` or the `TaskQ`.
        app: The name of the `TaskQ` in this module, "" for Django's adapter.
        is_strict: Whether Celery's settings have a hard time limit for all tasks.
        done: Code to remove: calls of `add_periodic_task` that were translated to entries of `SCHEDULE`, and functions
            that contain only such calls.
        below: New statements, by the statement after which they are inserted.
        installed: The list `INSTALLED_APPS` to which the adapter's app is added.
    """

    module: str
    app: str
    is_strict: bool = False
    done: set[Node] = field(default_factory=set)
    below: dict[Node, str] = field(default_factory=dict)
    installed: Node | None = None


class Rewriter(cst.CSTTransformer):
    """Rewrites the syntax tree of one file: calls, tasks, settings and imports of Celery."""

    def __init__(self, file: File, edits: Edits) -> None:
        super().__init__()
        self._file, self._edits = file, edits
        self._calls = Calls(file)
        self._context = CodemodContext(full_module_name=file.module, full_package_name=file.package)
        self._imports, self._bound = file.imports, file.bound()
        self._pending: list[list[str]] = []
        self._testing = "taskq_core.testing" if edits.app else "taskq_django.testing"
        canvases = [each for each in file.all(cst.Call) if file.canvas(each)]
        self._celery_canvases = {each for each in canvases if (of := file.meaning(each)) is not None and of.is_left}
        self._kept = {file.canvas(each) for each in self._celery_canvases}

    def result(self) -> cst.Module:
        """Return the rewritten file."""
        tree = self._file.tree.visit(self)
        if not tree.deep_equals(self._file.tree):
            tree = self._with_imports(tree)
        return tree.visit(_MarkImports()) if "celery" in tree.code else tree

    def _with_imports(self, tree: cst.Module) -> cst.Module:
        """Return the file with added and removed imports.

        libcst's import visitors are slow. So they do not visit the whole file, but only the statements up to the last
        import, and one added statement with the names that the other statements use.
        """
        for name, origin in self._imports.items():
            module, _, what = origin.rpartition(".")
            if origin.startswith("celery.") or self._file.project.is_app(origin):
                RemoveImportsVisitor.remove_unused_import(self._context, module, what, None if name == what else name)
        walked = [list(ast.walk(ast.parse(code(each)))) for each in tree.body]  # walking a tree of libcst is slow
        imports = [any(isinstance(each, ast.Import | ast.ImportFrom) for each in found) for found in walked]
        count = max((number for number, has_import in enumerate(imports, 1) if has_import), default=1)
        first, others = tree.body[:count], tree.body[count:]
        used = sorted({each.id for found in walked[count:] for each in found if isinstance(each, ast.Name)})
        small = tree.with_changes(body=[*first, cst.parse_statement(f"({', '.join(used)},)" if used else "()")])
        small = AddImportsVisitor(self._context).transform_module(small)
        small = RemoveImportsVisitor(self._context).transform_module(small)
        return small.with_changes(body=[*small.body[:-1], *others])

    def _import(self, name: str, module: str = "taskq_core") -> str:
        """Add an import of a name. Return the name, or an alias if the file uses the name for another object."""
        if module == "" or self._imports.get(name) == name == module:
            return f"{module}.{name}"
        is_free = self._imports.get(name) == f"{module}.{name}" or name not in (self._bound | self._kept)
        alias = None if is_free else f"taskq_{name}"
        AddImportsVisitor.add_needed_import(self._context, module, name, alias)
        return alias or name

    def _import_app(self) -> str:
        return self._import(self._edits.app or "taskq", self._edits.module)

    # --- statements and their marks -----------------------------------------------------------------------------------

    def on_visit(self, node: Node) -> bool:
        """Collect the comments ("marks") for a statement before its parts are rewritten."""
        if hasattr(node, "leading_lines"):
            self._pending.append([MARK + each for each in self._file.marks.get(node, ())])
        return super().on_visit(node)

    def on_leave(self, original_node: Node, updated_node: Node) -> Node | cst.RemovalSentinel:  # type: ignore[override]  # libcst accepts sentinels as results
        """Write the comments for a statement above it, and insert new statements after it."""
        new = super().on_leave(original_node, updated_node)
        if not hasattr(original_node, "leading_lines"):
            return new  # type: ignore[return-value]  # a single node, because only a statement is replaced by several
        marks = self._pending.pop()
        if isinstance(original_node, cst.Decorator) and self._pending:
            self._pending[-1] += marks
        elif isinstance(new, cst.CSTNode) and marks:
            old = [line.comment.value for line in new.leading_lines if line.comment]  # type: ignore[attr-defined]  # a node with marks is a statement
            is_second = any(line.startswith(MARK) for line in old)  # an earlier migration has already written marks
            added = [each for each in dict.fromkeys(marks) if not (is_second and each.startswith(MARK))]
            lines = [cst.EmptyLine(comment=cst.Comment(each)) for each in added]
            new = new.with_changes(leading_lines=[*new.leading_lines, *lines])  # type: ignore[attr-defined]  # a node with marks is a statement
        if original_node in self._edits.below and isinstance(new, cst.BaseStatement):
            below = cst.parse_statement(self._edits.below[original_node])
            return cst.FlattenSentinel([new, below.with_changes(leading_lines=[cst.EmptyLine(indent=False)])])  # type: ignore[return-value]  # libcst accepts several nodes in place of a statement
        return new  # type: ignore[return-value]  # the same kind of node as before

    def _mark(self, text: str) -> None:
        self._pending[-1].append(MARK + text)

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.BaseStatement | cst.RemovalSentinel:
        if any(isinstance(each, cst.Expr) and each.value in self._edits.done for each in original_node.body):
            return cst.RemoveFromParent()
        return updated_node

    # --- tasks --------------------------------------------------------------------------------------------------------

    def leave_FunctionDef(
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.BaseStatement | cst.RemovalSentinel:
        task = self._file.project.defined_by(original_node)
        if task is None:
            return cst.RemoveFromParent() if original_node in self._edits.done else updated_node
        remains = f"{original_node.name.value} remains a Celery task: "
        if task.left:
            self._mark(remains + task.left)
            return updated_node
        options = task_options(task, self._import, is_strict=self._edits.is_strict)
        maker = f"{self._import_app()}.task" if self._edits.app else self._import("task", self._edits.module)
        made = cst.parse_expression(maker + (f"({', '.join(options)})" if options else ""))
        old = task_decorator(self._file, original_node)
        decorators = [
            new.with_changes(decorator=made) if before.decorator is old else new
            for before, new in zip(original_node.decorators, updated_node.decorators, strict=True)
        ]
        self._pending[-1] += comments(task.decorator)
        lines = [
            each
            for each in updated_node.leading_lines  # an earlier migration may have written why it could not rewrite it
            if not (each.comment and each.comment.value.startswith(MARK + remains))
        ]
        new = updated_node.with_changes(decorators=decorators, leading_lines=lines)
        return rewrite_function(task, new, self._import)

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        for base in (each.value for each in node.bases):
            is_of_app = isinstance(base, cst.Attribute) and base.attr.value == "Task" and self._file.is_app(base.value)
            if is_of_app or self._file.celery(base) in ("Task", "app.task.Task"):
                self._mark("a task is a function; middleware or a worker_lifespan replaces a class")

    # --- expressions --------------------------------------------------------------------------------------------------

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        if self._file.dotted(original_node.func) == "celery.utils.log.get_task_logger":
            if "logging" in self._bound and self._imports.get("logging") != "logging":
                return updated_node
            AddImportsVisitor.add_needed_import(self._context, "logging")
            return updated_node.with_changes(func=cst.parse_expression("logging.getLogger"))
        try:
            made = self._calls.rewrite(original_node, updated_node, self._edits.app or "taskq")
        except CannotTranslateError as error:
            self._mark(str(error))
            return updated_node
        if made is not updated_node:
            kept = comments(made)
            self._pending[-1] += [each for each in comments(updated_node) if each not in kept]
            if isinstance(original_node.func, cst.Attribute) and original_node.func.attr.value == "send_task":
                self._import_app()
        name = self._file.canvas(original_node)
        if not name or original_node in self._celery_canvases:
            return made
        if isinstance(original_node.func, cst.Attribute) or name in self._kept:
            return made.with_changes(func=cst.parse_expression(self._import(name)))
        return made

    def visit_Call(self, node: cst.Call) -> None:
        for name in (each.keyword.value for each in node.args if each.keyword):
            if name.startswith("CELERY_"):
                self._mark_setting(name)
        function = node.func
        is_update = isinstance(function, cst.Attribute) and function.attr.value == "update"
        if is_update and self._is_conf(cst.ensure_type(function, cst.Attribute).value) and self._is_inside(node):
            self._mark_setting("conf.update()")

    def visit_AssignTarget(self, node: cst.AssignTarget) -> None:
        target = node.target
        if not isinstance(target, cst.Attribute) or not self._is_inside(node):
            return
        if self._is_conf(target.value) or target.attr.value.startswith("CELERY_"):
            self._mark_setting(target.attr.value)

    def _is_conf(self, node: cst.BaseExpression) -> bool:
        return isinstance(node, cst.Attribute) and node.attr.value == "conf" and self._file.is_app(node.value)

    def _is_inside(self, node: Node) -> bool:
        """Return whether a node is inside a function or class, where the settings of an app are not read."""
        return any(isinstance(each, cst.FunctionDef | cst.ClassDef) for each in self._file.parents(node))

    def _mark_setting(self, name: str) -> None:
        self._mark(f"{name} does not change taskq; in tests, see capture() and eager() of {self._testing}")

    def visit_Attribute(self, node: cst.Attribute) -> None:
        of, name = self._file.meaning(node.value), node.attr.value
        if of is None and name in _APP_HINTS and self._file.is_app(node.value):
            self._mark(f".{name}: {_APP_HINTS[name]}")
        elif of is not None and not of.is_left:
            if of.kind == "handle" and name in _HANDLE_HINTS:
                self._mark(f".{name}: {_HANDLE_HINTS[name]}")
            elif text := self._calls.without_equivalent(node):
                self._mark(text)

    def leave_List(self, original_node: cst.List, updated_node: cst.List) -> cst.BaseExpression:
        return self._install(original_node, updated_node)

    def leave_Tuple(self, original_node: cst.Tuple, updated_node: cst.Tuple) -> cst.BaseExpression:
        return self._install(original_node, updated_node)

    def _install(self, old: cst.List | cst.Tuple, new: cst.List | cst.Tuple) -> cst.List | cst.Tuple:
        """Add `taskq_django` at the end of `INSTALLED_APPS`."""
        if old is not self._edits.installed:
            return new
        *others, last = new.elements
        added = last.with_changes(value=cst.SimpleString('"taskq_django"'))
        comma = others[-1].comma if others else cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        return new.with_changes(elements=[*others, last.with_changes(comma=comma), added])

    # --- imports ------------------------------------------------------------------------------------------------------

    def leave_ImportFrom(
        self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom
    ) -> cst.BaseSmallStatement | cst.RemovalSentinel:
        """Import chain, group and chord from taskq, under the names that the file uses."""
        if updated_node.module is None or isinstance(updated_node.names, cst.ImportStar) or updated_node.relative:
            return updated_node
        module = code(updated_node.module)
        left = []
        for each in updated_node.names:
            name = each.evaluated_name
            if is_canvas(f"{module}.{name}") and name not in (self._bound | self._kept):
                AddImportsVisitor.add_needed_import(self._context, "taskq_core", name, each.evaluated_alias)
            else:
                left.append(each)
        if not left:
            return cst.RemoveFromParent()
        left[-1] = left[-1].with_changes(comma=updated_node.names[-1].comma)
        return updated_node.with_changes(names=left) if len(left) < len(updated_node.names) else updated_node


class _MarkImports(cst.CSTTransformer):
    """Writes a comment above each remaining import from Celery for which taskq has a replacement."""

    def visit_Module(self, node: cst.Module) -> None:
        self._header = comments(node.with_changes(body=[]))  # contains the comments above the first statement

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine:
        lines = list(updated_node.leading_lines)
        old = [*self._header, *(line.comment.value for line in lines if line.comment)]
        for statement in original_node.body:
            if not isinstance(statement, cst.ImportFrom) or isinstance(statement.names, cst.ImportStar):
                continue
            module = code(statement.module) if statement.module is not None and not statement.relative else ""
            for name in (each.evaluated_name for each in statement.names):
                hint = IMPORT_HINTS.get(name, _SIGNAL_HINT if module == "celery.signals" else "")
                text = f"{MARK}{name} is still imported from the package celery: {hint}"
                if module.partition(".")[0] == "celery" and hint and text not in old:
                    lines.append(cst.EmptyLine(comment=cst.Comment(text)))
        return updated_node.with_changes(leading_lines=lines)
