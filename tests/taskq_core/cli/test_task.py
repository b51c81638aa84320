"""`taskq task`: look at tasks and change what becomes of them."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from taskq_core import Answer, TaskContext, TaskHandle, TaskInfo, TaskQ, TaskState
from taskq_core.broker.operations import runs
from taskq_core.cli import task as task_command
from taskq_core.cli.render import Output
from taskq_core.inspector import Inspector
from taskq_core.testing import drain
from taskq_core.wire import ServerInfo, build_message, decode_message, encode_message
from taskq_core.worker import Worker, WorkerConfig
from tests.publishing import publish_task
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import Run

pytestmark = pytest.mark.redis
RunJson = Callable[..., Any]


def enqueue(app: TaskQ, name: str = "shop:ship", payload: bytes = b'{"order":1}', **options: Any) -> str:
    return app.remote(name, **options).delay(payload).id


def state(app: TaskQ, task_id: str, queue: str = "default") -> str:
    return Inspector(app).task(queue, task_id).state.value


@pytest.fixture
def every(app: TaskQ) -> dict[str, str]:
    """A task in each state but active, by the state."""

    @app.task(name="shop:add", retention=600, max_retry=0)
    def add(a: int, b: int) -> int:
        return a + b

    @app.task(name="shop:fail", max_retry=3, retry_delay=3600)
    def fail() -> None:
        raise ValueError("no \x1b[31mmoney\nand more")

    handles: dict[str, TaskHandle[Any]] = {
        "completed": add.delay(1, 2),
        "retry": fail.delay(),
        "archived": fail.using(max_retry=0).delay(),
    }
    Worker(app, WorkerConfig(burst=True)).run()
    ids = {name: handle.id for name, handle in handles.items()}
    ids["pending"] = enqueue(app, headers={"tenant": "a"})
    ids["scheduled"] = enqueue(app, run_after=3600)
    ids["aggregating"] = enqueue(app, aggregate="eu")
    return ids


COLUMNS = {
    "pending": "ID NAME PAYLOAD",
    "scheduled": "ID NAME PAYLOAD STARTS",
    "retry": "ID NAME PAYLOAD NEXT RETRY RETRIED LAST ERROR LAST FAILED",
    "archived": "ID NAME PAYLOAD ARCHIVED LAST ERROR LAST FAILED",
    "completed": "ID NAME PAYLOAD COMPLETED RESULT KEPT UNTIL",
    "aggregating": "ID NAME PAYLOAD GROUP",
}


@pytest.mark.parametrize("name", COLUMNS)
def test_list_has_columns_for_each_state(run: Run, run_json: RunJson, every: dict[str, str], name: str) -> None:
    words = ["task", "list", "-q", "default", "-s", name, *(["-g", "eu"] if name == "aggregating" else [])]

    lines = run(*words).stdout.splitlines()
    document = run_json(*words)

    assert " ".join(lines[0].split()) == COLUMNS[name]
    assert lines[1].startswith(every[name])
    assert len(lines) == 2
    assert [(each["id"], each["state"]) for each in document["tasks"]] == [(every[name], name)]
    assert (document["total"], document["page"], document["page_size"]) == (1, 1, 30)


def test_list_without_queue_and_state_shows_columns_for_both(run: Run, every: dict[str, str]) -> None:
    lines = run("task", "ls").stdout.splitlines()

    assert lines[0].split() == ["ID", "QUEUE", "STATE", "NAME", "PAYLOAD"]
    assert {line.split()[2] for line in lines[1:]} == {"pending", "scheduled", "retry", "archived", "completed"}


def test_list_prints_pages(run: Run, app: TaskQ) -> None:
    ids = [enqueue(app) for _ in range(5)]

    second = run("task", "list", "-q", "default", "-s", "pending", "--page", "2", "--size", "2")
    beyond = run("task", "list", "-q", "default", "-s", "pending", "--page", "9", "--size", "2")

    assert [line.split()[0] for line in second.stdout.splitlines()[1:]] == ids[2:4]
    assert second.stderr == "page 2 of 3, 5 tasks\n"
    assert beyond.stdout == "there are 3 pages\n"


@pytest.mark.parametrize("state", ["archived", "completed"])
def test_of_ended_tasks_the_newest_come_first(
    run: Run, run_json: RunJson, redis_server: RedisServer, state: str
) -> None:
    redis_server.client.sadd("asynq:queues", "default")
    redis_server.client.zadd(
        f"asynq:{{default}}:{state}", {f"id-{number}": 1_900_000_000 + number for number in range(5)}
    )

    def listed(*options: str) -> list[str]:
        return [task["id"] for task in run_json("task", *options, "-s", state)["tasks"]]

    assert listed("list") == listed("list", "-q", "default") == [f"id-{number}" for number in range(4, -1, -1)]
    assert listed("list", "-q", "default", "--page", "2", "--size", "2") == ["id-2", "id-1"]
    assert listed("find", "-q", "default", "--limit", "2") == ["id-4", "id-3"]
    assert run("task", "list", "-s", state).stdout.splitlines()[1].startswith("id-4")


def test_an_undecodable_task_is_shown(run: Run, run_json: RunJson, redis_server: RedisServer) -> None:
    redis_server.client.sadd("asynq:queues", "default")
    redis_server.client.hset("asynq:{default}:t:broken", mapping={"msg": b"\xff\xff", "state": "pending"})
    redis_server.client.lpush("asynq:{default}:pending", "broken")

    assert "broken  (unreadable)" in run("task", "list", "-q", "default", "-s", "pending").stdout
    (document,) = run_json("task", "inspect", "-q", "default", "-i", "broken")["tasks"]
    assert (document["id"], document["message_base64"]) == ("broken", "//8=")
    assert "\\xff\\xff" in run("task", "inspect", "-q", "default", "-i", "broken").stdout


def test_inspect_prints_the_fields_of_a_task(run: Run, run_json: RunJson, every: dict[str, str]) -> None:
    pending = run("task", "inspect", "-q", "default", "--id", every["pending"]).stdout
    retry = run("task", "inspect", "-q", "default", "--id", every["retry"]).stdout
    documents = run_json("task", "inspect", "-q", "default", "-i", every["pending"], "-i", every["completed"])["tasks"]

    assert 'payload        {"order":1}' in pending
    assert "header tenant  a" in pending
    assert "retried      1/3" in retry
    assert "no \\x1b[31mmoney\\nand more" in retry
    assert documents[0]["headers"]["tenant"] == "a"
    assert documents[1]["result"] == "3"
    assert documents[1]["completed_at"].endswith("Z")


def test_the_error_of_a_completed_task_is_shown_as_history(
    run: Run, every: dict[str, str], redis_server: RedisServer
) -> None:
    key = f"asynq:{{default}}:t:{every['completed']}"
    message = decode_message(cast("bytes", redis_server.client.hget(key, "msg")))
    message.error_msg = "asynq: task lease expired"
    redis_server.client.hset(key, "msg", encode_message(message))

    text = run("task", "inspect", "-q", "default", "--id", every["completed"]).stdout

    assert "error of an earlier run  asynq: task lease expired" in text
    assert "last error" not in text


def test_the_json_of_a_task_has_all_its_stored_facts(app: TaskQ, run_json: RunJson) -> None:
    task = app.remote("t").using(priority=7, expires=datetime(2040, 1, 1, tzinfo=UTC)).delay()

    (document,) = run_json("task", "inspect", "-q", "default", "-i", task.id)["tasks"]

    left_out = {each.name for each in fields(TaskInfo)} - {each.removesuffix("_s") for each in document}
    assert left_out == {"generation", "last_attempt"}
    assert (document["priority"], document["start_by"]) == (7, "2040-01-01T00:00:00Z")


def test_inspect_shows_when_the_task_was_enqueued(run: Run, app: TaskQ, redis_server: RedisServer) -> None:
    task_id = enqueue(app)
    message = build_message(id=task_id, type="t", queue="default", headers={"taskq-enqueued": "1700000000000"})
    redis_server.client.hset(f"asynq:{{default}}:t:{task_id}", "msg", encode_message(message))

    text = run("task", "inspect", "-q", "default", task_id).stdout

    assert re.search(r"^enqueued +2023-11-14 22:13:20Z", text, re.MULTILINE)
    assert "header" not in text


def test_inspect_shows_the_expiry_of_a_task(run: Run, app: TaskQ) -> None:
    handle = app.remote("shop:ship").using(expires=datetime.now(UTC) + timedelta(hours=2)).delay()

    assert re.search(r"start by +\S+ \S+Z \(in [12]h", run("task", "inspect", "-q", "default", handle.id).stdout)


def test_a_result_that_was_too_large_is_explained(run: Run, run_json: RunJson, app: TaskQ) -> None:
    @app.task(name="shop:large", retention=600, max_result_bytes=10)
    def large() -> str:
        return "x" * 20

    task_id = large.delay().id
    drain(app)

    said = "22 bytes are not stored: the limit is 10 (task option max_result_bytes)"
    assert said in run("task", "inspect", "-q", "default", "-i", task_id).stdout
    assert "22 bytes are not stored" in run("task", "list", "-q", "default", "--state", "completed").stdout
    (document,) = run_json("task", "inspect", "-q", "default", "-i", task_id)["tasks"]
    assert document["oversized_result"] == {"size": 22, "limit": 10, "is_stored": False}


def test_inspect_shows_attempts_with_their_tracebacks(run: Run, run_json: RunJson, app: TaskQ) -> None:
    """Unprintable characters in an exception's text are escaped."""

    @app.task(name="shop:lose", max_retry=1, retry_delay=60)
    def lose() -> None:
        raise KeyError("no \x1b[31mway")

    task_id = lose.delay().id
    drain(app, advance=60, raises=False)

    shown = run("task", "inspect", "-q", "default", "-i", task_id).stdout
    (document,) = run_json("task", "inspect", "-q", "default", "-i", task_id)["tasks"]

    attempt, _second = document["attempts"]
    assert (attempt["attempt"], attempt["error"], document["worker"]) == (1, "builtins.KeyError", "")
    assert "in lose" in attempt["traceback"]
    assert f"attempt 1 by worker {attempt['worker']}, " in shown
    assert shown.count("Z: builtins.KeyError\n  Traceback (most recent call last):\n") == 2
    assert "\x1b" not in shown


