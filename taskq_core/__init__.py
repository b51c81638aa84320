"""taskq: a task queue on Redis in the layout of Go Asynq, with OpenTelemetry built in."""

from taskq_core.aggregation import GroupedTask
from taskq_core.app import TaskQ
from taskq_core.bulk import BulkResult
from taskq_core.carrying import TaskFilter
from taskq_core.circuit import CircuitState
from taskq_core.client import AsyncClient, Client
from taskq_core.context import TaskContext, current_task
from taskq_core.errors import (
    BrokerAuthenticationError,
    BrokerError,
    BrokerFullError,
    BrokerUnavailableError,
    BulkEnqueueError,
    CircuitOpenError,
    ConfigurationError,
    Discard,
    DuplicateTaskError,
    EnqueueError,
    EnqueueUnknownError,
    LeaseLostError,
    MissingReferenceError,
    NoCurrentTaskError,
    NotReplicatedError,
    PayloadError,
    PayloadTooLargeError,
    QueueFullError,
    ResultError,
    ResultNotKeptError,
    ResultTimeoutError,
    ResultValueError,
    Retry,
    SkipRetry,
    Snooze,
    TaskArgumentsError,
    TaskCancelledError,
    TaskControl,
    TaskDefinitionError,
    TaskFailedError,
    TaskIdConflictError,
    TaskInterrupted,
    TaskNotFoundError,
    TaskNotSentError,
    TaskQError,
    UnknownTaskError,
)
from taskq_core.handlers import RawTask
from taskq_core.options import TaskOptions
from taskq_core.periodic import CatchUp, PeriodicTask, ScheduleHook
from taskq_core.preparer import PayloadSizeWarning
from taskq_core.records import TaskInfo
from taskq_core.result import TaskHandle
from taskq_core.retry import exponential
from taskq_core.settings import CircuitSettings, QueueLimit, Settings, WhenFull
from taskq_core.task import CoroutineTask, RemoteTask, Signature, Task
from taskq_core.wire import TaskState

__all__ = [
    "AsyncClient",
    "BrokerAuthenticationError",
    "BrokerError",
    "BrokerFullError",
    "BrokerUnavailableError",
    "BulkEnqueueError",
    "BulkResult",
    "CatchUp",
    "CircuitOpenError",
    "CircuitSettings",
    "CircuitState",
    "Client",
    "ConfigurationError",
    "CoroutineTask",
    "Discard",
    "DuplicateTaskError",
    "EnqueueError",
    "EnqueueUnknownError",
    "GroupedTask",
    "LeaseLostError",
    "MissingReferenceError",
    "NoCurrentTaskError",
    "NotReplicatedError",
    "PayloadError",
    "PayloadSizeWarning",
    "PayloadTooLargeError",
    "PeriodicTask",
    "QueueFullError",
    "QueueLimit",
    "RawTask",
    "RemoteTask",
    "ResultError",
    "ResultNotKeptError",
    "ResultTimeoutError",
    "ResultValueError",
    "Retry",
    "ScheduleHook",
    "Settings",
    "Signature",
    "SkipRetry",
    "Snooze",
    "Task",
    "TaskArgumentsError",
    "TaskCancelledError",
    "TaskContext",
    "TaskControl",
    "TaskDefinitionError",
    "TaskFailedError",
    "TaskFilter",
    "TaskHandle",
    "TaskIdConflictError",
    "TaskInfo",
    "TaskInterrupted",
    "TaskNotFoundError",
    "TaskNotSentError",
    "TaskOptions",
    "TaskQ",
    "TaskQError",
    "TaskState",
    "UnknownTaskError",
    "WhenFull",
    "current_task",
    "exponential",
]
