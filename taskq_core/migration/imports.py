"""The imports of a rewritten file: what it needs now, and what of Celery's it needs no more."""

import ast
from collections.abc import Mapping

from taskq_core.migration.source import Source

_HINTS = {
    "AsyncResult": "keep the handle that enqueueing returns, or ask taskq_core.inspector.Inspector",
    "Celery": "the settings and the TaskQ take the place of the app",
    "Task": "a task is a function; what a base class did is middleware or a lifespan of the worker",
    "SoftTimeLimitExceeded": "a plain function gets TaskInterrupted when its time is over, a coroutine is cancelled",
    "MaxRetriesExceededError": "a task without attempts left is archived; see on_archived",
    "Retry": "raise taskq_core.Retry",
    "Reject": "raise taskq_core.SkipRetry or taskq_core.Discard",
    "signature": "bind arguments with .s() and .si()",
    "current_task": "taskq_core.current_task() is a function",
    "current_app": "import the TaskQ",
}
_SIGNALS = {
    "task_failure": "on_archived is told of tasks without attempts left, on_error of each run that fails",
    "task_retry": "on_error is told of each run that fails",
    **dict.fromkeys(("task_prerun", "task_postrun", "task_success"), "middleware wraps runs"),
    **dict.fromkeys(("before_task_publish", "after_task_publish"), "middleware looks at calls as they are enqueued"),
    **dict.fromkeys(
        ("worker_init", "worker_process_init", "worker_ready", "worker_shutdown", "worker_process_shutdown"),
        "a worker_lifespan opens what a worker needs, and closes it",
    ),
    **dict.fromkeys(("setup_logging", "after_setup_logger"), "logging is left to the project"),
}
"""What has the place of a signal; what its handler is given differs, so a person has to write it."""


def put_imports(text: str, wanted: Mapping[str, set[str]], replaced: set[str], moved: set[str]) -> str:
    """Return the text of a file with its imports put right.

    Args:
        text: The rewritten file.
        wanted: What it needs, by module: names, or `name as other`; "" for `import module`.
        replaced: Names for which something else stands now; their import goes unless something still uses it.
        moved: Names that are imported from elsewhere now.
    """
    source = Source(text)
    used = {node.id for node in ast.walk(source.tree) if isinstance(node, ast.Name)}
    used |= {
        node.value for node in ast.walk(source.tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    lines = [
        f"import {module}" if name == "" else ""
        for module, names in sorted(wanted.items())
        for name in names
        if name == ""
    ]
    lines += [
        f"from {module} import {', '.join(sorted(names - {''}))}"
        for module, names in sorted(wanted.items())
        if names - {""}
    ]
    lines = [line for line in lines if not _has(source, line)]
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        is_celery = not node.level and _is_celery(node.module)
        gone = [each for each in node.names if (each.asname or each.name) in (replaced - used) | moved]
        left = [each for each in node.names if each not in gone]
        still = [each for each in left if (each.asname or each.name) in used]
        for each in still if is_celery else ():
            hint = _HINTS.get(each.name)
            if node.module == "celery.signals":
                hint = _SIGNALS.get(
                    each.name, "see on_error, on_archived, worker_lifespan and, in Django, taskq_django.signals"
                )
            if hint:
                source.mark(node, f"{each.name} is still Celery's: {hint}")
        is_top = source.parent(node) is source.tree
        if not gone:
            continue
        kept = ", ".join(f"{each.name} as {each.asname}" if each.asname else each.name for each in left)
        rest = f"from {'.' * node.level}{node.module or ''} import {kept}" if left else ""
        if is_top and lines:
            if source.replace(node, source.newline.join([*([rest] if rest else []), *lines])):
                lines = []
        elif rest:
            source.replace(node, rest)
        elif is_top:
            source.remove_line(node)
        else:
            source.replace(node, "pass")
    if lines:
        source.insert_import(lines)
    return source.result()


def _is_celery(module: str | None) -> bool:
    return module == "celery" or (module or "").startswith("celery.")


def _has(source: Source, line: str) -> bool:
    """Whether the file has an import already."""
    wanted = ast.dump(ast.parse(line).body[0])
    return any(ast.dump(node) == wanted for node in source.tree.body)
