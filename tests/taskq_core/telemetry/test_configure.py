import http.server
import importlib
import logging
import math
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider

from taskq_core import TaskContext
from taskq_core.errors import ConfigurationError
from taskq_core.execution.context import current
from taskq_core.execution.logs import complete_exported_logs
from taskq_core.supervisor.config import MEMBER_SHARE
from taskq_core.telemetry import RunOutcome, Tracing, WorkerMetrics, configure, flush_at_end, is_log_exporter

module = importlib.import_module("taskq_core.telemetry.configure")  # the package gives the function under this name


@pytest.fixture(autouse=True)
def fresh(clean_globals: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that was not configured, in an environment that says nothing and exports nothing."""
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    monkeypatch.setattr(module, "_handle", None)
    registered: list[object] = []
    monkeypatch.setattr(module.atexit, "register", registered.append)
    yield
    if module._handle is not None:
        module._handle.shutdown(1)


class Receiver:
    """An OTLP collector on a free loopback port. It keeps the received data, and does not reply while it holds."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self.status = 200
        self.release = threading.Event()
        self.release.set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, body))
                receiver.release.wait(30)
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def export_to(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.delenv("OTEL_TRACES_EXPORTER")
    monkeypatch.delenv("OTEL_METRICS_EXPORTER")


def service(provider: object) -> tuple[object, object]:
    attributes = provider.resource.attributes  # type: ignore[attr-defined] # a provider of the SDK
    return attributes.get("service.name"), attributes.get("service.version")


def test_spans_and_metrics_reach_the_collector(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    export_to(receiver, monkeypatch)
    handle = configure("shop", "1.2")
    metrics.get_meter("test").create_counter("things").add(1)
    Tracing().start_producer("low", "email:deliver", "id-1").end()

    flushed = handle.force_flush(60)

    bodies = dict(receiver.requests)
    sent = ExportTraceServiceRequest.FromString(bodies["/v1/traces"])
    resource = {a.key: a.value.string_value for a in sent.resource_spans[0].resource.attributes}
    assert flushed is True
    assert sent.resource_spans[0].scope_spans[0].spans[0].name == "send low"
    assert (resource["service.name"], resource["service.version"]) == ("shop", "1.2")
    assert b"things" in bodies["/v1/metrics"]


def test_a_silent_collector_delays_neither_spans_nor_flush_nor_shutdown(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.release.clear()
    export_to(receiver, monkeypatch)
    handle = configure()
    Tracing().start_producer("low").end()

    flushed = handle.force_flush(0.2)
    stopped = handle.shutdown(0.2)

    assert (flushed, stopped) == (False, False)
    assert handle.shutdown() is True


def test_the_second_call_returns_the_first_handle() -> None:
    assert configure("a") is configure("b")


def test_the_environment_overrides_arguments(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    export_to(receiver, monkeypatch)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-env")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=9")

    handle = configure("from-code", "1")

    assert service(handle.tracer_provider) == ("from-env", "9")


def test_arguments_apply_where_the_environment_is_unset(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    export_to(receiver, monkeypatch)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=from-env")

    handle = configure("from-code", "1")

    assert service(handle.tracer_provider) == ("from-env", "1")


def test_the_exporter_none_configures_nothing() -> None:
    handle = configure()

    assert (handle.tracer_provider, handle.meter_provider, Tracing().is_active) == (None, None, False)
    assert (handle.force_flush(), handle.shutdown()) == (True, True)


def test_a_disabled_sdk_configures_nothing_even_with_invalid_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", " True ")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nonsense")

    handle = configure()

    assert handle.tracer_provider is None


def test_an_existing_provider_is_kept_unchanged(
    provider: TracerProvider, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace.set_tracer_provider(provider)
    export_to(receiver, monkeypatch)

    handle = configure()

    assert trace.get_tracer_provider() is provider
    assert handle.tracer_provider is None
    assert handle.meter_provider is metrics.get_meter_provider()


@pytest.mark.parametrize(
    ("signal", "protocol", "package"),
    [
        ("traces", "http/protobuf", "opentelemetry.exporter.otlp.proto.http.trace_exporter"),
        ("traces", "grpc", "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"),
        ("metrics", "grpc", "opentelemetry.exporter.otlp.proto.grpc.metric_exporter"),
    ],
)
def test_the_protocol_determines_the_exporter(
    monkeypatch: pytest.MonkeyPatch, signal: str, protocol: str, package: str
) -> None:
    monkeypatch.setenv(f"OTEL_{signal.upper()}_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "nonsense")
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", protocol)

    (exporter,) = module._exporters(signal)

    assert exporter.__module__ == package


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            "OTEL_EXPORTER_OTLP_PROTOCOL must be 'http/protobuf' or 'grpc', got 'http/json'",
        ),
        ("OTEL_TRACES_EXPORTER", "zipkinn", "OTEL_TRACES_EXPORTER names an exporter that is not installed: 'zipkinn'"),
    ],
)
def test_an_invalid_environment_is_refused_and_nothing_is_configured(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as caught:
        configure()

    assert str(caught.value).startswith(message)
    assert Tracing().is_active is False


def test_a_missing_sdk_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(ConfigurationError) as caught:
        configure()

    assert str(caught.value) == (
        "the OpenTelemetry SDK is not installed; install it with: pip install 'taskq-asynq[otel]'"
    )


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The timeouts in seconds within which providers were shut down."""
    allowed: list[float] = []
    run_bounded = module._run_bounded

    def run(calls: list[Any], timeout_s: float) -> bool:
        allowed.append(timeout_s)
        return bool(run_bounded(calls, timeout_s))

    monkeypatch.setattr(module, "_run_bounded", run)
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    return allowed


@pytest.mark.parametrize(("setting", "allowed_s"), [("2", 2), ("0.5", 0.5), ("60", 8), (None, 8), ("0", 8), ("10s", 8)])
def test_the_end_has_the_timeout_of_the_exporters_and_at_most_8_seconds(
    monkeypatch: pytest.MonkeyPatch, allowed: list[float], setting: str | None, allowed_s: float
) -> None:
    if setting is not None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", setting)

    flush_at_end()

    assert allowed == [allowed_s]


def test_a_supervisor_and_its_processes_share_the_time_of_the_end(
    monkeypatch: pytest.MonkeyPatch, allowed: list[float]
) -> None:
    """The processes end at the same time, and the supervisor after them."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")

    flush_at_end(MEMBER_SHARE)
    flush_at_end(1 - MEMBER_SHARE)

    assert len(allowed) == 2
    assert sum(allowed) == pytest.approx(8)


def test_records_reach_the_collector_with_the_fields_of_their_task(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.delenv("OTEL_LOGS_EXPORTER")
    handle = configure("shop")
    complete_exported_logs()
    token = current.set(TaskContext(id="id-1", name="shop:greet", queue="low", retried=2))

    logging.getLogger("shop").warning("said hello")
    current.reset(token)
    logging.getLogger("opentelemetry.sdk").warning("not exported")
    flush_at_end()

    (body,) = [body for path, body in receiver.requests if path == "/v1/logs"]
    (record,) = ExportLogsServiceRequest.FromString(body).resource_logs[0].scope_logs[0].log_records
    attributes = {each.key: each.value for each in record.attributes}
    assert record.body.string_value == "said hello"
    assert attributes["task_id"].string_value == "id-1"
    assert attributes["task_name"].string_value == "shop:greet"
    assert attributes["attempt"].int_value == 3
    assert handle.logger_provider is not None
    assert not [each for each in logging.getLogger().handlers if is_log_exporter(each)]


def received_spans(receiver: Receiver) -> int:
    traces = [ExportTraceServiceRequest.FromString(body) for path, body in receiver.requests if path == "/v1/traces"]
    return sum(len(scope.spans) for each in traces for part in each.resource_spans for scope in part.scope_spans)


class TestLostSpans:
    @pytest.fixture(autouse=True)
    def small_queue(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        export_to(receiver, monkeypatch)
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")

    def test_spans_that_find_the_queue_full_are_counted_and_logged(
        self, receiver: Receiver, caplog: pytest.LogCaptureFixture
    ) -> None:
        receiver.release.clear()
        handle = configure()
        tracing = Tracing()

        for _ in range(50):
            tracing.start_producer("low").end()
        receiver.release.set()
        handle.shutdown(60)

        logged = [
            int(record.getMessage().split()[0]) for record in caplog.records if record.name.endswith("span_export")
        ]
        assert handle.lost_spans >= 50 - 8 - 4
        assert received_spans(receiver) + handle.lost_spans == 50
        assert sum(logged) == handle.lost_spans

    def test_a_span_that_the_collector_refuses_or_that_ends_too_late_is_counted(self, receiver: Receiver) -> None:
        receiver.status = 400
        handle = configure()
        tracing = Tracing()
        late = tracing.start_producer("low")
        tracing.start_producer("low").end()

        handle.force_flush(60)
        refused = handle.lost_spans
        handle.shutdown(60)
        late.end()

        assert (refused, handle.lost_spans) == (1, 2)

    def test_no_span_is_lost_if_the_queue_has_room(self, receiver: Receiver) -> None:
        handle = configure()
        tracing = Tracing()

        for _ in range(20):
            tracing.start_producer("low").end()
            handle.force_flush(60)

        assert (received_spans(receiver), handle.lost_spans) == (20, 0)


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_exported_durations_are_those_of_an_sdk_that_gets_each(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, provider: TracerProvider, temporality: str
) -> None:
    export_to(receiver, monkeypatch)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", temporality)
    handle = configure()
    exporter = Exported(OTLPMetricExporter()._preferred_temporality)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
    plain = MeterProvider([reader], shutdown_on_exit=False)
    workers = [WorkerMetrics(), WorkerMetrics(meter_provider=plain)]
    span = Tracing(tracer_provider=provider).start_producer("low")

    for durations in ([0.2, 0.002, 0.3, 0.001, 7.0], [], [0.2, 0.25, 400.0, 0.21, 500.0]):
        for worker in workers:
            for number, duration_s in enumerate(durations):
                name = ("email", "report")[number % 2]
                worker.record("low", name, RunOutcome.COMPLETED, duration_s)
                worker.record("low", name, RunOutcome.COMPLETED, duration_s, context=span.context)
                worker.waited("low", name, duration_s / 3)
        handle.force_flush(60)
        plain.force_flush()

    bodies = [body for path, body in receiver.requests if path == "/v1/metrics"]
    found = [point for body in bodies for point in histogram_points(ExportMetricsServiceRequest.FromString(body))]
    expected = [point for request in exporter.requests for point in histogram_points(request)]
    assert [values for values, _ in found] == [values for values, _ in expected]
    assert {len(exemplars) for _, exemplars in found} >= {1, 2}
    assert {trace for _, exemplars in found for trace in exemplars} == {
        span.span_context.trace_id.to_bytes(16, "big"),
    }
    plain.shutdown()


class Exported(MetricExporter):
    """Keeps what a reader exports, as it would be sent."""

    def __init__(self, temporality: Any) -> None:
        super().__init__(preferred_temporality=temporality)
        self.requests: list[ExportMetricsServiceRequest] = []

    def export(self, metrics_data: Any, timeout_millis: float = 10_000, **options: Any) -> MetricExportResult:
        self.requests.append(encode_metrics(metrics_data))
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **options: Any) -> None: ...


def histogram_points(request: ExportMetricsServiceRequest) -> list[tuple[Any, list[bytes]]]:
    """Of each point: its name, labels, temporality and values, and the traces of its exemplars."""
    scopes = [scope for resource in request.resource_metrics for scope in resource.scope_metrics]
    return [
        (
            (
                metric.name,
                sorted((each.key, each.value.string_value) for each in point.attributes),
                metric.histogram.aggregation_temporality,
                (point.count, pytest.approx(point.sum), point.min, point.max),
                (tuple(point.bucket_counts), tuple(point.explicit_bounds)),
            ),
            [each.trace_id for each in point.exemplars],
        )
        for metric in sorted((each for scope in scopes for each in scope.metrics), key=lambda each: each.name)
        for point in metric.histogram.data_points
    ]
