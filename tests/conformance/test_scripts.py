"""Test that scripts missing in Redis are loaded again without an error for the caller."""

import asyncio
import re
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis

from taskq_core.broker import scripts
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.connection import Endpoint
from taskq_core.broker.exchange import words_of
from taskq_core.broker.operations import (
    actions,
    aggregation,
    diagnosis,
    dispatch,
    limits,
    new_tasks,
    outbox,
    presence,
    runs,
    samples,
    schedules,
    semaphores,
    services,
    steps,
    views,
    workflows,
)
from taskq_core.broker.operations import dead_letters as letters
from taskq_core.broker.operations import repair as repair_ops
from taskq_core.broker.operations.aggregation import GroupCheck
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.scripts import all_scripts
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import BrokerReplyError
from taskq_core.wire import QueueKeys, TaskState
from taskq_core.wire.samples import LEVELS, QueueSample
from taskq_core.wire.tallies import TypeCounters
from tests.conformance.stores import Broker, Store

EVERY: dict[str, Callable[[QueueKeys], Operation[Any]]] = {
    "enqueue": lambda q: new_tasks.enqueue(q, [NewTask("a", b"m")], ReceiptSlot("t")),
    "deliver": lambda q: outbox.deliver(q, [("r", NewTask("a", b"m"))], ReceiptSlot("t"), claim_ends_ms=1 << 52),
    "dequeue": lambda q: runs.dequeue(q, owner="w1", call=1, limit=1, lease_s=30),
    "settle_and_dequeue": lambda q: runs.settle_and_dequeue(
        [("a", 1)], runs.dequeue(q, owner="w1", call=1, limit=1, lease_s=30)
    ),
    "settle": lambda q: runs.settle(q, [Settlement("a", Outcome.DONE, run=1)], owner="w1"),
    "extend_leases": lambda q: runs.extend_leases(q, [("a", 1)], owner="w1", lease_s=30),
    "mark_starts": lambda q: runs.mark_starts(q, [("a", 1)], owner="w1"),
    "claim": lambda q: limits.claim(q, "a", "c 1 1 t:", owner="w1", run=1),
    "admit": lambda q: limits.admit(q, owner="w1", leader_ms=1000),
    "check_limits": lambda q: limits.check_limits(q, cursor="0", skip=0),
    "list_limits": lambda q: limits.list_limits(q, "0"),
    "set_limit": lambda q: limits.set_limit(q, "c:t", "5", checks=True, cursor="0"),
    "write_fields": lambda q: runs.write_fields(q, "a", {"taskq_progress": b"{}"}, owner="w1", run=1),
    "quarantine": lambda q: runs.quarantine(q, "a", owner="w1", run=1),
    "forward": lambda q: services.forward(q, owner="w1", leader_ms=1000),
    "list_expired": lambda q: services.list_expired(q, grace_s=30),
    "list_held": lambda q: services.list_held(q, owner="w1"),
    "recover": lambda q: services.recover(q, [], grace_s=30),
    "clean": lambda q: services.clean(q),
    "index_presence": lambda q: services.index_presence(f"asynq:{{{q.name}}}:index", "member", expiry_s=2_000_000_000),
    "collect_groups": lambda q: aggregation.collect_groups(q, [GroupCheck("g", "s", 120, 60)], limit=1),
    "read_members": lambda q: aggregation.read_members(q, "g", "s", skip=0),
    "combine": lambda q: aggregation.combine(q, "g", "s", 1, NewTask("a", b"m")),
    "sweep": lambda q: aggregation.sweep(q),
    "reclaim": lambda q: aggregation.reclaim(q, "aggregator", owner="w1", leader_ms=1000),
    "expel": lambda q: aggregation.expel(q, "g", "s", ["a"]),
    "adopt": lambda q: schedules.adopt(q, ["e", "f"]),
    "tick": lambda q: schedules.tick(q, [schedules.Tick("e", 1, 2, NewTask("a", b"m"))], ReceiptSlot("t")),
    "take_runs": lambda q: schedules.take_runs(q, ["e"]),
    "acknowledge_runs": lambda q: schedules.acknowledge_runs(q, [schedules.Ran("e", 1, 2)]),
    "announce": lambda q: schedules.announce("s:{x}", [b"entry"], ttl_s=9),
    "record_firing": lambda q: schedules.record_firing("h:{x}", b"event", at_s=9),
    "lead": lambda q: services.lead(q.leader("recoverer"), owner="w1", leader_ms=1000),
    "resign": lambda q: services.resign(q.leader("recoverer"), owner="w1"),
    "notify": lambda q: services.notify(q),
    "list_questions": lambda q: steps.list_questions(q, limit=9),
    "list_peers": lambda q: presence.list_peers(q.peers("host"), "w1", b"r", kept_s=9),
    "beat": lambda q: services.beat("s:{x}", "w:{x}", ttl_s=9, server_info=b"i", workers={}),
    "create_workflow": lambda q: workflows.create_workflow(
        q, "a", [("", "state", "building")], ReceiptSlot("t"), roots=None
    ),
    "add_members": lambda q: workflows.add_members(q, "a", 0, first=0, members=[]),
    "grow_group": lambda q: workflows.grow_group(q, "a", "g", "a.g.0", []),
    "close_groups": lambda q: workflows.close_groups(q, "a"),
    "cancel_workflow": lambda q: workflows.cancel_workflow(q, "a"),
    "revoke_steps": lambda q: workflows.revoke_steps(q, "a"),
    "retry_steps": lambda q: workflows.retry_steps(q, "a", 0, "a"),
    "clean_workflows": lambda q: workflows.clean_workflows(q),
    "read_due": lambda q: dispatch.read_due(q, owner="w1", leader_ms=1000),
    "record_target": lambda q: dispatch.record_target(q, [q.workflow("a")], target="other"),
    "record_ends": lambda q: dispatch.record_ends(q, [(q.workflow("a"), "0", "d")]),
    "forget_ends": lambda q: dispatch.forget_ends(q, [(b"a", b"d")]),
    "fetch_steps": lambda q: dispatch.fetch_steps(q, [b"s a 0"]),
    "put_steps": lambda q: dispatch.put_steps(q, [], until_s=4_000_000_000),
    "steps_sent": lambda q: dispatch.steps_sent(q, []),
    "sweep_steps": lambda q: dispatch.sweep_steps(q),
    "follow_failed": lambda q: dispatch.follow_failed(q),
    "check_workflows": lambda q: dispatch.check_workflows(q, skip=0),
    "relist_steps": lambda q: dispatch.relist_steps(q, ["0 t a taskq:{q}:wf:b"], repair=True),
    "drop_records": lambda q: repair_ops.drop_records(q, [f"{q.own_prefix}steps:a"], repair=True),
    "list_workflows": lambda q: workflows.list_workflows(q, skip=0, count=9),
    "read_step": lambda q: workflows.read_step(q, "a", 0, first=0, count=9, most=9),
    "read_workflow": lambda q: workflows.read_workflow(q, "a", ["state"]),
    "try_commands": lambda q: diagnosis.try_commands(q.absent, q.done),
    "read_task": lambda q: views.read_task(q, "a"),
    "revoke": lambda q: actions.revoke(q, "a"),
    "identify": lambda q: actions.identify(q, ["a"]),
    "list_tasks": lambda q: views.list_tasks(q, TaskState.PENDING, skip=0, count=9),
    "count_tasks": lambda q: views.count_tasks(q),
    "probe": lambda q: repair_ops.probe(q),
    "check_listed": lambda q: repair_ops.check_listed(q, q.pending, "list", TaskState.PENDING),
    "check_stored": lambda q: repair_ops.check_stored(q),
    "repair_tasks": lambda q: repair_ops.repair_tasks(q, [repair_ops.Suspect("a")]),
    "relist": lambda q: repair_ops.relist(q, [q.group_prefix + "g:s"], repair=True),
    "relock": lambda q: repair_ops.relock(q, [q.unique("t", b"")], [q.task("a")], repair=True),
    "set_aside": lambda q: repair_ops.set_aside(q, {q.pending: "list"}, at_ns=1),
    "acquire": lambda q: semaphores.acquire(f"asynq:sema:{{{q.name}}}", limit=1, holder="a", for_ms=1000),
    "act": lambda q: actions.act(q, actions.Action.RUN, ["a"]),
    "change_task": lambda q: actions.change_task(q, "a"),
    "ask_cancel": lambda q: services.ask_cancel(q, "asynq:cancel", "a", services.CancelOutcome.ARCHIVE),
    "scan_tasks": lambda q: views.scan_tasks(q, TaskState.PENDING, views.ScanPlace(), count=9),
    "count_groups": lambda q: views.count_groups(q, "0"),
    "estimate_memory": lambda q: views.estimate_memory(q),
    "read_running": lambda q: presence.read_running(f"asynq:{{{q.name}}}:running"),
    "list_alive": lambda q: presence.list_alive(f"asynq:{{{q.name}}}:index", skip=0, count=9),
    "pause": lambda q: actions.pause(q),
    "close_queue": lambda q: actions.close_queue(q, force=False),
    "discard": lambda q: actions.discard(q),
    "purge": lambda q: actions.purge(q, "0", own=True),
    "copy_out": lambda q: actions.copy_out(q, ["a"], token="1", target="b"),
    "copy_end": lambda q: actions.copy_end(q, token="1", target="b", copied=[], back=[]),
    "limits_move": lambda q: limits.limits_move(q),
    "load_steps": lambda q: steps.load_steps(q, "a", owner="w1", run=1),
    "store_step": lambda q: steps.store_step(q, "a", "s:x", b"1 1 1", owner="w1", run=1),
    "signal": lambda q: steps.signal(q, "a", "go", b"1", signal_id="s"),
    "emit": lambda q: steps.emit(q, "a", steps.Output([("", b"1")], 1, 1), owner="w1", run=1),
    "read_steps": lambda q: steps.read_steps(q, "a"),
    "read_stream": lambda q: steps.read_stream(q, "a"),
    "cancel_steps": lambda q: steps.cancel_steps(q, "a", wish="archive"),
    "forget_step": lambda q: steps.forget_step(q, "a", "x"),
    "take_dead_letters": lambda q: letters.take_dead_letters(q, claim_s=60, limit=1),
    "end_dead_letter": lambda q: letters.end_dead_letter(q, "a", until_s="9"),
    "survey": lambda q: diagnosis.survey("asynq:*"),
    "sample": lambda q: samples.sample(q, {LEVELS[0]: QueueSample(at_s=9)}),
    "count_runs": lambda q: samples.count_runs(q, 1, {"a": TypeCounters.empty()}, owner="w1", call=1),
    "locate": lambda q: views.locate([q], "a"),
}


