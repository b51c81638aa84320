"""Translate Celery tasks: the options of the decorator, and the uses of `self` in the body.

Celery retries a task only if the task calls `retry` or has `autoretry_for`. taskq retries after every failure unless an
option forbids it. So each rewritten task gets options that keep Celery's behavior.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import cast

import libcst as cst
from libcst import matchers as m

from taskq_migrate.source import (
    CANVAS,
    OPTION_HINTS,
    CannotTranslateError,
    Function,
    Node,
    Task,
    code,
    constant,
    elements,
    entries,
    keywords,
    literal,
    nodes,
)

AddImport = Callable[..., str]
"""Adds an import of a name, and returns the name under which the file uses it."""

_SAME = {"name": "name", "queue": "queue", "expires": "expires", "dont_autoretry_for": "no_retry_on"}
_NEEDLESS = (
    *("bind", "acks_late", "ignore_result", "reject_on_worker_lost", "acks_on_failure_or_timeout", "track_started"),
    *("store_errors_even_if_ignored", "trail", "send_events", "pydantic", "throws", "shared"),
)
_RETRYING = (
    *("autoretry_for", "max_retries", "default_retry_delay", "retry_backoff", "retry_backoff_max", "retry_jitter"),
    "retry_kwargs",
)
_CARRIED = ("max_retry", "timeout", "expires", "retention")
_OF_RUNS = ("name", "queue", "retry_on", "no_retry_on", "retry_delay", "executor")
"""Options that a call by name need not pass, because the worker reads them from the task or the call itself contains
them."""
_ATTRIBUTES = {"max_retries": "max_retry", "name": "name"}
_REQUEST = {"id": "id", "retries": "retried", "headers": "headers", "task": "name", "called_directly": "local"}
_DATE_METHODS = ("isoformat", "strftime", "astimezone", "timestamp", "quantize", "weekday", "toordinal", "tzinfo")
IMPORT_HINTS = {
    "AsyncResult": "taskq.get(task_id) returns the handle of a task, with its state, result and error",
    "Celery": "the settings and the TaskQ replace the app",
    "Task": "a task is a function; middleware or a worker_lifespan replaces a base class",
    "SoftTimeLimitExceeded": "at its timeout a plain function gets TaskInterrupted, and a coroutine is cancelled",
    "MaxRetriesExceededError": "a task without attempts left is archived; see on_archived",
    "Retry": "raise taskq_core.Retry",
    "Ignore": "raise taskq_core.Discard, which deletes the task",
    "Reject": "raise taskq_core.SkipRetry or taskq_core.Discard",
    "revoke": "taskq.get(task_id).cancel()",
    "inspect": "see Inspector and the command taskq",
    "signature": "bind arguments with .s() and .si()",
    "current_task": "taskq_core.current_task() is a function",
    "current_app": "import the TaskQ",
    "task_failure": "on_archived is called for tasks without attempts left, on_error for each run that fails",
    "task_retry": "on_error is called for each run that fails",
    **dict.fromkeys(("task_prerun", "task_postrun", "task_success"), "middleware wraps runs"),
    **dict.fromkeys(("before_task_publish", "after_task_publish"), "middleware is called when a task is enqueued"),
    **dict.fromkeys(
        ("worker_init", "worker_process_init", "worker_ready", "worker_shutdown", "worker_process_shutdown"),
        "a worker_lifespan opens and closes the resources of a worker",
    ),
    **dict.fromkeys(("setup_logging", "after_setup_logger"), "logging is left to the project"),
}
"""What replaces a name that is imported from Celery."""
RESULT_KEPT_S = 86_400
"""Celery's default retention of results, in seconds."""


# --- the decorator ----------------------------------------------------------------------------------------------------


def check(task: Task) -> None:
    """Check that a task can be rewritten. Raise CannotTranslateError if it cannot."""
    node, file = task.node, task.file
    if not isinstance(next(file.parents(node)), cst.Module) and any(
        isinstance(each, cst.FunctionDef | cst.ClassDef) for each in file.parents(node)
    ):
        raise CannotTranslateError("a task must be a top-level function of a module")
    if node.params.posonly_params:
        raise CannotTranslateError("the function has positional-only parameters, but taskq passes arguments by name")
    if any(True for _ in nodes(node.body, cst.Yield)):
        raise CannotTranslateError("the function is a generator, whose body would never run")
    for used in nodes(node.body, cst.Name):
        made, above = file.celery(used), file.parent(used)
        is_sent = made == "current_app" and isinstance(above, cst.Attribute) and above.attr.value == "send_task"
        if made is not None and made.removeprefix("canvas.") not in CANVAS and not is_sent:
            hint = IMPORT_HINTS.get(made.rpartition(".")[2], "it has no equivalent")
            raise CannotTranslateError(f"the task uses {code(used)}: {hint}")
    wanted = task_options(task, lambda name, *_: name)
    for option in wanted:
        name, _, value = option.partition("=")
        if name in _CARRIED and re.fullmatch(r"[0-9_.]+", value):
            task.sent.append(option)
        elif name not in _OF_RUNS:
            task.obstacle = name
    rewrite_function(task, node, lambda name, *_: name)


