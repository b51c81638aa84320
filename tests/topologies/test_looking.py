"""Test what the command line and the exporter show for a cluster."""

import asyncio
import json

import pytest

from taskq_core import TaskNotFoundError, TaskQ
from taskq_core.cli import main
from tests.redis_server import start_cluster
from tests.taskq_exporter.test_exporter import fresh, present, scrape

pytestmark = pytest.mark.redis


def test_list_on_a_cluster_shows_slot_and_nodes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> str:
        assert main(words) == 0
        return capsys.readouterr().out

    with start_cluster() as nodes:
        monkeypatch.setenv("TASKQ_URL", f"redis+cluster://127.0.0.1:{nodes[0].port}")
        monkeypatch.setenv("TASKQ_ENQUEUE_TIMEOUT", "30")
        app = TaskQ.from_env()
        app.remote("shop:ship").delay()
        app.close()

        (found,) = json.loads(run("queue", "list", "--json"))["queues"]
        table = run("queue", "list").splitlines()
        run("stats")

    assert found["queue"] == "default"
    assert found["slot"] == int(table[1].split()[1])
    assert found["nodes"][0] in {f"127.0.0.1:{node.port}" for node in nodes}


async def test_a_task_is_found_by_its_id_on_a_cluster() -> None:
    """The queues are on several nodes, so several requests are needed."""
    with start_cluster(3) as nodes:
        url, queues = f"redis+cluster://127.0.0.1:{nodes[0].port}", {f"q{number}": 1 for number in range(6)}
        app = TaskQ(url, queues=queues, enqueue_timeout=30)
        for queue in ("q0", "q5", "of-another"):
            sent = await app.remote("plain", queue=queue).adelay()
            found = await app.aget(sent.id), await asyncio.to_thread(app.get, sent.id)
            assert [handle.queue for handle in found] == [queue] * 2
        with pytest.raises(TaskNotFoundError):
            await app.aget("none")
        await app.aclose()


async def test_the_exporter_reports_queues_on_all_nodes_of_a_cluster() -> None:
    with start_cluster(3) as nodes:
        app = TaskQ(f"redis+cluster://127.0.0.1:{nodes[0].port}", enqueue_timeout=30)
        for number in range(6):
            await app.remote("plain", queue=f"q{number}").adelay()
        await present(app, 4)

        found = await scrape(fresh(app))
        await app.aclose()

    assert found.by("asynq_queue_size", "queue") == {f"q{number}": 1 for number in range(6)}
    assert found.of("taskq_workers") == 4, "their keys are on several nodes"
