"""A task that runs inside a test continues the trace of the code that enqueued it, as in a worker."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskq_core import TaskQ
from taskq_core.testing import capture, eager


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def names_by_parent(exporter: InMemorySpanExporter) -> dict[str, str | None]:
    """Names of all spans, each with its parent's."""
    spans = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans}
    return {span.name: None if span.parent is None else names[span.parent.span_id] for span in spans}


EXPECTED = {
    "request": None,
    "send default": "request",
    "process default": "send default",
    "inside": "process default",
}


def test_from_blocking_code(taskq: TaskQ, exporter: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer("test")

    @taskq.task(name="note")
    def note() -> None:
        tracer.start_span("inside").end()

    with eager(taskq), tracer.start_as_current_span("request"):
        note.delay()

    assert names_by_parent(exporter) == EXPECTED


async def test_from_coroutines(taskq: TaskQ, exporter: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer("test")

    @taskq.task(name="note")
    async def note() -> None:
        tracer.start_span("inside").end()

    with capture(taskq) as tasks:
        with tracer.start_as_current_span("request"):
            await note.adelay()
        await tasks.arun()

    assert names_by_parent(exporter) == EXPECTED
    assert "traceparent" in tasks.enqueued[0].headers


def test_a_failure_stands_on_its_span(taskq: TaskQ, exporter: InMemorySpanExporter) -> None:
    @taskq.task(name="fail")
    def fail() -> None:
        raise ValueError("no")

    with eager(taskq, raises=False):
        fail.delay()

    (span,) = (each for each in exporter.get_finished_spans() if each.name == "process default")
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ValueError"
