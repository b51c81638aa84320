"""Spans of tasks: `send <queue>` where one is enqueued, `process <queue>` where one runs.

A `Tracing` is built once per queue application and shared by its clients and workers; any thread may use it. It
promises:

- Without an SDK nothing of this runs, and an SDK configured later is noticed by the next task.
- The attributes known at the start are given at the start, so that samplers see them.
- No payload, argument or result is ever put into a span. Exceptions are, shortened; their messages can be left out.
- A fault in a span processor, sampler or propagator is logged once and costs the span, never the task.

How a trace travels in headers is the business of `propagation`; when a span starts and ends is that of client and
worker.
"""

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from enum import StrEnum
from types import TracebackType
from typing import Self

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NoOpTracer, Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.util.types import AttributeValue

from taskq_core.errors import ConfigurationError, Discard, Retry, Snooze
from taskq_core.telemetry import names, propagation
from taskq_core.telemetry.providers import (
    INSTRUMENTATION_NAME,
    global_tracer_provider,
    instrumentation_version,
    is_sdk,
)

MESSAGE_LIMIT = 4 * 1024
"""Characters of an exception's message that go into a span; more is cut."""
STACKTRACE_LIMIT = 16 * 1024
"""Characters of a traceback that go into a span; more is cut in the middle."""

_logger = logging.getLogger(__name__)


class Relation(StrEnum):
    """How the span of a running task relates to the span that enqueued it."""

    PARENT = "parent"
    """Its child: request and task are one trace."""
    LINK = "link"
    """A trace of its own that points to the request's."""


class ProducerSpan:
    """The span of one enqueue, from `Tracing.start_producer`; without an SDK an object that does nothing.

    Either as a context manager, which also makes the span current, or by `inject` and, at any later time and in any
    thread, `end`. A span that is never ended is never exported, which is right for a task whose transaction was
    rolled back.
    """

    __slots__ = ("_carrier", "_context", "_span", "_token", "_tracing")

    def __init__(self, tracing: "Tracing", span: Span | None = None, context: Context | None = None) -> None:
        self._tracing, self._span, self._context = tracing, span, context
        self._carrier: propagation.Carrier | None = None
        self._token: Token[Context] | None = None

    @property
    def span(self) -> Span | None:
        """The OpenTelemetry span, or None without an SDK."""
        return self._span

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
            return propagation.carrier_of(self._context, baggage=self._tracing.baggage)
        if self._carrier is None:
            self._carrier = propagation.carrier_of(self._context, baggage=self._tracing.baggage)
        return self._carrier

    def note_batch(self, count: int) -> None:
        """Say how many tasks the batch has, once that is known: it is still being filled when its span starts."""
        span = self._span
        if span is not None and span.is_recording():
            self._tracing._note(span, names.BATCH_COUNT, count)

    def end(self, error: BaseException | None = None) -> None:
        """End the span; further calls do nothing.

        Args:
            error: Why the task was not enqueued, or None if it was.
        """
        span = self._span
        if span is not None and span.is_recording():
            self._tracing._finish(span, error, None)

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

    __slots__ = ("_context", "_span", "_tracing")

    def __init__(self, tracing: "Tracing", span: Span | None = None, context: Context | None = None) -> None:
        self._tracing, self._span, self._context = tracing, span, context

    @property
    def span(self) -> Span | None:
        """The OpenTelemetry span, or None without an SDK."""
        return self._span

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
        if isinstance(error, Retry | Snooze | Discard):
            error = None
        self._tracing._finish(span, error, error_type, state_after)


