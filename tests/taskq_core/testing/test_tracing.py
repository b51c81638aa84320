"""A task that runs inside a test continues the trace of the code that enqueued it, as in a worker."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskq_core import TaskQ, Workflow, chord
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


def test_blocking_code_runs_tasks_in_one_trace(taskq: TaskQ, exporter: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer("test")

    @taskq.task(name="note")
    def note() -> None:
        tracer.start_span("inside").end()

    with eager(taskq), tracer.start_as_current_span("request"):
        note.delay()

    assert names_by_parent(exporter) == EXPECTED


async def test_coroutines_run_tasks_in_one_trace(taskq: TaskQ, exporter: InMemorySpanExporter) -> None:
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


def test_a_failure_is_recorded_on_its_span(taskq: TaskQ, exporter: InMemorySpanExporter) -> None:
    @taskq.task(name="fail")
    def fail() -> None:
        raise ValueError("no")

    with eager(taskq, raises=False):
        fail.delay()

    (span,) = (each for each in exporter.get_finished_spans() if each.name == "process default")
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ValueError"


def test_a_workflow_is_one_trace_with_links_where_steps_join(taskq: TaskQ, exporter: InMemorySpanExporter) -> None:
    @taskq.task(name="add")
    def add(a: int, b: int = 0) -> int:
        return a + b

    @taskq.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    workflow = Workflow().step("a", add.s(1)).step("b", add.s(2)).step("join", add.s(), after=["a", "b"])
    with eager(taskq), trace.get_tracer("test").start_as_current_span("request"):
        handle = workflow.delay()
        chorded = chord([add.s(1), add.s(2)], total.s()).delay()

    spans = exporter.get_finished_spans()
    assert len({span.context.trace_id for span in spans}) == 1
    runs = {str(span.attributes["messaging.message.id"]): span for span in spans if span.name == "process default"}
    assert len(runs) == 3 + 3
    of_a, of_b, joined = (runs[f"{handle.id}.{name}"] for name in ("a", "b", "join"))
    own, last, *sends = (link.context.span_id for link in joined.links)
    assert own == joined.parent.span_id
    assert last == of_b.context.span_id  # it enqueued the join
    assert set(sends) == {of_a.parent.span_id, of_b.parent.span_id}
    member, callback = runs[f"{chorded.id}.add-group.1"], runs[f"{chorded.id}.total"]
    assert [link.context.span_id for link in callback.links] == [
        callback.parent.span_id,
        member.context.span_id,
        member.parent.span_id,
    ]
    assert [link.context.span_id for link in of_a.links] == [of_a.parent.span_id]
