"""Test the error tree: the documented drawing matches, and errors are picklable, readable and have attributes."""

import copy
import inspect
import pickle
import re
from datetime import UTC, datetime
from typing import Any

import taskq_core
from taskq_core import errors
from tests.rows import rows

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "TaskWaiting": ("r:review#1", 1_700_000_000_000, 2),
    "StepFailedError": ("charge", "ValueError", "a text"),
    "TaskArgumentsError": ("task", "parameter", "a problem"),
    "PayloadError": ("task", "parameter", "a problem"),
    "MissingReferenceError": ("task", "shop.Order", (1, 2)),
    "PayloadTooLargeError": ("task", 20, 10),
    "EnqueueError": ("task", "queue", "id", "a reason"),
    "DuplicateTaskError": ("task", "queue", "id"),
    "TaskIdConflictError": ("task", "queue", "id"),
    "QueueFullError": ("task", "queue", "id", 3, 2),
    "CircuitOpenError": ("redis://h/0", 3, 0.5, "no answer"),
    "EnqueueUnknownError": ("task", "queue", "id", "a reason"),
    "NotReplicatedError": ("task", "queue", "id", "a reason", 2, 1),
    "BrokerReplicationError": ("a text", 2, 1),
    "BulkEnqueueError": (3, ("a", "b"), True),
    "QueueNotFoundError": ("queue", "a hint"),
    "EntryNotFoundError": ("entry", "a hint"),
    "QueueStateError": ("queue",),
    "QueuePausedError": ("queue",),
    "QueueNotPausedError": ("queue",),
    "QueueNotEmptyError": ("queue", 1, 2),
    "TaskNotFoundError": ("queue", "id"),
    "TaskStateError": ("queue", "id", "pending", "a reason"),
    "TaskActiveError": ("queue", "id", "active", "a reason"),
    "ResultError": ("queue", "id", "a reason"),
    "ResultNotKeptError": ("queue", "id", "a reason"),
    "ResultTimeoutError": ("queue", "id", "a reason"),
    "ResultTooLargeError": ("queue", "id", 20, 10),
    "TaskNotSentError": ("queue", "id", "a reason"),
    "TaskFailedError": ("queue", "id", "a reason"),
    "TaskExpiredError": ("queue", "id", "a reason", datetime(2030, 1, 1, tzinfo=UTC)),
    "WorkflowDefinitionError": ("step", "a problem"),
    "WorkflowError": ("queue", "id", "a reason"),
    "WorkflowFailedError": ("queue", "id", "a reason"),
    "WorkflowCancelledError": ("queue", "id", "a reason"),
    "WorkflowNotFoundError": ("queue", "id", "a reason"),
    "WorkflowDamagedError": ("queue", "id", "a reason"),
    "WorkflowNotSentError": ("queue", "id", "a reason"),
    "WorkflowTimeoutError": ("queue", "id", "a reason"),
    "SemaphoreFullError": ("scope", 3),
    "LeaseLostError": ("queue", "id"),
    "TaskProcessError": ("queue", "id", -9),
    "TaskCancelledError": ("queue", "id"),
    "NoCurrentTaskError": (),
    "Retry": (5,),
    "Snooze": (5,),
}
CLASSES = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, BaseException) and each.__module__ == errors.__name__
]


