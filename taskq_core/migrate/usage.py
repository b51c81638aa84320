"""Collect facts about tasks from their calls: results that are read, and queues."""

import libcst as cst

from taskq_core.migrate.settings import Settings
from taskq_core.migrate.source import DELAYS, File, constant, keywords, literal, nodes

_READS = ("get", "join", "collect", "ready", "successful", "failed", "status", "state", "result", "info", "wait")


def note_usage(file: File, settings: Settings) -> None:
    """Remember facts about the tasks that a file calls."""
    for attribute in nodes(file.tree, cst.Attribute):
        of = file.meaning(attribute.value) if attribute.attr.value in _READS else None
        for task in of.tasks if of is not None and of.kind == "handle" else ():
            task.is_read = True
    for node in nodes(file.tree, cst.Call):
        if (file.celery(node.func) or "").rpartition(".")[2] in ("AsyncResult", "GroupResult") or (
            isinstance(node.func, cst.Attribute)
            and node.func.attr.value == "AsyncResult"
            and (file.is_app(node.func.value) or file.meaning(node.func.value) is not None)
        ):
            settings.keep_all_results()
        if isinstance(node.func, cst.Attribute):
            _note_queue(file, node, node.func, settings)


def _note_queue(file: File, call: cst.Call, function: cst.Attribute, settings: Settings) -> None:
    verb = function.attr.value
    is_call = verb in (*DELAYS, "set") and file.meaning(function.value) is not None
    if is_call or (verb == "send_task" and file.is_app(function.value)):
        queue = constant(keywords(call).get("queue"))
        if isinstance(queue, str):
            settings.add_queues([literal(queue)])
