"""Progress of a running task: one JSON object in a field of the task."""

import math
from dataclasses import dataclass
from datetime import datetime

import msgspec

from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.errors import ProgressError

MOST_CHARACTERS = 500
"""Maximum characters of a progress message. Longer messages are cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress that a task has reported.

    Attributes:
        done: Completed amount, in any unit that the task uses.
        total: Total amount in the same unit, None if unknown.
        message: Current activity, "" if the task reported none.
        at: When the task reported this progress, by the clock of its worker.
    """

    done: float
    total: float | None = None
    message: str = ""
    at: datetime

    @property
    def fraction(self) -> float | None:
        """Completed share, from 0 to 1. None if unknown."""
        if not self.total:
            return None
        return min(1.0, self.done / self.total)

    @property
    def amount(self) -> str:
        """Completed amount as text, such as `3 of 10 (30 %)`."""
        text = f"{self.done:.15g}" if self.total is None else f"{self.done:.15g} of {self.total:.15g}"
        if self.fraction is not None:
            text = f"{text} ({math.floor(100 * self.fraction)} %)"
        return text

    def __str__(self) -> str:
        return f"{self.amount}: {self.message}" if self.message else self.amount


def encode_progress(done: float, total: float | None = None, message: str = "") -> bytes:
    """Encode the progress of a task for storage.

    Raises:
        ProgressError: A value is not a number, is negative or infinite, or the message is not text.
    """
    _check("done", done)
    if total is not None:
        _check("total", total)
    if not isinstance(message, str):
        raise ProgressError(f"message of progress must be text, got {type(message).__qualname__}")
    stored: dict[str, object] = {"done": done, "at": int(SYSTEM_CLOCK.time() * 1000)}
    if total is not None:
        stored["total"] = total
    if message:
        stored["message"] = message[:MOST_CHARACTERS].encode("utf-8", "replace").decode()
    return msgspec.json.encode(stored)


def _check(what: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ProgressError(f"{what} of progress must be a number, got {type(number).__qualname__}")
    if not math.isfinite(number) or number < 0 or number > 2**63:
        raise ProgressError(f"{what} of progress must be a number from 0 to 2**63, got {number}")


class _Stored(msgspec.Struct):
    done: float
    at: int
    total: float | None = None
    message: str = ""


_decode = msgspec.json.Decoder(_Stored).decode


def read_progress(data: bytes) -> Progress | None:
    """Decode the stored progress of a task. Return None if the progress is missing or not valid."""
    if not data:
        return None
    try:
        stored = _decode(data)
        return Progress(
            done=_number(stored.done),
            total=None if stored.total is None else _number(stored.total),
            message=stored.message[:MOST_CHARACTERS],
            at=utc_datetime(stored.at / 1000),
        )
    except (ValueError, OverflowError, OSError):
        return None


def _number(value: float) -> float:
    """Convert a float that is a whole number to an integer. JSON may have stored the integer with a decimal point."""
    return int(value) if value.is_integer() else value
