"""Celery's calls as taskq's, where what is called is known to be a task, a signature, a canvas or a result."""

import ast
import keyword
from collections.abc import Iterator

from taskq_core.migration.kinds import Kinds
from taskq_core.migration.rewriting import File, joined, literal
from taskq_core.migration.routes import Routes
from taskq_core.migration.schedules import CannotTranslateError
from taskq_core.migration.source import Part, Span

_RUN_OPTIONS = {
    "countdown": "run_after",
    "eta": "run_after",
    "queue": "queue",
    "expires": "expires",
    "task_id": "task_id",
    "headers": "headers",
    "time_limit": "timeout",
    "soft_time_limit": "timeout",
}
"""What `apply_async` and `set` take, and the option of taskq that says the same."""
_RETRY_OF_CONNECTION = ("retry", "retry_policy")
CALLED = ("apply_async", "set", "get", "subtask", "signature", "chunks", "map", "starmap", "apply", "send_task")
"""Methods whose calls are looked at."""


class Calls:
    """Rewrites the calls of one file.

    Args:
        file: The file.
        routes: Which queue tasks go to that name none, None where none is set, or not such as can be put onto them.
    """

    def __init__(self, file: File, routes: Routes | None) -> None:
        self._file = file
        self._source, self._names, self._project = file.source, file.names, file.project
        self._routes = routes
        self._kind = Kinds(file.source, file.names, file.project).of

    def rewrite(self, call: ast.Call) -> None:
        """Put the edits of a call into the source, or mark it."""
        function = call.func
        if not isinstance(function, ast.Attribute):
            self._called_canvas(call)
            return
        verb = function.attr
        if verb not in CALLED:
            return
        kind = self._kind(function.value)
        try:
            if verb == "apply_async" and kind in ("task", "signature", "canvas"):
                self._apply_async(call, function, kind)
            elif verb == "apply_async":
                if kind != "left" and self._may_be_celery(call) and not self._source.was_marked(call):
                    raise CannotTranslateError("apply_async of what is not known to be a task")
            elif verb == "set" and kind == "signature":
                self._rebuild(call, function, [["using(", *joined(self._run_options(call.keywords)), ")"]], call.args)
            elif verb == "get" and kind == "handle":
                self._get(call, function)
            elif verb in ("subtask", "signature") and kind == "task":
                raise CannotTranslateError(f"{verb}: bind arguments with .s() and .si()")
            elif verb in ("chunks", "map", "starmap") and kind == "task":
                raise CannotTranslateError(f"{verb} is one task in Celery; task.map() here is a group of one each")
            elif verb == "apply" and kind in ("task", "signature"):
                raise CannotTranslateError("apply: call the function itself, or use taskq_core.testing")
            elif verb == "send_task" and self._names.is_app(function.value, self._project):
                self._send_task(call)
        except CannotTranslateError as error:
            self._file.mark(call, str(error))

    def _apply_async(self, call: ast.Call, function: ast.Attribute, kind: str) -> None:
        given = dict(zip(("args", "kwargs", "task_id"), call.args, strict=False))
        if len(call.args) > len(given) or any(isinstance(each, ast.Starred) for each in call.args):
            raise CannotTranslateError("apply_async: its arguments are not written out")
        keywords = [*(ast.keyword(arg=name, value=value) for name, value in given.items()), *call.keywords]
        links = [each for each in keywords if each.arg in ("link", "link_error")]
        keywords = [each for each in keywords if each not in links]
        arguments: list[list[Part]] = []
        rest = []
        for each in sorted(keywords, key=lambda each: each.arg == "kwargs"):
            if each.arg == "args":
                arguments += self._positional(each.value)
            elif each.arg == "kwargs":
                arguments += self._named(each.value)
            else:
                rest.append(each)
        if kind != "task" and arguments:
            raise CannotTranslateError("apply_async: give a signature its arguments with .s()")
        options = self._run_options(rest)
        if kind == "canvas" and options:
            raise CannotTranslateError("apply_async: a workflow takes no options; give them to its steps with using()")
        if any(each.arg == "eta" for each in rest):
            self._file.note(call, "run_after takes aware datetimes")
        if any(isinstance(each, ast.AsyncFunctionDef) for each in self._source.parents(call)):
            self._file.note(call, ".delay() blocks the event loop; await .adelay()")
        pieces: list[list[Part]] = []
        if links and kind == "task":
            pieces.append(["s(", *joined(arguments), ")"])
            arguments = []
        if options:
            pieces.append(["using(", *joined(options), ")"])
        pieces += self._callbacks(call, kind, links, rest)
        pieces.append(["delay(", *joined(arguments), ")"])
        self._rebuild(call, function, pieces, [])

    def _callbacks(
        self, call: ast.Call, kind: str, links: list[ast.keyword], options: list[ast.keyword]
    ) -> Iterator[list[Part]]:
        """Yield what stands for `link` and `link_error`: the call becomes a workflow of one step with callbacks."""
        if not links:
            return
        if kind == "canvas":
            raise CannotTranslateError("link: give a workflow its callbacks with on_success() and on_error()")
        if not isinstance(self._source.parent(call), ast.Expr):
            raise CannotTranslateError("link: what is returned would be the handle of a workflow; see on_success()")
        if any(each.arg == "task_id" for each in options):
            raise CannotTranslateError("link: a step of a workflow has no task_id of its own; see on_success()")
        for each in links:
            calls = each.value.elts if isinstance(each.value, ast.List | ast.Tuple) else [each.value]
            if not calls or not all(self._kind(one) == "signature" for one in calls):
                raise CannotTranslateError(f"{each.arg}: its calls are not known to be signatures of tasks")
            if each.arg == "link_error" and not all(_is_immutable(one) for one in calls):
                raise CannotTranslateError(
                    "link_error: Celery hands on the request, the error and the traceback, on_error() a StepFailure"
                )
            verb = "on_success" if each.arg == "link" else "on_error"
            yield [f"{verb}(", *joined([[self._source.span(one)] for one in calls]), ")"]

    def _send_task(self, call: ast.Call) -> None:
        """Send a task of the project by its name, with the options that its own calls carry."""
        given = dict(zip(("name", "args", "kwargs"), call.args, strict=False))
        if len(call.args) > len(given) or any(isinstance(each, ast.Starred) for each in call.args):
            raise CannotTranslateError("send_task: its arguments are not written out")
        given |= {each.arg: each.value for each in call.keywords if each.arg in ("name", "args", "kwargs")}
        rest = [each for each in call.keywords if each.arg not in given]
        above = self._source.parent(call)
        if not isinstance(above, ast.Expr) and not (isinstance(above, ast.Attribute) and above.attr == "id"):
            raise CannotTranslateError("send_task: more than the id of what it returns may be asked for")
        name = given.get("name")
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
            raise CannotTranslateError("send_task: the name of its task is not written out")
        known, sent = self._project.task_named(name.value), self._project.sent_with(name.value)
        if known is None or sent is None:
            raise CannotTranslateError(
                "send_task: no task that was rewritten has this name; taskq.remote(name).delay(...) sends it"
            )
        if sent.obstacle:
            raise CannotTranslateError(
                f"send_task: a call by name would not carry the {sent.obstacle} of {name.value}; import it and call it"
            )
        options = self._run_options(rest)
        queue = self._routes.queue_of(known) if self._routes is not None else None
        named = {str(each[0]).partition("=")[0] for each in options}
        if queue is not None and "queue" not in named:
            options.append([f"queue={literal(queue)}"])
        options += [[each] for each in sent.options if each.partition("=")[0] not in named]
        arguments: list[list[Part]] = []
        if "args" in given:
            positional = given["args"].elts if isinstance(given["args"], ast.List | ast.Tuple) else None
            if positional is None or known.parameters is None or len(positional) > len(known.parameters):
                raise CannotTranslateError("send_task: its arguments have to be given by name")
            for parameter, value in zip(known.parameters, positional, strict=False):
                arguments.append([f"{parameter}=", self._source.span(value)])
        if "kwargs" in given:
            arguments += self._named(given["kwargs"])
        app = self._file.want(self._file.app or "taskq", self._file.module)
        parts: list[Part] = [f"{app}.remote(", *joined([[self._source.span(name)], *options]), ").delay("]
        if self._source.is_in_text(call) or not self._source.replace(call, *parts, *joined(arguments), ")"):
            raise CannotTranslateError("send_task: there is a comment inside the call, or it is in an f-string")
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            self._file.replaced.add(call.func.value.id)

    def _rebuild(
        self, call: ast.Call, function: ast.Attribute, pieces: list[list[Part]], refused: list[ast.expr]
    ) -> None:
        """Put calls of methods in the place of one, behind what it is called on."""
        if refused:
            raise CannotTranslateError(f"{function.attr}: its arguments are not written out")
        if self._source.is_in_text(call):
            raise CannotTranslateError(f"{function.attr} inside an f-string")
        end = self._source.span(function).end
        place = Span(end - len(function.attr.encode()), self._source.span(call).end)
        parts: list[Part] = []
        for number, piece in enumerate(pieces):
            parts += ["."] if number else []
            parts += piece
        if not self._source.replace(place, *parts):
            raise CannotTranslateError(f"{function.attr}: there is a comment inside the call")

    def _positional(self, value: ast.expr) -> list[list[Part]]:
        if isinstance(value, ast.Constant) and value.value is None:
            return []
        if isinstance(value, ast.List | ast.Tuple):
            return [[self._source.span(each)] for each in value.elts]
        return [["*", self._source.span(value)]]

    def _named(self, value: ast.expr) -> list[list[Part]]:
        if isinstance(value, ast.Constant) and value.value is None:
            return []
        if isinstance(value, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in value.keys]
            texts = [key for key in keys if isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)]
            if len(set(texts)) == len(keys):
                return [[f"{text}=", self._source.span(each)] for text, each in zip(texts, value.values, strict=True)]
        return [["**", self._source.span(value)]]

    def _run_options(self, keywords: list[ast.keyword]) -> list[list[Part]]:
        options: dict[str, list[Part]] = {}
        for each in keywords:
            if each.arg in _RETRY_OF_CONNECTION:
                continue  # an enqueue is always repeated, for as long as ENQUEUE_TIMEOUT says
            if each.arg == "ignore_result" and isinstance(each.value, ast.Constant):
                if each.value.value:
                    options["retention"] = ["retention=0"]
                continue
            name = _RUN_OPTIONS.get(each.arg or "")
            if name is None:
                raise CannotTranslateError(f"apply_async({each.arg or '**'}=) has no equal that could be put here")
            if isinstance(each.value, ast.Constant) and each.value.value is None:
                continue
            if name in options and name != "timeout":
                raise CannotTranslateError("apply_async: countdown and eta together")
            options[name] = [f"{name}=", self._source.span(each.value)]
        return list(options.values())

    def _get(self, call: ast.Call, function: ast.Attribute) -> None:
        keywords = [each for each in call.keywords if each.arg != "disable_sync_subtasks"]
        wait = [*call.args, *(each.value for each in keywords)]
        if len(wait) > 1 or any(each.arg != "timeout" for each in keywords):
            raise CannotTranslateError("get: handle.result(timeout=) takes nothing else")
        parts: list[Part] = ["result("]
        if wait:
            parts += ["timeout=", self._source.span(wait[0])]
        self._rebuild(call, function, [[*parts, ")"]], [])
        self._file.note(call, "a result is kept only with retention, for the task or in DEFAULTS")

    def _called_canvas(self, call: ast.Call) -> None:
        if self._kind(call.func) != "canvas":
            return
        inner = call.func
        try:
            if (
                isinstance(inner, ast.Call)
                and self._names.celery(inner.func) in ("chord", "canvas.chord")
                and len(inner.args) == 1
                and not inner.keywords
            ):
                if len(call.args) != 1 or call.keywords or isinstance(call.args[0], ast.Starred):
                    raise CannotTranslateError("a chord takes its callback and nothing else")
                parts: list[Part] = [self._source.span(inner.func), "(", self._source.span(inner.args[0]), ", "]
                if not self._source.replace(call, *parts, self._source.span(call.args[0]), ").delay()"):
                    raise CannotTranslateError("there is a comment inside the chord")
                return
            if call.args or call.keywords:
                raise CannotTranslateError("a workflow is enqueued by .delay(), which takes no arguments")
            end = self._source.span(call.func).end
            text = self._source.read(Span(end, self._source.span(call).end))
            opening = text.rindex("(")
            if not self._source.replace(Span(end + opening, self._source.span(call).end), ".delay()"):
                raise CannotTranslateError("there is a comment inside the call")
        except CannotTranslateError as error:
            self._file.mark(call, str(error))

    def _may_be_celery(self, call: ast.Call) -> bool:
        """Whether an unknown `apply_async` may be a task's and not a pool's, which takes a function first."""
        if call.args and not isinstance(call.args[0], ast.List | ast.Tuple | ast.Starred):
            return False
        return self._names.uses_celery or any(map(self._project.kind, self._names.imported.values()))


def _is_immutable(node: ast.expr) -> bool:
    """Whether a signature takes no further arguments: one of `si`, with options or without."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "si":
            return True
        node = node.func.value
    return False
