"""The entries of a running scheduler: what the application and its providers say, and how far each has come."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskq_core.broker.operations.schedules import Mark
from taskq_core.scheduler.due import due_firings, next_firing
from taskq_core.tasks.periodic import CatchUp, PeriodicTask
from taskq_core.wire import Keys, QueueKeys, SchedulerEntry
from taskq_core.wire.cron import Schedule
from taskq_core.wire.durations import NS_PER_S

logger = logging.getLogger("taskq.scheduler")


@dataclass(slots=True, eq=False)
class Entry:
    """One entry, and how far it has come."""

    task: PeriodicTask
    schedule: Schedule
    queue: QueueKeys
    """Queue of its tasks, which keeps its mark as well."""
    key: str
    """Its name in the key of its mark: id and a digest of schedule and task. With other ones it begins anew."""
    mark: Mark | None = None
    """How far it has come; None while that is not known."""
    next_s: int | None = None
    """When it has to be looked at, Unix s: its next firing. None: never."""
    origin: Sequence[Any] = ()
    """What traces of its tasks link to: where it was taken up."""
    is_held: bool = False
    """Whether it was paused at run time."""

    @property
    def is_paused(self) -> bool:
        """Whether it enqueues nothing."""
        return self.is_held or self.task.is_paused

    def move(self, mark: Mark) -> None:
        """Take note of how far it has come."""
        self.mark = mark
        self.next_s = self.schedule.next_after(mark.at_s)

    def due(self, now_s: int, limit: int) -> list[int]:
        """Return the firings to enqueue now."""
        if self.mark is None or self.next_s is None or self.next_s > now_s:
            return []
        firings = due_firings(
            self.schedule,
            self.mark.at_s,
            now_s,
            catch_up=CatchUp.SKIP if self.is_paused else self.task.catch_up,
            window_s=self.task.window_s,
            limit=limit,
        )
        if not firings:  # all that is due is left out; the mark moves on with the next that is not
            self.next_s = next_firing(self.schedule, self.mark.at_s, now_s)
        return firings

    def describe(self, now_s: int) -> SchedulerEntry:
        """Return what tools are shown."""
        mark = self.mark
        upcoming_s = None if mark is None or self.is_paused else next_firing(self.schedule, mark.at_s, now_s)
        return SchedulerEntry(
            id=self.task.id,
            spec=self.schedule.text,
            task_type=self.task.call.task.name,
            task_payload=self.task.payload,
            enqueue_options=self.task.option_strings,
            next_enqueue_time_ns=None if upcoming_s is None else upcoming_s * NS_PER_S,
            prev_enqueue_time_ns=None if mark is None or mark.enqueued_s is None else mark.enqueued_s * NS_PER_S,
        )


class EntryBook:
    """All entries by id, and what changes them.

    Args:
        keys: Key names.
        zone: Time zone of cron lines that name none.
        registered: Told of each entry that is taken up; returns what traces of its tasks link to.
    """

    def __init__(
        self, keys: Keys, *, zone: str, registered: Callable[[Entry], Sequence[Any]] = lambda entry: ()
    ) -> None:
        self._keys = keys
        self._zone = zone
        self._registered = registered
        self._sources: dict[int, Mapping[str, PeriodicTask]] = {}
        self._held: frozenset[str] = frozenset()
        self.entries: dict[str, Entry] = {}
        self.by_queue: dict[QueueKeys, list[Entry]] = {}
        """The entries by the queue of their tasks."""
        self.digest = ""
        """Names the set of entries: equal on schedulers with equal entries."""
        self.removed: list[PeriodicTask] = []
        """Entries that went since somebody asked."""

    def replace(self, source: int, tasks: Iterable[PeriodicTask]) -> None:
        """Take what a source says now in place of what it said before. The source of the smallest number wins an id.

        Raises:
            ConfigurationError: The time zone of an entry is not usable; nothing was changed.
        """
        given: dict[str, PeriodicTask] = {}
        for task in tasks:
            if task.id in given:
                logger.error("two periodic tasks of one provider have the id %s; the first counts", task.id)
            given.setdefault(task.id, task)
            task.schedule(self._zone)
        self._sources[source] = given
        self._merge()

    def hold(self, ids: frozenset[str]) -> None:
        """Pause these entries, and let all others go on."""
        self._held = ids
        for each in self.entries.values():
            each.is_held = each.task.id in ids

    def _merge(self) -> None:
        wanted: dict[str, PeriodicTask] = {}
        for _, given in sorted(self._sources.items()):
            for task in given.values():
                if task.id in wanted:
                    logger.error("the id %s of a provided periodic task is taken; that task is left out", task.id)
                wanted.setdefault(task.id, task)
        entries: dict[str, Entry] = {}
        for task in wanted.values():
            known = self.entries.get(task.id)
            if known is None or not known.task.is_same(task):
                entry = self._build(task)
                if known is not None and known.mark and (known.key, known.queue.name) == (entry.key, entry.queue.name):
                    entry.move(known.mark)
                known = entry
                logger.info("periodic task %s: %s at %s", task.id, task.call.task.name, entry.schedule.text)
            entries[task.id] = known
        for entry_id, entry in self.entries.items():
            if entry_id not in entries:
                logger.info("periodic task %s is gone", entry_id)
                self.removed.append(entry.task)
        self.entries, self.by_queue = entries, {}
        for each in entries.values():
            self.by_queue.setdefault(each.queue, []).append(each)
        names = sorted(f"{each.queue.name}\n{each.key}\n{each.task.payload!r}" for each in entries.values())
        self.digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]

    def _build(self, task: PeriodicTask) -> Entry:
        schedule = task.schedule(self._zone)
        when = hashlib.sha256(f"{schedule.text}\n{task.call.task.name}".encode()).hexdigest()[:8]
        entry = Entry(task, schedule, self._keys.queue(task.call.task.options.queue), f"{task.id}:{when}")
        entry.is_held = task.id in self._held
        entry.origin = self._registered(entry)
        return entry

    def take_removed(self) -> list[PeriodicTask]:
        """Return the entries that went since the last call and are not back."""
        removed, self.removed = self.removed, []
        return [task for task in removed if task.id not in self.entries]
