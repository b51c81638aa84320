"""The schedule entries of a running scheduler, each with its mark: its last firing that was handled."""

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping

from msgspec import Struct

from taskq_core.broker.operations.schedules import Mark
from taskq_core.scheduler.due import due_firings, next_firing
from taskq_core.tasks.periodic import CatchUp, PeriodicTask
from taskq_core.wire import Keys, QueueKeys, SchedulerEntry
from taskq_core.wire.cron import Schedule
from taskq_core.wire.durations import NS_PER_S

logger = logging.getLogger("taskq.scheduler")


class Entry(Struct, eq=False):
    """One schedule entry, with its mark: the last firing that was handled."""

    task: PeriodicTask
    schedule: Schedule
    queue: QueueKeys
    """Queue to which the entry's task is enqueued. The mark is stored under the keys of this queue."""
    key: str
    """Field of its mark in Redis: the id, and a digest of schedule and task name. With a changed schedule, the entry
    gets a new mark."""
    mark: Mark | None = None
    """The last firing of the entry that was handled. None until the mark is read from Redis."""
    next_s: int | None = None
    """Time of the next firing to handle, Unix s. None: the schedule has ended, or the mark was not read yet."""
    is_held: bool = False
    """True while the entry is paused at run time."""
    put_off_until: float = -math.inf
    """Monotonic time before which the entry's firings are not tried again, because its middleware hung."""

    @property
    def is_paused(self) -> bool:
        """Whether the entry is paused at run time or in its definition. A paused entry enqueues nothing."""
        return self.is_held or self.task.is_paused

    def move(self, mark: Mark) -> None:
        """Set the mark of the entry, and compute its next firing after the mark."""
        self.mark = mark
        self.next_s = self.schedule.next_after(mark.at_s)

    def due(self, now_s: int, limit: int) -> list[int]:
        """Return the times of the firings to enqueue now, at most `limit`, as the catch-up policy chooses."""
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
        if not firings:  # the catch-up policy skips all due firings
            self.next_s = next_firing(self.schedule, self.mark.at_s, now_s)
        return firings

    def describe(self, now_s: int) -> SchedulerEntry:
        """Return the entry in the form that tools read."""
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
    """Merges the schedule entries of all sources (code, providers, tables, run time) by id.

    Args:
        keys: Key names.
        zone: Time zone of cron lines that do not name a zone.
    """

    def __init__(self, keys: Keys, *, zone: str) -> None:
        self._keys = keys
        self._zone = zone
        self._sources: dict[int, Mapping[str, PeriodicTask]] = {}
        self._held: frozenset[str] = frozenset()
        self.entries: dict[str, Entry] = {}
        self.by_queue: dict[QueueKeys, list[Entry]] = {}
        """The entries, grouped by the queue of their tasks."""
        self.digest = ""
        """Digest of all entries. Schedulers with the same digest compete for one leader lease."""

    def replace(self, source: int, tasks: Iterable[PeriodicTask]) -> None:
        """Replace the entries of a source. If two sources use the same id, the source with the smaller number wins.

        Raises:
            ConfigurationError: An entry has an unusable time zone. Nothing was changed.
        """
        given: dict[str, PeriodicTask] = {}
        for task in tasks:
            if task.id in given:
                logger.error(
                    "a provider returned several periodic tasks with the id %s; only the first is used", task.id
                )
            given.setdefault(task.id, task)
            task.schedule(self._zone)
        self._sources[source] = given
        self._merge()

    def hold(self, ids: frozenset[str]) -> None:
        """Set which entries are paused at run time: pause the entries with these ids, and resume all others."""
        self._held = ids
        for each in self.entries.values():
            each.is_held = each.task.id in ids

    def _merge(self) -> None:
        wanted: dict[str, PeriodicTask] = {}
        for _, given in sorted(self._sources.items()):
            for task in given.values():
                if task.id in wanted:
                    logger.error(
                        "a periodic task from a provider is skipped, because its id %s is already in use", task.id
                    )
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
        for entry_id in self.entries.keys() - entries.keys():
            logger.info("periodic task %s was removed", entry_id)
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
        return entry
