"""Test the link between a task and its request: the task joins the trace, but outlives the request."""

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import ASGITransport
from httpx import AsyncClient as HttpClient
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from taskq_core import TaskQ
from taskq_core.telemetry.propagation import TRACEPARENT
from taskq_core.wire import decode_message
from taskq_fastapi import ClientDep, SyncClientDep, taskq_lifespan
from tests.redis_server import RedisServer
from tests.taskq_fastapi.looking import connections, pending

pytestmark = pytest.mark.redis


def note_app(taskq: TaskQ) -> FastAPI:
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    note = taskq.remote("note")

    @app.post("/notes/{task_id}")
    async def create(task_id: str, client: ClientDep) -> str:
        return (await client.enqueue(note.using(task_id=task_id).s())).id

    @app.post("/notes-blocking/{task_id}")
    def create_blocking(task_id: str, client: SyncClientDep) -> str:
        return client.enqueue(note.using(task_id=task_id).s()).id

    return app


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Collect the spans that end in this test, with an SDK configured only for this test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


@pytest.mark.parametrize("path", ["/notes/1", "/notes-blocking/1"])
def test_a_task_belongs_to_the_trace_of_its_request(
    server: RedisServer, taskq: TaskQ, spans: InMemorySpanExporter, path: str
) -> None:
    """The header of the task names the producer span, which is a descendant of the HTTP server span."""
    app = note_app(taskq)
    FastAPIInstrumentor.instrument_app(app)

    with TestClient(app) as web:
        web.post(path)

    message = decode_message(server.command("HGET", "asynq:{default}:t:1", "msg"))
    _, trace_id, span_id, _ = message.headers[TRACEPARENT].split("-")
    by_id = {span.context.span_id: span for span in spans.get_finished_spans()}
    producer = by_id[int(span_id, 16)]
    assert (producer.name, producer.kind) == ("send default", SpanKind.PRODUCER)
    root = root_of(producer, by_id)
    assert (root.kind, root.attributes["http.route"]) == (SpanKind.SERVER, path.replace("1", "{task_id}"))
    assert root.context.trace_id == int(trace_id, 16)


def root_of(span: ReadableSpan, by_id: dict[int, Any]) -> Any:
    while span.parent is not None:
        span = by_id[span.parent.span_id]
    return span


async def test_a_task_survives_the_end_of_its_request(
    server: RedisServer, taskq: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is cancelled during the enqueue still enqueues its task and leaks no connection."""
    app = note_app(taskq)
    async with (
        app.router.lifespan_context(app),
        HttpClient(transport=ASGITransport(app), base_url="http://test") as web,
    ):
        await web.post("/notes/before")  # the queue is registered now, so the next command is the enqueue
        sending = asyncio.Event()
        exchange = taskq.runtime.async_runner.run

        async def run(*arguments: Any, **options: Any) -> Any:
            sending.set()
            return await exchange(*arguments, **options)

        monkeypatch.setattr(taskq.runtime.async_runner, "run", run)
        server.pause()
        try:
            request = asyncio.create_task(web.post("/notes/abandoned"))
            await sending.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
        finally:
            server.resume()
        await web.post("/notes/after")

        async with asyncio.timeout(30):
            while len(pending(server)) < 3:  # noqa: ASYNC110 - Redis sends no notification here
                await asyncio.sleep(0)

    assert sorted(pending(server)) == ["abandoned", "after", "before"]
    assert await asyncio.to_thread(connections, server, expected=0) == 0
