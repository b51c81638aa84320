"""Test the outbox of each adapter: it stores tasks in the caller's transaction and sends them after the commit."""

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from taskq_core import (
    CircuitState,
    ConfigurationError,
    DuplicateTaskError,
    Settings,
    TaskIdConflictError,
    TaskNotSentError,
    TaskQ,
    TaskState,
    Unique,
    WorkflowDefinitionError,
    WorkflowNotSentError,
    WorkflowTimeoutError,
    chain,
    group,
)
from taskq_core.broker.sync import SyncRunner
from taskq_core.client.outbox import Delivery
from taskq_core.client.outbox.delivery import SEND_S
from taskq_core.client.outbox.sender import PATIENCE_S
from taskq_core.errors import BrokerAuthenticationError, BrokerUnavailableError
from taskq_core.inspector import Inspector
from taskq_core.settings import EnqueueMode
from taskq_core.telemetry import type_name
from taskq_core.worker import Worker, WorkerConfig
from tests.outboxes import AsyncSQLAlchemyUnderTest, DjangoOutbox, OutboxUnderTest, SQLAlchemyUnderTest
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

DJANGO = pytest.param("django", marks=pytest.mark.django_db(transaction=True, databases=["default", "other"]))


@pytest.fixture(params=[DJANGO, "sqlalchemy", "sqlalchemy async"])
def outbox(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path) -> Iterator[OutboxUnderTest]:
    if request.param == "django":
        found = DjangoOutbox(redis_server)
        yield found
        found.app.reload()
        return
    kind = SQLAlchemyUnderTest if request.param == "sqlalchemy" else AsyncSQLAlchemyUnderTest
    made = kind(redis_server, tmp_path)
    yield made
    made.close()


def names(outbox: OutboxUnderTest) -> list[str]:
    return sorted(task.name for task in Inspector(outbox.app).tasks().tasks)  # type: ignore[union-attr]  # all are readable here


def claims_left(outbox: OutboxUnderTest) -> list[float]:
    """Return for how many seconds rows are claimed."""
    return [left for (left,) in outbox.execute("SELECT {left} FROM {table} WHERE {claimed_until} IS NOT NULL")]


def test_outside_a_transaction_a_task_is_sent_at_once(outbox: OutboxUnderTest) -> None:
    handle = outbox.greet.delay("Ada")

    assert handle.is_sent
    assert names(outbox) == ["shop:greet"]
    assert outbox.waiting() == []


def test_a_row_is_written_in_the_transaction_and_sent_at_the_commit(outbox: OutboxUnderTest) -> None:
    with outbox.transaction():
        handle = outbox.enqueue(outbox.greet.s("Ada"))

        assert outbox.waiting() == ["shop:greet"]
        assert names(outbox) == []
        with pytest.raises(TaskNotSentError, match="try again after the commit"):
            handle.refresh()

    assert outbox.waiting() == []
    assert names(outbox) == ["shop:greet"]
    assert handle.refresh().id == handle.id


def test_a_rollback_removes_the_row(outbox: OutboxUnderTest) -> None:
    with outbox.rolled_back():
        outbox.enqueue(outbox.greet.s("Ada"))
        outbox.enqueue_many(outbox.greet.s(name) for name in ("Edsger", "Barbara"))
        outbox.enqueue_workflow(chain(outbox.greet.si("Grace")))

    assert outbox.waiting() == []
    assert names(outbox) == []


def test_a_rolled_back_savepoint_removes_only_its_own_rows(outbox: OutboxUnderTest) -> None:
    with outbox.transaction():
        outbox.enqueue(outbox.restock.s("kept"))
        with outbox.rolled_back():
            outbox.enqueue(outbox.greet.s("Ada"))
        with outbox.transaction():
            outbox.enqueue(outbox.restock.s("kept as well"))

    assert names(outbox) == ["shop:restock"] * 2
    assert outbox.waiting() == []


