"""Request plans that cancel a task, reschedule it, or move it to another queue.

Handles and inspectors execute these plans. If a change is refused, nothing was written.
"""

from contextlib import suppress
from datetime import datetime

from taskq_core.broker.operations import actions, services, steps, views
from taskq_core.broker.operations.actions import OK, Action, Refusal
from taskq_core.broker.operations.new_tasks import StoreCode
from taskq_core.broker.operations.operation import Confirmation
from taskq_core.broker.operations.services import CancelOutcome
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
    WorkflowNotFoundError,
)
from taskq_core.handles import workflow_plans
from taskq_core.handles.copying import move, with_payload
from taskq_core.settings import ArchiveLimits, Duration, seconds
from taskq_core.wire import Keys, QueueKeys, TaskState, decode_message, encode_message

NO_TASK = "-"
"""Generation of a task that does not exist. A request with it finds no task."""
PAYLOAD_MAX = 16 * 1024 * 1024
"""Maximum size of a new payload in bytes, the same as for an enqueue."""
_UNTRIMMED = ArchiveLimits(max_tasks=10**12, kept_s=10**10)
"""Archive limits for handles. They trim nothing, because a handle does not have the setting `ARCHIVE`. Workers trim
archives."""
_ATTEMPTS = 5


def refusal(queue: str, task_id: str, answer: str, *, doing: str) -> Exception:
    """Return the error for a change that a script refused with `answer`.

    `doing` names the change in the error message, for example "cancelled".
    """
    if answer == Refusal.NOT_FOUND:
        return TaskNotFoundError(queue, task_id)
    if answer == Refusal.COPIED:
        problem = (
            "the task is being copied to another queue, which its last error names; move it there again to finish, "
            "or delete it if it was archived more than two minutes ago"
        )
        return TaskStateError(queue, task_id, "copied", problem)
    if answer == Refusal.STEPS:
        problem = "the task has stored steps, signals or a position, which stay in its queue"
        return TaskStateError(queue, task_id, "steps", problem)
    if answer == Refusal.LARGE:
        problem = "the message of the task is too large to be moved"
        return TaskStateError(queue, task_id, "large", problem)
    if answer == Refusal.LOST:
        problem = "the task is missing in the list of its state; run reconcile to repair it"
        return TaskStateError(queue, task_id, "lost", problem)
    if answer == TaskState.ACTIVE:
        return TaskActiveError(queue, task_id, answer, f"a task that runs cannot be {doing}; cancel it first")
    reason = {
        TaskState.PENDING: "the task is already pending",
        TaskState.ARCHIVED: "the task is already archived",
        TaskState.COMPLETED: "the task has succeeded and does not wait",
        TaskState.AGGREGATING: "a worker is combining its group into one task",
    }
    return TaskStateError(queue, task_id, answer, reason.get(TaskState(answer), f"the task cannot be {doing}"))


def identify(queue: QueueKeys, task_id: str, generation: str = "") -> RequestPlan[str]:
    """Return the generation of the task that a request is for: the one that the caller has seen, else the present one.

    Every request to a task contains its generation, so that it changes no later task with the same id if it arrives
    late. If the task does not exist, the returned generation belongs to no task.
    """
    if not generation:
        (generation,) = yield from ask(actions.identify(queue, (task_id,)))
    return generation


def start_of(at: datetime | None, after: Duration | None, *, what: str = "a retry") -> str:
    """Check `at` or `after`, and return the new start of a task in the format that `actions.act` expects."""
    if (at is None) == (after is None):
        raise ConfigurationError(f"{what} needs either at= or after=")
    if at is None:
        return f"+{int(seconds('after', after) * 1000)}"
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise ConfigurationError(f"at must be a datetime with a time zone, got {at!r}")
    return f"={-int(-at.timestamp() // 1)}"  # rounded up, so that the task never starts early


