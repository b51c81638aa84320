"""Rules of inspector actions on tasks and queues, and of moves to another queue."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from taskq_core.broker.operations import actions, outbox, services, views
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.new_tasks import ReceiptSlot
from taskq_core.handles.copying import _copy_of
from taskq_core.wire import TaskState
from tests.clock import at_time
from tests.model.base_machine import (
    ARCHIVE,
    QUEUES,
    STATES,
    BaseMachine,
    delays,
    locks,
    numbers,
    picks,
    queues,
    rarely,
)
from tests.model.store_model import names_in
from tests.model.world import Queue


class PeopleRules(BaseMachine):
    """Rules that run, archive, delete, postpone, rewrite and move tasks, and pause and remove queues."""

    def __init__(self) -> None:
        super().__init__()
        self.readings: list[tuple[str, str, bytes]] = []
        self.moves: list[dict[str, Any]] = []

    @rule(
        name=queues,
        action=st.sampled_from(tuple(Action)),
        picked=picks,
        state=st.sampled_from((None, None, None, *STATES)),
        delay_ms=delays,
    )
    def act(self, name: str, action: Action, picked: list[int], state: str | None, delay_ms: int) -> None:
        keys, queue = self.keys_and_queue(name)
        task_ids = self.choose_ids(name, picked)
        operation = at_time(
            self.model.now_ns,
            actions.act(
                keys,
                action,
                task_ids,
                state=None if state is None else TaskState(state),
                start=f"+{delay_ms}",
                archive=ARCHIVE,
            ),
        )
        assert self.execute(operation) == self.model.act(queue, action, task_ids, state=state, start_in_ms=delay_ms)

    @rule(name=queues, pick=numbers)
    def read_a_message(self, name: str, pick: int) -> None:
        keys, queue = self.keys_and_queue(name)
        (task_id,) = self.choose_ids(name, [pick])
        found = self.execute(views.read_task(keys, task_id))
        assert (found and found.message) == (queue.tasks[task_id].message if task_id in queue.tasks else None)
        if found is not None:
            self.readings = [(name, task_id, found.message), *self.readings[:5]]

    @rule(number=numbers, lock=locks, fresh=st.none() | st.tuples(queues, numbers))
    def rewrite(self, number: int, lock: str, fresh: tuple[str, int] | None) -> None:
        """Replace a message that was read just before or earlier. A unique lock changes with the payload."""
        if fresh:
            self.read_a_message(*fresh)
        if not self.readings:
            return
        name, task_id, old = self.readings[0 if fresh else number % len(self.readings)]
        keys, queue = self.keys_and_queue(name)
        was = names_in(old)
        new_lock = keys.unique("t", (lock.partition(":")[0] or "z").encode()) if was["unique_key"] else ""
        new = self.message(name, task_id, unique_key=new_lock, group_key=was["group_key"])
        locks = {"old_lock": was["unique_key"], "new_lock": new_lock}
        answer = self.execute(actions.change_task(keys, task_id, old=old, new=new, **locks))
        assert answer == self.model.rewrite(queue, task_id, old, new, **locks)

    @rule(name=queues, resumes=st.sampled_from((True, True, True, False)))
    def pause_or_resume(self, name: str, resumes: bool) -> None:
        keys, queue = self.keys_and_queue(name)
        if resumes:
            assert self.execute(actions.resume(keys)) == self.model.resume(queue)
            self.execute(services.notify(keys))
            queue.has_token = queue.has_token or bool(queue.pending)
        else:
            assert self.execute(at_time(self.model.now_ns, actions.pause(keys))) == self.model.pause(queue)

    @rule(name=queues, force=rarely, purges=rarely)
    def remove(self, name: str, force: bool, purges: bool) -> None:
        keys, queue = self.keys_and_queue(name)
        closed = self.execute(actions.close_queue(keys, force=force))
        assert closed == self.model.remove(queue, force=force)
        if not closed.is_closed:
            return
        deleted, is_over = self.execute(actions.discard(keys, limit=2))
        while not is_over:
            more, is_over = self.execute(actions.discard(keys, limit=2))
            deleted += more
        assert deleted == closed.total
        for own in (False, True) if purges else ():
            cursor: str | None = "0"
            while (cursor := self.execute(actions.purge(keys, cursor or "0", own=own))) != "0":
                assert cursor is not None
        if purges:
            self.model.queues[name] = Queue()
            self.forget_receipts(name)

    # --- moving to another queue --------------------------------------------------------------------------------------

    @rule(name=queues, picked=picks, state=st.sampled_from((None, None, None, *STATES)))
    def copy_out(self, name: str, picked: list[int], state: str | None = None) -> None:
        keys, queue = self.keys_and_queue(name)
        task_ids = self.choose_ids(name, picked)
        to = next(each for each in QUEUES if each != name)
        token = f"{self.next():04x}"
        wanted = None if state is None else TaskState(state)
        step = actions.copy_out(keys, task_ids, token=token, target=to, state=wanted)
        now_s, originals = self.execute(at_time(self.model.now_ns, step))
        assert now_s == self.model.now_s
        expected = self.model.copy_out(queue, task_ids, token=token, target=to, state=state)
        assert [each.answer for each in originals] == expected
        archived = [each for each in originals if each.answer == actions.OK]
        if archived:
            move = {"from": name, "to": to, "token": token, "tasks": archived, "at_s": now_s}
            self.moves = [move, *self.moves[:3]]

    @rule(number=numbers, fresh=st.none() | st.tuples(queues, picks))
    def deliver_copies(self, number: int, fresh: tuple[str, list[int]] | None) -> None:
        """Execute `deliver`: in time or too late, once or repeatedly."""
        if fresh:
            self.copy_out(*fresh)
        if not self.moves:
            return
        move = self.moves[0 if fresh else number % len(self.moves)]
        keys, queue = self.keys_and_queue(move["to"])
        source = self.keys.queue(move["from"])
        rows = [(each.receipt, _copy_of(each, source, keys, move["at_s"])) for each in move["tasks"]]
        ends_ms = (move["at_s"] + actions.CLAIM_S) * 1000
        step = outbox.deliver(keys, rows, ReceiptSlot(f"{self.next():04x}"), claim_ends_ms=ends_ms)
        codes = self.execute(at_time(self.model.now_ns, step))
        assert codes == self.model.deliver(queue, rows, claim_ends_ms=ends_ms)
        move["codes"] = move.get("codes") if "l" in codes else codes

    @precondition(lambda self: any(each.get("codes") for each in self.moves))
    @rule(number=numbers)
    def end_the_move(self, number: int) -> None:
        delivered = [each for each in self.moves if each.get("codes")]
        move = delivered[number % len(delivered)]
        keys, queue = self.keys_and_queue(move["from"])
        copied: list[actions.Original] = []
        back: list[actions.Original] = []
        for original, code in zip(move["tasks"], move["codes"], strict=True):
            (copied if code in {"1", "s"} else back).append(original)
        ends: dict[str, Any] = {"token": move["token"], "target": move["to"], "copied": copied, "back": back}
        assert self.execute(at_time(self.model.now_ns, actions.copy_end(keys, **ends))) == self.model.copy_end(
            queue, **ends
        )