@rows("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling_and_copying(kind: type[BaseException]) -> None:
    """Copies have the same class, text and facts, so that an error can be passed between processes."""
    error = kind(*ARGUMENTS.get(kind.__name__, ("a text",)))

    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert str(again) == str(error)
        assert vars(again) == vars(error)


@rows("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_documented_hierarchy(kind: type[BaseException]) -> None:
    assert re.search(rf"\b{kind.__name__}\b", errors.__doc__ or "")


def test_the_documented_builtin_bases_are_correct() -> None:
    for kind, base in (
        (errors.ConfigurationError, ValueError),
        (errors.TaskDefinitionError, TypeError),
        (errors.TaskArgumentsError, TypeError),
        (errors.PayloadTooLargeError, ValueError),
        (errors.BrokerUnavailableError, ConnectionError),
        (errors.ResultTimeoutError, TimeoutError),
        (errors.ResultValueError, ValueError),
        (errors.NoCurrentTaskError, LookupError),
    ):
        assert issubclass(kind, base)
        assert issubclass(kind, errors.TaskQError)
    assert not issubclass(errors.TaskControl, errors.TaskQError)
    assert not issubclass(errors.TaskInterrupted, Exception)


@rows(
    ("error", "text"),
    [
        (errors.TaskArgumentsError("t", "p", "is wrong"), "task 't', parameter 'p': is wrong"),
        (errors.TaskArgumentsError("t", "", "is wrong"), "task 't': is wrong"),
        (errors.PayloadError("t", "p", "missing"), "payload of parameter 'p' of task 't': missing"),
        (errors.PayloadError("t", "", "not readable"), "payload of task 't': not readable"),
        (
            errors.PayloadTooLargeError("t", 20, 10),
            "payload of task 't' is 20 bytes, the limit is 10; store the data elsewhere and pass its address",
        ),
        (errors.EnqueueError("t", "q", "i", "no"), "task 't' with id 'i' was not enqueued to 'q': no"),
        (
            errors.DuplicateTaskError("t", "q", "i"),
            "task 't' was not enqueued to 'q': a task with the same arguments holds the unique lock",
        ),
        (errors.TaskIdConflictError("t", "q", "i"), "task 't' was not enqueued: id 'i' is taken in queue 'q'"),
        (
            errors.EnqueueUnknownError("t", "q", "i", "no answer"),
            "task 't' with id 'i' may or may not be in queue 'q': no answer; "
            "enqueue again with the same task_id to be sure",
        ),
        (errors.QueueNotFoundError("q"), "no queue 'q'"),
        (errors.QueueNotFoundError("q", "there are none yet"), "no queue 'q'; there are none yet"),
        (errors.EntryNotFoundError("e", "did you mean 'f'?"), "no periodic entry 'e'; did you mean 'f'?"),
        (
            errors.TaskNotFoundError("q", "i"),
            "no task 'i' in queue 'q'; a task that has succeeded is stored only if it has a retention",
        ),
        (
            errors.TaskNotFoundError("", "i"),
            "no task 'i' in any queue; a task that has succeeded is stored only if it has a retention",
        ),
        (errors.TaskFailedError("q", "i", "it broke"), "task 'i' in queue 'q': it broke"),
        (errors.LeaseLostError("q", "i"), "the lease of task 'i' in queue 'q' is lost"),
        (errors.TaskProcessError("q", "i", -11), "the process of task 'i' of queue 'q' was ended by signal 11"),
        (errors.TaskProcessError("q", "i", 3), "the process of task 'i' of queue 'q' ended with status 3"),
        (errors.TaskProcessError("q", "i", None, "no memory"), "the process of task 'i' of queue 'q': no memory"),
    ],
)
def test_error_texts_are_sentences(error: Exception, text: str) -> None:
    assert str(error) == text


def test_a_bulk_error_includes_its_cause() -> None:
    error = errors.BulkEnqueueError(200, ("a", "b"), True)
    error.__cause__ = errors.BrokerUnavailableError("no answer")
    certain = errors.BulkEnqueueError(0, ("a",), False)

    assert str(error) == "200 tasks were enqueued; the next 2 may or may not have been: no answer"
    assert str(certain).startswith("0 tasks were enqueued; the next 1 were not")


def test_the_attribute_may_have_happened_survives_pickling() -> None:
    error = errors.BrokerUnavailableError.unchanged("refused")

    assert pickle.loads(pickle.dumps(error)).may_have_happened is False
    assert errors.BrokerUnavailableError("x").may_have_happened is True


def test_snooze_and_retry_keep_their_time() -> None:
    assert errors.Retry().after is None
    assert errors.Retry(after=5).after == 5
    assert errors.Snooze(5).after == 5
    assert errors.SkipRetry("because").reason == "because"


def test_exported_errors_are_the_same_classes() -> None:
    for name in taskq_core.__all__:
        if hasattr(errors, name):
            assert getattr(taskq_core, name) is getattr(errors, name)
