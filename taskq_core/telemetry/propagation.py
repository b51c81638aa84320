"""Carry the current trace and baggage in a task's headers.

Writing and reading go through OpenTelemetry's global propagator, so a user's choice (`OTEL_PROPAGATORS`,
`set_global_textmap`) holds; by default that is W3C: `traceparent`, `tracestate`, `baggage`. Promises:

- All headers of a task together stay within `HEADERS_LIMIT` bytes. Of these, `TRACE_RESERVE` are kept for the trace,
  so whether a user's own headers fit never depends on tracing being on.
- The trace goes first. Baggage takes what room is left and is cut between members, never inside one; what was cut is
  counted.
- Nothing found in headers, and no fault of a propagator, fails a task: the trace then starts anew.

Spans are the business of `spans`.
"""

import logging
import re
import threading
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from opentelemetry import baggage as baggage_api
from opentelemetry import context as context_api
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator
from opentelemetry.trace import (
    INVALID_SPAN,
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from taskq_core.errors import ConfigurationError

HEADERS_LIMIT = 8 * 1024
"""Most bytes of UTF-8 that all names and values of a task's headers may take together."""
TRACE_RESERVE = 1024
"""Part of `HEADERS_LIMIT` that only trace headers may use: enough for `traceparent` and a `tracestate` of W3C's 512
characters."""
USER_HEADERS_LIMIT = HEADERS_LIMIT - TRACE_RESERVE
"""Most bytes that a task's own headers may take together."""

TRACEPARENT, TRACESTATE, BAGGAGE = "traceparent", "tracestate", "baggage"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """How much did not fit into headers since the process started."""

    baggage_members: int = 0
    """Members of baggage that were left out. Unit: members."""
    trace_headers: int = 0
    """Other trace headers (a `tracestate`, those of other propagators) that were left out. Unit: headers."""


class CutCounter:
    """Counts what did not fit. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cuts = Cuts()

    def add(self, *, baggage_members: int = 0, trace_headers: int = 0) -> None:
        """Count more that was left out."""
        with self._lock:
            self._cuts = Cuts(
                baggage_members=self._cuts.baggage_members + baggage_members,
                trace_headers=self._cuts.trace_headers + trace_headers,
            )

    def read(self) -> Cuts:
        """The counts up to now."""
        return self._cuts


cuts = CutCounter()
"""The counter of this process."""


class Carrier:
    """What a propagator wrote for one context, before it is fitted into a task's headers. Nobody changes one.

    Args:
        headers: Trace headers, `baggage` left out.
        members: Members of the `baggage` header, encoded.
        refused_members: How many members the propagator itself left out because they are over W3C's limits.
    """

    __slots__ = (
        "headers",
        "members",
        "refused_members",
    )  # a frozen record takes 0.8 us longer to make, for each enqueue

    def __init__(self, headers: Mapping[str, str], members: Sequence[str] = (), refused_members: int = 0) -> None:
        self.headers, self.members, self.refused_members = headers, members, refused_members

    def __bool__(self) -> bool:
        return bool(self.headers or self.members or self.refused_members)


_EMPTY = Carrier({})


class _HeaderSetter(Setter[dict[str, str]]):
    def set(self, carrier: dict[str, str], key: str, value: str) -> None:
        carrier[str(key)] = str(value)


class _HeaderGetter(Getter[Mapping[str, str]]):
    def __init__(self, *, with_baggage: bool) -> None:
        self._hidden = None if with_baggage else BAGGAGE

    def get(self, carrier: Mapping[str, str], key: str) -> list[str] | None:
        value = carrier.get(key)
        if not value or key == self._hidden or len(value) > HEADERS_LIMIT:
            return None
        return [value]

    def keys(self, carrier: Mapping[str, str]) -> list[str]:
        return list(carrier)


_SETTER = _HeaderSetter()
_GETTER = _HeaderGetter(with_baggage=True)
_GETTER_WITHOUT_BAGGAGE = _HeaderGetter(with_baggage=False)


def headers_size(headers: Mapping[str, str]) -> int:
    """Bytes of UTF-8 that the names and values of headers take together."""
    return sum(_size(name) + _size(value) for name, value in headers.items())


def check_headers(headers: Mapping[str, str]) -> int:
    """Refuse a task's own headers if they are too large.

    Returns:
        Their size in bytes.

    Raises:
        ConfigurationError: They take more than `USER_HEADERS_LIMIT` bytes. The message names sizes, never a value.
    """
    size = headers_size(headers)
    if size > USER_HEADERS_LIMIT:
        largest = max(headers, key=lambda name: _size(name) + _size(headers[name]))
        raise ConfigurationError(
            f"headers of a task take {size} bytes, at most {USER_HEADERS_LIMIT} are allowed "
            f"({HEADERS_LIMIT} less {TRACE_RESERVE} kept for the trace); "
            f"the largest is {_shorten(largest)!r} with {_size(largest) + _size(headers[largest])} bytes"
        )
    return size


def carrier_of(context: Context | None = None, *, baggage: bool = True) -> Carrier:
    """What the global propagator writes for a context.

    Args:
        context: The context to carry; None is the current one. An empty one costs a dictionary look-up.
        baggage: False leaves baggage out.
    """
    if context is None:
        context = context_api.get_current()
    if not context:
        return _EMPTY
    written: dict[str, str] = {}
    propagator = get_global_textmap()
    try:
        propagator.inject(written, context, _SETTER)
    except Exception:
        # For example a lone surrogate in baggage, which cannot be encoded: the task matters more than its baggage.
        _logger.warning("the trace of a task could not be written completely into its headers", exc_info=True)
    text = written.pop(BAGGAGE, "")
    if not baggage:
        return Carrier(written) if written else _EMPTY
    members = text.split(",") if text else ()
    entries = len(baggage_api.get_all(context))
    refused = entries - len(members) if entries > len(members) and BAGGAGE in propagator.fields else 0
    return Carrier(written, members, refused)


def carrier_like(known: Carrier, context: Context, span: SpanContext) -> Carrier:
    """What the global propagator writes for another span with the baggage of a context that was written already.

    Args:
        known: What was written for that context, with another span or none.
        context: The context with the span in it.
        span: The span's own context.
    """
    if not _is_default(get_global_textmap()):
        return carrier_of(context, baggage=bool(known.members or known.refused_members))
    written = {TRACEPARENT: f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"}
    if span.trace_state:
        written[TRACESTATE] = span.trace_state.to_header()
    return Carrier(written, known.members, known.refused_members)


def fit(headers: MutableMapping[str, str], carrier: Carrier) -> int:
    """Add what a propagator wrote to a task's own headers, within `HEADERS_LIMIT`.

    Old trace headers are replaced as a whole: a new `traceparent` never stands beside the `tracestate` of another
    trace.

    Args:
        headers: The task's own headers; changed in place.
        carrier: From `carrier_of`. An empty one leaves the headers as they are.

    Returns:
        How many members of baggage and other trace headers were left out. They are counted in `cuts` too.

    Raises:
        ConfigurationError: The task's own headers are over `USER_HEADERS_LIMIT`; nothing was changed.
    """
    size = left_out = 0
    if headers:
        size = check_headers(headers)
        if carrier.headers or carrier.members:
            for name in (TRACEPARENT, TRACESTATE, BAGGAGE, *carrier.headers):
                old = headers.pop(name, None)
                if old is not None:
                    size -= _size(name) + _size(old)
    for name, value in carrier.headers.items():
        needed = _size(name) + _size(value)
        if size + needed > HEADERS_LIMIT:
            cuts.add(trace_headers=1)
            left_out += 1
            continue
        headers[name] = value
        size += needed
    if carrier.members or carrier.refused_members:
        left_out += _fit_baggage(headers, carrier, HEADERS_LIMIT - size)
    return left_out


def _fit_baggage(headers: MutableMapping[str, str], carrier: Carrier, room: int) -> int:
    kept: list[str] = []
    room -= len(BAGGAGE)
    for member in carrier.members:
        needed = _size(member) + (1 if kept else 0)
        if needed <= room:  # a large member is left out, a small one behind it may still fit
            kept.append(member)
            room -= needed
    if kept:
        headers[BAGGAGE] = ",".join(kept)
    left_out = carrier.refused_members + len(carrier.members) - len(kept)
    if left_out:
        cuts.add(baggage_members=left_out)
    return left_out


def inject(headers: MutableMapping[str, str], context: Context | None = None, *, baggage: bool = True) -> None:
    """Write trace and baggage of a context into a task's headers; nothing if there is neither.

    Args:
        headers: The task's own headers; changed in place.
        context: The context to carry; None is the current one.
        baggage: False leaves baggage out.

    Raises:
        ConfigurationError: The task's own headers are over `USER_HEADERS_LIMIT`.
    """
    fit(headers, carrier_of(context, baggage=baggage))


def extract(headers: Mapping[str, str], *, baggage: bool = True) -> Context:
    """The context that a task's headers carry: the producer's span as a remote one, and its baggage.

    Args:
        headers: Headers of a message, from any producer. What cannot be read is left out.
        baggage: False leaves baggage out.

    Returns:
        A context with nothing else in it; empty if the headers carry nothing. The current context plays no part.
    """
    return read(headers, baggage=baggage)[0]


def read(headers: Mapping[str, str], *, baggage: bool = True) -> tuple[Context, SpanContext]:
    """The same as `extract`, and the producer's span that is in it; an invalid one where there is none."""
    global _last
    if not headers:
        return _NOTHING
    propagator = get_global_textmap()
    if TRACESTATE not in headers and (not baggage or BAGGAGE not in headers) and _is_default(propagator):
        traceparent = headers.get(TRACEPARENT)
        if not traceparent:
            return _NOTHING
        last = _last
        if last[0] == traceparent:
            return last[1]
        sender = _sender(traceparent)
        if sender is not None:
            found = (with_span(NonRecordingSpan(sender), _NOTHING[0]), sender)
            _last = (traceparent, found)
            return found
    try:
        context = propagator.extract(headers, Context(), _GETTER if baggage else _GETTER_WITHOUT_BAGGAGE)
        return context, get_current_span(context).get_span_context()
    except Exception:
        _logger.warning("the trace in a task's headers could not be read", exc_info=True)
        return _NOTHING


def with_span(span: Span, context: Context) -> Context:
    """Return a context with this span in it. As `set_span_in_context`, and cheaper where it holds nothing else."""
    if len(context) > (_SPAN_KEY in context):
        return set_span_in_context(span, context)
    return Context({_SPAN_KEY: span})


def is_malformed(headers: Mapping[str, str], sender: SpanContext) -> bool:
    """Whether headers hold a trace of W3C's form, or baggage, that was not read: cut, forged, or far too large.

    Args:
        headers: Headers of a message.
        sender: The span that `read` found in them.
    """
    if not sender.is_valid and headers.get(TRACEPARENT):
        return True
    return len(headers.get(BAGGAGE, "")) > HEADERS_LIMIT


(_SPAN_KEY,) = set_span_in_context(INVALID_SPAN, Context())
"""Under which OpenTelemetry keeps the span of a context."""
_NOTHING: tuple[Context, SpanContext] = (Context(), INVALID_SPAN_CONTEXT)
_last: tuple[str, tuple[Context, SpanContext]] = ("", _NOTHING)
"""What was read last: tasks of one request that is not sampled, or of one batch, name the same span."""

# Most messages carry a traceparent and nothing else, or no trace at all. Reading that here takes 2 us a task instead of
# 4; what is not plainly a valid one of version 00, and any other propagator, goes the common way.
_FLAGS = {f"{flags:02x}": TraceFlags(flags) for flags in range(256)}
_VERSION_00 = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_DEFAULT = [TraceContextTextMapPropagator, W3CBaggagePropagator]
_judged: tuple[TextMapPropagator | None, bool] = (None, False)


def _is_default(propagator: TextMapPropagator) -> bool:
    """Whether this is exactly what OpenTelemetry sets up by itself; if a later API hides that, the answer is no."""
    global _judged
    judged = _judged
    if judged[0] is not propagator:
        parts = getattr(propagator, "_propagators", ()) if type(propagator) is CompositePropagator else ()
        judged = _judged = (propagator, [type(part) for part in parts] == _DEFAULT)
    return judged[1]


def _sender(traceparent: str) -> SpanContext | None:
    match = _VERSION_00.fullmatch(traceparent)
    if match is None:
        return None
    trace_id, span_id, flags = match.groups()
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, _FLAGS[flags])


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _shorten(name: str) -> str:
    return name if len(name) <= 64 else name[:61] + "..."
