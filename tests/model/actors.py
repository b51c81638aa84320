"""Actors of races. Each actor is a generator that pauses after each operation, so that a test can interleave two.

An actor records in the scene, according to the responses of Redis, which tasks it stored and which it deleted or ended.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress

from taskq_core.broker.operations import actions, aggregation, outbox, runs, schedules, services, views
from taskq_core.broker.operations.actions import OK, Action
from taskq_core.broker.operations.new_tasks import ReceiptSlot
from taskq_core.broker.operations.runs import Outcome
from taskq_core.broker.operations.services import Recovery, Verdict
from taskq_core.broker.plans import RequestPlan
from taskq_core.errors import BrokerReplyError
from taskq_core.handles.copying import move
from tests.clock import at_time
from tests.model.scenes import GRACE_S, LEADER_MS, LEASE_S, SCENES, Scene

Actor = Callable[[Scene, str], Iterator[None]]
"""Called with the scene and the actor's name, "1" or "2"."""


def _run_plan(scene: Scene, plan: RequestPlan[object]) -> Iterator[None]:
    """Execute a request plan at the time of the scene. Pause after operations that read or change a task's place."""
    operation = next(plan)
    while True:
        if operation.name in {"copy_out", "deliver", "copy_end"}:
            operation.args, operation.deadline_at = [str(scene.now_ns), *operation.args[1:]], None
        answer = scene.execute(operation)
        if operation.name in {"copy_out", "deliver", "copy_end"}:
            yield
        try:
            operation = plan.send(answer)
        except StopIteration:
            return


# --- workers ----------------------------------------------------------------------------------------------------------


def worker(scene: Scene, who: str) -> Iterator[None]:
    taken = scene.dequeue(f"w{who}0")
    yield
    for task_id in taken:
        assert scene.settle(f"w{who}0", Outcome.DONE, task_id)
        yield


def owner_settles(outcome: Outcome) -> Actor:
    def settles(scene: Scene, who: str) -> Iterator[None]:
        scene.settle("w1", outcome)
        yield

    return settles


def owner_extends(scene: Scene, who: str) -> Iterator[None]:
    scene.execute(at_time(scene.now_ns, runs.extend_leases(scene.queue, [("t", 1)], owner="w1", lease_s=LEASE_S)))
    yield


def owner_writes(scene: Scene, who: str) -> Iterator[None]:
    scene.execute(runs.write_fields(scene.queue, "t", {runs.RESULT_FIELD: b"result"}, owner="w1", run=1))
    yield


def owner_quarantines(scene: Scene, who: str) -> Iterator[None]:
    scene.execute(at_time(scene.now_ns, runs.quarantine(scene.queue, "t", owner="w1", run=1)))
    yield


def zombie(scene: Scene, who: str) -> Iterator[None]:
    """The worker w0, which lost the task to w1 and does not know it: all its requests are refused."""
    assert not scene.settle("w0", Outcome.DONE)
    yield
    assert not scene.execute(
        runs.write_fields(scene.queue, "t", {runs.RESULT_FIELD: b"of a zombie"}, owner="w0", run=1)
    )
    yield
    owned = scene.execute(
        at_time(scene.now_ns, runs.extend_leases(scene.queue, [("t", 1)], owner="w0", lease_s=LEASE_S))
    ).owned
    assert owned == [False]
    yield


# --- services ---------------------------------------------------------------------------------------------------------


def recoverer(verdict: Verdict) -> Actor:
    def recovers(scene: Scene, who: str) -> Iterator[None]:
        tasks = scene.execute(at_time(scene.now_ns, services.list_expired(scene.queue, grace_s=GRACE_S))).tasks
        yield
        recoveries = [Recovery(each, verdict, each.message, 1) for each in tasks]
        scene.execute(at_time(scene.now_ns, services.recover(scene.queue, recoveries, grace_s=GRACE_S)))
        yield

    return recovers


def forwarder(scene: Scene, who: str) -> Iterator[None]:
    scene.execute(at_time(scene.now_ns, services.forward(scene.queue, owner=f"f{who}", leader_ms=LEADER_MS)))
    yield


def janitor(scene: Scene, who: str) -> Iterator[None]:
    completed, archived = scene.execute(at_time(scene.now_ns, services.clean(scene.queue)))
    assert archived == 0
    scene.ended["t"] += completed
    yield


