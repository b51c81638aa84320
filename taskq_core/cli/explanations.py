"""What each error and warning means, what causes it, and what helps: for `taskq explain` and the page of errors.

Texts are Markdown, their links relative to `docs/reference`. None needs an adapter to be installed.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is to be said of one kind of error or warning.

    Attributes:
        code: Its code, as `TaskQError.code`.
        name: Name of the class, or "" of a warning that is logged only.
        means: What has happened, in a sentence.
        cause: What usually leads to it.
        cure: What to do about it.
    """

    code: str
    name: str
    means: str
    cause: str
    cure: str


@dataclass(frozen=True, slots=True)
class Section:
    """Explanations of one kind, as they stand together on the page.

    Attributes:
        title: What they have in common.
        intro: A sentence on all of them.
        entries: The explanations.
    """

    title: str
    intro: str
    entries: Sequence[Explanation]


SECTIONS: Sequence[Section] = (
    Section(
        "Set up and define",
        "Raised while a program starts, before anything is written.",
        (
            Explanation(
                "configuration",
                "ConfigurationError",
                "A setting, an option or a URL is not usable; also a `ValueError`.",
                "A misspelt key, a value of another kind or out of its bounds, or an environment variable `TASKQ_...` "
                "that is read before the settings.",
                "Correct what the message names; it says what was expected. [Settings](settings.md) and "
                "[task options](task-options.md) list all there are.",
            ),
            Explanation(
                "task-definition",
                "TaskDefinitionError",
                "A function cannot become a task; a `ConfigurationError` and a `TypeError`.",
                "Its signature has a positional-only parameter or one without a JSON form, its name is taken by "
                "another function, or the name is not usable.",
                "Give the parameters types that JSON can carry, or give one of two functions another `name=`. The "
                "message names the function and the parameter.",
            ),
            Explanation(
                "workflow-definition",
                "WorkflowDefinitionError",
                "A workflow cannot be put together so; carries `step` and `problem`; a `ConfigurationError`.",
                "A step waits for one that is not there or for itself, two steps have one name, or a result is asked "
                "for that no step gives.",
                "Correct the step that the message names. Nothing was written. See "
                "[build workflows](../how-to/build-workflows.md).",
            ),
        ),
    ),
    Section(
        "Call a task",
        "Raised where a task is called. Nothing was written, but where the text says otherwise.",
        (
            Explanation(
                "task-arguments",
                "TaskArgumentsError",
                "A call does not fit the task; also a `TypeError`.",
                "An argument is missing, has no parameter, or is of another type than its parameter says: often a "
                "model instance where the parameter has no annotation or says `int`.",
                "Correct the call, or annotate the parameter with the type that is given: in Django with the "
                "[model](../how-to/pass-model-instances.md).",
            ),
            Explanation(
                "payload-too-large",
                "PayloadTooLargeError",
                "The arguments take more than 16 MiB; also a `ValueError`.",
                "A file, a picture or a whole table is given as an argument.",
                "Store the data in a file store or database and give its address or key.",
            ),
            Explanation(
                "mail-content",
                "MailContentError",
                "An e-mail holds what cannot travel to a worker; in `taskq_django.mail`, also a `ValueError`.",
                "An attachment or an alternative that is no text and no bytes, or a message of a class of its own.",
                "[Send it otherwise](../how-to/send-mail.md#what-travels).",
            ),
            Explanation(
                "enqueue",
                "EnqueueError",
                "The task was not enqueued; base of those below, each with `task`, `queue`, `task_id` and `reason`.",
                "Redis refused it or was not reached; `reason` and the cause of the error say why.",
                "Try again, or tell the caller. Where it must not get lost, "
                "[enqueue through the database](../how-to/use-the-outbox.md).",
            ),
            Explanation(
                "duplicate-task",
                "DuplicateTaskError",
                "Another task holds the unique lock; `existing_id` is its id.",
                "The task is [unique](../how-to/keep-tasks-unique.md), and an equal one waits or runs.",
                "Usually nothing: the work is under way. `existing_id` leads to it.",
            ),
            Explanation(
                "task-id-conflict",
                "TaskIdConflictError",
                "The id is taken in this queue.",
                "A call was repeated with the same `task_id`, while the first task is still there or kept.",
                "Usually nothing: the first call succeeded. For other work give another `task_id`.",
            ),
            Explanation(
                "queue-full",
                "QueueFullError",
                "As many tasks are pending as [`LIMITS`](../how-to/limit-a-queue.md) allows; carries `size` and "
                "`limit`.",
                "Producers are quicker than workers, or no worker serves the queue.",
                "Try again later, tell the caller, or run more workers.",
            ),
            Explanation(
                "enqueue-unknown",
                "EnqueueUnknownError",
                "Redis did not answer: the task may or may not be there.",
                "The connection broke, or time ran out, after the request was sent; perhaps its repeat was refused, as "
                "by a new password.",
                "Enqueue again with the same `task_id`: that either succeeds or raises `TaskIdConflictError`.",
            ),
            Explanation(
                "not-replicated",
                "NotReplicatedError",
                "The task is there, but not confirmed as [`replicated` or `fsynced`]"
                "(task-options.md#replicated-and-fsynced) asked; carries `wanted` and `confirmed`.",
                "Replicas are behind or away, or the append-only file is slow or off.",
                "Enqueue the same call again with the same `task_id`: that confirms it. Look after the replicas.",
            ),
            Explanation(
                "bulk-enqueue",
                "BulkEnqueueError",
                "A bulk enqueue stopped half-way; `enqueued` and `task_ids` say what is there and what is in doubt.",
                "Redis refused a batch or was not reached; the cause of the error says why.",
                "Go on after the first `enqueued` calls. Where `may_have_happened` is true, give the tasks ids of "
                "your own, so that a repetition is noticed.",
            ),
        ),
    ),
    Section(
        "Reach Redis",
        "Raised by whatever asks Redis.",
        (
            Explanation(
                "broker",
                "BrokerError",
                "Redis refused, or was not reached; base of those below.",
                "See those below.",
                "`taskq doctor` looks for the reason.",
            ),
            Explanation(
                "broker-unavailable",
                "BrokerUnavailableError",
                "No connection, or no answer in time; also a `ConnectionError`.",
                "Redis is down, starts, fails over or is overloaded; the address is wrong; a firewall or TLS is in "
                "the way.",
                "Check the URL with `taskq doctor`. Workers go on by themselves once it answers; producers see "
                "`may_have_happened`.",
            ),
            Explanation(
                "circuit-open",
                "CircuitOpenError",
                "Redis failed to answer several times in a row, so [nothing was sent](../how-to/limit-a-queue.md#"
                "when-redis-does-not-answer); a `BrokerUnavailableError`; `retry_in_s` says when it is asked again, "
                "`last_failure` why it was not.",
                "As for `broker-unavailable`: this spares callers the wait.",
                "As for `broker-unavailable`. The next call after `retry_in_s` tries again.",
            ),
            Explanation(
                "broker-authentication",
                "BrokerAuthenticationError",
                "User name or password was refused, or the user may not do this.",
                "The password was changed, or the user's rights do not cover a command or a key.",
                "Give the user [the rights of its role](../how-to/secure-redis.md); `taskq doctor` names what it may "
                "not do.",
            ),
            Explanation(
                "broker-full",
                "BrokerFullError",
                "Redis is over its memory limit: new work is refused, work in progress goes on.",
                "More waits than `maxmemory` holds, or something else fills the same Redis.",
                "Run more workers, delete what is archived or kept, or raise `maxmemory`. `taskq stats` shows where "
                "the memory goes.",
            ),
            Explanation(
                "broker-replication",
                "BrokerReplicationError",
                "Redis did it, but its replicas or its append-only file have not confirmed it in time; the cause of "
                "`NotReplicatedError`.",
                "Replicas are behind or away.",
                "As for `not-replicated`.",
            ),
            Explanation(
                "broker-reply",
                "BrokerReplyError",
                "Redis answered with an error, or with something the layout does not know.",
                "Something that is no taskq and no Asynq wrote under the same keys, a proxy changes answers, or the "
                "server is older than [those supported](settings.md#urls).",
                "`taskq doctor` names the keys and what is wrong with them.",
            ),
            Explanation(
                "embedded-redis",
                "EmbeddedRedisError",
                "The private server of `embedded://` cannot be started or used.",
                "No `redis-server` is found, or its folder cannot be written or belongs to somebody else.",
                "Install `taskq-asynq[embedded]`, or a Redis, and give a folder of your own.",
            ),
            Explanation(
                "wire-format",
                "WireFormatError",
                "Bytes in Redis are not what the layout says; also a `ValueError`.",
                "Another program wrote them, or a newer version whose form is not known here.",
                "Find out who wrote them; `taskq doctor` shows where they are and `--fix` sets them aside.",
            ),
        ),
    ),
    Section(
        "Look at queues and act on them",
        "Raised by the inspector, the command line and the dashboards. Nothing was changed.",
        (
            Explanation(
                "queue-not-found",
                "QueueNotFoundError",
                "No queue of this name is known.",
                "It is misspelt, or nothing was enqueued to it yet: a queue is known from the first enqueue on.",
                "Look at the nearest name, which the message tells, or at `taskq queue list`.",
            ),
            Explanation(
                "queue-state",
                "QueueStateError",
                "A queue does not stand as it would have to; base of the next three.",
                "See those below.",
                "See those below.",
            ),
            Explanation(
                "queue-paused",
                "QueuePausedError",
                "The queue is paused already.",
                "Somebody else paused it.",
                "Nothing.",
            ),
            Explanation(
                "queue-not-paused",
                "QueueNotPausedError",
                "The queue is not paused.",
                "Somebody else resumed it.",
                "Nothing.",
            ),
            Explanation(
                "queue-not-empty",
                "QueueNotEmptyError",
                "The queue holds tasks that would be lost (`waiting`), or tasks that run (`active`).",
                "A queue was to be removed that is in use.",
                "Stop its workers first; then force its removal if its tasks may go.",
            ),
            Explanation(
                "task-not-found",
                "TaskNotFoundError",
                "No task of this id is stored.",
                "It has ended without being kept, was deleted, its retention is over, or the id or queue is misspelt.",
                "Give the task a `retention` to keep it after its end.",
            ),
            Explanation(
                "entry-not-found",
                "EntryNotFoundError",
                "No periodic entry of this id is known.",
                "No scheduler that knows it runs, or the id is misspelt.",
                "Look at the nearest id, which the message tells; start a scheduler.",
            ),
            Explanation(
                "worker-not-found",
                "WorkerNotFoundError",
                "No worker of this name is alive.",
                "It has stopped, its last heartbeat is too old, or the name is misspelt.",
                "`taskq server list` shows the workers; name one by `<host>:<pid>`, by its host or by its id.",
            ),
            Explanation(
                "task-state",
                "TaskStateError",
                "The state of a task does not allow what was asked; carries `state` and `reason`.",
                "It moved on since it was looked at.",
                "Look at it again.",
            ),
            Explanation(
                "task-active",
                "TaskActiveError",
                "The task runs; a `TaskStateError`.",
                "It was started since it was looked at.",
                "Cancel it and wait for its end.",
            ),
        ),
    ),
    Section(
        "Ask for an outcome",
        "Raised by `handle.result()` and its like. Those of tasks carry `queue`, `task_id` and `reason`, those of "
        "workflows `queue`, `workflow_id` and `reason`.",
        (
            Explanation(
                "result",
                "ResultError",
                "The outcome of a task cannot be had; base of those below.",
                "See those below.",
                "See those below.",
            ),
            Explanation(
                "result-not-kept",
                "ResultNotKeptError",
                "The task keeps no result.",
                "Its `retention` is 0, the default.",
                "Give it a [`retention`](task-options.md) in seconds.",
            ),
            Explanation(
                "result-timeout",
                "ResultTimeoutError",
                "It did not end in time, and goes on; also a `TimeoutError`.",
                "It waits behind others, no worker serves its queue, or it takes longer.",
                "Wait longer, or ask later; `taskq doctor` tells of queues that nobody serves.",
            ),
            Explanation(
                "result-too-large",
                "ResultTooLargeError",
                "The task succeeded, but its result was not stored; carries `size` and `limit`; also a `ValueError`.",
                "The result has more bytes than `max_result_bytes` allows, 16 MiB unless set.",
                "Store the data elsewhere and return its address, or raise "
                "[`max_result_bytes`](task-options.md#results) for the task or in `DEFAULTS`.",
            ),
            Explanation(
                "task-not-sent",
                "TaskNotSentError",
                "The surrounding transaction has not committed yet, or sending it then failed.",
                "The result is asked for inside the `atomic` block in which the task was enqueued.",
                "Ask after the block has ended.",
            ),
            Explanation(
                "task-failed",
                "TaskFailedError",
                "It was archived; `reason` is its error text.",
                "It failed in each of its attempts, or raised `SkipRetry`.",
                "Correct its code or its arguments, then `taskq task run` it again.",
            ),
            Explanation(
                "task-expired",
                "TaskExpiredError",
                "It was not started by the time its [`expires`](../how-to/control-tasks.md#expire-what-was-not-"
                "started-in-time) says, `expired_at`; a `TaskFailedError`.",
                "Workers were behind or away.",
                "Run more workers, or let it expire later.",
            ),
            Explanation(
                "result-value",
                "ResultValueError",
                "A result has no JSON form, or a stored one is not of the type expected; also a `ValueError`.",
                "A task returns an object of a class that JSON cannot carry, or its return annotation was changed "
                "while results are kept.",
                "Return what JSON can carry; the message names the type.",
            ),
            Explanation(
                "workflow",
                "WorkflowError",
                "The outcome of a [workflow](../how-to/build-workflows.md) cannot be had; base of those below.",
                "See those below.",
                "See those below.",
            ),
            Explanation(
                "workflow-failed",
                "WorkflowFailedError",
                "Steps of it failed; `reason` names the first of them.",
                "A step was archived, so what comes after it cannot run.",
                "Correct what failed and run that step again: the workflow goes on.",
            ),
            Explanation(
                "workflow-cancelled",
                "WorkflowCancelledError",
                "It was cancelled.",
                "Somebody cancelled it.",
                "Enqueue it again if it is wanted still.",
            ),
            Explanation(
                "workflow-not-found",
                "WorkflowNotFoundError",
                "There is no such workflow, or it is kept no longer.",
                "Its retention is over, or its home queue was removed.",
                "Keep it longer with its `retention`.",
            ),
            Explanation(
                "workflow-damaged",
                "WorkflowDamagedError",
                "What Redis keeps of it cannot be read; `reason` names the field and what was expected.",
                "Another program wrote under its key.",
                "Find out who wrote it; the tasks of the workflow themselves are not touched.",
            ),
            Explanation(
                "workflow-not-sent",
                "WorkflowNotSentError",
                "The surrounding transaction has not committed yet, or sending it then failed.",
                "As for `task-not-sent`.",
                "Ask after the block has ended.",
            ),
            Explanation(
                "workflow-timeout",
                "WorkflowTimeoutError",
                "It did not end in time, and goes on; also a `TimeoutError`.",
                "As for `result-timeout`.",
                "Wait longer, or ask later.",
            ),
        ),
    ),
    Section(
        "Run tasks",
        "Raised in workers, and kept as the error of a task where it is one.",
        (
            Explanation(
                "payload",
                "PayloadError",
                "A stored payload does not fit the task that should run it: the task is archived.",
                "Producer and worker have different versions of the task's signature, or another service sends "
                "something else.",
                "Let both sides agree: new parameters get a default, workers are brought up first. Then run the "
                "archived tasks again.",
            ),
            Explanation(
                "missing-reference",
                "MissingReferenceError",
                "What an argument refers to is gone, such as a deleted row; carries `label` and `keys`.",
                "The row was deleted before the task ran, or the task was sent before the transaction that made the "
                "row had committed.",
                'Usually nothing: the task is archived, or dropped with [`on_missing="discard"`](../how-to/'
                "pass-model-instances.md#when-the-row-is-gone). For the second cause see "
                "[`enqueue-in-transaction`](#enqueue-in-transaction).",
            ),
            Explanation(
                "unknown-task",
                "UnknownTaskError",
                "Neither a task nor a handler is registered for a type; the task waits for a worker that has one, and "
                "is archived after `UNKNOWN_TASK_TIMEOUT`.",
                "The worker's code does not have the task yet or any more, its module is not imported, or the queue "
                "is another service's.",
                "Register it where its queue is served, or set `@taskq.not_found`.",
            ),
            Explanation(
                "no-current-task",
                "NoCurrentTaskError",
                "`current_task()` was called outside a task; also a `LookupError`.",
                "Code that tasks share was called from elsewhere.",
                "Call it in a task, or catch this error.",
            ),
            Explanation(
                "iteration",
                "IterationError",
                "What a task iterates over, or a cursor, cannot be gone on with; also a `ValueError`.",
                "The source has no order that another run finds again, or the cursor is no JSON.",
                "[Give it otherwise](../how-to/long-tasks.md#what-can-be-iterated-over), as the message says.",
            ),
            Explanation(
                "progress",
                "ProgressError",
                "What a task tells of how far it is is no number or no text; also a `ValueError`.",
                "A wrong argument of `context.progress`.",
                "Correct the call.",
            ),
            Explanation(
                "semaphore-full",
                "SemaphoreFullError",
                "All places of a [semaphore](../how-to/limit-with-a-semaphore.md) are held.",
                "As many tasks as the semaphore has places are in that part of their code.",
                "Run again later, with `Snooze`.",
            ),
            Explanation(
                "lease-lost",
                "LeaseLostError",
                "The worker no longer owns the task; another may run it.",
                "The worker could not reach Redis for the length of a lease, or its machine stood still.",
                "Nothing for the queue: the outcome of the later run counts. Let tasks bear being "
                "[run twice](../explanation/delivery.md).",
            ),
            Explanation(
                "task-process",
                "TaskProcessError",
                "The [process of its own](../how-to/run-a-worker.md#give-a-task-a-process-of-its-own) that a task ran "
                "in has ended, or did not come up. It fails that attempt.",
                "The function crashed, ended its process, or took so much memory that the system did; or the module of "
                "the function cannot be imported there.",
                "Look at what the process wrote and at the log of the system: a signal 9 that nobody sent is mostly a "
                "lack of memory.",
            ),
            Explanation(
                "task-cancelled",
                "TaskCancelledError",
                "A run was cancelled on request; error handlers get it.",
                "Somebody cancelled it.",
                "Nothing.",
            ),
        ),
    ),
    Section(
        "Warnings",
        "Python's `warnings` where a class is named, otherwise a line in the log with the code in brackets. "
        "`TaskQWarning` is the base of the classes.",
        (
            Explanation(
                "payload-size",
                "PayloadSizeWarning",
                "The arguments take 1 MiB or more; Redis keeps them in memory until the task is gone.",
                "As for `payload-too-large`.",
                "Store the data elsewhere and give its address.",
            ),
            Explanation(
                "argument-type",
                "ArgumentTypeWarning",
                "An argument arrives as another type, such as a date as text; once for each task.",
                "Its parameter has no annotation, or `Any`, and the JSON value does not show its type.",
                "Annotate the parameter, as in `day: date`, or pass a JSON value and convert it in the task.",
            ),
            Explanation(
                "blocking-enqueue",
                "BlockingEnqueueWarning",
                "A blocking enqueue holds a running event loop for a round trip to Redis; once per process; also a "
                "`RuntimeWarning`.",
                "A coroutine calls `delay`, or `enqueue` or `enqueue_many` of the blocking client.",
                "Await `.adelay()`, or the methods of `AsyncClient`: in FastAPI take `ClientDep`.",
            ),
            Explanation(
                "deprecation",
                "TaskQDeprecationWarning",
                "A name, an option or a setting goes away with the release that the text names; also a "
                "`DeprecationWarning`.",
                "Your code uses what [has been replaced](../explanation/stability.md).",
                "Use what the text says instead.",
            ),
            Explanation(
                "enqueue-in-transaction",
                "EnqueueInTransactionWarning",
                'A task was sent at once from inside `atomic`, because `ENQUEUE` is `"immediate"`; once for each '
                "line of your code.",
                "A worker may start the task before the transaction has committed, and not find its rows; after a "
                "rollback the task runs all the same.",
                'Leave [`ENQUEUE`](settings.md) at `"on_commit"`, or enqueue after the block. If it is meant so, '
                "filter this warning.",
            ),
            Explanation(
                "workflow-unserved",
                "WorkflowUnservedWarning",
                "No taskq worker serves the home queue of a workflow all of whose steps are remote tasks; at most once "
                "a minute for each client and queue.",
                "Only Go serves the queue. Go's workers run the steps, but start no step after another. Or the taskq "
                "worker has not started yet.",
                "Let a taskq worker serve the queue, or give the workflow a home that one serves, with "
                '[`at_home("...")`](../how-to/build-workflows.md).',
            ),
            Explanation(
                "loop-blocked",
                "",
                "The event loop of a worker stood still for a second or more; the line names the coroutine task that "
                "held it, and where.",
                "A coroutine calls something that blocks: `time.sleep`, `requests`, a database driver without "
                "asyncio, a long calculation. Meanwhile the worker starts and settles nothing.",
                "Make the task a plain function, which runs in a thread, or call what blocks with `asyncio.to_thread`.",
            ),
            Explanation(
                "queue-unserved",
                "QueueUnservedWarning",
                "No worker serves the queue to which a task goes, so the task waits until one does. Enqueueing warns "
                "if `QUEUES` is set and does not name the queue. A worker logs a warning if no running worker serves "
                "it.",
                "The queue is missing in `QUEUES` or `--queues`, or its name is misspelled in the task or in "
                "`using(queue=...)`.",
                "Correct the name, or add the queue to `QUEUES`. If workers with `--queues` serve it and it should not "
                "be in `QUEUES`, filter this warning.",
            ),
            Explanation(
                "no-scheduler",
                "",
                "The application has periodic tasks, but no scheduler runs, so they are not enqueued.",
                "All workers run with `--no-scheduler`, and `taskq scheduler` does not run.",
                "Start a worker without `--no-scheduler`, or `taskq scheduler`. Any number of them may run: each "
                "firing is enqueued once.",
            ),
            Explanation(
                "clock-skew",
                "",
                "The clocks of a worker's machine and of Redis differ by a second or more.",
                "A machine does not keep its time by NTP.",
                "Let it. Leases and schedules go by Redis's clock, but times that your code gives, such as a "
                "`deadline`, go by that of its machine.",
            ),
            Explanation(
                "eviction",
                "",
                "Redis drops keys, and with them tasks, when its memory is full.",
                "`maxmemory-policy` is not `noeviction`.",
                "Set `maxmemory-policy noeviction`, with a Redis of its own for what may be dropped, such as a cache.",
            ),
        ),
    ),
)
"""All explanations, in the order of the page."""

EXPLANATIONS = {each.code: each for section in SECTIONS for each in section.entries}
"""The explanations by their codes."""


def find_explanation(text: str) -> Explanation | None:
    """Return what is to be said of a code, or of the name of a class as it stands in a traceback."""
    name = text.strip().strip("[]").rpartition(".")[2]
    by_name = {each.name: each for each in EXPLANATIONS.values() if each.name}
    return EXPLANATIONS.get(name) or by_name.get(name)


def nearest_codes(text: str) -> Sequence[str]:
    """Return the codes that a misspelt one may have meant, the nearest first."""
    names = {each.name.lower(): each.code for each in EXPLANATIONS.values() if each.name}
    near = difflib.get_close_matches(text.lower(), [*EXPLANATIONS, *names], n=3, cutoff=0.5)
    return list(dict.fromkeys(names.get(each, each) for each in near))


def plain(text: str) -> str:
    """Return Markdown as text for a terminal: links by their words, code without its marks."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("`", "")
