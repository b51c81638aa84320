"""Test the Redis users in docs/how-to/set-up-redis.md: each one can do its work, and is refused everything else."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import EnqueueError, PeriodicTask, TaskQ, TaskQError, TaskState
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.steps import read_stream
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import BrokerAuthenticationError
from taskq_core.inspector import AsyncInspector, Inspector
from taskq_core.views import AsyncDashboard, Dashboard, TaskFilter, WorkflowFilter
from taskq_core.worker import Worker, WorkerConfig
from taskq_exporter import Exporter
from tests.conformance.stores import redis_programs
from tests.redis_server import RedisServer
from tests.taskq_core.broker.test_roles import ANY, commands, in_scripts
from tests.taskq_fastapi.api import populate
from tests.topologies.test_access import (
    denied,
    do_nothing,
    run_scheduler,
    start_workflow_as_admin,
    store_as_admin,
    url_of,
)

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module", params=redis_programs())
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(tcp=True, binary=redis_programs()[request.param]) as server:
        yield server


# --- the one who looks ------------------------------------------------------------------------------------------------

Q = "default"
LOOKS: dict[str, Callable[[Inspector], Any]] = {
    "queues": lambda i: i.queues(),
    "queue_info": lambda i: i.queue_info(Q),
    "queue_infos": lambda i: i.queue_infos(),
    "history": lambda i: i.history(Q, 2),
    "memory_usage": lambda i: i.memory_usage(Q),
    "groups": lambda i: i.groups(Q),
    "groups_page": lambda i: i.groups_page(Q, limit=1),
    "limits": lambda i: i.limits(Q),
    "tasks": lambda i: [
        *(i.tasks(Q, state) for state in TaskState if state is not TaskState.AGGREGATING),
        i.tasks(Q, TaskState.AGGREGATING, group="alone"),
    ],
    "task": lambda i: i.task(Q, i.tasks(Q, TaskState.PENDING).tasks[0].id),
    "count": lambda i: i.count(Q, TaskState.PENDING),
    "find_tasks": lambda i: [
        i.find_tasks(Q, state, name="known", newer_than=3600)
        for state in TaskState
        if state is not TaskState.AGGREGATING
    ],
    "questions": lambda i: i.questions(),
    "servers": lambda i: i.servers(),
    "scheduler_entries": lambda i: i.scheduler_entries(),
    "scheduler_events": lambda i: i.scheduler_events("nightly"),
}
"""Calls of the inspector's methods that read, by name."""
ACTS: dict[str, Callable[[Inspector, str], Any]] = {
    "set_limit": lambda i, t: i.set_limit(Q, "known", rate="5/s"),
    "clear_limit": lambda i, t: i.clear_limit(Q, "known"),
    "pause": lambda i, t: i.pause(Q),
    "resume": lambda i, t: i.resume(Q),
    "remove_queue": lambda i, t: i.remove_queue("other", force=True),
    "remove_queue_part": lambda i, t: i.remove_queue_part("other", force=True),
    "run_task": lambda i, t: i.run_task(Q, t),
    "archive_task": lambda i, t: i.archive_task(Q, t),
    "delete_task": lambda i, t: i.delete_task(Q, t),
    "retry_task": lambda i, t: i.retry_task(Q, t, after=30),
    "update_payload": lambda i, t: i.update_payload(Q, t, b"{}"),
    "move_task": lambda i, t: i.move_task(Q, t, "other"),
    "reschedule_task": lambda i, t: i.reschedule_task(Q, t, after=30),
    "cancel_task": lambda i, t: i.cancel_task(i.tasks(Q, TaskState.ACTIVE).tasks[0].id),
    "run_all": lambda i, t: i.run_all(Q, TaskState.SCHEDULED),
    "archive_all": lambda i, t: i.archive_all(Q, TaskState.SCHEDULED),
    "delete_all": lambda i, t: i.delete_all(Q, TaskState.SCHEDULED),
    "move_all": lambda i, t: i.move_all(Q, TaskState.SCHEDULED, "other"),
    "pause_schedule": lambda i, t: i.pause_schedule("nightly"),
    "resume_schedule": lambda i, t: i.resume_schedule("nightly"),
    "add_schedule": lambda i, t: i.add_schedule(PeriodicTask("@daily", TaskQ().remote("t"), id="more")),
    "remove_schedule": lambda i, t: i.remove_schedule("added"),
    "control_workers": lambda i, t: i.control_workers("quiet"),
    "signal_task": lambda i, t: i.signal_task(Q, t, "go", 1),
}
"""Calls of the inspector's methods that change something, by name; `t` is the id of a scheduled task."""
ELSEWHERE = {
    "answer_task": "sends what `signal_task` sends, after a read",
    "forget_step": "changes nothing without a stored step",
    "act_on": "as `run_all` and the others: it sends what they send",
    "act_on_matching": "the same",
    "reconcile": "looks for damage, and repairs none unless it is told to",
    "run_plan": "carries out what it is given",
    "key_slot": "counts, and asks nobody",
    "cluster_nodes": "needs a right that the page tells of apart",
    "redis_info": "the same",
    "taskq": "asks nobody",
}


