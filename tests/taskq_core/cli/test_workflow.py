"""`taskq workflow`: list, show, cancel, retry."""

from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.workflow import Workflow, WorkflowHandle, chain, group, step
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import Run

pytestmark = pytest.mark.redis
RunJson = Callable[..., Any]


@pytest.fixture
def handle(app: TaskQ) -> WorkflowHandle:
    """Enqueue a workflow whose second step fails until it is repaired."""

    @app.task(name="shop:load")
    def load(order: int) -> int:
        return order

    @app.task(name="shop:charge", max_retry=0)
    def charge(order: int) -> int:
        raise ValueError(f"card of {order} is gone")

    @app.task(name="shop:ship")
    def ship(order: int) -> int:
        return order

    return app.enqueue_workflow(
        Workflow("buy")
        .step("load", load.s(7))
        .step("charge", charge.s(), after="load")
        .step("ship", ship.s(), after="charge")
    )


def work(app: TaskQ) -> None:
    """Run what waits."""
    assert Worker(app, WorkerConfig(burst=True)).run() == 0


def test_list_prints_workflows(run: Run, run_json: RunJson, app: TaskQ, handle: WorkflowHandle) -> None:
    work(app)
    later = app.enqueue_workflow(chain(app.tasks["shop:load"].s(1), app.tasks["shop:ship"].s()))

    heads, first, second = run("workflow", "list", "-q", "default").stdout.splitlines()

    assert heads.split() == ["ID", "NAME", "STATE", "STEPS", "CREATED", "ENDED"]
    assert first.split()[:5] == [later.id, "load", "→", "ship", "running"]
    assert second.split()[:3] == [handle.id, "buy", "failed"]
    found = run_json("workflow", "ls", "-q", "default", "--size", "1", "--page", "2")
    assert [each["id"] for each in found["workflows"]] == [handle.id]
    assert (found["running"], found["ended"], found["page"], found["page_size"]) == (1, 1, 2, 1)
    assert "page 1 of 2, 2 workflows" in run("workflow", "ls", "-q", "default", "--size", "1").stderr
    assert run("workflow", "ls", "-q", "default", "--page", "9").stdout == "there are 1 pages\n"


def test_list_reports_an_unknown_queue(run: Run, app: TaskQ) -> None:
    app.remote("note").delay()

    assert run("workflow", "list", "-q", "default").stdout == "no workflows in default\n"
    assert "did you mean 'default'" in run("workflow", "list", "-q", "defaul", status=1).stderr
    run("workflow", "list", "-q", "default", "--size", "0", status=2)
    assert "Missing option '-q' / '--queue'" in run("workflow", "list", status=2).stderr


def test_show_prints_the_steps_of_a_workflow(run: Run, run_json: RunJson, app: TaskQ, handle: WorkflowHandle) -> None:
    words = ("workflow", "show", handle.id, "--queue", "default")
    assert [line.split()[:2] for line in run(*words).stdout.splitlines()[-3:]] == [
        ["load", "started"],
        ["charge", "waiting"],
        ["ship", "waiting"],
    ]
    work(app)

    text = run(*words).stdout
    assert "state    failed" in text
    assert "steps    3 of 3 ended" in text
    assert "card of 7 is gone" in text
    assert run(*words, "--format", "mermaid").stdout == handle.graph().to_mermaid()
    assert run_json(*words) == handle.graph().to_dict()
    assert run(*words, "--format", "json").stdout == run(*words, "--json").stdout


def test_a_retried_step_shows_its_attempts_and_its_error(run: Run, run_json: RunJson, app: TaskQ) -> None:
    @app.task(name="shop:charge", max_retry=7)
    def charge() -> None:
        raise ValueError("card is gone")

    handle = app.enqueue_workflow(chain(step(charge.si(), name="charge"), app.remote("shop:ship").si()))
    work(app)
    words = (handle.id, "--queue", "default")

    assert "charge  retrying 1/7  (ValueError: card is gone)" in run("workflow", "show", *words).stdout
    first = run_json("workflow", "show", *words)["steps"][0]
    assert (first["retried"], first["max_retry"], first["error"]) == (1, 7, "ValueError: card is gone")
    assert "state     retrying 1/7" in run("workflow", "step", handle.id, "charge", "-q", "default").stdout


def test_show_reports_an_unknown_workflow(run: Run, handle: WorkflowHandle) -> None:
    assert "no longer stored" in run("workflow", "show", "x", "-q", "default", status=1).stderr
    assert "no queue" in run("workflow", "show", handle.id, "-q", "elsewhere", status=1).stderr
    run("workflow", "show", handle.id, status=2)