def forget_scripts(store: Store) -> None:
    store.raw.script_flush()  # on a cluster: of all primaries


def builds(broker: Broker) -> list[Callable[[QueueKeys], Operation[Any]]]:
    """Return how to build each operation that this store can run."""
    return [build for name, build in EVERY.items() if name != "locate" or not broker.store.endpoint.is_cluster]


def test_the_blocking_runner_loads_a_missing_script_again(broker: Broker) -> None:
    for build in builds(broker):
        forget_scripts(broker.store)
        assert not isinstance(broker.run(build(broker.queue)), Exception)


async def test_the_asyncio_runner_loads_a_missing_script_again(broker: Broker) -> None:
    runner = AsyncRunner(broker.store.endpoint, timeout_s=30)
    for build in builds(broker):
        forget_scripts(broker.store)
        assert not isinstance(await runner.run(build(broker.queue)), Exception)
    await runner.aclose()


def test_every_script_runs_on_fakeredis() -> None:
    """Projects use fakeredis in their tests. The effects of the scripts are not compared here."""
    client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    runner = SyncRunner(Endpoint(client, embedded_folder=Path("unused")), timeout_s=30)
    for build in EVERY.values():
        assert not isinstance(runner.run(build(QueueKeys("asynq", "q"))), Exception)
    runner.close()


