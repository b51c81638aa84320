"""A Celery task as a task of taskq: the options of its decorator, and what its body does with `self`.

Celery retries a task when it asks for it or names the errors; taskq retries whatever fails, unless told otherwise. So
each rewritten task says what Celery meant: never, for these errors only, or when asked.
"""

import ast
import re
from collections.abc import Callable, Iterator

from taskq_core.migration.names import CANVAS, Names, Sent, options_of
from taskq_core.migration.schedules import CannotTranslateError
from taskq_core.migration.source import Part, Source, Span

Want = Callable[[str], str]
"""Has a name of `taskq_core` imported, and returns what it is called in the file."""
Edit = tuple[ast.AST | Span, tuple[Part, ...]]

_KEPT = {"name": "name", "queue": "queue", "expires": "expires", "dont_autoretry_for": "no_retry_on"}
_NEEDLESS = {
    "bind": "",
    "acks_late": "",
    "ignore_result": "",
    "reject_on_worker_lost": "",
    "acks_on_failure_or_timeout": "",
    "track_started": "",
    "store_errors_even_if_ignored": "",
    "trail": "",
    "send_events": "",
    "pydantic": "",
    "throws": "throws only said how errors are logged; it was left out",
}
_RETRYING = (
    "autoretry_for",
    "max_retries",
    "default_retry_delay",
    "retry_backoff",
    "retry_backoff_max",
    "retry_jitter",
    "retry_kwargs",
)
_ATTRIBUTES = {"max_retries": "max_retry", "name": "name"}
_REQUEST = {"id": "id", "retries": "retried", "headers": "headers", "task": "name", "called_directly": "local"}
_MAX_RETRIES = "3"
_RETRY_DELAY = "180"


class Decorated:
    """A function under a decorator of Celery's.

    Attributes:
        node: The function.
        options: What the decorator was given by name.
        me: The name of the parameter that is the task, "" where it is not bound.
        retries: Calls of `self.retry`.
    """

    def __init__(self, node: ast.FunctionDef | ast.AsyncFunctionDef, decorator: ast.expr, names: Names) -> None:
        self.node = node
        self.names = names
        self.options = options_of(decorator)
        if isinstance(decorator, ast.Call) and (decorator.args or any(each.arg is None for each in decorator.keywords)):
            raise CannotTranslateError("the arguments of its decorator are not written out")
        bind = self.options.get("bind")
        if bind is not None and not isinstance(bind, ast.Constant):
            raise CannotTranslateError("bind is not written out")
        self.me = ""
        if isinstance(bind, ast.Constant) and bind.value:
            if not node.args.args:
                raise CannotTranslateError("it is bound and has no parameter")
            self.me = node.args.args[0].arg
        self.retries = [
            each
            for each in ast.walk(node)
            if isinstance(each, ast.Call)
            and isinstance(each.func, ast.Attribute)
            and each.func.attr == "retry"
            and isinstance(each.func.value, ast.Name)
            and each.func.value.id == self.me
            and self.me
        ]


# --- the decorator ----------------------------------------------------------------------------------------------------


def task_options(decorated: Decorated, source: Source, want: Want) -> tuple[list[list[Part]], list[str]]:
    """Return the arguments of the new decorator, and notes.

    Raises:
        CannotTranslateError: One has no equal.
    """
    given = decorated.options
    found: list[list[Part]] = []
    notes: list[str] = []
    for name, value in given.items():
        text = source.read(value)
        if name in _KEPT:
            if not (isinstance(value, ast.Constant) and value.value is None):
                found.append([f"{_KEPT[name]}=", source.span(value)])
        elif name == "ignore_result" and _is_true(value):
            found.append(["retention=0"])
        elif name in _NEEDLESS:
            if _NEEDLESS[name]:
                notes.append(_NEEDLESS[name])
        elif name in ("time_limit", "soft_time_limit"):
            if name == "soft_time_limit" or "soft_time_limit" not in given:
                found.append(["timeout=", source.span(value)])
            else:
                notes.append('only with executor="process" is a function killed that goes on after its timeout')
        elif name == "rate_limit":
            found.append([f"rate_limit={_rate(value)}"])
            notes.append("a rate holds for all workers together, in Celery for each")
        elif name == "serializer" and isinstance(value, ast.Constant) and value.value == "json":
            continue
        elif name not in _RETRYING:
            raise CannotTranslateError(f"its option {name}={text} has no equal that could be put here")
    return [*found, *_retrying(decorated, source, want)], notes


