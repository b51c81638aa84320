"""Open spans of an enqueue, a bulk enqueue and a run. `Tracing` starts them.

Without an SDK, or in a trace that is not sampled, the objects contain only the trace context.
"""

from collections.abc import Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, Self

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind

from taskq_core.errors import Discard, Retry, Snooze
from taskq_core.telemetry import names, propagation
from taskq_core.telemetry.recording import Recording

_STEERS = (Retry, Snooze, Discard)
"""Exceptions with which a task controls its outcome. They are not failures."""


class TaskSpan:
    """Base class of a task's spans: an OpenTelemetry span, if one is recorded, and its context.

    Attributes:
        span: The OpenTelemetry span, None if nothing is recorded.
        context: The span and the baggage of the request.
    """

    __slots__ = ("_recording", "_trace_headers", "context", "span")

    def __init__(self, recording: Recording, span: Span | None, context: Context) -> None:
        self._recording, self.span, self.context = recording, span, context
        self._trace_headers: Mapping[str, str] | None = None

    def trace_headers(self) -> Mapping[str, str]:
        """Return the headers that continue the trace in a task; empty without a trace."""
        if self._trace_headers is None:
            self._trace_headers = propagation.trace_headers(self.context, baggage=self._recording.baggage)
        return self._trace_headers

    def _finish(self, error: BaseException | None, **more: Any) -> None:
        """End the span if one is recorded and has not ended yet. The options are those of `Recording.finish`."""
        if self.span is not None and self.span.is_recording():
            self._recording.finish(self.span, error, **more)


class ProducerSpan(TaskSpan):
    """The span of one enqueue, from `Tracing.start_producer`.

    Use it as a context manager, which also makes the span current, or call `end` at any later time in any thread. A
    span that is never ended is not exported. This is intended for a task whose transaction was rolled back.
    """

    __slots__ = ("_token",)

    def end(self, error: BaseException | None = None) -> None:
        """End the span; further calls do nothing.

        Args:
            error: Why the task was not enqueued, or None if it was.
        """
        self._finish(error)

    def __enter__(self) -> Self:
        self._token = context_api.attach(self.context)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        context_api.detach(self._token)
        self.end(error)


class ConsumerSpan(TaskSpan):
    """The span of one run of a task, from `Tracing.start_consumer`.

    `attach` and `detach` make it current around the task's code, in one coroutine or thread. `end` may be called later
    and elsewhere, when the outcome is known.

    Attributes:
        is_malformed: Whether the trace in the message is not valid.
    """

    __slots__ = ("is_malformed",)

    def __init__(self, recording: Recording, span: Span | None, context: Context, *, is_malformed: bool) -> None:
        super().__init__(recording, span, context)
        self.is_malformed = is_malformed

    @property
    def traceparent(self) -> str | None:
        """The W3C `traceparent` of this span; None if the span is not recorded."""
        if self.span is None or not self.span.is_recording():
            return None
        return propagation.traceparent_of(self.span.get_span_context())

    def attach(self) -> Token[Context]:
        """Make the span and the request's baggage current in this coroutine or thread. Return a token for `detach`."""
        return context_api.attach(self.context)

    def end(self, state_after: str, error: BaseException | None = None, *, error_type: str | None = None) -> None:
        """End the span; further calls do nothing.

        Args:
            state_after: State of the task after this run, for example "completed" or "retry".
            error: The exception of the task's code. `Retry`, `Snooze` and `Discard` are not failures.
            error_type: Name of a failure without an exception, for example "lease_lost". It replaces the class of
                `error`.
        """
        error = None if isinstance(error, _STEERS) else error
        self._finish(error, error_type=error_type, attributes={names.TASK_STATE_AFTER: str(state_after)})


class BatchSpan(TaskSpan):
    """The span `send <queue>` of a bulk enqueue, from `Tracing.start_batch`. It links to one `create` span per task.

    If the tasks have no spans, they all get the headers in `trace_headers`.
    """

    __slots__ = ("_created", "_queue")

    def __init__(self, recording: Recording, queue: str, span: Span | None, context: Context) -> None:
        super().__init__(recording, span, context)
        self._queue = queue
        self._created: list[Link] = []

    @property
    def has_spans(self) -> bool:
        """Whether each task of the bulk enqueue has its own span and trace headers."""
        return self.span is not None and self._recording.creates_spans

    def create(self, task_type: str, task_id: str, body_size: int) -> Mapping[str, str]:
        """Record the span `create <queue>` of one task, and return the headers that continue its trace."""
        recording = self._recording
        attributes = recording.attributes(names.CREATE, self._queue, task_type, task_id, body_size)
        span = recording.start(names.CREATE, self._queue, SpanKind.PRODUCER, self.context, attributes)
        if span is None:
            return self.trace_headers()
        recording.finish(span)
        self._created.append(Link(span.get_span_context(), {names.TASK_ID: task_id}))
        return propagation.trace_headers(trace.set_span_in_context(span, self.context), baggage=recording.baggage)

    def end(self, error: BaseException | None = None, *, count: int = 0) -> None:
        """End the span; further calls do nothing.

        Args:
            error: Why the tasks were not enqueued, or None if they were.
            count: Number of tasks of the batch.
        """
        self._finish(error, attributes={names.BATCH_COUNT: count} if count else None, links=self._created)
