"""Test the conversion of a scheduler's periodic entry to the call that it enqueues."""

from datetime import UTC, datetime
from typing import Any

import pytest

from taskq_core import ConfigurationError, PeriodicTask, TaskQ
from taskq_core.inspector import PeriodicEntryInfo
from taskq_core.inspector.entry_call import entry_call


@pytest.fixture
def app() -> TaskQ:
    return TaskQ("redis://localhost:6379/0")


def entry(*options: str, name: str = "report:build", payload: bytes = b'{"day":1}', **more: Any) -> PeriodicEntryInfo:
    told = {"id": "nightly", "spec": "0 3 * * *", "next_run_at": None, "previous_run_at": None, **more}
    return PeriodicEntryInfo(name=name, payload=payload, options=options, **told)


def options_of(app: TaskQ, *options: str, **more: Any) -> Any:
    return entry_call(app, entry(*options, **more)).task.options


def test_options_shown_by_go_are_applied(app: TaskQ) -> None:
    found = options_of(
        app,
        'Queue("low")',
        "MaxRetry(3)",
        "Timeout(1m30s)",
        "Unique(1h0m0s)",
        "Retention(10ms)",
        "ProcessIn(5s)",
        "Deadline(Tue Jan  1 00:00:00 UTC 2030)",
        'TaskID("id-1")',
        'Group("digest")',
        'Header(["tenant","a"])',
        "Nonsense(1)",
        "broken",
    )

    assert (found.queue, found.max_retry, found.timeout) == ("low", 3, 90)
    assert (found.unique_for, found.retention) == (3600, 1)
    assert (found.run_after, found.deadline) == (5, datetime(2030, 1, 1, tzinfo=UTC))
    assert (found.task_id, found.aggregate, dict(found.headers)) == ("id-1", "digest", {"tenant": "a"})


def test_the_payload_is_sent_unchanged(app: TaskQ) -> None:
    call = entry_call(app, entry(payload=b"\xff\x00"))

    assert (call.task.name, call.task.encode(call.args, call.kwargs)) == ("report:build", b"\xff\x00")


def test_options_of_the_task_apply_if_the_entry_has_none(app: TaskQ) -> None:
    @app.task(name="report:build", queue="reports", max_retry=7, headers={"tenant": "a", "who": "b"})
    def build(day: int) -> None: ...

    found = options_of(app, "MaxRetry(3)", 'Header(["tenant","z"])')

    assert (found.queue, found.max_retry, dict(found.headers)) == ("reports", 3, {"tenant": "z", "who": "b"})


def test_an_entry_of_the_application_keeps_all_options_of_its_call(app: TaskQ) -> None:
    @app.task(name="report:build")
    def build(day: int) -> None: ...

    declared: PeriodicTask = app.schedule("0 3 * * *", build.s(day=1), id="nightly", on_expiry="discard")

    assert entry_call(app, entry(payload=declared.payload)) is declared.call
    assert entry_call(app, entry(payload=b'{"day":2}')) is not declared.call, "another release declares another"


def test_an_invalid_option_is_refused(app: TaskQ) -> None:
    with pytest.raises(ConfigurationError, match="queue name must not be blank"):
        options_of(app, 'Queue(" ")')
