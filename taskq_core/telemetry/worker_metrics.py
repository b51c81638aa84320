"""Metrics of what workers run.

A worker records durations with each run, and adds its counters with each batch that it settles.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from taskq_core.telemetry import names
from taskq_core.telemetry.metrics import (
    MAX_SERIES,
    NOT_PROCESSED,
    Instruments,
    Labels,
    Meters,
    Outcome,
    Series,
    task_labels,
)

_NO_TRACE = set_span_in_context(INVALID_SPAN, Context())
"""Context for values that must not become exemplars. Without it, the SDK would link them to the current trace."""


@dataclass(slots=True, kw_only=True)
class _Runs:
    """Runs with the same labels.

    Attributes:
        counters: The counters that count them, with their labels.
        run: Labels of taskq's own duration.
        message: Labels of the conventions' own metrics.
        pending: Number of runs since the last `flush`.
    """

    counters: Sequence[tuple[names.Metric, Labels]]
    run: Labels
    message: Labels
    pending: int = 0


class WorkerMetrics:
    """Counts what a worker runs. Only the thread of the worker's loop may call it.

    Args:
        meter_provider: Used instead of the global one.
        max_series: Maximum number of sets of labels.
        server: Host and port of Redis, or the path of its socket and 0: a label of the conventions' own metrics.

    Attributes:
        is_active: Whether an SDK was there at the last look; without one a caller may skip measuring.
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
        self._runs = Series(max_series, self._new_runs)
        self._tasks = Series(max_series, task_labels)
        self._touched: list[_Runs] = []
        self._expected: tuple[Sequence[str], Sequence[str]] = ((), ())
        self._instruments: Instruments | None = None
        self.is_active = False  # an attribute, not a property: each run asks
        self._refresh()

    def expect(self, queues: Sequence[str], repair_kinds: Sequence[str]) -> None:
        """Report zero for counters that should stay at zero. The first event of a series is a rise only then."""
        self._expected = (queues, repair_kinds)
        self._report_zeros()

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
        """Record how long a run took. The next `flush` counts it.

        Args:
            queue: The queue of the task.
            task_type: Name of the task.
            outcome: How the run ended.
            duration_s: Seconds the task's code took.
            error_type: Name of the failure, None without one. `Retry` raised by the task is not a failure.
            context: Context of the task's span, which an SDK may keep as an example of the duration.
        """
        instruments = self._instruments
        if instruments is None:
            return
        runs = self._runs.of(queue, task_type, outcome, error_type)
        if not runs.pending:
            self._touched.append(runs)
        runs.pending += 1
        instruments[names.TASK_PROCESSING_TIME].record(duration_s, runs.run, context or _NO_TRACE)
        instruments[names.PROCESS_DURATION].record(duration_s, runs.message, context or _NO_TRACE)

    def waited(self, queue: str, task_type: str, wait_s: float) -> None:
        """Record how long a task was pending before this worker received it."""
        if self._instruments is not None:
            labels = self._tasks.of(queue, task_type)
            self._instruments[names.TASK_WAIT_TIME].record(wait_s, labels, _NO_TRACE)

    def ignored_fields(self, queue: str, task_type: str, count: int) -> None:
        """Count payload fields that no parameter took."""
        if self._instruments is not None:
            self._instruments[names.TASKS_IGNORED_FIELDS].add(count, self._tasks.of(queue, task_type))

    def malformed_trace(self, queue: str) -> None:
        """Count a message whose trace could not be read. Its run began a new trace."""
        if self._instruments is not None:
            self._instruments[names.TASKS_MALFORMED_TRACES].add(1, {names.QUEUE: queue})

    def repaired(self, queue: str, kind: str, count: int) -> None:
        """Count damage that was repaired. It should stay at zero."""
        self._refresh()
        if self._instruments is not None:
            self._instruments[names.REPAIRS].add(count, {names.QUEUE: queue, names.REPAIR_KIND: kind})

    def stuck(self, queue: str, task_type: str) -> None:
        """Count a run that goes on long after it was cancelled. It should stay at zero."""
        self._refresh()
        if self._instruments is not None:
            self._instruments[names.TASKS_STUCK].add(1, self._tasks.of(queue, task_type))

    def flush(self) -> None:
        """Count the runs since the last call, and look for an SDK. Call it now and then, and at the end."""
        self._refresh()
        touched = self._touched
        while touched:  # one by one: an error loses the counts of one series, and the next call adds the others
            runs = touched.pop()
            count, runs.pending = runs.pending, 0
            if self._instruments is not None:
                for metric, labels in runs.counters:
                    self._instruments[metric].add(count, labels)

    def _refresh(self) -> None:
        instruments = self._meters.current()
        if instruments is not self._instruments:
            self._instruments = instruments
            self.is_active = instruments is not None
            self._report_zeros()

    def _report_zeros(self) -> None:
        if self._instruments is None:
            return
        queues, kinds = self._expected
        for queue in queues:
            labels = {names.QUEUE: queue}
            self._instruments[names.TASKS_MALFORMED_TRACES].add(0, labels)
            self._instruments[names.TASKS_STUCK].add(0, labels)
            for kind in kinds:
                self._instruments[names.REPAIRS].add(0, {**labels, names.REPAIR_KIND: kind})

    def _new_runs(self, queue: str, task_type: str, outcome: Outcome, error_type: str | None) -> _Runs:
        task = task_labels(queue, task_type)
        message: Labels = {
            **names.system(),
            names.OPERATION_NAME: names.PROCESS,
            names.QUEUE: queue,
            **self._server,
        }
        if error_type is not None:
            task[names.ERROR_TYPE] = message[names.ERROR_TYPE] = error_type
        run: Labels = {**task, names.TASK_OUTCOME: outcome.value}
        counters = [(names.CLIENT_CONSUMED, message)]
        if outcome not in NOT_PROCESSED:
            counters.append((names.TASKS_PROCESSED, run))
        if outcome is Outcome.ARCHIVED or (error_type is not None and outcome not in NOT_PROCESSED):
            counters.append((names.TASKS_FAILED, task))
        if outcome is Outcome.RETRIED:
            counters.append((names.TASKS_RETRIED, task))
        return _Runs(counters=counters, run=run, message=message)
