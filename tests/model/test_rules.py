"""Check the guarantees of limits, workflows, priorities and durable tasks for random sequences of operations.

Wrong scripts must be detected. To run more, with another seed: `make model ARGS="--model-runs 20000 --model-seed 7"`.
"""

from collections.abc import Iterator

import pytest
from hypothesis import Phase

from taskq_core import TaskQ
from taskq_core.broker.sync import SyncRunner
from tests.model.durable import DurableMachine
from tests.model.limit_machine import LimitMachine
from tests.model.priority_machine import PriorityMachine
from tests.model.test_model import MUTANT_RUNS, explore, mutant
from tests.model.workflow_machine import WorkflowMachine
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

SHARE = 4
"""Divisor of the number of runs: these machines are slower than the model of tasks."""
FLOW_SHARE = 10
"""Divisor of the number of runs for workflows."""


@pytest.mark.timeout(0)
def test_limits_hold_in_any_order(
    runner: SyncRunner,
    redis_server: RedisServer,
    model_runs: int,
    request: pytest.FixtureRequest,
) -> None:
    runs = max(1, model_runs // SHARE)
    machine = LimitMachine.on(runner, redis_server.client)

    explore(machine, runs=runs, of_seed=request.config.getoption("--model-seed"), phases=(Phase.generate, Phase.shrink))


LIMIT_MUTANTS = {
    "settle: a permit is not released": ("settle", "limits.release_permits(id, key, of_sequence[outcome])", ""),
    "settle: a retry loses its position in the sequence": (
        "settle",
        "r = 'retry', n = 'retry', w = 'retry', a = 'archive'",
        "a = 'archive'",
    ),
    "recover: a permit is not released": ("recover", "limits.release_permits(id, key, kept_permit[verdict])", ""),
    "enqueue: one place too many": ("enqueue", "own('ZCARD', holders) >= permits", "own('ZCARD', holders) > permits"),
    "enqueue: before waiting tasks": ("enqueue", "waiting > 0 or not take(limit, id)", "not take(limit, id)"),
    "settle: the next task is not admitted": (
        "settle",
        "known[slot] = true\n        self.admit(slot)",
        "known[slot] = true",
    ),
    "dequeue: tokens are not spent": ("dequeue", "rate.level = rate.level - limit.cost", ""),
    "admit: tokens are given twice": ("admit", "rate.held = rate.held + limit.cost", ""),
    "act: a deleted task keeps its place": ("act", "limits.release_permits(", "(function() end)("),
}


@pytest.mark.nightly
@pytest.mark.timeout(900)  # it runs until the machine fails, at a few runs a second
@pytest.mark.parametrize("change", LIMIT_MUTANTS.values(), ids=LIMIT_MUTANTS)
def test_a_wrong_script_of_limits_is_detected(
    runner: SyncRunner,
    redis_server: RedisServer,
    change: tuple[str, str, str],
    request: pytest.FixtureRequest,
) -> None:
    machine = LimitMachine.on(runner, redis_server.client, {change[0]: mutant(*change)})

    with pytest.raises(AssertionError):
        explore(machine, runs=MUTANT_RUNS, of_seed=request.config.getoption("--model-seed"), phases=(Phase.generate,))


@pytest.fixture
def app(redis_server: RedisServer) -> Iterator[TaskQ]:
    app = TaskQ(redis_server.url, enqueue_timeout=30)
    yield app
    app.close()


@pytest.mark.timeout(0)
def test_workflows_end_correctly_in_any_order(
    runner: SyncRunner,
    redis_server: RedisServer,
    app: TaskQ,
    model_runs: int,
    request: pytest.FixtureRequest,
) -> None:
    runs = max(1, model_runs // FLOW_SHARE)
    machine = WorkflowMachine.on(runner, redis_server.client, app)

    explore(machine, runs=runs, of_seed=request.config.getoption("--model-seed"), phases=(Phase.generate, Phase.shrink))


FLOW_MUTANTS = {
    "settle: a step does not wait for all": ("settle", "add('p' .. j, -1) == 0", "add('p' .. j, -1) <= 1"),
    "settle: a failure stops nothing": ("settle", "edge == 's' and state ~= 'd'", "false"),
    "flow_note: an end counts twice": (
        "record_ends",
        "elseif current ~= 'p' and current ~= 'h' then",
        "elseif false then",
    ),
    "flow_put: no receipt": ("put_steps", "not redis.call('ZSCORE', KEYS[5], ARGV[i])", "true"),
}


@pytest.mark.nightly
@pytest.mark.timeout(900)  # it runs until the machine fails, at a few runs a second
@pytest.mark.parametrize("change", FLOW_MUTANTS.values(), ids=FLOW_MUTANTS)
def test_a_wrong_script_of_workflows_is_detected(
    runner: SyncRunner,
    redis_server: RedisServer,
    app: TaskQ,
    change: tuple[str, str, str],
    request: pytest.FixtureRequest,
) -> None:
    machine = WorkflowMachine.on(runner, redis_server.client, app, {change[0]: mutant(*change)})

    with pytest.raises(AssertionError):
        explore(machine, runs=MUTANT_RUNS, of_seed=request.config.getoption("--model-seed"), phases=(Phase.generate,))


@pytest.mark.timeout(0)
def test_urgent_tasks_start_first_in_any_order(
    runner: SyncRunner, redis_server: RedisServer, model_runs: int, request: pytest.FixtureRequest
) -> None:
    runs = max(1, model_runs // SHARE)
    machine = PriorityMachine.on(runner, redis_server.client)

    explore(machine, runs=runs, of_seed=request.config.getoption("--model-seed"), phases=(Phase.generate, Phase.shrink))


URGENT_MUTANTS = {
    "enqueue: before older tasks of its band": ("enqueue", "(10 - band) * BAND", "(9 - band) * BAND"),
    "forward: a retry in the band of its start": ("forward", "is_retry and retry or band or 0", "band or 0"),
}


@pytest.mark.nightly
@pytest.mark.timeout(900)  # it runs until the machine fails, at a few runs a second
@pytest.mark.parametrize("change", URGENT_MUTANTS.values(), ids=URGENT_MUTANTS)
def test_a_wrong_script_of_priorities_is_detected(
    runner: SyncRunner, redis_server: RedisServer, change: tuple[str, str, str], request: pytest.FixtureRequest
) -> None:
    machine = PriorityMachine.on(runner, redis_server.client, {change[0]: mutant(*change)})

    with pytest.raises(AssertionError):
        explore(machine, runs=MUTANT_RUNS, of_seed=request.config.getoption("--model-seed"), phases=(Phase.generate,))


@pytest.mark.timeout(0)
def test_durable_tasks_lose_nothing_in_any_order(
    runner: SyncRunner, redis_server: RedisServer, model_runs: int, request: pytest.FixtureRequest
) -> None:
    runs = max(1, model_runs // SHARE)
    machine = DurableMachine.on(runner, redis_server.client)

    explore(machine, runs=runs, of_seed=request.config.getoption("--model-seed"), phases=(Phase.generate, Phase.shrink))


DURABLE_MUTANTS = {
    "store_step: no fence": ("store_step", "not score or fields[1] ~= ARGV[1] .. ':' .. score", "false"),
    "load_steps: no fence": (
        "load_steps",
        "not score or redis.pcall('HGET', KEYS[1], 'taskq_owner') ~= ARGV[2] .. ':' .. score",
        "false",
    ),
    "emit: no fence": (
        "emit",
        "not score or redis.pcall('HGET', KEYS[1], 'taskq_owner') ~= ARGV[2] .. ':' .. score",
        "false",
    ),
    "emit: a late batch": ("emit", "tonumber(last) >= tonumber(ARGV[first])", "last == ARGV[first]"),
    "store_step: a repeat of its output": ("store_step", "tonumber(last) >= tonumber(ARGV[first])", "false"),
    "store_step: a second result": ("store_step", "redis.call('HSETNX', KEYS[3]", "1 - redis.call('HSET', KEYS[3]"),
    "signal: no wake-up": ("signal", "resume(ARGV[8], ARGV[9], now_ns, now_ms, ARGV[2], wait)", ""),
    "signal: a repeat": ("signal", "known[2] and known[1] == mark then", "false then"),
    "settle: an arrived signal": ("settle", "resume(ARGV[3], own, now_ns, now_ms, id, event)", ""),
    "settle: a cancellation": ("settle", "if asked and asked ~= 's'", "if false and asked ~= 's'"),
    "signal: the record of an earlier task": ("signal", "redis.call('DEL', record, stream)", ""),
    "load_steps: the record of an earlier task": ("load_steps", "redis.call('DEL', record, stream)", ""),
    "load_steps: a wait without end": ("load_steps", "redis.call('HDEL', KEYS[3], 'waiting')", ""),
    "load_steps: a repeat counts": ("load_steps", "run ~= ARGV[2]", "true"),
    "settle: sub-tasks of an earlier task": (
        "settle",
        "type(begun) == 'string' and string.match(begun, ' (.*)$') == id_of()",
        "type(begun) == 'string'",
    ),
    "settle: a wait begins anew": (
        "settle",
        "string.match(known[3] or '', ' (%d+)$') or whole(now_ms)",
        "whole(now_ms)",
    ),
    "settle: the end of sub-tasks": (
        "settle",
        "return ended or state ~= 'running'",
        "return false and state ~= 'running'",
    ),
    "revoke: the record stays": ("revoke", "forget_steps(keys.prefix, id)", ""),
}


@pytest.mark.nightly
@pytest.mark.timeout(900)  # it runs until the machine fails, at a few runs a second
@pytest.mark.parametrize("change", DURABLE_MUTANTS.values(), ids=DURABLE_MUTANTS)
def test_a_wrong_script_of_durable_tasks_is_detected(
    runner: SyncRunner, redis_server: RedisServer, change: tuple[str, str, str], request: pytest.FixtureRequest
) -> None:
    machine = DurableMachine.on(runner, redis_server.client, {change[0]: mutant(*change)})

    with pytest.raises(AssertionError):
        explore(machine, runs=MUTANT_RUNS, of_seed=request.config.getoption("--model-seed"), phases=(Phase.generate,))
