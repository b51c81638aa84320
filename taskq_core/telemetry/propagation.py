"""Carry the current trace and baggage in a task's headers.

OpenTelemetry's global propagator writes and reads the headers, so a user may choose another one (`OTEL_PROPAGATORS`,
`set_global_textmap`). The default is W3C: `traceparent`, `tracestate`, `baggage`. The module guarantees:

- All headers of a task together have at most `HEADERS_LIMIT` bytes. `TRACE_RESERVE` of these are reserved for the
  trace, so whether a user's own headers fit does not depend on tracing.
- The trace is added first. Baggage that does not fit is left out and counted.
- Invalid headers or an error of a propagator never fail a task. A new trace starts instead.
"""

import logging
import re
from collections.abc import Mapping, MutableMapping

from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.propagators.textmap import Getter, Setter
from opentelemetry.trace import SpanContext, get_current_span

from taskq_core.errors import ConfigurationError

HEADERS_LIMIT = 8 * 1024
"""Maximum total size of the names and values of a task's headers, in bytes of UTF-8."""
TRACE_RESERVE = 1024
"""Part of `HEADERS_LIMIT` that only trace headers may use: enough for `traceparent` and a `tracestate` of W3C's 512
characters."""
USER_HEADERS_LIMIT = HEADERS_LIMIT - TRACE_RESERVE
"""Maximum total size of a user's own headers of a task, in bytes."""

TRACEPARENT, TRACESTATE, BAGGAGE = "traceparent", "tracestate", "baggage"

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")

_logger = logging.getLogger(__name__)


def headers_size(headers: Mapping[str, str]) -> int:
    """Return the total size of the names and values of headers, in bytes of UTF-8."""
    return sum(_size(name) + _size(value) for name, value in headers.items())


def check_headers(headers: Mapping[str, str]) -> int:
    """Refuse a task's own headers if they are too large.

    Returns:
        Their size in bytes.

    Raises:
        ConfigurationError: The headers have more than `USER_HEADERS_LIMIT` bytes. The message contains sizes, but no
            values.
    """
    size = headers_size(headers)
    if size > USER_HEADERS_LIMIT:
        largest = max(headers, key=lambda name: _size(name) + _size(headers[name]))
        raise ConfigurationError(
            f"headers of a task have {size} bytes, at most {USER_HEADERS_LIMIT} are allowed "
            f"({HEADERS_LIMIT}, of which {TRACE_RESERVE} are reserved for the trace); "
            f"the largest is {_shorten(largest)!r} with {_size(largest) + _size(headers[largest])} bytes"
        )
    return size


class _TextSetter(Setter[MutableMapping[str, str]]):
    """Stores values as text, because a propagator of the user's project may write numbers."""

    def set(self, carrier: MutableMapping[str, str], key: str, value: str) -> None:
        carrier[str(key)] = str(value)


_SETTER = _TextSetter()


class _HeaderGetter(Getter[Mapping[str, str]]):
    """Reads headers of a task for a propagator, except empty and too large ones, and baggage if it is not wanted.

    OpenTelemetry's own getter also reads lists of values, which takes longer.
    """

    def __init__(self, *, baggage: bool) -> None:
        self._baggage = baggage

    def get(self, carrier: Mapping[str, str], key: str) -> list[str] | None:
        value = carrier.get(key)
        if not value or len(value) > HEADERS_LIMIT or (key == BAGGAGE and not self._baggage):
            return None
        return [value]

    def keys(self, carrier: Mapping[str, str]) -> list[str]:
        return [key for key in carrier if self.get(carrier, key) is not None]


_GETTER, _GETTER_WITHOUT_BAGGAGE = _HeaderGetter(baggage=True), _HeaderGetter(baggage=False)


