"""Test the data that an OTLP receiver gets from three processes that use OpenTelemetry only through its launcher."""

import socket
from collections.abc import Iterator

import pytest

from tests.processes.otlp.depot.secret import SECRET
from tests.processes.otlp.processes import Depot
from tests.processes.otlp.receiver import OtlpReceiver, Span
from tests.redis_server import RedisServer

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"


@pytest.fixture(scope="module", params=["http/protobuf", pytest.param("grpc", marks=pytest.mark.nightly)])
def depot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Depot]:
    with RedisServer() as redis, OtlpReceiver() as receiver:
        depot = Depot(redis, receiver, request.param, tmp_path_factory.mktemp("logs"))
        try:
            depot.wait()
            yield depot
        finally:
            depot.close()


def one(spans: list[Span], name: str, service: str | None = None) -> Span:
    (span,) = [span for span in spans if span.name == name and service in (None, span.service)]
    return span


def test_the_trace_of_a_django_request_continues_in_the_worker(depot: Depot) -> None:
    spans = depot.trace(depot.ask("pack"), "GET enqueue/<str:what>", "send default", "process default")

    request, send, process = (
        one(spans, each) for each in ("GET enqueue/<str:what>", "send default", "process default")
    )
    assert [(span.service, span.kind) for span in (request, send, process)] == [
        ("site", "server"),
        ("site", "producer"),
        ("worker", "consumer"),
    ]
    assert (send.parent_id, process.parent_id) == (request.span_id, send.span_id)
    assert {send.schema, process.schema} == {SCHEMA}
    address = {"server.address": process.attributes["server.address"]}
    shared = {
        "messaging.system": "asynq",
        "messaging.destination.name": "default",
        "messaging.message.id": send.attributes["messaging.message.id"],
        "messaging.asynq.task.type": "depot:pack",
        **address,
    }
    for span, operation in ((send, "send"), (process, "process")):
        facts = dict(span.attributes)
        host, _, pid = facts.pop("messaging.client.id").rpartition(":")
        assert (host, pid.isdigit()) == (socket.gethostname(), True)
        facts.pop("server.port", None)
        expected = {**shared, "messaging.operation.name": operation, "messaging.operation.type": operation}
        if operation == "process":
            expected |= {
                "messaging.asynq.task.retried": 0,
                "messaging.asynq.task.max_retry": 25,
                "messaging.asynq.task.state_after": "deleted",
            }
        assert facts == expected


def test_the_trace_of_a_fastapi_request_continues_in_the_worker(depot: Depot) -> None:
    names = ("POST /enqueue/{what}", "send default", "process default")
    spans = depot.trace(depot.ask("apack", by="app"), *names)

    request, send, process = (one(spans, each) for each in names)
    assert [span.service for span in (request, send, process)] == ["app", "app", "worker"]
    assert (send.parent_id, process.parent_id) == (request.span_id, send.span_id)


def test_a_retry_stays_in_the_trace_and_links_to_the_first_run(depot: Depot) -> None:
    spans = depot.trace(depot.ask("flaky"), "send default", *["process default"] * 2)

    send = one(spans, "send default")
    runs = [span for span in spans if span.name == "process default"]
    first, second = sorted(runs, key=lambda span: int(span.attributes["messaging.asynq.task.retried"]))
    assert (first.parent_id, second.parent_id) == (send.span_id, send.span_id)
    assert [span.attributes["messaging.asynq.task.state_after"] for span in (first, second)] == ["retry", "deleted"]
    assert (set(first.links), set(second.links)) == ({send.span_id}, {send.span_id, first.span_id})
    assert not first.is_error  # the task raised Retry


def test_a_failure_is_reported_without_its_message(depot: Depot) -> None:
    spans = depot.trace(depot.ask("broken"), "process default")

    process = one(spans, "process default")
    assert process.is_error
    assert process.attributes["error.type"] == "ValueError"
    assert process.attributes["messaging.asynq.task.state_after"] == "archived"
    (event,) = process.events
    assert (event["name"], event["exception.type"]) == ("exception", "ValueError")
    assert "depot/tasks.py" in event["exception.stacktrace"]
    assert "exception.message" not in event


