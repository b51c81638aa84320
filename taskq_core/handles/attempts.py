"""The recorded attempts of a task: worker, times, and the error with its traceback.

Each attempt is one line of JSON in a field of the task that Asynq does not use. Failed attempts are recorded, and for a
task with retention also the successful attempt. The field contains about 16 KiB of the last attempts; see
`lua/_record.lua`.
"""

import json
import re
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import CodeType, TracebackType

from taskq_core.errors import Retry

LONGEST = 8192
"""Maximum size of a stored traceback in bytes. The middle of a longer traceback is cut out."""
_HEAD = 2048
_MOST_STACKS = 256
_stacks: dict[tuple[tuple[CodeType, str, int], ...], str] = {}
"""Cache of formatted stacks. The key is the code position of each frame."""
_OURS = ("taskq_core.", "taskq_django.", "taskq_fastapi.", "taskq_sqlalchemy.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of a task that has ended.

    Attributes:
        number: Number of the attempt, from 1. An attempt that does not count has the same number as the attempt after
            it.
        worker: Token of the worker that ran it, "" if unknown.
        started_at: When it started, None if unknown.
        ended_at: When it ended.
        error: `module.qualname` of the class of its error, "" if it succeeded.
        traceback: Traceback of the error and of its causes. It may contain arguments of the task.
    """

    number: int
    worker: str
    started_at: datetime | None
    ended_at: datetime | None
    error: str = ""
    traceback: str = field(default="", repr=False)


def record_attempt(
    number: int, *, worker: str, started_s: float | None, ended_s: float, error: BaseException | None = None
) -> bytes:
    """Encode the record of an attempt as one line of JSON. The times are Unix seconds."""
    record: dict[str, object] = {"attempt": number, "worker": worker}
    if started_s is not None:
        record["started"] = int(started_s * 1000)
    record["ended"] = int(ended_s * 1000)
    if error is not None:
        error = origin_of(error)
        record |= {"error": class_path(error), "traceback": traceback_text(error)}
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")  # UTF-8 has no lone surrogates, so they become JSON escapes


_HEAD_OF_LINE = re.compile(
    rb'\{"attempt":(?P<attempt>\d{1,9}),"worker":"(?P<worker>[^"\\]*)"(,"started":(?P<started>\d{1,15}))?,"ended":(?P<ended>\d{1,15})'
)


def read_last_attempt(beginning: bytes) -> Attempt | None:
    """Read one recorded attempt, without its error, from the start of its JSON line. Return None for invalid data."""
    found = _HEAD_OF_LINE.match(beginning)
    if found is None:
        return None
    started = found["started"]
    return Attempt(
        number=int(found["attempt"]),
        worker=found["worker"].decode("utf-8", "replace"),
        started_at=_moment(int(started)) if started else None,
        ended_at=_moment(int(found["ended"])),
    )


def read_attempts(lines: bytes) -> tuple[Attempt, ...]:
    """Decode the recorded attempts, the oldest first. Skip lines that are not valid."""
    found = (_read(line) for line in lines.split(b"\n") if line)
    return tuple(each for each in found if each is not None)


def _read(line: bytes) -> Attempt | None:
    try:
        record = json.loads(line)
        return Attempt(
            number=int(record["attempt"]),
            worker=str(record["worker"]),
            started_at=_moment(record.get("started")),
            ended_at=_moment(record.get("ended")),
            error=str(record.get("error", "")),
            traceback=str(record.get("traceback", "")),
        )
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        return None


def _moment(unix_ms: float | None) -> datetime | None:
    return None if unix_ms is None else datetime.fromtimestamp(unix_ms / 1000, tz=UTC)


def origin_of(error: BaseException) -> BaseException:
    """Return the error that made a task fail.

    For a `Retry`, return the error that was being handled when the task raised the `Retry`.
    """
    if isinstance(error, Retry):
        return error.__cause__ or error.__context__ or error
    return error


def class_path(error: BaseException) -> str:
    """Return `module.qualname` of the class of an exception."""
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}"


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an exception with its causes, without the frames of taskq above the task's function."""
    try:
        text = _format(error, users_frames(error.__traceback__))
    except BaseException:  # the task must be settled even if `__str__` of its exception raises
        text = f"{class_path(error)} (its traceback cannot be written)\n"
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= LONGEST:
        return text
    head, tail = (part.decode("utf-8", "ignore") for part in (data[:_HEAD], data[_HEAD - LONGEST :]))
    return f"{head}\n... {len(data) - LONGEST} bytes are left out ...\n{tail}"


def _format(error: BaseException, stack: TracebackType | None) -> str:
    """Format an error as `traceback` does. Cache the text of its stack, because many errors have the same stack."""
    has_cause = error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__)
    if stack is None or has_cause or isinstance(error, BaseExceptionGroup):
        return "".join(traceback.TracebackException(type(error), error, stack).format())
    where = []
    each: TracebackType | None = stack
    while each is not None:
        code = each.tb_frame.f_code
        # The key contains the file name, because Python treats equal functions in two files as equal code objects.
        where.append((code, code.co_filename, each.tb_lasti))
        each = each.tb_next
    key = tuple(where)
    shown = _stacks.get(key)
    if shown is None:
        if len(_stacks) >= _MOST_STACKS:
            _stacks.clear()
        shown = _stacks[key] = "".join(("Traceback (most recent call last):\n", *traceback.format_tb(stack)))
    return "".join((shown, *traceback.format_exception_only(error)))


def users_frames(stack: TracebackType | None) -> TracebackType | None:
    """Return a stack without the frames of taskq above the task's function. Return None if no frames are left."""
    while stack is not None and is_ours(stack):
        stack = stack.tb_next
    return stack


def is_ours(stack: TracebackType) -> bool:
    """Return whether a frame belongs to taskq's code."""
    return str(stack.tb_frame.f_globals.get("__name__", "")).startswith(_OURS)
