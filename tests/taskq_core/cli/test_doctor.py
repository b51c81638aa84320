"""Test `taskq doctor --fix`. tests/taskq_core/doctor/test_doctor_repair.py tests the repairs themselves."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.cli.command import root
from taskq_core.cli.session import Session
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import Run

pytestmark = pytest.mark.redis
RunJson = Callable[..., Any]
PENDING, LOCK = "asynq:{default}:pending", "asynq:{default}:unique:t:x"


@pytest.fixture(scope="module")
def durable_server() -> Iterator[RedisServer]:
    """A server that a doctor finds nothing red on."""
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture
def redis_server(durable_server: RedisServer) -> RedisServer:
    durable_server.flushall()
    return durable_server


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two looks come one after the other."""
    monkeypatch.setattr("taskq_core.repair.reconcile.RECHECK_S", 0)


@pytest.fixture
def damaged(app: TaskQ, redis_server: RedisServer) -> str:
    """A task that is in no list and a lock whose task is gone; returns the task's id."""
    handle = app.remote("shop:ship").delay()
    redis_server.client.delete(PENDING)
    redis_server.client.set(LOCK, "ghost", ex=600)
    return handle.id


def is_damaged(server: RedisServer) -> bool:
    return not server.client.exists(PENDING) and bool(server.client.exists(LOCK))


def is_repaired(server: RedisServer, task_id: str) -> bool:
    return server.client.lrange(PENDING, 0, -1) == [task_id.encode()] and not server.client.exists(LOCK)


def test_a_report_mentions_the_repair_option(run: Run, redis_server: RedisServer, damaged: str) -> None:
    told = run("doctor").stdout

    assert "yellow  damage       default: 1 tasks: not listed" in told
    assert "yellow  damage       default: 1 tasks: lock without task" in told
    assert told.count("-> taskq doctor --fix repairs this") == 2
    assert is_damaged(redis_server)


def test_a_dry_run_lists_repairs_and_changes_nothing(run: Run, redis_server: RedisServer, damaged: str) -> None:
    lines = run("doctor", "--fix", "--dry-run").stdout.splitlines()

    at = lines.index("to be repaired: 2")
    assert lines[at + 1].split() == ["QUEUE", "KIND", "TASK", "OR", "KEY", "DETAIL"]
    assert lines[at + 2].split()[:3] == ["default", "not_listed", damaged]
    assert lines[at + 2].endswith("state 'pending', in no structure: the task belongs in pending")
    assert lines[at + 3].split()[:3] == ["default", "lock_without_task", "ghost"]
    assert lines[at + 3].endswith(f"the task holds lock {LOCK}, and was deleted or has ended: the lock is released")
    assert is_damaged(redis_server)


def test_a_repair_asks_for_confirmation_and_checks_again(run: Run, redis_server: RedisServer, damaged: str) -> None:
    told = run("doctor", "--fix", "--yes").stdout

    assert told.index("to be repaired: 2") < told.index("repaired: 2", told.index("to be repaired: 2") + 20)
    assert told.rindex("yellow") > told.index("to be repaired: 2")  # the task waits in a queue that no worker serves
    assert "green" not in told[told.index("to be repaired: 2") :]
    assert is_repaired(redis_server, damaged)


def test_a_repair_without_a_terminal_needs_the_option_yes(run: Run, redis_server: RedisServer, damaged: str) -> None:
    result = run("doctor", "--fix", status=2)

    assert "repair 2 problems: standard input is not a terminal to ask for confirmation; pass --yes" in result.stderr
    assert "to be repaired: 2" in result.stdout
    assert is_damaged(redis_server)


def test_the_report_is_available_as_json(run_json: RunJson, redis_server: RedisServer, damaged: str) -> None:
    planned = run_json("doctor", "--fix", "--dry-run")
    assert planned["ok"] is True
    assert "damage" in {each["check"] for each in planned["findings"] if each["level"] == "yellow"}
    assert [(each["kind"], each["subject"]) for each in planned["planned"]] == [
        ("not_listed", damaged),
        ("lock_without_task", "ghost"),
    ]

    document = run_json("doctor", "--fix", "--yes")

    assert set(document) == {"ok", "findings", "repaired", "not_repaired", "for_a_person"}
    assert document["ok"] is True
    assert [each["kind"] for each in document["repaired"]] == ["not_listed", "lock_without_task"]
    assert set(document["repaired"][0]) == {"queue", "kind", "subject", "detail"}
    assert (document["not_repaired"], document["for_a_person"]) == ([], [])
    assert {each["check"] for each in document["findings"] if each["level"] == "green"} >= {"damage", "keys"}
    assert is_repaired(redis_server, damaged)