def test_each_task_of_a_bulk_enqueue_continues_a_separate_span(depot: Depot) -> None:
    spans = depot.trace(depot.ask("bulk"), *["process default"] * 3, *["create default"] * 3, "send default")

    created = [span for span in spans if span.name == "create default"]
    runs = [span for span in spans if span.name == "process default"]
    send = one(spans, "send default")
    assert (send.kind, send.attributes["messaging.batch.message_count"]) == ("client", 3)
    assert set(send.links) == {span.span_id for span in created} == {span.parent_id for span in runs}
    assert {span.kind for span in created} == {"producer"}
    assert {span.attributes["messaging.message.id"] for span in created} == {
        span.attributes["messaging.message.id"] for span in runs
    }


def test_a_task_that_enqueues_another_one(depot: Depot) -> None:
    spans = depot.trace(depot.ask("nested"), *["process default"] * 2, *["send default"] * 2)

    outer, inner = (
        one([s for s in spans if s.attributes.get("messaging.asynq.task.type") == f"depot:{name}"], "process default")
        for name in ("nested", "pack")
    )
    send = one([s for s in spans if s.span_id == inner.parent_id], "send default", "worker")
    assert send.parent_id == outer.span_id


def test_a_scheduled_task_keeps_its_origin(depot: Depot) -> None:
    spans = depot.trace(depot.ask("later"), "send default", "process default")

    assert one(spans, "process default").parent_id == one(spans, "send default").span_id


def test_a_task_that_only_links_has_a_separate_trace(depot: Depot) -> None:
    send = one(depot.trace(depot.ask("apart"), "send default"), "send default")

    def found() -> list[Span]:
        return [
            span for span in depot.receiver.spans if span.attributes.get("messaging.asynq.task.type") == "depot:apart"
        ]

    spans = depot.receiver.until(lambda: len(found()) == 2 and found(), "it ran")
    process = one(spans, "process default")
    assert (process.parent_id, process.links) == ("", (send.span_id,))
    assert process.trace_id != send.trace_id


def test_a_task_made_of_a_group_links_to_all_of_them(depot: Depot) -> None:
    trace_id = depot.ask("group")
    spans = depot.trace(trace_id, *["send grouped"] * 4, "process grouped")

    members = [span for span in spans if span.attributes.get("messaging.asynq.task.type") == "depot:parcel"]
    send = one([s for s in spans if s.attributes.get("messaging.asynq.task.type") == "depot:pallet"], "send grouped")
    assert set(send.links) == {span.span_id for span in members}
    assert one(spans, "process grouped").parent_id == send.span_id


def test_a_workflow_is_one_trace_whose_joins_link_to_their_predecessors(depot: Depot) -> None:
    spans = depot.trace(depot.ask("flow"), *["process default"] * 2, *["process grouped"] * 3)

    runs = [span for span in spans if span.kind == "consumer"]
    by_task = {
        name: [run for run in runs if run.attributes["messaging.asynq.task.type"] == f"depot:{name}"]
        for name in ("apack", "weigh", "load")
    }
    assert [len(found) for found in by_task.values()] == [2, 2, 1]
    (joined,) = by_task["load"]
    created = {run.parent_id for run in by_task["weigh"]}  # the parents of the runs
    assert {*created, joined.parent_id} <= set(joined.links)
    assert set(joined.links) <= {*created, joined.parent_id, *[run.span_id for run in by_task["weigh"]]}
    assert {span.name for span in spans if span.span_id == joined.parent_id} == {"create grouped"}


def test_spans_of_redis_exchanges_can_be_enabled(depot: Depot) -> None:
    depot.trace(depot.ask("pack"), "process default")

    for name in ("receive default", "settle default"):
        spans = depot.receiver.until(
            lambda name=name: [span for span in depot.receiver.spans if span.name == name], name
        )
        assert {span.kind for span in spans} == {"client"}
        assert any(span.links for span in spans)


