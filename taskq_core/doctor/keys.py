"""What is wrong with single keys: of another type, never expiring or about to, left behind or listed nowhere.

Pure functions from what a survey read to damage, each with the remedy that would repair it. What is wrong with tasks
and their structures is checked by `taskq_core.repair.reconcile`.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from taskq_core.broker.operations import upkeep
from taskq_core.broker.operations.upkeep import Remedy, SurveyedKey, Tending
from taskq_core.wire import Keys, QueueKeys
from taskq_core.wire.samples import LEVELS
from taskq_core.wire.tallies import HOUR_S, HOURS_KEPT, TOTALS_KEPT_S

DAY_S = 86_400


class KeyKind(StrEnum):
    """What is wrong with a key."""

    UNREGISTERED_QUEUE = "unregistered_queue"
    """A queue has tasks, and its name is not among those of all queues. The name is put there."""
    LEAKED_LOCK = "leaked_lock"
    """The task that holds a unique lock is gone, or has ended. The lock is deleted."""
    ENDLESS = "endless"
    """A key that has to expire never does. It gets the longest time that such a key lives."""
    EXPIRING = "expiring"
    """A key that has to stay would expire. It stays."""
    MISPLACED = "misplaced"
    """A key is of another type than stands under such a name. It is moved to a key of its own, as it is."""
    NO_NUMBER = "no_number"
    """A counter holds no number. It is moved to a key of its own, as it is, and counting begins anew."""
    STALE_PRESENCE = "stale_presence"
    """A worker or scheduler is listed as alive and tells nothing of itself. It is taken off the list."""
    NOT_QUARANTINED = "not_quarantined"
    """A task is listed as set aside and is not there. It is taken off the list."""
    QUARANTINE_NOT_LISTED = "quarantine_not_listed"
    """A task was set aside and is not listed. It is put there."""
    COMBINED_NOT_LISTED = "combined_not_listed"
    """Members of a set that became one task are to be deleted, and the set is not listed. It is put there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDamage:
    """One key that is not as it should be.

    Attributes:
        kind: What is wrong.
        queue: Name of the queue it belongs to, "" for none.
        key: The key; of what is listed wrongly, that which is listed.
        detail: How it stands, as the rest of a sentence.
        remedy: What would repair it; None where that is no matter of one cluster slot.
        index: The index that lists it wrongly, "" for none.
    """

    kind: KeyKind
    queue: str
    key: str
    detail: str
    remedy: Tending | None = None
    index: str = ""


@dataclass(frozen=True, slots=True)
class _Form:
    """What keys of one name are like: their type, and the longest time they live (seconds; None: they stay)."""

    pattern: re.Pattern[str]
    kind: str
    lives_s: int | None = None
    is_counter: bool = False
    may_expire: bool = False


def _form(pattern: str, kind: str, **more: Any) -> _Form:
    return _Form(re.compile(pattern, re.DOTALL), kind, **more)


_OF_A_QUEUE = (
    _form("unique:.*", "string", lives_s=DAY_S),
    _form("(processed|failed)", "string", is_counter=True),
    _form(r"(processed|failed):\d{4}-\d\d-\d\d", "string", lives_s=90 * DAY_S, is_counter=True),
    _form("(pending|active)", "list"),
    _form("(lease|scheduled|retry|archived|completed|aggregation_sets)", "zset"),
    _form("groups", "set"),
    _form("t:.*", "hash"),
    _form("g:.*", "zset"),
)
_OF_A_QUEUE_OURS = (
    _form("wake", "list"),
    _form("(quarantine|moving|combined|combined:.*|letters)", "zset"),
    _form("quarantine:.*", "hash"),
    _form("moved", "zset", lives_s=30 * DAY_S),
    _form("rcpt:.*", "string", lives_s=120),
    _form("unconfirmed:.*", "string", lives_s=3600),
    _form("look:.*", "string", lives_s=600),
    _form("call:.*", "string", lives_s=3600),
    _form("leader:.*", "string", lives_s=60),
    _form("tick:.*", "string", lives_s=90 * DAY_S),
    _form("urgent", "zset", lives_s=7 * DAY_S),
    _form("runs", "hash", lives_s=90 * DAY_S),
    *(_form(f"samples:{level.step_s}", "list", lives_s=level.span_s) for level in LEVELS),
    _form(r"tally:\d+", "hash", lives_s=HOURS_KEPT * HOUR_S),
    _form("totals", "hash", lives_s=TOTALS_KEPT_S),
    _form("wf-(steps|out|receipts|running|open|ended)", "zset"),
    _form("wf-notes", "hash"),
    _form("wf-queues", "set"),
    _form("wf-cancelled:.*", "string", lives_s=30 * DAY_S),
    _form(r"wf:[^:]+(:[hgfx]\d+)?", "hash", may_expire=True),  # while it is stored in parts
    _form(r"wf:[^:]+:d\d+", "string"),
    _form("wf:[^:]+:q", "set"),
    _form("limits", "hash"),
    _form("lim:(due|check)", "zset"),
    _form("lim:keepers", "zset", lives_s=60),
    _form("lim:[hw]:.*", "zset"),
    _form("lim:r:.*", "hash", may_expire=True),
    _form("lim:wake", "list"),
)
_GLOBAL = (
    _form("queues", "set"),
    _form("(servers|workers|schedulers)", "zset"),
    _form(r"servers:\{.*\}", "string", lives_s=60),
    _form(r"workers:\{.*\}", "hash", lives_s=60),
    _form(r"schedulers:\{.*\}", "list", lives_s=60),
    _form("(scheduler_history|sema):.*", "zset", may_expire=True),  # those of Go do not, ours do
)
_GLOBAL_OURS = (_form("scheduler:leader:.*", "string", lives_s=60),)
_HAS_TASKS = re.compile("(pending|active|lease|scheduled|retry|archived|completed|groups|aggregation_sets|t:.*|g:.*)")
_STRUCTURES = re.compile(
    "(pending|active|lease|scheduled|retry|archived|completed|groups|aggregation_sets|paused|processed|failed|t:.*|g:.*|unique:.*)"
)
"""Asynq's keys whose type `reconcile` looks at."""
_STRUCTURES_OURS = re.compile("(wake|quarantine|combined|moving|moved)")


