"""What servers and schedulers tell about themselves: records and their stored bytes.

Times are Unix nanoseconds, because Go writes them to the nanosecond and `datetime` would lose three digits. None stands
for Go's zero time, the first second of year 1; leaving a time out would read as 1970 in Go's tools.

A running task's payload is left out of its record on purpose: heartbeats are no place for users' data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from taskq_core.errors import WireFormatError
from taskq_core.wire import asynq_pb2
from taskq_core.wire.durations import NS_PER_S

GO_ZERO_TIME_S = -62_135_596_800
"""Unix seconds of Go's zero time, 0001-01-01T00:00:00Z."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_M = TypeVar("_M", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """A running server (a worker process), as its presence key tells."""

    host: str
    pid: int
    server_id: str
    concurrency: int
    """Tasks at a time."""
    queues: Mapping[str, int] = field(default_factory=dict)
    """Weights as configured."""
    strict_priority: bool = False
    status: str = "active"
    """`new`, `active`, `stopped` or `closed`."""
    start_time_ns: int | None = None
    """Unix nanoseconds."""
    active_worker_count: int = 0
    """Tasks running now."""
    processed: int | None = None
    """Runs since its start. None for Go servers, which do not report it."""
    failed: int | None = None
    """Failed runs among them."""

    def encode(self) -> bytes:
        """Return the bytes to store.

        Raises:
            WireFormatError: A field is not valid UTF-8 or does not fit.
        """
        return _encode(
            asynq_pb2.ServerInfo,
            host=self.host,
            pid=self.pid,
            server_id=self.server_id,
            concurrency=self.concurrency,
            queues=dict(self.queues),
            strict_priority=self.strict_priority,
            status=self.status,
            start_time=to_timestamp(self.start_time_ns),
            active_worker_count=self.active_worker_count,
            taskq_processed=self.processed,
            taskq_failed=self.failed,
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return what was stored.

        Raises:
            WireFormatError: The bytes are no such record.
        """
        stored = _decode(asynq_pb2.ServerInfo, data)
        return cls(
            host=stored.host,
            pid=stored.pid,
            server_id=stored.server_id,
            concurrency=stored.concurrency,
            queues=dict(stored.queues),
            strict_priority=stored.strict_priority,
            status=stored.status,
            start_time_ns=_time_of(stored, "start_time"),
            active_worker_count=stored.active_worker_count,
            processed=stored.taskq_processed if stored.HasField("taskq_processed") else None,
            failed=stored.taskq_failed if stored.HasField("taskq_failed") else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A task that runs now on a server. Its payload is neither written nor read."""

    host: str
    pid: int
    server_id: str
    task_id: str
    task_type: str
    queue: str
    start_time_ns: int | None = None
    """Unix nanoseconds."""
    deadline_ns: int | None = None
    """Unix nanoseconds; None when the task has no limit."""

    def encode(self) -> bytes:
        """Return the bytes to store.

        Raises:
            WireFormatError: A field is not valid UTF-8 or does not fit.
        """
        return _encode(
            asynq_pb2.WorkerInfo,
            host=self.host,
            pid=self.pid,
            server_id=self.server_id,
            task_id=self.task_id,
            task_type=self.task_type,
            queue=self.queue,
            start_time=to_timestamp(self.start_time_ns),
            deadline=to_timestamp(self.deadline_ns),
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return what was stored, without the payload that Go writes.

        Raises:
            WireFormatError: The bytes are no such record.
        """
        stored = _decode(asynq_pb2.WorkerInfo, data)
        return cls(
            host=stored.host,
            pid=stored.pid,
            server_id=stored.server_id,
            task_id=stored.task_id,
            task_type=stored.task_type,
            queue=stored.queue,
            start_time_ns=_time_of(stored, "start_time"),
            deadline_ns=_time_of(stored, "deadline"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerEntry:
    """A periodic entry of a running scheduler."""

    id: str
    spec: str
    """Cron line or `@every <duration>`."""
    task_type: str
    task_payload: bytes = field(default=b"", repr=False)
    enqueue_options: tuple[str, ...] = ()
    """Option strings, see `taskq_core.wire.options`."""
    next_enqueue_time_ns: int | None = None
    """Unix nanoseconds; None when it never fires again."""
    prev_enqueue_time_ns: int | None = None
    """Unix nanoseconds; None when it has not fired yet."""

    def encode(self) -> bytes:
        """Return the bytes to store.

        Raises:
            WireFormatError: A field is not valid UTF-8 or does not fit.
        """
        return _encode(
            asynq_pb2.SchedulerEntry,
            id=self.id,
            spec=self.spec,
            task_type=self.task_type,
            task_payload=self.task_payload,
            enqueue_options=list(self.enqueue_options),
            next_enqueue_time=to_timestamp(self.next_enqueue_time_ns),
            prev_enqueue_time=to_timestamp(self.prev_enqueue_time_ns),
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return what was stored.

        Raises:
            WireFormatError: The bytes are no such record.
        """
        stored = _decode(asynq_pb2.SchedulerEntry, data)
        return cls(
            id=stored.id,
            spec=stored.spec,
            task_type=stored.task_type,
            task_payload=stored.task_payload,
            enqueue_options=tuple(stored.enqueue_options),
            next_enqueue_time_ns=_time_of(stored, "next_enqueue_time"),
            prev_enqueue_time_ns=_time_of(stored, "prev_enqueue_time"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerEnqueueEvent:
    """One firing of a periodic entry."""

    task_id: str
    enqueue_time_ns: int | None = None
    """Unix nanoseconds."""

    def encode(self) -> bytes:
        """Return the bytes to store.

        Raises:
            WireFormatError: The id is not valid UTF-8, or the time does not fit.
        """
        return _encode(
            asynq_pb2.SchedulerEnqueueEvent, task_id=self.task_id, enqueue_time=to_timestamp(self.enqueue_time_ns)
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return what was stored.

        Raises:
            WireFormatError: The bytes are no such record.
        """
        stored = _decode(asynq_pb2.SchedulerEnqueueEvent, data)
        return cls(task_id=stored.task_id, enqueue_time_ns=_time_of(stored, "enqueue_time"))


def to_timestamp(ns: int | None) -> Timestamp:
    """Return the protobuf time of Unix nanoseconds; None becomes Go's zero time."""
    if ns is None:
        return Timestamp(seconds=GO_ZERO_TIME_S)
    seconds, nanos = divmod(ns, NS_PER_S)
    try:
        return Timestamp(seconds=seconds, nanos=nanos)
    except ValueError:
        raise WireFormatError(f"a time must fit 64 bits of seconds, got {seconds}") from None


def from_timestamp(timestamp: Timestamp) -> int | None:
    """Return the Unix nanoseconds of a protobuf time; None for Go's zero time."""
    if timestamp.seconds == GO_ZERO_TIME_S and not timestamp.nanos:
        return None
    return timestamp.seconds * NS_PER_S + timestamp.nanos


def datetime_of_ns(ns: int) -> datetime:
    """Return the aware UTC datetime of Unix nanoseconds, cut to whole microseconds.

    Raises:
        WireFormatError: The time is outside the years 1 to 9999.
    """
    try:
        return _EPOCH + timedelta(microseconds=ns // 1_000)
    except OverflowError:
        raise WireFormatError(f"a time must be in the years 1 to 9999, got {ns} ns") from None


def ns_of_datetime(moment: datetime) -> int:
    """Return the Unix nanoseconds of an aware datetime."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1_000


def _time_of(stored: Message, name: str) -> int | None:
    return from_timestamp(getattr(stored, name)) if stored.HasField(name) else None


def _encode(record: type[Message], **fields: object) -> bytes:
    try:
        return record(**fields).SerializeToString(deterministic=True)
    except (TypeError, ValueError) as exc:  # a UnicodeError is a ValueError
        raise WireFormatError(f"not a {record.__name__}: a field does not fit ({type(exc).__name__})") from None


def _decode(record: type[_M], data: bytes) -> _M:
    try:
        return record.FromString(data)
    except (DecodeError, UnicodeDecodeError):  # the second is the pure Python runtime's, for invalid UTF-8
        raise WireFormatError(f"{len(data)} bytes are not a {record.__name__}") from None
