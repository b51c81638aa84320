"""Test trace headers, spans and metrics of single and bulk enqueues, without Redis."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskq_core import EnqueueError, Signature, TaskQ
from taskq_core.broker.operations.new_tasks import NewTask
from taskq_core.broker.plans import run_plan
from taskq_core.client.bulk import BulkResult, batches
from taskq_core.client.circuit import Circuit
from taskq_core.client.preparer import Preparer
from taskq_core.client.sender import Sender, Wait
from taskq_core.settings import CircuitSettings
from taskq_core.telemetry import ClientMetrics, Tracing
from taskq_core.wire import Keys, TaskMessage, decode_message


class Recording:
    """A preparer whose spans and metrics the test can read."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")
        self.reader = InMemoryMetricReader()
        source: Any = SimpleNamespace(keys=Keys())
        self.preparer = Preparer(source, Tracing(tracer_provider=provider, server=("redis.example", 6379)))
        self.preparer.metrics = ClientMetrics(meter_provider=MeterProvider([self.reader], shutdown_on_exit=False))

    def spans(self) -> list[Any]:
        return [span for span in self.exporter.get_finished_spans() if span.kind is trace.SpanKind.PRODUCER]

    def counts(self, name: str) -> dict[tuple[Any, ...], Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        (metric,) = [each for each in data.resource_metrics[0].scope_metrics[0].metrics if each.name == name]
        return {
            tuple(sorted(map(str, point.attributes.values()))): getattr(point, "value", None) or point.count
            for point in metric.data.data_points
        }


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture
def call() -> Signature[Any]:
    return TaskQ().remote("t", headers={"tenant": "blue"}).s(a=1)


def read(task: NewTask) -> TaskMessage:
    return decode_message(task.message)


def test_a_single_enqueue_has_a_span_and_sends_its_trace_in_the_headers(
    recording: Recording, call: Signature[Any]
) -> None:
    with recording.tracer.start_as_current_span("http") as http:
        prepared = recording.preparer.prepare(call)
        recording.preparer.record_sent(prepared, None, 0.0)

    (span,) = recording.spans()
    headers = dict(read(prepared.task).headers)
    assert span.name == "send default"
    assert span.parent.span_id == http.get_span_context().span_id
    assert span.attributes["messaging.message.id"] == prepared.handle.id
    assert (span.attributes["server.address"], span.attributes["server.port"]) == ("redis.example", 6379)
    assert headers["tenant"] == "blue"
    assert headers["traceparent"].split("-")[1:3] == [
        f"{span.context.trace_id:032x}",
        f"{span.context.span_id:016x}",
    ]
    assert list(recording.counts("asynq.tasks.enqueued").values()) == [1]


def test_a_failed_enqueue_sets_the_error_of_its_span(recording: Recording, call: Signature[Any]) -> None:
    prepared = recording.preparer.prepare(call)

    recording.preparer.record_sent(prepared, EnqueueError("t", "default", prepared.handle.id, "no"), 0.0)

    (span,) = recording.spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    (labels,) = recording.counts("messaging.client.sent.messages")
    assert "taskq_core.errors.EnqueueError" in labels


def test_a_batch_has_a_span_and_each_task_sends_its_own_span(recording: Recording, call: Signature[Any]) -> None:
    """Tasks with and without headers behave the same."""
    plain = TaskQ().remote("u").s()
    other = TaskQ().remote("u", queue="other").s()
    sender = Sender(recording.preparer, Circuit(CircuitSettings(), address="redis"), {}, timeout_s=1)
    with recording.tracer.start_as_current_span("http") as http:
        found = list(batches(recording.preparer, [call, plain, call, other]))
        for batch in found:
            result = BulkResult(recording.preparer.handle)
            run_plan(sender.store_batch(batch, result, Wait(0)), lambda _, batch=batch: "1" * len(batch.tasks))

    sends = {span.name: span for span in recording.exporter.get_finished_spans() if span.name.startswith("send")}
    created = {span.attributes["messaging.message.id"]: span for span in recording.spans()}
    assert set(sends) == {"send default", "send other"}
    for batch in found:
        send = sends[f"send {batch.queue.name}"]
        assert send.parent is not None
        assert send.parent.span_id == http.get_span_context().span_id
        assert dict(send.attributes or {})["messaging.batch.message_count"] == len(batch.tasks)
        for task in batch.tasks:
            span = created[task.task_id]
            assert span.name == f"create {batch.queue.name}"
            assert span.parent.span_id == http.get_span_context().span_id
            assert read(task).headers["traceparent"].split("-")[2] == f"{span.context.span_id:016x}"
    assert [dict(read(task).headers).get("tenant") for task in found[0].tasks] == ["blue", None, "blue"]
    assert sorted(recording.counts("asynq.tasks.enqueued").values()) == [1, 1, 2]
    assert sum(recording.counts("messaging.client.operation.duration").values()) == 2


def test_baggage_over_the_limit_is_dropped_and_counted() -> None:
    """Each task with its own trace counts, and nothing is counted if the baggage fits."""
    recording = Recording()
    task = TaskQ().remote("t", queue="low", headers={"own": "x" * 7000})
    for size in (100, 2000):
        token = attach(baggage.set_baggage("user", "x" * size))
        try:
            one = recording.preparer.prepare(task.s())
            (many,) = batches(recording.preparer, [task.s() for _ in range(5)])
        finally:
            detach(token)
        for new in (one.task, *many.tasks):
            assert ("baggage" in read(new).headers) == (size == 100)
    assert recording.counts("asynq.client.baggage_cut") == {("low",): 6}


def test_an_invalid_call_starts_no_span(recording: Recording) -> None:
    taskq = TaskQ()

    @taskq.task(name="t")
    def task(a: int) -> None: ...

    with pytest.raises(TypeError):
        recording.preparer.prepare(task.s("x"))  # type: ignore[arg-type]  # the point of the test

    assert recording.spans() == []


@pytest.mark.parametrize("made", [lambda call: call.task, lambda call: call.task.name, lambda call: [call]])
def test_a_value_that_is_not_a_call_is_refused_with_its_type(
    recording: Recording, call: Signature[Any], made: Callable[[Signature[Any]], Any]
) -> None:
    """Both single and bulk enqueues refuse a task without `s()`, a task name and a list."""
    wrong = made(call)
    message = rf"a call such as task\.s\(\.\.\.\), got {type(wrong).__name__}$"

    with pytest.raises(TypeError, match=message):
        recording.preparer.prepare(wrong)
    with pytest.raises(TypeError, match=message):
        list(batches(recording.preparer, [call, wrong]))
