"""The clock: aware times, and the only module that reads the wall clock."""

import ast
import time
from datetime import UTC, datetime
from pathlib import Path

import taskq_core
from taskq_core.clock import SYSTEM_CLOCK, Clock, utc_datetime


def test_times_are_aware() -> None:
    assert utc_datetime(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert utc_datetime(1.5).tzinfo is UTC


def test_the_system_clock_reads_the_time_of_the_machine() -> None:
    clock: Clock = SYSTEM_CLOCK
    before = time.time(), time.monotonic()
    now = clock.time(), clock.monotonic()
    after = time.time(), time.monotonic()

    assert before[0] <= now[0] <= after[0]
    assert before[1] <= now[1] <= after[1]


def test_nothing_else_reads_the_wall_clock() -> None:
    """Every other module of the core takes a `Clock`, Redis's time or the monotonic clock."""
    found = []
    for path in Path(taskq_core.__file__).parent.rglob("*.py"):
        if path.name == "clock.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                name = f"{node.value.id}.{node.attr}"
                if name in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"):
                    found.append(f"{path.name}:{node.lineno} {name}")

    assert found == []
