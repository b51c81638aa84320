"""Make Prometheus metrics from a reading of Redis.

Names that begin with `asynq_`, and their kinds, are those of Asynq's exporter: `asynq_tasks_enqueued_total` is a gauge.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from taskq_core import TaskState
from taskq_core.cli.plugin import installed_version
from taskq_core.inspector import DURATION_BOUNDS_S, MetricsSnapshot, QueueMetrics, ServerInfo, TypeCounters

_STATES = (
    TaskState.ACTIVE,
    TaskState.PENDING,
    TaskState.SCHEDULED,
    TaskState.RETRY,
    TaskState.ARCHIVED,
    TaskState.COMPLETED,
    TaskState.AGGREGATING,
)
_LE = (*(str(float(bound)) for bound in DURATION_BOUNDS_S), "+Inf")

N = TypeVar("N", bound=Hashable)
Labels = tuple[str, ...]


def _latency_s(queue: QueueMetrics, workers: Sequence[ServerInfo]) -> float:
    latency = queue.info.latency
    return 0.0 if latency is None else latency.total_seconds()


_OF_A_QUEUE: Sequence[tuple[str, str, Callable[[QueueMetrics, Sequence[ServerInfo]], float | None]]] = (
    ("asynq_queue_size", "Tasks of a queue, in all states.", lambda queue, workers: sum(queue.sizes.values())),
    ("asynq_queue_latency_seconds", "Age of the oldest pending task; 0 without pending tasks.", _latency_s),
    ("asynq_queue_memory_usage_approx_bytes", "Approximate memory of a queue.", lambda queue, workers: queue.memory),
    ("asynq_queue_paused_total", "1 if the queue is paused.", lambda queue, workers: queue.info.is_paused),
    ("taskq_queue_groups", "Groups with tasks.", lambda queue, workers: queue.info.groups),
    ("taskq_queue_limited_tasks", "Tasks that wait for a limit.", lambda queue, workers: queue.info.limited),
    ("taskq_queue_workers", "Worker processes that serve a queue.", lambda queue, workers: len(workers)),
    (
        "taskq_queue_worker_slots",
        "Maximum number of tasks that the workers of a queue run at once.",
        lambda queue, workers: sum(each.concurrency for each in workers),
    ),
    (
        "taskq_queue_worker_busy",
        "Tasks that the workers of a queue run now, of all their queues.",
        lambda queue, workers: sum(each.active_worker_count for each in workers),
    ),
)
"""Gauges of a queue: name, help, and value from the queue and the workers that serve it."""
_OF_RUNS: Sequence[tuple[str, str, Callable[[QueueMetrics], float]]] = (
    ("asynq_tasks_processed", "Runs, including failed runs.", lambda queue: queue.info.processed),
    ("asynq_tasks_failed", "Failed runs.", lambda queue: queue.info.failed),
)
_OF_TYPES: Sequence[tuple[str, str, Callable[[TypeCounters], float]]] = (
    ("taskq_tasks_processed", "Runs by task type. Go workers do not count them.", lambda runs: runs.processed),
    ("taskq_tasks_failed", "Failed runs by task type.", lambda runs: runs.failed),
    ("taskq_tasks_archived", "Runs after which the task was archived, by task type.", lambda runs: runs.archived),
)


class LimitedNames(Generic[N]):
    """Selects the names of queues or task types that have metrics, at most `most` of them.

    A selected name stays selected while it exists, so that its counters are not interrupted.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: dict[N, None] = {}

    def select(self, names: Iterable[N]) -> Collection[N]:
        """Return the selected names. `names` are all existing names, in order of priority."""
        existing = dict.fromkeys(names)
        taken = [name for name in self._taken if name in existing]
        free = [name for name in existing if name not in self._taken]
        self._taken = dict.fromkeys([*taken, *free[: self._most - len(taken)]])
        return self._taken.keys()


