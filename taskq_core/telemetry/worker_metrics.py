"""Metrics of runs in workers.

A worker records the duration of each run at once, and adds to the counters after each settled batch.
"""

from collections.abc import Sequence

from msgspec import Struct
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from taskq_core.telemetry import names
from taskq_core.telemetry.histograms import Labels
from taskq_core.telemetry.metrics import (
    MAX_SERIES,
    NOT_PROCESSED,
    Instruments,
    Meters,
    RunOutcome,
    Series,
    task_labels,
)

_NO_TRACE = set_span_in_context(INVALID_SPAN, Context())
"""Empty context for values without an exemplar. In another context, the SDK would link the values to the current
trace."""


class _Runs(Struct, kw_only=True):
    """Counts runs with the same labels until the next `flush`.

    Attributes:
        counters: The counters of these runs, with their labels.
        run: Labels of taskq's own metric of the run's duration.
        message: Labels of the metrics that follow OpenTelemetry's conventions.
        pending: Number of runs since the last `flush`.
    """

    counters: Sequence[tuple[names.Metric, Labels]]
    run: Labels
    message: Labels
    pending: int = 0


class WorkerMetrics:
    """Records the metrics of a worker's runs. Only the thread of the worker's event loop may call it.

    Args:
        meter_provider: Replaces the global provider.
        max_series: Maximum number of sets of labels.
        server: Host and port of Redis, or the path of its socket and 0. It is a label of the metrics that follow
            OpenTelemetry's conventions.

    Attributes:
        is_active: Whether an SDK was configured at the last check. If not, the caller need not measure durations.
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
        self.is_active = False  # no property, because that would slow down each run
        self._refresh()

    def expect(self, queues: Sequence[str], repair_kinds: Sequence[str]) -> None:
        """Export zero for counters that should stay at zero, so that their first event is visible as an increase."""
        self._expected = (queues, repair_kinds)
        self._report_zeros()

    def record(
        self,
        queue: str,
        task_type: str,
        outcome: RunOutcome,
        duration_s: float,
        error_type: str | None = None,
        *,
        context: Context | None = None,
    ) -> None:
        """Record the duration of a run. The next `flush` adds the run to the counters.

        Args:
            queue: The queue of the task.
            task_type: Name of the task.
            outcome: How the run ended.
            duration_s: Duration of the task's code in seconds.
            error_type: Name of the failure, None without a failure. `Retry` raised by the task is not a failure.
            context: Context of the task's span, which an SDK may store as an exemplar of the duration.
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
        """Record the time for which a task was pending before this worker received it."""
        if self._instruments is not None:
            labels = self._tasks.of(queue, task_type)
            self._instruments[names.TASK_WAIT_TIME].record(wait_s, labels, _NO_TRACE)

    def ignored_fields(self, queue: str, task_type: str, count: int) -> None:
        """Count payload fields for which the task has no parameter."""
        if self._instruments is not None:
            self._instruments[names.TASKS_IGNORED_FIELDS].add(count, self._tasks.of(queue, task_type))

    def malformed_trace(self, queue: str) -> None:
        """Count a message whose trace is not valid. Its run started a new trace."""
        if self._instruments is not None:
            self._instruments[names.TASKS_MALFORMED_TRACES].add(1, {names.QUEUE: queue})

    def repaired(self, queue: str, kind: str, count: int) -> None:
        """Count repaired damage. The counter should stay at zero."""
        self._refresh()
        if self._instruments is not None:
            self._instruments[names.REPAIRS].add(count, {names.QUEUE: queue, names.REPAIR_KIND: kind})

    def stuck(self, queue: str, task_type: str) -> None:
        """Count a run that continues long after it was cancelled. The counter should stay at zero."""
        self._refresh()
        if self._instruments is not None:
            self._instruments[names.TASKS_STUCK].add(1, self._tasks.of(queue, task_type))

    def flush(self) -> None:
        """Add the runs since the last call to the counters, and check for an SDK.

        Call this method regularly, and at the end.
        """
        self._refresh()
        touched = self._touched
        while touched:  # take the counts one by one, so that an error of the SDK loses only one
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

    def _new_runs(self, queue: str, task_type: str, outcome: RunOutcome, error_type: str | None) -> _Runs:
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
        if outcome is RunOutcome.ARCHIVED or (error_type is not None and outcome not in NOT_PROCESSED):
            counters.append((names.TASKS_FAILED, task))
        if outcome is RunOutcome.RETRIED:
            counters.append((names.TASKS_RETRIED, task))
        return _Runs(counters=counters, run=run, message=message)
