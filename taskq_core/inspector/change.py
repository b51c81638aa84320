"""Change one task, or pause and resume a queue.

If Redis refuses a change, nothing was changed. If Redis does not answer, a request is repeated only if that is
harmless. `may_have_happened` of a `BrokerUnavailableError` or `BrokerAuthenticationError` is True if the outcome is
unknown.
"""

from datetime import datetime

from taskq_core.app import TaskQ
from taskq_core.broker.operations import actions, steps
from taskq_core.broker.operations.actions import OK, Action
from taskq_core.broker.operations.operation import confirmation
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import (
    ConfigurationError,
    QueueNotPausedError,
    QueuePausedError,
    TaskActiveError,
    TaskNotFoundError,
)
from taskq_core.handles import changing, durable
from taskq_core.handles import questions as answers
from taskq_core.handles.changing import check_payload, identify, refusal, start_of
from taskq_core.inspector.known import check_text, known_queue
from taskq_core.inspector.reading import task
from taskq_core.settings import Duration
from taskq_core.wire import Keys, validate_queue_name


def run_task(app: TaskQ, queue: str, task_id: str, *, generation: str = "") -> RequestPlan[None]:
    """Run a scheduled, retried, aggregating, archived or completed task now.

    Its number of retries is not reset, so an archived task gets one more attempt.

    Args:
        queue: Name of the queue.
        task_id: Id of the task.
        generation: `TaskInfo.generation` of the task that you have read, to change no later task with the same id. "":
            the task that has the id now.

    Raises:
        QueueNotFoundError: No queue has this name.
        TaskNotFoundError: The queue holds no task with this id.
        TaskStateError: The task is pending. `TaskActiveError` if the task is running.
    """
    yield from _act(app, queue, task_id, Action.RUN, generation, doing="run")


def archive_task(app: TaskQ, queue: str, task_id: str, *, generation: str = "") -> RequestPlan[None]:
    """Archive a waiting or completed task. If the archive is over its limits, its oldest tasks are deleted.

    The arguments are those of `run_task`.

    Raises:
        QueueNotFoundError: No queue has this name.
        TaskNotFoundError: The queue holds no task with this id.
        TaskStateError: The task is already archived. `TaskActiveError` if the task is running.
    """
    yield from _act(app, queue, task_id, Action.ARCHIVE, generation, doing="archived")


def delete_task(app: TaskQ, queue: str, task_id: str, *, generation: str = "") -> RequestPlan[None]:
    """Delete a task that is not running, and release its unique lock. The arguments are those of `run_task`.

    Raises:
        QueueNotFoundError: No queue has this name.
        TaskNotFoundError: The queue holds no task with this id.
        TaskActiveError: The task is running.
    """
    yield from _act(app, queue, task_id, Action.DELETE, generation, doing="deleted")


def retry_task(
    app: TaskQ,
    queue: str,
    task_id: str,
    *,
    at: datetime | None = None,
    after: Duration | None = None,
    generation: str = "",
) -> RequestPlan[None]:
    """Schedule a task to run at a new time.

    A scheduled task and a task that waits for a retry keep their state. An archived task will be retried. A pending
    task, a task in a group and a completed task become scheduled. The lifetime of the unique lock does not change.

    Args:
        queue: Name of the queue.
        task_id: Id of the task.
        at: When it may run, with a time zone. Rounded up to whole seconds.
        after: How long from now, instead of `at`.
        generation: As in `run_task`.

    Raises:
        QueueNotFoundError: No queue has this name.
        TaskNotFoundError: The queue holds no task with this id.
        TaskActiveError: The task is running.
        ConfigurationError: Neither or both of `at` and `after` are given, or the time is not valid.
    """
    yield from _act(app, queue, task_id, Action.WAIT, generation, doing="put off", start=start_of(at, after))


def _act(
    app: TaskQ,
    queue: str,
    task_id: str,
    action: Action,
    generation: str,
    *,
    doing: str,
    start: str = "",
) -> RequestPlan[None]:
    check_text("task_id", task_id)
    queue_keys = yield from known_queue(app.runtime.keys, queue)
    generation = yield from identify(queue_keys, task_id, generation)
    operation = actions.act(
        queue_keys,
        action,
        (task_id,),
        generations={task_id: generation},
        archive=app.runtime.settings.archive.limits(queue),
        start=start,
        repeatable=action is Action.WAIT,
    )
    (answer,) = yield from ask(operation)
    if answer != OK:
        raise refusal(queue, task_id, answer, doing=doing)