@dataclass(slots=True)
class Census:
    """What a survey of all keys found.

    Attributes:
        damage: Keys that are not as they should be.
        with_tasks: Names of queues that have tasks.
        kept: Keys of things that were moved aside earlier, by queue.
        removed: Queues whose removal was begun and not ended.
        read_at: When it was made, in seconds of the monotonic clock.
    """

    damage: list[KeyDamage]
    with_tasks: set[str]
    kept: dict[str, list[str]]
    removed: set[str]
    read_at: float = 0.0


class Surveyor:
    """Judges keys as they are read.

    Args:
        keys: Key names.
        at_ns: Time that the places tell to which keys would be moved, Unix ns.
    """

    def __init__(self, keys: Keys, *, at_ns: int) -> None:
        self._keys = keys
        self._at_ns = at_ns
        example = keys.queue("")
        self._prefix = f"{keys.prefix}:"
        self._own_prefix = example.own_prefix.removesuffix("{}:")
        self.census = Census(damage=[], with_tasks=set(), kept={}, removed=set())

    @property
    def patterns(self) -> list[str]:
        """Patterns that all keys match."""
        prefixes = {self._prefix, self._own_prefix}
        return [escaped(each) + "*" for each in prefixes if not any(each != o and each.startswith(o) for o in prefixes)]

    def note(self, found: upkeep.Surveyed) -> None:
        """Judge some keys."""
        for head in found.heads:
            name = self._queue_of(head + "t:")
            if name is not None:
                self.census.with_tasks.add(name[0].name)
        for each in found.keys:
            self._note_key(each)

    def finish(self, registered: Collection[str]) -> Census:
        """Return the census, given the names of queues that are listed."""
        for name in sorted(self.census.with_tasks - set(registered)):
            detail = "it has tasks, and its name is not listed: the name is put there"
            damage = KeyDamage(kind=KeyKind.UNREGISTERED_QUEUE, queue=name, key=self._keys.queues, detail=detail)
            self.census.damage.append(damage)
        return self.census

    def _queue_of(self, key: str) -> tuple[QueueKeys, str, bool] | None:
        """Return the queue of a key, the rest of the key, and whether it is one of ours; None if it is not certain."""
        for prefix, is_own in ((self._own_prefix, True), (self._prefix, False)):
            start = prefix + "{"
            if key.startswith(start) and key.count("}:") == 1:
                name, _, rest = key.removeprefix(start).partition("}:")
                return self._keys.queue(name), rest, is_own
        return None

    def _note_key(self, each: SurveyedKey) -> None:
        found = self._queue_of(each.key)
        if found is not None:
            queue, rest, is_own = found
            if is_own:
                self._note_own(queue, rest, each)
            elif _HAS_TASKS.fullmatch(rest):
                self.census.with_tasks.add(queue.name)
            forms = _OF_A_QUEUE_OURS if is_own else _OF_A_QUEUE
            is_structure = (_STRUCTURES_OURS if is_own else _STRUCTURES).fullmatch(rest) is not None
            self.census.damage += self._judge(each, rest, forms, queue, is_structure=is_structure)
            self.census.damage += _special(each, rest, queue, is_own=is_own, at_ns=self._at_ns)
        elif each.key.startswith(self._own_prefix):
            self.census.damage += self._judge(each, each.key.removeprefix(self._own_prefix), _GLOBAL_OURS, None)
        elif each.key.startswith(self._prefix):
            self.census.damage += self._judge(each, each.key.removeprefix(self._prefix), _GLOBAL, None)

    def _note_own(self, queue: QueueKeys, rest: str, each: SurveyedKey) -> None:
        if rest.startswith("strange:"):
            self.census.kept.setdefault(queue.name, []).append(each.key)
        elif rest.startswith("removed:"):
            self.census.removed.add(queue.name)

    def _judge(
        self,
        each: SurveyedKey,
        rest: str,
        forms: Sequence[_Form],
        queue: QueueKeys | None,
        *,
        is_structure: bool = False,
    ) -> Iterator[KeyDamage]:
        form = next((form for form in forms if form.pattern.fullmatch(rest)), None)
        if form is None:
            return
        name = "" if queue is None else queue.name
        place = strange_place(each.key, queue, self._at_ns)
        if each.kind != form.kind:
            if not is_structure:  # else it is reconcile's
                yield KeyDamage(
                    kind=KeyKind.MISPLACED,
                    queue=name,
                    key=each.key,
                    detail=f"it is a {each.kind}: it is moved to {place}",
                    remedy=Tending(Remedy.ASIDE, each.key, place, each.kind),
                )
        elif form.is_counter and each.about == "0":
            yield KeyDamage(
                kind=KeyKind.NO_NUMBER,
                queue=name,
                key=each.key,
                detail=f"it holds no number: it is moved to {place}, and counting begins anew",
                remedy=Tending(Remedy.COUNTER, each.key, place, ""),
            )
        elif form.lives_s is None and each.ttl_ms >= 0 and not form.may_expire:
            yield KeyDamage(
                kind=KeyKind.EXPIRING, queue=name, key=each.key, detail="it would expire and has to stay: it stays"
            )
        elif (
            form.lives_s is not None
            and each.ttl_ms < 0
            and not (rest.startswith("unique:") and each.about[:1] in ("0", "2"))  # left behind, or without an end
        ):
            yield KeyDamage(
                kind=KeyKind.ENDLESS,
                queue=name,
                key=each.key,
                detail=f"it would never expire: it does in {form.lives_s} s",
                remedy=Tending(Remedy.EXPIRE, each.key, each.key, form.lives_s),
            )