def trace_headers(context: Context | None = None, *, baggage: bool = True) -> dict[str, str]:
    """Return the headers that the global propagator writes for a context.

    Args:
        context: The context; None for the current context.
        baggage: False leaves baggage out.
    """
    if context is None:
        context = context_api.get_current()
    if not context:
        return {}
    headers: dict[str, str] = {}
    try:
        get_global_textmap().inject(headers, context, _SETTER)
    except Exception:
        # A propagator may fail, for example on baggage with a lone surrogate. The task must be enqueued anyway.
        _logger.warning("the trace of a task could not be written completely into its headers", exc_info=True)
    text = headers.pop(BAGGAGE, "")
    if baggage and text:
        # Baggage comes last, because `fit` drops the last headers if all headers together exceed the size limit.
        headers[BAGGAGE] = text
    return headers


def traceparent_of(span: SpanContext) -> str:
    """Return the W3C `traceparent` of a span."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"


def fit(headers: MutableMapping[str, str], trace: Mapping[str, str]) -> int:
    """Add trace headers to a task's own headers, within `HEADERS_LIMIT`.

    All old trace headers are replaced, so that a new `traceparent` never has the `tracestate` of another trace.

    Args:
        headers: The task's own headers; changed in place.
        trace: The result of `trace_headers`. If it is empty, nothing is changed.

    Returns:
        The number of trace headers that were left out.

    Raises:
        ConfigurationError: The task's own headers exceed `USER_HEADERS_LIMIT`. Nothing was changed.
    """
    size = left_out = 0
    if headers:
        size = check_headers(headers)
        if trace:
            for name in (TRACEPARENT, TRACESTATE, BAGGAGE, *trace):
                old = headers.pop(name, None)
                if old is not None:
                    size -= _size(name) + _size(old)
    for name, value in trace.items():
        needed = _size(name) + _size(value)
        if size + needed > HEADERS_LIMIT:
            left_out += 1
            continue
        headers[name] = value
        size += needed
    return left_out


def extract(headers: Mapping[str, str], *, baggage: bool = True) -> Context:
    """Return the context in a task's headers: the producer's span as a remote span, and its baggage.

    Args:
        headers: Headers of a message, from any producer. Invalid headers are ignored.
        baggage: False leaves baggage out.

    Returns:
        A context that contains nothing of the current context; empty if the headers contain no trace.
    """
    if not headers:
        return Context()
    try:
        return get_global_textmap().extract(headers, Context(), _GETTER if baggage else _GETTER_WITHOUT_BAGGAGE)
    except Exception:
        _logger.warning("the trace in a task's headers could not be read", exc_info=True)
        return Context()


def sender_of(context: Context) -> SpanContext:
    """Return the span context in an OpenTelemetry context. If there is no span, the span context is not valid."""
    return get_current_span(context).get_span_context()


def sender_in(headers: Mapping[str, str]) -> SpanContext:
    """Return the span context in a task's headers. If they contain no trace, the span context is not valid."""
    return sender_of(extract(headers, baggage=False))


def current_ids(context: Context | None = None) -> tuple[str, str]:
    """Return the hexadecimal ids of trace and span of a context (default: the current one); "" without a span."""
    span = get_current_span(context).get_span_context()
    return (f"{span.trace_id:032x}", f"{span.span_id:016x}") if span.is_valid else ("", "")


def current_traceparent() -> str:
    """Return the W3C `traceparent` of the current span, "" without a span."""
    span = get_current_span().get_span_context()
    return traceparent_of(span) if span.is_valid else ""


def trace_id(headers: Mapping[str, str]) -> str | None:
    """Return the trace id in a task's headers (32 hexadecimal digits), or None."""
    found = _TRACEPARENT.fullmatch(headers.get(TRACEPARENT, ""))
    return None if found is None else found[1]


def is_malformed(headers: Mapping[str, str], sender: SpanContext) -> bool:
    """Return whether headers contain a W3C trace or baggage that is unreadable because it is truncated or too large.

    Args:
        headers: Headers of a message.
        sender: The span context that was found in the headers.
    """
    if not sender.is_valid and headers.get(TRACEPARENT):
        return True
    return len(headers.get(BAGGAGE, "")) > HEADERS_LIMIT


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _shorten(name: str) -> str:
    return name if len(name) <= 64 else name[:61] + "..."
