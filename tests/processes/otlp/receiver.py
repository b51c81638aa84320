"""An OTLP receiver for gRPC and HTTP that stores all data."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc

PATIENCE_S = 60.0
KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")


@dataclass(frozen=True, slots=True)
class Span:
    """A received span.

    Attributes:
        service: Name of the service that sent it.
        links: Ids of the linked spans.
        is_error: Whether its status is an error.
        scope: Name of the instrumentation.
        schema: URL of its semantic conventions.
    """

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    events: tuple[dict[str, Any], ...]
    is_error: bool
    scope: str
    schema: str


@dataclass(frozen=True, slots=True)
class Point:
    """A received value of a metric; for a histogram, the number of records."""

    service: str
    name: str
    unit: str
    attributes: dict[str, Any]
    value: float
    bounds: tuple[float, ...]
    exemplars: tuple[str, ...]


class OtlpReceiver:
    """Listens on two ports of this machine.

    Attributes:
        grpc_url, http_url: URLs of the receiver.
        raw: Bytes of all received messages.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._traces: list[Any] = []
        self._metrics: list[Any] = []
        self._logs: list[Any] = []
        self.raw: list[bytes] = []
        self._grpc = grpc.server(ThreadPoolExecutor(4))
        for stubs, signal, messages in (
            (traces_grpc, "Trace", traces.ExportTraceServiceResponse),
            (metrics_grpc, "Metrics", metrics.ExportMetricsServiceResponse),
            (logs_grpc, "Logs", logs.ExportLogsServiceResponse),
        ):
            add = getattr(stubs, f"add_{signal}ServiceServicer_to_server")
            add(_servicer(getattr(stubs, f"{signal}ServiceServicer"), messages, self._keep), self._grpc)
        port = self._grpc.add_insecure_port("127.0.0.1:0")
        self.grpc_url = f"http://127.0.0.1:{port}"
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._keep))
        self.http_url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._grpc.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._grpc.stop(0).wait()
        self._http.shutdown()
        self._http.server_close()

    def _keep(self, message: Any) -> None:
        with self._lock:
            self.raw.append(message.SerializeToString())
            if isinstance(message, traces.ExportTraceServiceRequest):
                self._traces.append(message)
            elif isinstance(message, metrics.ExportMetricsServiceRequest):
                self._metrics.append(message)
            elif isinstance(message, logs.ExportLogsServiceRequest):
                self._logs.append(message)

    @property
    def spans(self) -> list[Span]:
        """All received spans."""
        with self._lock:
            return [span for message in self._traces for span in _spans(message)]

    @property
    def points(self) -> list[Point]:
        """All received values of metrics."""
        with self._lock:
            return [point for message in self._metrics for point in _points(message)]

    @property
    def logged(self) -> list[str]:
        """Texts of all received log records."""
        with self._lock:
            found = [scope for message in self._logs for each in message.resource_logs for scope in each.scope_logs]
        return [record.body.string_value for scope in found for record in scope.log_records]

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until a condition on the received data is true, and return its value."""
        deadline = time.monotonic() + PATIENCE_S
        while not (value := condition()):
            assert time.monotonic() < deadline, (
                f"not within {PATIENCE_S:g} s: {what}; got {[s.name for s in self.spans]}"
            )
            time.sleep(0.02)
        return value


def _servicer(base: Any, answer: Any, keep: Callable[[Any], None]) -> Any:
    def export(self: Any, request: Message, context: Any) -> Message:
        keep(request)
        found: Message = answer()
        return found

    return type("Servicer", (base,), {"Export": export})()


def _handler(keep: Callable[[Any], None]) -> type[BaseHTTPRequestHandler]:
    kinds: dict[str, tuple[Any, Any]] = {
        "/v1/traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
        "/v1/metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
        "/v1/logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            request, response = kinds[self.path]
            keep(request.FromString(body))
            answer = response().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    return Handler


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value") or "string_value"
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)


def _spans(message: Any) -> Iterator[Span]:
    for resource in message.resource_spans:
        service = _values(resource.resource.attributes).get("service.name", "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    service,
                    span.name,
                    KINDS[span.kind],
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    _values(span.attributes),
                    tuple(link.span_id.hex() for link in span.links),
                    tuple({"name": event.name, **_values(event.attributes)} for event in span.events),
                    span.status.code == 2,
                    scope.scope.name,
                    scope.schema_url,
                )


def _points(message: Any) -> Iterator[Point]:
    for resource in message.resource_metrics:
        service = _values(resource.resource.attributes).get("service.name", "")
        for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
            data = getattr(metric, metric.WhichOneof("data"))
            for point in data.data_points:
                is_histogram = hasattr(point, "explicit_bounds")
                value = point.count if is_histogram else getattr(point, point.WhichOneof("value"))
                yield Point(
                    service,
                    metric.name,
                    metric.unit,
                    _values(point.attributes),
                    value,
                    tuple(point.explicit_bounds) if is_histogram else (),
                    tuple(each.trace_id.hex() for each in point.exemplars),
                )
