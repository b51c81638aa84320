"""Read facts about Redis servers, and check the rights of the user. Nothing is changed."""

import hashlib
from typing import Any

from msgspec import Struct

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import Operation, command, script
from taskq_core.broker.scripts import Script

SURVEY_MAX = 500
"""Approximate number of keys that one call of `survey` reads."""
_NOTHING = "return 1"
_MOMENT = "0.01"  # Seconds. Redis 6.2 rounds a timeout of 1 ms to 0, which means no timeout.


def read_config(name: str) -> Operation[dict[str, str]]:
    """Read the configuration parameters of one server that match a pattern."""
    return command("read_config", ("CONFIG", "GET", name), replies.texts, keys=())


def read_time() -> Operation[float]:
    """Read the clock of one server, Unix seconds."""
    return command("read_time", ("TIME",), lambda reply: int(reply[0]) + int(reply[1]) / 1e6, keys=())


def read_type(key: str) -> Operation[str]:
    """Read the type of a key, `none` if it does not exist."""
    return command("read_type", ("TYPE", key), replies.text)


def count_members(key: str) -> Operation[int]:
    """Count the members of a sorted set."""
    return command("count_members", ("ZCARD", key), replies.integer)


def message_size(key: str) -> Operation[int]:
    """Read the size of a task's message in bytes, 0 if it has none."""
    return command("message_size", ("HSTRLEN", key, "msg"), replies.integer)


def try_evalsha() -> Operation[None]:
    """Run a script that does nothing by its SHA-1, to check the right to run scripts."""
    return Operation("try_evalsha", Script("nothing", _nothing_sha(), (_NOTHING,)), (), (), replies.nothing)


def try_eval() -> Operation[None]:
    """Run a script that does nothing by its text, to check the right to load scripts into a server."""
    return command("try_eval", ("EVAL", _NOTHING, 0), replies.nothing, keys=())


def try_script() -> Operation[None]:
    """Ask one server whether it has a script. Checks the right to do so."""
    return command("try_script", ("SCRIPT", "EXISTS", _nothing_sha()), replies.nothing, keys=())


def try_wait(key: str) -> Operation[None]:
    """Wait a moment for a list that does not exist, as an idle worker waits."""
    return command("try_wait", ("BLPOP", key, _MOMENT), replies.nothing, block_s=float(_MOMENT))


def try_watch(key: str) -> Operation[None]:
    """Wait a moment for a list that does not exist, as `watch_pending` waits."""
    words = ("BLMOVE", key, key, "RIGHT", "RIGHT", _MOMENT)
    return command("try_watch", words, replies.nothing, block_s=float(_MOMENT))


def try_write(absent_key: str) -> Operation[None]:
    """Delete a key that does not exist, to check whether Redis accepts writes."""
    return command("try_write", ("DEL", absent_key), replies.nothing)


def try_commands(absent_key: str, channel: str) -> Operation[dict[str, str]]:
    """Try the commands that scripts use on a key that does not exist, and publish an empty message on the channel.

    The answer has the error text of each refused command, by command.
    """
    return script("try_commands", (absent_key,), (channel,), replies.texts)


def whoami() -> Operation[str]:
    """Read the name of the user of this connection."""
    return command("whoami", ("ACL", "WHOAMI"), replies.text, keys=())


def cluster_info() -> Operation[dict[str, str]]:
    """Read the state of the cluster as one node sees it."""

    def read(reply: Any) -> dict[str, str]:
        pairs = (line.partition(":") for line in replies.text(reply).splitlines())
        return {name: value for name, colon, value in pairs if colon}

    return command("cluster_info", ("CLUSTER", "INFO"), read, keys=())


class SurveyedKey(Struct, frozen=True):
    """A key that the survey found, with its type and expiry.

    Attributes:
        key: Name of the key.
        kind: Type of the key.
        ttl_ms: Milliseconds until the key expires, -1 if it never does.
        about: Further facts about locks, counters and sorted sets, see `survey.lua`.
    """

    key: str
    kind: str
    ttl_ms: int
    about: str


class Surveyed(Struct):
    """Answer of `survey`: the keys that were found, and the cursor of the next call.

    Attributes:
        cursor: Cursor of the next call, "0" at the end.
        heads: Key prefixes of queues with healthy tasks.
        keys: All keys except those of healthy tasks.
    """

    cursor: str
    heads: list[str]
    keys: list[SurveyedKey]


def _read_surveyed(reply: Any) -> Surveyed:
    words = iter(reply[2])
    return Surveyed(
        replies.text(reply[0]),
        replies.names(reply[1]),
        [
            SurveyedKey(replies.name(key), replies.text(kind), int(ttl_ms), replies.name(about))
            for key, kind, ttl_ms, about in zip(words, words, words, words, strict=True)
        ],
    )


def survey(pattern: str, *, cursor: str = "0", count: int = SURVEY_MAX) -> Operation[Surveyed]:
    """Read about `count` keys of one server that match a pattern. In a cluster, send it to each primary."""
    return script("survey", (), (cursor, pattern, count), _read_surveyed)


def read_index(key: str, *, skip: int, count: int) -> Operation[list[str]]:
    """Read members of a sorted set, the lowest first."""
    words = ("ZRANGE", key, skip, skip + count - 1)
    return command("read_index", words, replies.names)


def _nothing_sha() -> str:
    return hashlib.sha1(_NOTHING.encode(), usedforsecurity=False).hexdigest()