def test_redis_spans_are_only_those_of_user_code(depot: Depot) -> None:
    """The launcher also instruments redis-py. taskq's commands must not appear as spans."""
    spans = depot.trace(depot.ask("pack"), "process default", "GET")

    redis = [span for span in depot.receiver.spans if "redis" in span.scope]
    assert {(span.service, span.name) for span in redis} == {("worker", "GET")}
    assert one(spans, "GET").parent_id == one(spans, "process default").span_id


METRICS: list[tuple[str, str, str, dict[str, str]]] = [
    ("messaging.client.sent.messages", "site", "{message}", {"messaging.operation.name": "send"}),
    ("messaging.client.operation.duration", "site", "s", {"messaging.operation.name": "send"}),
    ("messaging.client.consumed.messages", "worker", "{message}", {"messaging.operation.name": "process"}),
    ("messaging.process.duration", "worker", "s", {"messaging.operation.name": "process"}),
    ("asynq.tasks.enqueued", "site", "{task}", {"messaging.asynq.task.type": "depot:pack"}),
    ("asynq.tasks.processed", "worker", "{task}", {"messaging.asynq.task.type": "depot:pack"}),
    (
        "asynq.tasks.failed",
        "worker",
        "{task}",
        {"messaging.asynq.task.type": "depot:broken", "error.type": "ValueError"},
    ),
    ("asynq.tasks.retried", "worker", "{task}", {"messaging.asynq.task.type": "depot:flaky"}),
    ("asynq.task.processing_time", "worker", "s", {"messaging.asynq.task.type": "depot:pack"}),
    ("asynq.task.wait_time", "worker", "s", {"messaging.asynq.task.type": "depot:pack"}),
    ("asynq.queue.size", "worker", "{task}", {"messaging.asynq.queue.state": "pending"}),
    ("asynq.queue.latency", "worker", "s", {}),
    ("asynq.queue.paused", "worker", "{queue}", {}),
    ("asynq.worker.slots", "worker", "{slot}", {}),
    ("asynq.worker.busy", "worker", "{slot}", {}),
    ("asynq.worker.connected", "worker", "{worker}", {}),
    ("asynq.scheduler.leading", "worker", "{scheduler}", {}),
]
"""For each metric: name, process, unit and some labels."""


def test_metrics(depot: Depot) -> None:
    for what in ("pack", "broken", "flaky"):
        depot.ask(what)

    for name, service, unit, labels in METRICS:
        points = depot.metric(name, service, labels)

        assert {point.unit for point in points} == {unit}, name
        if name.startswith("messaging."):
            assert all(point.attributes["server.address"] for point in points), name
        if unit == "s" and points[-1].bounds:
            assert points[-1].bounds[:3] == (0.005, 0.01, 0.025), name


def test_durations_point_to_traces(depot: Depot) -> None:
    trace_id = depot.ask("pack")
    depot.trace(trace_id, "process default")

    def has_example() -> bool:
        points = depot.metric("asynq.task.processing_time", "worker", {"messaging.asynq.task.type": "depot:pack"})
        return any(point.exemplars for point in points)

    depot.receiver.until(has_example, "an example arrives")


def test_no_signal_contains_arguments_results_or_error_messages(depot: Depot) -> None:
    for what in ("pack", "apack", "broken", "flaky", "nested", "apart", "bulk", "group", "flow", "later"):
        last = {"group": "process grouped", "flow": "process grouped", "apart": "send default"}.get(what)
        depot.trace(depot.ask(what), last or "process default")
    failed = depot.receiver.until(
        lambda: [body for body in depot.receiver.logged if body.startswith("task failed: name=depot:broken ")],
        "it is logged",
    )

    assert " error=ValueError duration=" in failed[0]
    assert failed[0].endswith(" state=archived")
    assert depot.receiver.spans
    assert depot.receiver.points
    assert not [data for data in depot.receiver.raw if SECRET.encode() in data]
    assert SECRET not in depot.log()
