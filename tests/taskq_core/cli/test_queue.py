"""`taskq queue`, `taskq group`, `taskq stats`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.cli.render import Output
from taskq_core.clock import utc_datetime
from taskq_core.wire import Keys
from taskq_core.wire.samples import QueueSample
from taskq_core.wire.tallies import TypeCounters
from taskq_core.worker import Worker, WorkerConfig
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import Run

pytestmark = pytest.mark.redis
RunJson = Callable[..., Any]


@pytest.fixture
def in_one_hour(clock: Clock) -> None:
    """Begin early in an hour, because runs are counted by hour and by day."""
    clock.skip(3600 - clock.time() % 3600)


@pytest.fixture
def filled(in_one_hour: None, app: TaskQ) -> TaskQ:
    """Create two queues: one with tasks in several states, and one that was emptied."""

    @app.task(name="shop:greet", queue="low", retention=600)
    def greet(name: str) -> str:
        return name

    greet.delay("Ada")
    Worker(app, WorkerConfig(queues={"low": 1}, burst=True)).run()
    app.remote("shop:ship").delay(order=1)
    app.remote("shop:ship", run_after=3600).delay(order=2)
    app.remote("shop:ship", aggregate="eu").delay(order=3)
    return app


def test_list_prints_the_queues(run: Run, run_json: RunJson, filled: TaskQ) -> None:
    assert run("queue", "list").stdout.splitlines() == ["QUEUE", "default", "low"]
    assert run("queue", "ls").stdout == run("queue", "list").stdout
    assert run_json("queue", "list") == {"queues": [{"queue": "default"}, {"queue": "low"}]}


def test_an_empty_broker_has_no_queues(run: Run) -> None:
    assert "no queues" in run("queue", "list").stdout
    assert "no queues" in run("stats").stdout


def test_inspect_prints_the_fields_of_a_queue(run: Run, run_json: RunJson, filled: TaskQ) -> None:
    told = dict(line.rsplit("  ", 1) for line in run("queue", "inspect", "default").stdout.splitlines()[1:])
    told = {name.strip(): value for name, value in told.items()}
    (default, low) = run_json("queue", "inspect", "default", "low")["queues"]

    assert (told["size"], told["groups"], told["state"], told["pending"], told["scheduled"]) == (
        "3",
        "1",
        "no worker",
        "1",
        "1",
    )
    assert told["memory"].startswith("about ")
    assert default["states"] == {
        **dict.fromkeys(("active", "retry", "archived", "completed"), 0),
        "pending": 1,
        "scheduled": 1,
        "aggregating": 1,
    }
    assert default["latency_s"] >= 0
    assert (low["processed_today"], low["failed_today"], low["states"]["completed"]) == (1, 0, 1)
    assert low["memory_bytes"] > 0


def test_history_prints_the_counts_of_days(run: Run, run_json: RunJson, filled: TaskQ, clock: Clock) -> None:
    today = utc_datetime(clock.time()).date()

    (low,) = run_json("queue", "history", "low", "-x", "3")["queues"]
    table = run("queue", "history", "low", "default", "--days", "2").stdout.splitlines()

    assert low["queue"] == "low"
    assert [day["date"] for day in low["days"]] == [(today - timedelta(days=ago)).isoformat() for ago in range(3)]
    assert low["days"][0] == {"date": today.isoformat(), "processed": 1, "failed": 0}
    assert table[0] == "low"
    assert table[2].split() == [today.isoformat(), "1", "0", "0.00", "%"]


@pytest.fixture
def sampled(filled: TaskQ, redis_server: RedisServer, clock: Clock) -> int:
    """Samples of a minute and a tally of this hour; return the second they end at."""
    now = int(clock.time())
    queue = Keys().queue("low")
    noted: Any = redis_server.client.keys("taskq:{low}:*")  # by its worker
    redis_server.client.delete(*noted)
    for number in range(6):
        sample = QueueSample(
            at_s=now - 60 + 10 * number,
            processed=100 * number,
            failed=number,
            pending=7,
            latency_ms=1500,
            memory_kib=2048,
            busy=3,
            slots=4,
        )
        redis_server.client.lpush(queue.samples(10), sample.encode())
    tally = TypeCounters.empty()
    tally.processed, tally.failed, tally.total_ms, tally.buckets[6] = 8, 2, 640, 8
    redis_server.client.hset(queue.tally(now // 3600), "email:deliver", tally.encode())
    return now


def test_history_prints_samples(run: Run, run_json: RunJson, sampled: int) -> None:
    """The table on a terminal starts with the newest sample. JSON lists the samples in the order of time."""
    low, default = run_json("queue", "history", "low", "default", "--last", "1h")["queues"]
    table = run("queue", "history", "low", "default", "--last", "1h").stdout.splitlines()

    assert [each["queue"] for each in (low, default)] == ["low", "default"]
    assert (low["step_s"], default["samples"]) == (60, [])
    assert sum(each["processed"] for each in low["samples"]) == 500
    assert low["samples"][-1]["states"]["pending"] == 7
    assert low["samples"][-1]["processed_per_s"] == 10.0
    words = "TIME (UTC) SIZE LATENCY PROCESSED/S FAILED/S ERROR RATE MEMORY BUSY SLOTS"
    assert table[1].split() == words.split()
    assert table[2].split()[2:] == ["7", "1.5s", "10.0", "0.1", "1.00", "%", "2.0", "MiB", "75.00", "%"]
    assert table[-1] == "no samples; a worker that serves the queue takes them"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--last", "1h", "-x", "3"), "give either --days or --last"),
        (("--last", "40s"), "span must be a minute to 31 days"),
    ],
)
def test_history_of_samples_refuses_invalid_options(run: Run, sampled: int, words: tuple[str, ...], said: str) -> None:
    status = 2 if "-x" in words else 1

    assert said in run("queue", "history", "low", *words, status=status).stderr
    assert "no queue" in run("queue", "history", "lwo", "--last", "1h", status=1).stderr


def test_types_prints_the_task_types(run: Run, run_json: RunJson, sampled: int) -> None:
    document = run_json("queue", "types", "low", "default")
    table = run("queue", "types", "low", "--hours", "0").stdout.splitlines()

    (email,) = document["types"]
    assert (email["name"], email["processed"], email["failed"], email["total_s"]) == ("email:deliver", 8, 2, 0.64)
    assert 0.05 <= email["median_s"] <= email["p95_s"] <= email["p99_s"] <= 0.1
    assert table[0].startswith("Runs since ")
    assert table[0].endswith("Z; median and percentiles are estimated")
    assert table[2].split()[:6] == ["email:deliver", "8", "2", "25.00", "%", "80ms"]
    assert run("queue", "types", "default").stdout.splitlines()[-1] == "nothing ran"
    assert "no queue" in run("queue", "types", "lwo", status=1).stderr


def test_stats_print_rates_per_second(run: Run, sampled: int) -> None:
    lines = run("stats").stdout.splitlines()
    (low,) = [line.removesuffix("no worker").split() for line in lines if line.startswith("low")]
    (default,) = [line.removesuffix("no worker").split() for line in lines if line.startswith("default")]

    assert (low[-1], default[-1]) == ("10.0", "-")


def test_pause_and_resume_continue_after_a_failed_queue(
    run: Run, run_json: RunJson, filled: TaskQ, redis_server: RedisServer
) -> None:
    run("queue", "pause", "low")

    paused = run("queue", "pause", "low", "nothing", "default", status=1)

    assert paused.stdout == "paused default\n"
    assert len(paused.stderr.splitlines()) == 2
    assert redis_server.client.exists("asynq:{default}:paused")
    assert [each["paused"] for each in run_json("queue", "inspect", "low", "default")["queues"]] == [True, True]
    assert run("queue", "unpause", "low", "default").stdout == "resumed low\nresumed default\n"
    document = run_json("queue", "resume", "low", "default", status=1)
    assert [(each["queue"], each["ok"]) for each in document["queues"]] == [("low", False), ("default", False)]
    assert all("not paused" in each["error"] for each in document["queues"])


def test_remove_deletes_a_queue(run: Run, run_json: RunJson, filled: TaskQ) -> None:
    refused = run("queue", "remove", "default", "--yes", status=1)
    removed = run("queue", "rm", "--force", "-y", "default")

    assert "queue 'default' is not empty: its removal would delete 3 tasks and must be forced" in refused.stderr
    assert "--force deletes them too" in refused.stderr
    assert "force=True" not in refused.stderr
    assert removed.stdout == "removed default and 3 tasks\n"
    assert run_json("queue", "list") == {"queues": [{"queue": "low"}]}


def test_an_interrupted_removal_prints_how_to_continue(
    run: Run, filled: TaskQ, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tasks are out of sight already, so nothing was left as it was."""

    @contextmanager
    def progress(output: Output, what: str) -> Iterator[Callable[[int, int], None]]:
        def show(done: int, total: int) -> None:
            raise KeyboardInterrupt  # as Ctrl-C does between two steps

        yield show

    with monkeypatch.context() as patch:
        patch.setattr(Output, "progress", progress)
        stopped = run("queue", "rm", "--force", "-y", "default", status=1)

    assert stopped.stderr.startswith("taskq: interrupted while removing queue default: ")
    assert run("queue", "rm", "-y", "default").stdout.startswith("removed default")
    assert not [key for key in redis_server.client.keys("*") if b"{default}" in key]


