"""Scenes, the start of a race between two actors: a task `t` in some state, mostly another task `n`, a stopped clock.

A scene counts which tasks the actors stored and which they ended. Whatever the order of the actors, in the end every
task must exist as often as these counts say.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from taskq_core.broker.operations import actions, aggregation, new_tasks, outbox, runs, services
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.wire import Keys, build_message, decode_message, encode_message
from tests.clock import at_time
from tests.model.base_machine import START_S
from tests.model.world import Queue, read_queues

T = TypeVar("T")

QUEUES = ("default", "other")
NS = 1_000_000_000
LEASE_S = 30
GRACE_S = 10
LEADER_MS = 20_000


class Scene:
    """The store (Redis), the time, and the counts of stored and ended tasks.

    Attributes:
        lock: The unique lock of `t`.
        stored: How often a task was stored, by id.
        ended: How often a task was ended for good, by id.
        late: A request that has arrived once and is going to arrive again.
    """

    def __init__(self, send: Callable[[Operation[Any]], Any], client: Any) -> None:
        client.flushall()
        self._send = send
        self._client = client
        self.keys = Keys()
        self.queue = self.keys.queue("default")
        self.now_s = START_S
        self.lock = self.queue.unique("t", b"payload")
        self.stored: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.receipts: dict[str, ReceiptSlot] = {}
        self.locks: dict[tuple[str, str], str] = {}
        self.late: Operation[str] | None = None

    @property
    def now_ns(self) -> int:
        return self.now_s * NS

    def execute(self, operation: Operation[T]) -> T:
        answer: T = self._send(operation)
        return answer

    def message(self, task_id: str, **fields: Any) -> bytes:
        return encode_message(build_message(type="t", id=task_id, queue="default", payload=b"payload", **fields))

    def new(self, task_id: str, *, lock: str = "", group: str = "", **start: Any) -> NewTask:
        message = self.message(task_id, unique_key=lock, group_key=group)
        return NewTask(task_id, message, unique_key=lock, unique_s=600 if lock else 0, group=group, **start)

    def enqueue(self, *tasks: NewTask, who: str = "") -> str:
        receipt = self.receipts.setdefault(who, ReceiptSlot(f"lane{who}"))
        codes = self.execute(at_time(self.now_ns, new_tasks.enqueue(self.queue, tasks, receipt)))
        self.stored.update(task.task_id for task, code in zip(tasks, codes, strict=True) if code == "1")
        return codes

    def dequeue(self, owner: str, *, call: int = 1) -> list[str]:
        operation = at_time(self.now_ns, runs.dequeue(self.queue, owner=owner, call=call, limit=1, lease_s=LEASE_S))
        taken = self.execute(operation).tasks
        self.locks |= {(owner, task_id): decode_message(message).unique_key for task_id, message in taken}
        return [task_id for task_id, _ in taken]

    def settle(self, owner: str, outcome: Outcome, task_id: str = "t", *, run: int = 1) -> bool:
        lock = self.locks.get((owner, task_id), "")
        message = self.message(task_id, retried=1, unique_key=lock)
        end = Settlement(task_id, outcome, run, message, seconds=60, delay_ms=1, unique_key=lock)
        is_settled = self.execute(at_time(self.now_ns, runs.settle(self.queue, [end], owner=owner))) == "1"
        if is_settled and outcome is Outcome.DONE:
            self.ended[task_id] += 1
        return is_settled

    def read_queues(self) -> dict[str, Queue]:
        """Read the content of the store, which must be consistent."""
        return read_queues(self._client, QUEUES)

    def ids(self) -> set[str]:
        """Return the ids of all tasks in both queues and their quarantines."""
        return {each for queue in self.read_queues().values() for each in [*queue.tasks, *queue.quarantine]}

    def check(self, *, allow_counted_twice: bool) -> None:
        """Check that every task exists as often as counted, and that every lock belongs to an existing task.

        Args:
            allow_counted_twice: Allow that `t` exists although it was counted as ended. This happens if its queue is
                removed while it moves to another queue.
        """
        found = self.read_queues()
        existing = Counter(each for queue in found.values() for each in [*queue.tasks, *queue.quarantine])
        for task_id in self.stored | self.ended:
            expected = self.stored[task_id] - self.ended[task_id]
            if allow_counted_twice and task_id == "t" and existing["t"] == 1:
                continue
            assert existing[task_id] == expected, f"{task_id} exists {existing[task_id]} times, expected {expected}"
        for name, queue in found.items():
            for lock, (holder, _) in queue.locks.items():
                assert holder in {*queue.tasks, *queue.quarantine}, (
                    f"{lock} in {name} is held by {holder}, which does not exist"
                )


def pending(scene: Scene) -> None:
    scene.enqueue(scene.new("t", lock=scene.lock))
    scene.enqueue(scene.new("n"))


def running(scene: Scene) -> None:
    """Worker w1 runs `t`. Worker w0 ran it before and lost it."""
    pending(scene)
    scene.dequeue("w0")
    scene.now_s += LEASE_S + GRACE_S
    recover(scene)
    scene.now_s += 1
    scene.execute(at_time(scene.now_ns, services.forward(scene.queue, owner="f0", leader_ms=1)))
    scene._client.lmove(scene.queue.pending, scene.queue.pending, "RIGHT", "LEFT")  # put `t` before the other task
    assert scene.dequeue("w1") == ["t"]


def lapsed(scene: Scene) -> None:
    """As `running`, but the lease and the grace have expired."""
    running(scene)
    scene.now_s += LEASE_S + GRACE_S


def recover(scene: Scene) -> None:
    tasks = scene.execute(at_time(scene.now_ns, services.list_expired(scene.queue, grace_s=GRACE_S))).tasks
    recoveries = [services.Recovery(each, services.Verdict.RETRY, each.message, 1) for each in tasks]
    scene.execute(at_time(scene.now_ns, services.recover(scene.queue, recoveries, grace_s=GRACE_S)))


def scheduled(scene: Scene) -> None:
    scene.enqueue(scene.new("t", lock=scene.lock, start_at_s=scene.now_s + 5))
    scene.enqueue(scene.new("n"))
    scene.now_s += 5


def scheduled_in_group(scene: Scene) -> None:
    scene.enqueue(scene.new("t", lock=scene.lock, group="g", start_at_s=scene.now_s + 5))
    scene.enqueue(scene.new("n", group="g"))
    scene.now_s += 5


def retry(scene: Scene) -> None:
    pending(scene)
    scene.dequeue("w0")
    scene.settle("w0", Outcome.RETRY)
    scene.now_s += 5


def archived(scene: Scene) -> None:
    pending(scene)
    scene.dequeue("w0")
    scene.settle("w0", Outcome.ARCHIVE)
    scene.now_s += 5


def completed(scene: Scene) -> None:
    """`t` has completed, and its retention has just ended."""
    pending(scene)
    scene.dequeue("w0")
    scene.settle("w0", Outcome.COMPLETE)
    scene.now_s += 60


def grouped(scene: Scene) -> None:
    scene.enqueue(scene.new("t", lock=scene.lock, group="g"), scene.new("n", group="g"))
    scene.now_s += 60


def in_set(scene: Scene) -> None:
    """`t` and the other task are in an aggregation set."""
    grouped(scene)
    check = aggregation.GroupCheck("g", "s0", 30, 10)
    scene.execute(at_time(scene.now_ns, aggregation.collect_groups(scene.queue, [check], limit=1)))


def in_late_set(scene: Scene) -> None:
    """As `in_set`, but the deadline of the set has passed, and a new member waits in the group."""
    in_set(scene)
    scene.now_s += 30
    scene.enqueue(scene.new("m", group="g"))


def copied(scene: Scene) -> None:
    """`t` is archived to be copied to another queue, but the client that moved it has died."""
    pending(scene)
    scene.execute(at_time(scene.now_ns, actions.copy_out(scene.queue, ["t"], token="a0", target="other")))
    scene.now_s += 300


# --- scenes for late requests -----------------------------------------------------------------------------------------


def run_before(scene: Scene) -> None:
    """`t` is pending again, because w1 ran it and returned it."""
    pending(scene)
    assert scene.dequeue("w1") == ["t"]
    assert scene.settle("w1", Outcome.REQUEUE)


def enqueued_before(scene: Scene) -> None:
    """`t` was enqueued and run. Then it was deleted, because it has no retention."""
    receipt = scene.receipts.setdefault("caller", ReceiptSlot("lane-caller"))
    scene.late = at_time(scene.now_ns, new_tasks.enqueue(scene.queue, [scene.new("t")], receipt))
    assert scene.execute(scene.late) == "1"
    _run_to_end(scene)


def delivered_before(scene: Scene) -> None:
    """`t` was delivered from an outbox and run. Then the task and its row were deleted."""
    receipt = scene.receipts.setdefault("caller", ReceiptSlot("lane-caller"))
    ends_ms = (scene.now_s + 30) * 1000
    scene.late = at_time(
        scene.now_ns, outbox.deliver(scene.queue, [("r", scene.new("t"))], receipt, claim_ends_ms=ends_ms)
    )
    assert scene.execute(scene.late) == "1"
    _run_to_end(scene)


def _run_to_end(scene: Scene) -> None:
    scene.stored["t"] += 1
    assert scene.dequeue("w1") == ["t"]
    assert scene.settle("w1", Outcome.DONE)


SCENES: dict[str, Callable[[Scene], None]] = {
    each.__name__: each
    for each in (
        pending,
        running,
        lapsed,
        scheduled,
        scheduled_in_group,
        retry,
        archived,
        completed,
        grouped,
        in_set,
        in_late_set,
        copied,
    )
}
LATE_SCENES = {each.__name__: each for each in (run_before, enqueued_before, delivered_before)}
