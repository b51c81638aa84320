"""How far a running task is, as it tells and as people read it: one JSON object in a field of the task."""

import math
from dataclasses import dataclass
from datetime import datetime

import msgspec

from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.errors import ProgressError

MOST_CHARACTERS = 500
"""Characters after which a message is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a task is.

    Attributes:
        done: How much is done, in the task's own unit.
        total: How much there is to do, None if the task does not say.
        message: What it does just now, "" for nothing.
        at: When it said so, by the clock of its worker.
    """

    done: float
    total: float | None = None
    message: str = ""
    at: datetime

    @property
    def fraction(self) -> float | None:
        """How much of all is done, from 0 to 1; None if that is not known."""
        if not self.total:
            return None
        return min(1.0, self.done / self.total)

    @property
    def amount(self) -> str:
        """How much is done, as people read it: `3 of 10 (30 %)`."""
        text = f"{self.done:.15g}" if self.total is None else f"{self.done:.15g} of {self.total:.15g}"
        if self.fraction is not None:
            text = f"{text} ({math.floor(100 * self.fraction)} %)"
        return text

    def __str__(self) -> str:
        return f"{self.amount}: {self.message}" if self.message else self.amount


def encode_progress(done: float, total: float | None = None, message: str = "") -> bytes:
    """Return what is stored of a task's progress.

    Raises:
        ProgressError: A number is none, is negative or infinite, or the message is no text.
    """
    _check("done", done)
    if total is not None:
        _check("total", total)
    if not isinstance(message, str):
        raise ProgressError(f"message of progress must be text, got {type(message).__qualname__}")
    told: dict[str, object] = {"done": done, "at": int(SYSTEM_CLOCK.time() * 1000)}
    if total is not None:
        told["total"] = total
    if message:
        told["message"] = message[:MOST_CHARACTERS].encode("utf-8", "replace").decode()
    return msgspec.json.encode(told)


def _check(what: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ProgressError(f"{what} of progress must be a number, got {type(number).__qualname__}")
    if not math.isfinite(number) or number < 0 or number > 2**63:
        raise ProgressError(f"{what} of progress must be a number from 0 to 2**63, got {number}")


class _Told(msgspec.Struct):
    done: float
    at: int
    total: float | None = None
    message: str = ""


_decode = msgspec.json.Decoder(_Told).decode


def read_progress(data: bytes) -> Progress | None:
    """Return what a task has told, None for nothing and for what cannot be read."""
    if not data:
        return None
    try:
        told = _decode(data)
        return Progress(
            done=_number(told.done),
            total=None if told.total is None else _number(told.total),
            message=told.message[:MOST_CHARACTERS],
            at=utc_datetime(told.at / 1000),
        )
    except (ValueError, OverflowError, OSError):
        return None


def _number(value: float) -> float:
    """Return a number without the point that JSON may have given it."""
    return int(value) if value.is_integer() else value
