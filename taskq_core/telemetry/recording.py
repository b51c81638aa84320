"""Record spans: the tracer, the attributes that spans share, and their end."""

import logging
import os
import socket
from collections.abc import Collection

from opentelemetry.trace import NoOpTracer, Span, SpanContext, Tracer, TracerProvider
from opentelemetry.util.types import AttributeValue

from taskq_core.settings import OptIn
from taskq_core.telemetry import names
from taskq_core.telemetry.exceptions import note_error
from taskq_core.telemetry.providers import INSTRUMENTATION_NAME, instrumentation_version, is_sdk, switch
from taskq_core.telemetry.redaction import Redaction
from taskq_core.telemetry.sampling import Sampling

_KNOWN_MAX = 1024
_pid = os.getpid()
"""Id of this process. Asking for it costs a system call, which is too much for each span."""

_logger = logging.getLogger(__name__)


class Recording:
    """Tracer and attributes that the spans of one queue application share. `Tracing` starts the spans.

    Args:
        baggage: Whether tasks carry baggage.
        redaction: Decides what spans show of exceptions.
        server: Host and port of Redis, or the path of its socket and 0.
        opt_in: Optional attributes.
        create_spans: Whether each task of a bulk enqueue has a span `create`.
        tracer_provider: Used instead of the global one.
    """

    def __init__(
        self,
        *,
        baggage: bool,
        redaction: Redaction,
        server: tuple[str, int] | None,
        opt_in: Collection[OptIn],
        create_spans: bool,
        tracer_provider: TracerProvider | None,
    ) -> None:
        self.baggage = baggage
        self._redaction = redaction
        self.server = server
        self.opt_in = opt_in
        self.creates_spans = create_spans
        self.tells_body_size = OptIn.BODY_SIZE in opt_in
        self._fixed_provider = tracer_provider
        # One attribute, so that another thread never sees the tracer of one provider beside another provider.
        self._current: tuple[TracerProvider | None, Tracer | None, Sampling] = (None, None, Sampling(None))
        self._known: dict[tuple[str, str, str | None], dict[str, AttributeValue]] = {}
        self._known_by = 0
        self._complained = False

    def attributes(self, operation: str, queue: str, task_type: str | None) -> dict[str, AttributeValue]:
        """Return what all spans of one operation, queue and task have in common, for the caller to add to."""
        pid = _pid
        if pid != self._known_by:  # a child has another id
            self._known, self._known_by = {}, pid
        known = self._known.get((operation, queue, task_type))
        if known is None:
            known = {
                **names.system(),
                names.OPERATION_NAME: operation,
                names.OPERATION_TYPE: operation,
                names.QUEUE: queue,
                names.CLIENT_ID: f"{socket.gethostname()}:{pid}",
            }
            known |= names.of_server(self.server)
            if task_type is not None:
                known[names.TASK_TYPE] = task_type
            if len(self._known) < _KNOWN_MAX:
                self._known[(operation, queue, task_type)] = known
        return known.copy()

    def drops(self, span: SpanContext) -> bool:
        """Whether no span that continues this one can be sampled."""
        return self._current[2].drops(span)

    def tracer(self) -> Tracer | None:
        """Return the SDK's tracer; None without an SDK."""
        provider = self._fixed_provider or switch.tracer_provider()
        current = self._current
        if provider is not current[0]:
            current = self._current = (provider, _tracer_of(provider), Sampling(provider))
        return current[1]

    def finish(
        self, span: Span, error: BaseException | None, error_type: str | None, state_after: str | None = None
    ) -> None:
        """End a span, with its error if there is one. Never raises."""
        try:
            if state_after is not None:
                span.set_attribute(names.TASK_STATE_AFTER, str(state_after))
            if error is not None or error_type is not None:
                note_error(span, error and self._redaction.shown(error), error_type)
            span.end()
        except Exception as exc:
            self.complain(exc)

    def note(self, span: Span, name: str, value: AttributeValue) -> None:
        """Set an attribute. Never raises."""
        try:
            span.set_attribute(name, value)
        except Exception as exc:
            self.complain(exc)

    def complain(self, error: Exception) -> None:
        """Log a fault of OpenTelemetry, once."""
        if not self._complained:
            self._complained = True
            _logger.warning("OpenTelemetry failed; tasks go on without the span (logged once)", exc_info=error)


def _tracer_of(provider: TracerProvider | None) -> Tracer | None:
    if provider is None or not is_sdk(provider):
        return None
    tracer = provider.get_tracer(INSTRUMENTATION_NAME, instrumentation_version(), names.schema_url())
    return None if isinstance(tracer, NoOpTracer) else tracer  # an SDK switched off by OTEL_SDK_DISABLED


def _note_pid() -> None:
    global _pid
    _pid = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_pid)