def task_options(task: Task, add_import: AddImport, *, is_strict: bool = False) -> list[str]:
    """Translate the options of a task. Return the arguments of taskq's decorator, as source code.

    Args:
        task: The task.
        add_import: Adds an import of a name, and returns the name under which the file uses it.
        is_strict: Whether the settings have a hard time limit for all tasks (`task_time_limit`).

    Raises:
        CannotTranslateError: An option has no equivalent.
    """
    given = task.options
    if isinstance(task.decorator, cst.Call) and not all(each.keyword or each.star for each in task.decorator.args):
        raise CannotTranslateError("the decorator has positional arguments")
    found = []
    for name, value in given.items():
        if name in _SAME:
            if constant(value) is not None:
                found.append(f"{_SAME[name]}={code(value)}")
        elif name == "ignore_result" and constant(value) is True:
            found.append("retention=0")
        elif name == "rate_limit":
            found.append(f"rate_limit={_rate(value)}")
        elif name in ("time_limit", "soft_time_limit", "serializer", *_RETRYING, *_NEEDLESS):
            if name == "acks_on_failure_or_timeout" and constant(value) is not True:
                raise CannotTranslateError(f"the option {name}={code(value)} has no equivalent: a failure is archived")
            if name == "throws":
                task.file.note(task.node, "throws: taskq logs these errors like all others")
            if name == "serializer" and constant(value) != "json":
                raise CannotTranslateError(f"the option serializer={code(value)} has no equivalent: payloads are JSON")
        else:
            hint = f": {OPTION_HINTS[name]}" if name in OPTION_HINTS else " has no equivalent"
            raise CannotTranslateError(f"the option {name or '*'}={code(value)}{hint}")
    return [*found, *_time_limits(task, is_strict=is_strict), *_retrying(task, add_import), *_inferred_options(task)]


def _time_limits(task: Task, *, is_strict: bool) -> Iterator[str]:
    """Yield the options for time limits. A hard limit kills the task, so the task needs a separate process."""
    hard, soft = task.options.get("time_limit"), task.options.get("soft_time_limit")
    limit = soft if soft is not None and constant(soft) is not None else hard
    if limit is not None and constant(limit) is not None:
        yield f"timeout={code(limit)}"
    if (is_strict or (hard is not None and constant(hard) is not None)) and not task.node.asynchronous:
        yield 'executor="process"'


def _inferred_options(task: Task) -> Iterator[str]:
    """Yield options that follow from other code: the queue in `task_routes`, and retention if code reads the result."""
    if task.queue is not None and "queue" not in task.options:
        yield f"queue={literal(task.queue)}"
    if task.is_read and constant(task.options.get("ignore_result")) is not True:
        yield f"retention={RESULT_KEPT_S}"


def _rate(value: Node) -> str:
    rate = constant(value)
    if re.fullmatch(r"[1-9][0-9]*(/[smh])?", str(rate)):
        return f'"{rate}"' if "/" in str(rate) else f'"{rate}/s"'
    raise CannotTranslateError("the rate_limit is not a number of tasks per s, m or h, such as '10/m'")


def _retrying(task: Task, add_import: AddImport) -> list[str]:
    given = _with_retry_kwargs(task.options)
    automatic = given.get("autoretry_for")
    if elements(automatic) == []:
        automatic = None
    if automatic is None and not _asks_for_retries(task):
        # Celery does not retry this task after an error. With acks_late, Celery runs the task again if its worker is
        # lost.
        is_late = constant(given.get("acks_late", cst.Name("False")))
        if is_late is ...:
            raise CannotTranslateError("the option acks_late is not a literal")
        return ["no_retry_on=Exception" if is_late else "max_retry=0"]
    most = given.get("max_retries")
    if most is not None and constant(most) is None:
        raise CannotTranslateError("max_retries=None retries the task forever; set a number")
    found = [f"max_retry={code(most)}" if most is not None else "max_retry=3"]
    if automatic is None:
        found.append("no_retry_on=Exception")  # otherwise taskq would retry the task after every error
    elif not (isinstance(automatic, cst.Tuple) and [code(each) for each in elements(automatic) or ()] == ["Exception"]):
        found.append(f"retry_on={code(automatic)}")
    return [*found, f"retry_delay={_delay(given, add_import)}"]


