"""Scenes and actors for races around one durable task `t`, and the checks after every operation.

See `scenes.py` and `actors.py`. No wake-up is lost: the task does not wait for an event that has already happened. If
the task exists, its record contains every acknowledged step, signal and end of sub-tasks.
"""

from collections.abc import Callable, Iterator
from typing import Any

from taskq_core.broker.operations import actions, runs, services, steps, workflows
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.new_tasks import ReceiptSlot
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.operations.services import CancelOutcome, Verdict
from taskq_core.broker.operations.steps import LoadedSteps, Refusal
from tests.clock import at_time
from tests.model import actors
from tests.model.scenes import GRACE_S, LEASE_S, Scene

DAY_S = 86_400


def happened(wait: str) -> str:
    """Return the field of the task's record whose existence ends a wait."""
    return f"e:{wait[2:]}" if wait.startswith("c:") else wait


class DurableScene(Scene):
    """The store with one durable task.

    Attributes:
        known: Fields that the record must have.
        may_be_gone: Whether an actor deleted or cancelled the task.
    """

    def __init__(self, send: Callable[[Any], Any], client: Any) -> None:
        super().__init__(send, client)
        self.known: dict[str, bytes] = {}
        self.signals: list[bytes] = []
        self.may_be_gone = False

    def load(self, owner: str, run: int) -> LoadedSteps | Refusal:
        return self.execute(at_time(self.now_ns, steps.load_steps(self.queue, "t", owner=owner, run=run)))

    def store(self, field: str, value: bytes) -> None:
        if self.execute(steps.store_step(self.queue, "t", field, value, owner="w1", run=1)) == value:
            self.known[field] = value

    def wait(self, wait: str, until_s: int = 0) -> str:
        end = Settlement("t", Outcome.WAIT, 1, self.message("t"), delay_ms=until_s * 1000, record=f"0 {wait}".encode())
        return self.execute(at_time(self.now_ns, runs.settle(self.queue, [end], owner="w1")))

    def read_queues(self) -> dict[str, Any]:
        """Return the state and the record of the task. It must be in one list or set, and not wait for a past event."""
        client, prefix = self._client, self.queue.prefix
        state = (client.hget(self.queue.task("t"), "state") or b"").decode()
        places = [
            name for name in ("active", "pending") for each in client.lrange(prefix + name, 0, -1) if each == b"t"
        ]
        zsets = ("scheduled", "retry", "archived", "completed")
        places += [name for name in zsets if client.zscore(prefix + name, "t") is not None]
        assert places == ([state] if state else []), f"t has the state {state!r} and is in {places}"
        record = self.execute(steps.read_steps(self.queue, "t"))
        waiting = record.get("waiting", b"").decode().partition(" ")[2]
        if state == "scheduled" and waiting:
            assert happened(waiting) not in record, f"the wake-up of {waiting} is lost"
        return {"state": state, "record": record}

    def check(self, *, allow_counted_twice: bool) -> None:
        """Check that the record contains all acknowledged fields, and each signal once."""
        found = self.read_queues()
        if not found["state"]:
            assert self.may_be_gone, "the task does not exist"
            return
        record: dict[str, bytes] = found["record"]
        assert self.known.items() <= record.items()
        values = [value.partition(b" ")[2] for field, value in record.items() if field.startswith("r:")]
        assert sorted(values) == sorted(self.signals)


# --- scenes -----------------------------------------------------------------------------------------------------------


def in_step(scene: DurableScene) -> None:
    """Worker w1 runs the task and has read its record."""
    scene.enqueue(scene.new("t"))
    assert scene.dequeue("w1") == ["t"]
    assert isinstance(scene.load("w1", 1), LoadedSteps)


def in_lapsed_step(scene: DurableScene) -> None:
    """As `in_step`, but the lease and the grace have expired."""
    in_step(scene)
    scene.now_s += LEASE_S + GRACE_S


def at_timeout(scene: DurableScene) -> None:
    """The task waits for a signal, and the timeout has passed."""
    in_step(scene)
    assert scene.wait("r:go#1", scene.now_s + 5) == "1"
    scene.now_s += 5


