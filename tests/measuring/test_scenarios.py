"""The measurements of our own, each with a few tasks: that it comes off and finds what it says, not how quick it is."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks import asynq, crowd, deployed, enqueueing, growing, handing, waiting
from benchmarks.aims import aims, rows_of_aims, titles
from benchmarks.django_site import measuring
from benchmarks.placement import placements
from benchmarks.plan import cases, plan
from benchmarks.scenarios import calls
from taskq_core import TaskQ, TaskState
from taskq_core.inspector import Inspector
from taskq_core.wire import Keys, build_message, decode_message, encode_message
from tests.redis_server import RedisServer

TASKS = 1000


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def figures_of(function: str) -> set[str]:
    """Figures that rows of the plan take from a function."""
    return {row.figure for row in rows_of_aims(TASKS) if row.function == function}


@pytest.mark.redis
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        pytest.param(function, arguments, id=f"{function.__name__}-{'-'.join(map(str, arguments.values()))}")
        for function, arguments in (
            (enqueueing.beside_bare, {"count": 40}),
            (enqueueing.beside_bare_async, {"count": 40}),
            (enqueueing.streamed, {"count": 450}),
            (growing.drain_among, {"count": 120, "pending": 420}),
            (growing.due_among, {"others": 50, "per_s": 3, "seconds": 1}),
            (growing.waiting_memory, {"count": 700, "state": "pending"}),
            (growing.waiting_memory, {"count": 700, "state": "scheduled"}),
            (waiting.io_drain, {"kind": "coroutine", "concurrency": 20, "count": 60}),
            (waiting.bare_waits, {"concurrency": 20, "count": 60}),
            (waiting.io_drain, {"kind": "plain", "concurrency": 20, "count": 60}),
        )
    ],
)
def test_a_measurement_finds_its_figures(
    function: Callable[..., dict[str, float]], arguments: dict[str, Any], server: RedisServer
) -> None:
    figures = function(server.unix_url, **arguments)

    assert figures_of(function.__name__) <= figures.keys()
    assert all(figure > -1 for figure in figures.values())


@pytest.mark.redis
def test_the_queue_is_as_full_as_said_while_it_is_drained(server: RedisServer) -> None:
    growing.drain_among(server.unix_url, count=120, pending=420)

    left = server.client.llen("asynq:{default}:pending")
    assert 300 - 200 <= left <= 300  # what was in hand when the last one started ran as well


@pytest.mark.redis
def test_a_waiting_task_takes_what_one_of_go_takes(server: RedisServer) -> None:
    """To the byte: the same message, stored by our client and by Go's commands."""
    taskq = TaskQ(server.unix_url, enqueue_timeout=60)
    handle = taskq.remote("bench:plain", headers={"tenant": "acme"}).delay(number=1, text="some text")
    taskq.close()
    key = f"{asynq.PREFIX}t:{handle.id}"
    message: Any = server.client.hget(key, "msg")
    ours = server.client.memory_usage(key)
    server.flushall()

    asynq.GoProducer(server.client).enqueue(handle.id, message)

    assert server.client.memory_usage(key) == ours


@pytest.mark.redis
@pytest.mark.parametrize("producer", ["taskq", "go"])
def test_tasks_reach_a_crowd_of_workers(producer: str, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "_SETTLE_S", 0.0)

    figures = crowd.latency_among(server.unix_url, per_s=50, seconds=1, workers=3, processes=2, producer=producer)

    assert figures["tasks"] == 50 + crowd._WARM
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]


@pytest.mark.redis
def test_a_bare_client_hands_each_element_over_once(server: RedisServer) -> None:
    figures = handing.bare_latency(server.unix_url, per_s=20_000, seconds=1)

    assert figures.keys() == {"p50_ms", "p99_ms"}
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert server.client.keys() == []


@pytest.mark.redis
def test_bare_scripts_hand_each_task_over_once(server: RedisServer) -> None:
    figures = handing.scripts_latency(server.unix_url, per_s=50, seconds=1)

    assert figures.keys() == {"p50_ms", "p99_ms"}
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert server.client.llen("asynq:{default}:active") == 50


@pytest.mark.redis
def test_commands_a_task_are_those_beyond_the_idle_ones(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "_SETTLE_S", 0.5)

    figures = crowd.crowd_commands(server.unix_url, per_s=50, seconds=1, workers=2, processes=1)

    assert figures["tasks"] == 50
    assert figures["requests_a_task"] < figures["commands_a_task"]


