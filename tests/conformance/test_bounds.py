"""Test that the number of commands and the size of a reply do not grow with the queue.

Redis answers no other client during a script. `python -m benchmarks.bounds` measures the time of the calls.
"""

from collections.abc import Callable
from typing import Any

from taskq_core.broker.exchange import words_of
from taskq_core.broker.operations import actions, new_tasks, repair, runs, services, views
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.operations.services import Verdict
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import Keys, QueueKeys, TaskState
from tests.redis_server import RedisServer

SMALL, LARGE = 500, 2500
KEYS = Keys()
KEPT = ArchiveLimits(max_tasks=10, kept_s=3_000_000_000)

Build = Callable[[QueueKeys], Operation[Any]]
BUILDS: dict[str, Build] = {
    "enqueue": lambda q: new_tasks.enqueue(
        q, [NewTask(f"new-{number}", b"m") for number in range(200)], ReceiptSlot("t")
    ),
    "dequeue": lambda q: runs.dequeue(q, owner="w2", call=1, limit=200, lease_s=30),
    "settle and dequeue": lambda q: runs.settle_and_dequeue(
        [(each, 1) for each in ids(TaskState.ACTIVE, 200)[::-1]],
        runs.dequeue(q, owner="w1", call=1, limit=200, lease_s=30),
    ),
    "extend": lambda q: runs.extend_leases(
        q, [(each, 1) for each in ids(TaskState.ACTIVE, 200)], owner="w1", lease_s=30
    ),
    "settle": lambda q: runs.settle(
        q,
        [Settlement(task_id, Outcome.ARCHIVE, 1, b"m") for task_id in ids(TaskState.ACTIVE, 200)],
        owner="w1",
        archive=KEPT,
    ),
    "mark starts": lambda q: runs.mark_starts(q, [(each, 1) for each in ids(TaskState.ACTIVE, 200)], owner="w1"),
    "expired": lambda q: services.list_expired(q, grace_s=30),
    "recover": lambda q: services.recover(
        q,
        [
            services.Recovery(services.ExpiredTask(task_id, "1000", b"m"), Verdict.ARCHIVE, b"m")
            for task_id in expired(100)
        ],
        grace_s=30,
        archive=KEPT,
    ),
    "forward": lambda q: services.forward(q, owner="w1", leader_ms=1000),
    "clean what is too much": lambda q: services.clean(q, archive=KEPT),
    "clean what is too old": lambda q: services.clean(q, archive=ArchiveLimits(max_tasks=10_000)),
    "info": lambda q: views.count_tasks(q),
    "probe": lambda q: repair.probe(q),
    "usage": lambda q: views.estimate_memory(q),
    "check_stored": lambda q: repair.check_stored(q),
    "check_pending": lambda q: repair.check_listed(q, q.pending, "list", TaskState.PENDING),
    "check_archived": lambda q: repair.check_listed(q, q.archived, "zset", TaskState.ARCHIVED),
    "discard": lambda q: actions.discard(q),
    **{
        f"list {state}": lambda q, state=state: views.list_tasks(q, state, skip=400, count=30)  # type: ignore[misc]
        for state in (TaskState.PENDING, TaskState.ACTIVE, TaskState.ARCHIVED, TaskState.SCHEDULED)
    },
    **{
        f"scan {state}": lambda q, state=state: views.scan_tasks(q, state, views.ScanPlace(), count=100)  # type: ignore[misc]
        for state in (TaskState.PENDING, TaskState.ACTIVE, TaskState.ARCHIVED, TaskState.SCHEDULED)
    },
    **{
        f"{action} {state}": lambda q, action=action, state=state: actions.act(q, action, ids(state, 200))  # type: ignore[misc]
        for action, state in (
            (actions.Action.RUN, TaskState.ARCHIVED),
            (actions.Action.ARCHIVE, TaskState.PENDING),
            (actions.Action.DELETE, TaskState.SCHEDULED),
        )
    },
}
READS = ("expired", "info", "probe", "usage", "check_", "list ", "scan ")
"""How names of calls begin that write nothing."""


def ids(state: TaskState, count: int) -> list[str]:
    return [f"{state}-{number}" for number in range(count)]


def expired(count: int) -> list[str]:
    return [f"lost-{number}" for number in range(count)]


FILL = """
local prefix, count = ARGV[1], tonumber(ARGV[2])
local function store(id, state) redis.call('HSET', prefix .. 't:' .. id, 'msg', 'm', 'state', state) end
for n = 0, count - 1 do
  for _, state in ipairs({'pending', 'active', 'archived', 'scheduled', 'retry'}) do
    store(state .. '-' .. n, state)
  end
  redis.call('LPUSH', prefix .. 'pending', 'pending-' .. n)
  redis.call('RPUSH', prefix .. 'active', 'active-' .. n)
  redis.call('ZADD', prefix .. 'lease', 4000000000, 'active-' .. n)
  redis.call('HSET', prefix .. 't:active-' .. n, 'taskq_owner', 'w1.1:4000000000')
  for _, state in ipairs({'archived', 'scheduled', 'retry'}) do
    redis.call('ZADD', prefix .. state, 1000, state .. '-' .. n)
  end
end
for n = 0, 99 do
  store('lost-' .. n, 'active')
  redis.call('HSET', prefix .. 't:lost-' .. n, 'taskq_owner', 'w3:1000')
  redis.call('LPUSH', prefix .. 'active', 'lost-' .. n)
  redis.call('ZADD', prefix .. 'lease', 1000, 'lost-' .. n)
end
"""


def fill(server: RedisServer, count: int) -> None:
    """Store so many tasks in each state, and a hundred active ones of a worker that is gone."""
    queue = KEYS.queue("default")
    server.flushall()
    server.client.sadd(KEYS.queues, queue.name)
    server.client.eval(FILL, 0, queue.prefix, count)


def work_of(server: RedisServer, build: Build) -> tuple[int, int]:
    """Commands that one call runs, and bytes of its answer."""
    operation = build(KEYS.queue("default"))
    assert operation.script is not None
    server.client.script_load(operation.script.text)
    server.client.config_resetstat()
    reply = server.command(*words_of(operation))
    statistics: Any = server.client.info("commandstats")
    return sum(each["calls"] for each in statistics.values()), len(repr(reply))


def test_the_work_of_a_call_is_bounded_in_a_full_queue(redis_server: RedisServer) -> None:
    work: dict[int, dict[str, tuple[int, int]]] = {SMALL: {}, LARGE: {}}
    for count, by_name in work.items():
        fill(redis_server, count)
        for name, build in BUILDS.items():
            by_name[name] = work_of(redis_server, build)
            if not name.startswith(READS):
                fill(redis_server, count)

    for name in BUILDS:
        small, large = work[SMALL][name], work[LARGE][name]
        assert large[0] <= small[0] * 1.1 + 5, f"commands of {name}"
        assert large[1] <= small[1] * 1.3 + 100, f"bytes of the answer of {name}"
        assert small[0] > 3, f"{name} does something"
