"""Start and end spans with common attributes, and log errors of OpenTelemetry."""

import logging
import os
import socket
from collections.abc import Collection, Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Tracer, TracerProvider
from opentelemetry.util.types import AttributeValue

from taskq_core.settings import OptIn, Relation, member, members
from taskq_core.telemetry import names
from taskq_core.telemetry.exceptions import record_error
from taskq_core.telemetry.providers import switch, tracer_of
from taskq_core.telemetry.redaction import Redaction
from taskq_core.telemetry.sampling import Sampling

_KNOWN_MAX = 1024

_logger = logging.getLogger(__name__)


class Recording:
    """Tracer and attributes that the spans of one queue application share. `Tracing` starts the spans.

    Args:
        relation: "parent" continues the request's trace in the task, "link" starts a new trace that links to it,
            "none" starts a new trace.
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
        # One attribute holds all three, so that no thread uses the tracer of an earlier provider.
        self._current: tuple[TracerProvider | None, Tracer | None, Sampling] = (None, None, Sampling(None))
        self._known: dict[tuple[int, str, str, str | None], dict[str, AttributeValue]] = {}
        self._complained = False

    def tracer(self) -> Tracer | None:
        """Return the SDK's tracer; None without an SDK."""
        provider = self._fixed_provider or switch.tracer_provider()
        current = self._current
        if provider is not current[0]:
            current = self._current = (provider, tracer_of(provider), Sampling(provider))
        return current[1]

    def drops(self, span: SpanContext) -> bool:
        """Return whether the SDK samples no child of this span, so that taskq need not start a child."""
        return self._current[2].drops(span)

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
        # The key contains the process id, because the attribute `client.id` contains it and a fork changes it.
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
        """End a span, and record the error of its operation if there is one. Never raises."""
        try:
            for link in links:
                span.add_link(link.context, link.attributes)
            if attributes:
                span.set_attributes(attributes)
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
