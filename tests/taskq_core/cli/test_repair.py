"""`taskq queue reconcile` and `finish-moves`."""

from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import TaskQ, TaskState
from taskq_core.broker.operations import actions
from taskq_core.inspector import Inspector
from taskq_core.repair import reconcile
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import Run

pytestmark = pytest.mark.redis
RunJson = Callable[..., Any]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again at once: nothing else works on these queues."""
    monkeypatch.setattr(reconcile, "LOOK_AGAIN_S", 0.0)


def test_damage_is_told_and_repaired(run: Run, run_json: RunJson, app: TaskQ, redis_server: RedisServer) -> None:
    task_id = app.remote("shop:ship").delay().id
    app.remote("shop:ship", queue="low").delay()
    redis_server.client.delete("asynq:{default}:pending")

    told = run("queue", "reconcile", "default", "low", status=1)
    default, low = run_json("queue", "reconcile", "default", "low", status=1)["queues"]
    repaired = run("queue", "reconcile", "default", "--repair")

    lines = told.stdout.splitlines()
    assert lines[0].split() == ["QUEUE", "ID", "DAMAGE", "DETAIL"]
    assert lines[1].split()[:3] == ["default", task_id, "not_listed"]
    assert lines[2] == "low: no damage in 1 tasks"
    assert (default["scanned"], default["complete"], low["findings"]) == (1, True, [])
    (finding,) = default["findings"]
    assert (finding["kind"], finding["id"], finding["repaired"]) == ("not_listed", task_id, False)
    assert "not_listed (repaired)" in repaired.stdout
    assert Inspector(app).count("default", TaskState.PENDING) == 1
    assert run("queue", "reconcile", "default").stdout == "default: no damage in 1 tasks\n"


def test_what_is_not_looked_through_is_no_success(run: Run, app: TaskQ, redis_server: RedisServer) -> None:
    """A structure of another type: no task can be judged."""
    app.remote("shop:ship").delay()
    redis_server.client.set("asynq:{default}:retry", "x")

    assert (
        "default: there is more damage; run the command again" in run("queue", "reconcile", "default", status=1).stderr
    )


def test_moves_that_were_cut_off_are_finished(run: Run, run_json: RunJson, app: TaskQ) -> None:
    ids = [app.remote("shop:ship").delay().id for _ in range(2)]
    app.runtime.runner.run(actions.move_out(app.runtime.keys.queue("default"), ids, token="aa", target="low"))

    assert run("queue", "finish-moves", "default").stdout == "2 tasks of default arrived\n"
    assert run_json("queue", "finish-moves", "default") == {"queues": [{"queue": "default", "ok": True, "count": 0}]}
    assert "no queue 'nothing'" in run("queue", "finish-moves", "nothing", status=1).stderr
    assert Inspector(app).count("low", TaskState.PENDING) == 2