def test_every_method_of_the_inspector_is_in_one_of_the_tables() -> None:
    public = {name for name in vars(Inspector) if not name.startswith("_")}

    assert public - set(ELSEWHERE) == set(LOOKS) | set(ACTS)
    assert {name for name in vars(AsyncInspector) if not name.startswith("_")} == public


def look_at_dashboard(inspector: Inspector, workflow: str) -> None:
    """Read everything that dashboards show."""
    dashboard, infos = Dashboard(inspector), inspector.queue_infos()
    counts = dashboard.workflow_counts([Q])
    step = dashboard.workflow(Q, workflow).graph.steps[0]
    name = getattr(step, "name", step)
    seen: dict[str, Any] = {
        "queues": dashboard.queues(),
        "queue": dashboard.queue(Q),
        "history": dashboard.history([Q]),
        "samples": dashboard.samples([Q], span=timedelta(hours=1)),
        "types": dashboard.types([Q]),
        "workers": dashboard.workers(),
        "workflows": dashboard.workflows(Q),
        "workflow": dashboard.workflow(Q, workflow),
        "workflow_step": dashboard.workflow_step(Q, workflow, str(name)),
        "workflow_counts": counts,
        "list_workflows": dashboard.list_workflows(counts, WorkflowFilter(queue=Q)),
        "search_workflows": dashboard.search_workflows(counts, WorkflowFilter(text="x")),
        "store": dashboard.store(),
        "tasks": dashboard.tasks(infos, TaskFilter(queue=Q)),
        "timeline": dashboard.timeline(Q, "unknown"),
        "search_tasks": dashboard.search_tasks(infos, TaskFilter(text="x")),
        "select_tasks": dashboard.select_tasks(infos, TaskFilter(queue=Q), states=[TaskState.PENDING]),
    }
    assert set(seen) == {each for each in vars(Dashboard) if not each.startswith("_")}
    assert {each for each in vars(AsyncDashboard) if not each.startswith("_")} >= set(seen)


def fill(server: RedisServer) -> tuple[str, str]:
    """Store tasks of every kind and a workflow. Return the ids of a scheduled task and of the workflow."""
    server.flushall()
    scheduled = store_as_admin(server)["scheduled"].id
    workflow = start_workflow_as_admin(server)
    with closing(TaskQ(server.unix_url, defaults={"retention": 60}, enqueue_timeout=60)) as app:
        populate(app, server)
        Inspector(app).add_schedule(PeriodicTask("@daily", app.remote("t"), id="added"))
    return scheduled, workflow


def look_at_all(app: TaskQ, workflow: str) -> None:
    """Read with every tool that reads."""
    inspector = Inspector(app)
    for look in LOOKS.values():
        look(inspector)
    look_at_dashboard(inspector, workflow)
    app.workflow(workflow).refresh()
    app.workflow(workflow).graph()
    app.runtime.runner.run(read_stream(app.runtime.keys.queue("default"), "unknown"))


