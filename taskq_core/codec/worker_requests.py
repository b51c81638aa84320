"""Requests that operators send to running workers on the channel `taskq:control`."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from taskq_core.errors import ConfigurationError
from taskq_core.settings import CONCURRENCY_MAX, check_whole, member


class WorkerAction(StrEnum):
    """An action that an operator can request from a worker."""

    QUIET = "quiet"
    """Take no new tasks. Running tasks finish."""
    RESUME = "resume"
    """Take tasks again."""
    SCALE = "scale"
    """Change the concurrency."""
    STOP = "stop"
    """Stop gracefully, as on SIGTERM."""


class WorkerRequest(Struct, frozen=True):
    """One request of an operator.

    Attributes:
        action: What the worker should do.
        concurrency: New number of concurrent tasks, for `SCALE` only.

    Raises:
        ConfigurationError: A value is not valid.
    """

    action: WorkerAction | str
    concurrency: int | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "action", member(WorkerAction, "action", self.action))
        if self.action is WorkerAction.SCALE:
            check_whole("concurrency", self.concurrency, least=1, most=CONCURRENCY_MAX)
        elif self.concurrency is not None:
            raise ConfigurationError(
                f"concurrency can be given only for the action 'scale', got {self.concurrency} for {str(self.action)!r}"
            )

    def encode(self, workers: Sequence[str]) -> bytes:
        """Encode the request as a message that is addressed to the workers with these ids."""
        return msgspec.json.encode({"workers": workers, "action": self.action, "concurrency": self.concurrency})


class _Message(msgspec.Struct):
    workers: list[str]
    action: str
    concurrency: int | None = None


def request_for(worker: str, message: str) -> WorkerRequest | None:
    """Decode a message. Return None if the message is not valid or not for this worker."""
    try:
        read = msgspec.json.decode(message, type=_Message)
        return WorkerRequest(read.action, read.concurrency) if worker in read.workers else None
    except (msgspec.MsgspecError, ValueError):
        return None