def test_commits_succeed_and_rows_wait_while_redis_is_unreachable(outbox: OutboxUnderTest) -> None:
    with outbox.redis_away():
        with outbox.transaction():
            handle = outbox.enqueue(outbox.greet.s("Ada"))
            many = outbox.enqueue_many(outbox.restock.s(sku) for sku in ("a", "b"))
            early = many[0]

        assert len(many) == 2
        assert outbox.waiting() == ["shop:greet", "shop:restock", "shop:restock"]
        assert not any(each.is_sent for each in (handle, early, *many))

    assert len(outbox.relay().stored) == 3

    assert outbox.waiting() == []
    assert names(outbox) == ["shop:greet", "shop:restock", "shop:restock"]


def test_a_worker_sends_waiting_rows_and_the_handle_returns_the_result(outbox: OutboxUnderTest) -> None:
    with outbox.redis_away():
        handle = outbox.greet.using(retention=60).delay("Ada")
    handle._source = outbox.app.runtime.source  # the handle belongs to a client of other settings
    with pytest.raises(TaskNotSentError, match="waits in the outbox until a worker"):
        handle.refresh()
    worker = threading.Thread(target=Worker(outbox.app, WorkerConfig(queues={"default": 1}, burst=True)).run)

    worker.start()

    assert handle.result(timeout=60) == "hello Ada"
    assert handle.is_sent
    worker.join()


