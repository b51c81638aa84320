"""Metrics of enqueued tasks, recorded by clients."""

from opentelemetry.metrics import MeterProvider

from taskq_core.telemetry import names
from taskq_core.telemetry.metrics import MAX_SERIES, Instruments, Labels, Meters, Series, task_labels


class ClientMetrics:
    """Records the metrics of a client's enqueues. Any thread may call it.

    Args:
        meter_provider: Replaces the global provider.
        max_series: Maximum number of sets of labels.
        server: Host and port of Redis, or the path of its socket and 0. It is a label of the metrics that follow
            OpenTelemetry's conventions.
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        max_series: int = MAX_SERIES,
        server: tuple[str, int] | None = None,
    ) -> None:
        self._meters = Meters(meter_provider)
        self._server = names.of_server(server)
        self._tasks = Series(max_series, self._labels)
        self._has_zero: object = None

    def sent(
        self,
        queue: str,
        task_type: str,
        count: int = 1,
        *,
        duration_s: float | None = None,
        error_type: str | None = None,
    ) -> None:
        """Count the tasks of one request to Redis, whether it enqueued them or failed.

        Args:
            queue: The queue of the tasks.
            task_type: Name of the task.
            count: Number of tasks.
            duration_s: Duration of the call in seconds, recorded once; None records no duration.
            error_type: Name of the error if the tasks were not enqueued, else None.
        """
        instruments = self._current()
        if instruments is None:
            return
        task, message = self._tasks.of(queue, task_type, error_type)
        instruments[names.CLIENT_SENT].add(count, message)
        if error_type is None:
            instruments[names.TASKS_ENQUEUED].add(count, task)
        if duration_s is not None:
            instruments[names.CLIENT_OPERATION_DURATION].record(duration_s, message)

    def baggage_cut(self, queue: str, count: int) -> None:
        """Count trace headers and baggage that were left out, because a task's headers have a size limit."""
        instruments = self._current()
        if instruments is not None:
            instruments[names.BAGGAGE_CUT].add(count, {names.QUEUE: queue})

    def circuit_opened(self) -> None:
        """Count an opening of the circuit breaker."""
        instruments = self._current()
        if instruments is not None:
            instruments[names.CIRCUIT_OPENED].add(1)

    def _current(self) -> Instruments | None:
        instruments = self._meters.current()
        if instruments is not None and instruments is not self._has_zero:
            self._has_zero = instruments
            # export a zero first, so that the first opening of the circuit breaker is visible as an increase
            instruments[names.CIRCUIT_OPENED].add(0)
        return instruments

    def _labels(self, queue: str, task_type: str, error_type: str | None) -> tuple[Labels, Labels]:
        message: Labels = {
            **names.system(),
            names.OPERATION_NAME: names.SEND,
            names.OPERATION_TYPE: names.SEND,
            names.QUEUE: queue,
            **self._server,
        }
        if error_type is not None:
            message[names.ERROR_TYPE] = error_type
        return task_labels(queue, task_type), message