class Series:
    """Converts readings of Redis to Prometheus metrics.

    Args:
        max_queues: Maximum number of queues with metrics.
        max_types: Maximum number of pairs of queue and task type with metrics.
    """

    def __init__(self, *, max_queues: int, max_types: int) -> None:
        self._queues: LimitedNames[str] = LimitedNames(max_queues)
        self._types: LimitedNames[tuple[str, str]] = LimitedNames(max_types)

    def families(self, reading: MetricsSnapshot) -> Iterator[Metric]:
        """Return the metrics of a reading."""
        names = sorted({each.info.name for each in reading.queues} | reading.refused.keys())
        shown = self._queues.select(names)
        queues = {each.info.name: each for each in reading.queues if each.info.name in shown and not each.info.problem}
        workers: dict[str, list[ServerInfo]] = {name: [] for name in queues}
        for worker in reading.workers:
            for name in worker.queues.keys() & queues.keys():
                workers[name].append(worker)
        types = {(name, kind): runs for name, each in queues.items() for kind, runs in each.types.items()}
        shown_types = self._types.select(sorted(types))

        yield _gauge(
            "asynq_tasks_enqueued_total",
            "Tasks of a queue, by state. Tasks in more than a thousand groups are estimated.",
            {(name, state.value): each.sizes[state] for name, each in queues.items() for state in _STATES},
            "queue",
            "state",
        )
        for metric, words, value in _OF_A_QUEUE:
            yield _gauge(metric, words, {(name,): value(each, workers[name]) for name, each in queues.items()}, "queue")
        for metric, words, count in _OF_RUNS:
            yield _counter(metric, words, {(name,): count(each) for name, each in queues.items()}, "queue")
        yield from _of_types({pair: types[pair] for pair in shown_types})
        yield _gauge(
            "taskq_queue_damaged",
            "1 if the tasks of a queue cannot be counted. Such a queue has no other metrics.",
            {(name,): name not in queues for name in shown},
            "queue",
        )
        yield GaugeMetricFamily("taskq_workers", "Running worker processes.", value=len(reading.workers))
        yield GaugeMetricFamily("taskq_schedulers", "Schedulers with periodic tasks.", value=reading.schedulers)
        yield _gauge(
            "taskq_exporter_omitted",
            "Queues, or pairs of queue and type, without metrics because there are too many.",
            {("queue",): len(names) - len(shown), ("type",): len(types) - len(shown_types)},
            "label",
        )
        refused = Counter(what for each in reading.queues for what in each.refused)
        refused["queue"] = len(reading.refused)
        yield _gauge(
            "taskq_exporter_refused",
            "Queues that the Redis user may not read completely, by what it may not read.",
            {(what,): refused[what] for what in ("queue", "memory", "types")},
            "what",
        )


def _of_types(types: Mapping[tuple[str, str], TypeCounters]) -> Iterator[Metric]:
    for metric, words, count in _OF_TYPES:
        yield _counter(metric, words, {pair: count(runs) for pair, runs in types.items()}, "queue", "type")
    histogram = HistogramMetricFamily(
        "taskq_task_duration_seconds", "Duration of runs, by task type.", labels=("queue", "type")
    )
    for pair, runs in sorted(types.items()):
        histogram.add_metric(pair, list(zip(_LE, accumulate(runs.buckets), strict=True)), runs.total_ms / 1000)
    yield histogram


def build_info() -> Metric:
    """Return the metric with the version."""
    version = installed_version()
    return _gauge("taskq_build_info", "1, with the version of taskq.", {(version,): 1}, "version")


def _gauge(name: str, words: str, values: Mapping[Labels, float | None], *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(name, words, labels=labels), values)


def _counter(name: str, words: str, values: Mapping[Labels, float], *labels: str) -> Metric:
    return _filled(CounterMetricFamily(name, words, labels=labels), values)


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[Labels, float] | Mapping[Labels, float | None]
) -> Metric:
    for key, value in sorted(values.items(), key=lambda item: item[0]):
        if value is not None:
            family.add_metric(key, float(value))
    return family