class Tracing:
    """Starts the spans of one queue application.

    Args:
        relation: "parent" continues the request's trace in the task, "link" starts a new trace that points to it.
        baggage: False neither sends baggage along with a task nor reads it from one.
        exception_messages: False leaves messages of exceptions out of spans, because they may hold data. Type and
            stack stay.
        url: Where a trace can be looked at: an http(s) address with `{trace_id}` in it.
        tracer_provider: Takes this one instead of the global one.

    Raises:
        ConfigurationError: `relation` or `url` is not one of these.
    """

    __slots__ = (
        "_complained",
        "_current",
        "_exception_messages",
        "_fixed_provider",
        "_no_consumer",
        "_no_producer",
        "_relation",
        "_url",
        "baggage",
    )

    def __init__(
        self,
        *,
        relation: Relation | str = Relation.PARENT,
        baggage: bool = True,
        exception_messages: bool = True,
        url: str | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self._relation = _checked_relation(relation)
        self._url = _checked_url(url)
        self.baggage = baggage
        self._exception_messages = exception_messages
        self._fixed_provider = tracer_provider
        # One attribute, so that another thread never sees the tracer of one provider beside another provider.
        self._current: tuple[TracerProvider | None, Tracer | None] = (None, None)
        self._no_producer, self._no_consumer = ProducerSpan(self), ConsumerSpan(self)
        self._complained = False

    @property
    def is_active(self) -> bool:
        """Whether an SDK is configured now."""
        return self._tracer() is not None

    def trace_url(self, headers: Mapping[str, str]) -> str | None:
        """Address at which the trace of a task can be looked at; None without `url` or without a trace."""
        if self._url is None:
            return None
        found = trace.get_current_span(propagation.extract(headers, baggage=False)).get_span_context()
        return self._url.replace("{trace_id}", trace.format_trace_id(found.trace_id)) if found.is_valid else None

    @contextmanager
    def continued(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Make the trace and the baggage that stand in a task's headers current, in this coroutine or thread."""
        token = context_api.attach(propagation.extract(headers, baggage=self.baggage))
        try:
            yield
        finally:
            context_api.detach(token)

    def start_producer(
        self,
        queue: str,
        task_type: str | None = None,
        task_id: str | None = None,
        *,
        server_address: str | None = None,
        server_port: int | None = None,
        context: Context | None = None,
    ) -> ProducerSpan:
        """Start the span `send <queue>`, as a child of the span that is current.

        Args:
            queue: Queue the task goes to.
            task_type: Name of the task; None if a batch has several.
            task_id: Id of the task; None for a batch.
            server_address: Host name or socket path of Redis.
            server_port: Port of Redis.
            context: Parent instead of the current context.
        """
        tracer = self._tracer()
        if tracer is None:
            return self._no_producer if context is None else ProducerSpan(self, None, context)
        attributes: dict[str, AttributeValue] = {
            names.SYSTEM: names.SYSTEM_ASYNQ,
            names.OPERATION_NAME: names.SEND,
            names.OPERATION_TYPE: names.SEND,
            names.QUEUE: queue,
        }
        if task_type is not None:
            attributes[names.TASK_TYPE] = task_type
        if task_id is not None:
            attributes[names.TASK_ID] = task_id
        _add_server(attributes, server_address, server_port)
        try:
            parent = context_api.get_current() if context is None else context
            span = tracer.start_span(f"send {queue}", parent, SpanKind.PRODUCER, attributes)
            return ProducerSpan(self, span, trace.set_span_in_context(span, parent))
        except Exception as exc:
            self._complain(exc)
            return self._no_producer

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
        server_address: str | None = None,
        server_port: int | None = None,
    ) -> ConsumerSpan:
        """Start the span `process <queue>`, related to the one whose context stands in the headers.

        Args:
            queue: Queue the task was taken from.
            task_type: Name of the task.
            task_id: Id of the task.
            retried: How often it was retried before this run.
            max_retry: How often it may be.
            headers: Headers of the message. Without a trace in them a new one starts; the worker's own context plays
                no part.
            relation: Instead of the one of this `Tracing`, for one task.
            server_address: Host name or socket path of Redis.
            server_port: Port of Redis.
        """
        tracer = self._tracer()
        if tracer is None:
            return self._no_consumer
        attributes: dict[str, AttributeValue] = {
            names.SYSTEM: names.SYSTEM_ASYNQ,
            names.OPERATION_NAME: names.PROCESS,
            names.OPERATION_TYPE: names.PROCESS,
            names.QUEUE: queue,
            names.TASK_ID: task_id,
            names.TASK_TYPE: task_type,
            names.TASK_RETRIED: retried,
            names.TASK_MAX_RETRY: max_retry,
        }
        _add_server(attributes, server_address, server_port)
        try:
            parent = propagation.extract(headers, baggage=self.baggage)
            links = None
            if (relation or self._relation) is Relation.LINK:
                sender = trace.get_current_span(parent).get_span_context()
                if sender.is_valid:
                    links = (Link(sender),)
                    parent = trace.set_span_in_context(trace.INVALID_SPAN, parent)
            span = tracer.start_span(f"process {queue}", parent, SpanKind.CONSUMER, attributes, links)
            return ConsumerSpan(self, span, trace.set_span_in_context(span, parent))
        except Exception as exc:
            self._complain(exc)
            return self._no_consumer

    def _tracer(self) -> Tracer | None:
        provider = self._fixed_provider or global_tracer_provider()
        current = self._current
        if provider is not current[0]:
            current = self._current = (provider, _tracer_of(provider))
        return current[1]

    def _finish(
        self, span: Span, error: BaseException | None, error_type: str | None, state_after: str | None = None
    ) -> None:
        try:
            if state_after is not None:
                span.set_attribute(names.TASK_STATE_AFTER, str(state_after))
            if error is not None or error_type is not None:
                self._add_error(span, error, error_type)
            span.end()
        except Exception as exc:
            self._complain(exc)

    def _note(self, span: Span, name: str, value: AttributeValue) -> None:
        try:
            span.set_attribute(name, value)
        except Exception as exc:
            self._complain(exc)

    def _add_error(self, span: Span, error: BaseException | None, error_type: str | None) -> None:
        description = None
        if error is not None:
            event = {names.EXCEPTION_TYPE: type_name(error)}
            if self._exception_messages:
                description = _cut_middle(_text(error), MESSAGE_LIMIT)
                event[names.EXCEPTION_MESSAGE] = description
                stack = "".join(traceback.format_exception(error))
            else:
                # Frames only: the last line of a full traceback is the message, and so are those of causes.
                stack = "".join(traceback.format_tb(error.__traceback__))
            event[names.EXCEPTION_STACKTRACE] = _cut_middle(stack, STACKTRACE_LIMIT)
            span.add_event(names.EXCEPTION_EVENT, event)
            error_type = error_type or event[names.EXCEPTION_TYPE]
        if error_type is not None:
            span.set_attribute(names.ERROR_TYPE, error_type)
        span.set_status(Status(StatusCode.ERROR, description))

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            _logger.warning("OpenTelemetry failed; tasks go on without the span (logged once)", exc_info=error)


def type_name(error: BaseException) -> str:
    """Name of an exception's class as spans and metrics give it: with its module, unless it is a builtin."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _tracer_of(provider: TracerProvider | None) -> Tracer | None:
    if provider is None or not is_sdk(provider):
        return None
    tracer = provider.get_tracer(INSTRUMENTATION_NAME, instrumentation_version(), names.SCHEMA_URL)
    return None if isinstance(tracer, NoOpTracer) else tracer  # an SDK switched off by OTEL_SDK_DISABLED


def _add_server(attributes: dict[str, AttributeValue], address: str | None, port: int | None) -> None:
    if address is not None:
        attributes[names.SERVER_ADDRESS] = address
        if port is not None:
            attributes[names.SERVER_PORT] = port


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a broken __str__ of a user's exception
        return "<no readable message>"


def _cut_middle(text: str, limit: int) -> str:
    """Keep beginning and end: in a traceback they are where it started and what was raised."""
    if len(text) <= limit:
        return text
    mark = "\n[...]\n"
    half = (limit - len(mark)) // 2
    return text[:half] + mark + text[-half:]


def _checked_relation(relation: Relation | str) -> Relation:
    try:
        return Relation(relation)
    except ValueError:
        known = " or ".join(repr(member.value) for member in Relation)
        raise ConfigurationError(f"relation of traces must be {known}, got {relation!r}") from None


def _checked_url(url: str | None) -> str | None:
    if url is not None and not (url.startswith(("http://", "https://")) and "{trace_id}" in url):
        raise ConfigurationError(f"url of traces must be an http(s) address with '{{trace_id}}' in it, got {url!r}")
    return url