def _asks_for_retries(task: Task) -> bool:
    me = self_of(task)
    return bool(me) and any(code(each.func) == f"{me}.retry" for each in nodes(task.node, cst.Call))


def _with_retry_kwargs(options: Mapping[str, cst.BaseExpression]) -> dict[str, cst.BaseExpression]:
    given = dict(options)
    more = given.pop("retry_kwargs", None)
    if more is None:
        return given
    for name, value in entries(more) or [(None, more)]:
        if name == "max_retries":
            given["max_retries"] = value
        elif name == "countdown":
            given["default_retry_delay"] = value
            given.pop("retry_backoff", None)
        else:
            raise CannotTranslateError("the retry_kwargs are not a literal dict of max_retries and countdown only")
    return given


def _delay(given: Mapping[str, cst.BaseExpression], add_import: AddImport) -> str:
    backoff, limit, jitter = (given.get(name) for name in ("retry_backoff", "retry_backoff_max", "retry_jitter"))
    if backoff is None or not constant(backoff):
        return code(given["default_retry_delay"]) if "default_retry_delay" in given else "180"
    first = "1" if constant(backoff) is True else code(backoff)
    more = f", jitter={code(jitter)}" if jitter is not None else ""
    return f"{add_import('exponential')}({first}, limit={code(limit) if limit is not None else '600'}{more})"


# --- the function -----------------------------------------------------------------------------------------------------


def self_of(task: Task) -> str:
    """Return the name of the parameter that receives the task itself, "" if the task is not bound."""
    bind = constant(task.options.get("bind")) if "bind" in task.options else False
    if bind is ...:
        raise CannotTranslateError("the option bind is not a literal")
    if bind and not task.node.params.params:
        raise CannotTranslateError("the task has bind=True and no parameter")
    return task.node.params.params[0].name.value if bind else ""


def rewrite_function(task: Task, node: Function, add_import: AddImport) -> Function:
    """Annotate the parameters of a task's function, and translate its uses of `self`.

    Raises:
        CannotTranslateError: A use of `self` has no equivalent.
    """
    me = self_of(task)
    given = [
        cst.Annotation(cst.parse_expression(add_import("TaskContext")))
        if me and each is node.params.params[0]
        else _annotation(task, each, add_import)
        for each in node.params.params
    ]
    parameters = [_annotated(each, new) for each, new in zip(node.params.params, given, strict=True)]
    by_name = [_annotated(each, _annotation(task, each, add_import)) for each in node.params.kwonly_params]
    body = node.body
    if me:
        rewriter = _Body(me, add_import)
        body = cast("cst.BaseSuite", body.visit(rewriter))
        if rewriter.causes:
            raise CannotTranslateError("retry() is called inside an expression")
    return node.with_changes(params=node.params.with_changes(params=parameters, kwonly_params=by_name), body=body)


def _annotation(task: Task, parameter: cst.Param, add_import: AddImport) -> cst.Annotation | None:
    """Return the annotation of a parameter, or the type of its arguments in calls if it has no annotation."""
    types = task.types.get(parameter.name.value, ())
    if parameter.annotation is not None or len(types) != 1:
        return parameter.annotation
    module, _, kind = next(iter(types)).partition(".")
    is_optional = parameter.default is not None and constant(parameter.default) is None
    return cst.Annotation(cst.parse_expression(add_import(kind, module) + (" | None" if is_optional else "")))


def _annotated(parameter: cst.Param, annotation: cst.Annotation | None) -> cst.Param:
    if annotation is parameter.annotation:
        return parameter
    equal = cst.AssignEqual() if parameter.default is not None else cst.MaybeSentinel.DEFAULT
    return parameter.with_changes(annotation=annotation, equal=equal)


