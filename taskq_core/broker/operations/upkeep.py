"""Look over all keys of a server, and repair single ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from taskq_core.broker.operations.operation import Argument, Operation, integer, text, time_argument
from taskq_core.broker.scripts import load

SURVEY_MAX = 500
"""About how many keys one call looks at."""
TEND_MAX = 50
"""Most keys one call repairs."""


def _name(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class SurveyedKey:
    """A key as the survey found it.

    Attributes:
        key: Its name.
        kind: Its type.
        ttl_ms: Milliseconds until it expires, -1 if it never does.
        about: What else there is to know, see `survey.lua`.
    """

    key: str
    kind: str
    ttl_ms: int
    about: str


@dataclass(slots=True)
class Surveyed:
    """Some keys of a server.

    Attributes:
        cursor: Of the next call, "0" at the end.
        heads: What the keys of queues with healthy tasks begin with.
        keys: All keys but those of healthy tasks.
    """

    cursor: str
    heads: list[str]
    keys: list[SurveyedKey]


def _read_surveyed(reply: Any) -> Surveyed:
    words = iter(reply[2])
    return Surveyed(
        text(reply[0]),
        [_name(head) for head in reply[1]],
        [
            SurveyedKey(_name(key), text(kind), int(ttl_ms), _name(about))
            for key, kind, ttl_ms, about in zip(words, words, words, words, strict=True)
        ],
    )


def survey(pattern: str, *, cursor: str = "0", count: int = SURVEY_MAX) -> Operation[Surveyed]:
    """Look at about `count` keys of one server that match a pattern. On a cluster to be sent to each primary."""
    return Operation("survey", load("survey"), (), (cursor, pattern, count), _read_surveyed)


class Remedy(StrEnum):
    """What to do with a key."""

    ASIDE = "aside"
    COUNTER = "count"
    UNLOCK = "unlock"
    EXPIRE = "expire"
    LIST = "list"
    UNLIST = "unlist"


@dataclass(frozen=True, slots=True)
class Tending:
    """One repair of a key.

    Attributes:
        remedy: What to do.
        key: The key.
        other: The key that it depends on, or goes to.
        argument: As `tend.lua` says for the action.
    """

    remedy: Remedy
    key: str
    other: str
    argument: str | int


def tend(absent: str, tendings: Sequence[Tending], *, now_ns: int | None = None) -> Operation[list[bool]]:
    """Repair keys, at most `TEND_MAX`, all of one cluster slot as is `absent`, which never exists.

    Reads as whether each still stood as it was found, and was repaired.
    """
    keys = [absent]
    args: list[Argument] = [time_argument(now_ns)]
    for each in tendings:
        keys += (each.key, each.other)
        args += (each.remedy.value, each.argument)
    return Operation("tend", load("tend"), tuple(keys), args, lambda reply: [int(each) == 1 for each in reply])


def persist(key: str) -> Operation[int]:
    """Let a key stay that would expire. Reads as 1 if it would have."""
    return Operation("persist", None, (key,), ("PERSIST", key), integer)


def read_index(key: str, *, skip: int, count: int) -> Operation[list[str]]:
    """Read members of a sorted set, the lowest first."""
    command = ("ZRANGE", key, skip, skip + count - 1)
    return Operation("read_index", None, (key,), command, lambda reply: [_name(member) for member in reply])


def is_there(key: str) -> Operation[bool]:
    """Ask whether a key is there."""
    return Operation("is_there", None, (key,), ("EXISTS", key), lambda reply: int(reply) == 1)
