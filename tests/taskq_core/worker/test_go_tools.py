"""Test what Go's inspector, `asynqmon` and the `asynq` command do to tasks that only taskq has.

Each test plays Go's documented steps on the keys. The page docs/reference/go-tools.md states the outcomes.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskq_core import TaskContext, TaskQ
from taskq_core.wire import DEAD_LETTER, QueueKeys
from taskq_core.workflow import WorkflowHandle
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, stored, until

pytestmark = pytest.mark.redis

NOW_S = 2_000_000_000


def run(server: RedisServer, queue: QueueKeys, task_id: str) -> None:
    state: Any = server.client.hget(queue.task(task_id), "state")
    assert server.client.zrem(queue.prefix + state.decode(), task_id) == 1
    server.client.lpush(queue.pending, task_id)
    server.client.hset(queue.task(task_id), "state", "pending")


def archive(server: RedisServer, queue: QueueKeys, task_id: str) -> None:
    assert server.client.zrem(queue.scheduled, task_id) == 1
    server.client.zadd(queue.archived, {task_id: NOW_S})
    server.client.hset(queue.task(task_id), "state", "archived")


def delete(server: RedisServer, queue: QueueKeys, task_id: str) -> None:
    lock: Any = server.client.hget(queue.task(task_id), "unique_key")
    assert server.client.zrem(queue.scheduled, task_id) == 1
    if lock and server.client.get(lock) == task_id.encode():
        server.client.delete(lock)
    server.client.delete(queue.task(task_id))


def delete_all(server: RedisServer, queue: QueueKeys, task_id: str) -> None:
    for each in server.client.zrange(queue.scheduled, 0, -1):
        server.client.delete(queue.task(each.decode()))
    server.client.delete(queue.scheduled)


def remove_queue(server: RedisServer, queue: QueueKeys, task_id: str) -> None:
    """Remove the queue with force. Go refuses this while a task runs."""
    for name in ("scheduled", "retry", "archived"):
        for each in server.client.zrange(queue.prefix + name, 0, -1):
            server.client.delete(queue.task(each.decode()))
    for each in server.client.lrange(queue.pending, 0, -1):
        server.client.delete(queue.task(each.decode()))
    server.client.delete(queue.pending, queue.active, queue.scheduled, queue.retry, queue.archived, queue.lease)
    server.client.srem("asynq:queues", queue.name)


class Scene:
    """A worker, and a task that waits in one of taskq's ways."""

    def __init__(self, app: TaskQ, start: Runner, clock: Clock, server: RedisServer) -> None:
        self.app, self.start, self.clock, self.server = app, start, clock, server
        self.queue = app.runtime.keys.queue("default")
        self.ran: list[str] = []
        self.workflow: WorkflowHandle | None = None

    @property
    def own_keys(self) -> set[str]:
        """Kinds of taskq's own keys of the task, and of the lines of limits."""
        found = (key.decode() for key in self.server.client.scan_iter(f"{self.queue.own_prefix}*"))
        rest = (key.removeprefix(self.queue.own_prefix).split(":")[0:2] for key in found)
        return {
            part[0] if part[0] != "lim" else "lim:w"
            for part in rest
            if part[0] in ("steps", "stream") or part == ["lim", "w"]
        }

    def state_of(self, task_id: str) -> str | None:
        state: Any = self.server.client.hget(self.queue.task(task_id), "state")
        return None if state is None else str(state.decode())

    async def first(self) -> None:
        self.ran.append("first")

    async def limited(self) -> str:
        @self.app.task(name="limited", rate_limit="1/m")
        async def limited(number: int) -> None:
            self.ran.append(f"limited {number}")

        await self.start(queues={"default": 1}, reconcile_every=20)
        await limited.adelay(1)
        await until(lambda: self.ran)
        handle = await limited.adelay(2)
        await until(lambda: self.server.client.zcard(self.queue.scheduled))
        return handle.id

    async def step(self) -> str:
        @self.app.task(name="step", retention=0)
        async def step() -> None:
            self.ran.append("step")

        @self.app.task(name="last")
        async def last() -> None:
            self.ran.append("last")

        await self.start(queues={"default": 1}, reconcile_every=20)
        self.workflow = await (step.s().using(run_after=86400) | last.si()).adelay()
        return f"{self.workflow.id}.step"

    async def wait(self) -> str:
        @self.app.task(name="wait", max_retry=0)
        async def wait(context: TaskContext) -> object:
            await context.astep("first", self.first)
            await context.aemit("value")
            answer = await context.areceive("answer", timeout=86400)
            self.ran.append(f"received {answer}")
            return answer

        await self.start(queues={"default": 1}, reconcile_every=20)
        handle = await wait.adelay()
        await until(lambda: self.server.client.zcard(self.queue.scheduled))
        return handle.id


