"""Read the limits of a queue, and override them."""

from dataclasses import dataclass

from taskq_core.broker.operations import limits as limit_ops
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import ConfigurationError
from taskq_core.inspector.known import check_text, known_queue
from taskq_core.tasks.limits import Concurrency, RateLimit, as_rate_limit, shown_spec
from taskq_core.wire import Keys, QueueKeys
from taskq_core.wire.quoting import escape_limit_name, unescape_limit_name

_KINDS = {"s": "sequence", "c": "concurrency", "r": "rate"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitInfo:
    """A limit of a queue. If the limit has a key, the numbers of tasks are totals over all values of the key.

    Attributes:
        kind: `rate`, `concurrency` or `sequence`.
        name: Name of the limit: the name of the task unless the limit has another one. For a `Concurrency` with a key,
            the name ends with `/key`.
        declared: Value in the code of the workers, "" if it is unknown.
        changed: Value with which a user has overridden the limit, "" if it is not overridden.
        slots: Number of values of the limit's key that have running or waiting tasks.
        held: Number of running tasks. For a rate limit: number of tasks that may start but have not started.
        waiting: Number of waiting tasks.
    """

    kind: str
    name: str
    declared: str
    changed: str
    slots: int
    held: int
    waiting: int


def limits(keys: Keys, queue: str) -> RequestPlan[list[LimitInfo]]:
    """Return the limits of a queue, by kind and name of the limit, each with its running and its waiting tasks.

    Raises:
        QueueNotFoundError: No queue has this name.
    """
    queue_keys = yield from known_queue(keys, queue)
    numbers = yield from ask(limit_ops.read_limits(queue_keys))
    slots: dict[str, tuple[int, int]] = {}
    cursor = "0"
    while True:
        cursor, page = yield from ask(limit_ops.list_limits(queue_keys, cursor))
        slots |= page
        if cursor == "0":
            break
    found: dict[str, list[tuple[int, int]]] = {each[2:]: [] for each in numbers}
    for slot, sizes in slots.items():
        found.setdefault(_name_of(slot), []).append(sizes)
    return [
        LimitInfo(
            kind=_KINDS.get(each[0], each[0]),
            name=unescape_limit_name(each[2:]),
            declared=shown_spec(numbers.get(f"d:{each}", "")),
            changed=shown_spec(numbers.get(f"o:{each}", "")),
            slots=len(sizes),
            held=sum(held for held, _ in sizes),
            waiting=sum(waiting for _, waiting in sizes),
        )
        for each, sizes in sorted(found.items())
    ]


def _name_of(slot: str) -> str:
    return slot[:2] + slot[2:].partition(":")[0]


def set_limit(
    keys: Keys, queue: str, name: str, *, rate: RateLimit | str | None = None, concurrency: int | None = None
) -> RequestPlan[None]:
    """Override a limit of the code, for all workers and for tasks that already wait.

    Args:
        queue: Name of the queue.
        name: Name of the limit: usually the name of the task, followed by `/key` for a `Concurrency` with a key.
            "" is the `CONCURRENCY` of the queue itself.
        rate: Starts per period, such as "100/m", or a `RateLimit`, whose key, cost and name are ignored.
        concurrency: Number of tasks that may run at once, instead of `rate`.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: Neither or both of `rate` and `concurrency` are given, or the number is not positive.
    """
    if (rate is None) == (concurrency is None):
        raise ConfigurationError("set_limit needs either rate= or concurrency=, and not both")
    if concurrency is not None:
        kind, spec = "c", Concurrency(concurrency).spec
    else:
        checked = as_rate_limit(rate)
        assert checked is not None
        kind, spec = "r", checked.spec
    queue_keys = yield from known_queue(keys, queue)
    yield from _set(queue_keys, kind, name, spec)


def clear_limit(keys: Keys, queue: str, name: str) -> RequestPlan[bool]:
    """Remove the override of a limit. Return False if it had none.

    Raises:
        QueueNotFoundError: No queue has this name.
    """
    queue_keys = yield from known_queue(keys, queue)
    was_set = False
    for kind in ("c", "r"):
        was_set = (yield from _set(queue_keys, kind, name, "")) or was_set
    return was_set


def _set(queue: QueueKeys, kind: str, limit: str, spec: str) -> RequestPlan[bool]:
    """Set the value of a limit, and check all tasks that wait for it. Return whether another value was set before."""
    if limit != "":
        check_text("limit", limit)
    before = ""
    for checks in (False, True):
        cursor = "0"
        while True:
            step = limit_ops.set_limit(queue, f"{kind}:{escape_limit_name(limit)}", spec, checks=checks, cursor=cursor)
            cursor, found = yield from ask(step)
            before = before or (found if found != spec else "")
            if cursor == "0":
                break
    return before != ""