def scheduler(scene: Scene, who: str) -> Iterator[None]:
    """Fire an entry, which must fire once if several schedulers do this."""
    mark = scene.execute(at_time((scene.now_s - 5) * 10**9, schedules.adopt(scene.queue, ["entry"]))).marks[0]
    yield
    firing = schedules.Tick("entry", mark.at_s, scene.now_s, scene.new("fired"))
    if mark.at_s == scene.now_s:
        return
    codes = scene.execute(at_time(scene.now_ns, schedules.tick(scene.queue, [firing], ReceiptSlot(f"tick{who}")))).codes
    assert codes in {"1", "s"}
    scene.stored["fired"] += codes == "1"
    yield


def aggregator(scene: Scene, who: str) -> Iterator[None]:
    checks = [aggregation.GroupCheck("g", f"s{who}", 30, 10)]
    scene.execute(at_time(scene.now_ns, aggregation.collect_groups(scene.queue, checks, limit=1)))
    yield
    yield from combiner(scene, who, f"s{who}")


def combiner(scene: Scene, who: str, set_id: str = "s0") -> Iterator[None]:
    """Combine the tasks of an aggregation set that was collected before."""
    members = scene.execute(aggregation.read_members(scene.queue, "g", set_id, skip=0))
    yield
    if members:
        task = scene.new(f"combined-{set_id}")
        code = scene.execute(at_time(scene.now_ns, aggregation.combine(scene.queue, "g", set_id, len(members), task)))
        if code == "1":
            scene.ended.update(task_id for task_id, _ in members)
            scene.stored[task.task_id] += 1
        yield


def reclaimer(scene: Scene, who: str) -> Iterator[None]:
    operation = at_time(
        scene.now_ns, aggregation.reclaim(scene.queue, "aggregator", owner=f"a{who}", leader_ms=LEADER_MS)
    )
    scene.execute(operation)
    yield


# --- clients and inspectors -------------------------------------------------------------------------------------------


def enqueuer(scene: Scene, who: str) -> Iterator[None]:
    """Enqueue a task with the id `t` and without a unique lock."""
    scene.enqueue(scene.new("t"), who=who)
    yield


def unique_enqueuer(scene: Scene, who: str) -> Iterator[None]:
    """Enqueue a task with another id and the unique lock of `t`."""
    scene.enqueue(scene.new(f"v{who}", lock=scene.lock), who=who)
    yield


def revoker(scene: Scene, who: str) -> Iterator[None]:
    scene.ended["t"] += scene.execute(actions.revoke(scene.queue, "t")) == OK
    yield


def inspect_with(action: Action) -> Actor:
    def inspector(scene: Scene, who: str) -> Iterator[None]:
        answer = scene.execute(at_time(scene.now_ns, actions.act(scene.queue, action, ["t"], start="+5000")))
        scene.ended["t"] += answer == [OK] and action is Action.DELETE
        yield

    return inspector


def rewriter(scene: Scene, who: str) -> Iterator[None]:
    """Change the payload of the task, and with it its unique lock."""
    found = scene.execute(views.read_task(scene.queue, "t"))
    yield
    if found is not None:
        new_lock = scene.queue.unique("t", who.encode())
        new = scene.message("t", unique_key=new_lock, retry=int(who))
        locks = {"old_lock": scene.lock, "new_lock": new_lock}
        scene.execute(actions.change_task(scene.queue, "t", old=found.message, new=new, **locks))
        yield


def pauser(scene: Scene, who: str) -> Iterator[None]:
    scene.execute(at_time(scene.now_ns, actions.pause(scene.queue)))
    yield
    scene.execute(actions.resume(scene.queue))
    yield


def remover(scene: Scene, who: str) -> Iterator[None]:
    closed = scene.execute(actions.close_queue(scene.queue, force=True))
    yield
    is_over = not closed.is_closed
    while not is_over:
        before = scene.ids()
        _, is_over = scene.execute(actions.discard(scene.queue, limit=1))
        scene.ended.update(before - scene.ids())
        yield


def mover(scene: Scene, who: str) -> Iterator[None]:
    keys = scene.keys
    yield from _run_plan(scene, move(keys, scene.queue, keys.queue("other"), ["t"], state=None))


# --- requests that arrive late ----------------------------------------------------------------------------------------


def next_run(scene: Scene, who: str) -> Iterator[None]:
    """The worker of the first run runs the task again."""
    assert scene.dequeue("w1", call=2) == ["t"]
    yield
    assert scene.settle("w1", Outcome.DONE, run=2)
    yield