def update_payload(
    keys: Keys,
    queue: str,
    task_id: str,
    payload: bytes,
    *,
    expected: bytes | None = None,
    generation: str = "",
) -> RequestPlan[None]:
    """Replace the payload of a task that waits (pending, scheduled, retry, in a group) or is archived.

    If the task holds a unique lock, that lock is replaced by the lock of the new payload, with the remaining
    lifetime. If another caller changes the task at the same time, neither change is lost.

    Args:
        queue: Name of the queue.
        task_id: Id of the task.
        payload: The new payload: for tasks of taskq, the JSON object of their arguments. At most 16 MiB.
        expected: The payload that was read before. If the stored payload differs, nothing is changed.
        generation: As in `run_task`.

    Raises:
        QueueNotFoundError: No queue has this name.
        TaskNotFoundError: The queue holds no task with this id.
        TaskStateError: The task has succeeded, its group is being aggregated, or its payload is not `expected`.
            `TaskActiveError` if the task is running.
        DuplicateTaskError: Another task holds the unique lock of the new payload.
        WireFormatError: The stored task cannot be read.
        ConfigurationError: The payload is not bytes, or is too large.
    """
    check_text("task_id", task_id)
    check_payload(payload, expected)
    queue_keys = yield from known_queue(keys, queue)
    yield from changing.replace_payload(
        queue_keys,
        task_id,
        payload,
        doing="changed",
        generation=identify(queue_keys, task_id, generation),
        expected=expected,
    )


def reschedule_task(
    keys: Keys,
    queue: str,
    task_id: str,
    *,
    at: datetime | None = None,
    after: Duration | None = None,
    payload: bytes | None = None,
    generation: str = "",
) -> RequestPlan[None]:
    """Schedule a task to run at a new time and replace its payload, in one atomic step. The task keeps its id.

    This is `retry_task` and `update_payload` in one step: no reader sees only one of the changes, and no worker takes
    the task between them. A completed task is refused.

    Args:
        queue: Name of the queue.
        task_id: Id of the task.
        at: When it may run, with a time zone. Rounded up to whole seconds.
        after: How long from now, instead of `at`.
        payload: The new payload, at most 16 MiB. None does not change it.
        generation: As in `run_task`.

    Raises:
        QueueNotFoundError: No queue has this name.
        TaskNotFoundError: The queue holds no task with this id.
        TaskStateError: The task has succeeded, or its group is being aggregated. `TaskActiveError` if it is running.
        DuplicateTaskError: Another task holds the unique lock of the new payload.
        WireFormatError: The stored task cannot be read.
        ConfigurationError: Neither or both of `at` and `after` are given, or an argument is not valid.
    """
    check_text("task_id", task_id)
    queue_keys = yield from known_queue(keys, queue)
    seen = identify(queue_keys, task_id, generation)
    yield from changing.reschedule(queue_keys, task_id, at=at, after=after, payload=payload, generation=seen)


def signal_task(
    app: TaskQ,
    queue: str,
    task_id: str,
    name: str,
    value: object = None,
    *,
    number: int = 0,
    generation: str = "",
    replicated: bool | int | None = None,
) -> RequestPlan[None]:
    """Send a value to a task, which gets it from `context.receive(name)`.

    If the task already waits for this signal, it is started.

    Args:
        queue: Name of the queue.
        task_id: Id of the task.
        name: Name of the signal, 1 to 100 characters.
        value: A value with a JSON form, at most 1 MiB.
        number: `TaskInfo.wait.number`, to answer only the wait with this number. A second answer to the same wait is
            then refused, instead of being stored for a later wait. 0: send the value in any case.
        generation: As in `run_task`.
        replicated: As in `TaskHandle.signal`.

    Raises:
        QueueNotFoundError: No queue has this name.
        TaskNotFoundError: The queue holds no task with this id.
        TaskStateError: The task has ended, or it no longer waits for the value with this number.
        StepError: The name or the value is not valid, or does not fit the signals that the application's task declares,
            or the task has received too many signals.
        BrokerReplicationError: The value is stored, but was not confirmed in time.
    """
    found = yield from task(app.runtime.keys, queue, task_id)
    known = app.tasks.get(getattr(found, "name", ""))
    declared = {} if known is None else known.options.signals
    queue_keys, confirm = app.runtime.keys.queue(queue), confirmation(replicated, app.confirmation(known))
    seen = identify(queue_keys, task_id, generation or found.generation)
    yield from durable.signal(
        queue_keys, task_id, name, value, declared=declared, number=number, generation=seen, confirm=confirm
    )


