"""Test the metrics of queues, the cost of a scrape, and a scrape without Redis."""

import asyncio
import gzip
import re
import time
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics

from taskq_core import ConfigurationError, TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import operation as operation_ops
from taskq_core.broker.operations import samples as sample_ops
from taskq_core.inspector import Inspector
from taskq_core.wire import ServerInfo
from taskq_core.wire.tallies import BOUNDS_S, TypeCounters
from taskq_exporter import Exporter, ExporterConfig
from taskq_exporter.series import LimitedNames
from tests.docs.pages import table
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.worker.conftest import Runner, until
from tests.taskq_exporter.scraping import HandClock, scrape

pytestmark = pytest.mark.redis

PAGE = "reference/exporter.md"
OF_ASYNQ = {
    "asynq_tasks_enqueued_total": ("gauge", {"queue", "state"}),
    "asynq_queue_size": ("gauge", {"queue"}),
    "asynq_queue_latency_seconds": ("gauge", {"queue"}),
    "asynq_queue_memory_usage_approx_bytes": ("gauge", {"queue"}),
    "asynq_tasks_processed_total": ("counter", {"queue"}),
    "asynq_tasks_failed_total": ("counter", {"queue"}),
    "asynq_queue_paused_total": ("gauge", {"queue"}),
}
"""Kind and labels of the metrics in Asynq's own exporter."""


def fresh(app: TaskQ, **values: Any) -> Exporter:
    """An exporter that has read nothing yet."""
    return Exporter(app, ExporterConfig(**values))


def runs(seconds: float, count: int = 1, *, failed: int = 0, archived: int = 0) -> TypeCounters:
    tally = TypeCounters.empty()
    tally.processed, tally.failed, tally.archived, tally.total_ms = count, failed, archived, seconds * 1000 * count
    tally.buckets[BOUNDS_S.index(seconds)] = count
    return tally


async def hand_in(app: TaskQ, call: int, queue: str = "default", **types: TypeCounters) -> None:
    """Tell of runs, as a worker does."""
    keys = app.runtime.keys.queue(queue)
    assert await app.runtime.async_runner.run(sample_ops.count_runs(keys, 500_000, types, owner="w1", call=call)) == 1


async def present(app: TaskQ, count: int) -> None:
    """Have worker processes say that they live."""
    for number in range(count):
        info = ServerInfo(host="h", pid=number, server_id="s", concurrency=3, queues={"default": 1})
        key = f"asynq:servers:{{h:{number}:s}}"
        for words in (("SET", key, info.encode()), ("ZADD", "asynq:servers", time.time() + 60, key)):
            await app.runtime.async_runner.run(operation_ops.Operation(words[0], None, (words[1],), words, str))


async def fill(app: TaskQ) -> None:
    """Put tasks into all states but active and completed, and pause a queue."""
    for _ in range(3):
        await app.remote("plain").adelay()
    await app.remote("late", run_after=3600).adelay()
    for number in range(4):
        await app.remote("one", aggregate=f"g{number % 2}").adelay()
    await app.remote("elsewhere", queue="low").adelay()
    inspector = Inspector(app)
    (task, *_) = inspector.tasks("default", "pending").tasks
    inspector.archive_task("default", task.id)
    inspector.pause("low")


async def test_the_names_kinds_and_labels_are_those_of_asynq(app: TaskQ) -> None:
    await fill(app)

    found = await scrape(fresh(app))

    for name, (kind, labels) in OF_ASYNQ.items():
        assert found.kinds[name] == kind
        assert {frozenset(dict(each)) for each in found.samples[name]} == {frozenset(labels)}, name


async def test_tasks_are_counted_by_queue_and_state_including_groups(app: TaskQ) -> None:
    await fill(app)

    found = await scrape(fresh(app))

    told = found.samples["asynq_tasks_enqueued_total"]
    sizes = {dict(each)["state"]: value for each, value in told.items() if dict(each)["queue"] == "default"}
    assert sizes == {
        "active": 0,
        "pending": 2,
        "scheduled": 1,
        "retry": 0,
        "archived": 1,
        "completed": 0,
        "aggregating": 4,
    }
    assert found.by("asynq_queue_size", "queue") == {"default": 8, "low": 1}
    assert found.by("asynq_queue_paused_total", "queue") == {"default": 0, "low": 1}
    assert found.by("taskq_queue_groups", "queue") == {"default": 2, "low": 0}
    assert found.of("asynq_queue_latency_seconds", queue="default") > 0
    assert found.of("asynq_queue_memory_usage_approx_bytes", queue="default") > 500
    assert found.of("taskq_up") == 1


