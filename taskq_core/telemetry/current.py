"""Which trace and span this code belongs to, as text for the log."""

from opentelemetry.context import Context
from opentelemetry.trace import get_current_span


def current_ids(context: Context | None = None) -> tuple[str, str]:
    """Return the ids of trace and span, hexadecimal, of a context or of what is current; "" where there is none."""
    span = get_current_span(context).get_span_context()
    if not span.is_valid:
        return "", ""
    return f"{span.trace_id:032x}", f"{span.span_id:016x}"
