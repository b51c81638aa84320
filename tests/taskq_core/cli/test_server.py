"""`taskq server`, `taskq cron`, `taskq doctor`, `taskq scheduler`."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.operations import services
from taskq_core.cli import main
from taskq_core.wire import SchedulerEnqueueEvent, SchedulerEntry, ServerInfo, WorkerInfo
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import Run

pytestmark = pytest.mark.redis
RunJson = Callable[..., Any]
NOON_NS = 1_900_000_000 * 10**9


@pytest.fixture
def worker(app: TaskQ) -> TaskQ:
    """Store the presence record of a worker with one running task."""
    who = {"host": "box", "pid": 7, "server_id": "s1"}
    info = ServerInfo(**who, concurrency=10, queues={"low": 1, "critical": 6}, start_time_ns=NOON_NS)  # type: ignore[arg-type]  # the three fit
    running = WorkerInfo(**who, task_id="t1", task_type="shop:ship", queue="low", start_time_ns=NOON_NS)  # type: ignore[arg-type]  # the three fit
    keys, runner = app.runtime.keys, app.runtime.runner
    server, workers = keys.server("box", 7, "s1"), keys.workers_of("box", 7, "s1")
    runner.run(services.beat(server, workers, ttl_s=60, server_info=info.encode(), workers={"t1": running.encode()}))
    runner.run(services.index_presence(keys.servers, server, expiry_s=4_000_000_000))
    runner.run(services.index_presence(keys.workers, workers, expiry_s=4_000_000_000))
    return app


def test_workers_are_listed(run: Run, run_json: RunJson, worker: TaskQ) -> None:
    lines = run("server", "ls").stdout.splitlines()
    (document,) = run_json("server", "list")["servers"]

    assert lines[1].split()[:5] == ["box", "7", "active", "1/10", "critical=6,low=1"]
    assert (document["id"], document["concurrency"], document["queues"]) == ("s1", 10, {"critical": 6, "low": 1})
    assert [each["id"] for each in document["running"]] == ["t1"]
    assert document["started_at"] == "2030-03-17T17:46:40Z"


def test_empty_lists_show_a_message(run: Run) -> None:
    assert run("server", "list").stdout == "no worker runs\n"
    assert "no periodic tasks" in run("cron", "list").stdout


def test_requests_to_quiet_resume_scale_and_stop_are_sent_to_workers(
    run: Run, run_json: RunJson, worker: TaskQ
) -> None:
    """Any name of a worker works. The command fails if no worker receives the request, or for an unknown name."""
    assert run("server", "quiet", "box:7", status=1).stdout == "no worker received the request\n"
    heard = worker.runtime.runner.subscribe("taskq:control")
    try:
        said = run("server", "quiet", "box:7").stdout
        run("server", "resume", "box")
        run_json("server", "scale", "--all", "--concurrency", "3")
        run("server", "stop", "--yes", "s1")
        sent = [json.loads(heard.next(30) or "") for _ in range(4)]
    finally:
        heard.close()

    assert said.startswith("asked to quiet: box:7")
    assert [each["workers"] for each in sent] == [["s1"]] * 4
    assert [each["action"] for each in sent] == ["quiet", "resume", "scale", "stop"]
    assert sent[2]["concurrency"] == 3
    assert "no worker 'bux:7'; did you mean 'box:7'?" in run("server", "quiet", "bux:7", status=1).stderr
    assert "give the workers" in run("server", "quiet", status=2).stderr


def test_schedules_are_added_paused_resumed_and_removed(run: Run, run_json: RunJson) -> None:
    run(
        "cron",
        "add",
        "sales",
        "--spec",
        "@daily",
        "--task",
        "report",
        "-l",
        '{"days": 7}',
        "-q",
        "low",
        "--timeout",
        "1m",
    )
    (entry,) = run_json("cron", "list")["entries"]
    assert (entry["id"], entry["spec"], entry["name"], entry["payload"]) == ("sales", "@daily", "report", '{"days":7}')
    assert entry["options"] == ['Queue("low")', "Timeout(1m0s)"]

    assert run("cron", "pause", "sales").stdout == "sales is paused\n"
    assert "paused" in run("cron", "list").stdout
    assert run("cron", "resume", "sales").stdout == "sales is resumed\n"
    assert "already" in run("cron", "add", "sales", "-s", "@hourly", "-t", "report", status=1).stderr
    run("cron", "add", "sales", "-s", "@hourly", "-t", "report", "--replace")
    assert run_json("cron", "list")["entries"][0]["spec"] == "@hourly"
    assert run("cron", "remove", "--yes", "sales").stdout == "sales is removed\n"
    assert run_json("cron", "list")["entries"] == []
    assert "no periodic entry 'sales'" in run("cron", "pause", "sales", status=1).stderr
    assert "--payload takes JSON" in run("cron", "add", "x", "-s", "@daily", "-t", "x", "-l", "{", status=2).stderr


@pytest.fixture
def scheduler(app: TaskQ, redis_server: RedisServer) -> TaskQ:
    """Store the presence record of a Go scheduler with two entries."""
    entries = (
        SchedulerEntry(
            id="e1",
            spec="@every 90s",
            task_type="shop:report",
            task_payload=b'{"a":1}',
            enqueue_options=('Queue("low")',),
            next_enqueue_time_ns=NOON_NS,
        ),
        SchedulerEntry(id="e2", spec="0 2 * * *", task_type="shop:back-up", prev_enqueue_time_ns=NOON_NS),
    )
    keys = app.runtime.keys
    key = keys.scheduler("box", 7, "c1")
    redis_server.client.rpush(key, *[entry.encode() for entry in entries])
    app.runtime.runner.run(services.index_presence(keys.schedulers, key, expiry_s=4_000_000_000))
    for second in range(3):
        event = SchedulerEnqueueEvent(task_id=f"t{second}", enqueue_time_ns=NOON_NS + second * 10**9).encode()
        redis_server.client.zadd(keys.scheduler_history("e1"), {event: 1_900_000_000 + second})
    return app


def test_periodic_entries_are_listed(run: Run, run_json: RunJson, scheduler: TaskQ) -> None:
    lines = {line.split()[0]: line for line in run("cron", "ls").stdout.splitlines()}
    entries = {each["id"]: each for each in run_json("cron", "list")["entries"]}

    assert "@every 90s" in lines["e1"]
    assert 'Queue("low")' in lines["e1"]
    assert "0 2 * * * (UTC)" in lines["e2"]
    assert lines["e1"].split()[-1] == "-"
    assert "in " in lines["e1"]
    assert (entries["e1"]["name"], entries["e1"]["payload"]) == ("shop:report", '{"a":1}')
    assert (entries["e1"]["previous_run_at"], entries["e2"]["next_run_at"]) == (None, None)
    assert entries["e2"]["previous_run_at"] == "2030-03-17T17:46:40Z"


def test_the_history_of_entries_is_listed(run: Run, run_json: RunJson, scheduler: TaskQ) -> None:
    lines = run("cron", "history", "e1", "e2").stdout.splitlines()
    (document,) = run_json("cron", "history", "e1", "--page", "2", "--size", "2")["entries"]

    assert lines[0] == "e1"
    assert [line.split()[0] for line in lines[2:5]] == ["t2", "t1", "t0"]
    assert document["events"] == [{"id": "t0", "enqueued_at": "2030-03-17T17:46:40Z"}]


def test_the_doctor_reports_red_findings_with_status_1(run: Run, run_json: RunJson, app: TaskQ) -> None:
    app.remote("shop:ship", queue="lonely").delay()  # the tests' server writes nothing to disk, which is red

    told = run("doctor", status=1).stdout
    document = run_json("doctor", "--quick", status=1)

    assert "red     persistence" in told
    assert "-> set appendonly yes" in told
    assert told.index("red ") < told.index("yellow ") < told.index("green ")
    assert document["ok"] is False
    assert {"persistence", "served", "rights"} <= {each["check"] for each in document["findings"]}
    assert "damage" not in {each["check"] for each in document["findings"]}


def test_the_doctor_of_a_good_server_ends_with_status_0(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer(appendonly=True) as server:
        monkeypatch.setenv("TASKQ_URL", server.unix_url)

        assert "red " not in run("doctor").stdout


@pytest.mark.usefixtures("time_flies")
def test_the_doctor_reports_an_unreachable_broker(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--url", "127.0.0.1:1", "--json"]) == 1

    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["check"], finding["level"]) == ("connection", "red")


CLOCK = """
from taskq_core import TaskQ
taskq = TaskQ("{url}")
@taskq.periodic("@every 1s")
@taskq.task(name="clock:tick")
def tick() -> None: ...
"""


def test_a_scheduler_that_cannot_start_ends_with_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clock_gone.py").write_text(CLOCK.format(url="redis://127.0.0.1:1/0"))
    monkeypatch.syspath_prepend(str(tmp_path))

    assert main(["scheduler", "clock_gone:taskq", "--no-wait"], stdout=io.StringIO()) == 1
