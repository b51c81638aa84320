"""Spans of tasks: `send <queue>` where one is enqueued, `process <queue>` where one runs.

A `Tracing` is built once per queue application and shared by its clients and workers; any thread may use it. It
promises:

- Without an SDK nothing of this runs, and an SDK configured later is noticed by the next task.
- The attributes known at the start are given at the start, so that samplers see them.
- No payload, argument or result is ever put into a span. Exceptions are shortened, and redacted as `LOG` says.
- What is surely not sampled, since what it belongs to is not, costs no span: its context is passed on.
- A fault in a span processor, sampler or propagator is logged once and costs the span, never the task.

How a trace travels in headers is the business of `propagation`; when a span starts and ends is that of client and
worker.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Tracer, TracerProvider

from taskq_core.errors import ConfigurationError
from taskq_core.settings import OptIn, Relation, member, members
from taskq_core.telemetry import names, propagation
from taskq_core.telemetry.recording import Recording
from taskq_core.telemetry.redaction import Redaction
from taskq_core.telemetry.spans import BatchSpan, ConsumerSpan, ProducerSpan

FIRST_RUN = "taskq-first-run"
"""Header of a task that runs again: the `traceparent` of its first run, to which later ones link."""


LINKS = "taskq-links"
"""Header of a task whose run links to others: the `traceparent` of each, with commas between them."""
LINKS_MAX = 32
"""Most of them."""
RUN = "taskq-run"
"""Header of a step of a workflow that has ended: the `traceparent` of its run, to which the next steps link."""
NO_RUN = f"00-{'0' * 32}-{'0' * 16}-00"
"""Placeholder in `LINKS` for a run that is not known yet. It is not valid, so nothing links to it."""


class Tracing(Recording):
    """Starts the spans of one queue application.

    Args:
        relation: "parent" continues the request's trace in the task, "link" starts a new trace that points to it,
            "none" starts one that does not.
        baggage: False neither sends baggage along with a task nor reads it from one.
        redaction: Decides what spans show of exceptions.
        url: Where a trace can be looked at: an http(s) address with `{trace_id}` in it.
        server: Host and port of Redis, or the path of its socket and 0.
        opt_in: What is told in addition.
        create_spans: Whether each task of a bulk enqueue has a span `create`.
        tracer_provider: Takes this one instead of the global one.

    Raises:
        ConfigurationError: `relation`, `url` or `opt_in` is not one of these.
    """

    def __init__(
        self,
        *,
        relation: Relation | str = Relation.PARENT,
        baggage: bool = True,
        redaction: Redaction | None = None,
        url: str | None = None,
        server: tuple[str, int] | None = None,
        opt_in: Collection[OptIn | str] = (),
        create_spans: bool = True,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        super().__init__(
            baggage=baggage,
            redaction=redaction or Redaction(),
            server=server,
            opt_in=members(OptIn, "opt_in", opt_in),
            create_spans=create_spans,
            tracer_provider=tracer_provider,
        )
        self._relation = member(Relation, "relation", relation)
        self._url = _checked_url(url)
        self._no_producer, self._no_consumer = ProducerSpan(self), ConsumerSpan(self)

    @property
    def is_active(self) -> bool:
        """Whether an SDK is configured now."""
        return self.tracer() is not None

    def trace_url(self, headers: Mapping[str, str]) -> str | None:
        """Address at which the trace of a task can be looked at; None without `url` or without a trace."""
        if self._url is None:
            return None
        found = propagation.read(headers, baggage=False)[1]
        return self._url.replace("{trace_id}", trace.format_trace_id(found.trace_id)) if found.is_valid else None

    @contextmanager
    def continued(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Make the trace and the baggage that stand in a task's headers current, in this coroutine or thread."""
        token = context_api.attach(propagation.extract(headers, baggage=self.baggage))
        try:
            yield
        finally:
            context_api.detach(token)

    def links(self, tasks: Iterable[Mapping[str, str]]) -> list[Link]:
        """Return links to what enqueued some tasks, by their headers; each once, none without an SDK."""
        if self.tracer() is None:
            return []
        found: dict[tuple[int, int], Link] = {}
        for headers in tasks:
            sender = propagation.read(headers, baggage=False)[1]
            if sender.is_valid:
                found.setdefault((sender.trace_id, sender.span_id), Link(sender))
        return list(found.values())

    def start_producer(
        self,
        queue: str,
        task_type: str | None = None,
        task_id: str | None = None,
        *,
        body_size: int = 0,
        links: Collection[Link] = (),
        context: Context | None = None,
    ) -> ProducerSpan:
        """Start the span `send <queue>`, as a child of the span that is current.

        Args:
            queue: Queue the task goes to.
            task_type: Name of the task.
            task_id: Id of the task.
            body_size: Bytes of its payload.
            links: What else it comes from: the members of a group that became one task.
            context: Parent instead of the current context.
        """
        tracer = self.tracer()
        if tracer is None:
            return self._no_producer if context is None else ProducerSpan(self, None, context)
        parent = context_api.get_current() if context is None else context
        if self._drops(parent):
            return ProducerSpan(self, None, parent)
        attributes = self.attributes(names.SEND, queue, task_type)
        if task_id is not None:
            attributes[names.TASK_ID] = task_id
        if self.tells_body_size:
            attributes[names.BODY_SIZE] = body_size
        try:
            span = tracer.start_span(f"send {queue}", parent, SpanKind.PRODUCER, attributes, list(links) or None)
            return ProducerSpan(self, span, trace.set_span_in_context(span, parent))
        except Exception as exc:
            self.complain(exc)
            return self._no_producer

    def start_batch(self, queue: str) -> BatchSpan:
        """Start the span `send <queue>` of a bulk enqueue, as a child of the span that is current.

        It is a client's span: the producers are the spans `create <queue>`, one a task, which the runs continue.
        Without them, the batch span is the producer.
        """
        kind = SpanKind.CLIENT if self.creates_spans else SpanKind.PRODUCER
        parent = context_api.get_current()
        tracer = self.tracer()
        if tracer is None or self._drops(parent):
            return BatchSpan(self, queue, None, parent)
        try:
            span = tracer.start_span(f"send {queue}", parent, kind, self.attributes(names.SEND, queue, None))
        except Exception as exc:
            self.complain(exc)
            return BatchSpan(self, queue, None, parent)
        if not span.is_recording():  # a root that its sampler left out: what is sent belongs to no trace that is kept
            return BatchSpan(self, queue, None, trace.set_span_in_context(span, parent))
        if not self.creates_spans:
            parent = trace.set_span_in_context(span, parent)
        return BatchSpan(self, queue, span, parent)

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
        tracer: Tracer | None = None,
    ) -> ConsumerSpan:
        """Start the span `process <queue>`, related to the one whose context stands in the headers.

        Args:
            queue: Queue the task was taken from.
            task_type: Name of the task.
            task_id: Id of the task.
            retried: How often it was retried before this run.
            max_retry: How often it may be.
            headers: Headers of the message. Without a trace in them a new one starts; the worker's own context plays
                no part. A run after the first links to the first.
            relation: Instead of the one of this `Tracing`, for one task.
            body_size: Bytes of its payload.
            tracer: From `tracer`, if the caller has just asked.
        """
        if tracer is None:
            tracer = self.tracer()
            if tracer is None:
                return self._no_consumer
        try:
            parent, sender = propagation.read(headers, baggage=self.baggage)
            is_malformed = propagation.is_malformed(headers, sender)
            links: list[Link] = []
            relation = relation or self._relation
            if relation is Relation.PARENT:
                if self.drops(sender):
                    return ConsumerSpan(self, None, parent, is_malformed=is_malformed)
            elif sender.is_valid:
                parent = trace.set_span_in_context(trace.INVALID_SPAN, parent)
            if sender.is_valid and relation is not Relation.NONE:
                links.append(Link(sender))  # beside the parent too, as the conventions ask
            first = headers.get(FIRST_RUN)
            if first is not None:
                links += self.links(({propagation.TRACEPARENT: first},))
            linked = headers.get(LINKS)
            if linked is not None:
                links += self.links({propagation.TRACEPARENT: each} for each in linked.split(",")[:LINKS_MAX])
            attributes = self.attributes(names.PROCESS, queue, task_type)
            attributes[names.TASK_ID] = task_id
            attributes[names.TASK_RETRIED] = retried
            attributes[names.TASK_MAX_RETRY] = max_retry
            if self.tells_body_size:
                attributes[names.BODY_SIZE] = body_size
            span = tracer.start_span(f"process {queue}", parent, SpanKind.CONSUMER, attributes, links or None)
            return ConsumerSpan(self, span, propagation.with_span(span, parent), is_malformed=is_malformed)
        except Exception as exc:
            self.complain(exc)
            return self._no_consumer

    def note_registered(self, queue: str, task_type: str, *, entry_id: str, spec: str) -> Sequence[Link]:
        """Write the span `register <queue>` of a periodic task that a scheduler took up.

        Returns:
            What the spans of its tasks link to.
        """
        tracer = self.tracer()
        if tracer is None:
            return ()
        attributes = self.attributes("register", queue, task_type)
        del attributes[names.OPERATION_TYPE]  # none of the conventions' types
        attributes[names.CRON_SPEC] = spec
        attributes[names.ENTRY_ID] = entry_id
        try:
            span = tracer.start_span(f"register {queue}", Context(), SpanKind.INTERNAL, attributes)
            span.end()
            return (Link(span.get_span_context()),)
        except Exception as exc:
            self.complain(exc)
            return ()

    def note_exchange(
        self,
        operation: OptIn,
        queue: str,
        spans: Iterable[ConsumerSpan],
        *,
        count: int,
        started_ns: int,
        error: BaseException | None = None,
    ) -> None:
        """Write the span `receive <queue>` or `settle <queue>` of an exchange with Redis that is over.

        Args:
            operation: Which; the caller has seen that it is wanted.
            queue: Queue of the tasks.
            spans: The spans of the runs it was for, to which it links.
            count: How many tasks.
            started_ns: When it started, Unix ns.
            error: Why it failed, if it did.
        """
        tracer = self.tracer()
        if tracer is None:
            return
        attributes = self.attributes(operation.value, queue, None)
        attributes[names.BATCH_COUNT] = count
        links = [Link(each.span.get_span_context()) for each in spans if each.span is not None]
        try:
            span = tracer.start_span(
                f"{operation.value} {queue}",
                Context(),
                SpanKind.CLIENT,
                attributes,
                links or None,
                start_time=started_ns,
            )
        except Exception as exc:
            self.complain(exc)
            return
        self.finish(span, error, None)

    def _drops(self, parent: Context) -> bool:
        """Whether what belongs to this context is surely not sampled."""
        return self.drops(trace.get_current_span(parent).get_span_context())


def _checked_url(url: str | None) -> str | None:
    if url is not None and not (url.startswith(("http://", "https://")) and "{trace_id}" in url):
        raise ConfigurationError(f"url of traces must be an http(s) address with '{{trace_id}}' in it, got {url!r}")
    return url
