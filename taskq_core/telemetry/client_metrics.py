"""Metrics of what clients send."""

from dataclasses import dataclass

from opentelemetry.metrics import Counter, Histogram, Meter, MeterProvider

from taskq_core.telemetry import names
from taskq_core.telemetry.metrics import DURATION_BUCKETS_S, MAX_SERIES, OTHER, Labels, Meters


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


def _client_series(queue: str, task_type: str, error_type: str | None, server: Labels) -> _ClientSeries:
    message: Labels = {
        **names.system(),
        names.OPERATION_NAME: names.SEND,
        names.OPERATION_TYPE: names.SEND,
        names.QUEUE: queue,
        **server,
    }
    if error_type is not None:
        message[names.ERROR_TYPE] = error_type
    return _ClientSeries(task={names.QUEUE: queue, names.TASK_TYPE: task_type}, message=message)


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
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S,
        ),
    )