def test_a_healthy_broker_needs_no_repair(run: Run, run_json: RunJson, app: TaskQ) -> None:
    """The command asks no question then."""
    app.remote("shop:ship").delay()

    assert run("doctor", "--fix").stdout.splitlines()[-1] == "no repair is needed"
    assert run_json("doctor", "--fix")["planned"] == []


def test_problems_that_need_a_person_are_listed(run: Run, app: TaskQ, redis_server: RedisServer) -> None:
    handle = app.remote("shop:ship").delay()
    redis_server.client.hset(f"asynq:{{default}}:t:{handle.id}", "msg", b"\xff\xff")
    redis_server.client.set("asynq:{default}:retry", "not ours")

    lines = run("doctor", "--fix", "--yes").stdout.splitlines()

    at = lines.index("needs a person: 2")
    assert lines[at + 2].split()[:3] == ["default", "quarantined", handle.id]
    assert lines[at + 3].split()[:2] == ["default", "moved_aside"]
    assert lines[at + 3].split()[2].startswith("taskq:{default}:strange:retry:")


def test_a_failed_repair_is_reported_with_status_1(
    run: Run, redis_server: RedisServer, damaged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.client.delete("asynq:queues")
    rules = ("~asynq:*", "~taskq:*", "&*", "+@all", "-sadd")
    redis_server.command("ACL", "SETUSER", "ada", "reset", "on", ">pw", *rules)
    monkeypatch.setenv("TASKQ_URL", redis_server.unix_url.replace("unix://", "unix://ada:pw@"))

    told = run("doctor", "--fix", "--yes", status=1).stdout
    redis_server.command("ACL", "DELUSER", "ada")

    assert "not repaired: 1" in told
    assert "sadd" in told[told.index("not repaired: 1") :]
    assert "yellow  keys" in told[told.index("to be repaired: 3") :]
    assert is_repaired(redis_server, damaged)


def test_a_long_list_of_repairs_is_truncated(
    run: Run, run_json: RunJson, redis_server: RedisServer, app: TaskQ
) -> None:
    app.remote("shop:ship").delay()
    redis_server.client.mset({f"{LOCK}{number}": "ghost" for number in range(150)})

    told = run("doctor", "--fix", "--dry-run").stdout

    assert told.splitlines()[-1] == "and 50 more, which --json shows"
    assert len(run_json("doctor", "--fix", "--dry-run")["planned"]) == 150


def test_an_outage_during_a_repair_is_reported(
    run: Run, app: TaskQ, redis_server: RedisServer, damaged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output lists the repairs made before the failure, and states that the broker is unavailable."""
    from taskq_core import BrokerUnavailableError
    from taskq_core.doctor.repair import Repairer

    def lose(self: Repairer, queue: object) -> None:
        raise BrokerUnavailableError("no answer from there")

    redis_server.client.delete("asynq:queues")
    monkeypatch.setattr(Repairer, "_reconcile", lose)

    told = run("doctor", "--fix", "--yes", status=1).stdout

    assert "red     connection  no answer from there" in told
    assert "repaired: 1" in told[told.index("connection") :]
    assert redis_server.client.exists("asynq:queues")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--dry-run",), "--dry-run needs --fix"),
        (("--fix", "--quick"), "--fix cannot be combined with --quick, because it needs the check of every task"),
    ],
)
def test_contradicting_options_are_refused(run: Run, options: tuple[str, ...], told: str) -> None:
    assert told in run("doctor", *options, status=2).stderr


def test_it_uses_the_application_of_a_framework(app: TaskQ, redis_server: RedisServer, damaged: str) -> None:
    """`manage.py taskq doctor --fix` runs the command like this, with a separate session."""
    said = io.StringIO()
    session = Session(app, stdout=said)

    words = ["doctor", "--fix", "--yes", "--json"]
    assert root.main(words, prog_name="taskq", standalone_mode=False, obj=session) == 0

    assert len(json.loads(said.getvalue())["repaired"]) == 2
    assert is_repaired(redis_server, damaged)
