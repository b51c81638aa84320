"""Translate calls of Celery's tasks, signatures, canvases and results. Other calls are not changed."""

import keyword
from collections.abc import Iterator

import libcst as cst

from taskq_core.migrate.source import (
    CANVAS,
    DELAYS,
    CannotTranslateError,
    File,
    bound,
    code,
    comments,
    constant,
    elements,
    entries,
    literal,
)

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
"""Names of taskq's options, by the name of the equivalent option of Celery's `apply_async` and `set`."""
_NEEDLESS = ("retry", "retry_policy")
_REFUSED = {
    "subtask": "bind arguments with .s() and .si()",
    "signature": "bind arguments with .s() and .si()",
    "chunks": "Celery runs one task for all items; taskq's task.map() is a group with one task for each item",
    "map": "Celery runs one task for all items; taskq's task.map() is a group with one task for each item",
    "starmap": "Celery runs one task for all items; taskq's task.map() is a group with one task for each item",
    "apply": "call the function itself, or use taskq_core.testing",
}


class Calls:
    """Translates the Celery calls of one file, such as `send.apply_async(...)`."""

    def __init__(self, file: File) -> None:
        self._file = file

    def rewrite(self, old: cst.Call, new: cst.Call, app: str) -> cst.BaseExpression:
        """Return the taskq call that does the same as a Celery call.

        Args:
            old: The call in the original file.
            new: The same call, in which inner calls have been translated.
            app: The name of the `TaskQ` in the file.

        Raises:
            CannotTranslateError: The call has no equivalent.
        """
        made = self._rewrite(old, new, app)
        if made is not new and comments(made) < comments(new):
            raise CannotTranslateError(f"{code(old.func).strip()}(...) contains a comment, which would be lost")
        return made

    def _rewrite(self, old: cst.Call, new: cst.Call, app: str) -> cst.BaseExpression:
        if not isinstance(old.func, cst.Attribute):
            return self._call_of_canvas(old, new)
        verb, of = old.func.attr.value, self._file.meaning(old.func.value)
        kind = of.kind if of is not None else ""
        if verb in DELAYS and kind in ("task", "signature", "canvas"):
            return new if verb == "delay" else self._delay(old, new, verb, kind)
        if verb == "apply_async" and kind != "left" and self._may_be_task(old):
            raise CannotTranslateError(
                "apply_async is called on an object that may not be a task; replace the call by hand"
            )
        if verb == "set" and kind == "signature":
            return _method(new, "using", self._options(_named(new)))
        if verb == "get" and kind == "handle":
            return self._get(old, new)
        if verb in _REFUSED and (kind == "task" or (kind, verb) == ("signature", "apply")):
            raise CannotTranslateError(f"{verb}: {_REFUSED[verb]}")
        if verb == "send_task" and self._file.is_app(old.func.value):
            return self._send_task(old, new, app)
        return new

    # --- delay and apply_async ----------------------------------------------------------------------------------------

    def _delay(self, old: cst.Call, new: cst.Call, verb: str, kind: str) -> cst.BaseExpression:
        if verb == "delay_on_commit":
            return new.with_changes(func=_attribute(new).with_changes(attr=cst.Name("delay")))
        given = bound(new, ("args", "kwargs", "task_id"), verb)
        links = {str(name): given.pop(name) for name in ("link", "link_error") if name in given}
        arguments = [*_positional(given.pop("args", None)), *_by_name(given.pop("kwargs", None))]
        if kind != "task" and arguments:
            raise CannotTranslateError("apply_async: pass the arguments of a signature to .s()")
        if "eta" in given:
            self._file.note(old, "run_after needs a datetime with a time zone")
        options = self._options(given)
        if kind == "canvas" and options:
            raise CannotTranslateError("apply_async: a workflow has no options; set those of its steps with using()")
        if any(isinstance(each, cst.FunctionDef) and each.asynchronous for each in self._file.parents(old)):
            self._file.note(old, ".delay() blocks the event loop; await .adelay()")
        made: cst.BaseExpression = _attribute(new).value
        if links and kind == "task":
            made, arguments = _called(made, "s", arguments), []
        if options:
            made = _called(made, "using", options)
        for name, callbacks in self._callbacks(old, kind, links, options):
            made = _called(made, name, callbacks)
        function = _attribute(new).with_changes(value=made, attr=cst.Name("delay"))
        return new.with_changes(
            func=function, args=_arguments(arguments), whitespace_before_args=cst.SimpleWhitespace("")
        )

    def _callbacks(
        self, old: cst.Call, kind: str, links: dict[str, cst.BaseExpression], options: list[str]
    ) -> Iterator[tuple[str, list[str]]]:
        """Translate `link` and `link_error`: yield `on_success` or `on_error` of a workflow, and its callbacks."""
        if links and kind == "canvas":
            raise CannotTranslateError("link: add the callbacks of a workflow with on_success() and on_error()")
        if links and not isinstance(self._file.parent(old), cst.Expr):
            raise CannotTranslateError(
                "link: the new call would return the handle of a workflow; write it by hand, see on_success()"
            )
        if links and any(each.startswith("task_id=") for each in options):
            raise CannotTranslateError("link: the new call would be a workflow, whose steps cannot have a task_id")
        for name, value in links.items():
            before = next(each.value for each in old.args if each.keyword and each.keyword.value == name)
            signatures, texts = elements(before) or [before], elements(value) or [value]
            meanings = [self._file.meaning(each) for each in signatures]
            if not all(each is not None and each.kind == "signature" for each in meanings):
                raise CannotTranslateError(
                    f"{name}: the callback may not be a signature of a task; write it by hand, see on_success()"
                )
            if name == "link_error" and not all(map(_is_immutable, signatures)):
                raise CannotTranslateError(
                    "link_error: its callback gets a StepFailure in taskq, and request, error and traceback in Celery"
                )
            yield "on_success" if name == "link" else "on_error", [code(each) for each in texts]

    def _options(self, given: dict[str, cst.BaseExpression]) -> list[str]:
        found: dict[str, str] = {}
        for key, value in given.items():
            if key == "ignore_result" and constant(value) is not ...:
                found |= {"retention": "retention=0"} if constant(value) else {}
            elif key not in _RUN_OPTIONS and key not in _NEEDLESS:
                raise CannotTranslateError(f"apply_async({key}=) has no equivalent")
            elif key not in _NEEDLESS and constant(value) is not None:
                name = _RUN_OPTIONS[key]
                if name in found and name != "timeout":
                    raise CannotTranslateError("apply_async has both countdown and eta; keep one of them")
                found[name] = f"{name}={code(value)}"
        return list(found.values())

    def _may_be_task(self, call: cst.Call) -> bool:
        """Return whether an `apply_async` of an unknown object may be a method of a task, and not of a process pool.

        The first argument of a pool's `apply_async` is a function.
        """
        if call.args and not call.args[0].keyword and not isinstance(call.args[0].value, cst.List | cst.Tuple):
            return bool(call.args[0].star)
        origins = self._file.imports.values()
        return any(each.startswith("celery") or self._file.project.at(each) for each in origins)

    # --- results, workflows and calls by name -------------------------------------------------------------------------

    def _get(self, old: cst.Call, new: cst.Call) -> cst.BaseExpression:
        given = bound(new, ("timeout",), "get")
        given.pop("disable_sync_subtasks", None)
        if given.keys() - {"timeout"}:
            raise CannotTranslateError("get: taskq's handle.result() has no other argument than timeout")
        return _method(new, "result", [f"{name}={code(value)}" for name, value in given.items()])

    def _call_of_canvas(self, old: cst.Call, new: cst.Call) -> cst.BaseExpression:
        of = self._file.meaning(old.func)
        if of is None or of.kind != "canvas":
            return new
        inner, header = old.func, new.func
        is_chord = isinstance(inner, cst.Call) and self._file.celery(inner.func) in ("chord", "canvas.chord")
        if is_chord and isinstance(header, cst.Call) and len(header.args) == 1 and not header.args[0].keyword:
            if len(new.args) != 1 or new.args[0].keyword or new.args[0].star:
                raise CannotTranslateError("a chord of taskq has no other argument than its callback")
            first = code(header.args[0].value)
            if isinstance(header.args[0].value, cst.GeneratorExp) and not first.startswith("("):
                first = f"({first})"
            chord = header.with_changes(args=_arguments([first, code(new.args[0].value)]))
            return new.with_changes(func=cst.Attribute(chord, cst.Name("delay")), args=[])
        if old.args:
            raise CannotTranslateError("a workflow is enqueued by .delay(), which has no arguments")
        return new.with_changes(func=cst.Attribute(header, cst.Name("delay")))

    def _send_task(self, old: cst.Call, new: cst.Call, app: str) -> cst.BaseExpression:
        """Translate `send_task` to a call by name, with the options that a direct call of the task would pass."""
        given = bound(new, ("name", "args", "kwargs"), "send_task")
        name = constant(given.pop("name", None))
        above = self._file.parent(old)
        if not isinstance(above, cst.Expr) and not (isinstance(above, cst.Attribute) and above.attr.value == "id"):
            raise CannotTranslateError("send_task: the result is used, but a taskq call by name returns only the id")
        if not isinstance(name, str):
            raise CannotTranslateError("send_task: the name of the task is not a literal")
        task = self._file.project.named(name)
        if task is None or task.left:
            raise CannotTranslateError("send_task: no rewritten task has this name; use taskq.remote(name).delay(...)")
        if task.obstacle:
            raise CannotTranslateError(
                f"send_task: a call by name does not pass the {task.obstacle} of {name}; import the task and call it"
            )
        if task.parameters is None:
            raise CannotTranslateError("send_task: the task has * or ** parameters; import the task and call it")
        positional = [*_positional(given.pop("args", None))]
        if len(positional) > len(task.parameters) or any(each.startswith("*") for each in positional):
            raise CannotTranslateError("send_task: pass the arguments of the task by name")
        arguments = [f"{parameter}={text}" for parameter, text in zip(task.parameters, positional, strict=False)]
        arguments += _by_name(given.pop("kwargs", None))
        options = self._options(given)
        named = {each.partition("=")[0] for each in options}
        queue = task.queue or constant(task.options.get("queue"))
        more = [f"queue={literal(queue)}"] if isinstance(queue, str) else []
        options += [each for each in (*more, *task.sent) if each.partition("=")[0] not in named]
        remote = cst.parse_expression(f"{app}.remote({', '.join([literal(name), *options])})")
        return new.with_changes(func=cst.Attribute(remote, cst.Name("delay")), args=_arguments(arguments))


