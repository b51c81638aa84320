"""A server that forgot the scripts is taught again, and no caller sees it."""

import asyncio
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import fakeredis

from taskq_core.broker import operations as ops
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.connection import Endpoint
from taskq_core.broker.operations import GroupCheck, NewTask, Operation, Outcome, ReceiptLane, Settlement
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import BrokerReplyError
from taskq_core.wire import QueueKeys, TaskState
from taskq_core.wire.samples import LEVELS, QueueSample
from taskq_core.wire.tallies import TypeTally
from tests.conformance.stores import Broker, Store


def leaving(queue: QueueKeys) -> ops.Departure:
    fields = {b"msg": b"m", b"state": b"pending"}
    return ops.Departure("a", ops.OK, "1", queue.name, "", lock_ms=None, fields=fields)


EVERY: dict[str, Callable[[QueueKeys], Operation[Any]]] = {
    "enqueue": lambda q: ops.enqueue(q, [NewTask("a", b"m")], ReceiptLane("t")),
    "deliver": lambda q: ops.deliver(q, [("r", NewTask("a", b"m"))], ReceiptLane("t"), claim_ends_ms=1 << 52),
    "dequeue": lambda q: ops.dequeue(q, owner="w1", call=1, limit=1, lease_s=30),
    "settle_and_dequeue": lambda q: ops.settle_and_dequeue(
        [("a", 1)], ops.dequeue(q, owner="w1", call=1, limit=1, lease_s=30)
    ),
    "settle": lambda q: ops.settle(q, [Settlement("a", Outcome.DONE, run=1)], owner="w1"),
    "extend": lambda q: ops.extend_leases(q, [("a", 1)], owner="w1", lease_s=30),
    "mark_starts": lambda q: ops.mark_starts(q, [("a", 1)], owner="w1"),
    "claim": lambda q: ops.claim(q, "a", "c 1 1 t:", owner="w1", run=1),
    "admit": lambda q: ops.admit(q, owner="w1", leader_ms=1000),
    "check_limits": lambda q: ops.check_limits(q, cursor="0", skip=0),
    "list_limits": lambda q: ops.list_limits(q, "0"),
    "set_limit": lambda q: ops.set_limit(q, "c:t", "5", checks=True, cursor="0"),
    "write_result": lambda q: ops.write_result(q, "a", b"r", owner="w1", run=1),
    "note": lambda q: ops.note(q, "a", {"taskq_progress": b"{}"}, owner="w1", run=1),
    "read_cursor": lambda q: ops.read_cursor(q, "a"),
    "quarantine": lambda q: ops.quarantine(q, "a", owner="w1", run=1),
    "forward": lambda q: ops.forward(q, owner="w1", leader_ms=1000),
    "expired": lambda q: ops.list_expired(q, grace_s=30),
    "held": lambda q: ops.list_held(q, owner="w1"),
    "recover": lambda q: ops.recover(q, [], grace_s=30),
    "clean": lambda q: ops.clean(q),
    "index": lambda q: ops.index_presence(f"asynq:{{{q.name}}}:index", "member", expiry_s=2_000_000_000),
    "gather": lambda q: ops.gather(q, [GroupCheck("g", "s", 120, 60)], limit=1),
    "members": lambda q: ops.read_members(q, "g", "s", skip=0),
    "combine": lambda q: ops.combine(q, "g", "s", 1, NewTask("a", b"m")),
    "sweep": lambda q: ops.sweep(q),
    "reclaim": lambda q: ops.reclaim(q, "aggregator", owner="w1", leader_ms=1000),
    "expel": lambda q: ops.expel(q, "g", "s", ["a"]),
    "adopt": lambda q: ops.adopt(q, ["e", "f"]),
    "tick": lambda q: ops.tick(q, [ops.Tick("e", 1, 2, NewTask("a", b"m"))], ReceiptLane("t")),
    "take_runs": lambda q: ops.take_runs(q, ["e"]),
    "told_runs": lambda q: ops.told_runs(q, [ops.Ran("e", 1, 2)]),
    "announce": lambda q: ops.announce("s:{x}", [b"entry"], ttl_s=9),
    "record": lambda q: ops.record_firing("h:{x}", b"event", at_s=9),
    "lead": lambda q: ops.lead(q, "recoverer", owner="w1", leader_ms=1000),
    "resign": lambda q: ops.resign(q, "recoverer", owner="w1"),
    "rouse": lambda q: ops.rouse(q),
    "peers": lambda q: ops.list_peers(q, "host", "w1", b"r", kept_s=9),
    "beat": lambda q: ops.beat("s:{x}", "w:{x}", ttl_s=9, server_info=b"i", workers={}),
    "flow_create": lambda q: ops.create_workflow(q, "a", [("", "state", "building")], ReceiptLane("t"), roots=None),
    "flow_members": lambda q: ops.add_members(q, "a", 0, first=0, members=[]),
    "flow_grow": lambda q: ops.grow_group(q, "a", "g", "a.g.0", []),
    "flow_close": lambda q: ops.close_groups(q, "a"),
    "flow_cancel": lambda q: ops.cancel_workflow(q, "a"),
    "flow_revoke": lambda q: ops.revoke_steps(q, "a"),
    "flow_retry": lambda q: ops.retry_steps(q, "a", 0, "a"),
    "flow_clean": lambda q: ops.clean_workflows(q),
    "flow_due": lambda q: ops.read_due(q, owner="w1", leader_ms=1000),
    "flow_moved": lambda q: ops.note_moved(q, [q.workflow("a")], target="other"),
    "flow_note": lambda q: ops.tell_ends(q, [(q.workflow("a"), "0", "d")]),
    "flow_forget": lambda q: ops.forget_notes(q, [(b"a", b"d")]),
    "flow_fetch": lambda q: ops.fetch_steps(q, [b"s a 0"]),
    "flow_put": lambda q: ops.put_steps(q, [], until_s=4_000_000_000),
    "flow_sent": lambda q: ops.steps_sent(q, []),
    "flow_sweep": lambda q: ops.sweep_steps(q),
    "flow_list": lambda q: ops.list_workflows(q, skip=0, count=9),
    "flow_step": lambda q: ops.read_step(q, "a", 0, first=0, count=9, most=9),
    "flow_look": lambda q: ops.look_at_workflow(q, "a", ["state"]),
    "rights": lambda q: ops.try_commands(q.absent, q.done),
    "look": lambda q: ops.look(q, "a"),
    "revoke": lambda q: ops.revoke(q, "a"),
    "list": lambda q: ops.list_tasks(q, TaskState.PENDING, skip=0, count=9),
    "info": lambda q: ops.count_tasks(q),
    "probe": lambda q: ops.probe(q),
    "check_listed": lambda q: ops.check_listed(q, q.pending, "list", TaskState.PENDING),
    "check_stored": lambda q: ops.check_stored(q),
    "mend": lambda q: ops.mend(q, [ops.Suspect("a")]),
    "relist": lambda q: ops.relist(q, [q.group_prefix + "g:s"], repair=True),
    "relock": lambda q: ops.relock(q, [q.unique("t", b"")], [q.task("a")], repair=True),
    "set_aside": lambda q: ops.set_aside(q, {q.pending: "list"}, at_ns=1),
    "acquire": lambda q: ops.acquire(f"asynq:sema:{{{q.name}}}", limit=1, holder="a", for_ms=1000),
    "act": lambda q: ops.act(q, ops.Action.RUN, ["a"]),
    "reschedule": lambda q: ops.reschedule(q, "a"),
    "ask_cancel": lambda q: ops.ask_cancel(q, "a", ops.CancelWish.ARCHIVE),
    "scan": lambda q: ops.scan_tasks(q, TaskState.PENDING, ops.ScanPlace(), count=9),
    "groups": lambda q: ops.count_groups(q, "0"),
    "usage": lambda q: ops.estimate_memory(q),
    "alive": lambda q: ops.list_alive(f"asynq:{{{q.name}}}:index", skip=0, count=9),
    "rewrite": lambda q: ops.rewrite(q, "a", old=b"m", new=b"n"),
    "pause": lambda q: ops.pause(q),
    "close_queue": lambda q: ops.close_queue(q, force=False),
    "discard": lambda q: ops.discard(q),
    "purge": lambda q: ops.purge(q, "0", own=True),
    "move_out": lambda q: ops.move_out(q, ["a"], token="1", target="b"),
    "move_in": lambda q: ops.move_in(q, [(leaving(q), "")], until_s=4_000_000_000),
    "move_end": lambda q: ops.move_end(q, token="1", gone=[], back=[]),
    "limits_move": lambda q: ops.limits_move(q),
    "take_letters": lambda q: ops.take_letters(q, claim_s=60, limit=1),
    "end_letter": lambda q: ops.end_letter(q, "a", until_s="9"),
    "survey": lambda q: ops.survey("asynq:*"),
    "sample": lambda q: ops.sample(q, {LEVELS[0]: QueueSample(at_s=9)}),
    "tally": lambda q: ops.tally(q, 1, {"a": TypeTally.empty()}, owner="w1", call=1),
    "locate": lambda q: ops.locate([q], "a"),
    "tend": lambda q: ops.tend(q.absent, [ops.Tending(ops.Remedy.UNLOCK, q.unique_prefix + "a", q.task("a"), "a")]),
}


