"""Read the timeline of a task: its steps, sleeps, signals, sub-tasks and position, from the record of its steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from taskq_core.broker.operations.steps import read_steps
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.execution.step_record import FAILED, read_result
from taskq_core.handles.waits import StepKind
from taskq_core.wire import Keys

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """A step, a sleep, a signal, a call of sub-tasks, or the position of the loops of a task.

    Attributes:
        kind: step, sleep, signal, sub-tasks or position.
        name: Name of the step, the sleep, the signal or the call, with a number from its second use on.
        started_at: When the step or wait began, or the run that stored the position. None for a signal that arrived
            before the task waited for it.
        ended_at: When it ended, the signal arrived, or the position was stored. None while the task waits.
        until: End of a wait with a time limit, while the task waits.
        has_timed_out: Whether the wait for the signal reached its timeout.
        has_failed: Whether the sub-tasks failed.
        workflow_id: Id of the workflow of the sub-tasks, "" for other entries. The home queue of this workflow is the
            queue of the task.
        result: Result of a step or of sub-tasks, value of a signal, or position, as JSON. b"" if there is none.
    """

    kind: StepKind
    name: str
    started_at: datetime | None
    ended_at: datetime | None
    until: datetime | None = None
    has_timed_out: bool = False
    has_failed: bool = False
    workflow_id: str = ""
    result: bytes = field(default=b"", repr=False)

    @property
    def duration(self) -> timedelta | None:
        """Time from the start to the end. None while the task waits, and for a signal that arrived before the wait."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(timedelta(), self.ended_at - self.started_at)


def read_timeline(keys: Keys, queue: str, task_id: str) -> RequestPlan[Sequence[TimelineEntry]]:
    """Return the timeline of a task, the oldest entry first. Empty for a task without steps."""
    record = yield from ask(read_steps(keys.queue(queue), task_id))
    waiting = record.get("waiting", b"").decode().partition(" ")[2]
    found = []
    for stored, value in record.items():
        letter, _, name = stored.partition(":")
        first, _, rest = value.partition(b" ")
        if letter in ("s", "p"):
            ended_ms, took_ms, result = read_result(value)
            found.append(
                _entry("step" if letter == "s" else "position", name, ended_ms - took_ms, ended_ms, result=result)
            )
        elif letter == "c":
            result = read_result(record[f"k:{name}"])[2] if f"k:{name}" in record else b""
            has_failed = result.startswith(FAILED)  # the workflow of the sub-tasks shows the error
            more = {"workflow_id": rest.decode(), "result": b"" if has_failed else result, "has_failed": has_failed}
            found.append(_entry("sub-tasks", name, first, record.get(f"e:{name}", b""), **more))
        elif letter == "r":
            since = record.get(f"u:{stored}", b"").partition(b" ")[2]
            found.append(_entry("signal", stored, since, first, result=rest, has_timed_out=not rest))
        elif letter == "u" and name not in record and name[:2] in ("z:", "r:"):
            kind: StepKind = "sleep" if name[0] == "z" else "signal"
            until = _at(first) if name == waiting else None
            found.append(_entry(kind, name, rest, b"" if kind == "signal" or name == waiting else first, until=until))
    return sorted(found, key=lambda each: (each.started_at or each.ended_at or _NEVER, each.ended_at or _NEVER))


def _entry(kind: StepKind, name: str, since: bytes | int, ended: bytes | int, **more: Any) -> TimelineEntry:
    name = name.removeprefix("z:").removeprefix("r:")
    name = name.removesuffix("#1") if kind == "signal" else name
    return TimelineEntry(kind=kind, name=name, started_at=_at(since), ended_at=_at(ended), **more)


def _at(unix_ms: bytes | int) -> datetime | None:
    return None if unix_ms in (b"", b"-") else utc_datetime(int(unix_ms) / 1000)