def is_canvas(origin: str) -> bool:
    """Return whether a name is Celery's `chain`, `group` or `chord`."""
    module, _, name = origin.rpartition(".")
    return module in ("celery", "celery.canvas") and name in CANVAS


def _attribute(call: cst.Call) -> cst.Attribute:
    return cst.ensure_type(call.func, cst.Attribute)


def _arguments(texts: list[str]) -> list[cst.Arg]:
    made = cst.parse_expression(f"_({', '.join(texts)})")
    return list(cst.ensure_type(made, cst.Call).args)


def _called(value: cst.BaseExpression, name: str, arguments: list[str]) -> cst.Call:
    return cst.Call(cst.Attribute(value, cst.Name(name)), _arguments(arguments))


def _method(call: cst.Call, name: str, arguments: list[str]) -> cst.Call:
    """Return a call of another method of the same object, with other arguments."""
    return call.with_changes(
        func=_attribute(call).with_changes(attr=cst.Name(name)),
        args=_arguments(arguments),
        whitespace_before_args=cst.SimpleWhitespace(""),
    )


def _named(call: cst.Call) -> dict[str, cst.BaseExpression]:
    return bound(call, (), cst.ensure_type(call.func, cst.Attribute).attr.value)


def _positional(value: cst.BaseExpression | None) -> list[str]:
    if value is None or constant(value) is None:
        return []
    written = elements(value)
    return [f"*{code(value)}"] if written is None else [code(each) for each in written]


def _by_name(value: cst.BaseExpression | None) -> list[str]:
    if value is None or constant(value) is None:
        return []
    written = entries(value)
    names = [name for name, _ in written or ()]
    if written is None or not all(isinstance(each, str) and each.isidentifier() for each in names):
        return [f"**{code(value)}"]
    if any(map(keyword.iskeyword, names)) or len(set(names)) < len(names):
        return [f"**{code(value)}"]
    return [f"{name}={code(each)}" for name, each in written]


def _is_immutable(node: cst.BaseExpression) -> bool:
    """Return whether a signature was made by `si`, so that the previous result is not passed to it."""
    while isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
        if node.func.attr.value == "si":
            return True
        node = node.func.value
    return False