async def test_an_empty_redis_is_reported_as_up(app: TaskQ) -> None:
    found = await scrape(fresh(app))

    assert (found.of("taskq_up"), found.of("taskq_workers")) == (1, 0)
    assert "asynq_queue_size" not in found.samples


async def test_runs_are_counted_by_task_type_with_their_duration(app: TaskQ) -> None:
    await app.remote("plain").adelay()
    await hand_in(app, 1, fast=runs(0.01, 8, failed=2), slow=runs(10, 1, failed=1, archived=1))
    await hand_in(app, 2, fast=runs(0.25, 2))

    found = await scrape(fresh(app))

    assert found.by("taskq_tasks_processed_total", "type") == {"fast": 10, "slow": 1}
    assert found.by("taskq_tasks_failed_total", "type") == {"fast": 2, "slow": 1}
    assert found.by("taskq_tasks_archived_total", "type") == {"fast": 0, "slow": 1}
    buckets = {
        dict(labels)["le"]: value
        for labels, value in found.samples["taskq_task_duration_seconds_bucket"].items()
        if dict(labels)["type"] == "fast"
    }
    assert (buckets["0.005"], buckets["0.01"], buckets["0.1"], buckets["0.25"], buckets["+Inf"]) == (0, 8, 8, 10, 10)
    assert found.of("taskq_task_duration_seconds_count", queue="default", type="fast") == 10
    assert found.of("taskq_task_duration_seconds_sum", queue="default", type="fast") == pytest.approx(0.58)


async def test_counters_continue_after_a_restart_and_after_midnight(app: TaskQ, redis_server: RedisServer) -> None:
    """They are those since ever, not those of the day, which begin anew."""
    await app.remote("plain").adelay()
    keys = app.runtime.keys.queue("default")
    await hand_in(app, 1, plain=runs(0.01, 5))
    redis_server.client.mset({keys.processed: 50, keys.failed: 5})

    before = await scrape(fresh(app))
    redis_server.client.mset({keys.processed: 51, keys.daily_processed(0): 1})
    await hand_in(app, 2, plain=runs(0.01, 1))
    after = await scrape(fresh(app))

    for name in ("asynq_tasks_processed_total", "taskq_tasks_processed_total"):
        (one,), (two,) = before.samples[name].values(), after.samples[name].values()
        assert two == one + 1, name
    assert after.of("asynq_tasks_failed_total", queue="default") == 5


def stuff(server: RedisServer, queues: int, tasks: int, groups: int) -> None:
    """Put names of tasks and groups into queues, without the tasks themselves."""
    pipeline = server.client.pipeline()
    for queue in (f"q{number}" for number in range(queues)):
        pipeline.sadd("asynq:queues", queue)
        for chunk in range(0, tasks, 1000):
            pipeline.rpush(f"asynq:{{{queue}}}:pending", *(f"t{chunk + each}" for each in range(1000)))
        for group in range(groups):
            pipeline.sadd(f"asynq:{{{queue}}}:groups", f"g{group}")
            pipeline.zadd(f"asynq:{{{queue}}}:g:g{group}", {"m": 1})
    pipeline.execute()


