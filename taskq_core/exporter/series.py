"""From readings to series: names, labels, and how many labels there may be.

The first part of the names are those of Asynq's own exporter, kinds and all: `asynq_tasks_enqueued_total` is a gauge.
What begins with `taskq_` is ours.
"""

import importlib.metadata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeVar

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from taskq_core.exporter.folding import Numbers, Places, Together
from taskq_core.exporter.reading import Reading
from taskq_core.wire import TaskState
from taskq_core.wire.tallies import BOUNDS_S, OTHER_TYPES, TypeCounters

OTHER = OTHER_TYPES
"""Label of what is told together."""
_STATES = (
    TaskState.ACTIVE,
    TaskState.PENDING,
    TaskState.SCHEDULED,
    TaskState.RETRY,
    TaskState.ARCHIVED,
    TaskState.COMPLETED,
    TaskState.AGGREGATING,
)
_LE = (*(str(float(bound)) for bound in BOUNDS_S), "+Inf")

K = TypeVar("K", bound=tuple[str, ...])


@dataclass(slots=True)
class _Sums:
    """What is told under one label `queue`."""

    sizes: dict[TaskState, int] = field(default_factory=lambda: dict.fromkeys(_STATES, 0))
    latency_s: float = 0.0
    memory: int | None = None
    paused: int = 0
    groups: int = 0
    limited: int = 0
    workers: int = 0
    slots: int = 0
    busy: int = 0


class Series:
    """Makes series of readings.

    Args:
        max_queues: Most queues that are told apart.
        max_types: Most pairs of queue and task type that are told apart.
    """

    def __init__(self, *, max_queues: int, max_types: int) -> None:
        self._queues: Places[str] = Places(max_queues)
        self._types: Places[tuple[str, str]] = Places(max_types)
        self._runs: Together[str, str] = Together()
        self._runs_of_types: Together[tuple[str, str], tuple[str, str]] = Together()
        self._unread: set[str] = set()
        self._untyped: set[str] = set()

    def families(self, reading: Reading) -> Iterator[Metric]:
        """Return the series of a reading."""
        whole = [each for each in reading.queues if not each.info.problem]
        damaged = {each.info.name for each in reading.queues if each.info.problem} | reading.refused.keys()
        names = sorted({each.info.name for each in reading.queues} | reading.refused.keys())
        own = self._queues.take(names)

        def label(name: str) -> str:
            return name if name in own else OTHER

        sums: dict[str, _Sums] = {}
        for each in whole:
            info, queue = each.info, label(each.info.name)
            into = sums.setdefault(queue, _Sums())
            for state, size in each.sizes.items():
                into.sizes[state] += size
            if info.latency is not None:
                into.latency_s = max(into.latency_s, info.latency.total_seconds())
            if each.memory is not None:
                into.memory = (into.memory or 0) + each.memory
            into.paused += info.is_paused
            into.groups += info.groups
            into.limited += info.limited
        for worker in reading.workers:
            for queue in {label(name) for name in worker.queues} & sums.keys():
                sums[queue].workers += 1
                sums[queue].slots += worker.slots
                sums[queue].busy += worker.busy
        runs: dict[str, Numbers] = {
            each.info.name: (float(each.info.processed), float(each.info.failed)) for each in whole
        }
        told = {name: numbers for name, numbers in runs.items() if label(name) != OTHER}
        told |= self._runs.sums(
            runs, lambda name: OTHER if label(name) == OTHER else None, lambda name: name in self._unread
        )
        of_types = {(each.info.name, name): _numbers(tally) for each in whole for name, tally in each.types.items()}
        pairs = {(label(queue), name) for queue, name in of_types}
        kept = self._types.take(sorted(pairs, key=lambda pair: (pair[0] == OTHER, pair)))

        def pair_of(source: tuple[str, str]) -> tuple[str, str]:
            pair = label(source[0]), source[1]
            return pair if pair in kept else (pair[0], OTHER)

        told_of_types = {pair: numbers for pair, numbers in of_types.items() if OTHER not in pair_of(pair)}
        told_of_types |= self._runs_of_types.sums(
            of_types,
            lambda source: pair if OTHER in (pair := pair_of(source)) else None,
            lambda source: source[0] in self._untyped,
        )
        self._unread = damaged
        self._untyped = damaged | {each.info.name for each in whole if "types" in each.refused}
        yield from _of_queues(sums)
        yield from _of_runs(told)
        yield from _of_types(told_of_types)
        yield _gauge(
            "taskq_queue_damaged",
            "1 where a queue cannot be counted: of it nothing else is told.",
            {(label(name),): 0.0 for name in names} | {(label(name),): 1.0 for name in damaged},
            ("queue",),
        )
        yield GaugeMetricFamily("taskq_workers", "Worker processes that live.", value=len(reading.workers))
        yield GaugeMetricFamily(
            "taskq_schedulers", "Schedulers that tell of periodic tasks; the one that leads.", value=reading.schedulers
        )
        folded = {
            ("queue",): float(len(names) - len(own)),
            ("type",): float(len(pairs) - len(kept)),
        }
        yield _gauge("taskq_exporter_folded", f"Names that are told together as {OTHER}.", folded, ("label",))
        refused = Counter(what for each in reading.queues for what in each.refused)
        refused["queue"] = len(reading.refused)
        yield _gauge(
            "taskq_exporter_refused",
            "Queues of which this user of Redis may not ask something: all of it, its memory, its task types.",
            {(what,): float(refused[what]) for what in ("queue", "memory", "types")},
            ("what",),
        )


