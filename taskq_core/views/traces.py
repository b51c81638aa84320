"""Where the trace of a task is shown."""

from collections.abc import Collection, Mapping

from taskq_core.handles.records import TaskInfo
from taskq_core.settings import TRACE_ID
from taskq_core.telemetry import trace_id, unwrap


def trace_headers(task: TaskInfo, parameters: Collection[str] = ()) -> Mapping[str, str]:
    """Return the headers of a task; of one whose trace travels in its payload, those it would have.

    Args:
        task: The task.
        parameters: Names of the parameters of its function, where that is registered.
    """
    if trace_id(task.headers) is not None:
        return task.headers
    _payload, traceparent = unwrap(task.payload, parameters)
    return task.headers if traceparent is None else {"traceparent": traceparent}


def trace_url(template: str, headers: Mapping[str, str]) -> str | None:
    """Return the address of a task's trace, None if it has none.

    Args:
        template: The setting `TRACE["URL"]`, or "".
        headers: Headers of the task. Only a valid trace id is put into the address.
    """
    found = trace_id(headers) if template else None
    return None if found is None else template.replace(TRACE_ID, found)