def test_names_from_redis_do_not_control_the_terminal(
    run: Run, app: TaskQ, redis_server: RedisServer, handle: WorkflowHandle
) -> None:
    key = app.runtime.keys.queue("default").workflow(handle.id)
    redis_server.client.hset(key, "name", "\x1b[31mred")

    assert "\x1b" not in run("workflow", "list", "-q", "default").stdout
    assert "\x1b" not in run("workflow", "show", handle.id, "-q", "default").stdout


def test_cancel_cancels_a_workflow(run: Run, run_json: RunJson, app: TaskQ, handle: WorkflowHandle) -> None:
    words = ("workflow", "cancel", handle.id, "-q", "default")
    assert "pass --yes" in run(*words, status=2).stderr
    assert handle.refresh().state == "running"

    assert run(*words, "--yes").stdout == f"workflow {handle.id} is cancelled\n"
    assert handle.refresh().state == "cancelled"
    done = app.enqueue_workflow(chain(app.tasks["shop:load"].s(1), app.tasks["shop:ship"].s()))
    work(app)
    assert run("workflow", "cancel", done.id, "-q", "default", "-y").stdout == f"workflow {done.id} has already ended\n"
    found = run_json("workflow", "cancel", done.id, "gone", handle.id, "-q", "default", "-y", status=1)["ids"]
    assert [(each["id"], each["ok"], each.get("cancelled")) for each in found] == [
        (done.id, True, False),
        ("gone", False, None),
        (handle.id, True, True),
    ]
    assert "no longer stored" in found[1]["error"]


def test_retry_retries_failed_steps(run: Run, run_json: RunJson, app: TaskQ, handle: WorkflowHandle) -> None:
    words = ("workflow", "retry", handle.id, "-q", "default")
    assert run(*words).stdout == f"workflow {handle.id} has no failed step\n"
    work(app)

    assert run(*words).stdout == f"workflow {handle.id} runs 1 step again\n"
    assert handle.refresh().state == "running"
    work(app)
    assert run_json(*words) == {"ids": [{"id": handle.id, "ok": True, "count": 1}]}
    assert "no longer stored" in run("workflow", "retry", "gone", "-q", "default", status=1).stderr


def test_step_prints_a_step(run: Run, run_json: RunJson, app: TaskQ, handle: WorkflowHandle) -> None:
    work(app)
    load, charge = app.tasks["shop:load"], app.tasks["shop:charge"]
    many = app.enqueue_workflow(group([load.s(1), charge.s(2), load.s(3)], name="orders"))
    work(app)

    text = run("workflow", "step", handle.id, "charge", "-q", "default").stdout
    assert f"task id   {handle.id}.charge" in text
    assert "card of 7 is gone" in text
    assert "result    7" in run("workflow", "step", handle.id, "load", "-q", "default").stdout
    words = ("workflow", "step", many.id, "orders", "-q", "default")
    heads, *lines = run(*words).stdout.split("\n\n")[1].splitlines()
    assert heads.split() == ["MEMBER", "STATE", "TASK", "QUEUE", "ERROR", "OR", "RESULT"]
    assert [line.split()[:2] for line in lines] == [["0", "succeeded"], ["1", "failed"], ["2", "succeeded"]]
    assert "card of 2 is gone" in lines[1]
    assert "page 2 of 3, 3 members" in run(*words, "--size", "1", "--page", "2").stderr
    assert "there are 3 pages" in run(*words, "--size", "1", "--page", "9").stdout
    failed = run(*words, "--failed")
    assert [line.split()[:2] for line in failed.stdout.split("\n\n")[1].splitlines()[1:]] == [["1", "failed"]]
    assert "1 of 1 failed members" in failed.stderr
    assert [each["number"] for each in run_json(*words, "--failed")["members"]] == [1]
    run(*words, "--failed", "--page", "2", status=1)
    found = run_json(*words, "--size", "2", "--page", "2")
    assert [(each["number"], each["state"], each["result"]) for each in found["members"]] == [(2, "succeeded", "3")]
    assert (found["total"], found["succeeded"], found["failed"], found["page"]) == (3, 2, 1, 2)


def test_step_reports_an_unknown_step(run: Run, handle: WorkflowHandle) -> None:
    refused = run("workflow", "step", handle.id, "nothing", "-q", "default", status=1)

    assert "the workflow has no step 'nothing'" in refused.stderr
    assert "no longer stored" in run("workflow", "step", "gone", "load", "-q", "default", status=1).stderr
    run("workflow", "step", handle.id, "load", "-q", "default", "--size", "501", status=2)
