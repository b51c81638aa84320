"""Move tasks to another queue: archive the original, enqueue a copy with the same id, delete the original.

The queues are on different slots of a cluster, so one script cannot change both. Each step is one script:

1. `copy_out` archives the tasks, so that they cannot run, and records the copy in each of them.
2. `deliver` stores the copies in the other queue, each with a receipt under the name that step 1 recorded.
3. `copy_end` deletes the originals.

If the move is interrupted, the original stays archived, and its last error names the other queue. The same move again
continues it. The receipt prevents a second copy, even if the copy has run and was deleted. The original can also be
deleted, once no caller can send its copy any more.

If the other queue refuses a copy, because its id or its unique lock is taken, the original returns to its old state.
The same happens if the other queue is unavailable and has certainly not stored the copy.
"""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

from taskq_core.broker.operations import actions, dispatch, new_tasks, outbox, workflows
from taskq_core.broker.operations.actions import CLAIM_S, OK, Original
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot, StoreCode
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import BrokerError, BrokerUnavailableError, WireFormatError
from taskq_core.wire import Keys, QueueKeys, TaskMessage, TaskState, decode_message, encode_message
from taskq_core.wire.uniqueness import digest, names_in

_OF_A_NEW_TASK = ("msg", "state", "pending_since", "group", "unique_key", "taskq_unique", "taskq_group", "taskq_limit")
_OF_THE_ORIGINAL = ("copied", "permit", "line", "wait", "owner", "started", "begun", "cancel", "oversized")
_LEFT_BEHIND = {name.encode() for name in (*_OF_A_NEW_TASK, "result", *(f"taskq_{name}" for name in _OF_THE_ORIGINAL))}
"""Fields of a task that its copy does not get, or gets from `NewTask`."""
_NO_EXPIRY_S = 10**10

Code = str | WireFormatError
"""Result for a task: a `StoreCode`, or an error if the task's message cannot be changed for the other queue."""


def move(
    keys: Keys,
    queue: QueueKeys,
    target: QueueKeys,
    ids: Sequence[str],
    *,
    state: TaskState | None,
    payload: bytes | None = None,
    generations: Mapping[str, str] = MappingProxyType({}),
) -> RequestPlan[list[tuple[Original, Code | None]]]:
    """Move at most `BATCH_MAX` tasks, with another payload if one is given. `generations` has the generations by id.

    For each task, return the result of step 1 and, if the task was archived, the result of step 2.
    """
    slot = ReceiptSlot(secrets.token_hex(8))
    ends: list[tuple[Original, Code | None]] = []
    while ids:
        step = actions.copy_out(queue, ids, token=slot.token, target=target.name, state=state, generations=generations)
        now_s, originals = yield from ask(step)
        archived = [each for each in originals if each.answer == OK]
        codes = yield from _copy(keys, queue, target, archived, slot, now_s, payload)
        ends += [(each, codes.get(each.task_id)) for each in originals]
        ids = ids[len(originals) :]
    return ends


