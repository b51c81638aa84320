"""Read the timeline of a task: its steps, sleeps, signals, sub-tasks and position, from the record of its steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from taskq_core.broker.operations.steps import Record, read_answer, read_steps
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.execution.step_failures import FAILED
from taskq_core.execution.step_record import PARTIAL, read_result
from taskq_core.handles.waits import StepKind, read_signals
from taskq_core.wire import Keys

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """A step, a sleep, a signal, a question, a call of sub-tasks, or the position of the loops of a task.

    Attributes:
        kind: step, sleep, signal, question, sub-tasks or position.
        name: Name of the step, the sleep, the signal, the question or the call, with a number from its second use on. A
            wait for the first of several signals has their names, separated by ` | `; the signal that ends it has its
            own entry.
        started_at: When the step or wait began, or the run that stored the position. None for a signal that arrived
            before the task waited for it.
        ended_at: When it ended, the signal or the answer arrived, the position was stored, or the task was cancelled.
            None while the task waits.
        until: End of a wait with a time limit, while the task waits.
        has_timed_out: Whether the wait for the signal or the answer reached its timeout.
        has_failed: Whether the sub-tasks failed, or the step failed and the code of the task has caught the failure.
        failures: Number of failed attempts of a step. While it is to be repeated, `started_at` is the last failure.
        workflow_id: Id of the workflow of the sub-tasks, "" for other entries. The home queue of this workflow is the
            queue of the task.
        result: Result of a step or of sub-tasks, value of a signal or an answer, or position, as JSON. b"" if there is
            none.
        asked: What a question asks, as JSON. b"" for other entries.
        by: Who answered a question, "" if it is unknown.
    """

    kind: StepKind
    name: str
    started_at: datetime | None
    ended_at: datetime | None
    until: datetime | None = None
    has_timed_out: bool = False
    has_failed: bool = False
    failures: int = 0
    workflow_id: str = ""
    result: bytes = field(default=b"", repr=False)
    asked: bytes = field(default=b"", repr=False)
    by: str = ""

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
    cancelled = record.get("cancel", b"").partition(b" ")[0]  # ends each wait that had not ended before
    waits = {value.decode().partition(" ")[2]: field for field, value in record.items() if field[:2] == "o:"}
    found = []
    for stored, value in record.items():
        letter, _, name = stored.partition(":")
        first, _, rest = value.partition(b" ")
        if letter in ("s", "p"):
            ended_ms, took_ms, result = read_result(value)
            kind: StepKind = "step" if letter == "s" else "position"
            failures = int(record.get(f"a:{name}", b"0").partition(b" ")[0])
            found.append(_entry(kind, name, ended_ms - took_ms, ended_ms, failures=failures, **_outcome(result)))
        elif letter == "a" and f"s:{name}" not in record:  # the step has failed, and is to be repeated
            retry = f"y:{name}#{first.decode()}"
            ends = _at(record[f"u:{retry}"].partition(b" ")[0]) if waiting == retry else None
            found.append(_entry("step", name, rest, b"", failures=int(first), until=ends))
        elif letter == "c":
            result = read_result(record[f"k:{name}"])[2] if f"k:{name}" in record else b""
            more = {"workflow_id": rest.decode(), **_outcome(result)}  # the workflow shows the error of sub-tasks
            found.append(_entry("sub-tasks", name, first, record.get(f"e:{name}", cancelled), **more))
        elif letter == "r":
            since = record.get(f"u:{waits.get(name, stored)}", b"").partition(b" ")[2]
            found.append(_entry("signal", stored, since, first, result=rest, has_timed_out=not rest))
        elif letter == "o" and not rest:
            since = record.get(f"u:{stored}", b"").partition(b" ")[2]
            found.append(_entry("signal", stored, since, first, has_timed_out=True))
        elif letter == "q":
            found.append(_question(name, value, record))
        elif letter == "u" and name not in record and name[:2] in ("z:", "r:", "o:"):
            kind = "sleep" if name[0] == "z" else "signal"
            ends = _at(first) if name == waiting else None
            ended = cancelled if kind == "signal" or name == waiting else min(first, cancelled or first, key=int)
            found.append(_entry(kind, name, rest, ended, until=ends))
    return sorted(found, key=lambda each: (each.started_at or each.ended_at or _NEVER, each.ended_at or _NEVER))


def _question(name: str, value: bytes, record: Record) -> TimelineEntry:
    """Return the entry for a question, with its answer."""
    _, since, _, data = value.split(b" ", 3)
    answered, end = record.get(f"v:{name}", b""), record.get(f"u:v:{name}", b"").partition(b" ")[0]
    answer = read_answer(answered)
    ended = (answered or record.get("cancel", b"")).partition(b" ")[0]
    return _entry(
        "question",
        name,
        since,
        ended,
        until=None if ended else _at(end),
        has_timed_out=bool(answered) and answer is None,
        asked=bytes(msgspec.json.decode(data, type=dict[str, msgspec.Raw])["ask"]),
        **({} if answer is None else {"result": bytes(answer.value), "by": answer.by}),
    )


def _outcome(result: bytes) -> dict[str, Any]:
    has_failed = result.startswith(FAILED)
    return {"result": b"" if has_failed else result.removeprefix(PARTIAL), "has_failed": has_failed}


def _entry(kind: StepKind, name: str, since: bytes | int, ended: bytes | int, **more: Any) -> TimelineEntry:
    name = " | ".join(read_signals(name[2:])) if name[:2] == "o:" else name.removeprefix("z:").removeprefix("r:")
    name = name.removesuffix("#1") if kind in ("signal", "question") else name
    return TimelineEntry(kind=kind, name=name, started_at=_at(since), ended_at=_at(ended), **more)


def _at(unix_ms: bytes | int) -> datetime | None:
    return None if unix_ms in (b"", b"-") else utc_datetime(int(unix_ms) / 1000)
