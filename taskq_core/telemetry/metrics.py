"""Metrics of tasks: what clients sent and what workers ran.

Instruments are OpenTelemetry's; without an SDK nothing of this runs, and an SDK configured later is noticed (by a
client with the next call, by a worker within seconds). A worker adds its counters with each batch that it settles and
records three histogram values per task. Every instrument keeps at most `MAX_SERIES` sets of labels; whatever comes
beyond is counted under `_other`, so a flood of names cannot fill memory.

Gauges are the business of `gauges`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from opentelemetry.context import Context
from opentelemetry.metrics import Counter, Histogram, Meter, MeterProvider, NoOpMeter

from taskq_core.telemetry import names
from taskq_core.telemetry.providers import (
    INSTRUMENTATION_NAME,
    instrumentation_version,
    is_sdk,
    switch,
)

MAX_SERIES = 1000
"""Sets of labels that are kept apart, per `ClientMetrics` and per `WorkerMetrics`."""
OTHER = "_other"
"""Stands for queue, type and error of what is beyond `MAX_SERIES`."""

Labels = dict[str, str | int]

_DURATION_BUCKETS_S = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    30.0,
    60.0,
    300.0,
    1800.0,
)
"""The conventions' buckets for seconds, with more at the long end because tasks run longer than requests."""


class Outcome(StrEnum):
    """How one run of a task ended."""

    COMPLETED = "completed"
    RETRIED = "retried"
    """Will run again and has used an attempt."""
    ARCHIVED = "archived"
    SNOOZED = "snoozed"
    """Will run again and has used no attempt."""
    DISCARDED = "discarded"
    EXPIRED = "expired"
    """Was not started in time, and is archived or dropped."""
    REQUEUED = "requeued"
    """Given back by a worker that stops, without using an attempt."""
    LOST = "lost"
    """The lease ended: what became of the task is another worker's to say."""


NOT_PROCESSED = frozenset((Outcome.SNOOZED, Outcome.REQUEUED, Outcome.LOST))
"""Ends of runs that used no attempt here, so that they are not counted as processed."""


class Meters:
    """Follows the provider in force and makes the instruments anew when it changes."""

    __slots__ = ("_fixed", "_provider", "meter")

    def __init__(self, provider: MeterProvider | None) -> None:
        self._fixed = provider
        self._provider: MeterProvider | None = None
        self.meter: Meter | None = None

    def has_changed(self) -> bool:
        """Look for another provider; if there is one, `meter` is its meter, or None if it records nothing."""
        provider = self._fixed or switch.meter_provider()
        if provider is self._provider:
            return False
        self.meter = None
        if provider is not None and is_sdk(provider):
            meter = provider.get_meter(INSTRUMENTATION_NAME, instrumentation_version(), names.SCHEMA_URL)
            self.meter = None if isinstance(meter, NoOpMeter) else meter
        self._provider = provider
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClientInstruments:
    enqueued: Counter
    sent: Counter
    baggage_cut: Counter
    circuit_opened: Counter
    operation_duration: Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClientSeries:
    task: Labels
    message: Labels