def test_an_unknown_task_is_reported(run: Run, every: dict[str, str]) -> None:
    told = run("task", "inspect", "-q", "default", "-i", "nobody", status=1).stderr

    assert "no task 'nobody' in queue 'default'" in told
    assert told.count("\n") == 1


def test_a_binary_payload_is_shown(run: Run, run_json: RunJson, app: TaskQ) -> None:
    task_id = enqueue(app, payload=b"\x00\xff")

    assert "payload  \\x00\\xff" in run("task", "inspect", "-q", "default", "-i", task_id).stdout
    (document,) = run_json("task", "inspect", "-q", "default", "-i", task_id)["tasks"]
    assert document["payload_base64"] == "AP8="
    assert "payload" not in document


def test_find_prints_matching_tasks(run: Run, run_json: RunJson, app: TaskQ) -> None:
    wanted = enqueue(app, name="mail:send", payload=b'{"to":"ada"}')
    for _ in range(20):
        enqueue(app)

    found = run("task", "find", "-q", "default", "-s", "pending", "--name", "mail", "--payload", "ada")
    part = run_json("task", "find", "-q", "default", "-s", "pending", "--name", "mail", "--scan", "5")
    none = run("task", "find", "-q", "default", "-s", "pending", "--older", "1h")

    assert [line.split()[0] for line in found.stdout.splitlines()[1:]] == [wanted]
    assert (part["total"], part["cursor"] is not None) == (21, True)
    while part["cursor"] is not None and not part["tasks"]:
        words = ("--name", "mail", "--scan", "5", "--cursor", part["cursor"])
        part = run_json("task", "find", "-q", "default", "-s", "pending", *words)
    assert [each["id"] for each in part["tasks"]] == [wanted]
    assert none.stdout == "None of 21 tasks matches.\n"