def late_settlement(outcome: Outcome) -> Actor:
    def settles(scene: Scene, who: str) -> Iterator[None]:
        assert not scene.settle("w1", outcome)
        yield

    return settles


def late_extension(scene: Scene, who: str) -> Iterator[None]:
    owned = scene.execute(
        at_time(scene.now_ns, runs.extend_leases(scene.queue, [("t", 1)], owner="w1", lease_s=LEASE_S))
    ).owned
    assert owned == [False]
    yield


def late_result(scene: Scene, who: str) -> Iterator[None]:
    assert not scene.execute(runs.write_fields(scene.queue, "t", {runs.RESULT_FIELD: b"late"}, owner="w1", run=1))
    yield


def late_progress(scene: Scene, who: str) -> Iterator[None]:
    assert not scene.execute(runs.write_fields(scene.queue, "t", {runs.PROGRESS_FIELD: b"late"}, owner="w1", run=1))
    yield


def late_request(scene: Scene, who: str) -> Iterator[None]:
    """Repeat the late request. It is refused or gets the same response; the scene checks that it stored nothing."""
    assert scene.late is not None
    with suppress(BrokerReplyError):
        assert scene.execute(scene.late) == "1"
    yield


def next_enqueue(scene: Scene, who: str) -> Iterator[None]:
    assert scene.enqueue(scene.new("v"), who="caller") == "1"
    yield


def receipt_deleter(scene: Scene, who: str) -> Iterator[None]:
    """The sender deletes the receipt and delivers another row."""
    scene.execute(outbox.forget_deliveries(scene.queue, ["r"]))
    yield
    rows, ends_ms = [("s", scene.new("v"))], (scene.now_s + 30) * 1000
    receipt = scene.receipts["caller"]
    assert (
        scene.execute(at_time(scene.now_ns, outbox.deliver(scene.queue, rows, receipt, claim_ends_ms=ends_ms))) == "1"
    )
    scene.stored["v"] += 1
    yield


_WAITING = ("pending", "scheduled", "retry", "grouped")
_ALL = (*SCENES,)

ACTORS: dict[str, tuple[Actor, tuple[str, ...]]] = {
    "worker": (worker, ("pending", "scheduled", "retry")),
    **{f"owner {each.name.lower()}": (owner_settles(each), ("running", "lapsed")) for each in Outcome},
    "owner extends": (owner_extends, ("running", "lapsed")),
    "owner writes": (owner_writes, ("running", "lapsed")),
    "owner quarantines": (owner_quarantines, ("running", "lapsed")),
    "zombie": (zombie, ("running", "lapsed")),
    **{f"recoverer {each.name.lower()}": (recoverer(each), ("lapsed",)) for each in (*Verdict,)[:4]},
    "forwarder": (forwarder, ("scheduled", "scheduled_in_group", "retry")),
    "janitor": (janitor, ("completed", "archived")),
    "scheduler": (scheduler, ("pending",)),
    "aggregator": (aggregator, ("grouped", "scheduled_in_group", "in_late_set")),
    "combiner": (combiner, ("in_set", "in_late_set")),
    "reclaimer": (reclaimer, ("grouped", "in_set", "in_late_set")),
    "enqueuer": (enqueuer, _ALL),
    "unique enqueuer": (unique_enqueuer, _ALL),
    "revoker": (revoker, _ALL),
    **{f"inspector {each.value}": (inspect_with(each), _ALL) for each in Action},
    "rewriter": (rewriter, (*_WAITING, "in_set", "running", "copied")),
    "pauser": (pauser, ("pending",)),
    "remover": (remover, _ALL),
    "mover": (mover, (*_WAITING, "completed", "in_set", "running", "copied")),
}
"""Actors by name, with the scenes in which they have work to do."""

_LATE_AND_NEXT: tuple[tuple[str, Actor, str], ...] = (
    *((f"settlement {each.name.lower()}", late_settlement(each), "run_before") for each in Outcome),
    ("extension", late_extension, "run_before"),
    ("result", late_result, "run_before"),
    ("progress", late_progress, "run_before"),
    ("enqueue", late_request, "enqueued_before"),
    ("delivery", late_request, "delivered_before"),
)
_NEXT = {"run_before": next_run, "enqueued_before": next_enqueue, "delivered_before": receipt_deleter}
LATE = {name: ((actor, _NEXT[scene]), scene) for name, actor, scene in _LATE_AND_NEXT}
"""By name: a late request, the actor that races with it, and the scene."""