def forget_scripts(store: Store) -> None:
    store.raw.script_flush()  # on a cluster: of all primaries


def test_the_blocking_runner_sends_a_forgotten_script_again(broker: Broker) -> None:
    for build in EVERY.values():
        forget_scripts(broker.store)
        assert not isinstance(broker.run(build(broker.queue)), Exception)


async def test_the_asyncio_runner_sends_a_forgotten_script_again(broker: Broker) -> None:
    runner = AsyncRunner(broker.store.endpoint, timeout_s=30)
    for build in EVERY.values():
        forget_scripts(broker.store)
        assert not isinstance(await runner.run(build(broker.queue)), Exception)
    await runner.aclose()


def test_every_script_runs_on_fakeredis() -> None:
    """Projects test with it. What scripts do there beyond that is not compared."""
    client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    runner = SyncRunner(Endpoint(client, embedded_folder=Path("unused")), timeout_s=30)
    for build in EVERY.values():
        assert not isinstance(runner.run(build(QueueKeys("asynq", "q"))), Exception)
    runner.close()


def test_every_script_is_in_the_list() -> None:
    scripts = [build(QueueKeys("asynq", "q")).script for build in EVERY.values()]

    files_there = (files("taskq_core.broker") / "lua").iterdir()

    names = {file.name.removesuffix(".lua") for file in files_there if not file.name.startswith("_")}
    assert {script.name for script in scripts if script} == names