def test_a_silent_redis_delays_only_the_first_commit_and_only_briefly(
    outbox: OutboxUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay sends the rows, so the send after the commit needs no long timeout and no second attempt."""
    asked = []

    def silent(runner: SyncRunner, operation: Any, *, patience_s: float) -> Any:
        asked.append((operation.name, patience_s))
        raise BrokerUnavailableError("no answer")

    monkeypatch.setattr(SyncRunner, "run", silent)
    monkeypatch.setattr("taskq_core.client.outbox.sender.PATIENCE_S", PATIENCE_S)
    outbox.greet.delay("Ada")
    with outbox.transaction():
        outbox.enqueue(outbox.greet.s("Grace"))
        outbox.enqueue_many([outbox.greet.s("Edsger")])
        outbox.enqueue_workflow(chain(outbox.greet.si("Barbara")))

    assert asked == [("read_time", PATIENCE_S)]
    assert outbox.app.client.circuit_state is CircuitState.OPEN
    assert len(outbox.waiting()) == 4


def test_an_unanswered_delivery_opens_the_circuit(outbox: OutboxUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cluster, the node that tells the time may answer while the node of the queue does not."""
    asked = []

    def lost(*words: Any) -> str:
        asked.append("deliver")
        raise BrokerUnavailableError("no answer")

    monkeypatch.setattr(Delivery, "_send", lost)
    outbox.greet.delay("Ada")
    outbox.greet.delay("Grace")

    assert asked == ["deliver"]


@pytest.mark.parametrize("mode", [EnqueueMode.ON_COMMIT, EnqueueMode.OUTBOX])
@pytest.mark.parametrize("is_savepoint", [False, True])
def test_a_handle_reports_the_rollback_of_its_transaction(
    outbox: OutboxUnderTest, mode: EnqueueMode, is_savepoint: bool
) -> None:
    outbox.configure(lambda settings: replace(settings, enqueue=mode))
    with outbox.transaction() if is_savepoint else nullcontext():
        with outbox.rolled_back():
            handle = outbox.enqueue(outbox.greet.using(retention=60).s("Ada"))
            many = outbox.enqueue_many(outbox.greet.s(name) for name in ("Edsger", "Barbara"))
            early = many[0]
            workflow = outbox.enqueue_workflow(chain(outbox.greet.si("Grace")))
            with pytest.raises(TaskNotSentError, match="when the surrounding transaction commits"):
                handle.result()

        for each in (handle, early, *many):
            with pytest.raises(TaskNotSentError, match="its transaction was rolled back"):
                each.refresh()
            assert not each.is_sent
        with pytest.raises(TaskNotSentError, match="its transaction was rolled back"):
            handle.result()
        with pytest.raises(WorkflowNotSentError, match="its transaction was rolled back"):
            workflow.result()
        assert "rolled back" in repr(many)


def test_get_finds_a_task_that_waits_in_the_outbox(outbox: OutboxUnderTest) -> None:
    with outbox.redis_away():
        soon = outbox.greet.delay("Ada")
        later = outbox.greet.using(run_after=60).delay("Grace")
        outbox.enqueue_workflow(chain(outbox.greet.si("Edsger")))

    found = [info for handle in (soon, later) if (info := outbox.app.get(handle.id).info)]

    assert [(info.name, info.state) for info in found] == [("shop:greet", "pending"), ("shop:greet", "scheduled")]
    assert outbox.app.outbox is not None
    assert outbox.app.outbox.find("another") is None


def test_run_after_counts_from_the_enqueue_and_not_from_the_delivery(outbox: OutboxUnderTest) -> None:
    with outbox.redis_away():
        outbox.greet.using(run_after=0.05).delay("soon")
        outbox.greet.using(run_after=3600).delay("later")
    outbox.execute("UPDATE {table} SET {created} = {past}")  # as if Redis had been away for years

    outbox.relay()

    assert sorted(task.state for task in Inspector(outbox.app).tasks().tasks) == ["pending", "pending"]


def test_a_refused_task_is_reported_by_its_handle_and_its_row_deleted(
    outbox: OutboxUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    first = outbox.greet.using(task_id="one").delay("Ada")
    locked = outbox.greet.using(unique_for=60).delay("Grace")
    with outbox.transaction():
        second = outbox.enqueue(outbox.greet.using(task_id="one").s("Ada"))
        twin = outbox.enqueue(outbox.greet.using(unique_for=60).s("Grace"))
        many = outbox.enqueue_many([outbox.greet.using(unique_for=60).s("Grace")])

    assert first.refresh()
    assert locked.refresh()
    for handle, error in ((second, TaskIdConflictError), (twin, DuplicateTaskError)):
        with pytest.raises(TaskNotSentError) as caught:
            handle.refresh()
        assert isinstance(handle.send_error, error), caught
    assert [each.existing_id for each in (twin.send_error, *many.errors)] == [locked.id] * 2  # type: ignore[union-attr]  # see above
    assert outbox.waiting() == []
    assert "from the outbox was dropped: another task has its id" in caplog.text
    assert "from the outbox was dropped: another task has its unique lock" in caplog.text
    assert "Ada" not in caplog.text


def test_a_refusal_outside_of_a_transaction_is_raised_as_without_an_outbox(outbox: OutboxUnderTest) -> None:
    locked = outbox.greet.using(unique_for=60).delay("Grace")

    with pytest.raises(DuplicateTaskError) as caught:
        outbox.greet.using(unique_for=60).delay("Grace")
    with pytest.raises(TaskIdConflictError):
        asyncio.run(outbox.greet.using(task_id=locked.id).adelay("Ada"))

    assert caught.value.existing_id == locked.id
    assert (names(outbox), outbox.waiting()) == (["shop:greet"], [])


def test_a_full_queue_delays_only_its_own_rows(outbox: OutboxUnderTest) -> None:
    outbox.configure(lambda settings: replace(settings, limits={"default": {"MAX_PENDING": 1}}))
    for name in ("Ada", "Grace"):
        outbox.greet.delay(name)
    outbox.restock.delay("a")

    assert names(outbox) == ["shop:greet", "shop:restock"]
    assert outbox.waiting() == ["shop:greet"]

    Inspector(outbox.app).delete_all("default", TaskState.PENDING)
    outbox.end_claims()  # the delay of the delivery is over
    outbox.relay()

    assert outbox.waiting() == []


def test_many_rows_are_sent_in_batches_and_in_order(outbox: OutboxUnderTest, redis_server: RedisServer) -> None:
    with outbox.redis_away(), outbox.transaction():
        many = outbox.enqueue_many(outbox.restock.s(str(number)) for number in range(450))

    counts = []
    while count := outbox.relay().claimed:
        counts.append(count)

    assert counts == [200, 200, 50]
    pending = redis_server.client.lrange("asynq:{low}:pending", 0, -1)
    assert [each.decode() for each in reversed(pending)] == list(many.ids)


def test_a_claim_is_bounded_by_bytes(outbox: OutboxUnderTest) -> None:
    with outbox.redis_away():
        for _ in range(6):
            outbox.greet.delay("x" * 1_000_000)

    first = outbox.table.claim("one", most=100, most_bytes=3_500_000, seconds=60)
    rest = outbox.table.claim("two", most=100, most_bytes=3_500_000, seconds=60)

    assert [len(first), len(rest)] == [4, 2]


def test_claimed_rows_are_skipped_until_the_claim_expires(outbox: OutboxUnderTest) -> None:
    with outbox.redis_away():
        outbox.greet.delay("Ada")
    table = outbox.table
    (row,) = table.claim("one", most=10, most_bytes=100, seconds=60)

    assert table.claim("two", most=10, most_bytes=100, seconds=60) == []
    assert table.delete("two", [row.receipt]) == 0  # not its own
    assert outbox.waiting() == ["shop:greet"]

    table.release("one", [row.receipt], seconds=60)
    assert table.claim("two", most=10, most_bytes=100, seconds=60) == []
    outbox.end_claims()
    assert len(table.claim("two", most=10, most_bytes=100, seconds=-1, receipts=[row.receipt])) == 1
    assert len(table.claim("three", most=10, most_bytes=100, seconds=60)) == 1, "a claim that has ended is free"


def test_a_sender_that_lost_its_claim_keeps_the_receipt_for_the_next_sender(
    outbox: OutboxUnderTest, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was suspended before it deleted the row. Without the receipt, the next sender would store the task again."""
    with outbox.redis_away():
        outbox.greet.delay("Ada")
    table = type(outbox.table)

    def slow(table: Any, claim: str, receipts: Sequence[str]) -> int:
        outbox.execute("UPDATE {table} SET claim = 'next'")
        return int(delete(table, claim, receipts))

    with monkeypatch.context() as patch:
        delete = table.delete
        patch.setattr(table, "delete", slow)
        outbox.relay()
    redis_server.client.delete(*redis_server.client.keys("asynq:{default}:t:*"), "asynq:{default}:pending")  # it ran
    outbox.end_claims()

    assert len(outbox.relay().stored) == 1
    assert outbox.waiting() == []
    assert redis_server.client.llen("asynq:{default}:pending") == 0


def test_figures_count_the_waiting_rows_and_their_age(outbox: OutboxUnderTest) -> None:
    figures = outbox.table.figures()
    assert (figures.waiting, figures.oldest_s) == (0, None)
    with outbox.redis_away():
        outbox.greet.delay("Ada")
        outbox.greet.delay("Grace")
    outbox.execute("UPDATE {table} SET {created} = {past} WHERE id = (SELECT min(id) FROM {table})")

    figures = outbox.table.figures()

    assert figures.waiting == 2
    assert figures.oldest_s is not None
    assert figures.oldest_s > 86_400


def test_the_outbox_mode_is_refused_without_an_outbox() -> None:
    with pytest.raises(ConfigurationError, match=r"the application has no outbox: pass TaskQ\(outbox="):
        TaskQ(settings=Settings(enqueue="outbox"))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [BrokerUnavailableError, BrokerAuthenticationError])
def test_a_row_stays_claimed_when_its_message_may_have_been_stored(
    outbox: OutboxUnderTest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[BrokerUnavailableError | BrokerAuthenticationError],
) -> None:
    """Otherwise a second sender could send and delete the row before the delayed first message arrives."""

    def lost(*words: Any) -> str:
        error = kind("no answer")
        error.may_have_happened = True
        raise error

    monkeypatch.setattr(Delivery, "_send", lost)
    with caplog.at_level(logging.WARNING):
        outbox.greet.delay("Ada")
    monkeypatch.undo()

    (left,) = claims_left(outbox)
    assert left > SEND_S
    assert f"1 task waits in the outbox of database {outbox.table.name!r}: no answer" in caplog.text


@pytest.mark.parametrize("kind", [BrokerUnavailableError, BrokerAuthenticationError])
def test_rows_are_released_when_the_registration_of_their_queue_fails(
    outbox: OutboxUnderTest,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[BrokerUnavailableError | BrokerAuthenticationError],
) -> None:
    """The rows themselves were not sent, so nothing keeps another sender from them."""
    send = SyncRunner.run

    def refuse(runner: SyncRunner, operation: Any, **more: Any) -> Any:
        if operation.name != "register_queue":
            return send(runner, operation, **more)
        error = kind("no answer")
        error.may_have_happened = True
        raise error

    monkeypatch.setattr(SyncRunner, "run", refuse)
    outbox.greet.delay("Ada")
    monkeypatch.undo()

    assert outbox.waiting() == ["shop:greet"]
    assert all(left < SEND_S for left in claims_left(outbox))


def test_a_worker_sends_the_row_when_the_database_fails_after_the_commit(
    outbox: OutboxUnderTest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The row is committed, so the caller must not take the task for lost."""

    def fail(*words: Any, **more: Any) -> Any:
        raise OSError("the database went away")

    with monkeypatch.context() as patch:
        patch.setattr(type(outbox.table), "claim", fail)
        alone = outbox.greet.delay("Ada")
        with outbox.transaction():
            inside = outbox.enqueue(outbox.greet.s("Grace"))

    assert (alone.is_late, inside.is_late) == (True, True)
    assert caplog.text.count("tasks wait in the outbox of database") == 2
    assert len(outbox.relay().stored) == 2


def test_a_row_stays_until_replicas_confirm_its_task(
    outbox: OutboxUnderTest, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq_core.broker.exchange.ANSWER_S", 30.0)  # replicas are waited for once, and not for long
    monkeypatch.setattr(
        "taskq_core.broker.exchange.confirm_commands", lambda wanted, _: [("WAIT", wanted.confirm.replicas, 1)]
    )
    handle = outbox.greet.using(replicated=True).delay("Ada")

    assert outbox.waiting() == ["shop:greet"], "this Redis has no replica"
    assert not handle.is_sent
    outbox.execute("UPDATE {table} SET {claimed_until} = NULL, replicas = 0")  # as if one had come to it

    assert len(outbox.relay().stored) == 1

    assert outbox.waiting() == []
    assert redis_server.client.llen("asynq:{default}:pending") == 1, "stored by the first try, and by no other"


def test_a_workflow_is_stored_as_a_row_and_sent_after_the_commit(outbox: OutboxUnderTest) -> None:
    greet = outbox.greet
    with outbox.transaction():
        handle = outbox.enqueue_workflow(chain(greet.si("Ada"), greet.si("Grace")).named("greetings"))
        assert (names(outbox), outbox.waiting(), handle.is_sent) == ([], ["greetings"], False)
        with pytest.raises(WorkflowNotSentError, match="when the surrounding transaction commits"):
            handle.refresh()

    assert (names(outbox), outbox.waiting(), handle.is_sent) == (["shop:greet"], [], True)
    assert handle.refresh().total == 2
    assert chain(greet.si("at once")).delay().refresh().total == 1


def test_a_large_workflow_waits_in_the_outbox_while_redis_is_unreachable(outbox: OutboxUnderTest) -> None:
    """A generator gives the members. They are split into rows of a bounded size, which may be sent in any order."""
    greet = outbox.greet

    with outbox.redis_away(), outbox.transaction():
        handle = outbox.enqueue_workflow(group(greet.si(str(number)) for number in range(2_100)) | greet.si("Ada"))
    handle._source = outbox.app.runtime.source  # the handle belongs to a client of other settings
    assert not handle.is_sent
    assert handle.is_late
    assert outbox.waiting() == ["workflow"] * 3
    with pytest.raises(WorkflowNotSentError, match="waits in the outbox"):
        handle.refresh()
    with pytest.raises(WorkflowTimeoutError):
        handle.result(timeout=0)

    outbox.end_claims()
    *_, (last,) = outbox.execute("SELECT receipt FROM {table} ORDER BY id")
    assert len(outbox.relay([last]).stored) == 1
    with pytest.raises(WorkflowNotSentError):
        handle.refresh()
    assert len(outbox.relay().stored) == 2

    assert outbox.waiting() == []
    assert (handle.refresh().total, handle.is_late) == (2_101, False)


def test_an_invalid_workflow_leaves_no_row(outbox: OutboxUnderTest) -> None:
    def members() -> Iterator[Any]:
        yield from (outbox.greet.si(str(number)) for number in range(300))
        yield "no call"

    with outbox.transaction(), pytest.raises(WorkflowDefinitionError, match="member 300"):
        outbox.enqueue_workflow(group(members()) | outbox.greet.si("Ada"))

    assert (names(outbox), outbox.waiting()) == ([], [])


class Telemetry:
    """Spans and counters that an SDK has recorded."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith(name)]

    def counts(self, metric: str) -> dict[str, int]:
        """Return the values of a counter by type of task and error."""
        data = self._reader.get_metrics_data()
        found: dict[str, int] = {}
        for each in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
            if each.name == metric:
                for point in each.data.data_points:
                    labels = point.attributes or {}
                    key = str(labels.get("error.type") or labels.get("messaging.asynq.task.type"))
                    found[key] = found.get(key, 0) + point.value  # type: ignore[union-attr]  # a counter
        return found


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Telemetry:
    telemetry = Telemetry()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", telemetry.provider)
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", telemetry.meters)
    return telemetry


def links_of(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


def ids_of(spans: Sequence[ReadableSpan]) -> set[int]:
    return {span.context.span_id for span in spans}


@pytest.mark.parametrize("mode", [EnqueueMode.ON_COMMIT, EnqueueMode.OUTBOX])
def test_the_commit_has_the_spans_of_the_sends_and_counts_the_tasks(
    outbox: OutboxUnderTest, mode: EnqueueMode, telemetry: Telemetry
) -> None:
    """The enqueue only creates the tasks. The runs of the tasks continue the spans of their creation."""
    outbox.configure(lambda settings: replace(settings, enqueue=mode))

    with telemetry.provider.get_tracer("web").start_as_current_span("request"), outbox.transaction():
        outbox.enqueue(outbox.greet.s("Ada"))
        outbox.enqueue_many(outbox.restock.s(sku) for sku in ("a", "b"))
        outbox.enqueue_workflow(chain(outbox.greet.si("Grace"), outbox.greet.si("Edsger")))
        created = telemetry.spans("create")
        assert [span.attributes["messaging.operation.name"] for span in created if span.attributes] == ["create"] * 6
        assert {span.kind for span in created} == {SpanKind.PRODUCER}
        assert not telemetry.spans("send")
        assert not telemetry.counts("asynq.tasks.enqueued")

    sends = telemetry.spans("send")
    one, many, workflow = sends
    assert {span.kind for span in sends} == {SpanKind.CLIENT}
    assert (links_of(one), links_of(many)) == (ids_of(created[:1]), ids_of(created[1:3]))
    assert links_of(workflow) <= ids_of(created[3:])
    sizes = [(span.attributes or {}).get("messaging.batch.message_count") for span in sends]
    assert sizes == [None, 2, None]
    assert {span.parent.span_id for span in sends if span.parent} == ids_of(telemetry.spans("request"))
    counts = telemetry.counts("asynq.tasks.enqueued")
    assert counts["shop:restock"] == 2
    assert sum(counts.values()) == sum(telemetry.counts("messaging.client.sent.messages").values())


@pytest.mark.parametrize("mode", [EnqueueMode.ON_COMMIT, EnqueueMode.OUTBOX])
def test_a_rollback_sends_and_counts_nothing(outbox: OutboxUnderTest, mode: EnqueueMode, telemetry: Telemetry) -> None:
    outbox.configure(lambda settings: replace(settings, enqueue=mode))

    with outbox.rolled_back():
        outbox.enqueue(outbox.greet.s("Ada"))
        outbox.enqueue_many(outbox.restock.s(sku) for sku in ("a", "b"))
        outbox.enqueue_workflow(chain(outbox.greet.si("Grace"), outbox.greet.si("Edsger")))

    assert len(telemetry.spans("create")) == 6
    assert not telemetry.spans("send")
    assert not telemetry.counts("messaging.client.sent.messages")


def test_the_relay_has_the_span_of_the_send_and_counts_the_tasks(outbox: OutboxUnderTest, telemetry: Telemetry) -> None:
    outbox.greet.using(task_id="taken").delay("Ada")
    with outbox.redis_away():
        outbox.greet.using(task_id="taken").delay("Ada")
        outbox.enqueue_many(outbox.restock.s(sku) for sku in ("a", "b"))
        outbox.enqueue_workflow(chain(outbox.greet.si("Grace"), outbox.greet.si("Edsger")))
    before = telemetry.spans("send")

    outbox.relay()

    refused, many, workflow = telemetry.spans("send")[len(before) :]
    created = telemetry.spans("create")
    assert {span.parent for span in (refused, many, workflow)} == {None}
    assert links_of(refused) | links_of(many) | links_of(workflow) <= ids_of(created)
    assert [len(span.links) for span in (refused, many, workflow)] == [1, 2, 2]
    assert telemetry.counts("asynq.tasks.enqueued")["shop:restock"] == 2
    assert telemetry.counts("messaging.client.sent.messages")[type_name(TaskIdConflictError("", "", ""))] == 1


@pytest.mark.parametrize("mode", [EnqueueMode.ON_COMMIT, EnqueueMode.OUTBOX])
@pytest.mark.parametrize("on_conflict", ["return_existing", "replace"])
def test_a_handle_refers_to_the_existing_task_after_the_commit(
    outbox: OutboxUnderTest, mode: EnqueueMode, on_conflict: str
) -> None:
    """Each handle belongs to the task that represents its call, for single and bulk enqueues."""
    outbox.configure(lambda settings: replace(settings, enqueue=mode))
    task = outbox.greet.using(unique=Unique(on_conflict=on_conflict), run_after=60)
    with outbox.transaction():
        first = outbox.enqueue(task.s("Ada"))
        second = outbox.enqueue(task.s("Ada"))
        many = outbox.enqueue_many([task.s("Ada"), task.s("Grace"), task.s("Grace")])
        early = many[0]
        assert not second.existing

    assert [handle.existing for handle in (first, second, early, *many)] == [False, True, True, True, False, True]
    assert {first.id, second.id, early.id, many[0].id} == {first.id}
    assert many[1].id == many[2].id
    assert second.refresh().id == first.id
    assert names(outbox) == ["shop:greet"] * 2
    assert outbox.waiting() == []


def test_a_refused_call_does_not_shift_the_results_of_a_bulk_enqueue(outbox: OutboxUnderTest) -> None:
    first = outbox.enqueue(outbox.greet.using(unique=Unique(), run_after=60).s("Ada"))
    refused, answered = (
        outbox.greet.using(unique=Unique(on_conflict=on_conflict), run_after=60)
        for on_conflict in ("reject", "return_existing")
    )

    with outbox.transaction():
        many = outbox.enqueue_many([refused.s("Ada"), answered.s("Ada")])

    assert [(handle.id, handle.existing) for handle in many] == [(first.id, True)]
    assert [type(error) for error in many.errors] == [DuplicateTaskError]


def test_a_row_keeps_its_unique_conflict_rule(outbox: OutboxUnderTest) -> None:
    """A worker delivers the row later: the latest arguments win, and the row is deleted."""
    task = outbox.greet.using(unique=Unique(args=[], on_conflict="replace"), run_after=60)
    first = task.delay("Ada")
    with outbox.redis_away():
        task.delay("Grace")
    assert outbox.waiting() == ["shop:greet"]
    outbox.end_claims()

    delivered = outbox.relay()

    assert outbox.waiting() == []
    assert list(delivered.existing.values()) == [first.id]
    assert b"Grace" in Inspector(outbox.app).task("default", first.id).payload
