"""Moving tasks to another queue, and what is left when that is cut off."""

import inspect
from collections.abc import Callable, Iterator
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
from taskq_core.broker.operations import actions
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import BrokerAuthenticationError, BrokerError, TaskStateError, WireFormatError
from taskq_core.inspector import AsyncInspector, Inspector
from taskq_core.wire import decode_message, encode_message
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.inspector.conftest import Ask, Enqueue

pytestmark = pytest.mark.redis

STATES: dict[str, dict[str, Any]] = {
    "pending": {},
    "scheduled": {"run_after": 600},
    "aggregating": {"aggregate": "g"},
}
STEPS = ("move_out", "move_in", "move_end", "release_receipts")
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
    """Return the queues that have the task in a structure."""
    client, found = redis_server.client, []
    for queue in ("default", "low"):
        prefix = f"asynq:{{{queue}}}:"
        places = [task_id.encode() in client.lrange(prefix + "pending", 0, -1)]
        places += [
            client.zscore(prefix + name, task_id) is not None
            for name in ("scheduled", "retry", "archived", "completed", "g:g")
        ]
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
    assert redis_server.client.zcard("taskq:{default}:moving") == 0
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


async def test_an_archived_task_moves_with_its_error(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    task_id = enqueue().id
    await ask("archive_task", "default", task_id)
    redis_server.client.zadd("asynq:{default}:archived", {task_id: 1_999_999_999})

    await ask("move_task", "default", task_id, "low")

    assert redis_server.client.zscore("asynq:{low}:archived", task_id) == 1_999_999_999


async def test_the_unique_lock_moves_with_the_task(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    task_id = enqueue(unique_for=3600).id

    await ask("move_task", "default", task_id, "low")

    (lock,) = redis_server.client.keys("asynq:*:unique:*")
    assert lock.startswith(b"asynq:{low}:unique:email:deliver:")
    assert redis_server.client.get(lock) == task_id.encode()
    assert 3500 < redis_server.client.ttl(lock) <= 3600
    await ask("delete_task", "low", task_id)
    assert redis_server.client.keys("asynq:*:unique:*") == []


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
@rows("again", ["move_task", "finish_moves"])
async def test_an_interrupted_move_is_completed(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, cut: Any, step: str, done: bool, options: Any, again: str
) -> None:
    """Wherever it breaks off, the task can be run in at most one queue, and doing it again brings it to the other."""
    task_id = enqueue(**options, unique_for=600).id
    cut(step, done=done)

    with pytest.raises(Cut):
        await ask("move_task", "default", task_id, "low")

    assert len(runnable(redis_server, task_id)) <= 1
    hashes = redis_server.client.keys(f"asynq:*:t:{task_id}")
    assert hashes, "it is never lost"
    if again == "finish_moves":
        await ask("finish_moves", "default")
        if runnable(redis_server, task_id) == ["default"]:
            assert (step, done) == ("move_out", False), "it had not begun"
            return
    elif redis_server.client.exists(f"asynq:{{default}}:t:{task_id}"):
        await ask("move_task", "default", task_id, "low")
    assert runnable(redis_server, task_id) == ["low"]
    assert not redis_server.client.exists(f"asynq:{{default}}:t:{task_id}")
    assert redis_server.client.zcard("taskq:{default}:moving") == 0
    (lock,) = redis_server.client.keys("asynq:*:unique:*")
    assert lock.startswith(b"asynq:{low}")


@rows("again", ["move_task", "finish_moves"])
async def test_a_task_that_has_run_is_not_moved_again(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, cut: Any, again: str
) -> None:
    """It arrived, ran and went; only its deletion in the first queue is missing."""
    task_id = enqueue().id
    cut("move_end", done=False)
    with pytest.raises(Cut):
        await ask("move_task", "default", task_id, "low")
    await ask("delete_task", "low", task_id)

    if again == "move_task":
        await ask("move_task", "default", task_id, "low")
    else:
        assert await ask("finish_moves", "default") == 1

    assert redis_server.client.keys(f"asynq:*:t:{task_id}") == []
    assert runnable(redis_server, task_id) == []


async def test_a_task_in_transit_is_not_changed(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, cut: Any
) -> None:
    """Nobody else can act on it, or move it elsewhere, until its way has ended."""
    task_id = enqueue().id
    cut("move_in", done=False)
    with pytest.raises(Cut):
        await ask("move_task", "default", task_id, "low")

    for method, arguments in (
        ("run_task", ()),
        ("archive_task", ()),
        ("delete_task", ()),
        ("update_payload", (b"{}",)),
        ("move_task", ("elsewhere",)),
    ):
        with pytest.raises(TaskStateError, match="being moved to another queue; finish_moves completes the move"):
            await ask(method, "default", task_id, *arguments)
    assert await ask("finish_moves", "default") == 1
    assert runnable(redis_server, task_id) == ["low"]


def departure(redis_server: RedisServer, app: TaskQ, task_id: str, token: str) -> actions.Departures:
    queue = app.runtime.keys.queue("default")
    return app.runtime.runner.run(actions.move_out(queue, [task_id], token=token, target="low"))


async def test_a_delayed_mover_creates_no_second_task(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """It wakes up when another caller has carried its move on and ended it."""
    task_id = enqueue().id
    low, run = app.runtime.keys.queue("low"), app.runtime.runner.run
    frozen = departure(redis_server, app, task_id, "aa")

    assert await ask("finish_moves", "default") == 1
    await ask("delete_task", "low", task_id)
    code = run(actions.move_in(low, [(frozen.tasks[0], "")], until_s=frozen.now_s + 60))
    late = run(actions.move_in(low, [(frozen.tasks[0], "")], until_s=frozen.now_s - 1))

    assert code == "1", "it learns that the task has arrived"
    assert late is None
    assert redis_server.client.keys(f"asynq:*:t:{task_id}") == []


async def test_a_delayed_mover_does_not_put_the_task_back(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """Another caller continues the move at the same time, and only the last one may finish it."""
    task_id = enqueue().id
    queue, run = app.runtime.keys.queue("default"), app.runtime.runner.run
    first = departure(redis_server, app, task_id, "aa")
    second = departure(redis_server, app, task_id, "bb")

    ended = run(actions.move_end(queue, token="aa", gone=[], back=first.tasks))

    assert second.tasks[0].move == first.tasks[0].move == "aa"
    assert ended == 0
    assert runnable(redis_server, task_id) == []
    assert await ask("finish_moves", "default") == 1
    assert runnable(redis_server, task_id) == ["low"]


async def test_a_task_that_was_put_back_cannot_arrive_later(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """A frozen mover wakes up when the id that was taken is free again."""
    enqueue("low", task_id="7")
    enqueue(task_id="7")
    low, run = app.runtime.keys.queue("low"), app.runtime.runner.run
    frozen = departure(redis_server, app, "7", "aa")

    assert await ask("finish_moves", "default") == 0
    assert runnable(redis_server, "7") == ["default", "low"], "it is back"
    await ask("delete_task", "low", "7")
    code = run(actions.move_in(low, [(frozen.tasks[0], "")], until_s=frozen.now_s + 60))

    assert code == "0"
    assert runnable(redis_server, "7") == ["default"]


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
async def test_a_missing_reply_leaves_the_task_in_transit(
    app: TaskQ,
    enqueue: Enqueue,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    face: Any,
    failure: BrokerError,
) -> None:
    """It may have arrived, so it is not put back; the next call finds out."""
    task_id = enqueue().id
    failing = True

    def fail(operation: Any) -> None:
        nonlocal failing
        if operation.name == "move_in" and failing:
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
    """In order; one whose id is taken stays."""
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


async def test_receipts_do_not_accumulate(app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    """Those of moves that have ended are dropped by later moves, and all of them expire."""
    moved = "taskq:{low}:moved"
    await ask("move_task", "default", enqueue().id, "low")
    assert redis_server.client.zcard(moved) == 1
    ((receipt, until),) = redis_server.client.zrange(moved, 0, -1, withscores=True)
    assert until - redis_server.client.time()[0] <= 120
    redis_server.client.zadd(moved, {receipt: 1_600_000_000})

    await ask("move_task", "default", enqueue().id, "low")

    assert redis_server.client.zcard(moved) == 1
    assert redis_server.client.zscore(moved, receipt) is None
    assert 0 < redis_server.client.ttl(moved) <= 30 * 86_400


async def test_a_fractional_time_is_kept_by_a_move_and_its_return(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """Other programs may write any number. A task that is refused stays where it is."""
    client = redis_server.client
    enqueue("low", task_id="7")
    enqueue(task_id="7", run_after=600)
    moves = enqueue(run_after=600).id
    client.zadd("asynq:{default}:scheduled", {"7": 2_000_000_000.5, moves: "+inf"})

    with pytest.raises(TaskIdConflictError):
        await ask("move_task", "default", "7", "low")
    await ask("move_task", "default", moves, "low")

    assert client.zrange("asynq:{default}:scheduled", 0, -1, withscores=True) == [(b"7", 2_000_000_000.5)]
    assert client.zrange("asynq:{low}:scheduled", 0, -1, withscores=True) == [(moves.encode(), float("inf"))]
    assert client.zcard("taskq:{default}:moving") == 0


async def test_damaged_tasks_in_transit_do_not_block_others(
    app: TaskQ, ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """One has lost its message, another says nothing readable of where it goes."""
    client = redis_server.client
    stub, odd, good = (enqueue().id for _ in range(3))
    for task_id in (stub, odd, good):
        departure(redis_server, app, task_id, "aa")
    client.hdel(f"asynq:{{default}}:t:{stub}", "msg")
    client.hset(f"asynq:{{default}}:t:{odd}", "taskq_moving", "?")
    client.zadd("taskq:{default}:moving", {stub: 1_600_000_000, odd: 1_600_000_001, good: 1_600_000_002})

    assert await ask("finish_moves", "default") == 1

    assert runnable(redis_server, good) == ["low"]
    assert client.zrange("taskq:{default}:moving", 0, -1) == [stub.encode(), odd.encode()]


async def test_a_task_with_very_many_fields_moves(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    """Whoever put them there; Lua passes on only some thousands at once."""
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


async def test_an_arrival_is_sent_only_once(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a second request is refused, it would put the task back while the first may still arrive."""
    task_id = enqueue().id
    sent: list[Any] = []
    fail_after(monkeypatch, sent.append)

    await ask("move_task", "default", task_id, "low")

    assert [(each.name, each.repeatable) for each in sent if each.name in STEPS] == [
        (name, name != "move_in") for name in STEPS
    ]


@rows("refusal", [BrokerFullError("full"), BrokerUnavailableError.unchanged("cannot reach it")])
@rows("again", ["move_task", "finish_moves"])
async def test_a_refusal_puts_back_no_task_that_may_have_arrived(
    ask: Ask,
    enqueue: Enqueue,
    redis_server: RedisServer,
    cut: Any,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Exception,
    again: str,
) -> None:
    """The first mover died after its task had arrived; who carries the move on is refused and cannot know."""
    task_id = enqueue().id
    cut("move_end", done=False)
    with pytest.raises(Cut):
        await ask("move_task", "default", task_id, "low")
    arguments = ("default", task_id, "low") if again == "move_task" else ("default",)

    def refuse(*arguments: Any, **more: Any) -> Any:
        raise refusal

    with monkeypatch.context() as patched:
        patched.setattr(actions, "move_in", refuse)
        with pytest.raises(type(refusal)):
            await ask(again, *arguments)

    assert runnable(redis_server, task_id) == ["low"]
    await ask(again, *arguments)
    assert runnable(redis_server, task_id) == ["low"]
    assert not redis_server.client.exists(f"asynq:{{default}}:t:{task_id}")