def test_every_script_is_listed() -> None:
    scripts = [build(QueueKeys("asynq", "q")).script for build in EVERY.values()]

    files_there = (files("taskq_core.broker") / "lua").iterdir()

    names = {file.name.removesuffix(".lua") for file in files_there if not file.name.startswith("_")}
    assert {script.name for script in scripts if script} == names


@pytest.mark.parametrize("jump_s", [90, 3600, -90, -3600])
def test_each_kind_of_call_succeeds_after_a_jump_of_the_clock(broker: Broker, jump_s: int) -> None:
    """The caller still knows the clock before the jump, and no other call has corrected it."""
    late = 0
    for build in builds(broker):
        operation = build(broker.queue)
        if operation.deadline_at is not None:
            late += 1
            broker.flushall()
            forget_scripts(broker.store)
            runner = SyncRunner(broker.store.endpoint, timeout_s=30)
            runner.run(views.ping())
            runner.endpoint.learn_time(int((time.time() - jump_s) * 1000), time.monotonic())
            assert not isinstance(runner.run(operation), Exception)
            runner.close()
    assert late == sum("lateness(" in script.text for script in all_scripts())


@pytest.mark.parametrize("left_ms", [-1, 200_000])
def test_a_request_with_a_wrong_deadline_changes_nothing(broker: Broker, left_ms: int) -> None:
    for build in builds(broker):
        operation = build(broker.queue)
        if operation.deadline_at is not None:
            broker.flushall()
            forget_scripts(broker.store)
            operation.args[operation.deadline_at] = int(time.time() * 1000) + left_ms
            with pytest.raises(redis.ResponseError, match=r"^TASKQLATE \d{13}$"):
                broker.raw.execute_command(*words_of(operation, with_text=True))
            assert broker.dump() == {}


