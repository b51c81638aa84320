"""Dump Redis as JSON, restore a dump, and make dumps comparable."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from taskq_core.errors import WireFormatError
from taskq_core.wire import decode_message, encode_message

Dump = Sequence[Mapping[str, Any]]

_PASSING = re.compile(
    r"asynq:(servers|workers|schedulers)(:.*)?|taskq:\{.*\}:(rcpt|call|leader|peers|samples|wake|lim:keepers|lim:wake)(:.*)?"
)
"""Keys that live for seconds, or contain samples of queues. They are not dumped."""


def dump(raw: Any) -> list[dict[str, Any]]:
    """Return every key with its type, value and time to live in seconds (None without expiry)."""
    found = []
    for key in sorted(raw.keys("*")):
        kind = raw.type(key).decode()
        left_s = raw.ttl(key)
        found.append(
            {
                "key": key.decode(),
                "type": kind,
                "ttl_s": None if left_s < 0 else left_s,
                "value": _READERS[kind](raw, key),
            }
        )
    return found


def load(raw: Any, dumped: Dump) -> None:
    """Restore the keys of a dump, with their remaining time to live."""
    for each in dumped:
        key, value = each["key"], each["value"]
        if each["type"] == "string":
            raw.set(key, as_bytes(value))
        elif each["type"] == "list":
            raw.rpush(key, *map(as_bytes, value))
        elif each["type"] == "set":
            raw.sadd(key, *map(as_bytes, value))
        elif each["type"] == "zset":
            raw.zadd(key, {as_bytes(member): score for member, score in value})
        else:
            raw.hset(key, mapping={as_bytes(name): as_bytes(text) for name, text in value})
        if each["ttl_s"] is not None:
            raw.expire(key, each["ttl_s"])


def comparable(dumped: Dump) -> list[str]:
    """Return a dump as lines in which times and random values are masked, to compare two runs of a scenario.

    Messages without times must match in every byte.
    """
    lines = []
    for each in dumped:
        if _PASSING.fullmatch(each["key"]):
            continue
        name = masked(each["key"])
        lines.append(f"{name} is a {each['type']}, expires: {each['ttl_s'] is not None}")
        if each["type"] == "hash":
            lines += [f"{name} {masked(_shown(field))} = {_field(name, field, text)}" for field, text in each["value"]]
        elif each["type"] == "zset":
            lines += [
                f"{name} has {masked(_shown(member))} at {masked(repr(score))}" for member, score in each["value"]
            ]
        elif each["type"] == "string":
            lines.append(f"{name} = {masked(_shown(each['value']))}")
        else:
            lines += [f"{name} has {masked(_shown(member))}" for member in each["value"]]
    return sorted(lines)


def _field(key: str, field: Any, text: Any) -> str:
    if field == "msg":
        return _message(as_bytes(text))
    if field == "taskq_attempts":
        return " ".join(str(sorted(json.loads(line))) for line in _shown(text).splitlines())
    if key.startswith("taskq:") and key.endswith((":totals", ":tally:<n>")):
        return f"{len(_shown(text).split())} numbers"
    return masked(_shown(text))


def _message(data: bytes) -> str:
    try:
        message = decode_message(data)
    except WireFormatError:
        return data.hex()
    times = [name for name in ("last_failed_at", "completed_at") if getattr(message, name)]
    for name in times:  # an attempt has ended
        setattr(message, name, 1)
    if times:
        data = encode_message(message)
    return masked(data.decode("utf-8", "backslashreplace"))


def masked(text: str) -> str:
    """Return a text in which ids and times, which differ between two runs, are masked."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>", text)
    text = re.sub(r"\b[0-9a-f]{16,}\b", "<hex>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d", "<day>", text)
    return re.sub(r"(?<!\d)\d{6,}(\.\d+)?", "<n>", text)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else bytes.fromhex(value["hex"]).decode("utf-8", "backslashreplace")


def text_of(data: bytes) -> Any:
    """Return bytes as text if they are readable, otherwise as hex."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        return {"hex": data.hex()}
    return text if text.isprintable() else {"hex": data.hex()}


def as_bytes(value: Any) -> bytes:
    """Return a value of a dump as bytes."""
    return value.encode() if isinstance(value, str) else bytes.fromhex(value["hex"])


_READERS: Mapping[str, Any] = {
    "string": lambda raw, key: text_of(raw.get(key)),
    "list": lambda raw, key: [text_of(each) for each in raw.lrange(key, 0, -1)],
    "set": lambda raw, key: [text_of(each) for each in sorted(raw.smembers(key))],
    "zset": lambda raw, key: [[text_of(member), score] for member, score in raw.zrange(key, 0, -1, withscores=True)],
    "hash": lambda raw, key: [[text_of(name), text_of(text)] for name, text in sorted(raw.hgetall(key).items())],
}
