"""Races around one durable task `t`: where they begin, who takes part, and what must hold after every call.

See `scenes.py` and `actors.py`. A wake-up is never lost: no task waits for what has already happened. What was
acknowledged, a step, a signal or the end of sub-tasks, is in the record of a task that still exists.
"""

from collections.abc import Callable, Iterator
from typing import Any

from taskq_core.broker.operations import actions, runs, services, steps, views, workflows
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
    """Return the field of the record that ends a wait."""
    return f"e:{wait[2:]}" if wait.startswith("c:") else wait


class DurableScene(Scene):
    """The store with one durable task.

    Attributes:
        known: Fields that the record must have, with the end of their values.
        is_cancelled: Whether somebody cancelled the run, which its worker does not know.
        may_be_gone: Whether somebody deleted or cancelled the task.
    """

    def __init__(self, send: Callable[[Any], Any], client: Any) -> None:
        super().__init__(send, client)
        self.known: dict[str, bytes] = {}
        self.signals: list[bytes] = []
        self.is_cancelled = self.may_be_gone = False

    def load(self, owner: str, run: int) -> LoadedSteps | Refusal:
        return self.ask(at_time(self.now_ns, steps.load_steps(self.queue, "t", owner=owner, run=run)))

    def store(self, field: str, value: bytes) -> None:
        if self.ask(steps.store_step(self.queue, "t", field, value, owner="w1", run=1)) == value:
            self.known[field] = value

    def wait(self, wait: str, until_s: int = 0) -> str:
        end = Settlement("t", Outcome.WAIT, 1, self.message("t"), delay_ms=until_s * 1000, record=f"0 {wait}".encode())
        return self.ask(at_time(self.now_ns, runs.settle(self.queue, [end], owner="w1")))

    def look(self) -> dict[str, Any]:
        """Return where the task stands. It must stand in one place, and must not wait for what has happened."""
        client, prefix = self._client, self.queue.prefix
        state = (client.hget(self.queue.task("t"), "state") or b"").decode()
        places = [
            name for name in ("active", "pending") for each in client.lrange(prefix + name, 0, -1) if each == b"t"
        ]
        zsets = ("scheduled", "retry", "archived", "completed")
        places += [name for name in zsets if client.zscore(prefix + name, "t") is not None]
        assert places == ([state] if state else []), f"t is {state!r}, and stands in {places}"
        record = self.ask(steps.read_steps(self.queue, "t"))
        waiting = record.get("waiting", b"").decode().partition(" ")[2]
        if state == "scheduled" and waiting:
            assert happened(waiting) not in record, f"the wake-up of {waiting} is lost"
        return {"state": state, "record": record}

    def check(self, *, may_be_told_twice: bool) -> None:
        """The record has what was acknowledged, and each signal once."""
        found = self.look()
        if not found["state"]:
            assert self.may_be_gone, "the task is gone"
            return
        record: dict[str, bytes] = found["record"]
        assert self.known.items() <= record.items()
        values = [value.partition(b" ")[2] for field, value in record.items() if field.startswith("r:")]
        assert sorted(values) == sorted(self.signals)


# --- where a race begins ----------------------------------------------------------------------------------------------


def in_step(scene: DurableScene) -> None:
    """w1 runs the task, and has read its record."""
    scene.enqueue(scene.new("t"))
    assert scene.dequeue("w1") == ["t"]
    assert isinstance(scene.load("w1", 1), LoadedSteps)


def in_lapsed_step(scene: DurableScene) -> None:
    """As `in_step`, and the lease ended longer ago than the grace."""
    in_step(scene)
    scene.now_s += LEASE_S + GRACE_S


def at_timeout(scene: DurableScene) -> None:
    """The task waits for a signal, and its timeout is over."""
    in_step(scene)
    assert scene.wait("r:go#1", scene.now_s + 5) == "1"
    scene.now_s += 5


def in_call(scene: DurableScene) -> None:
    """w1 runs the task, and w2 runs its only sub-task."""
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
    assert scene.ask(at_time(scene.now_ns, made))
    assert scene.dequeue("w2") == ["child"]


def at_end_of_call(scene: DurableScene) -> None:
    """The task waits for its sub-task."""
    in_call(scene)
    assert scene.wait("c:call") == "1"


# --- who takes part ---------------------------------------------------------------------------------------------------


def owner_stores(scene: DurableScene, who: str) -> Iterator[None]:
    scene.store(f"s:{who}", b"1 1 1")
    yield


def owner_waits(wait: str) -> Callable[[DurableScene, str], Iterator[None]]:
    def waits(scene: DurableScene, who: str) -> Iterator[None]:
        has_happened = happened(wait) in scene.look()["record"]
        answer = scene.wait(wait, scene.now_s + DAY_S)
        assert (answer == "d") is (scene.is_cancelled and scene.look()["state"] == "active")
        if answer == "1":
            assert scene.look()["state"] == ("pending" if has_happened else "scheduled")
        yield

    return waits


def signaller(scene: DurableScene, who: str) -> Iterator[None]:
    value = b"%d" % int(who)
    for _ in range(2):  # the second one is a repeat
        sent = at_time(scene.now_ns, steps.signal(scene.queue, "t", "go", value, signal_id=who))
        if scene.ask(sent) == "ok" and value not in scene.signals:
            scene.signals.append(value)
        yield


def canceller(scene: DurableScene, who: str) -> Iterator[None]:
    scene.may_be_gone = True
    scene.is_cancelled |= scene.ask(services.ask_cancel(scene.queue, "t", CancelOutcome.DISCARD)) == "active"
    yield


def revoker(scene: DurableScene, who: str) -> Iterator[None]:
    scene.may_be_gone = True
    scene.ask(views.revoke(scene.queue, "t"))
    yield


def acts(action: Action) -> Callable[[DurableScene, str], Iterator[None]]:
    def inspector(scene: DurableScene, who: str) -> Iterator[None]:
        scene.may_be_gone |= action is Action.DELETE
        scene.ask(at_time(scene.now_ns, actions.act(scene.queue, action, ["t"])))
        yield

    return inspector


def child_ends(scene: DurableScene, who: str) -> Iterator[None]:
    end = Settlement("child", Outcome.DONE, 1, b"child")
    if scene.ask(at_time(scene.now_ns, runs.settle(scene.queue, [end], owner="w2"))) == "1":
        scene.known["e:call"] = b"%d" % (scene.now_s * 1000)
    yield


def next_run(scene: DurableScene, who: str) -> Iterator[None]:
    """Take the task if it is pending. Its wait is over then."""
    if "t" in scene.dequeue(f"w{who}0"):
        yield
        assert isinstance(scene.load(f"w{who}0", 1), LoadedSteps)
        assert "waiting" not in scene.look()["record"]
    yield


_ALWAYS: dict[str, Any] = {
    "signaller": signaller,
    "canceller": canceller,
    "revoker": revoker,
    "inspector run": acts(Action.RUN),
    "inspector archive": acts(Action.ARCHIVE),
    "inspector delete": acts(Action.DELETE),
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
"""Scenes, and the actors that have something to do there."""