async def test_the_cost_of_a_scrape_depends_only_on_the_number_of_queues(
    app: TaskQ, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds for the calls, and for the work of the scripts inside Redis."""
    calls: list[str] = []
    run = AsyncRunner.run

    async def counted(self: AsyncRunner, operation: Any, **more: Any) -> Any:
        calls.append(operation.name)
        return await run(self, operation, **more)

    monkeypatch.setattr(AsyncRunner, "run", counted)

    async def cost() -> tuple[int, int]:
        calls.clear()
        redis_server.command("CONFIG", "RESETSTAT")
        found = await scrape(fresh(app))
        stats: Any = redis_server.client.info("commandstats")
        assert found.of("taskq_up") == 1
        inside = sum(each["calls"] for name, each in stats.items() if not name.startswith(("cmdstat_c", "cmdstat_i")))
        return len(calls), inside

    stuff(redis_server, queues=2, tasks=1000, groups=1100)
    await cost()  # which loads the scripts
    small = await cost()
    stuff(redis_server, queues=2, tasks=100_000, groups=10_000)
    large = await cost()
    told = await scrape(fresh(app))
    stuff(redis_server, queues=4, tasks=1000, groups=0)
    more_queues = await cost()

    assert large == small
    assert small[0] == 3 + 3 * 2, "names, workers and schedulers; three a queue"
    assert more_queues[0] == 3 + 3 * 4
    assert told.of("asynq_tasks_enqueued_total", queue="q0", state="aggregating") == 10_000
    assert told.of("asynq_tasks_enqueued_total", queue="q0", state="pending") == 101_000


async def test_all_workers_are_read_with_one_command(app: TaskQ, redis_server: RedisServer) -> None:
    await app.remote("plain").adelay()
    await present(app, 50)
    redis_server.client.delete("asynq:servers:{h:1:s}")  # a worker that has just stopped
    redis_server.client.set("asynq:servers:{h:0:s}", b"\xff\xff")
    redis_server.command("CONFIG", "RESETSTAT")

    found = await scrape(fresh(app))

    stats: Any = redis_server.client.info("commandstats")
    assert stats["cmdstat_mget"]["calls"] == 2, "the counters of the queue, and the workers"
    assert "cmdstat_get" not in stats
    assert found.of("taskq_workers") == 48
    assert found.by("taskq_queue_worker_slots", "queue") == {"default": 144}


async def test_concurrent_scrapes_share_one_collection(app: TaskQ) -> None:
    await fill(app)
    exporter = fresh(app)

    found = await asyncio.gather(*(scrape(exporter) for _ in range(20)))

    assert {each.of("asynq_queue_size", queue="default") for each in found} == {8}
    assert found[-1].of("taskq_exporter_readings_total") == 1
    assert found[-1].of("taskq_exporter_scrapes_total") == 20


async def test_a_collection_is_reused_for_one_second(app: TaskQ) -> None:
    clock = HandClock()
    exporter = Exporter(app, clock=clock.monotonic)

    sizes = []
    for passed_s in (0, 0.9, 0.2):
        await app.remote("plain").adelay()
        clock.advance(passed_s)
        sizes.append((await scrape(exporter)).of("asynq_queue_size", queue="default"))

    assert sizes == [1, 1, 3]


async def test_a_broken_connection_is_not_reported_as_an_outage(redis_server: RedisServer) -> None:
    with Relay(redis_server.socket_path) as relay:
        app = TaskQ(relay.url)
        relay.drop_reply_to(b"SMEMBERS", times=2)

        found = await scrape(fresh(app))
        await app.aclose()

    assert (found.of("taskq_up"), relay.intercepted) == (1, 2)


async def test_a_damaged_queue_is_reported_and_does_not_hide_others(app: TaskQ, redis_server: RedisServer) -> None:
    await app.remote("plain").adelay()
    await app.remote("plain", queue="low").adelay()
    redis_server.client.set("asynq:{low}:archived", "x")
    redis_server.client.set("taskq:{default}:totals", "x")

    found = await scrape(fresh(app))

    assert found.by("taskq_queue_damaged", "queue") == {"default": 0, "low": 1}
    assert found.by("asynq_queue_size", "queue") == {"default": 1}


async def test_queues_and_types_over_the_maximum_are_omitted_and_counted(app: TaskQ) -> None:
    for number, queue in enumerate(("a", "b", "c", "d")):
        for _ in range(number + 1):
            await app.remote("plain", queue=queue).adelay()
        await hand_in(app, 1, queue, one=runs(0.01, 1), two=runs(0.01, 10))

    found = await scrape(fresh(app, max_queues=2, max_types=1))

    assert found.by("asynq_queue_size", "queue") == {"a": 1, "b": 2}
    assert found.samples["taskq_tasks_processed_total"] == {(("queue", "a"), ("type", "one")): 1}
    assert found.by("taskq_exporter_omitted", "label") == {"queue": 2, "type": 3}


def test_an_exported_name_stays_exported_while_it_exists() -> None:
    """Else a counter would jump from one label to another whenever a queue comes."""
    places: LimitedNames[str] = LimitedNames(2)

    taken = [sorted(places.select(names)) for names in (["b", "c", "d"], ["a", "b", "c", "d"], ["a", "c", "d"])]

    assert taken == [["b", "c"], ["b", "c"], ["a", "c"]]


async def test_workers_and_schedulers_are_exported(app: TaskQ, start: Runner) -> None:
    """Each queue reports the workers that serve it. A scheduler counts while it has entries."""
    await app.remote("plain", run_after=3600).adelay()
    await app.remote("plain", queue="low", run_after=3600).adelay()
    app.schedule("@daily", app.remote("beat"), id="beat")
    await start(queues={"default": 1}, concurrency=7)
    await start(queues={"default": 2, "low": 1}, concurrency=3, with_scheduler=True)

    async def told() -> Any:
        found = await scrape(fresh(app))
        return found if found.of("taskq_workers") == 2 and found.of("taskq_schedulers") == 1 else None

    found = await until(told)

    assert found.by("taskq_queue_workers", "queue") == {"default": 2, "low": 1}
    assert found.by("taskq_queue_worker_slots", "queue") == {"default": 10, "low": 3}
    assert found.by("taskq_queue_worker_busy", "queue") == {"default": 0, "low": 0}


async def test_runs_of_workers_are_exported(app: TaskQ, start: Runner) -> None:
    """A real worker runs the tasks, so no count in Redis is made up by the test."""

    @app.task(name="real", retention=600)
    async def real() -> None: ...

    worker = await start()
    for handle in [await real.adelay() for _ in range(5)]:
        await handle.aresult(timeout=30)
    await start.stop(worker)

    found = await scrape(fresh(app))

    assert found.of("taskq_tasks_processed_total", queue="default", type="real") == 5
    assert found.of("asynq_tasks_processed_total", queue="default") == 5


async def test_openmetrics_and_compression_are_used_on_request(app: TaskQ) -> None:
    await fill(app)
    await hand_in(app, 1, fast=runs(0.01))
    exporter = fresh(app)

    plain = await exporter.expose(accept="text/plain")
    asked = await exporter.expose(accept="application/openmetrics-text; version=1.0.0", accept_encoding="br, gzip")

    text = gzip.decompress(asked.body).decode()
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert asked.headers["Content-Type"].startswith("application/openmetrics-text")
    assert asked.headers["Content-Encoding"] == "gzip"
    assert text.endswith("# EOF\n")
    families = {family.name: family.type for family in read_openmetrics(text)}
    assert families["asynq_tasks_processed"] == "counter"
    assert families["asynq_tasks_enqueued_total"] == "gauge"
    assert families["taskq_task_duration_seconds"] == "histogram"


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=abc",
        'application/openmetrics-text; version="1.0.0"',
        "text/plain;version=1..0",
        "application/openmetrics-text;version=" + "9" * 5000,
        ";;=,,\x00",
    ],
)
async def test_an_invalid_accept_header_gets_the_text_format(app: TaskQ, accept: str) -> None:
    told = await fresh(app).expose(accept=accept)

    assert told.headers["Content-Type"].startswith("text/plain")
    assert b"taskq_up 1.0" in told.body


async def test_names_that_would_break_a_line_are_escaped(app: TaskQ) -> None:
    await app.remote("plain", queue='q"\\é').adelay()
    await hand_in(app, 1, 'q"\\é', **{'t"{}\\': runs(0.01)})

    found = await scrape(fresh(app))

    assert found.of("asynq_queue_size", queue='q"\\é') == 1
    assert found.of("taskq_tasks_processed_total", queue='q"\\é', type='t"{}\\') == 1


async def test_process_metrics_are_exported_only_by_the_exporter_process(app: TaskQ) -> None:
    alone = await scrape(Exporter(app, with_process=True))
    inside = await scrape(fresh(app))

    assert "process_resident_memory_bytes" in alone.samples or "python_info" in alone.samples
    assert not [name for name in inside.samples if name.startswith(("process_", "python_"))]
    assert list(inside.by("taskq_build_info", "version").values()) == [1]


TYPES, MEMORY = ("types", "-hgetall"), ("memory", "-memory")


@pytest.mark.parametrize(("what", "rule"), [TYPES, MEMORY])
async def test_only_metrics_without_permission_are_missing(
    app: TaskQ, redis_server: RedisServer, caplog: pytest.LogCaptureFixture, what: str, rule: str
) -> None:
    """All other metrics are exported. The failure is counted, and logged once."""
    redis_server.command("ACL", "SETUSER", "some", "reset", "on", ">pw", "~*", "&*", "+@all", rule)
    await app.remote("plain").adelay()
    await app.remote("plain", queue="low").adelay()
    await hand_in(app, 1, plain=runs(0.01))
    clock = HandClock()
    with Relay(redis_server.socket_path) as relay:
        reader = TaskQ(relay.url.replace("redis://", "redis://some:pw@"))
        exporter = Exporter(reader, clock=clock.monotonic)

        found = [await scrape(exporter)]
        clock.advance(2)
        found.append(await scrape(exporter))
        await reader.aclose()

    for each in found:
        assert (each.of("taskq_up"), each.of("asynq_queue_size", queue="default")) == (1, 1)
        assert each.by("taskq_exporter_refused", "what") == {"queue": 0, "memory": 0, "types": 0} | {what: 2}
        assert ("taskq_tasks_processed_total" in each.samples) == (what != "types")
        assert ("asynq_queue_memory_usage_approx_bytes" in each.samples) == (what != "memory")
    assert caplog.text.count("metrics of queues 'default', 'low' are incomplete: ") == 1


async def test_a_queue_without_permission_does_not_hide_others(redis_server: RedisServer) -> None:
    """A user without rights to any queue gets no queue metrics."""
    rules = ("reset", "on", ">pw", "&*", "+@all", "~asynq:queues", "~asynq:servers", "~asynq:schedulers")
    redis_server.command("ACL", "SETUSER", "some", *rules, "~asynq:{mail}:*", "~taskq:{mail}:*")
    redis_server.command("ACL", "SETUSER", "none", *rules)
    with Relay(redis_server.socket_path) as relay:
        admin = TaskQ(redis_server.unix_url, enqueue_timeout=30)
        await admin.remote("plain", queue="mail").adelay()
        await admin.remote("plain", queue="other").adelay()
        apps = [TaskQ(relay.url.replace("redis://", f"redis://{name}:pw@")) for name in ("some", "none")]

        some, none = [await scrape(fresh(app)) for app in apps]
        for app in (admin, *apps):
            await app.aclose()

    assert some.by("asynq_queue_size", "queue") == {"mail": 1}
    assert some.by("taskq_queue_damaged", "queue") == {"mail": 0, "other": 1}
    assert some.of("taskq_exporter_refused", what="queue") == 1
    assert none.of("taskq_up") == 0


async def test_the_page_lists_every_metric_with_its_kind_and_labels(app: TaskQ) -> None:
    await fill(app)
    await hand_in(app, 1, fast=runs(0.01))

    found = await scrape(fresh(app))

    rows = {name: cells for heading in ("Asynq's", "Our own") for name, cells in table(PAGE, heading).items()}
    assert {name: cells[0] for name, cells in rows.items()} == found.kinds
    for name, (_, labels, *_) in rows.items():
        samples = next(found.samples[each] for each in (name, f"{name}_count") if each in found.samples)
        assert {label for each in samples for label in dict(each)} == set(re.findall(r"`(\w+)`", labels)), name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"host": "0.0.0.0"}, "may be reached from other machines"),
        ({"host": "example.com"}, "may be reached from other machines"),
        ({"host": " "}, "host must be an address"),
        ({"port": 70_000}, "port must"),
        ({"timeout": 0}, "timeout must"),
        ({"timeout": 61}, "timeout must"),
        ({"max_queues": 0}, "max_queues must"),
        ({"max_types": 10_001}, "max_types must"),
    ],
)
def test_an_invalid_configuration_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ExporterConfig(**values)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_local_address_needs_no_allowed_host_names(host: str) -> None:
    assert ExporterConfig(host=host).is_local
