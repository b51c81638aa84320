"""Set up OpenTelemetry's export of traces, metrics and logs from the `OTEL_*` environment.

For programs that have not set up an SDK themselves: one call at the start of the process. Only this module and
`span_export` import the SDK, and only during this call. The SDK reads endpoints, headers, sampler, batch sizes,
intervals and resource attributes itself; this module chooses the exporters:

===================================  ===========================================================================
`OTEL_SDK_DISABLED`                  "true": nothing is set up
`OTEL_TRACES_EXPORTER`,              "otlp" (default), "none", "console", or comma-separated names of exporters
`OTEL_METRICS_EXPORTER`,
`OTEL_LOGS_EXPORTER`
`OTEL_EXPORTER_OTLP_PROTOCOL`,       "http/protobuf" (default) or "grpc"; also per signal
`OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`,
`OTEL_EXPORTER_OTLP_METRICS_PROTOCOL`,
`OTEL_EXPORTER_OTLP_LOGS_PROTOCOL`
===================================  ===========================================================================

Environment variables take precedence over arguments, so that operators can rename a service. The SDK exports in its own
threads with bounded queues, which are restarted in a forked child. A collector that is slow or does not answer never
delays a task, and delays the end of the process by at most `flush_timeout_s`.
"""

import atexit
import importlib
import logging
import os
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from opentelemetry import _logs, metrics, trace

from taskq_core.errors import ConfigurationError
from taskq_core.telemetry.histograms import SparseHistograms, sparse_histograms
from taskq_core.telemetry.providers import is_sdk, switch

if TYPE_CHECKING:  # the SDK is an optional dependency
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from taskq_core.telemetry.span_export import CountingSpanProcessor

FLUSH_MAX_S = 8.0
"""Default maximum seconds for sending pending spans, metrics and log records, also at the end of a process. A
process without running tasks then ends within ten seconds."""

_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_INSTALL = "install it with: pip install 'taskq-asynq[otel]'"

_logger = logging.getLogger(__name__)
_lock = threading.Lock()
_handle: "TelemetryHandle | None" = None


class TelemetryHandle:
    """Flushes and shuts down the providers that `configure` has set up. Any thread may call it; it never raises.

    Attributes:
        tracer_provider: The provider set up for traces, or None.
        meter_provider: The provider set up for metrics, or None.
        logger_provider: The provider set up for logs, or None.
    """

    def __init__(self) -> None:
        self.tracer_provider: TracerProvider | None = None
        self.meter_provider: MeterProvider | None = None
        self.logger_provider: LoggerProvider | None = None
        self._span_processors: list[CountingSpanProcessor] = []
        self._lock = threading.Lock()
        self._is_shut_down = False

    def force_flush(self, timeout_s: float | None = None) -> bool:
        """Send all pending spans, metrics and log records.

        Args:
            timeout_s: Maximum wait in seconds; None: `flush_timeout_s`. Sending continues in the background.

        Returns:
            False if it was not finished in time or failed.
        """
        timeout_s = flush_timeout_s() if timeout_s is None else timeout_s
        return _run_bounded([partial(each.force_flush, int(timeout_s * 1000)) for each in self._providers], timeout_s)

    @property
    def _providers(self) -> list[Any]:
        every = (self.tracer_provider, self.meter_provider, self.logger_provider)
        return [each for each in every if each is not None]

    @property
    def lost_spans(self) -> int:
        """Number of spans of this process that the collector has not received.

        Either too many spans waited for their export (`OTEL_BSP_MAX_QUEUE_SIZE`), or the collector did not accept them,
        or they ended after the shutdown. The process also logs the number, at most every ten seconds. Some of the spans
        are counted only at the shutdown.
        """
        return sum(each.lost_count for each in self._span_processors)

    def shutdown(self, timeout_s: float | None = None) -> bool:
        """Send all pending spans, metrics and log records, and stop exporting permanently. Further calls do nothing.

        The end of the process calls it.

        Args:
            timeout_s: Maximum wait in seconds; None: `flush_timeout_s`.

        Returns:
            False if it was not finished in time or failed.
        """
        timeout_s = flush_timeout_s() if timeout_s is None else timeout_s
        with self._lock:
            if self._is_shut_down:
                return True
            self._is_shut_down = True
        return _shut_down(self._providers, timeout_s)


