"""Read the keys of idle queues that only taskq uses, as plain data for the invariants."""

from dataclasses import dataclass, field
from typing import Any

from taskq_core.wire import QueueKeys

ALWAYS = (
    "steps",
    *("absent", "call", "lim:due", "lim:check", "lim:keepers", "lim:wake", "leader", "limits", "letters", "moved"),
    *(
        "peers",
        "rcpt",
        "samples",
        "tally",
        "tick",
        "totals",
        "unconfirmed",
        "urgent",
        "wake",
        "wf-ended",
        "wf-failed",
        "wf-open",
        "wf-queues",
    ),
    *("wf-out", "wf-notes", "wf-receipts", "wf-running", "wf-steps"),
)
"""Keys that may exist. The content of some is checked separately."""
OF_DAMAGE = ("quarantine", "strange")
"""Keys that may exist in the queue that was damaged."""
EMPTY = ("letters", "wf-open", "wf-notes", "wf-out", "wf-running", "wf-steps", "lim:due")
"""Keys that must be empty in idle queues."""


@dataclass(slots=True, kw_only=True)
class Remains:
    """The content of taskq's additional keys of one queue.

    Attributes:
        left: For each key that must be empty and is not: up to ten members.
        holders, waiting: Ids of tasks that hold a permit of a limit, and of tasks that wait for one, by slot.
        held: Tokens of a rate limit that are reserved for pending tasks, by slot.
        workflows: Ids of workflows that have keys.
        kept: For each ended workflow: the seconds until it is deleted.
        unknown_keys: Keys that taskq does not define.
        locks_of_ended: Locks that should have been released when their task ended: the lock and the id of the task.
    """

    name: str
    left: dict[str, list[str]] = field(default_factory=dict)
    holders: dict[str, list[str]] = field(default_factory=dict)
    waiting: dict[str, list[str]] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)
    workflows: set[str] = field(default_factory=set)
    kept: dict[str, float] = field(default_factory=dict)
    unknown_keys: list[str] = field(default_factory=list)
    locks_of_ended: list[tuple[str, str]] = field(default_factory=list)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _some(client: Any, key: str) -> list[str]:
    match _text(client.type(key)):
        case "zset":
            return [_text(each) for each in client.zrange(key, 0, 9)]
        case "hash":
            return sorted(map(_text, client.hkeys(key)))[:10]
    return []


def read_remains(client: Any, keys: QueueKeys, now_s: float) -> Remains:
    """Read taskq's additional keys of a queue, which must be idle. `now_s`: Unix seconds."""
    found = Remains(name=keys.name)
    own = keys.own_prefix
    pattern = own.replace("[", "\\[") + "*"
    for name in sorted({_text(key) for key in client.scan_iter(match=pattern, count=1000)}):
        kind = name.removeprefix(own)
        if kind in EMPTY and (some := _some(client, name)):
            found.left[kind] = some
        elif kind.startswith("lim:h:"):
            found.holders[kind.removeprefix("lim:h:")] = _some(client, name)
        elif kind.startswith("lim:w:"):
            found.waiting[kind.removeprefix("lim:w:")] = _some(client, name)
        elif kind.startswith("lim:r:"):
            found.held[kind.removeprefix("lim:r:")] = float(client.hget(name, "held") or 0)
        elif kind.startswith("wf:"):
            found.workflows.add(kind.split(":")[1])
        elif not _is_known(kind, keys.name):
            found.unknown_keys.append(kind)
    for member, until_s in client.zrange(own + "wf-ended", 0, -1, withscores=True):
        found.kept[_text(member)] = until_s - now_s
    for name in client.scan_iter(match=keys.unique_prefix.replace("[", "\\[") + "*", count=1000):
        holder = _text(client.get(name) or b"")
        state, rule = client.hmget(keys.task(holder), "state", "taskq_unique")
        if _text(state or b"") in ("archived", "completed") and _text(rule or b"")[:1] in ("s", "f"):
            found.locks_of_ended.append((_text(name), holder))
    return found


def _is_known(kind: str, queue: str) -> bool:
    allowed = ALWAYS + (OF_DAMAGE if queue == "damaged" else ())
    return any(kind == each or kind.startswith((f"{each}:", f"{each}-")) for each in allowed)