@pytest.mark.redis
def test_worker_processes_are_measured_from_outside(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployed, "_SETTLE_S", 0.0)
    place = placements()["spread"]

    drained = deployed.drain_by(server, place, processes=2, count=40_000)  # some are left when it looks first
    server.flushall()
    alone = deployed.idle_worker(server, place, seconds=0.2)

    assert drained.account is not None
    assert alone.account is not None
    assert drained.account.is_exact
    assert alone.account.is_exact
    assert figures_of("drain_by") <= drained.figures.keys()
    assert figures_of("idle_worker") <= alone.figures.keys()
    assert alone.figures["rss_mb"] > alone.figures["own_mb"] > 5


@pytest.mark.redis
def test_a_site_of_django_is_measured(server: RedisServer) -> None:
    """By the harness itself: in a process of its own, which is a Django site."""
    rows = [row for row in rows_of_aims(TASKS) if row.function == "view_cost"]
    (case,) = cases(rows, "spread")

    figures = case.run(server, placements()["spread"]).figures
    enqueued = server.client.llen("asynq:{default}:pending")
    started = measuring.start_up(server.unix_url, times=1)

    assert {row.figure for row in rows} <= figures.keys()
    assert figures["view_us"] > 0
    assert enqueued == 2 * (TASKS // 50 + measuring._WARM)
    assert figures_of("start_up") <= started.keys()
    assert min(started["site_s"], started["runworker_s"]) > 0


@pytest.mark.redis
def test_what_is_written_as_go_does_reads_as_a_task(server: RedisServer) -> None:
    producer = asynq.GoProducer(server.client)
    for task_id in ("a", "b"):
        message = build_message(type="bench:stamp", id=task_id, queue="default", payload=b"{}", retry=25, timeout=1800)
        producer.enqueue(task_id, encode_message(message))
        producer.enqueue(task_id, encode_message(message))  # its id is taken
    producer.schedule("c", encode_message(build_message(type="x", id="c", queue="default")), 4_000_000_000)

    taskq = TaskQ(server.unix_url, enqueue_timeout=60)
    inspector = Inspector(taskq)
    counts = [inspector.count("default", state) for state in (TaskState.PENDING, TaskState.SCHEDULED)]
    taskq.close()
    assert counts == [2, 1]
    assert server.client.keys("taskq:*") == []  # nothing of ours, no wake token either


@pytest.mark.redis
def test_a_bare_call_has_keys_and_arguments_of_the_sizes_of_ours(server: RedisServer) -> None:
    bare = enqueueing._bare_calls(1)[0]
    taskq = TaskQ(server.unix_url, enqueue_timeout=60)
    task = taskq.task(name="bench:plain", headers={"tenant": "acme"})(lambda number, text: None)
    task.delay(12345, "some text")
    taskq.close()

    listed: Any = server.client.lindex(f"{asynq.PREFIX}pending", 0)
    stored_id = listed.decode()
    stored: Any = server.client.hget(f"{asynq.PREFIX}t:{stored_id}", "msg")
    task_id, message = bare[-2:]
    assert (len(task_id), len(message)) == (len(stored_id), len(stored))
    assert decode_message(message).payload == decode_message(stored).payload


def test_calls_of_a_measurement_have_arguments_of_their_own() -> None:
    taskq = TaskQ("redis://127.0.0.1:1/0")
    taskq.task(name="t")(lambda number, text: None)

    assert len({json.dumps(call.args) for call in calls(taskq, "t", 5)}) == 5
    assert Keys().queue("default").prefix == asynq.PREFIX


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_every_aim_is_judged_by_rows_of_the_plan() -> None:
    rows = {row.title: row for row in plan(50_000, large=True)}

    assert len(rows) == len(plan(50_000, large=True))  # no title twice
    assert titles(50_000) <= rows.keys()
    for aim in aims(50_000):
        if aim.value is None:
            assert rows[aim.rows[0]].unit == aim.unit, aim.what
    assert all(row.limit in rows for row in rows.values() if row.limit)


def test_the_rows_beside_are_measured_as_well() -> None:
    found = cases(plan(1000), "apart", only="processes: two of 50 coroutines")

    assert [case.title for case in found] == ["processes: one of 50 coroutines", "processes: two of 50 coroutines"]
    assert {case.placement for case in found} == {"spread"}


def test_ten_million_are_pending_only_where_that_is_asked_for() -> None:
    usual, large = plan(50_000), plan(50_000, large=True)

    assert {row.title for row in large} - {row.title for row in usual} == {
        "growth: drain 50,000 of 10,000,000",
        "growth: drain 50,000 of 10,000,000, Redis's CPU us a task",
    }
