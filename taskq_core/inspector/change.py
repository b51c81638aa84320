"""Change one task, or whether a queue is paused.

What is refused has changed nothing. None of these calls is repeated by itself when the store does not answer, but for
those that a repeat finds done: a `BrokerUnavailableError` with `may_have_happened` says that it is not known.
"""

from datetime import datetime

from taskq_core.broker import operations
from taskq_core.broker.operations import OK, Action, Refusal
from taskq_core.errors import (
    ConfigurationError,
    DuplicateTaskError,
    QueueNotPausedError,
    QueuePausedError,
    TaskActiveError,
    TaskNotFoundError,
    TaskStateError,
)
from taskq_core.inspector.known import check_text, known_queue
from taskq_core.inspector.look import find
from taskq_core.settings import ArchiveLimits, Duration, seconds
from taskq_core.steps import Steps, ask
from taskq_core.wire import Keys, QueueKeys, TaskMessage, TaskState, decode_message, encode_message

PAYLOAD_MAX = 16 * 1024 * 1024
"""Most bytes of a payload, as for an enqueue."""
_ATTEMPTS = 5


def refusal(queue: str, task_id: str, answer: str, *, doing: str) -> Exception:
    """Return the error for what Redis answered instead of doing it."""
    if answer == Refusal.NOT_FOUND:
        return TaskNotFoundError(queue, task_id)
    if answer == Refusal.MOVING:
        return TaskStateError(queue, task_id, "moving", "it is on its way to another queue; finish_moves ends its way")
    if answer == Refusal.LOST:
        return TaskStateError(queue, task_id, "lost", "it is not where its state says; reconcile repairs that")
    if answer == TaskState.ACTIVE:
        return TaskActiveError(queue, task_id, answer, f"a task that runs cannot be {doing}; cancel it first")
    reason = {
        TaskState.PENDING: "it waits to be run already",
        TaskState.ARCHIVED: "it is archived already",
        TaskState.COMPLETED: "it has succeeded and does not wait",
        TaskState.AGGREGATING: "its group is being turned into one task",
    }
    return TaskStateError(queue, task_id, answer, reason.get(TaskState(answer), f"it cannot be {doing}"))


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
) -> Steps[None]:
    """Run, archive, delete or put off one task."""
    check_text("task_id", task_id)
    queue = yield from known_queue(keys, name)
    operation = operations.act(
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


def start_of(at: datetime | None, after: Duration | None) -> tuple[int | None, int]:
    """Return the Unix second, or the milliseconds from now, until which a task is to wait."""
    if (at is None) == (after is None):
        raise ConfigurationError("a retry needs either at= or after=")
    if at is None:
        return None, int(seconds("after", after) * 1000)
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise ConfigurationError(f"at must be a datetime with a time zone, got {at!r}")
    return -int(-at.timestamp() // 1), 0  # never early


def retry_task(
    keys: Keys, name: str, task_id: str, *, at: datetime | None, after: Duration | None, archive: ArchiveLimits
) -> Steps[None]:
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
) -> Steps[None]:
    """Replace the payload of a task that waits, if it is the one that is expected; its unique lock follows."""
    check_text("task_id", task_id)
    if not isinstance(payload, bytes):
        raise ConfigurationError(f"payload must be bytes, got {type(payload).__name__}")
    if expected is not None and not isinstance(expected, bytes):
        raise ConfigurationError(f"expected must be bytes, got {type(expected).__name__}")
    if len(payload) > PAYLOAD_MAX:
        raise ConfigurationError(f"payload must be at most {PAYLOAD_MAX} bytes, got {len(payload)}")
    queue = yield from known_queue(keys, name)
    for _ in range(_ATTEMPTS):
        stored = yield from find(keys, name, task_id)
        message = decode_message(stored.message)
        if expected is not None and message.payload != expected:
            raise TaskStateError(name, task_id, str(stored.state), "its payload is another by now")
        changed = TaskMessage()
        changed.CopyFrom(message)
        changed.payload = payload
        if message.unique_key:
            changed.unique_key = queue.unique(message.type, payload)
        operation = operations.rewrite(
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


def pause(keys: Keys, name: str) -> Steps[None]:
    """Keep workers from taking tasks of a queue."""
    queue: QueueKeys = yield from known_queue(keys, name)
    if not (yield from ask(operations.pause(queue))):
        raise QueuePausedError(name)


def resume(keys: Keys, name: str) -> Steps[None]:
    """Let workers take tasks of a queue again."""
    queue: QueueKeys = yield from known_queue(keys, name)
    if not (yield from ask(operations.resume(queue))):
        raise QueueNotPausedError(name)
