"""Record the spans and metrics of enqueues, and start and end all spans with common attributes.

`Tracing` adds the spans of runs. Without an SDK, or in a trace that is not sampled, the span objects contain only the
trace context, and no metric is recorded.
"""

import logging
import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Tracer, TracerProvider
from opentelemetry.util.types import AttributeValue

from taskq_core.settings import OptIn, Relation, member, members
from taskq_core.telemetry import names, propagation
from taskq_core.telemetry.exceptions import record_error
from taskq_core.telemetry.histograms import Labels
from taskq_core.telemetry.metrics import MAX_SERIES, Meters, Series, task_labels
from taskq_core.telemetry.providers import switch, tracer_of
from taskq_core.telemetry.redaction import Redaction
from taskq_core.telemetry.sampling import Sampling

_KNOWN_MAX = 1024

_logger = logging.getLogger(__name__)


class Recording:
    """Records the spans of enqueues of one queue application, and logs errors of OpenTelemetry.

    Args:
        relation: "parent": the task continues the request's trace. "link": the task starts a new trace that links to
            the request's trace. "none": the task starts a new trace.
        baggage: Whether tasks carry baggage.
        redaction: Redacts exceptions in spans.
        server: Host and port of Redis, or the path of its socket and 0.
        opt_in: Optional attributes and spans.
        create_spans: Whether each task of a bulk enqueue has a span `create`.
        tracer_provider: Replaces the global provider.

    Raises:
        ConfigurationError: `relation` or `opt_in` has an unknown value.
    """

    def __init__(
        self,
        *,
        relation: Relation | str = Relation.PARENT,
        baggage: bool = True,
        redaction: Redaction | None = None,
        server: tuple[str, int] | None = None,
        opt_in: Collection[OptIn | str] = (),
        create_spans: bool = True,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.relation = member(Relation, "relation", relation)
        self.baggage = baggage
        self._redaction = redaction or Redaction()
        self.server = server
        self.opt_in = members(OptIn, "opt_in", opt_in)
        self.creates_spans = create_spans
        self._fixed_provider = tracer_provider
        # Provider, tracer and sampling are one attribute, so that no thread combines a new provider with an old tracer.
        self._current: tuple[TracerProvider | None, Tracer | None, Sampling] = (None, None, Sampling(None))
        self._known: dict[tuple[int, str, str, str | None], dict[str, AttributeValue]] = {}
        self._complained = False
        self._without_trace = ProducerSpan(self, None, Context())
        """The span of all enqueues that happen outside of a trace and without an SDK."""

    def tracer(self) -> Tracer | None:
        """Return the SDK's tracer; None if no SDK is configured."""
        provider = self._fixed_provider or switch.tracer_provider()
        current = self._current
        if provider is not current[0]:
            current = self._current = (provider, tracer_of(provider), Sampling(provider))
        return current[1]

    def drops(self, span: SpanContext) -> bool:
        """Return whether the SDK would sample no child of this span. taskq then need not start a child."""
        return self._current[2].drops(span)

    def start_producer(
        self,
        queue: str,
        task_type: str | None = None,
        task_id: str | None = None,
        *,
        body_size: int = 0,
        links: Sequence[Link] = (),
        context: Context | None = None,
        operation: str = names.SEND,
    ) -> "ProducerSpan":
        """Start the span `send <queue>`, as a child of the current span.

        Args:
            queue: Queue of the task.
            task_type: Name of the task.
            task_id: Id of the task.
            body_size: Size of the payload in bytes.
            links: Links to further origins, for example the members of a group that were combined into one task.
            context: Replaces the current context as the parent.
            operation: `send`, or `create` for a task that is sent in the span of another operation.
        """
        parent = context_api.get_current() if context is None else context
        if (self._fixed_provider or switch.tracer_provider()) is None:
            return ProducerSpan(self, None, parent) if parent else self._without_trace
        if self.tracer() is None or self.drops(propagation.sender_of(parent)):
            return ProducerSpan(self, None, parent) if parent else self._without_trace
        attributes = self.attributes(operation, queue, task_type, task_id, body_size)
        span = self.start(operation, queue, SpanKind.PRODUCER, parent, attributes, links=links)
        return ProducerSpan(self, span, parent if span is None else trace.set_span_in_context(span, parent))

    def start_batch(self, queue: str, *, is_deferred: bool = False) -> "BatchSpan":
        """Start the span `send <queue>` of a bulk enqueue, as a child of the current span.

        The span has the kind client. The producers are the spans `create <queue>`, one per task, which the runs
        continue. Without such spans, the span of the batch is the producer.

        Args:
            queue: Queue of the tasks.
            is_deferred: The tasks are sent later, so the span begins with `BatchSpan.begin`. If tasks have no spans
                `create`, the runs continue the current span.
        """
        parent = context_api.get_current()
        if self.tracer() is None or self.drops(propagation.sender_of(parent)):
            return BatchSpan(self, queue, None, parent)
        if is_deferred:
            return BatchSpan(self, queue, None, parent, is_deferred=True)
        kind = SpanKind.CLIENT if self.creates_spans else SpanKind.PRODUCER
        span = self.start(names.SEND, queue, kind, parent, self.attributes(names.SEND, queue, None))
        if span is None:
            return BatchSpan(self, queue, None, parent)
        is_sampled = span.is_recording()
        if not (is_sampled and self.creates_spans):
            parent = trace.set_span_in_context(span, parent)
        return BatchSpan(self, queue, span if is_sampled else None, parent)

    def start_sending(
        self,
        queue: str,
        created: Iterable[SpanContext],
        task_type: str | None = None,
        task_id: str | None = None,
        *,
        body_size: int | None = None,
    ) -> "ProducerSpan":
        """Start the span `send <queue>` of tasks that were created earlier, as a child of the current span.

        It has the kind client, and links to the spans `create` of the tasks. Without a sampled span among them, nothing
        is recorded.

        Args:
            queue: Queue of the tasks.
            created: The spans `create` of the tasks.
            task_type: Name of the task, if it is only one.
            task_id: Id of the task, if it is only one.
            body_size: Size of the payload in bytes, if it is only one task.
        """
        parent = context_api.get_current()
        unique = {(each.trace_id, each.span_id): Link(each) for each in created if each.trace_flags.sampled}
        span = None
        if unique and self.tracer() is not None:
            attributes = self.attributes(names.SEND, queue, task_type, task_id, body_size)
            links = list(unique.values())
            span = self.start(names.SEND, queue, SpanKind.CLIENT, parent, attributes, links=links)
        return ProducerSpan(self, span, parent)

    def start(
        self,
        operation: str,
        queue: str,
        kind: SpanKind,
        context: Context,
        attributes: dict[str, AttributeValue],
        *,
        links: Sequence[Link] = (),
        start_time_ns: int | None = None,
    ) -> Span | None:
        """Start the span `<operation> <queue>`. Return None without an SDK, or if the SDK raises an error."""
        tracer = self.tracer()
        if tracer is None:
            return None
        try:
            return tracer.start_span(
                f"{operation} {queue}", context, kind, attributes, links or None, start_time=start_time_ns
            )
        except Exception as exc:
            self.complain(exc)
            return None

    def attributes(
        self,
        operation: str,
        queue: str,
        task_type: str | None,
        task_id: str | None = None,
        body_size: int | None = None,
    ) -> dict[str, AttributeValue]:
        """Return the attributes of a span. The caller may add to them."""
        # The attribute `client.id` contains the process id, which changes after a fork. So the key contains it too.
        key = (os.getpid(), operation, queue, task_type)
        known = self._known.get(key)
        if known is None:
            known = {
                **names.system(),
                names.OPERATION_NAME: operation,
                names.OPERATION_TYPE: operation,
                names.QUEUE: queue,
                names.CLIENT_ID: f"{socket.gethostname()}:{key[0]}",
                **names.of_server(self.server),
            }
            if task_type is not None:
                known[names.TASK_TYPE] = task_type
            if len(self._known) < _KNOWN_MAX:
                self._known[key] = known
        attributes = known.copy()
        if task_id is not None:
            attributes[names.TASK_ID] = task_id
        if body_size is not None and OptIn.BODY_SIZE in self.opt_in:
            attributes[names.BODY_SIZE] = body_size
        return attributes

    def finish(
        self,
        span: Span,
        error: BaseException | None = None,
        *,
        error_type: str | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        links: Sequence[Link] = (),
    ) -> None:
        """End a span unless it has ended, and record the error of its operation if there is one. Never raises."""
        try:
            if not span.is_recording():
                return
            for link in links:
                span.add_link(link.context, link.attributes)
            if attributes:
                for name, value in attributes.items():  # `set_attributes` takes twice as long for one attribute
                    span.set_attribute(name, value)
            if error is not None or error_type is not None:
                record_error(span, error and self._redaction.shown(error), error_type)
            span.end()
        except Exception as exc:
            self.complain(exc)

    def complain(self, error: Exception) -> None:
        """Log the first error that OpenTelemetry raises. Ignore all later ones, which would fill the log."""
        if not self._complained:
            self._complained = True
            _logger.warning(
                "OpenTelemetry raised an error; the task continues without its span (logged once)", exc_info=error
            )


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


class ProducerSpan(TaskSpan):
    """The span of one enqueue, from `Tracing.start_producer`.

    It may be ended at any later time in any thread. A span that is never ended is not exported.
    """

    __slots__ = ()

    def end(self, error: BaseException | None = None, *, count: int = 0) -> None:
        """End the span; further calls do nothing.

        Args:
            error: Why the task was not enqueued, or None if it was.
            count: Number of tasks of a batch, 0 for a single task.
        """
        if self.span is not None:
            self._recording.finish(self.span, error, attributes={names.BATCH_COUNT: count} if count else None)

    def end_as_created(self, queue: str) -> None:
        """End the span as `create <queue>`, because the task is sent later, or never after a rollback."""
        if self.span is not None and self.span.is_recording():
            self.span.update_name(f"{names.CREATE} {queue}")
            attributes = {names.OPERATION_NAME: names.CREATE, names.OPERATION_TYPE: names.CREATE}
            self._recording.finish(self.span, attributes=attributes)

    @property
    def span_context(self) -> SpanContext:
        """The span that the run of the task continues. Not valid without a trace."""
        return propagation.sender_of(self.context)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the span current inside a `with` block, and end it after the block."""
        token = context_api.attach(self.context)
        try:
            yield
        except BaseException as error:
            self.end(error)
            raise
        else:
            self.end()
        finally:
            context_api.detach(token)


class BatchSpan(TaskSpan):
    """The span `send <queue>` of a bulk enqueue, from `Tracing.start_batch`. It links to one `create` span per task.

    If the tasks have no spans, they all get the headers in `trace_headers`.
    """

    __slots__ = ("_created", "_is_deferred", "_queue")

    def __init__(
        self, recording: Recording, queue: str, span: Span | None, context: Context, *, is_deferred: bool = False
    ) -> None:
        super().__init__(recording, span, context)
        self._queue = queue
        self._is_deferred = is_deferred
        self._created: list[Link] = []

    @property
    def has_spans(self) -> bool:
        """Whether each task of the bulk enqueue has its own span and trace headers."""
        return (self._is_deferred or self.span is not None) and self._recording.creates_spans

    def begin(self) -> None:
        """Start the span of a batch that is sent later than it was created. Otherwise do nothing."""
        if not self._is_deferred or self.span is not None:
            return
        if not self._created or any(each.context.trace_flags.sampled for each in self._created):
            recording, attributes = self._recording, self._recording.attributes(names.SEND, self._queue, None)
            self.span = recording.start(
                names.SEND, self._queue, SpanKind.CLIENT, context_api.get_current(), attributes, links=self._created
            )
            self._created = []

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
        if self.span is not None:
            attributes = {names.BATCH_COUNT: count} if count else None
            self._recording.finish(self.span, error, attributes=attributes, links=self._created)


class ClientMetrics:
    """Records the metrics of a client's enqueues. Any thread may call it.

    Args:
        meter_provider: Replaces the global provider.
        max_series: Maximum number of sets of labels.
        server: Host and port of Redis, or the path of its socket and 0. It is a label of the metrics that follow
            OpenTelemetry's conventions.
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        max_series: int = MAX_SERIES,
        server: tuple[str, int] | None = None,
    ) -> None:
        self._provider = meter_provider
        # Export a zero at the start, so that monitoring sees the first opening of the circuit breaker as an increase.
        self._meters = Meters(meter_provider, begin=lambda instruments: instruments[names.CIRCUIT_OPENED].add(0))
        self._server = names.of_server(server)
        self._tasks = Series(max_series, self._labels)

    def sent(
        self,
        queue: str,
        task_type: str,
        count: int = 1,
        *,
        duration_s: float | None = None,
        error_type: str | None = None,
    ) -> None:
        """Count the tasks of one request to Redis, whether it enqueued them or failed.

        Args:
            queue: The queue of the tasks.
            task_type: Name of the task.
            count: Number of tasks.
            duration_s: Duration of the call in seconds, recorded once; None records no duration.
            error_type: Name of the error if the tasks were not enqueued, else None.
        """
        if (self._provider or switch.meter_provider()) is None:
            return
        instruments = self._meters.current()
        if instruments is None:
            return
        task, message = self._tasks.of(queue, task_type, error_type)
        instruments[names.CLIENT_SENT].add(count, message)
        if error_type is None:
            instruments[names.TASKS_ENQUEUED].add(count, task)
        if duration_s is not None:
            instruments[names.CLIENT_OPERATION_DURATION].record(duration_s, message)

    def baggage_cut(self, queue: str, count: int) -> None:
        """Count trace headers and baggage that were left out, because a task's headers have a size limit."""
        instruments = self._meters.current()
        if instruments is not None:
            instruments[names.BAGGAGE_CUT].add(count, {names.QUEUE: queue})

    def circuit_opened(self) -> None:
        """Count an opening of the circuit breaker."""
        instruments = self._meters.current()
        if instruments is not None:
            instruments[names.CIRCUIT_OPENED].add(1)

    def _labels(self, queue: str, task_type: str, error_type: str | None) -> tuple[Labels, Labels]:
        message: Labels = {
            **names.system(),
            names.OPERATION_NAME: names.SEND,
            names.OPERATION_TYPE: names.SEND,
            names.QUEUE: queue,
            **self._server,
        }
        if error_type is not None:
            message[names.ERROR_TYPE] = error_type
        return task_labels(queue, task_type), message
