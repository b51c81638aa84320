import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from opentelemetry import metrics
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from taskq_core.telemetry import ClientMetrics, RunOutcome, Tracing, WorkerMetrics, names
from taskq_core.telemetry.providers import switch


def points(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], float]]]:
    """Of each metric, the labels of each series with its count (of a histogram: how many records)."""
    data = reader.get_metrics_data()
    return {
        metric.name: [
            (dict(p.attributes), p.count if hasattr(p, "count") else p.value) for p in metric.data.data_points
        ]
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def totals(reader: InMemoryMetricReader) -> dict[str, float]:
    return {name: sum(value for _, value in series) for name, series in points(reader).items()}


class TestWorker:
    def test_counts_are_exported_at_the_next_tick(
        self, meter_provider: MeterProvider, reader: InMemoryMetricReader
    ) -> None:
        worker = WorkerMetrics(meter_provider=meter_provider)

        worker.waited("low", "email", 0.1)
        worker.record("low", "email", RunOutcome.COMPLETED, 0.2)
        worker.record("low", "email", RunOutcome.COMPLETED, 0.3)
        before = totals(reader)
        worker.flush()
        after = totals(reader)
        worker.flush()

        assert before == {
            "asynq.task.processing_time": 2,
            "messaging.process.duration": 2,
            "asynq.task.wait_time": 1,
        }
        assert after == {**before, "asynq.tasks.processed": 2, "messaging.client.consumed.messages": 2}
        assert totals(reader) == after

    def test_an_error_in_one_count_does_not_lose_others(
        self, meter_provider: MeterProvider, reader: InMemoryMetricReader
    ) -> None:
        """A task may have taken all memory just then. Counts of one series are lost, the rest is added by the next."""
        worker = WorkerMetrics(meter_provider=meter_provider)
        for name in ("one", "other"):
            worker.record("low", name, RunOutcome.COMPLETED, 0.2)
        assert worker._instruments is not None
        consumed = worker._instruments[names.CLIENT_CONSUMED]
        with patch.object(consumed, "add", side_effect=MemoryError), pytest.raises(MemoryError):
            worker.flush()

        for name in ("one", "other"):
            worker.record("low", name, RunOutcome.COMPLETED, 0.2)
        worker.flush()

        assert totals(reader)["asynq.tasks.processed"] == 3

    def test_durations_are_recorded_with_the_current_provider(
        self, meter_provider: MeterProvider, reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = InMemoryMetricReader()
        current = [MeterProvider([first], shutdown_on_exit=False)]
        monkeypatch.setattr(switch, "meter_provider", lambda: current[0])
        worker = WorkerMetrics()
        for _ in range(3):
            worker.record("low", "email", RunOutcome.COMPLETED, 0.2)
            worker.waited("low", "email", 0.1)
            worker.flush()

        current[0] = meter_provider
        worker.flush()
        worker.record("low", "email", RunOutcome.COMPLETED, 0.2)
        worker.waited("low", "email", 0.1)
        worker.flush()

        assert (totals(first)["asynq.task.wait_time"], totals(reader)["asynq.task.wait_time"]) == (3, 1)
        assert totals(first)["asynq.tasks.processed"] == 3
        assert totals(reader)["asynq.tasks.processed"] == 1

    def test_stuck_runs_are_counted_at_once_with_bounded_series(
        self, meter_provider: MeterProvider, reader: InMemoryMetricReader
    ) -> None:
        worker = WorkerMetrics(meter_provider=meter_provider, max_series=1)

        for name in ("email", "other", "third"):
            worker.stuck("low", name)

        assert points(reader)["asynq.tasks.stuck"] == [
            ({"messaging.destination.name": "low", "messaging.asynq.task.type": "email"}, 1),
            ({"messaging.destination.name": "_other", "messaging.asynq.task.type": "_other"}, 2),
        ]

    def test_metrics_have_the_documented_labels(
        self, meter_provider: MeterProvider, reader: InMemoryMetricReader
    ) -> None:
        worker = WorkerMetrics(meter_provider=meter_provider, server=("redis.example", 6379))
        worker.record("low", "email", RunOutcome.RETRIED, 0.2, "ValueError")

        worker.flush()

        task = {"messaging.destination.name": "low", "messaging.asynq.task.type": "email", "error.type": "ValueError"}
        run = {**task, "messaging.asynq.task.outcome": "retried"}
        message = {
            "messaging.system": "asynq",
            "messaging.operation.name": "process",
            "messaging.destination.name": "low",
            "server.address": "redis.example",
            "server.port": 6379,
            "error.type": "ValueError",
        }
        assert points(reader) == {
            "asynq.tasks.processed": [(run, 1)],
            "asynq.tasks.failed": [(task, 1)],
            "asynq.tasks.retried": [(task, 1)],
            "asynq.task.processing_time": [(run, 1)],
            "messaging.process.duration": [(message, 1)],
            "messaging.client.consumed.messages": [(message, 1)],
        }

    @pytest.mark.parametrize(
        ("outcome", "error_type", "counted"),
        [
            (RunOutcome.COMPLETED, None, {"processed"}),
            (RunOutcome.RETRIED, "ValueError", {"processed", "failed", "retried"}),
            (RunOutcome.RETRIED, None, {"processed", "retried"}),
            (RunOutcome.ARCHIVED, "ValueError", {"processed", "failed"}),
            (RunOutcome.ARCHIVED, None, {"processed", "failed"}),
            (RunOutcome.DISCARDED, None, {"processed"}),
            (RunOutcome.SNOOZED, None, set()),
            (RunOutcome.REQUEUED, "CancelledError", set()),
            (RunOutcome.LOST, "lease_lost", set()),
        ],
    )
    def test_outcomes_are_mapped_to_metrics(
        self,
        meter_provider: MeterProvider,
        reader: InMemoryMetricReader,
        outcome: RunOutcome,
        error_type: str | None,
        counted: set[str],
    ) -> None:
        worker = WorkerMetrics(meter_provider=meter_provider)
        worker.record("low", "email", outcome, 0.2, error_type)

        worker.flush()

        found = totals(reader)
        assert {name.removeprefix("asynq.tasks.") for name in found if name.startswith("asynq.tasks.")} == counted
        assert found["messaging.client.consumed.messages"] == 1

    def test_series_are_bounded_and_no_count_is_lost(
        self, meter_provider: MeterProvider, reader: InMemoryMetricReader
    ) -> None:
        worker = WorkerMetrics(meter_provider=meter_provider, max_series=10)
        for number in range(100):
            worker.record("low", f"type-{number}", RunOutcome.RETRIED, 0.2, f"Error{number}")

        worker.flush()

        failed = points(reader)["asynq.tasks.failed"]
        other = {"messaging.destination.name": "_other", "messaging.asynq.task.type": "_other", "error.type": "_other"}
        assert len(failed) == 11
        assert (other, 90) in failed

    def test_a_duration_has_the_span_of_the_task_as_exemplar(
        self, meter_provider: MeterProvider, reader: InMemoryMetricReader, provider: TracerProvider
    ) -> None:
        span = Tracing(tracer_provider=provider).start_consumer("low", "email", "1", retried=0, max_retry=1, headers={})
        worker = WorkerMetrics(meter_provider=meter_provider)

        worker.record("low", "email", RunOutcome.COMPLETED, 0.2, context=span.context)

        data = reader.get_metrics_data()
        assert data is not None
        (metric, _) = data.resource_metrics[0].scope_metrics[0].metrics
        (example,) = metric.data.data_points[0].exemplars
        assert span.span is not None
        assert example.span_id == span.span.get_span_context().span_id

    def test_ignored_fields_are_counted_by_task(
        self, meter_provider: MeterProvider, reader: InMemoryMetricReader
    ) -> None:
        worker = WorkerMetrics(meter_provider=meter_provider)

        worker.ignored_fields("low", "email", 2)
        worker.ignored_fields("low", "email", 1)

        task = {"messaging.destination.name": "low", "messaging.asynq.task.type": "email"}
        assert points(reader) == {"asynq.tasks.ignored_fields": [(task, 3)]}

    @pytest.mark.usefixtures("clean_globals")
    def test_without_an_sdk_nothing_is_stored_and_a_later_one_is_noticed_at_the_tick(
        self, meter_provider: MeterProvider, reader: InMemoryMetricReader
    ) -> None:
        worker = WorkerMetrics()
        worker.record("low", "email", RunOutcome.COMPLETED, 0.2)
        was_active = worker.is_active

        metrics.set_meter_provider(meter_provider)
        worker.flush()
        worker.record("low", "email", RunOutcome.COMPLETED, 0.2, context=Context())
        worker.flush()

        assert (was_active, worker.is_active) == (False, True)
        assert totals(reader)["asynq.tasks.processed"] == 1

    def test_alert_counters_are_exported_as_zero_from_the_start(
        self, meter_provider: MeterProvider, reader: InMemoryMetricReader
    ) -> None:
        """A series that appears with its first event shows no increase, so it must exist before."""
        WorkerMetrics(meter_provider=meter_provider).expect(["low", "high"], ["lost", "doubled"])

        told = points(reader)
        assert totals(reader) == dict.fromkeys(
            ("asynq.repairs", "asynq.tasks.stuck", "asynq.tasks.malformed_traces"), 0
        )
        assert len(told["asynq.repairs"]) == 4
        assert len(told["asynq.tasks.stuck"]) == 2


class TestClient:
    def test_enqueued_tasks_are_counted(self, meter_provider: MeterProvider, reader: InMemoryMetricReader) -> None:
        client = ClientMetrics(meter_provider=meter_provider, server=("/run/redis.sock", 0))

        client.sent("low", "email", 200, duration_s=0.01)
        client.sent("low", "email")

        task = {"messaging.destination.name": "low", "messaging.asynq.task.type": "email"}
        message = {
            "messaging.system": "asynq",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": "low",
            "server.address": "/run/redis.sock",
        }
        assert points(reader) == {
            "asynq.tasks.enqueued": [(task, 201)],
            "messaging.client.sent.messages": [(message, 201)],
            "messaging.client.operation.duration": [(message, 1)],
            "asynq.client.circuit_opened": [({}, 0)],
        }

    def test_refused_tasks_count_as_sent_but_not_enqueued(
        self, meter_provider: MeterProvider, reader: InMemoryMetricReader
    ) -> None:
        ClientMetrics(meter_provider=meter_provider).sent("low", "email", error_type="BrokerFullError")

        ((labels, count),) = points(reader)["messaging.client.sent.messages"]
        assert (labels["error.type"], count) == ("BrokerFullError", 1)
        assert "asynq.tasks.enqueued" not in points(reader)

    def test_series_are_bounded(self, meter_provider: MeterProvider, reader: InMemoryMetricReader) -> None:
        client = ClientMetrics(meter_provider=meter_provider, max_series=10)

        for number in range(100):
            client.sent(f"queue-{number}", "email")

        enqueued = points(reader)["asynq.tasks.enqueued"]
        assert len(enqueued) == 11
        assert ({"messaging.destination.name": "_other", "messaging.asynq.task.type": "_other"}, 90) in enqueued

    @pytest.mark.usefixtures("clean_globals")
    def test_an_sdk_configured_later_is_noticed_at_once(
        self, meter_provider: MeterProvider, reader: InMemoryMetricReader
    ) -> None:
        client = ClientMetrics()
        client.sent("low", "email")

        metrics.set_meter_provider(meter_provider)
        client.sent("low", "email")

        assert totals(reader)["asynq.tasks.enqueued"] == 1


@pytest.mark.parametrize(
    ("opt_in", "expected", "version"),
    [
        ("", {"messaging.system"}, "1.44.0"),
        ("messaging", {"messaging.system.name"}, "1.45.0"),
        ("messaging/dup", {"messaging.system", "messaging.system.name"}, "1.45.0"),
    ],
)
def test_the_environment_selects_old_or_new_names_or_both(
    meter_provider: MeterProvider,
    reader: InMemoryMetricReader,
    monkeypatch: pytest.MonkeyPatch,
    opt_in: str,
    expected: set[str],
    version: str,
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", opt_in)
    worker = WorkerMetrics(meter_provider=meter_provider)

    ClientMetrics(meter_provider=meter_provider).sent("low", "email", duration_s=0.1)
    worker.record("low", "email", RunOutcome.COMPLETED, 0.2)
    worker.flush()

    data = reader.get_metrics_data()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    assert scope.schema_url == f"https://opentelemetry.io/schemas/{version}"
    found = {
        metric.name: {name for name, value in dict(point.attributes).items() if value == "asynq"}
        for metric in scope.metrics
        for point in metric.data.data_points
        if metric.name.startswith("messaging.")
    }
    assert found == dict.fromkeys(
        (
            "messaging.client.sent.messages",
            "messaging.client.operation.duration",
            "messaging.client.consumed.messages",
            "messaging.process.duration",
        ),
        expected,
    )


def test_the_names_of_attributes_and_metrics_are_in_one_module() -> None:
    root = Path(names.__file__).parents[2]
    literal = re.compile(r"""["'](messaging|asynq)\.[a-z_.]+["']""")
    modules = [path for package in root.glob("taskq_*") for path in package.rglob("*.py")]

    assert [path.name for path in modules if literal.search(path.read_text(encoding="utf-8"))] == ["names.py"]