async def test_one_exchange_of_several_operations(broker: Broker) -> None:
    """All answers are right and in order, also when some scripts are known and others are not."""
    queue, store = broker.queue, broker.store
    lane = AsyncRunner(store.endpoint, timeout_s=30).new_lane()
    enqueue = ops.enqueue(queue, [NewTask("a", b"m"), NewTask("b", b"m")], ReceiptLane("t"))

    for known in ((), (ops.count_tasks(queue),)):
        forget_scripts(store)
        store.flush()
        await lane.exchange((ops.ping(), *known))
        answers = await lane.exchange(
            [
                enqueue,
                ops.dequeue(queue, owner="w1", call=1, limit=1, lease_s=30),
                ops.settle(queue, [Settlement("a", Outcome.DONE, run=1)], owner="w1"),
                ops.count_tasks(queue),
            ]
        )
        assert answers[0] == "11"
        assert [task_id for task_id, _ in answers[1].tasks] == ["a"]
        assert answers[2] == "1"
        assert isinstance(answers[3], ops.QueueCounts)
    await lane.close()


async def test_a_refused_operation_leaves_the_others_their_answers(broker: Broker) -> None:
    """An error of the store, and an answer that cannot be read, stand in the place of their answer."""
    queue = broker.queue
    broker.raw.hset(queue.task("odd"), mapping={"msg": "m", "state": "dancing"})
    broker.raw.set(queue.task("damaged"), "not a hash")
    lane = AsyncRunner(broker.store.endpoint, timeout_s=30).new_lane()

    answers = await lane.exchange(
        [ops.ping(), ops.look(queue, "odd"), ops.look(queue, "damaged"), ops.look(queue, "none"), ops.ping()]
    )

    await lane.close()
    assert (answers[0], answers[3], answers[4]) == (True, None, True)
    assert isinstance(answers[1], BrokerReplyError)
    assert str(answers[1]) == "task 'odd' in 'default' has an unknown state"
    assert isinstance(answers[2], BrokerReplyError)
    assert "WRONGTYPE" in str(answers[2])


async def test_scripts_forgotten_all_the_time(broker: Broker) -> None:
    """A loop of SCRIPT FLUSH beside callers: each of them gets its answer."""
    runner = AsyncRunner(broker.store.endpoint, timeout_s=30)
    stop = False

    async def forget() -> None:
        while not stop:
            forget_scripts(broker.store)
            await asyncio.sleep(0)

    async def enqueue(number: int) -> str:
        lane = ReceiptLane(f"t{number}")
        return "".join(
            [
                await runner.run(ops.enqueue(broker.queue, [NewTask(f"{number}-{index}", b"m")], lane))
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
