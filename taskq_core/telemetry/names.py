"""Names of spans' attributes and of metrics: OpenTelemetry's messaging conventions and taskq's own.

The names follow the semantic conventions 1.45.0, and without an opt-in the one name that 1.45.0 renamed follows 1.44.0.
They are written here because the Python package that lists them marks its messaging part as unstable, and a rename
there must not break a running worker. Taskq's own attributes begin with `messaging.asynq.`, its metrics with `asynq.`.
"""

import os
from typing import Final

_SCHEMA_URL_OLD: Final = "https://opentelemetry.io/schemas/1.44.0"
_SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.45.0"
_SYSTEM_OLD: Final = "messaging.system"
_SYSTEM: Final = "messaging.system.name"
_ASYNQ: Final = "asynq"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
CREATE: Final = "create"
SEND: Final = "send"
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
TASK_RETRIED: Final = "messaging.asynq.task.retried"
TASK_MAX_RETRY: Final = "messaging.asynq.task.max_retry"
TASK_STATE_AFTER: Final = "messaging.asynq.task.state_after"
TASK_OUTCOME: Final = "messaging.asynq.task.outcome"
REPAIR_KIND: Final = "messaging.asynq.repair.kind"
CRON_SPEC: Final = "messaging.asynq.periodic.spec"
ENTRY_ID: Final = "messaging.asynq.periodic.entry"

EXCEPTION_EVENT: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

QUEUE_STATE: Final = "messaging.asynq.queue.state"
OUTBOX_DATABASE: Final = "messaging.asynq.outbox.database"

TASKS_ENQUEUED: Final = "asynq.tasks.enqueued"
TASKS_PROCESSED: Final = "asynq.tasks.processed"
TASKS_FAILED: Final = "asynq.tasks.failed"
TASKS_RETRIED: Final = "asynq.tasks.retried"
TASKS_MALFORMED_TRACES: Final = "asynq.tasks.malformed_traces"
TASKS_IGNORED_FIELDS: Final = "asynq.tasks.ignored_fields"
REPAIRS: Final = "asynq.repairs"
TASKS_STUCK: Final = "asynq.tasks.stuck"
BAGGAGE_CUT: Final = "asynq.client.baggage_cut"
CIRCUIT_OPENED: Final = "asynq.client.circuit_opened"
TASK_PROCESSING_TIME: Final = "asynq.task.processing_time"
TASK_WAIT_TIME: Final = "asynq.task.wait_time"
QUEUE_SIZE: Final = "asynq.queue.size"
QUEUE_LATENCY: Final = "asynq.queue.latency"
QUEUE_PAUSED: Final = "asynq.queue.paused"
WORKER_SLOTS: Final = "asynq.worker.slots"
WORKER_BUSY: Final = "asynq.worker.busy"
WORKER_CONNECTED: Final = "asynq.worker.connected"
SCHEDULER_LEADING: Final = "asynq.scheduler.leading"
OUTBOX_ROWS: Final = "asynq.outbox.rows"
OUTBOX_AGE: Final = "asynq.outbox.age"
CLIENT_SENT: Final = "messaging.client.sent.messages"
CLIENT_CONSUMED: Final = "messaging.client.consumed.messages"
CLIENT_OPERATION_DURATION: Final = "messaging.client.operation.duration"
PROCESS_DURATION: Final = "messaging.process.duration"


def system() -> dict[str, str]:
    """Return the attributes that name the messaging system, as `OTEL_SEMCONV_STABILITY_OPT_IN` selects them.

    `messaging` selects the new name, `messaging/dup` both, nothing the old name.
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