def test_the_page_gives_a_viewer_exactly_the_needed_rights(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test records the requests of all reads, and searches their scripts for commands."""
    _, workflow = fill(redis_server)
    sent: list[Operation[Any]] = []
    once = SyncRunner.run

    def note(self: SyncRunner, operation: Operation[Any], **more: Any) -> Any:
        sent.append(operation)
        return once(self, operation, **more)

    monkeypatch.setattr(SyncRunner, "run", note)
    with closing(TaskQ(redis_server.unix_url)) as app:
        look_at_all(app, workflow)

    scripts = {operation.script.name for operation in sent if operation.script is not None}
    plain = {str(operation.args[0]) for operation in sent if operation.script is None}
    needed = (in_scripts(scripts) | plain | {"EVAL", "EVALSHA"}) - ANY
    needed -= {"HSET"}  # `read_task` works without it; see also `generation_of`
    allowed = commands("viewer")
    assert sorted(needed - allowed) == []
    assert sorted(allowed - needed) == []
    assert allowed < commands("operator")


@pytest.mark.parametrize("user", ["viewer", "exporter"])
def test_no_command_of_a_viewer_writes(server: RedisServer, user: str) -> None:
    for name in commands(user) - {"EVAL", "EVALSHA"}:  # a script has the rights of its user
        (told,) = server.command("COMMAND", "INFO", name.lower()).values()
        assert "write" not in told["flags"], name


def test_a_viewer_sees_everything_and_changes_nothing(server: RedisServer) -> None:
    scheduled, workflow = fill(server)
    stored = {key: server.client.dump(key) for key in server.client.scan_iter("*")}
    url = url_of(server, "viewer")
    for key, value in stored.items():
        server.client.restore(key, 0, value)
    before = server.contents()
    with closing(TaskQ(url)) as app:
        look_at_all(app, workflow)
        assert denied(server) <= {"hset"}  # `read_task` gives a task of another program a generation, if it may
        for act in ACTS.values():
            with pytest.raises(BrokerAuthenticationError):
                act(Inspector(app), scheduled)
        with pytest.raises(EnqueueError):
            app.remote("t").delay()
        with pytest.raises(TaskQError):
            app.workflow(workflow).cancel()
        assert asyncio.run(Worker(app, WorkerConfig(burst=True)).arun()) == 1

    assert server.contents() == before


# --- the exporter -----------------------------------------------------------------------------------------------------


async def test_an_exporter_needs_no_more_rights_than_a_viewer(server: RedisServer) -> None:
    app = TaskQ(url_of(server, "viewer"))
    await asyncio.to_thread(fill, server)

    reading = await Exporter(app).read()
    await app.aclose()

    assert reading is not None
    assert any(each.memory for each in reading.queues)
    assert denied(server) == set()


async def test_an_exporter_can_only_read_counts(server: RedisServer) -> None:
    await asyncio.to_thread(fill, server)
    stored = {key: server.client.dump(key) for key in server.client.scan_iter("*")}
    url = url_of(server, "exporter")
    for key, value in stored.items():
        server.client.restore(key, 0, value)
    before = server.contents()
    app = TaskQ(url)
    reading = await Exporter(app).read()

    assert reading is not None
    assert {queue.info.name: queue.info.problem for queue in reading.queues} == {"default": "", "other": ""}
    assert denied(server) == set()
    assert [bool(queue.memory) for queue in reading.queues if queue.info.size] == [True]
    assert len(reading.workers) == 1
    inspector = Inspector(app)
    for look in (
        lambda: inspector.tasks(Q, TaskState.PENDING),
        lambda: inspector.find_tasks(Q, TaskState.PENDING),
        lambda: inspector.pause(Q),
        lambda: inspector.remove_queue("other", force=True),
        lambda: inspector.run_all(Q, TaskState.SCHEDULED),
    ):
        with pytest.raises(BrokerAuthenticationError):
            await asyncio.to_thread(look)
    await app.aclose()
    assert server.contents() == before


# --- the scheduler ----------------------------------------------------------------------------------------------------


def test_a_scheduler_can_only_enqueue(server: RedisServer) -> None:
    url = url_of(server, "scheduler")
    app = TaskQ(url)
    app.periodic("@every 1s", id="e")(app.task(name="t")(do_nothing))
    with closing(app):
        asyncio.run(run_scheduler(app, server))
        assert denied(server) == set()
        inspector = Inspector(app)
        for act in (
            lambda: inspector.run_all(Q, TaskState.SCHEDULED),
            lambda: inspector.find_tasks(Q, TaskState.PENDING),
            lambda: inspector.remove_queue(Q, force=True),
        ):
            with pytest.raises(BrokerAuthenticationError):
                act()
        assert asyncio.run(Worker(app, WorkerConfig(burst=True)).arun()) == 1
    assert server.client.llen("asynq:{default}:pending") >= 1


# --- tenants ----------------------------------------------------------------------------------------------------------


def test_a_tenant_cannot_access_another_queue(server: RedisServer) -> None:
    """A tenant can use and read its own queue, and only see the names of others."""
    with closing(TaskQ(server.unix_url, enqueue_timeout=60)) as admin:
        url = url_of(server, "operator", queues=["mail"])
        own = admin.remote("t", queue="mail").delay(n=1)
        other = admin.remote("t", queue="bank").delay(n=2)
        with closing(TaskQ(url, queues=["mail"], enqueue_timeout=60)) as app:
            inspector = Inspector(app)
            assert app.remote("t", queue="mail").delay().id
            assert inspector.task("mail", own.id).name == "t"
            assert sorted(inspector.queues()) == ["bank", "mail"], (
                "the names of other queues are visible, as the page says"
            )
            before = server.contents()
            for look in (
                lambda: inspector.task("bank", other.id),
                lambda: inspector.tasks("bank", TaskState.PENDING),
                lambda: inspector.pause("bank"),
                lambda: inspector.delete_task("bank", other.id),
                lambda: inspector.remove_queue("bank", force=True),
            ):
                with pytest.raises(BrokerAuthenticationError):
                    look()
            with pytest.raises(EnqueueError):
                app.remote("t", queue="bank").delay()
            assert server.contents() == before
            with pytest.raises(BrokerAuthenticationError):
                inspector.move_task("mail", own.id, "bank")
            assert server.client.llen("asynq:{bank}:pending") == 1
