"""Metrics of what workers run.

A worker adds its counters and its three durations of each task with each batch that it settles.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from opentelemetry.context import Context
from opentelemetry.metrics import Counter, Histogram, Meter, MeterProvider
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, set_span_in_context

from taskq_core.telemetry import names
from taskq_core.telemetry.metrics import DURATION_BUCKETS_S, MAX_SERIES, NOT_PROCESSED, OTHER, Labels, Meters, Outcome

_NO_TRACE = set_span_in_context(NonRecordingSpan(INVALID_SPAN_CONTEXT), Context())
"""Context for values that must not become exemplars. Without it, the SDK would link them to the current trace."""
_EXAMPLES_S = 1.0
"""Seconds for which a run is shown as an example of how long runs take, unless a longer one comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _WorkerInstruments:
    processed: Counter
    failed: Counter
    retried: Counter
    consumed: Counter
    ignored_fields: Counter
    malformed_traces: Counter
    repairs: Counter
    stuck: Counter
    processing_time: Histogram
    wait_time: Histogram
    process_duration: Histogram


@dataclass(slots=True, kw_only=True)
class _WorkerSeries:
    outcome: Outcome
    is_failure: bool
    task: Labels
    """Labels of the counters `asynq.tasks.*`."""
    run: Labels
    """The same with the outcome."""
    message: Labels
    """Labels of the conventions' own metrics."""
    pending: int = field(default=0)
    """Runs since the last `flush`."""
    durations_s: list[float] = field(default_factory=list)
    """How long those of them took that were not shown as examples."""
    examples: dict[int, float] = field(default_factory=dict)
    """The longest run that was shown as an example in each bucket."""
    examples_until: float = field(default=0.0)
    """Monotonic second until which `examples` holds."""


@dataclass(slots=True, kw_only=True)
class _Waits:
    labels: Labels
    waits_s: list[float] = field(default_factory=list)