def in_call(scene: DurableScene) -> None:
    """Worker w1 runs the task, and worker w2 its only sub-task."""
    in_step(scene)
    scene.store("c:call", b"1 wf")
    message = scene.message("child")
    entries: list[tuple[str, str, Any]] = [
        ("", "state", "building"),
        ("", "queue", scene.queue.name),
        ("", "prefix", scene.queue.prefix),
        ("", "kept_s", 600),
        ("", "open", 1),
        ("", "s0", "w"),
        ("", "p0", 0),
        ("", "m0", b"child t - default\nH%d:%bT0:" % (len(message), message)),
        ("", "parent", "call\nt"),
    ]
    made = workflows.create_workflow(scene.queue, "wf", entries, ReceiptSlot("c"), roots=[0])
    assert scene.execute(at_time(scene.now_ns, made))
    assert scene.dequeue("w2") == ["child"]


def at_end_of_call(scene: DurableScene) -> None:
    """The task waits for its sub-task."""
    in_call(scene)
    assert scene.wait("c:call") == "1"


# --- actors -----------------------------------------------------------------------------------------------------------


def owner_stores(scene: DurableScene, who: str) -> Iterator[None]:
    scene.store(f"s:{who}", b"1 1 1")
    yield


def owner_waits(wait: str) -> Callable[[DurableScene, str], Iterator[None]]:
    def waits(scene: DurableScene, who: str) -> Iterator[None]:
        record = scene.read_queues()["record"]
        has_happened = happened(wait) in record or "cancel" in record
        if scene.wait(wait, scene.now_s + DAY_S) == "1":
            assert scene.read_queues()["state"] == ("pending" if has_happened else "scheduled")
        yield

    return waits


def signaller(scene: DurableScene, who: str) -> Iterator[None]:
    value = b"%d" % int(who)
    for _ in range(2):  # the second one is a repeat
        sent = at_time(scene.now_ns, steps.signal(scene.queue, "t", "go", value, signal_id=who))
        if scene.execute(sent) == "ok" and value not in scene.signals:
            scene.signals.append(value)
        yield


def canceller(scene: DurableScene, who: str) -> Iterator[None]:
    if not scene.execute(steps.cancel_steps(scene.queue, "t", wish="discard")):
        scene.execute(services.ask_cancel(scene.queue, "asynq:cancel", "t", CancelOutcome.DISCARD))
    yield


def revoker(scene: DurableScene, who: str) -> Iterator[None]:
    scene.may_be_gone = True
    scene.execute(actions.revoke(scene.queue, "t"))
    yield


def inspect_with(action: Action) -> Callable[[DurableScene, str], Iterator[None]]:
    def inspector(scene: DurableScene, who: str) -> Iterator[None]:
        scene.may_be_gone |= action is Action.DELETE
        scene.execute(at_time(scene.now_ns, actions.act(scene.queue, action, ["t"])))
        yield

    return inspector


def child_ends(scene: DurableScene, who: str) -> Iterator[None]:
    end = Settlement("child", Outcome.DONE, 1, b"child")
    if scene.execute(at_time(scene.now_ns, runs.settle(scene.queue, [end], owner="w2"))) == "1":
        scene.known["e:call"] = b"%d" % (scene.now_s * 1000)
    yield


def next_run(scene: DurableScene, who: str) -> Iterator[None]:
    """Take the task if it is pending. Its record must then have no wait."""
    if "t" in scene.dequeue(f"w{who}0"):
        yield
        assert isinstance(scene.load(f"w{who}0", 1), LoadedSteps)
        assert "waiting" not in scene.read_queues()["record"]
    yield


_ALWAYS: dict[str, Any] = {
    "signaller": signaller,
    "canceller": canceller,
    "revoker": revoker,
    "inspector run": inspect_with(Action.RUN),
    "inspector archive": inspect_with(Action.ARCHIVE),
    "inspector delete": inspect_with(Action.DELETE),
    "next run": next_run,
    "forwarder": actors.forwarder,
}
_OWNER: dict[str, Any] = {"owner stores": owner_stores, "owner waits": owner_waits("r:go#1"), **_ALWAYS}
_CHILD: dict[str, Any] = {"child ends": child_ends, **_ALWAYS}

RACES: dict[Callable[[DurableScene], None], dict[str, Any]] = {
    in_step: _OWNER,
    in_lapsed_step: {**_OWNER, "recoverer": actors.recoverer(Verdict.RETRY)},
    at_timeout: _ALWAYS,
    in_call: {"owner waits": owner_waits("c:call"), **_CHILD},
    at_end_of_call: _CHILD,
}
"""Scenes, with the actors that have work to do there."""
