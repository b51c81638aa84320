"""Names of the attributes of spans, and the table of metrics: OpenTelemetry's messaging conventions and taskq's own.

The names follow version 1.45.0 of the semantic conventions. One name was renamed in 1.45.0. Unless a user opts in, it
follows version 1.44.0. The names are defined here because the messaging part of the Python package of names is
unstable, and a rename there must not break a running worker. taskq's own attributes begin with `messaging.asynq.`, its
metrics with `asynq.`.
"""

import os
from typing import Final, Self

_SCHEMA_URL_OLD: Final = "https://opentelemetry.io/schemas/1.44.0"
_SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.45.0"
_SYSTEM_OLD: Final = "messaging.system"
_SYSTEM: Final = "messaging.system.name"
_ASYNQ: Final = "asynq"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
CREATE: Final = "create"
SEND: Final = "send"
STEP: Final = "step"
RECEIVE: Final = "receive"
PROCESS: Final = "process"
SETTLE: Final = "settle"
QUEUE: Final = "messaging.destination.name"
TASK_ID: Final = "messaging.message.id"
BODY_SIZE: Final = "messaging.message.body.size"
CLIENT_ID: Final = "messaging.client.id"
BATCH_COUNT: Final = "messaging.batch.message_count"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

TASK_TYPE: Final = "messaging.asynq.task.type"
STEP_NAME: Final = "taskq.step.name"
TASK_RETRIED: Final = "messaging.asynq.task.retried"
TASK_MAX_RETRY: Final = "messaging.asynq.task.max_retry"
TASK_STATE_AFTER: Final = "messaging.asynq.task.state_after"
TASK_OUTCOME: Final = "messaging.asynq.task.outcome"
REPAIR_KIND: Final = "messaging.asynq.repair.kind"

EXCEPTION_EVENT: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

QUEUE_STATE: Final = "messaging.asynq.queue.state"
OUTBOX_DATABASE: Final = "messaging.asynq.outbox.database"


class Metric(str):
    """The name of a metric, with the properties of its instrument.

    Attributes:
        kind: "counter", "histogram" or "gauge".
        unit: Unit of the metric, as UCUM writes it.
        description: One sentence.
    """

    kind: str
    unit: str
    description: str

    def __new__(cls, name: str, kind: str, unit: str, description: str) -> Self:
        """Return a metric: its name as a string, with the properties of its instrument as attributes."""
        metric = super().__new__(cls, name)
        metric.kind, metric.unit, metric.description = kind, unit, description
        return metric


def _counter(name: str, unit: str, description: str) -> Metric:
    return Metric(name, "counter", unit, description)


def _seconds(name: str, description: str) -> Metric:
    return Metric(name, "histogram", "s", description)


def _gauge(name: str, unit: str, description: str) -> Metric:
    return Metric(name, "gauge", unit, description)


TASKS_ENQUEUED = _counter("asynq.tasks.enqueued", "{task}", "Tasks that were enqueued.")
TASKS_PROCESSED = _counter("asynq.tasks.processed", "{task}", "Runs of tasks that used an attempt.")
TASKS_FAILED = _counter("asynq.tasks.failed", "{task}", "Runs of tasks that failed.")
TASKS_RETRIED = _counter("asynq.tasks.retried", "{task}", "Runs of tasks that failed and will be retried.")
TASKS_MALFORMED_TRACES = _counter(
    "asynq.tasks.malformed_traces", "{task}", "Runs whose task has an unreadable trace header."
)
TASKS_IGNORED_FIELDS = _counter(
    "asynq.tasks.ignored_fields", "{field}", "Payload fields for which the task has no parameter."
)
TASKS_STUCK = _counter("asynq.tasks.stuck", "{run}", "Runs that continued long after they were interrupted.")
REPAIRS = _counter("asynq.repairs", "{repair}", "Damage that was found in a queue and repaired.")
BAGGAGE_CUT = _counter(
    "asynq.client.baggage_cut", "{header}", "Baggage and trace headers left out because of the size limit."
)
CIRCUIT_OPENED = _counter("asynq.client.circuit_opened", "{opening}", "Times the circuit breaker opened.")
CLIENT_SENT = _counter("messaging.client.sent.messages", "{message}", "Messages that a client tried to send.")
CLIENT_CONSUMED = _counter("messaging.client.consumed.messages", "{message}", "Messages delivered to the application.")
CLIENT_OPERATION_DURATION = _seconds("messaging.client.operation.duration", "Duration of an enqueue.")
PROCESS_DURATION = _seconds("messaging.process.duration", "Duration of processing operation.")
TASK_PROCESSING_TIME = _seconds("asynq.task.processing_time", "Time the code of a task took.")
TASK_WAIT_TIME = _seconds("asynq.task.wait_time", "Time a task was pending before a worker took it.")
QUEUE_SIZE = _gauge("asynq.queue.size", "{task}", "Tasks of a queue, by state.")
QUEUE_LATENCY = _gauge("asynq.queue.latency", "s", "Time the next task to run has been pending; 0 without one.")
QUEUE_PAUSED = _gauge("asynq.queue.paused", "{queue}", "1 while a queue is paused, else 0.")
WORKER_SLOTS = _gauge("asynq.worker.slots", "{slot}", "Maximum number of tasks that this worker runs at once.")
WORKER_BUSY = _gauge("asynq.worker.busy", "{slot}", "Tasks that this worker runs.")
WORKER_CONNECTED = _gauge("asynq.worker.connected", "{worker}", "1 while Redis answers this worker, else 0.")
SCHEDULER_LEADING = _gauge(
    "asynq.scheduler.leading", "{scheduler}", "1 while this scheduler enqueues its periodic tasks, else 0."
)
OUTBOX_ROWS = _gauge("asynq.outbox.rows", "{row}", "Tasks that wait in a database to be sent.")
OUTBOX_AGE = _gauge(
    "asynq.outbox.age", "s", "Time the oldest task in the database has waited to be sent; 0 without one."
)
GAUGES = (
    *(QUEUE_SIZE, QUEUE_LATENCY, QUEUE_PAUSED, WORKER_SLOTS, WORKER_BUSY, WORKER_CONNECTED),
    *(SCHEDULER_LEADING, OUTBOX_ROWS, OUTBOX_AGE),
)


def system() -> dict[str, str]:
    """Return the attributes that name the messaging system, as `OTEL_SEMCONV_STABILITY_OPT_IN` selects them.

    `messaging` selects the new name, `messaging/dup` both names, and an empty variable the old name.
    """
    opt_in = _opt_in()
    if "messaging/dup" in opt_in:
        return {_SYSTEM_OLD: _ASYNQ, _SYSTEM: _ASYNQ}
    return {_SYSTEM if "messaging" in opt_in else _SYSTEM_OLD: _ASYNQ}


def schema_url() -> str:
    """Return the version of the conventions that the selected names follow."""
    return _SCHEMA_URL if _opt_in() & {"messaging", "messaging/dup"} else _SCHEMA_URL_OLD


def _opt_in() -> set[str]:
    return {each.strip() for each in os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")}


def of_server(server: tuple[str, int] | None) -> dict[str, str | int]:
    """Return the attributes of Redis's address: host and port, or the path of its socket and 0."""
    if server is None:
        return {}
    host, port = server
    return {SERVER_ADDRESS: host, SERVER_PORT: port} if port else {SERVER_ADDRESS: host}
