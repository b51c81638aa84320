"""Test the commands of the page about backups: make a backup, run tasks, restore the backup, and check the result."""

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taskq_core import BrokerError, DuplicateTaskError, TaskNotFoundError, TaskQ, TaskState, chain
from taskq_core.inspector import Inspector
from tests.processes.operations.shell import commands, shell
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import WorkerProcess, marks, until_blocking

pytestmark = [pytest.mark.redis, pytest.mark.slow]

PAGE = "back-up-and-restore"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    """The Redis to back up, with its data in a separate folder."""
    (tmp_path / "data").mkdir()
    options = {"dir": str(tmp_path / "data")}
    with RedisServer(tcp=True, appendonly=True, options=options) as server:
        yield server


@pytest.fixture
def variables(store: RedisServer, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield the variables of the page's commands. Stop the processes that they start."""
    for name in ("backup", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin" / "redis-server").symlink_to(store.binary)  # a version that can read the backup
    yield {
        "REDIS": store.url,
        "PORT": str(store.port),
        "DATA": str(tmp_path / "data"),
        "BACKUP": str(tmp_path / "backup"),
        "BIN": str(tmp_path / "bin"),
    }
    # The commands may have failed before they started it.
    client = redis.Redis(port=store.port, retry=Retry(NoBackoff(), 0))
    with closing(client), suppress(redis.ConnectionError):
        client.shutdown(nosave=True)


def back_up(folder: Path, variables: dict[str, str]) -> None:
    """Make a backup with the commands of the page."""
    save, look, copy = commands(PAGE, heading="Take a backup")
    shell(save, folder, variables)
    deadline = time.monotonic() + 60
    while "in_progress:0" not in (output := shell(look, folder, variables)):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # the server is saving
    assert "status:ok" in output
    shell(copy, folder, variables)


def restore(folder: Path, variables: dict[str, str]) -> str:
    """Restore a backup with the commands of the page. Return the output of `taskq doctor`."""
    stop, aside, start, switch_on, doctor, stats = commands(PAGE, heading="Restore")
    shell(stop, folder, variables, status=None)
    shell(aside, folder, variables)
    shell(start, folder, variables)
    with closing(redis.Redis(port=int(variables["PORT"]))) as client:
        until_blocking(lambda: answers(client), "the restored Redis answers")
    assert shell(switch_on, folder, variables) == "OK\n"
    found = shell(doctor, folder, variables, status=None)
    assert "default" in shell(stats, folder, variables)
    return found


def answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_restoring_an_older_state_has_the_documented_effects(
    store: RedisServer, variables: dict[str, str], redis_server: RedisServer, tmp_path: Path
) -> None:
    notes = redis_server  # records of the tasks, outside the Redis to restore
    with closing(TaskQ(store.url, enqueue_timeout=30, defaults={"retention": 600})) as taskq:
        quick = taskq.remote("quick", max_retry=3)
        worker = WorkerProcess(notes, url=store.url)
        try:
            before = quick.using(task_id="before").delay(name="before")
            assert before.result(timeout=30) == "done"
            held = taskq.remote("wait", task_id="held", max_retry=3).delay(name="held", until="go")
            until_blocking(lambda: marks(notes, "held"), "it runs")
            Inspector(taskq).pause("default")
            waits = quick.using(task_id="waits").delay(name="waits")
            locked = quick.using(task_id="locked", unique_for=600).delay(name="locked")
            flow = chain(quick.s(name="first"), quick.si(name="second")).delay()

            back_up(tmp_path, variables)

            Inspector(taskq).resume("default")
            notes.client.set("go", "1")
            for handle in (waits, locked, held, flow):
                handle.result(timeout=30)
            since = quick.using(task_id="since").delay(name="since")
            assert since.result(timeout=30) == "done"
        finally:
            worker.close()
        doctor = restore(tmp_path, variables)

        inspector = Inspector(taskq)
        assert "red " not in doctor, doctor
        assert inspector.queue_info("default").is_paused, "it was"
        assert inspector.task("default", "waits").state == TaskState.PENDING
        assert inspector.task("default", "held").state == TaskState.ACTIVE
        assert inspector.task("default", "before").state == TaskState.COMPLETED
        with pytest.raises(TaskNotFoundError):
            since.refresh()
        with pytest.raises(DuplicateTaskError):
            quick.using(unique_for=600).delay(name="locked")
        worker = WorkerProcess(notes, url=store.url)
        try:
            inspector.resume("default")
            for handle in (waits, locked, held, flow):
                handle.result(timeout=60)
            findings = inspector.reconcile("default").findings
        finally:
            worker.close()

    assert {name: marks(notes, name) for name in ("before", "waits", "locked", "first", "second", "since")} == {
        "before": ["ran"],
        "waits": ["ran", "ran"],
        "locked": ["ran", "ran"],
        "first": ["ran", "ran"],
        "second": ["ran", "ran"],
        "since": ["ran"],
    }
    assert marks(notes, "held") == ["started 1", "ended", "started 2", "ended"]
    assert not findings
    assert "Traceback" not in worker.output


def test_with_the_append_only_file_on_a_snapshot_is_ignored(store: RedisServer, tmp_path: Path) -> None:
    """For this reason the page starts Redis without it."""
    store.command("SET", "what", "then")
    store.command("SAVE")
    store.command("SET", "what", "now")

    store.kill()
    store.start()
    with_file = store.command("GET", "what")
    store.kill()
    store.options["appendonly"] = "no"
    store.start()

    assert (with_file, store.command("GET", "what")) == (b"now", b"then")


def test_the_append_only_file_is_copied_and_restored(
    store: RedisServer, variables: dict[str, str], tmp_path: Path
) -> None:
    with closing(TaskQ(store.url, enqueue_timeout=30)) as taskq:
        task = taskq.remote("work")
        taskq.client.enqueue_many(task.using(task_id=f"then-{number}").s() for number in range(5))
        hold, look, copy, release, stop, aside, start = commands(PAGE, heading="Copy the append-only file instead")

        shell(hold, tmp_path, variables)
        until_blocking(lambda: "in_progress:0" in shell(look, tmp_path, variables), "it is not rewritten")
        shell(copy, tmp_path, variables)
        shell(release, tmp_path, variables)
        task.using(task_id="since").delay()
        for command in (stop, aside, start):
            shell(command, tmp_path, variables, status=None if command == stop else 0)

        inspector = Inspector(taskq)
        until_blocking(lambda: is_there(inspector), "it is there again")
        assert sorted(each.id for each in inspector.tasks("default").tasks) == [f"then-{number}" for number in range(5)]
        assert not inspector.reconcile("default").findings


def is_there(inspector: Inspector) -> bool:
    try:
        return inspector.queues() == ["default"]
    except BrokerError:
        return False