def answer_task(
    app: TaskQ,
    queue: str,
    task_id: str,
    number: int,
    value: object,
    *,
    by: str = "",
    generation: str = "",
    replicated: bool | int | None = None,
) -> RequestPlan[None]:
    """Answer one question of a task, which is started. Only the first answer counts.

    Args:
        queue: Name of the queue.
        task_id: Id of the task.
        number: `Question.number`.
        value: The answer. It must fit the schema of the question.
        by: Who answers. The task can read this text.
        generation: `Question.generation`, or as in `run_task`.
        replicated: As in `TaskHandle.signal`.

    Raises:
        QueueNotFoundError: No queue has this name.
        TaskNotFoundError: The queue holds no task with this id.
        TaskStateError: The question was answered, the task no longer waits for it or never asked it, or the task has
            ended.
        StepError: The value does not fit the question, or the task has received too many signals and answers.
        BrokerReplicationError: The answer is stored, but was not confirmed in time.
    """
    found = yield from task(app.runtime.keys, queue, task_id)
    known = app.tasks.get(getattr(found, "name", ""))
    declared = {} if known is None else known.options.signals
    confirm = confirmation(replicated, app.confirmation(known))
    queue_keys, seen = app.runtime.keys.queue(queue), generation or found.generation
    yield from answers.answer(
        queue_keys, task_id, number, value, by=by, declared=declared, generation=seen, confirm=confirm
    )


def forget_step(keys: Keys, queue: str, task_id: str, name: str, *, generation: str = "") -> RequestPlan[bool]:
    """Delete the stored result of a step or of sub-tasks, a received signal, or the position of the loops.

    The next run of the task repeats the step, waits for the signal again, or begins the loops again.

    A task that waits for a later signal of the same name is started.

    Args:
        queue: Name of the queue.
        task_id: Id of the task.
        name: Name of the step, with its number if it has one, such as "fetch#2". The name of a signal always needs a
            number. "iterate" is the position of the loops.
        generation: As in `run_task`.

    Returns:
        Whether the step had a stored result.

    Raises:
        QueueNotFoundError: No queue has this name.
        TaskNotFoundError: The queue holds no task with this id.
        TaskActiveError: The task runs.
    """
    check_text("task_id", task_id)
    check_text("name", name)
    queue_keys = yield from known_queue(keys, queue)
    generation = yield from identify(queue_keys, task_id, generation)
    answer = yield from ask(steps.forget_step(queue_keys, task_id, name, generation=generation))
    if answer == "missing":
        raise TaskNotFoundError(queue, task_id)
    if answer == "active":
        raise TaskActiveError(
            queue, task_id, "active", "the steps of a running task cannot be deleted; cancel it first"
        )
    return answer is True


def pause(keys: Keys, queue: str) -> RequestPlan[None]:
    """Pause a queue: workers, including Go workers, take no more of its tasks. Running tasks finish.

    Scheduled tasks still become pending when they are due, but do not run.

    Raises:
        QueueNotFoundError: No queue has this name.
        QueuePausedError: The queue is already paused.
    """
    queue_keys = yield from known_queue(keys, queue)
    if not (yield from ask(actions.pause(queue_keys))):
        raise QueuePausedError(queue)


def resume(keys: Keys, queue: str) -> RequestPlan[None]:
    """Resume a paused queue: workers take its tasks again.

    Raises:
        QueueNotFoundError: No queue has this name.
        QueueNotPausedError: The queue is not paused.
    """
    queue_keys = yield from known_queue(keys, queue)
    if not (yield from ask(actions.resume(queue_keys))):
        raise QueueNotPausedError(queue)


def move_task(
    keys: Keys, queue: str, task_id: str, to_queue: str, *, payload: bytes | None = None, generation: str = ""
) -> RequestPlan[None]:
    """Move a task to another queue: archive it, enqueue a copy with the same id there, and delete the original.

    A pending, scheduled, retried or aggregating task waits in the other queue for the same time or group. An archived
    task runs again. If the move is interrupted, the original stays archived, its last error names the other queue, and
    it cannot run until the same move is repeated. The repeat makes no second copy, even if the copy has run already.

    Args:
        queue: Name of the queue.
        task_id: Id of the task.
        to_queue: Name of the other queue.
        payload: Payload of the copy. None: the payload of the task.
        generation: As in `run_task`.

    Raises:
        QueueNotFoundError: No queue has this name.
        TaskNotFoundError: The queue holds no task with this id.
        TaskIdConflictError: The other queue has a task with this id. The task was not moved.
        DuplicateTaskError: Another task in the other queue holds the unique lock of the task. The task was not moved.
        TaskStateError: The task has succeeded, or is being moved to a third queue. `TaskActiveError` if it is running.
        WireFormatError: The stored task cannot be read.
        ConfigurationError: The name of the other queue is not valid, or is the same.
    """
    check_text("task_id", task_id)
    check_target(queue, to_queue)
    queue_keys = yield from known_queue(keys, queue)
    seen = identify(queue_keys, task_id, generation)
    yield from changing.move_one(keys, queue_keys, keys.queue(to_queue), task_id, payload=payload, generation=seen)


def check_target(queue: str, to_queue: str) -> None:
    """Check the name of the queue to move tasks to."""
    validate_queue_name(to_queue)
    if to_queue == queue:
        raise ConfigurationError(f"the target queue must differ from {queue!r}")