def _special(each: SurveyedKey, rest: str, queue: QueueKeys, *, is_own: bool, at_ns: int) -> Iterator[KeyDamage]:
    if not is_own:
        if rest.startswith("unique:") and each.about[:1] == "0":
            holder = each.about[1:]
            yield KeyDamage(
                kind=KeyKind.LEAKED_LOCK,
                queue=queue.name,
                key=each.key,
                detail=f"task {holder!r}, which holds it, is gone or has ended: it is deleted",
                remedy=Tending(Remedy.UNLOCK, each.key, queue.task(holder), holder),
            )
    elif rest == "quarantine" and each.kind == "zset":
        for task_id in filter(None, each.about.split("\n")):
            yield KeyDamage(
                kind=KeyKind.NOT_QUARANTINED,
                queue=queue.name,
                key=queue.quarantined(task_id),
                detail="it is listed as set aside, and is not there: it is taken off the list",
                remedy=Tending(Remedy.UNLIST, each.key, queue.quarantined(task_id), task_id),
            )
    elif each.about == "0" and rest.startswith(("quarantine:", "combined:")):
        listing, _, member = rest.partition(":")
        kind = KeyKind.QUARANTINE_NOT_LISTED if listing == "quarantine" else KeyKind.COMBINED_NOT_LISTED
        yield KeyDamage(
            kind=kind,
            queue=queue.name,
            key=each.key,
            detail=f"it is not listed in {queue.own_prefix}{listing}: it is put there",
            remedy=Tending(Remedy.LIST, queue.own_prefix + listing, each.key, member),
        )


def strange_place(key: str, queue: QueueKeys | None, at_ns: int) -> str:
    """Return where what stands at a key is moved to: a key of the same cluster slot, of which nothing is read."""
    if queue is not None:
        return queue.strange(key, at_ns)
    return f"{key}:strange:{at_ns}" if "{" in key else f"{{{key}}}:strange:{at_ns}"


def absent_beside(damage: KeyDamage, keys: Keys) -> str:
    """Return a key that never exists, on the cluster slot of a damaged one."""
    return keys.queue(damage.queue).absent if damage.queue else strange_place(damage.key, None, 0)


def escaped(text: str) -> str:
    """Return a text as it stands for itself in a pattern."""
    return "".join(f"\\{each}" if each in "*?[]\\^-" else each for each in text)
