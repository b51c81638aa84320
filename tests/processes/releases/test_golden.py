"""Test that today's code reads and processes the data that earlier releases left in Redis, and writes the same data.

Golden files are never deleted, because data in a queue outlives the release that wrote it. For an intended change of
the format, the release that makes it adds a new file (`scenario.py`). The old files stay readable.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from taskq_core import DuplicateTaskError, TaskNotFoundError, TaskQ, TaskState
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector import AsyncInspector, Inspector
from taskq_core.views import AsyncDashboard
from taskq_core.wire import decode_message, encode_message
from tests.processes.releases.dump import Dump, as_bytes, comparable, dump, load
from tests.processes.releases.scenario import FAR, application, play
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until

pytestmark = pytest.mark.redis

GOLDEN = Path(__file__).parents[2] / "golden"
RELEASES = sorted(GOLDEN.glob("release-*.json"), key=lambda path: [int(n) for n in path.stem[8:].split(".")])
ALL = {"default": 1, "later": 1, "low": 1, "busy": 1}


def read(path: Path) -> Dump:
    found: Dump = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(params=RELEASES, ids=lambda path: path.stem)
def left(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[TaskQ]:
    """The application, with a Redis that contains the data of a release."""
    load(redis_server.client, read(request.param))
    with closing(application(redis_server.unix_url)) as taskq:
        yield taskq


def hour_of(server: RedisServer) -> int:
    return int(server.client.time()[0]) // 3600  # type: ignore[index]  # blocking client


async def test_the_scenario_leaves_the_same_data_today(redis_server: RedisServer) -> None:
    """This test fails when the format changes, before workers of two releases share a queue."""
    hour = None
    while hour != hour_of(redis_server):  # across an hour or midnight, there would be two counters
        hour = hour_of(redis_server)
        redis_server.flushall()
        await play(redis_server.unix_url)

    today, then = comparable(dump(redis_server.client)), comparable(read(RELEASES[-1]))

    assert sorted(set(then) - set(today)) == []
    assert sorted(set(today) - set(then)) == []
    assert today == then


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: path.stem)
def test_every_message_is_encoded_again_unchanged(path: Path) -> None:
    messages = [
        as_bytes(text) for each in read(path) if each["type"] == "hash" for name, text in each["value"] if name == "msg"
    ]

    assert len(messages) >= 15
    for data in messages:
        message = decode_message(data)
        again = encode_message(message)
        assert decode_message(again) == message
        assert again == data or len(message.headers) > 1, "protobuf orders names with the same beginning differently"


def info(inspector: Inspector, queue: str, task_id: str) -> TaskInfo:
    found = inspector.task(queue, task_id)
    assert isinstance(found, TaskInfo)
    return found


def test_data_of_an_earlier_release_is_read(left: TaskQ) -> None:
    inspector = Inspector(left)

    states = {
        name: info(inspector, queue, name).state
        for queue, names in {
            "default": (
                "done-1",
                "broken-1",
                "flaky-1",
                "plain-1",
                "scheduled-1",
                "limited-1",
                "limited-2",
                "grouped-1",
            ),
            "busy": ("active-1",),
        }.items()
        for name in names
    }
    assert states == {
        "done-1": TaskState.COMPLETED,
        "broken-1": TaskState.ARCHIVED,
        "flaky-1": TaskState.RETRY,
        "plain-1": TaskState.PENDING,
        "scheduled-1": TaskState.SCHEDULED,
        "limited-1": TaskState.PENDING,
        "limited-2": TaskState.SCHEDULED,
        "grouped-1": TaskState.AGGREGATING,
        "active-1": TaskState.ACTIVE,
    }
    everything = info(inspector, "default", "options-1")
    assert (everything.max_retry, everything.timeout.total_seconds(), everything.deadline) == (7, 90, FAR)
    assert everything.headers["tenant"] == "north"
    assert json.loads(everything.payload) == {"to": "e@example.com", "subject": "all"}
    assert info(inspector, "default", "limited-2").waits_for_limit
    assert "no such address" in info(inspector, "default", "broken-1").last_error
    assert inspector.queue_info("low").is_paused
    for queue in ALL:
        assert not inspector.reconcile(queue).findings, queue


def test_results_of_an_earlier_release_are_read(left: TaskQ) -> None:
    inspector = Inspector(left)

    assert json.loads(info(inspector, "default", "done-1").result) == {"to": "a@example.com", "subject": "é"}


def test_locks_of_an_earlier_release_are_valid(left: TaskQ) -> None:
    with pytest.raises(DuplicateTaskError) as unique:
        left.tasks["search:index"].delay(7, reason="again")
    with pytest.raises(DuplicateTaskError) as locked:
        left.tasks["mail:send"].using(unique_for=60).delay("g@example.com")

    assert (unique.value.existing_id, locked.value.existing_id) == ("unique-1", "locked-1")


async def test_work_of_an_earlier_release_is_completed(left: TaskQ) -> None:
    """This covers tasks, workflows, groups, sequences, tasks of a killed worker, and a resumed queue."""
    inspector = AsyncInspector(left)
    workflows = [each.id for each in (await AsyncDashboard(inspector).workflows("default")).rows]

    async def end(queue: str, *names: str) -> None:
        for name in names:

            async def has_ended(name: str = name) -> bool:
                try:
                    return (await inspector.task(queue, name)).state is TaskState.COMPLETED
                except TaskNotFoundError:
                    return False  # the group has not been combined yet

            await until(has_ended, f"{queue}: {name} is completed")

    runner = Runner(left)
    await runner(queues=ALL, lease_grace=1)
    try:
        await end("default", "plain-1", "options-1", "limited-1", "limited-2", "unique-1", "locked-1", "digest-1")
        await end("busy", "active-1")
        await inspector.resume("low")
        await inspector.run_task("default", "flaky-1")
        await inspector.run_task("default", "scheduled-1")
        await end("low", "low-1")
        await end("default", "flaky-1", "scheduled-1")
        results = [await left.workflow(each).aresult(timeout=30) for each in workflows]
        digest = await inspector.task("default", "digest-1")
        findings = {queue: (await inspector.reconcile(queue)).findings for queue in ALL}
    finally:
        await runner.close()
        await left.aclose()

    assert sorted(results) == [6, 6]
    assert json.loads(digest.result) == "text 1, text 2"
    assert not any(findings.values()), findings
