"""Change one task, or whether a queue is paused.

What is refused has changed nothing. None of these calls is repeated by itself when the store does not answer, but for
those that a repeat finds done: a `BrokerUnavailableError`, or a `BrokerAuthenticationError` that ended a script
half-way, with `may_have_happened` says that it is not known.
"""

from datetime import datetime

from taskq_core.broker.operations import actions
from taskq_core.broker.operations.actions import OK, Action, Refusal
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import (
    DuplicateTaskError,
    QueueNotPausedError,
    QueuePausedError,
    TaskStateError,
)
from taskq_core.handles import changing
from taskq_core.handles.changing import check_payload, refusal, start_of, with_payload
from taskq_core.inspector.known import check_text, known_queue
from taskq_core.inspector.look import find
from taskq_core.settings import ArchiveLimits, Duration
from taskq_core.wire import Keys, QueueKeys, decode_message, encode_message

_ATTEMPTS = 5


def act(
    keys: Keys,
    name: str,
    task_id: str,
    action: Action,
    *,
    doing: str,
    archive: ArchiveLimits,
    start_at_s: int | None = None,
    start_in_ms: int = 0,
) -> RequestPlan[None]:
    """Run, archive, delete or put off one task."""
    check_text("task_id", task_id)
    queue = yield from known_queue(keys, name)
    operation = actions.act(
        queue,
        action,
        (task_id,),
        archive=archive,
        start_at_s=start_at_s,
        start_in_ms=start_in_ms,
        repeatable=action is Action.WAIT,
    )
    (answer,) = yield from ask(operation)
    if answer != OK:
        raise refusal(name, task_id, answer, doing=doing)


def retry_task(
    keys: Keys, name: str, task_id: str, *, at: datetime | None, after: Duration | None, archive: ArchiveLimits
) -> RequestPlan[None]:
    """Let a task wait until another time."""
    start_at_s, start_in_ms = start_of(at, after)
    yield from act(
        keys,
        name,
        task_id,
        Action.WAIT,
        doing="put off",
        archive=archive,
        start_at_s=start_at_s,
        start_in_ms=start_in_ms,
    )


def update_payload(
    keys: Keys, name: str, task_id: str, payload: bytes, *, expected: bytes | None = None
) -> RequestPlan[None]:
    """Replace the payload of a task that waits, if it is the one that is expected; its unique lock follows."""
    check_text("task_id", task_id)
    check_payload(payload, expected)
    queue = yield from known_queue(keys, name)
    for _ in range(_ATTEMPTS):
        stored = yield from find(keys, name, task_id)
        message = decode_message(stored.message)
        if expected is not None and message.payload != expected:
            raise TaskStateError(name, task_id, str(stored.state), "its payload is another by now")
        changed = with_payload(queue, message, payload, stored.unique_rule)
        operation = actions.rewrite(
            queue,
            task_id,
            old=stored.message,
            new=encode_message(changed),
            old_lock=message.unique_key,
            new_lock=changed.unique_key,
        )
        answer = yield from ask(operation)
        if answer == OK:
            return
        if answer == Refusal.DUPLICATE:
            raise DuplicateTaskError(message.type, name, task_id)
        if answer != Refusal.CHANGED:
            raise refusal(name, task_id, answer, doing="changed")
    raise TaskStateError(name, task_id, str(stored.state), "others keep changing it; try again")


def reschedule(
    keys: Keys, name: str, task_id: str, *, at: datetime | None, after: Duration | None, payload: bytes | None
) -> RequestPlan[None]:
    """Let a task wait until another time, with another payload if one is given."""
    check_text("task_id", task_id)
    queue = yield from known_queue(keys, name)
    yield from changing.reschedule(queue, task_id, at=at, after=after, payload=payload)


def pause(keys: Keys, name: str) -> RequestPlan[None]:
    """Keep workers from taking tasks of a queue."""
    queue: QueueKeys = yield from known_queue(keys, name)
    if not (yield from ask(actions.pause(queue))):
        raise QueuePausedError(name)


def resume(keys: Keys, name: str) -> RequestPlan[None]:
    """Let workers take tasks of a queue again."""
    queue: QueueKeys = yield from known_queue(keys, name)
    if not (yield from ask(actions.resume(queue))):
        raise QueueNotPausedError(name)