class WorkerMetrics:
    """Counts what a worker runs. Only the thread of the worker's loop may call it.

    Args:
        meter_provider: Takes this one instead of the global one.
        max_series: Sets of labels that are kept apart.
        server: Host and port of Redis, or the path of its socket and 0: a label of the conventions' own metrics.
        monotonic: Returns monotonic seconds.
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        max_series: int = MAX_SERIES,
        server: tuple[str, int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meters = Meters(meter_provider)
        self._max_series = max_series
        self._server = names.of_server(server)
        self._monotonic = monotonic
        self._instruments: _WorkerInstruments | None = None
        self._series: dict[tuple[str, str, Outcome, str | None], _WorkerSeries] = {}
        self._stuck: set[tuple[str, str]] = set()
        self._waited: dict[tuple[str, str], _Waits] = {}
        self._touched: list[_WorkerSeries] = []
        self._touched_waits: list[_Waits] = []
        self._expected: tuple[Sequence[str], Sequence[str]] = ((), ())
        self.is_active = False  # an attribute, not a property: each run asks
        """Whether an SDK was there at the last look; without one a caller may skip measuring."""
        self._refresh()

    def expect(self, queues: Sequence[str], repair_kinds: Sequence[str]) -> None:
        """Tell zero of what should stay at zero: who looks at counters sees the first one rise only if it was there."""
        self._expected = (queues, repair_kinds)
        if self._instruments is not None:
            self._tell_zeros(self._instruments)

    def record(
        self,
        queue: str,
        task_type: str,
        outcome: Outcome,
        duration_s: float,
        error_type: str | None = None,
        *,
        context: Context | None = None,
    ) -> None:
        """Note one run of a task, to be told with the next `flush`.

        Args:
            queue: Queue the task came from.
            task_type: Name of the task.
            outcome: How it ended.
            duration_s: Seconds the task's code took.
            error_type: Name of the failure; None if it was none (`Retry` raised by the task is none).
            context: Context of the task's span, so that an SDK can keep it as an example of the duration. It is shown,
                at once, each run that took longer than those before in its bucket, and in each second the first; it
                keeps one of each bucket.
        """
        instruments = self._instruments
        if instruments is None:
            return
        key = (queue, task_type, outcome, error_type)
        series = self._series.get(key) or self._new_series(key)
        if not series.pending:
            self._touched.append(series)
        series.pending += 1
        if context is not None:
            bucket = bisect_left(DURATION_BUCKETS_S, duration_s)
            if duration_s > series.examples.get(bucket, -1.0):
                series.examples[bucket] = duration_s
                instruments.processing_time.record(duration_s, series.run, context)
                instruments.process_duration.record(duration_s, series.message, context)
                return
        series.durations_s.append(duration_s)

    def waited(self, queue: str, task_type: str, wait_s: float) -> None:
        """Note how long a task was pending before it was handed to this worker, to be told with the next `flush`."""
        if self._instruments is None:
            return
        waits = self._waited.get((queue, task_type)) or self._new_waits((queue, task_type))
        if not waits.waits_s:
            self._touched_waits.append(waits)
        waits.waits_s.append(wait_s)

    def ignored_fields(self, queue: str, task_type: str, count: int) -> None:
        """Count payload fields that no parameter took. Only for registered tasks, so that their names are few."""
        instruments = self._instruments
        if instruments is not None:
            instruments.ignored_fields.add(count, {names.QUEUE: queue, names.TASK_TYPE: task_type})

    def malformed_trace(self, queue: str) -> None:
        """Count a message whose trace could not be read; its run began a trace of its own."""
        instruments = self._instruments
        if instruments is not None:
            instruments.malformed_traces.add(1, {names.QUEUE: queue})

    def repaired(self, queue: str, kind: str, count: int) -> None:
        """Count damage that was repaired. It should stay at zero."""
        self._refresh()
        if self._instruments is not None:
            self._instruments.repairs.add(count, {names.QUEUE: queue, names.REPAIR_KIND: kind})

    def stuck(self, queue: str, task_type: str) -> None:
        """Count a run that was told to end long ago and goes on. It should stay at zero."""
        self._refresh()
        if self._instruments is not None:
            labels = (queue, task_type)
            if labels not in self._stuck and len(self._stuck) >= self._max_series:
                labels = (OTHER, OTHER)
            self._stuck.add(labels)
            self._instruments.stuck.add(1, {names.QUEUE: labels[0], names.TASK_TYPE: labels[1]})

    def flush(self) -> None:
        """Add up what was noted since the last call. To be called now and then, without an SDK too, and at the end."""
        self._refresh()
        instruments = self._instruments
        touched, waited = self._touched, self._touched_waits
        now = self._monotonic() if touched else 0.0
        while touched:  # one by one: what an error keeps from being told is told with the next call
            series = touched.pop()
            count, series.pending = series.pending, 0
            durations_s, series.durations_s = series.durations_s, []
            if now >= series.examples_until:
                series.examples.clear()
                series.examples_until = now + _EXAMPLES_S
            if instruments is not None:
                _add(instruments, series, count)
                for duration_s in durations_s:
                    instruments.processing_time.record(duration_s, series.run, _NO_TRACE)
                    instruments.process_duration.record(duration_s, series.message, _NO_TRACE)
        while waited:
            waits = waited.pop()
            waits_s, waits.waits_s = waits.waits_s, []
            if instruments is not None:
                for wait_s in waits_s:
                    instruments.wait_time.record(wait_s, waits.labels, _NO_TRACE)

    def _refresh(self) -> None:
        if self._meters.has_changed():
            meter = self._meters.meter
            self._instruments = None if meter is None else _worker_instruments(meter)
            self.is_active = self._instruments is not None
            if self._instruments is not None:
                self._tell_zeros(self._instruments)

    def _tell_zeros(self, instruments: _WorkerInstruments) -> None:
        queues, kinds = self._expected
        for queue in queues:
            labels = {names.QUEUE: queue}
            instruments.malformed_traces.add(0, labels)
            instruments.stuck.add(0, labels)
            for kind in kinds:
                instruments.repairs.add(0, {**labels, names.REPAIR_KIND: kind})

    def _new_series(self, key: tuple[str, str, Outcome, str | None]) -> _WorkerSeries:
        if len(self._series) >= self._max_series:
            key = (OTHER, OTHER, key[2], key[3] and OTHER)
            known = self._series.get(key)
            if known is not None:
                return known
        series = self._series[key] = _worker_series(*key, self._server)
        return series

    def _new_waits(self, key: tuple[str, str]) -> _Waits:
        if len(self._waited) >= self._max_series:
            key = (OTHER, OTHER)
            known = self._waited.get(key)
            if known is not None:
                return known
        waits = self._waited[key] = _Waits(labels={names.QUEUE: key[0], names.TASK_TYPE: key[1]})
        return waits


def _add(instruments: _WorkerInstruments, series: _WorkerSeries, count: int) -> None:
    instruments.consumed.add(count, series.message)
    if series.outcome not in NOT_PROCESSED:
        instruments.processed.add(count, series.run)
    if series.is_failure:
        instruments.failed.add(count, series.task)
    if series.outcome is Outcome.RETRIED:
        instruments.retried.add(count, series.task)


def _worker_series(
    queue: str, task_type: str, outcome: Outcome, error_type: str | None, server: Labels
) -> _WorkerSeries:
    task: Labels = {names.QUEUE: queue, names.TASK_TYPE: task_type}
    message: Labels = {
        **names.system(),
        names.OPERATION_NAME: names.PROCESS,
        names.QUEUE: queue,
        **server,
    }
    if error_type is not None:
        task[names.ERROR_TYPE] = message[names.ERROR_TYPE] = error_type
    return _WorkerSeries(
        outcome=outcome,
        is_failure=outcome is Outcome.ARCHIVED or (error_type is not None and outcome not in NOT_PROCESSED),
        task=task,
        run={**task, names.TASK_OUTCOME: outcome.value},
        message=message,
    )


def _worker_instruments(meter: Meter) -> _WorkerInstruments:
    return _WorkerInstruments(
        processed=meter.create_counter(names.TASKS_PROCESSED, "{task}", "Runs of tasks that used an attempt."),
        failed=meter.create_counter(names.TASKS_FAILED, "{task}", "Runs of tasks that failed."),
        retried=meter.create_counter(
            names.TASKS_RETRIED, "{task}", "Runs of tasks after which they were put to retry."
        ),
        consumed=meter.create_counter(
            names.CLIENT_CONSUMED, "{message}", "Number of messages that were delivered to the application."
        ),
        ignored_fields=meter.create_counter(
            names.TASKS_IGNORED_FIELDS,
            "{field}",
            "Payload fields that no parameter took, from a newer producer mostly.",
        ),
        malformed_traces=meter.create_counter(
            names.TASKS_MALFORMED_TRACES, "{task}", "Runs whose message names a trace that cannot be read."
        ),
        repairs=meter.create_counter(
            names.REPAIRS, "{repair}", "Damage that was found in a queue and repaired; should stay at zero."
        ),
        stuck=meter.create_counter(
            names.TASKS_STUCK, "{run}", "Runs that were told to end long ago and went on; should stay at zero."
        ),
        processing_time=meter.create_histogram(
            names.TASK_PROCESSING_TIME,
            "s",
            "Time the code of a task took.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S,
        ),
        wait_time=meter.create_histogram(
            names.TASK_WAIT_TIME,
            "s",
            "Time a task was pending before a worker took it.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S,
        ),
        process_duration=meter.create_histogram(
            names.PROCESS_DURATION,
            "s",
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S,
        ),
    )
