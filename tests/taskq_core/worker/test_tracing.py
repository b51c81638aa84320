"""Test a worker's spans for repeated runs and for its requests to Redis."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from taskq_core import Retry, Snooze, TaskContext, TaskQ
from taskq_core.wire import QueueKeys, build_message, encode_message
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Runner, until

Named = Callable[[str], list[ReadableSpan]]


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Named:
    """Returns the ended spans of a name."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return lambda name: [span for span in exporter.get_finished_spans() if span.name == name]


def _of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_later_attempts_link_to_the_first_in_one_trace(
    app: TaskQ, start: Runner, named: Named, clock: Clock
) -> None:
    attempts: list[int] = []

    @app.task(name="flaky")
    def flaky() -> None:
        attempts.append(len(attempts))
        if len(attempts) == 1:
            raise Retry(after=0)
        if len(attempts) == 2:
            raise Snooze(after=0)

    await start()
    await flaky.adelay()
    for number in (1, 2):
        await until(lambda: len(attempts) >= number)  # noqa: B023 - awaited in the loop
        await clock.advance(2)
    await until(lambda: len(named("process default")) == 3, "three runs")

    first, *later = named("process default")
    (send,) = named("send default")
    assert [_of(span)["messaging.asynq.task.state_after"] for span in (first, *later)] == [
        "retry",
        "retry",
        "completed",
    ]
    assert {span.context.trace_id for span in (send, first, *later)} == {send.context.trace_id}
    assert [link.context.span_id for link in first.links] == [send.context.span_id]
    assert [[link.context.span_id for link in span.links][1:] for span in later] == [[first.context.span_id]] * 2


@pytest.mark.parametrize("is_coroutine", [True, False])
async def test_a_task_option_sets_how_runs_relate_to_the_enqueue(
    app: TaskQ, start: Runner, named: Named, is_coroutine: bool
) -> None:
    if is_coroutine:

        @app.task(name="apart", trace="link")
        async def apart() -> None: ...

    else:

        @app.task(name="apart", trace="link")  # type: ignore[no-redef]
        def apart() -> None: ...

    await start()
    await apart.adelay()
    await until(lambda: named("process default"), "its run")

    (send,), (process,) = named("send default"), named("process default")
    assert process.parent is None
    assert [link.context.span_id for link in process.links] == [send.context.span_id]


@pytest.mark.parametrize("queue_name", ["default", "other"])
async def test_the_next_step_of_a_chain_links_to_the_run_that_enqueued_it(
    app: TaskQ, start: Runner, named: Named, queue_name: str
) -> None:
    """This holds in one queue, where a script starts the next step, and across queues, where a dispatcher does."""

    @app.task(name="first")
    async def first() -> int:
        return 1

    @app.task(name="second", queue=queue_name)
    async def second(n: int) -> None: ...

    @app.task(name="third")
    async def third() -> None: ...

    await start(queues={"default": 1, "other": 1})
    await (first.s() | second.s() | third.si()).adelay()
    await until(lambda: len({*named("process default"), *named(f"process {queue_name}")}) == 3, "all ran")

    runs = {
        _of(each)["messaging.asynq.task.type"]: each
        for each in (*named("process default"), *named(f"process {queue_name}"))
    }
    before, run, after = runs["first"], runs["second"], runs["third"]
    assert [link.context.span_id for link in after.links][1:] == [run.context.span_id]
    assert before.parent is not None
    assert run.parent is not None
    (created,) = [each for each in named(f"create {queue_name}") if each.context.span_id == run.parent.span_id]
    assert _of(created)["messaging.asynq.task.type"] == "second"
    assert before.parent.span_id != created.context.span_id
    assert [link.context.span_id for link in run.links] == [created.context.span_id, before.context.span_id]


@pytest.fixture
def traced(redis_server: RedisServer) -> TaskQ:
    opt_in = {"OPT_IN": ["receive", "settle", "body_size"]}
    return TaskQ(redis_server.url, trace=opt_in, log={"EXCEPTION_MESSAGES": False}, enqueue_timeout=PATIENCE_S)


async def test_redis_requests_have_spans_on_request(traced: TaskQ, start: Runner, named: Named) -> None:
    @traced.task(name="count")
    async def count(n: int) -> None: ...

    await traced.async_client.enqueue_many(count.s(n=n) for n in range(3))
    await start(app=traced)
    await until(lambda: len(named("process default")) == 3, "the runs")
    await until(lambda: sum(_of(each)["messaging.batch.message_count"] for each in named("settle default")) == 3, "all")

    runs = {span.context.span_id for span in named("process default")}
    for name in ("receive", "settle"):
        spans = named(f"{name} default")
        assert {link.context.span_id for span in spans for link in span.links} == runs
        assert sum(_of(span)["messaging.batch.message_count"] for span in spans) == 3
        for span in spans:
            assert (span.kind, span.parent) == (SpanKind.CLIENT, None)
            assert (_of(span)["messaging.operation.name"], _of(span)["messaging.operation.type"]) == (name, name)
            assert span.start_time is not None
            assert span.end_time is not None
            assert span.start_time <= span.end_time
    assert {_of(span)["messaging.message.body.size"] for span in named("process default")} == {len('{"n":0}')}


