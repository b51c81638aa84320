"""The spans of tasks that are under way: of one enqueue, of a bulk enqueue, of one run. `Tracing` starts them."""

from contextvars import Token
from types import TracebackType
from typing import Self

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind

from taskq_core.errors import Discard, Retry, Snooze
from taskq_core.telemetry import names, propagation
from taskq_core.telemetry.recording import Recording

_STEERS = (Retry, Snooze, Discard)
"""What a task raises to steer the queue, which is no failure."""


class ProducerSpan:
    """The span of one enqueue, from `Tracing.start_producer`; without an SDK an object that does nothing.

    Either as a context manager, which also makes the span current, or by `inject` and, at any later time and in any
    thread, `end`. A span that is never ended is never exported, which is right for a task whose transaction was
    rolled back.
    """

    __slots__ = ("_carrier", "_context", "_recording", "_span", "_token")

    def __init__(self, recording: Recording, span: Span | None = None, context: Context | None = None) -> None:
        self._recording, self._span, self._context = recording, span, context
        self._carrier: propagation.Carrier | None = None
        self._token: Token[Context] | None = None

    @property
    def span(self) -> Span | None:
        """The OpenTelemetry span, or None without an SDK."""
        return self._span

    @property
    def context(self) -> Context | None:
        """The context that its tasks continue, None where there is none."""
        return self._context

    def inject(self, headers: dict[str, str]) -> None:
        """Write this span's context and the baggage into a task's headers.

        May be called for each message of a batch. Without an SDK the context that is current now, if any, is passed on.

        Raises:
            ConfigurationError: The task's own headers are over `propagation.USER_HEADERS_LIMIT`.
        """
        propagation.fit(headers, self.carrier())

    def carrier(self) -> propagation.Carrier:
        """Return what `inject` writes; empty if there is nothing to carry."""
        if self._span is None:
            return propagation.carrier_of(self._context, baggage=self._recording.baggage)
        if self._carrier is None:
            self._carrier = propagation.carrier_of(self._context, baggage=self._recording.baggage)
        return self._carrier

    def end(self, error: BaseException | None = None) -> None:
        """End the span; further calls do nothing.

        Args:
            error: Why the task was not enqueued, or None if it was.
        """
        span = self._span
        if span is not None and span.is_recording():
            self._recording.finish(span, error, None)

    def __enter__(self) -> Self:
        if self._span is not None and self._context is not None:
            self._token = context_api.attach(self._context)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._token is not None:
            context_api.detach(self._token)
            self._token = None
        self.end(error)


class ConsumerSpan:
    """The span of one run of a task, from `Tracing.start_consumer`; without an SDK an object that does nothing.

    `attach` and `detach` make it current around the task's code and belong into the same coroutine or the same
    thread. `end` may come later and from elsewhere, when the outcome is known.
    """

    __slots__ = ("_context", "_recording", "_span", "is_malformed")

    def __init__(
        self,
        recording: Recording,
        span: Span | None = None,
        context: Context | None = None,
        *,
        is_malformed: bool = False,
    ) -> None:
        self._recording, self._span, self._context = recording, span, context
        self.is_malformed = is_malformed
        """Whether the message names a trace that cannot be read."""

    @property
    def span(self) -> Span | None:
        """The OpenTelemetry span, or None without an SDK."""
        return self._span

    @property
    def traceparent(self) -> str | None:
        """This span as W3C's `traceparent`; None without one that is recorded."""
        span = self._span
        if span is None or not span.is_recording():
            return None
        context = span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    @property
    def context(self) -> Context | None:
        """Span and baggage, for example as the `context` of a metric; None without an SDK."""
        return self._context

    def attach(self) -> Token[Context] | None:
        """Make the span and the request's baggage current in this coroutine or thread.

        Returns:
            What `detach` needs.
        """
        return None if self._context is None else context_api.attach(self._context)

    def detach(self, token: Token[Context] | None) -> None:
        """Undo `attach`, in the same coroutine or thread."""
        if token is not None:
            context_api.detach(token)

    def end(self, state_after: str, error: BaseException | None = None, *, error_type: str | None = None) -> None:
        """End the span; further calls do nothing.

        Args:
            state_after: State of the task after this run, for example "completed" or "retry".
            error: What the task's code raised. `Retry`, `Snooze` and `Discard` steer the queue and are no failure.
            error_type: Names a failure that is no exception, for example "lease_lost"; wins over the class of `error`.
        """
        span = self._span
        if span is None or not span.is_recording():
            return
        if error is not None and isinstance(error, _STEERS):
            error = None
        self._recording.finish(span, error, error_type, state_after)


class BatchSpan:
    """The span of a bulk enqueue, from `Tracing.start_batch`: `send <queue>`, which links to a `create <queue>` a task.

    Without an SDK, and where the request is not sampled, an object that passes the request's trace on.
    """

    __slots__ = ("_created", "_parent", "_queue", "_recording", "_shared", "_span")

    def __init__(self, recording: Recording, queue: str, span: Span | None, parent: Context) -> None:
        self._recording, self._queue, self._span, self._parent = recording, queue, span, parent
        self._created: list[Link] = []
        self._shared: propagation.Carrier | None = None

    @property
    def has_spans(self) -> bool:
        """Whether each of its tasks has a span, and so headers, of its own."""
        return self._span is not None and self._recording.creates_spans

    def carrier(self) -> propagation.Carrier:
        """Return what all its tasks carry where they have no spans of their own; empty if there is nothing to carry."""
        if self._shared is None:
            self._shared = propagation.carrier_of(self._parent, baggage=self._recording.baggage)
        return self._shared

    def create(self, task_type: str, task_id: str, body_size: int) -> propagation.Carrier:
        """Write the span `create <queue>` of one task, and return what the task carries of it."""
        recording = self._recording
        tracer = recording.tracer()
        if tracer is None or self._span is None:
            return self.carrier()
        attributes = recording.attributes(names.CREATE, self._queue, task_type)
        attributes[names.TASK_ID] = task_id
        if recording.tells_body_size:
            attributes[names.BODY_SIZE] = body_size
        try:
            span = tracer.start_span(f"create {self._queue}", self._parent, SpanKind.PRODUCER, attributes)
            span.end()
            context = span.get_span_context()
            self._created.append(Link(context, {names.TASK_ID: task_id}))
            return propagation.carrier_like(self.carrier(), trace.set_span_in_context(span, self._parent), context)
        except Exception as exc:
            recording.complain(exc)
            return self.carrier()

    def end(self, error: BaseException | None = None, *, count: int = 0) -> None:
        """End the span; further calls do nothing.

        Args:
            error: Why the tasks were not enqueued, or None if they were.
            count: How many tasks the batch has.
        """
        span, self._span = self._span, None
        if span is None:
            return
        recording = self._recording
        if count:
            recording.note(span, names.BATCH_COUNT, count)
        try:
            for link in self._created:
                span.add_link(link.context, link.attributes)
        except Exception as exc:
            recording.complain(exc)
        self._created = []
        recording.finish(span, error, None)