class ClientMetrics:
    """Counts what a client enqueues. Any thread may call it.

    Args:
        meter_provider: Takes this one instead of the global one.
        max_series: Sets of labels that are kept apart.
        server: Host and port of Redis, or the path of its socket and 0: a label of the conventions' own metrics.
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        max_series: int = MAX_SERIES,
        server: tuple[str, int] | None = None,
    ) -> None:
        self._meters = Meters(meter_provider)
        self._max_series = max_series
        self._server = names.of_server(server)
        self._instruments: _ClientInstruments | None = None
        self._series: dict[tuple[str, str, str | None], _ClientSeries] = {}

    def sent(
        self,
        queue: str,
        task_type: str,
        count: int = 1,
        *,
        duration_s: float | None = None,
        error_type: str | None = None,
    ) -> None:
        """Count tasks that were sent to Redis, whether it took them or not.

        Args:
            queue: Queue they went to.
            task_type: Name of the task.
            count: Number of tasks.
            duration_s: Seconds the call took, recorded once; None records nothing.
            error_type: Why they were not enqueued; None if they were.
        """
        instruments = self._current()
        if instruments is None:
            return
        key = (queue, task_type, error_type)
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= self._max_series:
                key = (OTHER, OTHER, error_type and OTHER)
            series = self._series.get(key) or self._series.setdefault(key, _client_series(*key, self._server))
        instruments.sent.add(count, series.message)
        if error_type is None:
            instruments.enqueued.add(count, series.task)
        if duration_s is not None:
            instruments.operation_duration.record(duration_s, series.message)

    def baggage_cut(self, queue: str, count: int) -> None:
        """Count what did not fit into the headers of a task, or of a batch of tasks."""
        instruments = self._current()
        if instruments is not None:
            instruments.baggage_cut.add(count, {names.QUEUE: queue})

    def circuit_opened(self) -> None:
        """Count that the circuit breaker has opened, since Redis was out of reach."""
        instruments = self._current()
        if instruments is not None:
            instruments.circuit_opened.add(1)

    def _current(self) -> _ClientInstruments | None:
        if self._meters.has_changed():
            meter = self._meters.meter
            self._instruments = None if meter is None else _client_instruments(meter)
            if self._instruments is not None:
                self._instruments.circuit_opened.add(0)  # so that its first opening is a rise
        return self._instruments


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


class WorkerMetrics:
    """Counts what a worker runs. Only the thread of the worker's loop may call it.

    Args:
        meter_provider: Takes this one instead of the global one.
        max_series: Sets of labels that are kept apart.
        server: Host and port of Redis, or the path of its socket and 0: a label of the conventions' own metrics.
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        max_series: int = MAX_SERIES,
        server: tuple[str, int] | None = None,
    ) -> None:
        self._meters = Meters(meter_provider)
        self._max_series = max_series
        self._server = names.of_server(server)
        self._instruments: _WorkerInstruments | None = None
        self._series: dict[tuple[str, str, Outcome, str | None], _WorkerSeries] = {}
        self._stuck: set[tuple[str, str]] = set()
        self._waited: dict[tuple[str, str], Labels] = {}
        self._touched: list[_WorkerSeries] = []
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
        """Note one run of a task: its duration at once, its counts with the next `flush`.

        Args:
            queue: Queue the task came from.
            task_type: Name of the task.
            outcome: How it ended.
            duration_s: Seconds the task's code took.
            error_type: Name of the failure; None if it was none (`Retry` raised by the task is none).
            context: Context of the task's span, so that an SDK can keep it as an example of the duration.
        """
        instruments = self._instruments
        if instruments is None:
            return
        key = (queue, task_type, outcome, error_type)
        series = self._series.get(key) or self._new_series(key)
        if not series.pending:
            self._touched.append(series)
        series.pending += 1
        instruments.processing_time.record(duration_s, series.run, context)
        instruments.process_duration.record(duration_s, series.message, context)

    def waited(self, queue: str, task_type: str, wait_s: float) -> None:
        """Note how long a task was pending before it was handed to this worker."""
        instruments = self._instruments
        if instruments is None:
            return
        key = (queue, task_type)
        labels = self._waited.get(key)
        if labels is None:
            if len(self._waited) >= self._max_series:
                key = (OTHER, OTHER)
            labels = self._waited.setdefault(key, {names.QUEUE: key[0], names.TASK_TYPE: key[1]})
        instruments.wait_time.record(wait_s, labels)

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
        touched, self._touched = self._touched, []
        for series in touched:
            count, series.pending = series.pending, 0
            if self._instruments is not None:
                _add(self._instruments, series, count)

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


def _add(instruments: _WorkerInstruments, series: _WorkerSeries, count: int) -> None:
    instruments.consumed.add(count, series.message)
    if series.outcome not in NOT_PROCESSED:
        instruments.processed.add(count, series.run)
    if series.is_failure:
        instruments.failed.add(count, series.task)
    if series.outcome is Outcome.RETRIED:
        instruments.retried.add(count, series.task)


def _client_series(queue: str, task_type: str, error_type: str | None, server: Labels) -> _ClientSeries:
    message: Labels = {
        names.SYSTEM: names.SYSTEM_ASYNQ,
        names.OPERATION_NAME: names.SEND,
        names.OPERATION_TYPE: names.SEND,
        names.QUEUE: queue,
        **server,
    }
    if error_type is not None:
        message[names.ERROR_TYPE] = error_type
    return _ClientSeries(task={names.QUEUE: queue, names.TASK_TYPE: task_type}, message=message)


def _worker_series(
    queue: str, task_type: str, outcome: Outcome, error_type: str | None, server: Labels
) -> _WorkerSeries:
    task: Labels = {names.QUEUE: queue, names.TASK_TYPE: task_type}
    message: Labels = {
        names.SYSTEM: names.SYSTEM_ASYNQ,
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


def _client_instruments(meter: Meter) -> _ClientInstruments:
    return _ClientInstruments(
        enqueued=meter.create_counter(names.TASKS_ENQUEUED, "{task}", "Tasks that were enqueued."),
        sent=meter.create_counter(
            names.CLIENT_SENT, "{message}", "Number of messages producer attempted to send to the broker."
        ),
        baggage_cut=meter.create_counter(
            names.BAGGAGE_CUT,
            "{member}",
            "Members of baggage, and trace headers, that did not fit into tasks' headers.",
        ),
        circuit_opened=meter.create_counter(
            names.CIRCUIT_OPENED, "{opening}", "Times after which enqueues failed at once, as Redis was out of reach."
        ),
        operation_duration=meter.create_histogram(
            names.CLIENT_OPERATION_DURATION,
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS_S,
        ),
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
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS_S,
        ),
        wait_time=meter.create_histogram(
            names.TASK_WAIT_TIME,
            "s",
            "Time a task was pending before a worker took it.",
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS_S,
        ),
        process_duration=meter.create_histogram(
            names.PROCESS_DURATION,
            "s",
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS_S,
        ),
    )
