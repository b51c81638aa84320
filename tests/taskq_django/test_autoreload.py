"""Test how the worker's reloader detects changed files. `test_commands` tests restarts with real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils.autoreload import StatReloader

from taskq_django.autoreload import _Watch
from tests.rows import rows


@rows(
    "error",
    [FileNotFoundError("a folder went away"), RuntimeError("dictionary changed size"), KeyError("a module")],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_check_does_not_affect_the_next(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A check can fail because folders and modules change while they are listed."""
    looks: list[list[tuple[Path, float]] | Exception] = [
        [(Path("tasks.py"), 1.0)],
        error,
        [(Path("tasks.py"), 1.0)],
        [(Path("tasks.py"), 2.0)],
        [(Path("tasks.py"), 2.0)],
    ]

    def snapshot(reloader: StatReloader) -> Iterator[tuple[Path, float]]:
        look = looks.pop(0)
        if isinstance(look, Exception):
            raise look
        yield from look

    monkeypatch.setattr(StatReloader, "snapshot_files", snapshot)
    watch = _Watch()

    assert [watch.must_restart() for _ in range(4)] == [False, False, True, False]


@rows(("changed_at", "is_stale"), [(99.0, False), (100.0, True), (101.0, True), (1e12, False)], ids=str)
def test_a_file_that_changed_while_code_was_loaded_causes_one_restart(
    monkeypatch: pytest.MonkeyPatch, changed_at: float, is_stale: bool
) -> None:
    """A file with a modification time in the future causes no restart, because it would cause endless restarts."""
    monkeypatch.setattr(StatReloader, "snapshot_files", lambda _: iter([(Path("tasks.py"), changed_at)]))
    watch = _Watch(loaded_since=100.0)

    assert [watch.must_restart(), watch.must_restart()] == [is_stale, False]
