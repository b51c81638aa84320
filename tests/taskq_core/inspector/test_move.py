"""Test moves of tasks to another queue, and what remains when a move is interrupted."""

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from taskq_core import (
    BrokerFullError,
    BrokerUnavailableError,
    ConfigurationError,
    DuplicateTaskError,
    TaskIdConflictError,
    TaskInfo,
    TaskQ,
    TaskState,
)
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import actions, outbox
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot, StoreCode
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import BrokerAuthenticationError, BrokerError, TaskStateError, WireFormatError
from taskq_core.inspector import AsyncInspector, Inspector
from taskq_core.wire import decode_message, encode_message
from taskq_core.worker import Worker, WorkerConfig
from tests.clock import at_time
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.inspector.conftest import Ask, Enqueue

pytestmark = pytest.mark.redis

STATES: dict[str, dict[str, Any]] = {
    "pending": {},
    "scheduled": {"run_after": 600},
    "aggregating": {"aggregate": "g"},
}
STEPS = ("copy_out", "deliver", "copy_end", "expire_deliveries")
"""The scripts of a move, in order."""


class Cut(Exception):  # noqa: N818 - no error, the end
    """The process died here."""


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Break off before, or after, the operation of a name, once."""
    armed: dict[str, bool] = {}

    def arm(name: str, *, done: bool) -> None:
        armed[name] = done

    def wrap(real: Any) -> Any:
        async def arun(self: Any, operation: Any, **more: Any) -> Any:
            if armed.get(operation.name) is False:
                del armed[operation.name]
                raise Cut
            answer = await real(self, operation, **more)
            if armed.pop(operation.name, False):
                raise Cut
            return answer

        def run(self: Any, operation: Any, **more: Any) -> Any:
            if armed.get(operation.name) is False:
                del armed[operation.name]
                raise Cut
            answer = real(self, operation, **more)
            if armed.pop(operation.name, False):
                raise Cut
            return answer

        return arun if inspect.iscoroutinefunction(real) else run

    for runner in (SyncRunner, AsyncRunner):
        monkeypatch.setattr(runner, "run", wrap(runner.run))
    yield arm
    assert not armed, "it was broken off"


def runnable(redis_server: RedisServer, task_id: str) -> list[str]:
    """Return the queues in which the task waits for a run."""
    client, found = redis_server.client, []
    for queue in ("default", "low"):
        prefix = f"asynq:{{{queue}}}:"
        places = [task_id.encode() in client.lrange(prefix + "pending", 0, -1)]
        places += [client.zscore(prefix + name, task_id) is not None for name in ("scheduled", "retry", "g:g")]
        found += [queue] * sum(places)
    return found


@rows("options", STATES.values(), ids=STATES)
async def test_a_moved_task_keeps_its_state(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, options: dict[str, Any]
) -> None:
    """All of it but the queue's name stays, its time among it."""
    task_id = enqueue(**options, headers={"a": "b"}, retention=60).id
    before: TaskInfo = await ask("task", "default", task_id)

    await ask("move_task", "default", task_id, "low")

    after = await ask("task", "low", task_id)
    assert after.queue == "low"
    for name in ("state", "payload", "headers", "retention", "next_run_at", "group", "max_retry"):
        assert getattr(after, name) == getattr(before, name), name
    assert runnable(redis_server, task_id) == ["low"]
    assert not redis_server.client.exists(f"asynq:{{default}}:t:{task_id}")
    assert await ask("queues") == ["default", "low"]
    fields = redis_server.client.hkeys(f"asynq:{{low}}:t:{task_id}")
    assert [name for name in fields if name.startswith(b"taskq_")] == [b"taskq_generation"]


async def test_a_moved_task_runs_in_the_target_queue(app: TaskQ, ask: Ask, enqueue: Enqueue) -> None:
    ran: list[str] = []

    @app.task(name="email:deliver")
    def deliver(to: str) -> None:
        ran.append(to)

    await ask("move_task", "default", enqueue().id, "low")

    assert await Worker(app, WorkerConfig(burst=True, queues={"low": 1})).arun() == 0
    assert ran == ["1@b.c"]


