import http.server
import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider

from taskq_core import TaskContext
from taskq_core.errors import ConfigurationError
from taskq_core.execution.context import current
from taskq_core.execution.logs import complete_exported_logs
from taskq_core.supervisor.config import MEMBER_SHARE
from taskq_core.telemetry import Tracing, configure, flush_at_end, is_log_exporter

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
        self.release = threading.Event()
        self.release.set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, body))
                receiver.release.wait(30)
                self.send_response(200)
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
