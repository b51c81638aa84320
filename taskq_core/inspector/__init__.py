"""Read and change queues and tasks: `Inspector` for blocking code, `AsyncInspector` for coroutines.

A task that cannot be decoded is listed as `UnreadableTask`, so that a person can find it. The modules of this package
contain request plans, which are written once; the two classes send the requests. Work on many tasks uses small script
calls, which keep Redis responsive.
"""

from taskq_core.codec.worker_requests import WorkerAction
from taskq_core.inspector.aio import AsyncInspector
from taskq_core.inspector.limits import LimitInfo
from taskq_core.inspector.matching import MatchingReport, TaskFilter
from taskq_core.inspector.reading import is_reversed, total_of
from taskq_core.inspector.records import (
    LISTED_STATES,
    PAGE_SIZE_MAX,
    SORTED_BY,
    STATES,
    DailyStats,
    FoundTasks,
    GroupInfo,
    GroupPage,
    PeriodicEntryInfo,
    QueueInfo,
    QueueStatus,
    QueueWeight,
    RunningTask,
    SchedulerEvent,
    TaskOrder,
    TaskPage,
    UnreadableTask,
    WorkerProcess,
    error_rate,
)
from taskq_core.inspector.removal import QueueRemoval
from taskq_core.inspector.selection import (
    ALLOWED_STATES,
    RETRY_MINUTES_MAX,
    ActionReport,
    Skip,
    TaskAction,
    TaskRef,
)
from taskq_core.inspector.snapshot import MetricsSnapshot, QueueMetrics, metrics_snapshot
from taskq_core.inspector.sync import Inspector
from taskq_core.wire import ServerInfo
from taskq_core.wire.tallies import BOUNDS_S as DURATION_BOUNDS_S
from taskq_core.wire.tallies import TypeCounters

__all__ = [
    "ALLOWED_STATES",
    "DURATION_BOUNDS_S",
    "LISTED_STATES",
    "PAGE_SIZE_MAX",
    "RETRY_MINUTES_MAX",
    "SORTED_BY",
    "STATES",
    "ActionReport",
    "AsyncInspector",
    "DailyStats",
    "FoundTasks",
    "GroupInfo",
    "GroupPage",
    "Inspector",
    "LimitInfo",
    "MatchingReport",
    "MetricsSnapshot",
    "PeriodicEntryInfo",
    "QueueInfo",
    "QueueMetrics",
    "QueueRemoval",
    "QueueStatus",
    "QueueWeight",
    "RunningTask",
    "SchedulerEvent",
    "ServerInfo",
    "Skip",
    "TaskAction",
    "TaskFilter",
    "TaskOrder",
    "TaskPage",
    "TaskRef",
    "TypeCounters",
    "UnreadableTask",
    "WorkerAction",
    "WorkerProcess",
    "error_rate",
    "is_reversed",
    "metrics_snapshot",
    "total_of",
]
