"""Find the address of the trace of a task."""

from collections.abc import Mapping

from taskq_core.settings import TRACE_ID
from taskq_core.telemetry import trace_id


def trace_url(template: str, headers: Mapping[str, str]) -> str | None:
    """Return the address of a task's trace, None if the task has no trace.

    Args:
        template: The setting `TRACE["URL"]`, or "".
        headers: Headers of the task. Only a valid trace id is put into the address.
    """
    found = trace_id(headers) if template else None
    return None if found is None else template.replace(TRACE_ID, found)
