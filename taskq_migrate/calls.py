"""Translate calls of Celery's tasks, signatures, canvases and results. Other calls are not changed."""

import keyword
from collections.abc import Iterator

import libcst as cst

from taskq_migrate.source import (
    CANVAS,
    DELAYS,
    OPTION_HINTS,
    CannotTranslateError,
    File,
    Task,
    bound,
    code,
    constant,
    elements,
    entries,
    literal,
    nodes,
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
_IN_PLACE = "a signature of taskq never changes; on_success(), on_error(), using() and with_arguments() return a copy"
_REFUSED_OF_SIGNATURES = dict.fromkeys(
    ("link", "link_error", "clone", "replace", "freeze", "stamp", "unchain", "skew"), _IN_PLACE
)
_BY_NAME = ("signature", "subtask", "Signature", "maybe_signature")
_LOOPS = ("chunks", "xmap", "xstarmap")
_ENQUEUE = (*DELAYS[1:], "subtask", "signature", "chunks")
"""Names of methods of a task that enqueue it, or prepare that, and that taskq does not have."""
_OF_TASKS = (
    *(*_ENQUEUE, "apply", "run", "request", "retry", "update_state", "app", "max_retries", "default_retry_delay"),
    *("AsyncResult", "backend", "rate_limit", "ignore_result"),
)
"""Names of attributes that only Celery tasks have."""


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
        if not isinstance(old.func, cst.Attribute):
            return self._call_of_canvas(old, new)
        verb, of = old.func.attr.value, self._file.meaning(old.func.value)
        kind = of.kind if of is not None else ""
        if of is not None and of.is_left:
            return new
        if verb in DELAYS and kind in ("task", "signature", "canvas"):
            return self._delay(old, new, verb, kind)
        if verb == "apply_async" and self._may_be_task(old):
            raise CannotTranslateError(
                "apply_async is called on an object that may not be a task; replace the call by hand"
            )
        if verb == "set" and kind == "signature":
            return _method(new, "using", self._options(_named(new)))
        if verb == "set" and kind == "canvas":
            raise CannotTranslateError("set: a workflow has no options; set those of its steps with using()")
        if verb == "get" and kind == "handle":
            return self._get(old, new)
        if verb in _REFUSED and (kind == "task" or (verb == "apply" and kind in ("signature", "canvas"))):
            raise CannotTranslateError(f"{verb}: {_REFUSED[verb]}")
        if verb in ("on_error", *_REFUSED_OF_SIGNATURES) and kind in ("signature", "canvas"):
            if verb != "on_error" or isinstance(self._file.parent(old), cst.Expr):
                raise CannotTranslateError(f"{verb}: {_IN_PLACE}")
            self._check_callbacks(verb, [each.value for each in old.args])
        if verb == "send_task":
            return self._send_task(old, new, app)
        self._refuse_call_by_name(old)
        return new

    def refused(self) -> Iterator[tuple[cst.BaseExpression, tuple[Task, ...], str]]:
        """Yield each expression that enqueues tasks and cannot be translated, with these tasks and the reason."""
        for call in self._file.all(cst.Call):
            try:
                self.rewrite(call, call, "taskq")
            except CannotTranslateError as error:
                if tasks := self._enqueued(call):
                    yield call, tasks, str(error)
        for node in self._file.all(cst.Attribute):
            of = self._file.meaning(node.value) if node.attr.value in _ENQUEUE else None
            if of is not None and not of.is_left and (text := self.without_equivalent(node)):
                yield node, of.tasks, text
        for each in self._file.all(cst.Subscript):
            value = each.value
            if isinstance(value, cst.Attribute) and value.attr.value == "tasks" and self._file.is_app(value.value):
                task = self._named(next(nodes(each.slice[0], cst.SimpleString), None))
                if task is not None and not task.left:
                    yield each, (task,), "tasks[...] of the app is a call by name; import the task and call it"

    def workflows(self) -> Iterator[tuple[Task, ...]]:
        """Yield tasks that must all be rewritten, or all remain with Celery, because one expression combines them."""
        for call in self._file.all(cst.Call):
            of = self._file.meaning(call)
            if of is not None and of.kind in ("canvas", "handle"):
                yield tuple(dict.fromkeys((*of.tasks, *self._file.signed(call))))
        for node in self._file.all(cst.BinaryOperation):
            of = self._file.meaning(node)
            if of is not None:
                yield of.tasks

    def without_equivalent(self, node: cst.Attribute) -> str:
        """Return the mark for an attribute of a task that taskq's tasks do not have, "" for any other attribute."""
        of, name = self._file.meaning(node.value), node.attr.value
        above = self._file.parent(node)
        is_called = isinstance(above, cst.Call) and above.func is node
        if of is None or of.kind != "task" or name not in _OF_TASKS or (is_called and name in (*_ENQUEUE, "apply")):
            return ""
        return f".{name}: a task of taskq has no such attribute; see delay(), using() and s()"

    def _enqueued(self, call: cst.Call) -> tuple[Task, ...]:
        """Return the tasks that a call enqueues."""
        found: list[Task | None] = [*self._file.signed(call)]
        if isinstance(call.func, cst.Attribute):
            of = self._file.meaning(call.func.value)
            if call.func.attr.value == "apply" or (of is not None and of.kind == "handle"):
                return ()
            found += of.tasks if of is not None else ()
        found.append(self._named(call.args[0].value) if call.args else None)
        return tuple(dict.fromkeys(task for task in found if task is not None))

    def _named(self, name: cst.BaseExpression | None) -> Task | None:
        text = constant(name)
        return self._file.project.named(text) if isinstance(text, str) else None

    def _refuse_call_by_name(self, call: cst.Call) -> None:
        """Raise CannotTranslateError if the call is `signature("name")` or `chunks(...)` of Celery."""
        made = (self._file.celery(call.func) or "").rpartition(".")[2]
        if isinstance(call.func, cst.Attribute) and self._file.is_app(call.func.value):
            made = call.func.attr.value
        if made in _LOOPS:
            raise CannotTranslateError(f"{made}: {_REFUSED['chunks']}")
        task = self._named(call.args[0].value) if made in _BY_NAME and call.args else None
        if task is not None and not task.left:
            raise CannotTranslateError(f"{made}: this is a call by name; import the task, and bind arguments with .s()")

    # --- delay and apply_async ----------------------------------------------------------------------------------------

    def _delay(self, old: cst.Call, new: cst.Call, verb: str, kind: str) -> cst.BaseExpression:
        if kind != "task" and verb == "delay" and new.args:
            raise CannotTranslateError("delay: pass the arguments of a signature to .s()")
        if verb == "delay":
            return new
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
            self._check_callbacks(name, signatures)
            yield "on_success" if name == "link" else "on_error", [code(each) for each in texts]

    def _check_callbacks(self, name: str, signatures: list[cst.BaseExpression]) -> None:
        meanings = [self._file.meaning(each) for each in signatures]
        if not all(each is not None and each.kind == "signature" for each in meanings):
            raise CannotTranslateError(
                f"{name}: the callback may not be a signature of a task; write it by hand, see on_success()"
            )
        if name != "link" and not all(_is_immutable(self._file.value_of(each)) for each in signatures):
            raise CannotTranslateError(
                f"{name}: its callback gets a StepFailure in taskq, and request, error and traceback in Celery"
            )

    def _options(self, given: dict[str, cst.BaseExpression]) -> list[str]:
        found: dict[str, str] = {}
        for key, value in given.items():
            if key == "ignore_result" and constant(value) is not ...:
                found |= {"retention": "retention=0"} if constant(value) else {}
            elif key not in _RUN_OPTIONS and key not in _NEEDLESS:
                raise CannotTranslateError(f"{key}: {OPTION_HINTS.get(key, 'this option has no equivalent')}")
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
        if of is None:
            self._refuse_call_by_name(old)
        if of is None or of.kind not in ("signature", "canvas") or of.is_left:
            return new
        if of.kind == "signature":
            raise CannotTranslateError("a signature is called, which runs the task here; call the function itself")
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
        is_app = self._file.is_app(cst.ensure_type(old.func, cst.Attribute).value)
        given = bound(new, ("name", "args", "kwargs"), "send_task")
        name = constant(given.pop("name", None))
        task = self._file.project.named(name) if isinstance(name, str) else None
        if (task is not None and task.left) or (task is None and not is_app):
            return new
        if not is_app:
            raise CannotTranslateError("send_task: its object may not be a Celery app; import the task and call it")
        above = self._file.parent(old)
        if not isinstance(above, cst.Expr) and not (isinstance(above, cst.Attribute) and above.attr.value == "id"):
            raise CannotTranslateError("send_task: the result is used, but a taskq call by name returns only the id")
        if not isinstance(name, str):
            raise CannotTranslateError("send_task: the name of the task is not a literal")
        if task is None:
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
