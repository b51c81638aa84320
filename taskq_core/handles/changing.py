"""Change one task that was enqueued: cancel it, let it wait until another time, bring it to another queue.

Handles and inspectors execute these request plans. A refused change has written nothing.
"""

from collections.abc import Callable
from datetime import datetime

from taskq_core.broker.operations import actions, services, views
from taskq_core.broker.operations.actions import OK, Action, ArrivalCode, Refusal
from taskq_core.broker.operations.services import CancelWish
from taskq_core.broker.operations.views import StoredTask
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import (
    ConfigurationError,
    DuplicateTaskError,
    TaskActiveError,
    TaskIdConflictError,
    TaskNotFoundError,
    TaskStateError,
    WireFormatError,
)
from taskq_core.handles.moving import move
from taskq_core.settings import ArchiveLimits, Duration, seconds
from taskq_core.wire import Keys, QueueKeys, TaskMessage, TaskState, decode_message, encode_message
from taskq_core.wire.uniqueness import digest, names_in

PAYLOAD_MAX = 16 * 1024 * 1024
"""Most bytes of a payload, as for an enqueue."""
CANCELLABLE = (TaskState.PENDING, TaskState.SCHEDULED, TaskState.RETRY, TaskState.AGGREGATING)
"""States in which a task can be cancelled for good."""
_UNTRIMMED = ArchiveLimits(max_tasks=10**12, kept_s=10**10)
"""A handle does not know how much of the archive is kept; workers see to that."""
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


def start_of(at: datetime | None, after: Duration | None, *, what: str = "a retry") -> tuple[int | None, int]:
    """Return the Unix second, or the milliseconds from now, until which a task is to wait."""
    if (at is None) == (after is None):
        raise ConfigurationError(f"{what} needs either at= or after=")
    if at is None:
        return None, int(seconds("after", after) * 1000)
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise ConfigurationError(f"at must be a datetime with a time zone, got {at!r}")
    return -int(-at.timestamp() // 1), 0  # never early


def check_payload(payload: object, expected: object = None) -> None:
    """Refuse a payload that no task can have."""
    if not isinstance(payload, bytes):
        raise ConfigurationError(f"payload must be bytes, got {type(payload).__name__}")
    if expected is not None and not isinstance(expected, bytes):
        raise ConfigurationError(f"expected must be bytes, got {type(expected).__name__}")
    if len(payload) > PAYLOAD_MAX:
        raise ConfigurationError(f"payload must be at most {PAYLOAD_MAX} bytes, got {len(payload)}")


def with_payload(queue: QueueKeys, message: TaskMessage, payload: bytes, unique_rule: str) -> TaskMessage:
    """Return a message with another payload, and the unique lock that goes with it by the rule of its task."""
    changed = TaskMessage()
    changed.CopyFrom(message)
    changed.payload = payload
    if queue.is_lock(message.unique_key):
        changed.unique_key = queue.lock(message.type, digest(payload, names_in(unique_rule)))
    else:
        changed.unique_key = ""
    return changed


def reschedule(
    queue: QueueKeys,
    task_id: str,
    *,
    at: datetime | None,
    after: Duration | None,
    payload: bytes | None = None,
    check: Callable[[TaskMessage], None] = lambda message: None,
) -> RequestPlan[None]:
    """Let a task wait until another time, with another payload if one is given, in one step.

    Args:
        queue: Its queue.
        task_id: Its id, which it keeps.
        at: When it may run, with a time zone.
        after: How long from now, instead of `at`.
        payload: Its new payload, None leaves it as it is.
        check: Refuses what the payload does not fit, by raising.
    """
    start_at_s, start_in_ms = start_of(at, after, what="another time")
    if payload is None:
        answer = yield from ask(actions.reschedule(queue, task_id, start_at_s=start_at_s, start_in_ms=start_in_ms))
        if answer != OK:
            raise refusal(queue.name, task_id, answer, doing="rescheduled")
        return
    check_payload(payload)
    for _ in range(_ATTEMPTS):
        stored: StoredTask | None = yield from ask(views.look(queue, task_id))
        if stored is None:
            raise TaskNotFoundError(queue.name, task_id)
        message = decode_message(stored.message)
        check(message)
        changed = with_payload(queue, message, payload, stored.unique_rule)
        operation = actions.reschedule(
            queue,
            task_id,
            start_at_s=start_at_s,
            start_in_ms=start_in_ms,
            old=stored.message,
            new=encode_message(changed),
            old_lock=message.unique_key,
            new_lock=changed.unique_key,
        )
        answer = yield from ask(operation)
        if answer == OK:
            return
        if answer == Refusal.DUPLICATE:
            raise DuplicateTaskError(message.type, queue.name, task_id)
        if answer != Refusal.CHANGED:
            raise refusal(queue.name, task_id, answer, doing="rescheduled")
    raise TaskStateError(queue.name, task_id, answer, "others keep changing it; try again")


def move_one(keys: Keys, queue: QueueKeys, target: QueueKeys, task_id: str) -> RequestPlan[None]:
    """Move one task that does not run to another queue."""
    ((departure, code),) = yield from move(keys, queue, target, [task_id], state=None)
    if departure.answer != OK:
        raise refusal(queue.name, task_id, departure.answer, doing="moved")
    if isinstance(code, WireFormatError):
        raise code
    if code != ArrivalCode.ARRIVED:
        kind = TaskIdConflictError if code == ArrivalCode.ID_CONFLICT else DuplicateTaskError
        raise kind(decode_message(departure.fields[b"msg"]).type, target.name, task_id)


def wish_of(*, retry: bool, keep: bool | None) -> CancelWish:
    """Return what is to become of a task that runs when it is cancelled."""
    if not isinstance(retry, bool) or not (keep is None or isinstance(keep, bool)):
        raise ConfigurationError(f"retry must be True or False, and keep may be None too, got {retry!r} and {keep!r}")
    if retry:
        if keep is not None:
            raise ConfigurationError(f"keep says what becomes of a task that is not retried, got keep={keep!r}")
        return CancelWish.RETRY
    return CancelWish.DISCARD if keep is False else CancelWish.ARCHIVE


def cancel(keys: Keys, queue: QueueKeys, task_id: str, *, retry: bool, keep: bool | None) -> RequestPlan[bool]:
    """Cancel a task; return whether there was anything to cancel, as `TaskHandle.cancel`."""
    wish = wish_of(retry=retry, keep=keep)
    if not retry:
        if keep:
            (answer,) = yield from ask(actions.act(queue, Action.CANCEL, (task_id,), archive=_UNTRIMMED))
            if answer in (OK, Refusal.NOT_FOUND) or answer != TaskState.ACTIVE:
                return answer == OK
        else:
            state = yield from ask(views.revoke(queue, task_id))
            if state is not TaskState.ACTIVE:
                return state in CANCELLABLE
    if (yield from ask(services.ask_cancel(queue, task_id, wish))) != TaskState.ACTIVE:
        return False
    yield from ask(services.cancel(keys.cancel, task_id))
    return True
