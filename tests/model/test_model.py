"""Compare the store with the model for random sequences of operations, and check that wrong scripts are detected.

The runs are the same each time. To run more, with another seed:

    make model ARGS="--model-runs 20000 --model-seed 7"
"""

import hashlib

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from taskq_core.broker.scripts import Script, load
from taskq_core.broker.sync import SyncRunner
from tests.model.queue_machine import QueueMachine
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

STEPS = 50
MUTANT_RUNS = 3000
"""Maximum number of runs until a wrong script must be detected. Most are detected within twenty."""


def explore(machine: type[RuleBasedStateMachine], *, runs: int, of_seed: int, phases: tuple[Phase, ...]) -> None:
    how = settings(
        max_examples=runs,
        stateful_step_count=STEPS,
        phases=phases,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )

    @seed(of_seed)
    def build() -> RuleBasedStateMachine:
        return machine()

    run_state_machine_as_test(build, settings=how)  # type: ignore[arg-type]  # seed() accepts only functions


@pytest.mark.timeout(0)
def test_the_store_equals_the_model(
    runner: SyncRunner, redis_server: RedisServer, model_runs: int, request: pytest.FixtureRequest
) -> None:
    of_seed = request.config.getoption("--model-seed")
    print(f"seed {of_seed}, {model_runs} runs of up to {STEPS} steps")
    machine = QueueMachine.on(runner, redis_server.client)

    explore(machine, runs=model_runs, of_seed=of_seed, phases=(Phase.generate, Phase.shrink))

    print(dict(sorted(machine.counts.items())))
    assert machine.counts.keys() >= OPERATIONS, "no rule executed some operations"


OPERATIONS = {
    *("enqueue", "read_task", "revoke", "dequeue", "settle", "extend_leases", "write_fields", "quarantine"),
    *(
        "settle_and_dequeue",
        "settled and dequeued",
        "list_expired",
        "recover",
        "forward",
        "clean",
        "lead",
        "resign",
        "adopt",
        "tick",
    ),
    *("collect_groups", "read_members", "combine", "sweep", "reclaim", "expel", "give_back"),
    *("run_tasks", "archive_tasks", "delete_tasks", "wait_tasks", "change_task", "pause", "resume", "notify"),
    *("close_queue", "discard", "purge", "copy_out", "deliver", "copy_end", "probe", "repair_tasks", "set_aside"),
}

MUTANTS = {
    "settle: no fence": ("settle", "owner == fence", "true"),
    "settle: a fence without the run": (
        "settle",
        "owner == fence",
        "owner and string.gsub(owner, '%.%d+:', ':') == token .. ':' .. score",
    ),
    "extend: a fence without the run": (
        "extend_leases",
        "fields[1] == owner .. score",
        "string.gsub(fields[1] or '', '%.%d+:', ':') == ARGV[2] .. ':' .. score",
    ),
    "settle: the lease stays": ("settle", "redis.call('ZREM', KEYS[2], unpack(gone))", ""),
    "settle: the lock is kept": ("settle", "redis.pcall('GET', lock) == id", "false"),
    "settle_and_dequeue: no fence": ("settle_and_dequeue", "owner == fence", "owner"),
    "settle_and_dequeue: the task stays": ("settle_and_dequeue", "redis.call('DEL', unpack(task_keys, 1, size))", ""),
    "settle_and_dequeue: the lease stays": (
        "settle_and_dequeue",
        "redis.call('ZREM', lease, unpack(ids, before + 1, before + size))",
        "",
    ),
    "settle_and_dequeue: nothing is counted": (
        "settle_and_dequeue",
        "count(prefix, 'processed', size, now_s, counters_s)",
        "",
    ),
    "settle_and_dequeue: more than a deletion is needed": ("settle_and_dequeue", "or not is_plain", ""),
    "settle_and_dequeue: more tasks than requested": (
        "settle_and_dequeue",
        "local limit = tonumber(ARGV[4])",
        "local limit = tonumber(ARGV[4]) + 1",
    ),
    "settle_and_dequeue: no receipt": (
        "settle_and_dequeue",
        "redis.call('SET', KEYS[6], ARGV[3] .. ':' .. handed_out, 'EX', whole(math.max(120, tonumber(ARGV[6]))))",
        "",
    ),
    "settle_and_dequeue: the number of an earlier call": ("settle_and_dequeue", "number >= tonumber(ARGV[3])", "false"),
    "recover: no second check": (
        "recover",
        "is_lost and score == ARGV[i + 2] and message == ARGV[i + 3]",
        "score",
    ),
    "extend: no fence": ("extend_leases", "fields[1] == owner .. score", "true"),
    "extend: the fence keeps the old lease": (
        "extend_leases",
        "redis.call('HSET', key, 'taskq_owner', owner .. expiry)",
        "",
    ),
    "write_fields: no fence": (
        "write_fields",
        "redis.pcall('HGET', KEYS[1], 'taskq_owner') ~= ARGV[1] .. ':' .. score",
        "false",
    ),
    "enqueue: an id that exists": ("enqueue", "redis.call('EXISTS', key) == 1", "false"),
    "enqueue: a lock that is held": ("enqueue", "holder and is_held(lock, keys.prefix .. 't:' .. holder)", "false"),
    "enqueue: a replaced task keeps its arguments": ("enqueue", "'msg', message .. '\\26'", "'taskq_wait', message"),
    "settle: the lock is not released": ("settle", "follow(rule, lock, id, 'archived')", ""),
    "dequeue: a lock is held although its task started": ("dequeue", "rule and not covers(rule, 'active')", "false"),
    "extend: a lock is not renewed": ("extend_leases", "redis.call('EXPIRE', lock, seconds)", ""),
    "revoke: the lock is kept": ("revoke", "release(lock or lock_of(message or ''), id)", ""),
    "collect_groups: the members stay in the group": (
        "collect_groups",
        "redis.call('ZREMRANGEBYRANK', group, 0, most - 1)",
        "",
    ),
    "combine: after the deadline": ("combine", "tonumber(score) <= now_s", "false"),
    "reclaim: the group is not listed": ("reclaim", "redis.call('SADD', KEYS[2], name)", ""),
    "deliver: no receipt": ("deliver", "not redis.call('ZSCORE', KEYS[4], ARGV[i])", "true"),
    "deliver: too late": ("deliver", "now_ms >= tonumber(ARGV[2])", "false"),
    "copy_end: a task returns while another caller sends its copy": ("copy_end", "caller == ARGV[4]", "caller"),
    "repair_tasks: the wrong place stays": ("repair_tasks", "unlist(task, truth)", ""),
}


def mutant(name: str, old: str, new: str) -> Script:
    text = load(name).text
    assert old in text, f"script {name} does not contain {old!r} any more; update this mutant"
    text = text.replace(old, new)
    return Script(name, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), (text,))


@pytest.mark.nightly
@pytest.mark.timeout(900)  # it runs until the machine fails, at a few runs a second
@pytest.mark.parametrize("change", MUTANTS.values(), ids=MUTANTS)
def test_a_wrong_script_is_detected(
    runner: SyncRunner, redis_server: RedisServer, change: tuple[str, str, str], request: pytest.FixtureRequest
) -> None:
    machine = QueueMachine.on(runner, redis_server.client, {change[0]: mutant(*change)})

    with pytest.raises(AssertionError):
        explore(machine, runs=MUTANT_RUNS, of_seed=request.config.getoption("--model-seed"), phases=(Phase.generate,))