def untyped_dates(task: Task) -> list[str]:
    """Return the parameters without annotation that are used like dates or decimals, but whose type is unknown."""
    used = {
        each.value.value
        for each in nodes(task.node.body, cst.Attribute)
        if isinstance(each.value, cst.Name) and each.attr.value in _DATE_METHODS
    }
    return [
        each.name.value
        for each in (*task.node.params.params, *task.node.params.kwonly_params)
        if each.annotation is None
        and len(found := task.types.get(each.name.value, ())) != 1
        and (found or each.name.value in used)
    ]


class _Body(cst.CSTTransformer):
    """Translates the uses of `self` in the body of a bound task, such as `self.retry()`."""

    def __init__(self, me: str, add_import: AddImport) -> None:
        super().__init__()
        self._me, self._add_import = me, add_import

        self._called: set[Node] = set()
        self.causes: dict[Node, cst.BaseExpression | None] = {}

    def visit_Param(self, node: cst.Param) -> None:
        if node.name.value == self._me:
            raise CannotTranslateError(f"an inner function also has a parameter {self._me}")

    def visit_Name(self, node: cst.Name) -> None:
        if node.value == self._me:
            raise CannotTranslateError(
                f"the task uses {self._me} as an object, and taskq's object has other attributes"
            )

    def visit_Call(self, node: cst.Call) -> None:
        if m.matches(node.func, m.Attribute(value=m.Name(self._me), attr=m.Name("retry") | m.Name("update_state"))):
            self._called.add(node.func)

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        """Refuse attributes of `self` without an equivalent. Return whether to visit the object of the attribute."""
        name = node.attr.value
        if m.matches(node.value, m.Attribute(value=m.Name(self._me), attr=m.Name("request"))):
            if name not in _REQUEST:
                raise CannotTranslateError(
                    f"the task uses more of {self._me}.request than id, retries, headers and task"
                )
            return False
        if m.matches(node.value, m.Name(self._me)):
            if name not in _ATTRIBUTES and node not in self._called:
                raise CannotTranslateError(f"{self._me}.{name} has no equivalent")
            return False
        return True

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        name = original_node.attr.value
        if m.matches(original_node.value, m.Attribute(value=m.Name(self._me), attr=m.Name("request"))):
            return updated_node.with_changes(value=cst.Name(self._me), attr=cst.Name(_REQUEST[name]))
        if m.matches(original_node.value, m.Name(self._me)):
            return updated_node.with_changes(attr=cst.Name(_ATTRIBUTES.get(name, name)))
        return updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        if original_node.func not in self._called:
            return updated_node
        if cst.ensure_type(original_node.func, cst.Attribute).attr.value == "update_state":
            return self._progress(updated_node)
        given = keywords(updated_node)
        if given.keys() - {"exc", "countdown"}:
            raise CannotTranslateError("retry() has other arguments than countdown and exc; max_retry is a task option")
        delay = given.get("countdown")
        after = f"after={code(delay)}" if delay is not None and constant(delay) is not None else ""
        made = cst.parse_expression(f"{self._add_import('Retry')}({after})")
        cause = given.get("exc")
        self.causes[made] = None if cause is None or constant(cause) is None else cause
        return made

    def leave_Raise(self, original_node: cst.Raise, updated_node: cst.Raise) -> cst.Raise:
        if updated_node.exc not in self.causes:
            return updated_node
        cause = self.causes.pop(updated_node.exc)
        return updated_node if updated_node.cause is not None else _raise(updated_node.exc, cause)

    def leave_Expr(self, original_node: cst.Expr, updated_node: cst.Expr) -> cst.BaseSmallStatement:
        made = updated_node.value
        return _raise(made, self.causes.pop(made)) if made in self.causes else updated_node

    def leave_Return(self, original_node: cst.Return, updated_node: cst.Return) -> cst.BaseSmallStatement:
        made = updated_node.value
        return _raise(made, self.causes.pop(made)) if made in self.causes else updated_node

    def _progress(self, call: cst.Call) -> cst.BaseExpression:
        given = keywords(call)
        values = dict(entries(given.get("meta")) or ())
        if given.keys() - {"state", "meta"} or values.keys() - {"status"} != {"current", "total"}:
            raise CannotTranslateError("update_state has no equivalent; see progress(done, total, message)")
        texts = [code(values[name]) for name in ("current", "total", "status") if name in values]
        return cst.parse_expression(f"{self._me}.progress({', '.join(texts)})")


def _raise(made: cst.BaseExpression, cause: cst.BaseExpression | None) -> cst.Raise:
    return cst.Raise(exc=made, cause=cst.From(item=cause) if cause is not None else None)