def configure(service_name: str | None = None, service_version: str | None = None) -> TelemetryHandle:
    """Set up the export of this process's traces, metrics and logs over OTLP, as the `OTEL_*` variables say.

    Log records reach the exporter through a handler of the root logger. Call this function after
    `logging.config.dictConfig`, which may remove the handler.

    Only the first call has an effect; later calls return the same handle. If the program has already set up a provider,
    that provider stays, and the handle does not flush or shut it down.

    Args:
        service_name: Name of the service, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` gives one.
        service_version: Version of the service, unless `OTEL_RESOURCE_ATTRIBUTES` gives one.

    Returns:
        A handle to flush or shut down what was set up.

    Raises:
        ConfigurationError: The SDK or an exporter is not installed, or the environment names an unknown exporter or
            protocol. Nothing was set up.
    """
    global _handle
    with _lock:
        if _handle is None:
            _handle = TelemetryHandle() if _is_disabled() else _set_up(service_name, service_version)
            atexit.register(_handle.shutdown)
        return _handle


def flush_timeout_s() -> float:
    """Return the maximum seconds that a process waits for a collector when it ends.

    The value is `OTEL_EXPORTER_OTLP_TIMEOUT`, in seconds as the exporters of Python read it, and at most `FLUSH_MAX_S`.
    """
    try:
        timeout_s = float(os.environ.get("OTEL_EXPORTER_OTLP_TIMEOUT", ""))
    except ValueError:
        return FLUSH_MAX_S
    return min(timeout_s, FLUSH_MAX_S) if timeout_s > 0 else FLUSH_MAX_S


def flush_at_end(share: float = 1.0) -> None:
    """Send pending spans, metrics and log records at the end of a process, and stop exporting. Nothing is sent at exit.

    All providers share one timeout. Otherwise, each provider that OpenTelemetry's launcher has set up would wait at
    exit, one after the other, until its exporter stops retrying.

    Args:
        share: Fraction of `flush_timeout_s` that this process may use, because several processes end in sequence.
    """
    providers = _providers()
    if not providers:
        return
    timeout_s = flush_timeout_s() * share
    _logger.info("sending telemetry, for up to %gs", timeout_s)
    for each in providers:
        atexit.unregister(each.shutdown)
    if _handle is not None:
        atexit.unregister(_handle.shutdown)
    for handler in [each for each in logging.getLogger().handlers if is_log_exporter(each)]:
        logging.getLogger().removeHandler(handler)  # it would complain about each record of the last lines
    if not _shut_down(providers, timeout_s):
        spans = 0 if _handle is None else sum(each.unsent_count for each in _handle._span_processors)
        _logger.warning("telemetry was not sent within %gs and is dropped, including %d spans", timeout_s, spans)


def is_log_exporter(handler: logging.Handler) -> bool:
    """Return whether a handler sends log records to OpenTelemetry, and so writes nothing that a person reads."""
    return type(handler).__module__.startswith("opentelemetry.")


def _providers() -> list[Any]:
    """Return the providers of traces, metrics and logs that the SDK is configured with."""
    found = (switch.tracer_provider(), switch.meter_provider(), _logs.get_logger_provider())
    return [each for each in found if is_sdk(each)]


def _shut_down(providers: Sequence[Any], timeout_s: float) -> bool:
    """Shut down providers within one timeout. This sends what is pending, metrics once."""
    if not providers:
        return True  # the SDK may not be installed
    from opentelemetry.sdk.metrics import MeterProvider

    # Only the provider of metrics takes a timeout.
    calls = [
        partial(each.shutdown, timeout_s * 1000) if isinstance(each, MeterProvider) else each.shutdown
        for each in providers
    ]
    return _run_bounded(calls, timeout_s)


def _set_up(service_name: str | None, service_version: str | None) -> TelemetryHandle:
    try:
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
        from opentelemetry.sdk.trace import TracerProvider

        from taskq_core.telemetry.span_export import CountingSpanProcessor
    except ImportError as exc:
        raise ConfigurationError(f"the OpenTelemetry SDK is not installed; {_INSTALL}") from exc

    wants_traces = _is_free(switch.tracer_provider(), "traces")
    wants_metrics = _is_free(switch.meter_provider(), "metrics")
    span_exporters = _exporters("traces") if wants_traces else []
    metric_exporters = _exporters("metrics") if wants_metrics else []
    log_exporters = _exporters("logs") if _is_free(_logs.get_logger_provider(), "logs") else []
    resource = _resource(service_name, service_version)

    handle = TelemetryHandle()
    if span_exporters:
        # At exit, `shutdown_on_exit` would wait for the exporter without a limit. `TelemetryHandle.shutdown` has a
        # limit.
        handle.tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        for exporter in span_exporters:
            processor = CountingSpanProcessor(exporter)
            handle.tracer_provider.add_span_processor(processor)
            handle._span_processors.append(processor)
        trace.set_tracer_provider(handle.tracer_provider)
    if metric_exporters:
        readers: list[MetricReader] = []
        sparse = SparseHistograms() if _exports_buckets(metric_exporters) else None
        for exporter in metric_exporters:
            # A pull exporter, such as the one of Prometheus, is already a reader.
            made = exporter() if sparse is None else sparse.exporter(exporter)
            readers.append(made if isinstance(made, MetricReader) else PeriodicExportingMetricReader(made))
        handle.meter_provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        if sparse is not None:
            sparse_histograms[handle.meter_provider] = sparse
        metrics.set_meter_provider(handle.meter_provider)
    if log_exporters:
        handle.logger_provider = LoggerProvider(resource, shutdown_on_exit=False)
        for exporter in log_exporters:
            handle.logger_provider.add_log_record_processor(BatchLogRecordProcessor(exporter()))
        _logs.set_logger_provider(handle.logger_provider)
        logging.getLogger().addHandler(_log_handler(handle.logger_provider))
    return handle