def test_groups_prints_the_groups_of_a_queue(run: Run, run_json: RunJson, filled: TaskQ) -> None:
    assert run("group", "ls", "-q", "default").stdout.splitlines() == ["GROUP  SIZE", "eu        1"]
    assert run_json("group", "list", "--queue", "default") == {
        "queue": "default",
        "groups": [{"group": "eu", "size": 1}],
    }
    assert run("group", "ls", "-q", "low").stdout == "no groups in low\n"


def test_limits_prints_the_limits_of_a_queue(run: Run, run_json: RunJson, app: TaskQ) -> None:
    for _ in range(3):
        app.remote("pay", concurrency=1).delay()

    (limit,) = run_json("limit", "list", "--queue", "default")["limits"]
    assert (limit["kind"], limit["name"], limit["held"], limit["waiting"]) == ("concurrency", "pay", 1, 2)
    assert run("limit", "set", "-q", "default", "--concurrency", "2", "pay").stdout.endswith("is now 2\n")
    assert run_json("limit", "ls", "-q", "default")["limits"][0]["set_to"] == "2"
    assert "pay" in run("limit", "ls", "-q", "default").stdout
    assert (
        run("limit", "clear", "-q", "default", "pay").stdout
        == "limit pay of default has the value from the code again\n"
    )
    assert run("limit", "clear", "-q", "default", "pay").stdout == "limit pay of default had no override\n"
    run("limit", "set", "-q", "default", "--rate", "0/m", "pay", status=1)
    run("limit", "set", "-q", "default", "pay", status=1)


