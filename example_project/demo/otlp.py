"""Receive traces over OTLP, as a collector does, and join their spans to trees.

This module uses only the exported spans, so a trace that it shows does not depend on other data of the demo.
"""

import gzip
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self, TypeVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span, as its process exported it."""

    trace_id: str
    id: str
    parent_id: str
    """Id of the parent span, "" for a root span."""
    name: str
    kind: str
    """server, producer, consumer, client or internal."""
    service: str
    """Name of the process that exported the span."""
    attributes: Mapping[str, str]
    """Attributes whose values are text."""
    start_ns: int
    end_ns: int
    has_failed: bool

    @property
    def duration_ms(self) -> float:
        """Duration in milliseconds."""
        return (self.end_ns - self.start_ns) / 1e6


class Traces:
    """Stores all received spans."""

    def __init__(self) -> None:
        self._spans: dict[str, Span] = {}
        self._arrival = threading.Condition()

    def add(self, request: ExportTraceServiceRequest) -> None:
        """Add the spans of one export request."""
        with self._arrival:
            for span in _read(request):
                self._spans[span.id] = span
            self._arrival.notify_all()

    def wait_for(self, find: Callable[[Self], T | None], timeout_s: float) -> T | None:
        """Call `find` each time spans arrive, until it returns a value. Return the value, or None after the timeout."""
        deadline = time.monotonic() + timeout_s
        with self._arrival:
            while (found := find(self)) is None and (left := deadline - time.monotonic()) > 0:
                self._arrival.wait(left)
            return found

    def find(self, kind: str, attributes: Mapping[str, str]) -> Span | None:
        """Return a span of this kind with these attributes, or None."""
        spans = (span for span in self._spans.values() if span.kind == kind)
        return next((span for span in spans if attributes.items() <= span.attributes.items()), None)

    def ancestors(self, span: Span) -> list[Span]:
        """Return the received ancestors of a span, its parent first."""
        found = []
        while (parent := self._spans.get(span.parent_id)) is not None and parent.trace_id == span.trace_id:
            found.append(parent)
            span = parent
        return found

    def children(self, span: Span) -> list[Span]:
        """Return the received child spans of a span, earliest first."""
        below = (s for s in self._spans.values() if s.trace_id == span.trace_id and s.parent_id == span.id)
        return sorted(below, key=lambda s: s.start_ns)

    def tree(self, trace_id: str) -> Iterator[tuple[int, Span]]:
        """Yield the spans of a trace as (depth, span), each span before its children."""

        def walk(span: Span, depth: int) -> Iterator[tuple[int, Span]]:
            yield depth, span
            for child in self.children(span):
                yield from walk(child, depth + 1)

        spans = [span for span in self._spans.values() if span.trace_id == trace_id]
        for root in sorted(spans, key=lambda s: s.start_ns):
            if root.parent_id not in self._spans:
                yield from walk(root, 0)


def _read(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        resource_attributes = _texts(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    trace_id=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    name=span.name,
                    kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    service=resource_attributes.get("service.name", ""),
                    attributes=_texts(span.attributes),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    has_failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                )


def _texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return {each.key: each.value.string_value for each in attributes if each.value.HasField("string_value")}


class Receiver:
    """Runs an OTLP/HTTP receiver on a free port of this machine during a `with` block.

    Attributes:
        traces: The received traces.
        url: The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    """

    def __init__(self) -> None:
        self.traces = Traces()
        traces = self.traces

        class Handler(BaseHTTPRequestHandler):
            """Accepts exports of traces, and rejects all other requests."""

            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Handle an export request."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/traces":
                    traces.add(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="otlp-receiver", daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
