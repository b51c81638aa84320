"""Start the spans of tasks: `send <queue>` for an enqueue, `process <queue>` for a run.

Each queue application has one `Tracing`, which its clients and workers share. Any thread may use it. It guarantees:

- Without an SDK it does nothing. The next task uses an SDK that is configured later.
- Attributes that are known at the start of a span are set at the start, so that samplers see them.
- A span never contains a payload, argument or result. Exceptions are shortened, and redacted as the setting `LOG` says.
- A task whose trace is not sampled has no span; its trace context is passed on.
- An error of a span processor, sampler or propagator is logged once. The span is lost, but the task is not affected.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind

from taskq_core.errors import Discard, Retry, Snooze
from taskq_core.settings import OptIn, Relation
from taskq_core.telemetry import names, propagation
from taskq_core.telemetry.recording import Recording, TaskSpan

FIRST_RUN = "taskq-first-run"
"""Header of a retried task: the `traceparent` of its first run, to which later runs link."""
LINKS = "taskq-links"
"""Header of a task whose run links to other spans: the `traceparent` of each of them, with commas between them."""
LINKS_MAX = 32
"""Maximum number of links in the header `LINKS`."""
RUN = "taskq-run"
"""Header of a workflow step that has ended: the `traceparent` of its run, to which the next steps link."""
NO_RUN = f"00-{'0' * 32}-{'0' * 16}-00"
"""Placeholder in `LINKS` for a run that is not known yet. The placeholder is not a valid `traceparent`, so nothing
links to it."""


_STEERS = (Retry, Snooze, Discard)
"""Exceptions with which a task controls its outcome. They are not failures."""


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

    def link(self, traceparent: str) -> None:
        """Add a link to the span in a `traceparent`. An invalid one is ignored."""
        other = propagation.sender_in({propagation.TRACEPARENT: traceparent})
        if self.span is not None and other.is_valid:
            self.span.add_link(other)

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
        if self.span is not None:
            attributes = {names.TASK_STATE_AFTER: str(state_after)}
            self._recording.finish(self.span, error, error_type=error_type, attributes=attributes)


class Tracing(Recording):
    """Starts the spans of one queue application."""

    @property
    def is_active(self) -> bool:
        """Whether an SDK is configured now."""
        return self.tracer() is not None

    @contextmanager
    def continued(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Make the trace and the baggage in a task's headers current, in this coroutine or thread."""
        token = context_api.attach(propagation.extract(headers, baggage=self.baggage))
        try:
            yield
        finally:
            context_api.detach(token)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Record the span `step <name>` of a step of a running task, as a child of the current span."""
        parent = context_api.get_current()
        span = None
        if self.tracer() is not None and not self.drops(propagation.sender_of(parent)):
            span = self.start(names.STEP, name, SpanKind.INTERNAL, parent, {names.STEP_NAME: name})
        if span is None:
            yield
            return
        token = context_api.attach(trace.set_span_in_context(span, parent))
        try:
            yield
        except BaseException as error:
            self.finish(span, error)
            raise
        else:
            self.finish(span)
        finally:
            context_api.detach(token)

    def links(self, tasks: Iterable[Mapping[str, str]]) -> list[Link]:
        """Return links to the spans in the headers of some tasks, without duplicates. Return none without an SDK."""
        if self.tracer() is None:
            return []
        senders = map(propagation.sender_in, tasks)
        return list({(each.trace_id, each.span_id): Link(each) for each in senders if each.is_valid}.values())

    def start_consumer(
        self,
        queue: str,
        task_type: str,
        task_id: str,
        *,
        retried: int,
        max_retry: int,
        headers: Mapping[str, str],
        relation: Relation | None = None,
        body_size: int = 0,
    ) -> ConsumerSpan:
        """Start the span `process <queue>`, related to the span in the task's headers.

        Args:
            queue: Queue of the task.
            task_type: Name of the task.
            task_id: Id of the task.
            retried: Number of retries before this run.
            max_retry: Maximum number of retries.
            headers: Headers of the message. Without a trace in them a new trace starts; the worker's own context is
                not used. Later runs link to the first run.
            relation: Replaces the relation of this `Tracing`.
            body_size: Size of the payload in bytes.
        """
        parent = propagation.extract(headers, baggage=self.baggage)
        sender = propagation.sender_of(parent)
        is_malformed = propagation.is_malformed(headers, sender)
        relation = relation or self.relation
        links: list[Link] = []
        if self.tracer() is None or (relation is Relation.PARENT and self.drops(sender)):
            return ConsumerSpan(self, None, parent, is_malformed=is_malformed)
        if sender.is_valid and relation is not Relation.NONE:
            # OpenTelemetry's conventions require the link even if the sender is the parent.
            links.append(Link(sender))
        if relation is not Relation.PARENT:
            parent = trace.set_span_in_context(trace.INVALID_SPAN, parent)
        others = [headers[FIRST_RUN]] if FIRST_RUN in headers else []
        if LINKS in headers:
            others += headers[LINKS].split(",")[:LINKS_MAX]
        if others:
            links += self.links({propagation.TRACEPARENT: each} for each in others)
        attributes = self.attributes(names.PROCESS, queue, task_type, task_id, body_size)
        attributes[names.TASK_RETRIED] = retried
        attributes[names.TASK_MAX_RETRY] = max_retry
        span = self.start(names.PROCESS, queue, SpanKind.CONSUMER, parent, attributes, links=links)
        if span is not None:
            parent = trace.set_span_in_context(span, parent)
        return ConsumerSpan(self, span, parent, is_malformed=is_malformed)

    def record_request(
        self,
        operation: OptIn,
        queue: str,
        spans: Iterable[ConsumerSpan],
        *,
        count: int,
        started_ns: int,
        error: BaseException | None = None,
    ) -> None:
        """Record the span `receive <queue>` or `settle <queue>` of a finished request to Redis.

        Args:
            operation: The kind of request. Nothing is recorded unless the settings enable it.
            queue: Queue of the tasks.
            spans: The spans of the runs, to which the span links.
            count: Number of tasks.
            started_ns: Start of the request (Unix ns).
            error: The error of a failed request.
        """
        attributes = self.attributes(operation.value, queue, None)
        attributes[names.BATCH_COUNT] = count
        links = [Link(each.span.get_span_context()) for each in spans if each.span is not None]
        span = self.start(
            operation.value, queue, SpanKind.CLIENT, Context(), attributes, links=links, start_time_ns=started_ns
        )
        if span is not None:
            self.finish(span, error)