async def test_a_moved_archived_task_runs_again(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    task_id = enqueue(max_retry=3).id
    await ask("archive_task", "default", task_id)

    await ask("move_task", "default", task_id, "low")

    task = await ask("task", "low", task_id)
    assert (task.state, task.max_retry) == (TaskState.PENDING, 3)
    assert not redis_server.client.exists(f"asynq:{{default}}:t:{task_id}")


async def test_a_retried_task_waits_for_the_same_time(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    """Its fields move too, also unknown ones."""
    client, task_id = redis_server.client, enqueue(priority=7).id
    await ask("archive_task", "default", task_id)
    await ask("retry_task", "default", task_id, after=600)
    start = client.zscore("asynq:{default}:retry", task_id)
    client.hset(f"asynq:{{default}}:t:{task_id}", mapping={"one": '{"a": "g1;\n"}', "other": b"\xff\x00"})

    await ask("move_task", "default", task_id, "low")

    assert client.zscore("asynq:{low}:scheduled", task_id) == start
    names = ("one", "other", "taskq_priority")
    assert client.hmget(f"asynq:{{low}}:t:{task_id}", names) == [b'{"a": "g1;\n"}', b"\xff\x00", b"7:7"]


async def test_a_task_that_has_succeeded_is_not_moved(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    client, task_id = redis_server.client, enqueue().id
    client.lrem("asynq:{default}:pending", 1, task_id)
    client.zadd("asynq:{default}:completed", {task_id: 4_000_000_000})
    client.hset(f"asynq:{{default}}:t:{task_id}", "state", "completed")

    with pytest.raises(TaskStateError, match="the task has succeeded"):
        await ask("move_task", "default", task_id, "low")
    with pytest.raises(ConfigurationError, match="move_all takes tasks that are"):
        await ask("move_all", "default", TaskState.COMPLETED, "low")


async def test_the_unique_lock_moves_with_the_task(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    task_id = enqueue(unique_for=3600).id

    await ask("move_task", "default", task_id, "low")

    (lock,) = redis_server.client.keys("asynq:*:unique:*")
    assert lock.startswith(b"asynq:{low}:unique:email:deliver:")
    assert redis_server.client.get(lock) == task_id.encode()
    assert 3500 < redis_server.client.ttl(lock) <= 3600
    await ask("delete_task", "low", task_id)
    assert redis_server.client.keys("asynq:*:unique:*") == []


async def test_a_copy_may_have_other_arguments(app: TaskQ, enqueue: Enqueue, redis_server: RedisServer) -> None:
    """Its unique lock is that of the new arguments."""
    handle = enqueue(unique_for=3600)
    deliver = app.remote("email:deliver")

    with pytest.raises(ConfigurationError, match="call must be a call of task 'email:deliver'"):
        handle.move("low", call=app.remote("other").s())
    handle.move("low", call=deliver.s(to="x@b.c"))

    assert handle.refresh().payload == b'{"to":"x@b.c"}'
    (lock,) = redis_server.client.keys("asynq:*:unique:*")
    assert redis_server.client.get(lock) == handle.id.encode()
    other = app.client.enqueue(app.remote("email:deliver", queue="low", unique_for=60).s(to="1@b.c"))
    assert other.id != handle.id
    with pytest.raises(DuplicateTaskError):
        app.client.enqueue(app.remote("email:deliver", queue="low", unique_for=60).s(to="x@b.c"))


async def test_a_taken_id_keeps_the_task_where_it_is(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    enqueue("low", task_id="7")
    enqueue(task_id="7", run_after=600)
    score = redis_server.client.zscore("asynq:{default}:scheduled", "7")

    with pytest.raises(TaskIdConflictError, match="id '7' is taken in queue 'low'"):
        await ask("move_task", "default", "7", "low")

    assert runnable(redis_server, "7") == ["default", "low"]
    assert redis_server.client.zscore("asynq:{default}:scheduled", "7") == score
    assert (await ask("task", "low", "7")).payload == b'{"to":"1@b.c"}'


async def test_a_held_lock_keeps_the_task_where_it_is(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    for queue in ("default", "low"):
        app.client.enqueue(app.remote("t", queue=queue, task_id=queue, unique_for=60).s(a=1))

    with pytest.raises(DuplicateTaskError):
        await ask("move_task", "default", "default", "low")

    assert runnable(redis_server, "default") == ["default"]
    locks = {redis_server.client.get(key) for key in redis_server.client.keys("asynq:*:unique:*")}
    assert locks == {b"default", b"low"}


async def test_an_unreadable_task_stays(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    task_id = enqueue().id
    redis_server.client.hset(f"asynq:{{default}}:t:{task_id}", "msg", b"\xff\xff")

    with pytest.raises(WireFormatError):
        await ask("move_task", "default", task_id, "low")

    assert runnable(redis_server, task_id) == ["default"]
    assert await ask("move_all", "default", TaskState.PENDING, "low") == 0
    assert runnable(redis_server, task_id) == ["default"]


async def test_the_same_queue_and_odd_names_are_refused(ask: Ask, enqueue: Enqueue) -> None:
    task_id = enqueue().id

    for to in ("default", "", "}x"):
        with pytest.raises(ConfigurationError):
            await ask("move_task", "default", task_id, to)


@rows("done", [False, True], ids=["before", "after"])
@rows("step", STEPS)
@rows("options", STATES.values(), ids=STATES)
async def test_a_repeat_completes_an_interrupted_move(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, cut: Any, step: str, done: bool, options: Any
) -> None:
    """The task can run in at most one queue, and its archived original names the other one."""
    task_id = enqueue(**options, unique_for=600).id
    cut(step, done=done)

    with pytest.raises(Cut):
        await ask("move_task", "default", task_id, "low")

    assert len(runnable(redis_server, task_id)) <= 1
    if redis_server.client.exists(f"asynq:{{default}}:t:{task_id}"):
        original = await ask("task", "default", task_id)
        if runnable(redis_server, task_id) != ["default"]:
            assert original.state is TaskState.ARCHIVED
            assert original.last_error.startswith("copied to queue low with the same id")
        await ask("move_task", "default", task_id, "low")
    assert runnable(redis_server, task_id) == ["low"]
    assert not (await ask("task", "low", task_id)).last_error
    assert not redis_server.client.exists(f"asynq:{{default}}:t:{task_id}")
    (lock,) = redis_server.client.keys("asynq:*:unique:*")
    assert lock.startswith(b"asynq:{low}")


async def test_a_copy_that_has_run_is_not_stored_again(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, cut: Any
) -> None:
    """Only the deletion of the original is missing."""
    task_id = enqueue().id
    cut("copy_end", done=False)
    with pytest.raises(Cut):
        await ask("move_task", "default", task_id, "low")
    await ask("delete_task", "low", task_id)

    await ask("move_task", "default", task_id, "low")

    assert redis_server.client.keys(f"asynq:*:t:{task_id}") == []
    assert runnable(redis_server, task_id) == []


async def test_the_original_of_an_interrupted_move_does_not_run(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, cut: Any
) -> None:
    """It can only be moved to the same queue again."""
    task_id = enqueue().id
    cut("deliver", done=False)
    with pytest.raises(Cut):
        await ask("move_task", "default", task_id, "low")

    for method, arguments in (
        ("run_task", {}),
        ("retry_task", {"after": 1}),
        ("delete_task", {}),
        ("update_payload", {"payload": b"{}"}),
        ("move_task", {"to_queue": "elsewhere"}),
    ):
        with pytest.raises(TaskStateError, match="being copied to another queue, which its last error names"):
            await ask(method, "default", task_id, **arguments)
    assert await ask("run_all", "default", TaskState.ARCHIVED) == 0
    assert await ask("move_all", "default", TaskState.ARCHIVED, "low") == 1
    assert runnable(redis_server, task_id) == ["low"]


async def test_a_move_that_is_too_old_is_not_continued(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """The receipt of its copy may have expired."""
    task_id = enqueue().id
    archived(app, task_id, "aa")
    key = f"asynq:{{default}}:t:{task_id}"
    copy, caller, first, rest = redis_server.client.hget(key, "taskq_copied").split(b":", 3)
    old = b"%d" % (int(first) - actions.COPY_KEPT_S - 1)
    redis_server.client.hset(key, "taskq_copied", b":".join((copy, caller, old, rest)))

    with pytest.raises(TaskStateError, match="being copied"):
        await ask("move_task", "default", task_id, "low")


async def test_a_delayed_caller_may_send_a_copy_until_a_minute_after_the_deletion(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller that completes the move was suspended before it deleted the original."""
    task_id = enqueue().id
    low, run, now_s = app.runtime.keys.queue("low"), app.runtime.runner.run, int(time.time())
    real = actions.copy_end
    late: list[actions.Original] = []

    def after_five_minutes(*arguments: Any, **more: Any) -> Any:
        if not late:
            late.append(archived(app, task_id, "bb", seconds_ago=-299)[1][0])
        return at_time((now_s + 300) * 10**9, real(*arguments, **more))

    monkeypatch.setattr(actions, "copy_end", after_five_minutes)
    await ask("move_task", "default", task_id, "low")
    await ask("delete_task", "low", task_id)

    row = [(late[0].receipt, NewTask(task_id, late[0].fields[b"msg"]))]
    deliver = outbox.deliver(low, row, ReceiptSlot("bb"), claim_ends_ms=(now_s + 359) * 1000)
    assert run(at_time((now_s + 358) * 10**9, deliver)) == StoreCode.STORED_BEFORE


async def test_the_original_of_an_interrupted_move_can_be_deleted_later(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """Its move may be too old to be continued. The deletion releases its unique lock."""
    task_id = enqueue(unique_for=600).id
    archived(app, task_id, "aa", seconds_ago=121)

    await ask("delete_task", "default", task_id)

    assert redis_server.client.keys("asynq:*:t:*") == []
    assert redis_server.client.keys("asynq:*:unique:*") == []


async def test_an_original_that_go_ran_again_is_a_task_of_its_own(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """Asynq's tools do not know the record. The error of the new run replaces the one that names the copy."""
    task_id = enqueue().id
    archived(app, task_id, "aa")
    key = f"asynq:{{default}}:t:{task_id}"
    message = decode_message(redis_server.client.hget(key, "msg"))
    message.error_msg, message.payload = "boom", b'{"to":"2@b.c"}'
    redis_server.client.hset(key, "msg", encode_message(message))

    await ask("update_payload", "default", task_id, payload=b'{"to":"3@b.c"}')
    await ask("move_task", "default", task_id, "low")

    task = await ask("task", "low", task_id)
    assert (task.payload, runnable(redis_server, task_id)) == (b'{"to":"3@b.c"}', ["low"])


async def test_a_message_that_does_not_fit_its_record_is_left_alone(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    task_id = enqueue().id
    archived(app, task_id, "aa")
    key = f"asynq:{{default}}:t:{task_id}"
    changed = b"\x1a\x01x" + redis_server.client.hget(key, "msg")
    redis_server.client.hset(key, "msg", changed)

    with pytest.raises(TaskStateError, match="being copied"):
        await ask("move_task", "default", task_id, "low")

    assert redis_server.client.hget(key, "msg") == changed


async def test_a_late_repeat_archives_no_task_that_is_back(
    app: TaskQ, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """The request was on its way for longer than its caller waited."""
    task_id = enqueue().id
    queue, run = app.runtime.keys.queue("default"), app.runtime.runner.run
    step = actions.copy_out(queue, [task_id], token="aa", target="low")
    run(actions.copy_end(queue, token="aa", target="low", copied=[], back=run(step)[1]))

    step.in_doubt = True
    step.args[0] = str(time.time_ns() + 90 * 10**9)
    with pytest.raises(BrokerUnavailableError):
        run(step)

    assert runnable(redis_server, task_id) == ["default"]


def archived(app: TaskQ, task_id: str, token: str, *, seconds_ago: int = 0) -> tuple[int, Sequence[actions.Original]]:
    """Execute the first step of a move."""
    now_ns = (time.time_ns() // 10**9 - seconds_ago) * 10**9
    queue = app.runtime.keys.queue("default")
    return app.runtime.runner.run(at_time(now_ns, actions.copy_out(queue, [task_id], token=token, target="low")))


async def test_a_delayed_caller_stores_no_second_copy(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """It continues after another caller has finished its move, and the copy has run."""
    task_id = enqueue().id
    low, run = app.runtime.keys.queue("low"), app.runtime.runner.run
    now_s, (original,) = archived(app, task_id, "aa")
    await ask("move_task", "default", task_id, "low")
    await ask("delete_task", "low", task_id)
    row = [(original.receipt, NewTask(task_id, original.fields[b"msg"]))]

    stored = run(outbox.deliver(low, row, ReceiptSlot("aa"), claim_ends_ms=(now_s + 60) * 1000))
    late = run(outbox.deliver(low, row, ReceiptSlot("bb"), claim_ends_ms=(now_s - 1) * 1000))

    assert (stored, late) == (StoreCode.STORED_BEFORE, StoreCode.TOO_LATE)
    assert redis_server.client.keys(f"asynq:*:t:{task_id}") == []


async def test_a_task_is_not_put_back_while_another_caller_may_send_its_copy(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    enqueue("low", task_id="7")
    enqueue(task_id="7")
    queue, run = app.runtime.keys.queue("default"), app.runtime.runner.run
    _, first = archived(app, "7", "aa")

    with pytest.raises(TaskIdConflictError):
        await ask("move_task", "default", "7", "low")
    _, ended = run(actions.copy_end(queue, token="aa", target="low", copied=[], back=first))

    assert ended == 0
    assert runnable(redis_server, "7") == ["low"]
    await ask("delete_task", "low", "7")
    await ask("move_task", "default", "7", "low")
    assert runnable(redis_server, "7") == ["low"]


async def test_a_refused_task_is_put_back_after_the_earlier_caller_has_given_up(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    enqueue("low", task_id="7")
    enqueue(task_id="7")
    archived(app, "7", "aa", seconds_ago=121)

    with pytest.raises(TaskIdConflictError):
        await ask("move_task", "default", "7", "low")

    assert runnable(redis_server, "7") == ["default", "low"]
    assert not (await ask("task", "default", "7")).last_error


async def test_a_full_redis_puts_tasks_back(app: TaskQ, enqueue: Enqueue, redis_server: RedisServer) -> None:
    """The other queue takes nothing new: the task stays where it was."""
    task_id = enqueue().id
    redis_server.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(BrokerFullError):
            Inspector(app).move_task("default", task_id, "low")
    finally:
        redis_server.client.config_set("maxmemory", 0)

    assert runnable(redis_server, task_id) == ["default"]


def fail_after(monkeypatch: pytest.MonkeyPatch, fail: Callable[[Any], object]) -> None:
    """Show every operation that was carried out to `fail`, which may raise."""

    def wrap(real: Any) -> Any:
        async def arun(self: Any, operation: Any, **more: Any) -> Any:
            answer = await real(self, operation, **more)
            fail(operation)
            return answer

        def run(self: Any, operation: Any, **more: Any) -> Any:
            answer = real(self, operation, **more)
            fail(operation)
            return answer

        return arun if inspect.iscoroutinefunction(real) else run

    for runner in (SyncRunner, AsyncRunner):
        monkeypatch.setattr(runner, "run", wrap(runner.run))


def half_way() -> BrokerAuthenticationError:
    """Return the refusal of a script that had begun: a command in it is not allowed."""
    error = BrokerAuthenticationError("not allowed")
    error.may_have_happened = True
    return error


@pytest.mark.parametrize("failure", [BrokerUnavailableError("no answer"), half_way()], ids=["no answer", "half-way"])
@pytest.mark.parametrize("face", [Inspector, AsyncInspector])
async def test_a_missing_reply_leaves_the_original_archived(
    app: TaskQ,
    enqueue: Enqueue,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    face: Any,
    failure: BrokerError,
) -> None:
    """The copy may be stored, so the original is not put back. The next call finds out."""
    task_id = enqueue().id
    failing = True

    def fail(operation: Any) -> None:
        nonlocal failing
        if operation.name == "deliver" and failing:
            failing = False
            raise failure

    fail_after(monkeypatch, fail)

    async def move() -> None:
        answer = face(app).move_task("default", task_id, "low")
        if inspect.isawaitable(answer):
            await answer

    with pytest.raises(type(failure)):
        await move()
    assert runnable(redis_server, task_id) == ["low"]
    await move()

    assert redis_server.client.keys(f"asynq:*:t:{task_id}") == [f"asynq:{{low}}:t:{task_id}".encode()]


@rows("options", STATES.values(), ids=STATES)
async def test_all_tasks_of_a_state_move(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, options: dict[str, Any]
) -> None:
    """Tasks move in order. A task whose id is taken in the other queue stays."""
    moving = [enqueue(**options).id for _ in range(150)]
    enqueue("low", task_id="7")
    enqueue(task_id="7", **options)
    state = (await ask("task", "default", moving[0])).state
    group = options.get("aggregate")
    told: list[tuple[int, int]] = []

    moved = await ask(
        "move_all", "default", state, "low", group=group, progress=lambda done, total: told.append((done, total))
    )

    assert moved == 150
    assert told == [(100, 151), (151, 151)]
    assert await ask("count", "default", state, group=group) == 1
    page = await ask("tasks", "low", state, group=group, page_size=1000)
    assert {task.id for task in page.tasks} - {"7"} == set(moving)
    if state is TaskState.PENDING:
        assert [task.id for task in page.tasks if task.id != "7"] == moving, "the first to run is still the first"
    assert redis_server.client.sismember("asynq:{low}:groups", "g") == (group is not None)


async def test_large_tasks_are_moved_in_small_batches(app: TaskQ, ask: Ask) -> None:
    for number in range(6):
        app.client.enqueue(app.remote("t", task_id=f"{number}").s(bytes(500_000)))

    assert await ask("move_all", "default", TaskState.PENDING, "low") == 6
    assert await ask("count", "low", TaskState.PENDING) == 6


async def test_receipts_expire_soon_after_the_move(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    await ask("move_task", "default", enqueue().id, "low")

    ((_, at),) = redis_server.client.zrange("taskq:{low}:delivered", 0, -1, withscores=True)
    assert at + outbox.DELIVERED_KEPT_S - redis_server.client.time()[0] <= 120


async def test_a_fractional_time_is_kept_when_a_move_is_refused(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """Other programs may write any number."""
    client = redis_server.client
    enqueue("low", task_id="7")
    enqueue(task_id="7", run_after=600)
    moves = enqueue(run_after=600).id
    client.zadd("asynq:{default}:scheduled", {"7": 2_000_000_000.5, moves: "+inf"})

    with pytest.raises(TaskIdConflictError):
        await ask("move_task", "default", "7", "low")
    await ask("move_task", "default", moves, "low")

    assert client.zrange("asynq:{default}:scheduled", 0, -1, withscores=True) == [(b"7", 2_000_000_000.5)]
    assert client.zcard("asynq:{low}:scheduled") == 1


@pytest.mark.parametrize("record", ["?", "aa:aa:1:1:1:scheduled:x:low"])
async def test_a_damaged_record_does_not_run_a_task(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer, record: str
) -> None:
    task_id = enqueue().id
    archived(app, task_id, "aa")
    redis_server.client.hset(f"asynq:{{default}}:t:{task_id}", "taskq_copied", record)

    with pytest.raises((TaskStateError, WireFormatError)):
        await ask("move_task", "default", task_id, "low")

    assert runnable(redis_server, task_id) == []


async def test_a_task_with_very_many_fields_moves(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    """Another program may have added them. Lua passes only some thousands of arguments at once."""
    task_id = enqueue().id
    fields = {f"field-{number}": str(number) for number in range(10_000)}
    redis_server.client.hset(f"asynq:{{default}}:t:{task_id}", mapping=fields)

    assert await ask("move_all", "default", TaskState.PENDING, "low") == 1

    moved = redis_server.client.hgetall(f"asynq:{{low}}:t:{task_id}")
    assert {name.encode(): value.encode() for name, value in fields.items()}.items() <= moved.items()


async def test_a_lock_of_another_task_is_not_moved(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    """The lock may belong to another task, so the move leaves it alone. It does not block the move."""
    task_id = enqueue().id
    key = f"asynq:{{default}}:t:{task_id}"
    message = decode_message(redis_server.client.hget(key, "msg"))
    message.unique_key = "asynq:{elsewhere}:unique:t:1"
    redis_server.client.hset(key, mapping={"msg": encode_message(message), "unique_key": message.unique_key})
    redis_server.client.set(message.unique_key, task_id, ex=600)

    await ask("move_task", "default", task_id, "low")

    assert runnable(redis_server, task_id) == ["low"]
    assert redis_server.client.keys("asynq:*:unique:*") == [message.unique_key.encode()]


async def test_a_target_that_cannot_be_registered_receives_no_task(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster that may be another node. The task cannot have arrived, so it is put back."""
    task_id = enqueue().id

    def fail(operation: Any) -> None:
        if operation.name == "register_queue":
            raise BrokerUnavailableError("no answer")

    fail_after(monkeypatch, fail)

    with pytest.raises(BrokerUnavailableError):
        await ask("move_task", "default", task_id, "low")

    assert runnable(redis_server, task_id) == ["default"]


@rows("refusal", [BrokerFullError("full"), BrokerUnavailableError.unchanged("cannot reach it")])
async def test_a_refusal_puts_back_no_task_that_may_have_arrived(
    ask: Ask,
    enqueue: Enqueue,
    redis_server: RedisServer,
    cut: Any,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Exception,
) -> None:
    """The first caller died after the copy was stored. The second caller is refused, so it cannot know."""
    task_id = enqueue().id
    cut("copy_end", done=False)
    with pytest.raises(Cut):
        await ask("move_task", "default", task_id, "low")

    def refuse(*arguments: Any, **more: Any) -> Any:
        raise refusal

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "deliver", refuse)
        with pytest.raises(type(refusal)):
            await ask("move_task", "default", task_id, "low")

    assert runnable(redis_server, task_id) == ["low"]
    await ask("move_task", "default", task_id, "low")
    assert runnable(redis_server, task_id) == ["low"]
    assert not redis_server.client.exists(f"asynq:{{default}}:t:{task_id}")
