"""Check the type and expiry of every key, and whether every queue with tasks is in the list of queues.

The functions are pure and check the results of a scan of all keys. `taskq_core.repair.reconcile` checks tasks and
their structures.
"""

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from taskq_core.broker.operations.diagnosis import Surveyed, SurveyedKey
from taskq_core.broker.operations.operation import escape_pattern
from taskq_core.wire import Keys, QueueKeys
from taskq_core.wire.samples import LEVELS
from taskq_core.wire.tallies import HOUR_S, HOURS_KEPT, TOTALS_KEPT_S

DAY_S = 86_400
STAYS = 0
"""Expiry rule: the key must not expire."""
ANY = -1
"""Expiry rule: the key may have an expiry or none."""


class KeyKind(StrEnum):
    """Kind of problem of a Redis key.

    A failover of one node of a cluster can lose the entry of a queue in the list of queues, and `doctor --fix` adds
    it again. Nothing that taskq, Go or Redis does produces the other kinds, so they are only reported.
    """

    UNREGISTERED_QUEUE = "unregistered_queue"
    """A queue has tasks, and the list of queues does not contain its name."""
    ENDLESS = "endless"
    """A key has no expiry, but must have one."""
    EXPIRING = "expiring"
    """A key has an expiry, but must not have one."""
    MISPLACED = "misplaced"
    """A key has an unexpected type."""
    NO_NUMBER = "no_number"
    """The value of a counter is not a number."""
    INFINITE_TIME = "infinite_time"
    """A member of a sorted set has the time +inf. `reconcile` repairs this in the sorted sets of tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDamage:
    """One Redis key with a problem.

    Attributes:
        kind: The problem.
        queue: Name of its queue, or "".
        key: The key.
        detail: Details of the problem, as the end of a sentence.
        advice: What to do.
    """

    kind: KeyKind
    queue: str
    key: str
    detail: str
    advice: str


Form = tuple[str, str, int]
"""Rule for keys: the pattern of their names, their type, and their expiry: a maximum in seconds, `STAYS` or `ANY`."""

_OF_A_QUEUE: Sequence[Form] = (
    ("unique:.*", "string", DAY_S),
    ("(processed|failed)", "string", STAYS),
    (r"(processed|failed):\d{4}-\d\d-\d\d", "string", 90 * DAY_S),
    ("(pending|active)", "list", STAYS),
    ("(lease|scheduled|retry|archived|completed|aggregation_sets|g:.*)", "zset", STAYS),
    ("groups", "set", STAYS),
    ("t:.*", "hash", STAYS),
)
_OF_A_QUEUE_OURS: Sequence[Form] = (
    ("(wake|lim:wake)", "list", STAYS),
    ("(quarantine|combined|combined:.*|letters|questions|lim:(due|check|[hw]:.*))", "zset", STAYS),
    ("wf-(steps|failed|out|receipts|running|open|ended)", "zset", STAYS),
    ("(quarantine:.*|wf-notes|limits)", "hash", STAYS),
    ("(wf-queues|wf:[^:]+:q)", "set", STAYS),
    (r"wf:[^:]+:d\d+", "string", STAYS),
    ("rcpt:.*", "string", 120),
    ("(unconfirmed|call):.*", "string", 3600),
    ("leader:.*", "string", 60),
    ("tick:.*", "string", 90 * DAY_S),
    ("urgent", "zset", 7 * DAY_S),
    ("runs", "hash", 90 * DAY_S),
    *((f"samples:{level.step_s}", "list", level.span_s) for level in LEVELS),
    (r"tally:\d+", "hash", HOURS_KEPT * HOUR_S),
    ("totals", "hash", TOTALS_KEPT_S),
    ("wf-cancelled:.*", "string", 30 * DAY_S),
    ("steps:.*", "hash", 36_600 * DAY_S),
    ("stream:.*", "stream", 90 * DAY_S),
    ("lim:keepers", "zset", 60),
    (r"(wf:[^:]+(:[hgfx]\d+)?|lim:r:.*)", "hash", ANY),
)
_GLOBAL: Sequence[Form] = (
    ("queues", "set", STAYS),
    ("(servers|workers|schedulers)", "zset", STAYS),
    (r"servers:\{.*\}", "string", 60),
    (r"workers:\{.*\}", "hash", 60),
    (r"schedulers:\{.*\}", "list", 60),
    ("(scheduler_history|sema):.*", "zset", ANY),
)
_GLOBAL_OURS: Sequence[Form] = (("scheduler:leader:.*", "string", 60), ("peers:.*", "hash", 180))
_STRUCTURES = "pending|active|lease|scheduled|retry|archived|completed|groups|aggregation_sets|t:.*|g:.*"
_RECONCILED = {
    False: re.compile(f"({_STRUCTURES}|processed|failed|unique:.*)", re.DOTALL),
    True: re.compile("(wake|quarantine|combined|delivered)"),
}
"""Keys of a queue whose type `reconcile` checks: Asynq's keys (False) and taskq-only keys (True)."""


@dataclass(slots=True)
class Census:
    """The result of a survey of all keys.

    Attributes:
        damage: Damaged keys.
        with_tasks: Names of queues that have tasks.
        moved_aside: Keys that an earlier repair renamed because of a wrong type, by queue.
        removed: Queues whose removal was started and not finished.
    """

    damage: list[KeyDamage]
    with_tasks: set[str]
    moved_aside: dict[str, list[str]]
    removed: set[str]


