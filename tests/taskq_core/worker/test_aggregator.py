"""Groups become tasks: when, which, exactly once, and what becomes of them when something goes wrong."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskq_core import Discard, Signature, TaskContext, TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import aggregation, new_tasks
from taskq_core.broker.operations.new_tasks import NewTask
from taskq_core.broker.operations.operation import NOW, Operation
from taskq_core.errors import BrokerUnavailableError, TaskInterrupted
from taskq_core.service.loop import Signal
from taskq_core.tasks.aggregation import GroupedTask
from taskq_core.tasks.middleware import Middleware
from taskq_core.wire import QueueKeys, build_message, encode_message
from taskq_core.worker.aggregator import AT_ONCE, Aggregator
from tests.clock import Clock, at_time
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Ends, Runner, context_of, state_of, stored, texts, until, until_released

T = TypeVar("T")
NOW_S = 2_000_000_000
LATE_S = 121
"""Seconds after which a set is returned to its group: its timeout, plus the rounded part of a second."""
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class CountingRunner(AsyncRunner):
    """Notes the operations it sends. Scripts that need the time get that of the bench."""

    sent: list[Operation[Any]]
    now_ns: Callable[[], int]

    async def run(self, operation: Operation[T], *, patience_s: float | None = None) -> T:
        self.sent.append(operation)
        if operation.script is not None and operation.args[0] == NOW:
            at_time(self.now_ns(), operation)
        return await super().run(operation, patience_s=patience_s)


class Unknown:
    """A leadership that has not checked yet, so that the aggregator queries Redis."""

    has_checked = False

    def signal(self) -> Signal:
        return Signal()


class Bench:
    """Aggregators of one queue whose clock the test moves, and a digest for them to make."""

    def __init__(self, app: TaskQ, server: RedisServer, queue: QueueKeys) -> None:
        self.app, self.server, self.queue = app, server, queue
        self.now_s: float = NOW_S
        self.runner = CountingRunner(app.runtime.endpoint)
        self.runner.sent = []
        self.runner.now_ns = self.now_ns
        self.calls: list[tuple[str, list[str]]] = []
        self.aggregators: list[Aggregator] = []
        self._lane = new_tasks.ReceiptSlot("bench")

        @app.task(name="digest", retention=0)
        async def digest(of: str, names: list[str]) -> None: ...

        @app.task(name="notify", retention=0)
        async def notify(name: str) -> None: ...

        self.digest, self.notify = digest, notify

    def now_ns(self) -> int:
        return int(self.now_s * 1_000_000_000)

    def note(self, group: str, tasks: list[GroupedTask]) -> Signature[Any]:
        """Turn tasks into a digest of their names."""
        names = [task.kwargs["name"] for task in tasks]
        self.calls.append((group, names))
        return self.digest.s(group, names)

    def aggregator(self, owner: str = "w1", **options: Any) -> Aggregator:
        context = context_of(self.app, self.runner, token=owner, **{"leader_lease": 60, **options})
        leadership: Any = Unknown()
        self.aggregators.append(Aggregator(context, self.queue, leadership))
        return self.aggregators[-1]

    async def look(self, aggregator: Aggregator | None = None) -> Aggregator:
        """Let an aggregator check once, and wait for its sets."""
        aggregator = aggregator or self.aggregator()
        await aggregator.work()
        await until(lambda: not aggregator.is_busy, "the sets are done")
        return aggregator

    async def join(self, *names: str, group: str = "g", **fields: Any) -> None:
        """Put tasks into a group as a producer of any language does."""
        tasks = []
        for name in names:
            message = build_message(
                **{"type": "notify", "id": name, "queue": self.queue.name, "group_key": group, **fields},
                payload=b'{"name":"%b"}' % name.encode(),
            )
            tasks.append(NewTask(name, encode_message(message), group=group))
        for start in range(0, len(tasks), 200):
            operation = at_time(self.now_ns(), new_tasks.enqueue(self.queue, tasks[start : start + 200], self._lane))
            assert set(await self.runner.run(operation)) == {"1"}

    def pending(self) -> list[str]:
        """Ids of pending tasks, next to run first."""
        return texts(self.server.client.lrange(self.queue.pending, 0, -1))[::-1]

    def payloads(self) -> list[bytes]:
        return [stored(self.server, self.queue, task_id).payload for task_id in self.pending()]

    def hashes(self) -> set[str]:
        """Ids of all tasks there are."""
        return {key.rpartition(":t:")[2] for key in texts(self.server.client.keys(self.queue.task_prefix + "*"))}


@pytest.fixture
async def bench(app: TaskQ, redis_server: RedisServer, queue: QueueKeys) -> AsyncIterator[Bench]:
    bench = Bench(app, redis_server, queue)
    yield bench
    for each in bench.aggregators:
        each._context.close_callers()
    await bench.runner.aclose()
    await app.aclose()


class TestDue:
    async def test_a_group_without_new_members_becomes_one_task(self, bench: Bench) -> None:
        """Members come in the order of their time; the task takes their place in their queue."""
        bench.app.aggregator("g", grace=30)(bench.note)
        await bench.join("b")
        bench.now_s += 10
        await bench.join("a", "c")
        bench.now_s += 29
        assert (await bench.look()).combined == 0

        bench.now_s += 1
        aggregator = await bench.look()

        assert bench.calls == [("g", ["b", "a", "c"])]
        assert bench.payloads() == [b'{"of":"g","names":["b","a","c"]}']
        assert bench.hashes() == set(bench.pending())
        assert aggregator.combined == 1

    async def test_each_group_uses_the_settings_of_its_longest_pattern(self, bench: Bench) -> None:
        """The longest pattern counts."""
        bench.app.aggregator(grace=90)(bench.note)
        bench.app.aggregator("user:", grace=90, max_delay=60)(bench.note)
        bench.app.aggregator("user:7", grace=90, max_size=2)(bench.note)
        for group in ("other", "user:1", "user:7"):
            await bench.join(f"{group}-a", f"{group}-b", group=group)

        aggregator = bench.aggregator()
        made: list[tuple[int, list[str]]] = []
        for after_s in (0, 60, 30):
            bench.now_s += after_s
            await bench.look(aggregator)
            made.append((after_s, [group for group, _ in bench.calls]))
            bench.calls.clear()

        assert made == [(0, ["user:7"]), (60, ["user:1"]), (30, ["other"])]

    async def test_a_full_queue_accepts_the_task_of_a_group(self, bench: Bench) -> None:
        """The setting `LIMITS` applies only to the members. An accepted member is not refused later."""
        bench.app.configure(replace(bench.app.settings, limits={bench.queue.name: 1}))
        bench.app.aggregator("g", grace=30)(bench.note)
        filler = await bench.app.async_client.enqueue(bench.notify.using(queue=bench.queue.name).s("filler"))
        await bench.join("a", "b")
        bench.now_s += 30

        aggregator = await bench.look()

        assert aggregator.combined == 1
        assert len(bench.pending()) == 2
        assert bench.pending()[0] == filler.id

    async def test_one_check_aggregates_a_whole_backlog(self, bench: Bench) -> None:
        """Calls get the maximum size, oldest tasks first. The remaining tasks are younger than the grace."""
        bench.app.aggregator(max_size=10)(bench.note)
        names = [f"{number:03}" for number in range(135)]
        await bench.join(*names)

        await bench.look()

        assert sorted(names for _, names in bench.calls) == [names[start : start + 10] for start in range(0, 130, 10)]
        assert len(bench.pending()) == 13
        assert bench.hashes() - set(bench.pending()) == set(names[130:])

    async def test_ten_thousand_groups_are_checked_in_bounded_calls(self, bench: Bench) -> None:
        bench.app.aggregator("due", grace=1)(bench.note)
        bench.app.aggregator("young", grace=600)(bench.note)
        client = bench.server.client
        with client.pipeline(transaction=False) as pipeline:
            for number in range(10_000):
                pipeline.zadd(bench.queue.group(f"young{number}"), {"x": bench.now_s})
            pipeline.sadd(bench.queue.groups, *(f"young{number}" for number in range(10_000)))
            pipeline.execute()
        await bench.join("a", group="due")
        bench.now_s += 5
        bench.runner.sent.clear()

        await bench.look()

        assert bench.calls == [("due", ["a"])]
        looks = [operation for operation in bench.runner.sent if operation.name == "collect_groups"]
        assert max(len(operation.args) for operation in looks) <= 3 + 6 * 100
        assert len(looks) < 300
        assert Counter(operation.name for operation in bench.runner.sent)["list_groups"] <= 100


class TestFunctions:
    async def test_a_coroutine_aggregator_runs_on_the_loop_and_a_plain_one_in_a_thread(self, bench: Bench) -> None:
        where: dict[str, int] = {}

        @bench.app.aggregator("plain")
        def plain(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            where["plain"] = threading.get_ident()
            return bench.note(group, tasks)

        @bench.app.aggregator("coroutine")
        async def coroutine(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            where["coroutine"] = threading.get_ident()
            return bench.note(group, tasks)

        await bench.join("a", group="plain")
        await bench.join("b", group="coroutine")
        bench.now_s += 60

        await bench.look()

        assert where["coroutine"] == threading.get_ident() != where["plain"]
        assert sorted(bench.payloads()) == [b'{"of":"coroutine","names":["b"]}', b'{"of":"plain","names":["a"]}']

    async def test_middleware_wraps_aggregators(self, bench: Bench) -> None:
        """Middleware manages database connections, for example, which aggregators use too."""
        seen: list[tuple[str, str, str]] = []

        class Seeing(Middleware):
            def around(self, context: TaskContext, call: Callable[[], object]) -> object:
                seen.append(("plain", context.name, context.queue))
                return call()

            async def aaround(self, context: TaskContext, call: Callable[[], Any]) -> object:
                seen.append(("coroutine", context.name, context.queue))
                return await call()

        async def coroutine(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            return bench.note(group, tasks)

        bench.app.use(Seeing())
        bench.app.aggregator("plain")(bench.note)
        bench.app.aggregator("coroutine")(coroutine)
        await bench.join("a", group="plain")
        await bench.join("b", group="coroutine")
        bench.now_s += 60

        await bench.look()

        assert sorted((kind, name.rpartition(".")[2], queue) for kind, name, queue in seen) == [
            ("coroutine", "coroutine", "default"),
            ("plain", "note", "default"),
        ]

    async def test_middleware_sees_the_task_that_an_aggregator_enqueues(self, bench: Bench) -> None:
        """A blocking aggregator calls the blocking hook, a coroutine the async one. Both hooks get the new queue."""
        seen: list[tuple[str, str, bool]] = []
        loop_thread = threading.get_ident()

        class Seeing(Middleware):
            def enqueue(self, call: Signature[Any]) -> Signature[Any]:
                seen.append(("enqueue", call.task.options.queue, threading.get_ident() == loop_thread))
                return call.with_headers({"seen": "1"})

            async def aenqueue(self, call: Signature[Any]) -> Signature[Any]:
                seen.append(("aenqueue", call.task.options.queue, threading.get_ident() == loop_thread))
                return call

        async def coroutine(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            return bench.note(group, tasks)

        bench.app.use(Seeing(), queue="default")
        bench.digest = bench.digest.using(queue="elsewhere")
        bench.app.aggregator("plain")(bench.note)
        bench.app.aggregator("coroutine")(coroutine)
        await bench.join("a", group="plain")
        await bench.join("b", group="coroutine")
        bench.now_s += 60

        await bench.look()

        assert sorted(seen) == [("aenqueue", "default", True), ("enqueue", "default", False)]
        headers = [stored(bench.server, bench.queue, task_id).headers for task_id in bench.pending()]
        assert sorted(each.get("seen", "") for each in headers) == ["", "1"]

    async def test_the_task_of_a_group_continues_the_trace_of_the_first_member(self, bench: Bench) -> None:
        bench.app.aggregator()(bench.note)
        await bench.join("a", headers={"traceparent": TRACE})
        bench.now_s += 1
        await bench.join("b")
        bench.now_s += 60

        await bench.look()

        (task_id,) = bench.pending()
        headers = stored(bench.server, bench.queue, task_id).headers
        assert headers["traceparent"].split("-")[1] == TRACE.split("-")[1]

    async def test_the_span_of_a_group_task_links_to_the_enqueue_of_each_member(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        bench.app.aggregator()(bench.note)
        other = TRACE.replace("0af7", "1af7")
        for name, headers in (("a", {"traceparent": TRACE}), ("b", {"traceparent": other}), ("c", {})):
            await bench.join(name, headers=headers)
            bench.now_s += 1
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        bench.now_s += 60

        await bench.look()

        (send,) = exporter.get_finished_spans()
        assert send.parent is not None
        assert f"{send.parent.trace_id:032x}" == TRACE.split("-")[1]
        found = [f"{link.context.trace_id:032x}" for link in send.links]
        assert found == [TRACE.split("-")[1], other.split("-")[1]]

    async def test_the_task_of_a_group_is_in_the_queue_of_the_group_and_has_the_id_of_the_set(
        self, bench: Bench
    ) -> None:
        """The other options come from the call."""

        @bench.app.aggregator()
        def aggregate(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            return bench.note(group, tasks).using(queue="elsewhere", max_retry=2, retention=9, headers={"k": "v"})

        await bench.join("a")
        bench.now_s += 60

        await bench.look()

        (task_id,) = bench.pending()
        message = stored(bench.server, bench.queue, task_id)
        assert (message.queue, message.retry, message.retention, message.headers["k"]) == ("default", 2, 9, "v")
        (combine,) = [operation for operation in bench.runner.sent if operation.name == "combine"]
        assert combine.args[3] == task_id, "the id of the set"

    async def test_the_task_of_a_group_may_join_another_group(self, bench: Bench) -> None:
        @bench.app.aggregator("hour")
        def hourly(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            return bench.notify.using(aggregate="day", task_id="hourly").s(
                "+".join(task.kwargs["name"] for task in tasks)
            )

        bench.app.aggregator("day")(bench.note)
        await bench.join("a", "b", group="hour")
        bench.now_s += 60
        aggregator = await bench.look()
        assert state_of(bench.server, bench.queue, "hourly") == "aggregating"

        bench.now_s += 60
        await bench.look(aggregator)

        assert bench.payloads() == [b'{"of":"day","names":["a+b"]}']

    async def test_the_task_of_a_group_must_not_join_the_same_group(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        @bench.app.aggregator()
        def aggregate(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            return bench.note(group, tasks).using(aggregate="g")

        await bench.join("a")
        bench.now_s += 60

        assert (await bench.look()).failed == 1

        assert "the aggregator returned a task with aggregate='g', which would join the same group again" in caplog.text
        assert bench.hashes() == {"a"}

    async def test_discard_deletes_the_members_of_the_group(self, bench: Bench) -> None:
        @bench.app.aggregator()
        def aggregate(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            raise Discard

        await bench.join(*(f"{number}" for number in range(250)))
        bench.now_s += 60

        aggregator = await bench.look()

        assert bench.hashes() == set()
        assert (aggregator.combined, aggregator.failed) == (0, 0)
        assert not bench.server.client.exists(bench.queue.combined)

    async def test_concurrent_aggregators_are_bounded_by_the_slots(self, bench: Bench) -> None:
        gate, running, most = asyncio.Event(), 0, 0

        @bench.app.aggregator()
        async def aggregate(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await gate.wait()
            running -= 1
            return bench.note(group, tasks)

        for number in range(3 * AT_ONCE):
            await bench.join(f"id-{number}", group=f"g{number}")
        bench.now_s += 60
        looking = asyncio.ensure_future(bench.look())
        await until(lambda: running == AT_ONCE)
        assert bench.server.client.zcard(bench.queue.aggregation_sets) == AT_ONCE, (
            "others are not taken before their turn"
        )
        gate.set()
        await looking

        assert most == AT_ONCE
        assert len(bench.calls) == 3 * AT_ONCE

    async def test_a_group_of_many_pages_becomes_one_task(self, bench: Bench) -> None:
        bench.app.aggregator()(bench.note)
        names = [f"{number:04}" for number in range(1050)]
        await bench.join(*names)
        bench.now_s += 60

        await bench.look()

        assert bench.calls == [("g", names)]
        assert bench.hashes() == set(bench.pending())
        assert len(bench.pending()) == 1
        assert not bench.server.client.exists(bench.queue.combined)


class TestFailures:
    async def test_an_aggregator_that_raises_does_not_stop_the_other_aggregators(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        """After the timeout, the members return to their group and are aggregated again."""
        broken = True

        @bench.app.aggregator("bad", timeout=50)
        def bad(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            if broken:
                raise ValueError("canary")
            return bench.note(group, tasks)

        bench.app.aggregator("good")(bench.note)
        await bench.join("a", "b", group="bad")
        await bench.join("c", group="good")
        bench.now_s += 60
        aggregator = await bench.look()
        assert (aggregator.combined, aggregator.failed) == (1, 1)
        assert bench.calls == [("good", ["c"])]
        (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
        assert (
            "bad failed for group 'bad' of queue default; its tasks go back to the group after 50 s" in record.message
        )
        assert record.exc_info

        broken = False
        bench.now_s += 50
        await bench.look(aggregator)
        assert len(bench.calls) == 1
        bench.now_s += 1
        await bench.look(aggregator)

        assert bench.calls[1:] == [("bad", ["a", "b"])]
        assert (aggregator.reclaimed, aggregator.combined, aggregator.failed) == (1, 2, 1)

    @pytest.mark.parametrize("kind", ["nothing", "exit", "exit of a coroutine", "bad arguments", "cancelled"])
    async def test_an_aggregator_with_an_exit_or_an_invalid_result_has_failed(
        self, bench: Bench, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def plain(group: str, tasks: list[GroupedTask]) -> Any:
            if kind == "exit":
                raise SystemExit(1)
            return bench.digest.s(group, "no list") if kind == "bad arguments" else None  # type: ignore[arg-type]

        async def coroutine(group: str, tasks: list[GroupedTask]) -> Any:
            raise asyncio.CancelledError if kind == "cancelled" else SystemExit(1)

        bench.app.aggregator()(coroutine if kind in ("cancelled", "exit of a coroutine") else plain)
        await bench.join("a")
        bench.now_s += 60

        aggregator = await bench.look()

        assert (aggregator.combined, aggregator.failed) == (0, 1)
        assert bench.hashes() == {"a"}
        words = {
            "nothing": "an aggregator must return a task signature, task.s(...), got NoneType",
            "exit": "user code raised SystemExit",
            "exit of a coroutine": "user code raised SystemExit",
            "bad arguments": "names",
            "cancelled": "user code raised CancelledError",
        }
        assert words[kind] in caplog.text

    @pytest.mark.parametrize("kind", ["plain", "coroutine"])
    async def test_an_aggregator_that_exceeds_its_timeout_is_interrupted(
        self, bench: Bench, clock: Clock, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        begun, stopped = threading.Event(), threading.Event()

        def plain(group: str, tasks: list[GroupedTask]) -> Any:
            begun.set()
            try:
                until_released()
            finally:
                stopped.set()

        async def coroutine(group: str, tasks: list[GroupedTask]) -> Any:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        bench.app.aggregator(timeout=30)(plain if kind == "plain" else coroutine)
        await bench.join("a")
        bench.now_s += 60

        looking = asyncio.ensure_future(bench.look())
        await until(begun.is_set)
        await clock.advance(31)
        aggregator = await looking

        assert stopped.is_set()
        assert aggregator.failed == 1
        assert "an aggregator did not end within 30 s" in caplog.text

    async def test_an_aggregator_that_ignores_its_interrupt_is_abandoned(
        self, bench: Bench, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The set goes back to its group when its time is over."""
        released = threading.Event()
        begun = threading.Event()
        interrupts: list[TaskInterrupted] = []

        @bench.app.aggregator(timeout=30)
        def aggregate(group: str, tasks: list[GroupedTask]) -> Any:
            begun.set()
            while not released.is_set():
                try:
                    until_released(released)
                except TaskInterrupted as error:
                    interrupts.append(error)

        await bench.join("a")
        bench.now_s += 60

        looking = asyncio.ensure_future(bench.look())
        await until(begun.is_set)
        await clock.advance(30.1)
        aggregator = await looking
        await until(lambda: interrupts)
        released.set()

        assert aggregator.failed == 1
        assert "an aggregator did not end within 30 s" in caplog.text

    async def test_members_that_cannot_be_deleted_at_once_are_deleted_by_the_next_check(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The task is stored, and the next check deletes the members."""
        bench.app.aggregator()(bench.note)
        await bench.join(*(f"{number:03}" for number in range(250)))
        bench.now_s += 60
        run = bench.runner.run

        async def refusing(operation: Operation[T], *, patience_s: float | None = None) -> T:
            if operation.name == "sweep":
                raise BrokerUnavailableError("away")
            return await run(operation, patience_s=patience_s)

        bench.runner.run = refusing  # type: ignore[method-assign]
        aggregator = await bench.look()
        assert (aggregator.combined, aggregator.failed) == (1, 0)
        assert "failed" not in caplog.text
        assert len(bench.hashes()) > 100

        bench.runner.run = run  # type: ignore[method-assign]
        await bench.look(aggregator)

        assert bench.hashes() == set(bench.pending())

    async def test_a_group_key_of_another_type_is_logged_once(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench.app.aggregator()(bench.note)
        bench.server.client.sadd(bench.queue.groups, "odd")
        bench.server.client.set(bench.queue.group("odd"), "strange")
        aggregator = bench.aggregator()

        for _ in range(3):
            await bench.look(aggregator)

        assert [each.message for each in caplog.records if each.levelname == "ERROR"] == [
            "the key of group 'odd' in queue default is not a sorted set (once per queue)"
        ]

    async def test_a_group_of_unreadable_members_is_removed(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench.app.aggregator()(bench.note)
        await bench.join("bad")
        bench.server.client.hset(bench.queue.task("bad"), "msg", b"\xff\xff")
        bench.now_s += 60
        aggregator = await bench.look()

        bench.now_s += LATE_S
        await bench.look(aggregator)

        assert bench.calls == []
        assert "their sets do not exist" not in caplog.text

    async def test_an_aggregator_gets_its_full_timeout_when_it_starts_late_in_a_second(self, bench: Bench) -> None:
        """Deadlines are whole seconds: one of a second from now would be over in a tenth of it."""

        @bench.app.aggregator(timeout=1)
        async def aggregate(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            bench.now_s += 0.95
            return bench.note(group, tasks)

        await bench.join("a")
        bench.now_s += 60.9

        aggregator = await bench.look()

        assert (aggregator.combined, len(bench.pending())) == (1, 1)

    async def test_a_late_result_of_an_aggregator_is_ignored(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The members are back in their group already; they make one task, not two."""

        @bench.app.aggregator()
        async def aggregate(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            if not bench.calls:
                bench.now_s += LATE_S
                await bench.aggregator("w1")._reclaim_expired()
            return bench.note(group, tasks)

        await bench.join("a")
        bench.now_s += 60
        aggregator = await bench.look()
        assert (aggregator.combined, bench.pending()) == (0, [])
        assert "returned to its group before it was combined; it will be collected again" in caplog.text

        await bench.look(aggregator)

        assert (aggregator.combined, len(bench.pending())) == (1, 1)
        assert bench.hashes() == set(bench.pending())

    async def test_a_group_waits_until_the_id_of_its_task_is_free(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        @bench.app.aggregator()
        def aggregate(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            return bench.note(group, tasks).using(task_id="daily")

        await bench.digest.using(task_id="daily").adelay("earlier", [])
        await bench.join("a")
        bench.now_s += 60
        aggregator = await bench.look()
        assert aggregator.failed == 1
        assert "'daily'" in caplog.text
        assert "Traceback" not in caplog.text

        bench.server.client.delete(bench.queue.task("daily"))
        bench.now_s += LATE_S
        await bench.look(aggregator)

        assert stored(bench.server, bench.queue, "daily").payload == b'{"of":"g","names":["a"]}'

    async def test_deleted_and_unreadable_members_do_not_stop_the_other_members(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench.app.aggregator()(bench.note)
        await bench.join("a", "bad", "gone")
        bench.server.client.hset(bench.queue.task("bad"), "msg", b"\xff\xff")
        bench.server.client.delete(bench.queue.task("gone"))
        await bench.join("alone", group="h")
        bench.server.client.delete(bench.queue.task("alone"))
        bench.now_s += 60

        aggregator = await bench.look()

        assert bench.calls == [("g", ["a"])]
        assert bench.hashes() - set(bench.pending()) == set()
        assert bench.server.client.hget(bench.queue.quarantined("bad"), "msg") == b"\xff\xff"
        assert (aggregator.combined, aggregator.failed) == (1, 0)
        assert bench.server.client.zcard(bench.queue.aggregation_sets) == 0
        assert "1 tasks in group 'g' of queue default cannot be read and are moved to quarantine" in caplog.text

    async def test_the_members_of_a_set_survive_the_death_of_its_worker(self, bench: Bench) -> None:
        """The worker is killed after it took the set. Another worker, even one in Go, returns the members."""
        bench.app.aggregator()(bench.note)
        await bench.join("a", "b")
        bench.now_s += 60
        check = aggregation.GroupCheck("g", "lost", 120, 60)
        assert (
            await bench.runner.run(
                at_time(bench.now_s * 10**9, aggregation.collect_groups(bench.queue, [check], limit=1))
            )
            == "1"
        )

        aggregator = await bench.look()
        assert bench.calls == []
        bench.now_s += LATE_S
        await bench.look(aggregator)

        assert bench.calls == [("g", ["a", "b"])]

    async def test_the_death_of_a_worker_before_it_deletes_members_duplicates_no_task(self, bench: Bench) -> None:
        """The worker is killed after it stored the task. Another worker deletes the remaining members."""
        bench.app.aggregator()(bench.note)
        names = [f"{number:03}" for number in range(350)]
        await bench.join(*names)
        bench.now_s += 60
        check = aggregation.GroupCheck("g", "s", 120, 60)
        await bench.runner.run(at_time(bench.now_s * 10**9, aggregation.collect_groups(bench.queue, [check], limit=1)))
        await bench.runner.run(aggregation.combine(bench.queue, "g", "s", 350, NewTask("one", b"m")))
        assert len(bench.hashes()) == 251

        bench.now_s += 500
        await bench.look()

        assert bench.hashes() == {"one"}
        assert (bench.calls, bench.pending()) == ([], ["one"])

    async def test_a_group_may_have_any_name_that_go_allows(self, bench: Bench) -> None:
        """The function gets the name unchanged, including invalid UTF-8, spaces and colons."""
        bench.app.aggregator()(lambda group, tasks: bench.digest.s(repr(group), [task.id for task in tasks]))
        for number, name in enumerate((b"a:b: c", b"caf\xe9", "\u00fc".encode())):
            task_id = f"id-{number}"
            bench.server.client.hset(bench.queue.task(task_id), mapping={"state": "aggregating", "group": name})
            bench.server.client.hset(bench.queue.task(task_id), "msg", encode_message(build_message(id=task_id)))
            bench.server.client.zadd(bench.queue.group_prefix.encode() + name, {task_id: NOW_S - 60})
            bench.server.client.sadd(bench.queue.groups, name)

        aggregator = await bench.look()

        assert (aggregator.combined, aggregator.failed) == (3, 0)
        assert bench.hashes() == set(bench.pending())

    async def test_a_lost_reply_does_not_duplicate_the_task_of_a_group(self, bench: Bench) -> None:
        """The repeat is recognized, even if the task has run in between."""
        bench.app.aggregator()(bench.note)
        await bench.join("a")
        bench.now_s += 60
        run = bench.runner.run

        async def lossy(operation: Operation[T], *, patience_s: float | None = None) -> T:
            answer = await run(operation, patience_s=patience_s)
            if operation.name != "combine":
                return answer
            bench.server.client.delete(bench.queue.pending)
            return await run(operation, patience_s=patience_s)

        bench.runner.run = lossy  # type: ignore[method-assign]
        aggregator = await bench.look()

        assert (aggregator.combined, aggregator.failed, bench.pending()) == (1, 0, [])


class TestLead:
    async def test_one_of_several_workers_checks_the_groups(self, bench: Bench) -> None:
        bench.app.aggregator()(bench.note)
        first, second = bench.aggregator("w1"), bench.aggregator("w2")
        await bench.look(first)
        await bench.join("a")
        bench.now_s += 60

        await bench.look(second)
        assert bench.calls == []
        await first.resign()
        await bench.look(second)

        assert bench.calls == [("g", ["a"])]

    async def test_workers_with_other_aggregators_check_the_groups_too(self, bench: Bench) -> None:
        """The other worker may be another program or the next release. Both call their aggregators."""
        other = TaskQ(bench.server.url)
        other.aggregator("other:")(bench.note)
        none = TaskQ(bench.server.url)
        bench.app.aggregator("mine:")(bench.note)
        await bench.join("a", group="mine:1")
        await bench.join("b", group="other:1")
        bench.now_s += 60

        mine = bench.aggregator("w1")
        for owner, app in (("w0", none), ("w2", other)):
            bench.app, ours = app, bench.app
            await bench.look(bench.aggregator(owner))
            bench.app = ours
        await bench.look(mine)

        assert sorted(bench.calls) == [("mine:1", ["a"]), ("other:1", ["b"])]
        for app in (other, none):
            await app.aclose()

    async def test_a_group_without_an_aggregator_is_logged_once(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench.app.aggregator("mine")(bench.note)
        await bench.join("a", group="other")
        bench.now_s += 600
        aggregator = bench.aggregator()

        for _ in range(3):
            await bench.look(aggregator)

        assert [each.message for each in caplog.records if each.levelname == "WARNING"] == [
            "this worker has no aggregator for group 'other' of queue default, in which tasks wait (once per queue)"
        ]

    async def test_a_worker_without_aggregators_returns_expired_sets_of_other_workers(self, bench: Bench) -> None:
        await bench.join("a")
        check = aggregation.GroupCheck("g", "s", 120, 1)
        bench.now_s += 5
        await bench.runner.run(at_time(bench.now_s * 10**9, aggregation.collect_groups(bench.queue, [check], limit=1)))
        bench.now_s += LATE_S

        aggregator = await bench.look()

        assert aggregator.reclaimed == 1
        assert texts(bench.server.client.zrange(bench.queue.group("g"), 0, -1)) == ["a"]


class TestWorker:
    async def test_a_worker_aggregates_a_group_and_runs_the_new_task(
        self, app: TaskQ, start: Runner, clock: Clock
    ) -> None:
        """The test includes a scheduled task that joins its group when it is due."""
        results: list[tuple[str, list[int]]] = []

        @app.task
        async def digest(user: str, numbers: list[int]) -> None:
            results.append((user, numbers))

        @app.task(aggregate="user:1")
        def notify(number: int) -> None: ...

        @app.aggregator("user:", max_size=3)
        def aggregate(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            return digest.s(group, sorted(task.kwargs["number"] for task in tasks))

        await start()
        await notify.adelay(1)
        await notify.using(run_after=20).adelay(2)
        await app.async_client.enqueue_many([notify.s(3)])
        await clock.advance(25)
        await until(lambda: results)

        assert results == [("user:1", [1, 2, 3])]

    async def test_hanging_aggregators_do_not_block_the_threads_of_other_queues(
        self, app: TaskQ, start: Runner, clock: Clock
    ) -> None:
        """The worker asks for its replacement once they take all threads of their queue."""
        released = threading.Event()
        hanging: list[str] = []
        results: list[str] = []

        @app.task
        async def digest(group: str) -> None:
            results.append(group)

        @app.aggregator("hangs:", queue="bad", timeout=1, max_size=1)
        def hang(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            hanging.append(group)
            released.wait()  # one call, which no interruption reaches
            return digest.s(group)

        @app.aggregator("works", queue="good", max_size=1)
        def combine(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            return digest.s(group)

        worker = await start(queues={"bad": 1, "good": 1})
        asked: list[str] = []
        worker.on_exhausted = asked.append
        for number in range(2 * AT_ONCE):  # twice as many as may hang
            await digest.using(queue="bad", aggregate=f"hangs:{number}").adelay("")
        await clock.advance(10)
        await until(lambda: len(hanging) >= AT_ONCE)
        await clock.advance(10)
        await digest.using(queue="good", aggregate="works").adelay("")
        await clock.advance(10)

        try:
            await until(lambda: results == ["works"])
            assert "earlier calls of an aggregator hang" in asked[0]
        finally:
            released.set()

    async def test_a_stopped_worker_leaves_no_aggregator_threads(self, app: TaskQ, start: Runner) -> None:
        threads: list[threading.Thread] = []

        @app.task(name="digest", retention=0)
        async def digest() -> None: ...

        @app.aggregator(max_size=1)
        def aggregate(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            threads.append(threading.current_thread())
            return digest.s()

        worker = await start(aggregate_every=0.02)
        await digest.using(aggregate="g").adelay()
        await until(lambda: threads)
        await start.stop(worker)

        await until(lambda: not threads[0].is_alive())

    async def test_a_stopping_worker_waits_for_its_aggregators(
        self, app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
    ) -> None:
        begun, gate = asyncio.Event(), asyncio.Event()

        @app.task(name="digest", retention=0)
        async def digest() -> None: ...

        @app.aggregator(max_size=1)
        async def aggregate(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            begun.set()
            await gate.wait()
            return digest.s()

        worker = await start(aggregate_every=0.02)
        await digest.using(aggregate="g").adelay()
        await begun.wait()
        worker.stop()
        await until(lambda: worker.status == "stopped")
        gate.set()

        assert await start.ending(worker) == 0
        assert redis_server.client.llen(queue.pending) == 1
        assert redis_server.client.zcard(queue.aggregation_sets) == 0

    @pytest.mark.parametrize("kind", ["plain", "coroutine"])
    async def test_a_stopping_worker_returns_unfinished_sets_at_once(
        self, app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, kind: str
    ) -> None:
        begun, stopped = threading.Event(), threading.Event()

        @app.task(name="digest")
        async def digest() -> None: ...

        def plain(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            begun.set()
            until_released(stopped)
            return digest.s()

        async def coroutine(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            begun.set()
            await asyncio.Event().wait()
            return digest.s()

        app.aggregator(max_size=1)(plain if kind == "plain" else coroutine)
        worker = await start(aggregate_every=0.02, shutdown_grace=0, interrupt_grace=20)
        await digest.using(aggregate="g").adelay()
        await until(begun.is_set)
        assert await start.stop(worker) == 0
        stopped.set()

        reclaim = aggregation.reclaim(queue, "aggregator", owner="w2", leader_ms=1000)
        await app.runtime.async_runner.run(reclaim)  # unless the worker did this itself in its last check
        assert redis_server.client.zcard(queue.aggregation_sets) == 0
        assert redis_server.client.zcard(queue.group("g")) == 1
        assert redis_server.client.llen(queue.pending) == 0

    async def test_burst_mode_ends_when_no_group_is_due(
        self, app: TaskQ, start: Runner, redis_server: RedisServer
    ) -> None:
        @app.task(retention=0)
        async def digest(count: int) -> None: ...

        @app.aggregator(max_size=2)
        def aggregate(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
            return digest.s(len(tasks))

        ends = Ends()
        for _ in range(5):
            await digest.using(aggregate="g").adelay(0)
        worker = await start(burst=True, listener=ends)

        assert await start.ending(worker) == 0
        assert [outcome for _, outcome in ends.ends] == ["completed", "completed"]
        assert redis_server.client.zcard("asynq:{default}:g:g") == 1
