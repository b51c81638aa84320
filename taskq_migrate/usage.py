"""Collect from the code that calls tasks: whether it reads their results, the types of arguments, and queues."""

import libcst as cst

from taskq_migrate.settings import Settings
from taskq_migrate.source import DELAYS, File, Task, constant, elements, entries, keywords, literal

_READS = ("get", "join", "collect", "ready", "successful", "failed", "status", "state", "result", "info", "wait")


def record_usage(file: File, settings: Settings) -> None:
    """Record how a file uses tasks: in the tasks that it calls, and in the settings."""
    for attribute in file.all(cst.Attribute):
        of = file.meaning(attribute.value) if attribute.attr.value in _READS else None
        for task in of.tasks if of is not None and of.kind == "handle" and not of.is_left else ():
            task.is_read = True
    for node in file.all(cst.Call):
        if (file.celery(node.func) or "").rpartition(".")[2] in ("AsyncResult", "GroupResult") or (
            isinstance(node.func, cst.Attribute)
            and node.func.attr.value == "AsyncResult"
            and (file.is_app(node.func.value) or file.meaning(node.func.value) is not None)
        ):
            settings.keep_all_results()
        if isinstance(node.func, cst.Attribute):
            _record_call(file, node, node.func, settings)


def _record_call(file: File, call: cst.Call, function: cst.Attribute, settings: Settings) -> None:
    of, verb = file.meaning(function.value), function.attr.value
    is_sent = verb == "send_task" and file.is_app(function.value)
    if (of is None and not is_sent) or (of is not None and of.is_left):
        return
    if verb in (*DELAYS, "set", "send_task"):
        queue = constant(keywords(call).get("queue"))
        if isinstance(queue, str):
            settings.add_queues([literal(queue)])
    if of is None or of.kind != "task" or len(of.tasks) != 1:
        return
    if verb in ("delay", "delay_on_commit", "s", "si"):
        positional = [each.value for each in call.args if not each.keyword and not each.star]
        record_types(file, of.tasks[0], positional, keywords(call))
    elif verb in DELAYS:
        given = dict(zip(("args", "kwargs"), (each.value for each in call.args if not each.keyword), strict=False))
        given |= keywords(call)
        named = {name: value for name, value in entries(given.get("kwargs")) or () if isinstance(name, str)}
        record_types(file, of.tasks[0], elements(given.get("args")) or [], named)


def record_types(
    file: File, task: Task, positional: list[cst.BaseExpression], named: dict[str, cst.BaseExpression]
) -> None:
    """Record the types of a call's arguments that JSON cannot represent, by parameter of the task."""
    for name, value in [*zip(task.parameters or (), positional, strict=False), *named.items()]:
        kind = file.type_of(value)
        if kind is not None:
            task.types.setdefault(name, set()).add(kind)