def test_a_long_search_continues_in_steps(
    run: Run, run_json: RunJson, app: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A progress bar shows the steps. The limits and the cursor are those of the whole search."""
    ids = [enqueue(app, name=f"t{number % 5}", run_after=60 + number) for number in range(25)]
    told: list[tuple[int, int]] = []

    @contextmanager
    def progress(output: Output, what: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda *now: told.append(now)

    monkeypatch.setattr(Output, "progress", progress)
    monkeypatch.setattr(task_command, "SCAN_STEP", 10)
    words = ("task", "find", "-q", "default", "-s", "scheduled", "--name", "t1")

    cut = run(*words[:-1], "t4", "--scan", "3")
    every = run_json(*words)
    some = run_json(*words, "--scan", "15")
    rest = run_json(*words, "--cursor", some["cursor"])
    few = run_json(*words, "--limit", "3")

    assert [each["id"] for each in every["tasks"]] == ids[1::5]
    assert (every["scanned"], every["total"], every["cursor"]) == (25, 25, None)
    assert cut.stdout == "Read 3 of 25 tasks, none matched so far.\n"
    assert "Continue with --cursor" in cut.stderr
    assert told[1:4] == [(10, 25), (20, 25), (25, 25)]
    assert [each["id"] for each in some["tasks"] + rest["tasks"]] == ids[1::5]
    assert (some["scanned"], rest["scanned"]) == (15, 10)
    assert (rest["read"], rest["matched"]) == (25, 5)
    assert ([each["id"] for each in few["tasks"]], few["cursor"] is not None) == (ids[1:12:5], True)


# --- change -----------------------------------------------------------------------------------------------------------


def test_run_archive_and_delete_change_tasks(run: Run, app: TaskQ, every: dict[str, str]) -> None:
    run("task", "run", "-q", "default", "-i", every["archived"], "-i", every["scheduled"])
    run("task", "archive", "-q", "default", "-i", every["retry"])
    run("task", "delete", "-q", "default", "-i", every["completed"], "--yes")

    assert state(app, every["archived"]) == state(app, every["scheduled"]) == "pending"
    assert state(app, every["retry"]) == "archived"
    assert "no task" in run("task", "inspect", "-q", "default", "-i", every["completed"], status=1).stderr


def test_one_failure_of_several_tasks_causes_status_1(run: Run, run_json: RunJson, every: dict[str, str]) -> None:
    told = run("task", "rm", "-q", "default", "-i", "nobody", "-i", every["archived"], "-y", status=1)
    document = run_json("task", "run", "-q", "default", "-i", every["pending"], "-i", every["retry"], status=1)

    assert told.stdout == f"{every['archived']} is deleted\n"
    assert "no task 'nobody'" in told.stderr
    assert [each["ok"] for each in document["ids"]] == [False, True]


def test_move_moves_a_task_to_another_queue(run: Run, app: TaskQ, every: dict[str, str]) -> None:
    run("task", "move", "-q", "default", "-i", every["pending"], "--to", "low")

    assert state(app, every["pending"], "low") == "pending"


def test_retry_postpones_tasks(run: Run, app: TaskQ, every: dict[str, str]) -> None:
    run("task", "retry", "-q", "default", "-i", every["scheduled"], "--at", "2040-01-01T00:00:00Z")
    run("task", "retry", "-q", "default", "-i", every["archived"], "-i", every["pending"], "--after", "1h")
    none = run("task", "retry", "-q", "default", "-i", "nobody", "--in", "1h", status=1)
    both = run("task", "retry", "-q", "default", "-i", "x", "--in", "1h", "--at", "2040-01-01T00:00:00Z", status=2)

    task = Inspector(app).task("default", every["scheduled"])
    assert (task.state.value, task.next_run_at.year) == ("scheduled", 2040)
    assert (state(app, every["archived"]), state(app, every["pending"])) == ("retry", "scheduled")
    assert "no task 'nobody'" in none.stderr
    assert "give either --at or --after" in both.stderr


def test_update_replaces_the_payload_of_a_task(run: Run, run_json: RunJson, app: TaskQ, every: dict[str, str]) -> None:
    words = ("task", "update", "-q", "default", "-i", every["pending"])
    run(*words, "-l", '{"order":2}')
    first = Inspector(app).task("default", every["pending"]).payload
    document = run_json("task", "update", "-q", "default", "-i", every["completed"], "-l", "{}", status=1)
    run(*words, "--payload-file", "-", stdin="\x01")

    assert first == b'{"order":2}'
    assert "has succeeded" in document["ids"][0]["error"]
    assert Inspector(app).task("default", every["pending"]).payload == b"\x01"
    assert "give either --payload or --payload-file" in run(*words, status=2).stderr


def test_cancel_notifies_workers(run: Run, run_json: RunJson, app: TaskQ, redis_server: RedisServer) -> None:
    for each in ("one", "two", "three"):
        enqueue(app, task_id=each)
    app.runtime.runner.run(runs.dequeue(app.runtime.keys.queue("default"), owner="w", call=1, limit=2, lease_s=30))
    subscription = app.runtime.runner.subscribe("asynq:cancel")
    server = app.runtime.keys.server("h", 1, "s")
    info = ServerInfo(host="h", pid=1, server_id="s", concurrency=2, queues={"default": 1}).encode()
    redis_server.client.set(server, info)
    redis_server.client.zadd("asynq:servers", {server: 4_000_000_000})

    assert run("task", "cancel", "one", "two").stdout == "asked 1 worker to cancel one\nasked 1 worker to cancel two\n"
    assert [subscription.next(5), subscription.next(5)] == ["one", "two"]
    subscription.close()
    told, waits, nobody = run_json("task", "cancel", "one", "three", "nobody", status=1)["ids"]
    assert told == {"id": "one", "ok": True, "received_by": 0}
    assert "is pending: only a running task, or one whose steps have begun, can be cancelled" in waits["error"]
    assert "no task 'nobody' in any queue" in nobody["error"]


def test_cancel_refuses_a_task_of_another_queue(run: Run, app: TaskQ) -> None:
    enqueue(app, task_id="one")
    enqueue(app, task_id="two", queue="low")
    app.runtime.runner.run(runs.dequeue(app.runtime.keys.queue("default"), owner="w", call=1, limit=2, lease_s=30))

    assert run("task", "cancel", "-q", "default", "one").stdout == "asked 0 workers to cancel one\n"
    assert "no task 'one' in queue 'low'" in run("task", "cancel", "-q", "low", "one", status=1).stderr
    assert "no queue 'nowhere'" in run("task", "cancel", "--queue", "nowhere", "one", status=1).stderr


@pytest.mark.parametrize(
    ("verb", "source", "left"),
    [
        ("run-all", "scheduled", "pending"),
        ("runall", "archived", "pending"),
        ("archive-all", "pending", "archived"),
        ("archiveall", "retry", "archived"),
        ("delete-all", "archived", ""),
        ("deleteall", "completed", ""),
        ("run-all", "aggregating", "pending"),
        ("archive-all", "aggregating", "archived"),
        ("delete-all", "aggregating", ""),
        ("move-all", "scheduled", "scheduled"),
        ("moveall", "aggregating", "aggregating"),
    ],
)
def test_actions_on_a_state_change_all_its_tasks(
    run: Run, app: TaskQ, every: dict[str, str], verb: str, source: str, left: str
) -> None:
    group = ["-g", "eu"] if source == "aggregating" else []
    more = [] if verb.startswith("run") else ["--to", "low"] if verb.startswith("move") else ["--yes"]

    told = run("task", verb, "-q", "default", "-s", source, *group, *more)

    assert told.stdout.startswith(f"1 {source} task ")
    infos = Inspector(app).queue_info("default")
    assert infos.sizes[TaskState(source)] == 0
    if left:
        assert state(app, every[source], "low" if verb.startswith("move") else "default") == left


def test_actions_on_a_state_print_json(run_json: RunJson, every: dict[str, str]) -> None:
    assert run_json("task", "delete-all", "-q", "default", "-s", "retry", "-y") == {
        "queue": "default",
        "state": "retry",
        "count": 1,
    }


# --- enqueue ----------------------------------------------------------------------------------------------------------


def enqueued(app: TaskQ, document: dict[str, str]) -> Any:
    return Inspector(app).task(document["queue"], document["id"])


def test_enqueue_accepts_every_option(run_json: RunJson, app: TaskQ) -> None:
    words = (
        *("-t", "shop:ship", "-l", '{"order": 7}', "-q", "low", "-i", "seven", "--retry", "3", "--timeout", "90s"),
        *("--deadline", "2040-01-01T00:00:00Z", "--unique", "1h", "--process-in", "10m", "--retention", "24h"),
        *("--header", "tenant=a", "-H", "region=eu=1"),
    )

    document = run_json("task", "enqueue", *words)
    task = enqueued(app, document)

    assert document == {"id": "seven", "queue": "low", "name": "shop:ship"}
    assert (task.payload, task.max_retry, task.state.value) == (b'{"order": 7}', 3, "scheduled")
    assert (task.timeout.total_seconds(), task.deadline.year, task.retention.total_seconds()) == (90, 2040, 86_400)
    assert {name: task.headers[name] for name in ("tenant", "region")} == {"tenant": "a", "region": "eu=1"}


def test_enqueue_accepts_the_option_names_of_asynq(run: Run, app: TaskQ) -> None:
    told = run(
        *("task", "enqueue", "--type_name", "shop:ship", "--payload", "{}", "--queue", "low"),
        *("--process_at", "2040-01-01T00:00:00Z", "--id", "x"),
    )

    assert told.stdout == "enqueued x to low\n"
    assert enqueued(app, {"id": "x", "queue": "low"}).next_run_at.year == 2040


@pytest.mark.usefixtures("time_flies")
def test_enqueue_sets_priority_expiry_limits_and_dead_letter(app: TaskQ, run_json: Any) -> None:
    words = ("--priority", "3", "--retry-priority", "4", "--expires", "1h", "--on-expiry", "discard")
    limits = ("--dead-letter", "dead", "--rate-limit", "5/s", "--concurrency", "2")

    task = enqueued(app, run_json("task", "enqueue", "t", "-l", "{}", *words, *limits))

    assert (task.priority, task.max_retry) == (3, 25)
    assert task.start_by is not None
    assert task.headers["taskq-dead-letter"] == '["default", "dead"]'


def test_enqueue_reports_a_missing_confirmation_of_replicas(run: Run, app: TaskQ) -> None:
    told = run(*("task", "enqueue", "-t", "shop:ship", "-l", "{}", "--id", "x", "--replicated", "1"), status=1)

    assert "is in queue 'default', but not confirmed: " in told.stderr
    assert enqueued(app, {"id": "x", "queue": "default"}).state.value == "pending"


def test_enqueue_adds_a_task_to_a_group(run_json: RunJson, app: TaskQ) -> None:
    task = enqueued(app, run_json("task", "enqueue", "-t", "shop:ship", "-l", "{}", "-g", "eu"))

    assert (task.state.value, task.group) == ("aggregating", "eu")


def test_a_payload_can_be_read_from_a_file_or_a_pipe(run: Run, run_json: RunJson, app: TaskQ, tmp_path: Path) -> None:
    (tmp_path / "payload").write_bytes(b"\x00\xff")

    of_file = enqueued(app, run_json("task", "enqueue", "-t", "x", "--payload-file", str(tmp_path / "payload")))
    told = run("task", "enqueue", "-t", "x", "--payload-file", "-", "--json", stdin="piped")

    assert of_file.payload == b"\x00\xff"
    assert enqueued(app, json.loads(told.stdout)).payload == b"piped"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-i", "taken"), "id 'taken' is taken"),
        (("--unique", "1h"), "unique lock"),
        (("-H", "traceparent=x"), "header 'traceparent' is reserved for taskq"),
        (("-q", " "), "queue name must not be blank"),
    ],
)
def test_a_refused_task_is_reported(run: Run, app: TaskQ, words: tuple[str, ...], told: str) -> None:
    run("task", "enqueue", "-t", "shop:ship", "-l", "{}", "-i", "taken", "--unique", "1h")

    complaint = run("task", "enqueue", "-t", "shop:ship", "-l", "{}", *words, status=1).stderr

    assert told in complaint
    assert complaint.count("\n") == 1


BAZAAR = """
from taskq_core import TaskQ
taskq = TaskQ("{url}", enqueue_timeout=30)
@taskq.task(name="shop:greet", queue="low", max_retry=1, headers={{"own": "1"}})
def greet(name: str) -> None: ...
"""


def test_a_task_of_the_application_uses_its_options_and_checks_its_payload(
    run: Run,
    run_json: RunJson,
    app: TaskQ,
    redis_server: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "bazaar_cli.py").write_text(BAZAAR.format(url=redis_server.unix_url))
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ("--app", "bazaar_cli:taskq", "task", "enqueue", "-t", "shop:greet")

    document = run_json(*words, "-l", '{"name": "Ada"}', "--retry", "2", "-H", "more=2")
    refused = run(*words, "-l", '{"nmae": "Ada"}', status=1)
    mistyped = run(*words[:-1], "shop:gret", "-l", "{}")

    words = ("--app", "bazaar_cli:taskq", "task", "update", "-q", "low", "-i", document["id"])
    unfit = run(*words, "-l", '{"nmae": "Ada"}', status=1)

    assert "shop:greet" in unfit.stderr
    task = enqueued(app, document)
    assert (task.queue, task.max_retry, task.payload) == ("low", 2, b'{"name": "Ada"}')
    assert {"own": "1", "more": "2"}.items() <= task.headers.items()
    assert "shop:greet" in refused.stderr
    assert mistyped.stderr == "this application has no task 'shop:gret'; did you mean 'shop:greet'?\n"
    assert "Ada" not in refused.stderr


def test_a_task_that_waits_for_a_limit_names_that_limit(run: Run, run_json: RunJson, app: TaskQ) -> None:
    enqueue(app, rate_limit="1/h")
    waits = enqueue(app, rate_limit="1/h")

    listed = run("task", "list", "-q", "default", "-s", "scheduled").stdout
    assert "waits for a limit" in listed
    assert "scheduled (limit)" in run("task", "list", "-q", "default").stdout
    shown = run("task", "inspect", "-q", "default", "-i", waits).stdout
    assert "waits for" in shown
    assert "the limit shop:ship" in shown
    assert not re.search(r"\b9999\b", listed + shown)
    [document] = run_json("task", "inspect", "-q", "default", "-i", waits)["tasks"]
    assert (document["waits_for_limit"], document["limit"], document["next_run_at"]) == (True, "shop:ship", None)


def test_tasks_can_be_named_by_arguments_or_options(run: Run, app: TaskQ) -> None:
    """Ids are arguments or `--id`, the task to enqueue is an argument or `--name`, and `--after` gives a delay."""
    run("task", "enqueue", "shop:ship", "-l", "{}", "--id", "one", "--after", "10m")
    run("task", "enqueue", "--name", "shop:ship", "-l", "{}", "--id", "two", "--at", "2040-01-01T00:00:00Z")
    nothing = run("task", "enqueue", "--id", "three", status=2)
    twice = run("task", "enqueue", "shop:ship", "--name", "shop:ship", status=2)

    assert run("task", "run", "-q", "default", "one").stdout == "one is pending\n"
    assert (
        run("task", "retry", "-q", "default", "one", "--id", "two", "--after", "1h").stdout == "one waits\ntwo waits\n"
    )
    assert "only a running task, or one" in run("task", "cancel", "--id", "one", status=1).stderr
    assert "give the id of at least one task" in run("task", "inspect", "-q", "default", status=2).stderr
    assert "give the name of one task" in nothing.stderr
    assert "give the name of one task" in twice.stderr


# --- steps ------------------------------------------------------------------------------------------------------------


def test_a_task_with_steps_shows_its_wait_and_its_timeline(run: Run, run_json: RunJson, app: TaskQ) -> None:
    task_id = publish_task(app).delay(photo_id=7).id
    drain(app)

    shown = run("task", "inspect", "-q", "default", task_id).stdout
    [document] = run_json("task", "inspect", "-q", "default", task_id)["tasks"]
    listed = run("task", "list", "-q", "default", "-s", "scheduled").stdout

    assert re.search(r"wait +waiting for review, (7d|6d 23h) left\n", shown)
    assert re.search(r'step moderate, \S+ \S+Z, \d+ms: {"photo":7}\n', shown)
    assert re.search(rf"sub-tasks call, \S+ \S+Z, workflow {task_id}\.call\.\w+, \d+ms: \[320\]\n", shown)
    assert re.search(r"signal review, \S+ \S+Z: waiting until \S+ \S+Z\n", shown)
    assert re.search(r"waiting for review, (7d|6d 23h) left\n", listed)
    assert (document["wait"]["kind"], document["wait"]["name"]) == ("signal", "review")
    assert [each["kind"] for each in document["timeline"]] == ["step", "sub-tasks", "signal"]
    assert document["timeline"][0]["result"] == '{"photo":7}'


def test_the_inbox_lists_questions_and_answer_answers_one(run: Run, run_json: RunJson, app: TaskQ) -> None:
    @app.task(retention=60)
    def pay(context: TaskContext) -> list[object]:
        answer = context.receive("pay", Answer[bool], ask={"amount": "9.99"})
        return [answer.value, answer.by]

    assert run("inbox").stdout == "no open questions\n"
    task_id = pay.delay().id
    drain(app)

    shown = run("inbox")
    assert re.search(rf'{task_id} .* pay .*{{"amount":"9.99"}}', shown.stdout)
    assert f"taskq task answer --queue default {task_id} 1 JSON" in shown.stdout + shown.stderr
    [listed] = run_json("inbox", "-q", "default")["questions"]
    assert (listed["task_id"], listed["number"], listed["asked"]) == (task_id, 1, {"amount": "9.99"})
    assert listed["schema"] == {"type": "boolean"}
    line = f'question pay, {re.escape(listed["since"][:10])}\\S* \\S+Z, {{"amount":"9.99"}}: waiting\n'
    assert re.search(line, run("task", "inspect", "-q", "default", task_id).stdout)

    answer = ("task", "answer", "-q", "default", task_id)
    assert "is not JSON" in run(*answer, "1", "yes", status=2).stderr
    assert "does not fit" in run(*answer, "1", "7", status=1).stderr
    assert "question 2 of the task is not open" in run(*answer, "2", "true", status=1).stderr
    assert run(*answer, "1", "true", "--by", "ann").stdout == f"answered question 1 of {task_id}\n"
    drain(app)
    [document] = run_json("task", "inspect", "-q", "default", task_id)["tasks"]
    assert (document["result"], document["timeline"][0]["by"]) == ('[true,"ann"]', "ann")
    assert "answered by ann: true\n" in run("task", "inspect", "-q", "default", task_id).stdout


def test_signals_are_sent_and_steps_are_deleted(run: Run, run_json: RunJson, app: TaskQ) -> None:
    task_id = publish_task(app).delay(photo_id=7).id
    drain(app)
    words = ("task", "signal", "-q", "default")

    assert "is not JSON" in run(*words, task_id, "review", "{approved", status=2).stderr
    assert "name of a signal" in run(*words, task_id, "a:b", status=1).stderr
    assert "no task 'x'" in run(*words, "x", "review", status=1).stderr
    assert run(*words, task_id, "review", '{"approved": true}').stdout == f"sent signal review to {task_id}\n"
    assert run_json(*words, task_id, "review", '{"approved": false}')["ids"] == [{"id": task_id, "ok": True}]

    forget = ("task", "forget-step", "-q", "default", task_id)
    assert "pass --yes" in run(*forget, "moderate", status=2).stderr
    assert run(*forget, "moderate", "--yes").stdout == f"{task_id} repeats step moderate\n"
    assert "has no stored result of a step 'moderate'" in run(*forget, "moderate", "-y", status=1).stderr
    drain(app)
    [document] = run_json("task", "inspect", "-q", "default", task_id)["tasks"]
    assert (document["state"], document["result"]) == ("completed", "[true,false]")
