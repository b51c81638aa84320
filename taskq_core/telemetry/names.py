"""Names of spans' attributes and of metrics: OpenTelemetry's messaging conventions and taskq's own.

The `messaging.*`, `server.*` and `error.*` names follow the semantic conventions 1.44.0. They are written down here
because the Python package that lists them marks its messaging part as unstable, and a rename there must not break a
running worker. Names that begin with `asynq.` are taskq's own.
"""

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The version of the conventions, told to the SDK along with every span and metric."""

SYSTEM: Final = "messaging.system"
SYSTEM_ASYNQ: Final = "asynq"
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

TASK_TYPE: Final = "asynq.task.type"
TASK_RETRIED: Final = "asynq.task.retried"
TASK_MAX_RETRY: Final = "asynq.task.max_retry"
TASK_STATE_AFTER: Final = "asynq.task.state_after"
TASK_OUTCOME: Final = "asynq.task.outcome"
REPAIR_KIND: Final = "asynq.repair.kind"
CRON_SPEC: Final = "cron.spec"
ENTRY_ID: Final = "asynq.periodic.entry"

EXCEPTION_EVENT: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

QUEUE_STATE: Final = "asynq.queue.state"
OUTBOX_DATABASE: Final = "asynq.outbox.database"

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


def of_server(server: tuple[str, int] | None) -> dict[str, str | int]:
    """Return the attributes of Redis's address: host and port, or the path of its socket and 0."""
    if server is None:
        return {}
    host, port = server
    return {SERVER_ADDRESS: host, SERVER_PORT: port} if port else {SERVER_ADDRESS: host}