class Surveyor:
    """Checks the scanned Redis keys one by one, and collects damaged ones in a census.

    Args:
        keys: Key names of the installation.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._prefix = f"{keys.prefix}:"
        self._own_prefix = keys.queue("").own_prefix.removesuffix("{}:")
        self.census = Census(damage=[], with_tasks=set(), moved_aside={}, removed=set())

    @property
    def patterns(self) -> list[str]:
        """Patterns that match all keys of taskq and Asynq."""
        prefixes = {self._prefix, self._own_prefix}
        return [
            escape_pattern(each) + "*"
            for each in prefixes
            if not any(each != o and each.startswith(o) for o in prefixes)
        ]

    def check(self, found: Surveyed) -> None:
        """Check the keys of one step of the scan, and add damaged ones to the census."""
        for head in found.heads:
            name = self._queue_of(head + "t:")
            if name is not None:
                self.census.with_tasks.add(name[0].name)
        for each in found.keys:
            self._check_key(each)

    def finish(self, registered: Collection[str]) -> Census:
        """Add queues that are missing in `registered`, the list of queues, and return the census."""
        self.census.damage += [
            KeyDamage(
                kind=KeyKind.UNREGISTERED_QUEUE,
                queue=name,
                key=self._keys.queues,
                detail="the queue has tasks, but is not in the list of queues: its name is added",
                advice="taskq doctor --fix repairs this",
            )
            for name in sorted(self.census.with_tasks - set(registered))
        ]
        return self.census

    def _queue_of(self, key: str) -> tuple[QueueKeys, str, bool] | None:
        """Return the queue of a key, the rest of the key, and whether only taskq has such keys.

        Return None if the key is ambiguous.
        """
        for prefix, is_own in ((self._own_prefix, True), (self._prefix, False)):
            start = prefix + "{"
            if key.startswith(start) and key.count("}:") == 1:
                name, _, rest = key.removeprefix(start).partition("}:")
                return self._keys.queue(name), rest, is_own
        return None

    def _check_key(self, each: SurveyedKey) -> None:
        found = self._queue_of(each.key)
        if found is None:
            for prefix, forms in ((self._own_prefix, _GLOBAL_OURS), (self._prefix, _GLOBAL)):
                if each.key.startswith(prefix):
                    self.census.damage += _check(each, each.key.removeprefix(prefix), forms, "")
                    return
            return
        queue, rest, is_own = found
        if is_own and rest.startswith("strange:"):
            self.census.moved_aside.setdefault(queue.name, []).append(each.key)
        elif is_own and rest.startswith("removed:"):
            self.census.removed.add(queue.name)
        elif not is_own and re.fullmatch(_STRUCTURES, rest, re.DOTALL):
            self.census.with_tasks.add(queue.name)
        forms = _OF_A_QUEUE_OURS if is_own else _OF_A_QUEUE
        reconciled = _RECONCILED[is_own].fullmatch(rest)
        self.census.damage += _check(
            each,
            rest,
            forms,
            queue.name,
            is_type_checked=reconciled is not None,
            are_times_checked=reconciled is not None and not is_own,
        )


def _check(
    each: SurveyedKey,
    rest: str,
    forms: Iterable[Form],
    queue: str,
    *,
    is_type_checked: bool = False,
    are_times_checked: bool = False,
) -> Iterator[KeyDamage]:
    """Check a key. `reconcile` already checks the type of some keys, and the times in some sorted sets."""
    form = next((form for form in forms if re.fullmatch(form[0], rest, re.DOTALL)), None)
    if form is None:
        return
    _, kind, lives_s = form
    is_lock = rest.startswith("unique:")
    key = shlex.quote(each.key)
    wrong: tuple[KeyKind, str, str] | None = None
    if each.kind != kind:
        if not is_type_checked:
            detail = f"the key is a {each.kind} and should be a {kind}"
            wrong = KeyKind.MISPLACED, detail, f"delete the key: redis-cli UNLINK {key}"
    elif kind == "zset" and each.about not in ("", "0") and not are_times_checked:
        advice = f"remove these members: redis-cli ZREMRANGEBYSCORE {key} +inf +inf"
        wrong = KeyKind.INFINITE_TIME, f"the time of {each.about} members is infinite", advice
    elif kind == "string" and each.about == "0" and not is_lock:
        advice = f"delete the key, so that taskq counts from 0: redis-cli UNLINK {key}"
        wrong = KeyKind.NO_NUMBER, "the counter is not a number", advice
    elif lives_s == STAYS and each.ttl_ms >= 0:
        wrong = KeyKind.EXPIRING, "the key expires and should not", f"remove the expiry: redis-cli PERSIST {key}"
    # Some locks never expire ("2"), and `reconcile` releases stale locks ("0"). `survey.lua` explains these values.
    elif lives_s > 0 and each.ttl_ms < 0 and not (is_lock and each.about[:1] in ("0", "2")):
        detail = f"the key never expires and should within {lives_s} s"
        wrong = KeyKind.ENDLESS, detail, f"set an expiry: redis-cli EXPIRE {key} {lives_s}"
    if wrong is not None:
        advice = f"find the program that wrote the key, then {wrong[2]}"
        yield KeyDamage(kind=wrong[0], queue=queue, key=each.key, detail=wrong[1], advice=advice)