LIMITED, STEP, WAIT = "a task that waits for a limit", "a step of a workflow", "a durable task that waits"
GONE = "is deleted, and its place in the line is removed when its turn comes"
SWEPT = "is deleted. Workers delete its steps and emitted values within ten minutes"
OUTCOMES: dict[tuple[Callable[..., None], str], tuple[str, str | None, str, set[str]]] = {
    (run, LIMITED): ("asks the limit again, and waits on if the limit allows no start", "scheduled", "", {"lim:w"}),
    (run, STEP): ("runs at once, and its workflow continues", None, "succeeded", set()),
    (run, WAIT): (
        "runs at once: its wait ends without a value, as at its timeout",
        "archived",
        "",
        {"steps", "stream"},
    ),
    (archive, LIMITED): (
        "is archived, and its place in the line is removed when its turn comes",
        "archived",
        "",
        set(),
    ),
    (archive, STEP): (
        "is archived, and its workflow fails: `the task was archived by hand`",
        "archived",
        "failed",
        set(),
    ),
    (archive, WAIT): (
        "is archived. Its steps and emitted values stay, so a later run continues after the last step",
        "archived",
        "",
        {"steps", "stream"},
    ),
    (delete, LIMITED): (GONE, None, "", set()),
    (delete, STEP): ("is deleted, and its workflow fails: `the task was deleted`", None, "failed", set()),
    (delete, WAIT): (SWEPT, None, "", set()),
    (delete_all, LIMITED): (GONE, None, "", set()),
    (delete_all, STEP): ("is deleted, and its workflow fails: `the task was deleted`", None, "failed", set()),
    (delete_all, WAIT): (SWEPT, None, "", set()),
    (remove_queue, LIMITED): (GONE, None, "", set()),
    (remove_queue, STEP): ("is deleted, and its workflow fails: `the task was deleted`", None, "failed", set()),
    (remove_queue, WAIT): (SWEPT, None, "", set()),
}
"""Text of the page, and afterwards: state of the task, None if it is deleted; state of its workflow; keys."""
SCENES = {LIMITED: Scene.limited, STEP: Scene.step, WAIT: Scene.wait}
PAGE = Path(__file__).parents[3] / "docs/reference/go-tools.md"


@pytest.fixture
def scene(app: TaskQ, start: Runner, clock: Clock, redis_server: RedisServer) -> Scene:
    return Scene(app, start, clock, redis_server)


@pytest.mark.parametrize(("act", "kind"), OUTCOMES, ids=lambda value: getattr(value, "__name__", value))
async def test_gos_tools_act_on_tasks_that_wait(scene: Scene, act: Callable[..., None], kind: str) -> None:
    text, state, workflow_state, keys = OUTCOMES[act, kind]
    row = re.compile(rf"^\| {act.__name__.replace('_', ' ')} \| {kind} \| {re.escape(text)} \|$", re.MULTILINE)
    assert row.search(PAGE.read_text(encoding="utf-8")), f"| {act.__name__.replace('_', ' ')} | {kind} | {text} |"
    task_id = await SCENES[kind](scene)

    act(scene.server, scene.queue, task_id)
    await scene.clock.advance(15 if (act, kind) == (run, LIMITED) else 75)

    assert (scene.state_of(task_id), scene.own_keys) == (state, keys)
    if scene.workflow is not None:
        graph = await scene.workflow.agraph()
        assert graph.info.state == workflow_state
        assert graph.steps[0].error in text


async def test_an_archived_durable_task_that_go_runs_again_continues_after_its_last_step(scene: Scene) -> None:
    task_id = await scene.wait()
    archive(scene.server, scene.queue, task_id)

    run(scene.server, scene.queue, task_id)
    await scene.clock.advance(5)

    assert scene.ran == ["first"]
    assert scene.state_of(task_id) == "archived"  # without a value, `receive` has failed as at its timeout


async def test_a_removed_queue_leaves_the_keys_of_taskq(scene: Scene) -> None:
    await scene.wait()
    own = set(scene.server.client.scan_iter(f"{scene.queue.own_prefix}*"))

    remove_queue(scene.server, scene.queue, "")

    assert own
    assert set(scene.server.client.scan_iter(f"{scene.queue.own_prefix}*")) == own
    assert not scene.server.client.sismember("asynq:queues", "default")


async def test_an_old_go_worker_deletes_the_headers_of_a_task_that_it_retries(
    app: TaskQ, start: Runner, clock: Clock, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Asynq before 0.26 does not know them, and stores the message without them."""
    seen: list[dict[str, str]] = []

    @app.task(name="work")
    async def work(context: TaskContext) -> None:
        seen.append(dict(context.headers))

    handle = await work.using(headers={"tenant": "a"}, dead_letter="bury", priority=5).adelay()
    message = stored(redis_server, queue, handle.id)
    assert {"tenant", DEAD_LETTER} <= set(message.headers)
    message.headers.clear()
    redis_server.client.hset(queue.task(handle.id), mapping={"msg": message.SerializeToString(), "state": "retry"})
    redis_server.client.lrem(queue.pending, 0, handle.id)
    now: Any = redis_server.client.time()
    redis_server.client.zadd(queue.retry, {handle.id: now[0] + 10})

    await start()
    await clock.advance(15)

    assert seen == [{}]
    assert redis_server.client.hget(queue.task(handle.id), "taskq_priority")