def _of_queues(sums: Mapping[str, _Sums]) -> Iterator[Metric]:
    queue = ("queue",)
    yield _gauge(
        "asynq_tasks_enqueued_total",
        "Tasks of a queue, by state. In more than a thousand groups they are estimated.",
        {(name, state.value): float(each.sizes[state]) for name, each in sums.items() for state in _STATES},
        ("queue", "state"),
    )
    yield _gauge(
        "asynq_queue_size",
        "Tasks of a queue, in all states.",
        {(name,): float(sum(each.sizes.values())) for name, each in sums.items()},
        queue,
    )
    yield _gauge(
        "asynq_queue_latency_seconds",
        "How long the task that is next to run has been pending; 0 where none is.",
        {(name,): each.latency_s for name, each in sums.items()},
        queue,
    )
    yield _gauge(
        "asynq_queue_memory_usage_approx_bytes",
        "About how many bytes a queue takes in Redis, from some of its tasks.",
        {(name,): float(each.memory) for name, each in sums.items() if each.memory is not None},
        queue,
    )
    for name, words, number in (
        ("asynq_queue_paused_total", "1 while a queue is paused; of several, how many are.", "paused"),
        ("taskq_queue_groups", "Groups of a queue with tasks in them.", "groups"),
        ("taskq_queue_limited_tasks", "Scheduled tasks that wait for a limit.", "limited"),
        ("taskq_queue_workers", "Worker processes that serve a queue.", "workers"),
        ("taskq_queue_worker_slots", "Most tasks that these workers run at the same time.", "slots"),
        ("taskq_queue_worker_busy", "Tasks that these workers run, of whichever queue.", "busy"),
    ):
        yield _gauge(name, words, {(key,): float(getattr(each, number)) for key, each in sums.items()}, queue)


def _of_runs(told: Mapping[str, Numbers]) -> Iterator[Metric]:
    for place, (name, words) in enumerate(
        (
            ("asynq_tasks_processed", "Tasks that ran, those that failed included."),
            ("asynq_tasks_failed", "Runs that failed."),
        )
    ):
        yield _counter(name, words, {(key,): numbers[place] for key, numbers in told.items()}, ("queue",))


def _of_types(told: Mapping[tuple[str, str], Numbers]) -> Iterator[Metric]:
    labels = ("queue", "type")
    for place, (name, words) in enumerate(
        (
            ("processed", "Runs that used an attempt, by task type. Workers of Go tell no types."),
            ("failed", "Runs that failed, by task type."),
            ("archived", "Runs after which the task was archived, by task type."),
        )
    ):
        yield _counter(f"taskq_tasks_{name}", words, {pair: each[place] for pair, each in told.items()}, labels)
    histogram = HistogramMetricFamily("taskq_task_duration_seconds", "How long runs took, by task type.", labels=labels)
    for pair, (_, _, _, total_ms, *buckets) in sorted(told.items()):
        histogram.add_metric(pair, list(zip(_LE, accumulate(buckets), strict=True)), total_ms / 1000)
    yield histogram


def _numbers(tally: TypeCounters) -> Numbers:
    return tuple(map(float, (tally.processed, tally.failed, tally.archived, tally.total_ms, *tally.buckets)))


def build_info() -> Metric:
    """Return the series that names the version."""
    version = importlib.metadata.version("taskq-asynq")
    return _gauge("taskq_build_info", "1, with the version of taskq.", {(version,): 1.0}, ("version",))


def _gauge(name: str, words: str, values: Mapping[K, float], labels: Iterable[str]) -> Metric:
    family = GaugeMetricFamily(name, words, labels=tuple(labels))
    for key in sorted(values):
        family.add_metric(key, values[key])
    return family


def _counter(name: str, words: str, values: Mapping[K, float], labels: Iterable[str]) -> Metric:
    family = CounterMetricFamily(name, words, labels=tuple(labels))
    for key in sorted(values):
        family.add_metric(key, values[key])
    return family