async def test_one_exchange_may_contain_several_operations(broker: Broker) -> None:
    """All replies are right and in order, even if Redis has only some of the scripts."""
    queue, store = broker.queue, broker.store
    lane = AsyncRunner(store.endpoint, timeout_s=30).new_pipeline()
    enqueue = new_tasks.enqueue(queue, [NewTask("a", b"m"), NewTask("b", b"m")], ReceiptSlot("t"))

    for known in ((), (views.count_tasks(queue),)):
        forget_scripts(store)
        store.flush()
        await lane.exchange((views.ping(), *known))
        answers = await lane.exchange(
            [
                enqueue,
                runs.dequeue(queue, owner="w1", call=1, limit=1, lease_s=30),
                runs.settle(queue, [Settlement("a", Outcome.DONE, run=1)], owner="w1"),
                views.count_tasks(queue),
            ]
        )
        assert answers[0] == "11"
        assert [task_id for task_id, _ in answers[1].tasks] == ["a"]
        assert answers[2] == "1"
        assert isinstance(answers[3], views.QueueCounts)
    await lane.close()


async def test_a_refused_operation_does_not_affect_other_replies(broker: Broker) -> None:
    """A store error or an unreadable reply replaces only the result of its own operation."""
    queue = broker.queue
    broker.raw.hset(queue.task("odd"), mapping={"msg": "m", "state": "dancing"})
    broker.raw.set(queue.task("damaged"), "not a hash")
    lane = AsyncRunner(broker.store.endpoint, timeout_s=30).new_pipeline()

    answers = await lane.exchange(
        [
            views.ping(),
            views.read_task(queue, "odd"),
            views.read_task(queue, "damaged"),
            views.read_task(queue, "none"),
            views.ping(),
        ]
    )

    await lane.close()
    assert (answers[0], answers[3], answers[4]) == (True, None, True)
    assert isinstance(answers[1], BrokerReplyError)
    assert str(answers[1]) == "task 'odd' in 'default' has an unknown state"
    assert isinstance(answers[2], BrokerReplyError)
    assert "WRONGTYPE" in str(answers[2])


async def test_calls_succeed_while_scripts_are_flushed_constantly(broker: Broker) -> None:
    """Each caller gets its reply while SCRIPT FLUSH runs in a loop."""
    runner = AsyncRunner(broker.store.endpoint, timeout_s=30)
    stop = False

    async def forget() -> None:
        while not stop:
            forget_scripts(broker.store)
            await asyncio.sleep(0)

    async def enqueue(number: int) -> str:
        lane = ReceiptSlot(f"t{number}")
        return "".join(
            [
                await runner.run(new_tasks.enqueue(broker.queue, [NewTask(f"{number}-{index}", b"m")], lane))
                for index in range(5)
            ]
        )

    forgetting = asyncio.ensure_future(forget())
    codes = await asyncio.gather(*(enqueue(number) for number in range(8)))
    stop = True
    await forgetting
    await runner.aclose()

    assert codes == ["11111"] * 8
    assert len(broker.pending()) == 40


def test_an_error_names_the_line_in_the_file_that_failed(broker: Broker) -> None:
    """The scripts that Redis receives are composed of several files."""
    broker.raw.set(broker.queue.pending, "a string")
    source = (Path(scripts.__file__).with_name("lua") / "_check.lua").read_text().splitlines()

    with pytest.raises(BrokerReplyError, match="WRONGTYPE") as caught:
        broker.run(actions.act(broker.queue, actions.Action.RUN, ["a"]))

    place = re.search(r"act/_check\.lua:(\d+)", str(caught.value))
    assert place, str(caught.value)
    assert "redis.call(command, key)" in source[int(place[1]) - 1]
    assert "script:" not in str(caught.value)