async def test_redis_requests_have_no_spans_by_default(app: TaskQ, start: Runner, named: Named) -> None:
    @app.task(name="work")
    async def work() -> None: ...

    await start()
    await work.adelay()
    await until(lambda: named("process default"), "its run")

    assert named("receive default") == named("settle default") == []


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "00-zzzz"},
        {"traceparent": "x" * 100_000},
        {"traceparent": f"00-{'0' * 32}-{'0' * 16}-01", "tracestate": "\x00"},
        {"baggage": "a=" + "b" * 100_000},
        {"traceparent": "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "\r\nSet-Cookie: x": "y", "": ""},
    ],
)
async def test_forged_trace_headers_are_ignored_and_counted(
    app: TaskQ,
    start: Runner,
    named: Named,
    redis_server: RedisServer,
    queue: QueueKeys,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
) -> None:
    reader = InMemoryMetricReader()
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", MeterProvider([reader], shutdown_on_exit=False))
    ran: list[str] = []

    @app.task(name="work")
    async def work() -> None:
        ran.append("once")

    message = build_message(type="work", queue="default", id="forged", payload=b"{}")
    for name, value in headers.items():
        message.headers[name] = value
    redis_server.client.hset(queue.task_prefix + "forged", mapping={"msg": encode_message(message), "state": "pending"})
    redis_server.client.lpush(queue.pending, "forged")
    await start()
    await until(lambda: named("process default"), "its run")

    assert ran == ["once"]
    (process,) = named("process default")
    assert process.parent is None
    data = reader.get_metrics_data()
    assert data is not None
    counts = {
        metric.name: [point.value for point in metric.data.data_points]  # type: ignore[union-attr]  # a counter's
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name == "asynq.tasks.malformed_traces"
    }
    assert counts == {"asynq.tasks.malformed_traces": [1]}


async def test_a_setting_removes_the_messages_of_exceptions(traced: TaskQ, start: Runner, named: Named) -> None:
    @traced.task(name="fail", max_retry=0)
    def fail() -> None:
        raise ValueError("hunter" + "2")

    await start(app=traced)
    await fail.adelay()
    await until(lambda: named("process default"), "its run")

    (span,) = named("process default")
    assert _of(span)["error.type"] == "ValueError"
    assert "hunter2" not in span.to_json()


async def test_a_hook_scrubs_the_messages_of_spans(redis_server: RedisServer, start: Runner, named: Named) -> None:
    """The hook of the log also changes the event, the stack with its causes, and the status of a span."""
    secret = "hunter" + "2"  # in two parts, because the stack shows lines of code

    def scrub(message: str) -> str:
        return message.replace(secret, "***")

    scrubbing = TaskQ(redis_server.url, log={"EXCEPTION_MESSAGES": scrub}, enqueue_timeout=PATIENCE_S)

    @scrubbing.task(name="fail", max_retry=0)
    def fail() -> None:
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise ValueError(f"no password {secret}") from error

    await start(app=scrubbing)
    await fail.adelay()
    await until(lambda: named("process default"), "its run")

    (span,) = named("process default")
    (event,) = span.events
    shown = dict(event.attributes or {})
    assert (shown["exception.type"], shown["exception.message"]) == ("ValueError", "no password ***")
    assert span.status.description == "no password ***"
    assert "KeyError: '***'" in str(shown["exception.stacktrace"])
    assert secret not in span.to_json()


async def test_each_step_has_a_span_and_the_run_after_a_wait_links_to_the_first(
    app: TaskQ, start: Runner, named: Named, clock: Clock
) -> None:
    @app.task
    async def publish(context: TaskContext) -> None:
        await context.astep("moderate", int)
        await context.asleep(5)
        await asyncio.to_thread(context.step, "announce", int)

    await start()
    await publish.adelay()
    await clock.advance(10)
    await until(lambda: len(named("process default")) == 2)

    first, second = named("process default")
    (moderate,), (announce,) = named("step moderate"), named("step announce")
    assert [each.parent and each.parent.span_id for each in (moderate, announce)] == [
        each.context and each.context.span_id for each in (first, second)
    ]
    assert _of(moderate)["taskq.step.name"] == "moderate"
    assert first.context
    assert first.context.span_id in [link.context.span_id for link in second.links]
    assert _of(first)["messaging.asynq.task.state_after"] == "scheduled"
    assert (first.status.is_ok, second.status.is_ok) == (True, True)


@pytest.mark.parametrize("arrives_before", [False, True], ids=["while it waits", "before it waits"])
async def test_the_run_that_a_signal_resumes_links_to_the_request_that_sent_it(
    app: TaskQ, start: Runner, named: Named, arrives_before: bool
) -> None:
    begun, may_wait = asyncio.Event(), asyncio.Event()

    @app.task(name="order", retention=60)
    async def order(context: TaskContext) -> None:
        await context.astep("begin", begun.set)
        await may_wait.wait()
        await context.areceive("approve")
        await context.asleep(timedelta(milliseconds=1))

    await start()
    handle = await order.adelay()
    await begun.wait()
    if not arrives_before:
        may_wait.set()
        await until(lambda: handle.refresh().wait is not None)
    with trace.get_tracer("web").start_as_current_span("POST /approve") as request:
        await handle.asignal("approve", True)
    may_wait.set()
    await handle.aresult(timeout=PATIENCE_S)
    await until(lambda: len(named("process default")) == 3)

    sender = request.get_span_context().span_id
    links = [[link.context.span_id for link in span.links] for span in named("process default")]
    assert [sender in each for each in links] == [False, True, False]
