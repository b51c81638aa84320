"""Move tasks to another queue, in their current state.

The queues are on different slots of a cluster, so one script cannot change both. A task moves in three steps:

1. Departure: a script removes the task from the lists of its queue, so that it cannot run, and records the target.
2. Arrival: a script stores the task in the other queue, with a receipt under the token of the move.
3. A script deletes the task from its old queue.

If the move is interrupted at any point, either the task can run in exactly one queue, or the move can be completed.
Until the arrival, the hash of the task stays in the old queue and is listed in `taskq:{Q}:moving`. The receipt prevents
a second arrival, even if the task has run and was deleted. `finish`, or a second move of the task, completes the
interrupted move with its first token. Workers call `finish`.

If the other queue refuses a task, because its id or its unique lock is taken, the task returns to its old state. The
same happens if the other queue is unavailable after the departure and the task has certainly not arrived. The unique
lock moves with its remaining time.
"""

import secrets
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from msgspec.structs import replace

from taskq_core.broker.operations import actions, dispatch, new_tasks, workflows
from taskq_core.broker.operations.actions import MOVE_S, OK, Departure
from taskq_core.broker.operations.new_tasks import StoreCode
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import BrokerError, BrokerUnavailableError, WireFormatError
from taskq_core.wire import Keys, QueueKeys, TaskMessage, TaskState, decode_message, encode_message

_CHUNK = 100
_LISTED = 1000
_LEFT_BEHIND = (
    b"taskq_moving",
    b"taskq_wait",
    b"taskq_owner",
    b"taskq_started",
    b"taskq_begun",
    b"taskq_permit",
    b"taskq_line",
)
_CONFIRMED_S = 2 * MOVE_S
"""Seconds for which the receipt of a move is stored after the end of the move. Step 2 of a move takes less time."""

Code = str | WireFormatError
"""Result for a task: a `StoreCode`, or an error if the task's message cannot be changed for the other queue."""


def move(
    keys: Keys,
    queue: QueueKeys,
    target: QueueKeys,
    ids: Sequence[str],
    *,
    state: TaskState | None,
    generations: Mapping[str, str] = MappingProxyType({}),
) -> RequestPlan[list[tuple[Departure, Code | None]]]:
    """Move at most `BATCH_MAX` tasks. `generations` has the generations of the tasks by id.

    For each task, return the result of its departure and, if it departed, the result of its arrival.
    """
    token = _new_token()
    ends: list[tuple[Departure, Code | None]] = []
    while ids:
        step = actions.move_out(queue, ids, token=token, target=target.name, state=state, generations=generations)
        departures = yield from ask(step)
        departed = [each for each in departures.tasks if each.answer == OK]
        codes = yield from _arrive(keys, queue, target, departed, token, departures.now_s)
        ends += [(each, codes.get(each.task_id)) for each in departures.tasks]
        ids = ids[len(departures.tasks) :]
    return ends


def finish(keys: Keys, queue: QueueKeys, *, idle_s: int = 0) -> RequestPlan[int]:
    """Complete moves that have made no progress for `idle_s` seconds. Return the number of tasks that arrived."""
    now_s = (yield from ask(actions.move_out(queue, (), token="", target=""))).now_s
    ids: list[str] = []
    while True:
        step = actions.list_moving(queue, before_s=now_s - idle_s, skip=len(ids), count=_LISTED)
        page = yield from ask(step)
        ids += page
        if len(page) < _LISTED:
            break
    moved = 0
    while ids:
        token = _new_token()
        departures = yield from ask(actions.move_out(queue, ids[:_CHUNK], token=token, target=""))
        ids = ids[len(departures.tasks) :]
        by_target: dict[str, list[Departure]] = {}
        for departure in departures.tasks:
            if departure.answer == OK:
                by_target.setdefault(departure.target, []).append(departure)
        for to, tasks in by_target.items():
            codes = yield from _arrive(keys, queue, keys.queue(to), tasks, token, departures.now_s)
            moved += list(codes.values()).count(StoreCode.STORED)
    return moved


def _new_token() -> str:
    return secrets.token_hex(8)


def _arrive(
    keys: Keys, queue: QueueKeys, target: QueueKeys, tasks: Sequence[Departure], token: str, now_s: int
) -> RequestPlan[dict[str, Code]]:
    """Execute steps 2 and 3 of the move for tasks that departed at `now_s`, or whose move was resumed at `now_s`."""
    ready: list[tuple[Departure, str]] = []
    codes: dict[str, Code] = {}
    for task in tasks:
        try:
            ready.append(_addressed(task, queue, target))
        except WireFormatError as error:
            codes[task.task_id] = error
    if ready:
        is_sent = False
        try:
            yield from ask(new_tasks.register_queue(keys.queues, (target.name,)))
            yield from _record_steps(keys, target, [task for task, _ in ready])
            is_sent = True
            arrived = yield from ask(actions.move_in(target, ready, until_s=now_s + MOVE_S))
        except BrokerError as error:
            # Put back only the tasks that this call has taken. Tasks of an interrupted earlier move may have arrived
            # already.
            back = [task for task in tasks if task.move == token]
            if back and not (is_sent and error.may_have_happened):
                yield from ask(actions.move_end(queue, token=token, gone=(), back=back))
            raise
        if arrived is None:
            raise BrokerUnavailableError(
                f"moving tasks to {target.name!r} took too long; repeat the move to complete it"
            )
        codes |= {task.task_id: code for (task, _), code in zip(ready, arrived, strict=True)}
    gone = [task for task in tasks if codes[task.task_id] == StoreCode.STORED]
    back = [task for task in tasks if codes[task.task_id] != StoreCode.STORED]
    if tasks:
        yield from ask(actions.move_end(queue, token=token, gone=gone, back=back))
    if gone:
        yield from ask(actions.release_receipts(target, gone, until_s=now_s + _CONFIRMED_S))
    return codes


def _record_steps(keys: Keys, target: QueueKeys, tasks: Sequence[Departure]) -> RequestPlan[None]:
    """Record the new queue of steps in their workflows, so that the dispatcher and cancellations find the steps."""
    by_home: dict[QueueKeys, set[str]] = {}
    for task in tasks:
        key = task.fields.get(b"taskq_step", b"").decode("utf-8", "surrogateescape").split(" ", 3)[3:]
        home = keys.home_of(key[0]) if key else None
        if home is not None and home.name != target.name:
            by_home.setdefault(home, set()).add(key[0])
    for home, workflow_keys in by_home.items():
        for workflow_id in (yield from ask(dispatch.record_target(home, sorted(workflow_keys), target=target.name))):
            yield from ask(workflows.revoke_steps(target, workflow_id))


def _addressed(task: Departure, queue: QueueKeys, target: QueueKeys) -> tuple[Departure, str]:
    """Return a task with its message changed for the other queue, and its unique lock, which moves too, or ""."""
    message = decode_message(task.fields[b"msg"])
    changed = TaskMessage()
    changed.CopyFrom(message)
    changed.queue = target.name
    fields = {name: value for name, value in task.fields.items() if name not in _LEFT_BEHIND}
    lock = ""
    if queue.is_lock(message.unique_key):
        lock = target.unique_prefix + message.unique_key.removeprefix(queue.unique_prefix)
        fields[b"unique_key"] = lock.encode()
    else:
        fields.pop(b"unique_key", None)  # a key that is not a lock of this queue is dropped
    changed.unique_key = lock
    fields[b"msg"] = encode_message(changed)
    return replace(task, fields=fields), lock if task.lock_ms is not None else ""
