"""Fixed figures of Go Asynq. They were measured earlier, because it cannot be installed from Python or npm packages.

The conditions were: two shared cores, Redis 8.0 without persistence, tasks that do nothing, and one worker process
unless the row names another number. Results and pictures mark these figures as measured earlier.
"""

from benchmarks.results import Row

LABEL = "measured earlier, not in this run"
_FIGURES = (
    ("drain 50", "drain, concurrency 50", "tasks/s", 12_800),
    ("drain two", "drain, two servers of concurrency 50", "tasks/s", 24_200),
    ("drain four", "drain, four servers of concurrency 50", "tasks/s", 34_000),
    ("enqueue sync", "enqueue, one after another", "tasks/s", 18_900),
    ("enqueue from 50", "enqueue, 50 goroutines", "tasks/s", 103_000),
    ("enqueue bulk", "enqueue, batches of 500", "tasks/s", 154_000),
    ("latency p50", "enqueue to start, median at 200/s", "ms", 490),
    ("latency p99", "enqueue to start, 99 % at 200/s", "ms", 1_239),
    ("latency p50", "enqueue to start, median at 200/s, told to poll every 10 ms", "ms", 4.7),
    ("latency p99", "enqueue to start, 99 % at 200/s, told to poll every 10 ms", "ms", 14),
)


def reference_rows() -> list[Row]:
    """Return the rows of Go Asynq."""
    return [
        Row(
            system="asynq (Go)",
            measure=measure,
            setting=LABEL,
            title=title,
            unit=unit,
            higher_is_better=unit == "tasks/s",
            placement="unknown",
            runs=[],
            median=figure,
            lowest=figure,
            highest=figure,
            source="reference",
        )
        for measure, title, unit, figure in _FIGURES
    ]