def check_payload(payload: object, expected: object = None) -> None:
    """Check the type and the size of a payload."""
    if not isinstance(payload, bytes):
        raise ConfigurationError(f"payload must be bytes, got {type(payload).__name__}")
    if expected is not None and not isinstance(expected, bytes):
        raise ConfigurationError(f"the argument expected must be bytes, got {type(expected).__name__}")
    if len(payload) > PAYLOAD_MAX:
        raise ConfigurationError(f"payload must be at most {PAYLOAD_MAX} bytes, got {len(payload)}")


def reschedule(
    queue: QueueKeys,
    task_id: str,
    *,
    at: datetime | None,
    after: Duration | None,
    payload: bytes | None = None,
    generation: RequestPlan[str],
    confirm: Confirmation | None = None,
) -> RequestPlan[None]:
    """Change the start of a task, and its payload if one is given, in one step.

    Args:
        queue: Queue of the task.
        task_id: Id of the task, which does not change.
        at: The new start, with a time zone.
        after: Time from now, instead of `at`.
        payload: New payload of the task. None does not change it.
        generation: Returns the generation of the task, see `identify`.
        confirm: Replicas or disks that must have the change.
    """
    start = start_of(at, after, what="another time")
    if payload is not None:
        check_payload(payload)
        yield from replace_payload(
            queue, task_id, payload, start=start, doing="rescheduled", generation=generation, confirm=confirm
        )
        return
    change = actions.change_task(queue, task_id, start=start, generation=(yield from generation), confirm=confirm)
    answer = yield from ask(change)
    if answer != OK:
        raise refusal(queue.name, task_id, answer, doing="rescheduled")


def replace_payload(
    queue: QueueKeys,
    task_id: str,
    payload: bytes,
    *,
    start: str = "",
    doing: str,
    generation: RequestPlan[str],
    expected: bytes | None = None,
    confirm: Confirmation | None = None,
) -> RequestPlan[None]:
    """Replace the payload of a task and its unique lock. If the task changes at the same time, read it and try again.

    Args:
        queue: Queue of the task.
        task_id: Id of the task.
        payload: The new payload, checked by `check_payload`.
        start: New start of the task in the form of `actions.act`, "" to keep the old start.
        doing: Name of the change for error messages, such as "changed".
        generation: Returns the generation of the task, see `identify`.
        expected: The payload that the caller read before. If the stored payload differs, nothing is changed.
        confirm: Replicas or disks that must have the change.
    """
    seen = yield from generation
    for _ in range(_ATTEMPTS):
        stored: StoredTask | None = yield from ask(views.read_task(queue, task_id))
        if stored is None:
            raise TaskNotFoundError(queue.name, task_id)
        message = decode_message(stored.message)
        if expected is not None and message.payload != expected:
            raise TaskStateError(queue.name, task_id, str(stored.state), "the payload has changed since it was read")
        changed = with_payload(queue, message, payload, stored.unique_rule)
        answer = yield from ask(
            actions.change_task(
                queue,
                task_id,
                start=start,
                old=stored.message,
                new=encode_message(changed),
                old_lock=message.unique_key,
                new_lock=changed.unique_key,
                generation=seen,
                confirm=confirm,
            )
        )
        if answer == OK:
            return
        if answer == Refusal.DUPLICATE:
            holder = yield from ask(actions.read_lock(changed.unique_key))
            raise DuplicateTaskError(message.type, queue.name, task_id, existing_id=holder)
        if answer != Refusal.CHANGED:
            raise refusal(queue.name, task_id, answer, doing=doing)
    raise TaskStateError(queue.name, task_id, "changing", "other clients keep changing the task; try again")


