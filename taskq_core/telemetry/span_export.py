"""Export spans in batches, and count the spans that are lost.

Only `configure` imports this module, because it needs the SDK.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from taskq_core.clock import SYSTEM_CLOCK

_QUEUE_SIZE = 2048
"""Default of `OTEL_BSP_MAX_QUEUE_SIZE` in OpenTelemetry's specification."""
_LOG_EVERY_S = 10.0

_logger = logging.getLogger(__name__)


class CountingSpanProcessor(BatchSpanProcessor):
    """A batch processor that counts and logs lost spans. The SDK's own logs that it drops spans, but not how many.

    A span is lost if too many spans wait for their export, if its export fails, or if it ends after the shutdown.
    The SDK drops a span without notice, so the processor counts the spans that have ended and the spans that were
    exported. Thread-safe.

    Args:
        exporter: Class of the exporter.

    Attributes:
        lost_count: Number of lost spans. Up to one batch of dropped spans is counted only at the shutdown.
    """

    def __init__(self, exporter: Callable[[], SpanExporter]) -> None:
        self._limit = _queue_size()
        self._is_shut_down = False
        self._reset()
        super().__init__(_counting(exporter, self), max_queue_size=self._limit)
        if hasattr(os, "register_at_fork"):
            reset = weakref.WeakMethod(self._reset)
            os.register_at_fork(after_in_child=lambda: (found := reset()) and found())

    def _reset(self) -> None:
        """Count from zero. The SDK forgets the waiting spans in a forked child, because the parent exports them."""
        self._lock = threading.Lock()
        self._waiting = 0
        self._exporting = 0
        self._logged = 0
        self._logged_at = -_LOG_EVERY_S
        self.lost_count = 0

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span for its export."""
        if not (span.context and span.context.trace_flags.sampled):
            return
        with self._lock:
            if self._is_shut_down:
                self.lost_count += 1
            else:
                self._waiting += 1
        super().on_end(span)

    @property
    def unsent_count(self) -> int:
        """Number of spans that wait for their export or are being exported."""
        return self._waiting + self._exporting

    def begin_export(self, count: int) -> None:
        """Count spans that the exporter has taken from the queue, and spans that the SDK has dropped before."""
        with self._lock:
            self._exporting += count
            self._waiting -= count
            dropped = max(0, self._waiting - self._limit)  # more than the queue can hold
            self._waiting -= dropped
            self.lost_count += dropped

    def end_export(self, count: int, *, is_lost: bool) -> None:
        """Count exported or lost spans. Log the number of lost spans, at most every ten seconds."""
        with self._lock:
            self._exporting -= count
            self.lost_count += count if is_lost else 0
            now = SYSTEM_CLOCK.monotonic()
            is_due = now >= self._logged_at + _LOG_EVERY_S
            if is_due:
                self._logged_at = now
        if is_due:
            self._log()

    def shutdown(self) -> None:
        """Export the waiting spans, and stop exporting."""
        super().shutdown()  # type: ignore[no-untyped-call]  # the SDK has no types here
        with self._lock:
            self._is_shut_down = True
            self.lost_count += self._waiting
            self._waiting = 0
        self._log()

    def _log(self) -> None:
        with self._lock:
            count, self._logged = self.lost_count - self._logged, self.lost_count
        if count:
            _logger.warning(
                "%d spans were lost: the collector did not accept them, or more than %d spans waited for their export "
                "(OTEL_BSP_MAX_QUEUE_SIZE)",
                count,
                self._limit,
            )


def _counting(kind: Callable[[], SpanExporter], processor: CountingSpanProcessor) -> SpanExporter:
    """Return an exporter that reports each export to the processor."""
    base: Any = kind

    class Exporter(base):  # type: ignore[misc]  # the class is known only at run time
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            processor.begin_export(len(spans))
            result: SpanExportResult = SpanExportResult.FAILURE
            try:
                result = super().export(spans)
            finally:
                processor.end_export(len(spans), is_lost=result is not SpanExportResult.SUCCESS)
            return result

    exporter: SpanExporter = Exporter()
    return exporter


def _queue_size() -> int:
    try:
        return int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", _QUEUE_SIZE))
    except ValueError:  # the SDK uses its default, too
        return _QUEUE_SIZE
