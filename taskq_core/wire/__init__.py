"""The data formats that taskq shares with Go Asynq, without input and output.

They are key names, states, protobuf messages, durations, option strings, and the keys of unique locks. The package also
contains Asynq's two rules with random numbers: retry delay and queue order. No code here uses Redis or reads a clock.
"""

from taskq_core.wire.asynq_pb2 import TaskMessage
from taskq_core.wire.control import (
    DEAD_LETTER,
    ENQUEUED,
    EXPIRES,
    HIGHEST_BAND,
    PRIORITY,
    Expiry,
    expiry_mark,
    priority_mark,
    read_enqueued_ms,
    read_expiry,
    read_priority,
)
from taskq_core.wire.durations import format_duration, parse_duration, timedelta_of_ns
from taskq_core.wire.keys import (
    DEFAULT_QUEUE,
    MAX_NAME_BYTES,
    Keys,
    QueueKeys,
    validate_entry_id,
    validate_group_name,
    validate_prefix,
    validate_queue_name,
    validate_scope,
    validate_task_id,
    validate_task_type,
)
from taskq_core.wire.messages import (
    MessageTemplate,
    archived_message,
    build_message,
    clean_text,
    completed_message,
    decode_message,
    encode_headers,
    encode_message,
    retried_message,
    unread_size,
)
from taskq_core.wire.options import Option, OptionKind, format_option, parse_option
from taskq_core.wire.presence import (
    SchedulerEnqueueEvent,
    SchedulerEntry,
    ServerInfo,
    WorkerInfo,
    datetime_of_ns,
)
from taskq_core.wire.retry_delay import QueueOrder, default_retry_delay
from taskq_core.wire.states import TaskState