def _copy(
    keys: Keys,
    queue: QueueKeys,
    target: QueueKeys,
    tasks: Sequence[Original],
    slot: ReceiptSlot,
    now_s: int,
    payload: bytes | None,
) -> RequestPlan[dict[str, Code]]:
    """Execute steps 2 and 3 of the move for tasks that were archived at `now_s`, or whose move is continued."""
    codes: dict[str, Code] = {}
    rows: dict[str, tuple[str, NewTask]] = {}
    for task in tasks:
        try:
            rows[task.task_id] = (task.receipt, _copy_of(task, queue, target, now_s, payload))
        except (WireFormatError, ValueError) as error:
            codes[task.task_id] = WireFormatError(str(error))
    if rows:
        is_sent = False
        try:
            yield from ask(new_tasks.register_queue(keys.queues, (target.name,)))
            yield from _record_steps(keys, target, tasks)
            is_sent = True
            ends_ms = (now_s + CLAIM_S) * 1000
            step = outbox.deliver(target, list(rows.values()), slot, claim_ends_ms=ends_ms)
            codes |= dict(zip(rows, (yield from ask(step)), strict=True))
        except BrokerError as error:
            # Put back only the tasks that this call has archived. A copy that an earlier call sent may be stored.
            back = [task for task in tasks if task.copy == slot.token]
            if not (is_sent and error.may_have_happened):
                yield from ask(actions.copy_end(queue, token=slot.token, target=target.name, copied=(), back=back))
            raise
        if StoreCode.TOO_LATE in codes.values():
            raise BrokerUnavailableError(
                f"moving tasks to {target.name!r} took too long; repeat the move to complete it"
            )
    copied = [task for task in tasks if codes[task.task_id] in (StoreCode.STORED, StoreCode.STORED_BEFORE)]
    back = [task for task in tasks if task not in copied]
    if tasks:
        end = actions.copy_end(queue, token=slot.token, target=target.name, copied=copied, back=back)
        ended_s, _ = yield from ask(end)
        if copied:
            # A caller that has read an original before its deletion may send the copy until `CLAIM_S` later.
            receipts = [task.receipt for task in copied]
            with suppress(BrokerError):  # the move is complete: the receipts then expire later
                yield from ask(outbox.expire_deliveries(target, receipts, at_s=ended_s + 2 * CLAIM_S))
    return codes


def _record_steps(keys: Keys, target: QueueKeys, tasks: Sequence[Original]) -> RequestPlan[None]:
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


def with_payload(queue: QueueKeys, message: TaskMessage, payload: bytes, unique_rule: str) -> TaskMessage:
    """Return a message with another payload, and with the unique lock for that payload."""
    changed = TaskMessage()
    changed.CopyFrom(message)
    changed.payload = payload
    if queue.is_lock(message.unique_key):
        changed.unique_key = queue.lock(message.type, digest(payload, names_in(unique_rule)))
    else:
        changed.unique_key = ""
    return changed


def _copy_of(task: Original, queue: QueueKeys, target: QueueKeys, now_s: int, payload: bytes | None = None) -> NewTask:
    """Return the copy of a task for the other queue, with its unique lock, limits, priority and place in a workflow.

    A lock with a rule is taken anew. A lock as Asynq's is held for the rest of its time.
    """
    fields, message = task.fields, TaskMessage()
    message.CopyFrom(decode_message(fields[b"msg"]))
    rule, lock = fields.get(b"taskq_unique", b"").decode(), ""
    if payload is not None:
        message = with_payload(queue, message, payload, rule)
    if queue.is_lock(message.unique_key) and (rule or task.lock_ms is not None):
        lock = target.unique_prefix + message.unique_key.removeprefix(queue.unique_prefix)
    message.queue, message.unique_key = target.name, lock
    start_s = (
        int(min(float(task.score), _NO_EXPIRY_S)) if task.state in (TaskState.SCHEDULED, TaskState.RETRY) else None
    )
    priority = fields.get(b"taskq_priority", b"").decode()
    if rule:
        seconds, colon, names = rule[1:].partition(":")
        unique_s, unique_rule = int(seconds), f"{rule[0]}d{colon}{names}"
    else:
        left_s = _NO_EXPIRY_S if task.lock_ms == -1 else -(-(task.lock_ms or 0) // 1000)
        unique_s, unique_rule = left_s - max(0, (start_s or 0) - now_s), ""
    return NewTask(
        task.task_id,
        encode_message(message),
        start_at_s=start_s,
        unique_key=lock,
        unique_s=unique_s,
        unique_rule=unique_rule,
        group=(fields.get(b"group") or fields.get(b"taskq_group", b"")).decode("utf-8", "surrogateescape"),
        limit=fields.get(b"taskq_limit", b"").decode("utf-8", "surrogateescape"),
        marks=f"p{priority};" if priority else "",
        fields={name: value for name, value in fields.items() if name not in _LEFT_BEHIND},
    )