def _log_handler(provider: Any) -> logging.Handler:
    """Return OpenTelemetry's handler for log records. Newer SDKs move it to another package."""
    try:
        handlers: Any = importlib.import_module("opentelemetry.instrumentation.logging.handler")
    except ImportError:
        handlers = importlib.import_module("opentelemetry.sdk._logs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        handler: logging.Handler = handlers.LoggingHandler(logger_provider=provider)
    # An export that fails is logged. This record must not be exported in turn.
    handler.addFilter(lambda record: not record.name.startswith("opentelemetry."))
    return handler


def _is_disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _is_free(provider: object, signal: str) -> bool:
    if is_sdk(provider):
        _logger.info("OpenTelemetry %s were already set up; taskq does not change them", signal)
        return False
    return True


def _resource(service_name: str | None, service_version: str | None) -> "Resource":
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    from_environment = OTELResourceDetector().detect().attributes
    given = {
        "service.name": service_name,
        "service.version": service_version,
        "service.instance.id": str(uuid.uuid4()),  # the metrics of two workers need different ids
    }
    return Resource.create(
        {name: value for name, value in given.items() if value is not None and name not in from_environment}
    )


def _exporters(signal: str) -> list[Callable[[], Any]]:
    """Return the exporter classes of a signal (traces, metrics or logs), as OpenTelemetry's launcher finds them."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    wanted = [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()] or ["otlp"]
    if "none" in wanted:
        return []
    return [_load(signal, _otlp(signal) if name == "otlp" else name, variable) for name in dict.fromkeys(wanted)]


def _otlp(signal: str) -> str:
    general = "OTEL_EXPORTER_OTLP_PROTOCOL"
    special = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
    variable = special if os.environ.get(special, "").strip() else general
    protocol = os.environ.get(variable, "").strip() or "http/protobuf"
    if protocol not in _PROTOCOLS:
        known = " or ".join(repr(name) for name in _PROTOCOLS)
        raise ConfigurationError(f"{variable} must be {known}, got {protocol!r}")
    return _PROTOCOLS[protocol]


def _exports_buckets(exporters: Sequence[Callable[[], Any]]) -> bool:
    """Return whether metrics have one exporter, which exports histograms over OTLP with taskq's buckets."""
    aggregation = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "")
    is_otlp = [getattr(each, "__module__", "").startswith("opentelemetry.exporter.otlp.") for each in exporters]
    return is_otlp == [True] and aggregation.strip().lower() in ("", "explicit_bucket_histogram")


def _load(signal: str, name: str, variable: str) -> Callable[[], Any]:
    installed = {entry.name: entry for entry in entry_points(group=f"opentelemetry_{signal}_exporter")}
    try:
        loaded: Callable[[], Any] = installed[name].load()
    except KeyError:
        if name in _PROTOCOLS.values():
            raise ConfigurationError(f"the OpenTelemetry exporter {name!r} is not installed; {_INSTALL}") from None
        raise ConfigurationError(
            f"{variable} names an exporter that is not installed: {name!r}; installed: {sorted({*installed, 'none'})}"
        ) from None
    except ImportError as exc:
        raise ConfigurationError(f"the OpenTelemetry exporter {name!r} cannot be imported; {_INSTALL}") from exc
    return loaded


def _run_bounded(calls: list[Callable[[], object]], timeout_s: float) -> bool:
    """Run functions concurrently in threads.

    Wait at most `timeout_s` for them, even if their own timeouts are longer.
    """
    answers: list[bool] = []

    def run(call: Callable[[], object]) -> None:
        try:
            answers.append(call() is not False)  # None, which `shutdown` returns, means success
        except Exception:
            _logger.warning("OpenTelemetry could not send all pending telemetry", exc_info=True)

    deadline = time.monotonic() + timeout_s
    threads: list[threading.Thread] = []
    for call in calls:
        thread = threading.Thread(target=run, args=(call,), name="taskq-otel-flush", daemon=True)
        try:
            thread.start()
            threads.append(thread)
        except RuntimeError:  # some Python versions refuse to start a thread while the interpreter exits
            run(call)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return len(answers) == len(calls) and all(answers)
