"""Checked configuration: one frozen record, read once at the edge and passed down, and the checks it is made of."""

from taskq_core.settings.log import LogSettings
from taskq_core.settings.records import (
    TRACE_ID,
    ArchiveLimits,
    ArchiveSettings,
    CarrySettings,
    CircuitSettings,
    EmailSettings,
    EnqueueMode,
    OptIn,
    QueueLimit,
    Relation,
    Settings,
    TraceSettings,
    WhenFull,
    values_from_environ,
)
from taskq_core.settings.values import (
    AUTO,
    CONCURRENCY_MAX,
    MAX_SECONDS,
    PROCESSES_MAX,
    Duration,
    check_flag,
    check_modules,
    check_processes,
    check_queues,
    check_whole,
    member,
    members,
    memory_bytes,
    nearest_hint,
    parse_queues,
    read_processes,
    seconds,
    unknown,
)
