"""What is noted of the attempts of a task: who ran it, when, and what it failed with, traceback included.

A line of JSON for each, in a field of the task that Asynq does not know. Noted are attempts that failed, and the one
that succeeded of a task that is kept. The field holds the last of them, about 16 KiB; see `lua/_record.lua`.
"""

import json
import re
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import CodeType, TracebackType

from taskq_core.errors import Retry

LONGEST = 8192
"""Most bytes of a traceback; of a longer one the middle is left out."""
_HEAD = 2048
_MOST_STACKS = 256
_stacks: dict[tuple[tuple[CodeType, str, int], ...], str] = {}
"""Text of stacks, by where each of their frames stands."""
_OURS = ("taskq_core.", "taskq_django.", "taskq_fastapi.", "taskq_sqlalchemy.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of a task that has ended.

    Attributes:
        number: Number of the attempt, from 1. An attempt that did not count and the next have the same.
        worker: Token of the worker that made it, "" if unknown.
        started_at: When that worker began, None if unknown.
        ended_at: When it ended.
        error: `module.qualname` of what it raised, "" if it succeeded.
        traceback: Of what it raised and of its causes; text that may hold arguments of the task.
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
    """Return what is noted of an attempt, one line; the times are Unix seconds."""
    noted: dict[str, object] = {"attempt": number, "worker": worker}
    if started_s is not None:
        noted["started"] = int(started_s * 1000)
    noted["ended"] = int(ended_s * 1000)
    if error is not None:
        error = origin_of(error)
        noted |= {"error": class_path(error), "traceback": traceback_text(error)}
    text = json.dumps(noted, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")  # a surrogate alone becomes JSON's own escape


_HEAD_OF_LINE = re.compile(
    rb'\{"attempt":(?P<attempt>\d{1,9}),"worker":"(?P<worker>[^"\\]*)"(,"started":(?P<started>\d{1,15}))?,"ended":(?P<ended>\d{1,15})'
)


def read_last_attempt(beginning: bytes) -> Attempt | None:
    """Parse the beginning of an attempt's line. Return the attempt without its error, or None if it is not valid."""
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
    """Return the attempts that are noted, the oldest first. A line that cannot be read is left out."""
    found = (_read(line) for line in lines.split(b"\n") if line)
    return tuple(each for each in found if each is not None)


def _read(line: bytes) -> Attempt | None:
    try:
        noted = json.loads(line)
        return Attempt(
            number=int(noted["attempt"]),
            worker=str(noted["worker"]),
            started_at=_moment(noted.get("started")),
            ended_at=_moment(noted.get("ended")),
            error=str(noted.get("error", "")),
            traceback=str(noted.get("traceback", "")),
        )
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        return None


def _moment(unix_ms: float | None) -> datetime | None:
    return None if unix_ms is None else datetime.fromtimestamp(unix_ms / 1000, tz=UTC)


def origin_of(error: BaseException) -> BaseException:
    """Return what a task failed with: behind a `Retry` stands what made the task raise it."""
    if isinstance(error, Retry):
        return error.__cause__ or error.__context__ or error
    return error


def class_path(error: BaseException) -> str:
    """Return `module.qualname` of an exception's class, by which it can be imported."""
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}"


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an exception, with its causes, without the worker's own frames above the function."""
    try:
        text = _format(error, users_frames(error.__traceback__))
    except BaseException:  # a broken exception must not lose the outcome of the task
        text = f"{class_path(error)} (its traceback cannot be written)\n"
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= LONGEST:
        return text
    head, tail = (part.decode("utf-8", "ignore") for part in (data[:_HEAD], data[_HEAD - LONGEST :]))
    return f"{head}\n... {len(data) - LONGEST} bytes are left out ...\n{tail}"


def _format(error: BaseException, stack: TracebackType | None) -> str:
    """Return what `traceback` makes of an error. Errors that come by the thousand mostly have the same stack."""
    has_cause = error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__)
    if stack is None or has_cause or isinstance(error, BaseExceptionGroup):
        return "".join(traceback.TracebackException(type(error), error, stack).format())
    where = []
    each: TracebackType | None = stack
    while each is not None:
        code = each.tb_frame.f_code
        where.append((code, code.co_filename, each.tb_lasti))  # code of two files may be equal
        each = each.tb_next
    key = tuple(where)
    shown = _stacks.get(key)
    if shown is None:
        if len(_stacks) >= _MOST_STACKS:
            _stacks.clear()
        shown = _stacks[key] = "".join(("Traceback (most recent call last):\n", *traceback.format_tb(stack)))
    return "".join((shown, *traceback.format_exception_only(error)))


def users_frames(stack: TracebackType | None) -> TracebackType | None:
    """Leave out the worker's own frames, above the function; all of them if there is nothing else."""
    while stack is not None and is_ours(stack):
        stack = stack.tb_next
    return stack


def is_ours(stack: TracebackType) -> bool:
    """Whether a frame is of this project's code."""
    return str(stack.tb_frame.f_globals.get("__name__", "")).startswith(_OURS)