def move_one(
    keys: Keys,
    queue: QueueKeys,
    target: QueueKeys,
    task_id: str,
    *,
    payload: bytes | None = None,
    generation: RequestPlan[str],
) -> RequestPlan[None]:
    """Move one task to another queue, with another payload if one is given."""
    if payload is not None:
        check_payload(payload)
    generations = {task_id: (yield from generation)}
    moved = yield from move(keys, queue, target, [task_id], state=None, payload=payload, generations=generations)
    ((original, code),) = moved
    if original.answer != OK:
        raise refusal(queue.name, task_id, original.answer, doing="moved")
    if isinstance(code, WireFormatError):
        raise code
    if code not in (StoreCode.STORED, StoreCode.STORED_BEFORE):
        kind = TaskIdConflictError if code == StoreCode.ID_CONFLICT else DuplicateTaskError
        raise kind(decode_message(original.fields[b"msg"]).type, target.name, task_id)


def wish_of(*, retry: bool, keep: bool | None) -> CancelOutcome:
    """Return what the worker must do with a running task after it has cancelled the run: retry, discard or archive."""
    if not isinstance(retry, bool) or not (keep is None or isinstance(keep, bool)):
        raise ConfigurationError(f"retry must be True or False, keep True, False or None; got {retry!r} and {keep!r}")
    if retry:
        if keep is not None:
            raise ConfigurationError(f"keep must not be set together with retry=True, got keep={keep!r}")
        return CancelOutcome.RETRY
    return CancelOutcome.DISCARD if keep is False else CancelOutcome.ARCHIVE


def cancel(
    keys: Keys,
    queue: QueueKeys,
    task_id: str,
    *,
    retry: bool,
    keep: bool | None,
    children: bool = False,
    generation: RequestPlan[str],
) -> RequestPlan[bool]:
    """Cancel a task and return whether that was possible. See `TaskHandle.cancel`."""
    wish = wish_of(retry=retry, keep=keep)
    workflows = set((yield from ask_children(queue, task_id)) if children else ())
    is_cancelled = yield from _cancel(keys, queue, task_id, wish, keep, (yield from generation))
    if children and is_cancelled:  # ask again: the running task may have enqueued more sub-tasks
        workflows.update((yield from ask_children(queue, task_id)))
    for workflow_id in workflows if is_cancelled else ():
        with suppress(WorkflowNotFoundError):
            yield from workflow_plans.ask_cancel(keys, queue.name, workflow_id)
    return is_cancelled


def delete(queue: QueueKeys, task_id: str, *, generation: RequestPlan[str]) -> RequestPlan[bool]:
    """Delete a task that waits or has ended, and return whether that was possible. See `TaskHandle.delete`."""
    seen = yield from generation
    answer = yield from ask(actions.revoke(queue, task_id, generation=seen))
    if answer in (TaskState.ARCHIVED, TaskState.COMPLETED):
        (answer,) = yield from ask(actions.act(queue, Action.DELETE, (task_id,), generations={task_id: seen}))
    return answer == OK


def ask_children(queue: QueueKeys, task_id: str) -> RequestPlan[list[str]]:
    """Return the ids of the workflows of a task's sub-tasks."""
    record = yield from ask(steps.read_steps(queue, task_id))
    return [value.decode().partition(" ")[2] for field, value in record.items() if field.startswith("c:")]


def _cancel(
    keys: Keys, queue: QueueKeys, task_id: str, wish: CancelOutcome, keep: bool | None, generation: str
) -> RequestPlan[bool]:
    if wish is not CancelOutcome.RETRY:
        if (yield from ask(steps.cancel_steps(queue, task_id, wish=wish.value, generation=generation))):
            return True
        if keep:
            archive = actions.act(
                queue, Action.CANCEL, (task_id,), generations={task_id: generation}, archive=_UNTRIMMED
            )
            (answer,) = yield from ask(archive)
        else:
            answer = yield from ask(actions.revoke(queue, task_id, generation=generation))
        if answer != TaskState.ACTIVE:
            return answer == OK
    request = services.ask_cancel(queue, keys.cancel, task_id, wish, generation=generation)
    state, _receivers = yield from ask(request)
    return state == TaskState.ACTIVE
