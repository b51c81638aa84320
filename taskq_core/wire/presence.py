"""Records that servers and schedulers publish about themselves, and their stored bytes.

Times are Unix nanoseconds, because Go writes nanoseconds and `datetime` has only microseconds. None stands for Go's
zero time, the first second of year 1. Go's tools would show a missing time as 1970.

The record of a running task does not contain the payload, so that heartbeats contain no user data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from taskq_core.errors import WireFormatError
from taskq_core.wire import asynq_pb2
from taskq_core.wire.durations import NS_PER_S

GO_ZERO_TIME_S = -62_135_596_800
"""Unix seconds of Go's zero time, 0001-01-01T00:00:00Z."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OPTIONAL = {"processed": "taskq_processed", "failed": "taskq_failed"}
"""Wire names of taskq-only fields, by attribute name."""


class _Record:
    """Base class of the records. Each attribute is a field of a protobuf message; times have the suffix `_ns`."""

    __slots__ = ()

    _message: ClassVar[type[Message]]

    def encode(self) -> bytes:
        """Return the bytes to store.

        Raises:
            WireFormatError: A field is not valid UTF-8 or does not fit.
        """
        stored = {}
        for each in fields(self):  # type: ignore[arg-type]  # a dataclass
            value = getattr(self, each.name)
            name = each.name.removesuffix("_ns")
            stored[_OPTIONAL.get(name, name)] = value if name == each.name else to_timestamp(value)
        try:
            return self._message(**stored).SerializeToString(deterministic=True)
        except (TypeError, ValueError) as exc:  # ValueError includes UnicodeError
            problem = f"a field has a wrong type or is out of range ({type(exc).__name__})"
            raise WireFormatError(f"cannot encode a {self._message.__name__}: {problem}") from None

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the record that the stored bytes contain.

        Raises:
            WireFormatError: The bytes are not a record of this class.
        """
        try:
            stored = cls._message.FromString(data)
        except (DecodeError, UnicodeDecodeError):  # protobuf's pure Python runtime raises UnicodeDecodeError
            raise WireFormatError(f"{len(data)} bytes are not a {cls._message.__name__}") from None
        read: dict[str, Any] = {}
        for each in fields(cls):  # type: ignore[arg-type]  # a dataclass
            name = each.name.removesuffix("_ns")
            if name != each.name:
                read[each.name] = from_timestamp(getattr(stored, name)) if stored.HasField(name) else None
            elif name in _OPTIONAL:
                read[name] = getattr(stored, _OPTIONAL[name]) if stored.HasField(_OPTIONAL[name]) else None
            else:
                value = getattr(stored, name)
                read[name] = each.default_factory(value) if callable(each.default_factory) else value  # type: ignore[call-arg]
        return cls(**read)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo(_Record):
    """A running server (a worker process), read from its presence key."""

    _message = asynq_pb2.ServerInfo

    host: str
    pid: int
    server_id: str
    concurrency: int
    """Maximum number of concurrent tasks."""
    queues: Mapping[str, int] = field(default_factory=dict)
    """Configured weight of each queue, by name."""
    strict_priority: bool = False
    status: str = "active"
    """`new`, `active`, `stopped` or `closed`."""
    start_time_ns: int | None = None
    """Unix nanoseconds."""
    active_worker_count: int = 0
    """Number of running tasks."""
    processed: int | None = None
    """Runs since the start of the server. None for Go servers, which do not report them."""
    failed: int | None = None
    """Failed runs since the start of the server. None for Go servers, which do not report them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo(_Record):
    """A task that runs now on a server. Its payload is neither written nor read."""

    _message = asynq_pb2.WorkerInfo

    host: str
    pid: int
    server_id: str
    task_id: str
    task_type: str
    queue: str
    start_time_ns: int | None = None
    """Unix nanoseconds."""
    deadline_ns: int | None = None
    """Unix nanoseconds; None if the task has no time limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerEntry(_Record):
    """A periodic entry of a running scheduler."""

    _message = asynq_pb2.SchedulerEntry

    id: str
    spec: str
    """Cron line or `@every <duration>`."""
    task_type: str
    task_payload: bytes = field(default=b"", repr=False)
    enqueue_options: tuple[str, ...] = field(default_factory=tuple)
    """Option strings, see `taskq_core.wire.options`."""
    next_enqueue_time_ns: int | None = None
    """Unix nanoseconds; None if the entry never fires again."""
    prev_enqueue_time_ns: int | None = None
    """Unix nanoseconds; None if the entry has not fired yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerEnqueueEvent(_Record):
    """One firing of a periodic entry."""

    _message = asynq_pb2.SchedulerEnqueueEvent

    task_id: str
    enqueue_time_ns: int | None = None
    """Unix nanoseconds."""


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