def test_stats_prints_the_totals(run: Run, run_json: RunJson, filled: TaskQ) -> None:
    run("queue", "pause", "low")

    told = run("stats").stdout
    document = run_json("stats")

    assert document["states"]["pending"] == 1
    assert document["size"] == 4
    assert document["processed_today"] == 1
    assert [each["queue"] for each in document["queues"]] == ["default", "low"]
    assert document["redis"]["used_memory"] > 0
    assert "paused" in told
    assert "error rate  0.00 %" in told


def test_stats_report_a_damaged_queue_and_print_the_others(
    run: Run, run_json: RunJson, filled: TaskQ, redis_server: RedisServer
) -> None:
    redis_server.client.sadd("asynq:queues", "odd")
    redis_server.client.set("asynq:{odd}:retry", "x")

    told = run("stats", status=1)
    document = run_json("stats", status=1)

    assert told.stderr.startswith("taskq: queue 'odd' cannot be counted: ")
    assert told.stderr.count("\n") == 1
    states = {line.split()[0]: line.split()[-1] for line in told.stdout.splitlines() if line.startswith(("low", "odd"))}
    assert states == {"low": "worker", "odd": "damaged"}
    assert [(each["queue"], bool(each["problem"])) for each in document["queues"]] == [
        ("default", False),
        ("low", False),
        ("odd", True),
    ]


def test_stats_work_without_the_permission_for_info(run_json: RunJson, monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer(tcp=True) as server:
        server.command("ACL", "SETUSER", "ada", "on", ">pw", "allkeys", "+@all", "-@dangerous")
        monkeypatch.setenv("TASKQ_URL", f"redis://ada:pw@127.0.0.1:{server.port}/0")

        assert run_json("stats")["redis"] == {}