_CARRIED = ("max_retry", "timeout", "expires", "retention")
_OF_RUNS = ("name", "queue", "retry_on", "no_retry_on", "retry_delay")
"""What the worker looks up with the task, whoever has sent it, and what does not count for a call by name."""


def options_sent(options: list[list[Part]], source: Source) -> Sent:
    """Return the options of a task that its calls carry, as a call by name has to give them, as far as it can."""
    found = []
    for parts in options:
        text = "".join(part if isinstance(part, str) else source.read(part) for part in parts)
        name, _, value = text.partition("=")
        if name in _CARRIED and re.fullmatch(r"[0-9_.]+", value):
            found.append(text)
        elif name not in _OF_RUNS:
            return Sent([], name)
    return Sent(found)


def _is_true(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def _rate(value: ast.expr) -> str:
    if isinstance(value, ast.Constant):
        if isinstance(value.value, int) and not isinstance(value.value, bool) and value.value > 0:
            return f'"{value.value}/s"'
        if isinstance(value.value, str) and re.fullmatch(r"[1-9][0-9]*(/[smh])?", value.value):
            return f'"{value.value}"' if "/" in value.value else f'"{value.value}/s"'
    raise CannotTranslateError("its rate_limit is no number of tasks per s, m or h")


def _retrying(decorated: Decorated, source: Source, want: Want) -> list[list[Part]]:
    given = dict(decorated.options)
    _spread(given)
    automatic = given.get("autoretry_for")
    if isinstance(automatic, ast.Tuple | ast.List) and not automatic.elts:
        automatic = None
    if automatic is None and not decorated.retries:
        # A task that nobody retries: it fails at once. With acks_late another worker takes it over from a lost one.
        return (
            [["no_retry_on=Exception"]] if _is_true(given.get("acks_late", ast.Constant(None))) else [["max_retry=0"]]
        )
    found: list[list[Part]] = []
    most = given.get("max_retries")
    if isinstance(most, ast.Constant) and most.value is None and "max_retries" in given:
        raise CannotTranslateError("it is retried for ever; say how often with max_retry")
    found.append(["max_retry=", source.span(most)] if most is not None else [f"max_retry={_MAX_RETRIES}"])
    if automatic is None:
        found.append(["no_retry_on=Exception"])  # it is retried when it raises Retry, and for no other error
    elif not (isinstance(automatic, ast.Tuple) and [source.read(each) for each in automatic.elts] == ["Exception"]):
        found.append(["retry_on=", source.span(automatic)])
    found.append(_delay(given, source, want))
    return found


def _spread(given: dict[str, ast.expr]) -> None:
    """Put what `retry_kwargs` says beside the other options."""
    more = given.get("retry_kwargs")
    if more is None:
        return
    if not isinstance(more, ast.Dict):
        raise CannotTranslateError("its retry_kwargs are not written out")
    for key, value in zip(more.keys, more.values, strict=True):
        name = key.value if isinstance(key, ast.Constant) else None
        if name == "max_retries":
            given["max_retries"] = value
        elif name == "countdown":
            given["default_retry_delay"] = value
            given.pop("retry_backoff", None)
        else:
            raise CannotTranslateError("its retry_kwargs have more than max_retries and countdown")


def _delay(given: dict[str, ast.expr], source: Source, want: Want) -> list[Part]:
    backoff = given.get("retry_backoff")
    if backoff is None or (isinstance(backoff, ast.Constant) and not backoff.value):
        delay = given.get("default_retry_delay")
        return ["retry_delay=", source.span(delay)] if delay is not None else [f"retry_delay={_RETRY_DELAY}"]
    limit = given.get("retry_backoff_max")
    jitter = given.get("retry_jitter")
    parts: list[Part] = [f"retry_delay={want('exponential')}("]
    parts += ["1"] if _is_true(backoff) else [source.span(backoff)]
    parts += [", limit=", source.span(limit)] if limit is not None else [", limit=600"]
    if jitter is not None:
        parts += [", jitter=", source.span(jitter)]
    return [*parts, ")"]


# --- the body ---------------------------------------------------------------------------------------------------------


def body_edits(decorated: Decorated, source: Source, want: Want) -> Iterator[Edit]:
    """Yield the edits of a task's parameters and body.

    Raises:
        CannotTranslateError: It does something with `self`, or with Celery, that has no equal.
    """
    _refuse_celery(decorated)
    if not decorated.me:
        return
    first = decorated.node.args.args[0]
    if first.annotation is not None:
        yield first.annotation, (want("TaskContext"),)
    else:
        end = source.span(first).end
        yield Span(end, end), (f": {want('TaskContext')}",)
    for node in _uses(decorated):
        if source.is_in_text(node):
            raise CannotTranslateError(f"{decorated.me} stands inside an f-string")
        yield _use(decorated, node, source, want)


def _refuse_celery(decorated: Decorated) -> None:
    for node in (each for statement in decorated.node.body for each in ast.walk(statement)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            made = decorated.names.celery(node)
            if made is not None and made.removeprefix("canvas.") not in CANVAS:
                raise CannotTranslateError(f"it uses {node.id}, which has no equal that could be put here")


def _uses(decorated: Decorated) -> Iterator[ast.Name]:
    for statement in decorated.node.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and node.id == decorated.me:
                yield node
            elif isinstance(node, ast.arg) and node.arg == decorated.me:
                raise CannotTranslateError(f"{decorated.me} means something else inside")


def _use(decorated: Decorated, node: ast.Name, source: Source, want: Want) -> Edit:
    """Return the edit of one use of `self`."""
    me = decorated.me
    above = source.parent(node)
    if not isinstance(above, ast.Attribute) or not isinstance(node.ctx, ast.Load):
        raise CannotTranslateError(f"it hands {me} on, which is another object here")
    if above.attr == "request":
        outer = source.parent(above)
        if isinstance(outer, ast.Attribute) and isinstance(outer.ctx, ast.Load) and outer.attr in _REQUEST:
            return outer, (f"{me}.{_REQUEST[outer.attr]}",)
        raise CannotTranslateError(f"{me}.request has id, retries, headers and task only")
    if above.attr in _ATTRIBUTES and isinstance(above.ctx, ast.Load):
        return above, (f"{me}.{_ATTRIBUTES[above.attr]}",)
    call = source.parent(above)
    if isinstance(call, ast.Call) and call.func is above:
        if above.attr == "retry":
            return _retry(call, source, want)
        if above.attr == "update_state":
            return _progress(me, call, source)
    raise CannotTranslateError(f"{me}.{above.attr} has no equal that could be put here")


def _retry(call: ast.Call, source: Source, want: Want) -> Edit:
    statement = source.parent(call)
    given = {each.arg: each.value for each in call.keywords}
    if call.args or given.keys() - {"exc", "countdown"}:
        raise CannotTranslateError("retry: only countdown and exc are known; max_retries belongs to the task")
    cause: list[Part] = []
    if "exc" in given and not (isinstance(given["exc"], ast.Constant) and given["exc"].value is None):
        cause = [" from ", source.span(given["exc"])]
    raised: list[Part] = [f"raise {want('Retry')}("]
    countdown = given.get("countdown")
    if countdown is not None and not (isinstance(countdown, ast.Constant) and countdown.value is None):
        raised += ["after=", source.span(countdown)]
    raised.append(")")
    if isinstance(statement, ast.Raise):
        cause = [" from ", source.span(statement.cause)] if statement.cause is not None else cause
    elif not isinstance(statement, ast.Expr | ast.Return):
        raise CannotTranslateError("retry stands inside an expression")
    return statement, (*raised, *cause)


def _progress(me: str, call: ast.Call, source: Source) -> Edit:
    given = {each.arg: each.value for each in call.keywords}
    meta = given.get("meta")
    if call.args or given.keys() - {"state", "meta"} or not isinstance(meta, ast.Dict):
        raise CannotTranslateError("update_state: progress(done, total, message) tells how far a task is")
    values: dict[object, ast.expr] = {}
    for key, value in zip(meta.keys, meta.values, strict=True):
        values[key.value if isinstance(key, ast.Constant) else None] = value
    if values.keys() not in ({"current", "total"}, {"current", "total", "status"}):
        raise CannotTranslateError("update_state: progress(done, total, message) tells how far a task is")
    parts: list[Part] = [f"{me}.progress(", source.span(values["current"]), ", ", source.span(values["total"])]
    if "status" in values:
        parts += [", ", source.span(values["status"])]
    return call, (*parts, ")")
