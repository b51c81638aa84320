"""Test the framework's signals: time, sender, and that no receiver changes the outcome of a task."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.dispatch import Signal

from taskq_core import Snooze, TaskInterrupted
from taskq_core.inspector import Inspector
from taskq_django import TaskQBackend, taskq
from taskq_django.tasks_backend import running
from taskq_django.tasks_backend.framework import (
    PACKAGE,
    TaskResultStatus,
    task_enqueued,
    task_finished,
    task_started,
)
from taskq_django.testing import adrain, drain
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.parcels import tasks as parcels

pytestmark = pytest.mark.redis
SIGNALS = {"enqueued": task_enqueued, "started": task_started, "finished": task_finished}


@pytest.fixture(autouse=True)
def redis(redis_server: RedisServer, settings: Any) -> Iterator[RedisServer]:
    settings.TASKQ = {"URL": redis_server.unix_url, "ENQUEUE": "immediate", "ENQUEUE_TIMEOUT": 30}
    yield redis_server
    taskq.close()
    assert not running._running, "no run is remembered once it is over"


@contextmanager
def connected(signal: Signal, receiver: Any) -> Iterator[None]:
    signal.connect(receiver, weak=False)
    try:
        yield
    finally:
        signal.disconnect(receiver)


class SignalRecorder:
    """Records signals: name, sender, status and number of errors."""

    def __init__(self) -> None:
        self.words: list[tuple[str, str, int]] = []
        self.senders: set[Any] = set()
        self.results: list[Any] = []
        self.errors: list[BaseException | None] = []

    def receiver(self, word: str) -> Any:
        def receive(sender: Any, task_result: Any, **_: Any) -> None:
            self.senders.add(sender)
            self.words.append((word, str(task_result.status), len(task_result.errors)))
            self.results.append(task_result)
            self.errors.append(sys.exc_info()[1])

        return receive


@pytest.fixture
def recorder() -> Iterator[SignalRecorder]:
    recorder = SignalRecorder()
    receivers = {word: recorder.receiver(word) for word in SIGNALS}
    for word, signal in SIGNALS.items():
        signal.connect(receivers[word])
    yield recorder
    for word, signal in SIGNALS.items():
        signal.disconnect(receivers[word])


@pytest.mark.parametrize("name", ["weigh", "track"])
def test_a_success_sends_three_signals(name: str, recorder: SignalRecorder) -> None:
    result = getattr(parcels, name).enqueue(1)
    drain()

    assert recorder.words == [("enqueued", "READY", 0), ("started", "RUNNING", 0), ("finished", "SUCCESSFUL", 0)]
    assert recorder.senders == {TaskQBackend}
    finished = recorder.results[-1]
    result.refresh()
    assert (finished.id, finished.return_value, finished.args) == (result.id, result.return_value, [1])
    assert finished.worker_ids == result.worker_ids
    assert finished.started_at <= finished.finished_at


@pytest.mark.parametrize("name", ["lose", "alose"])
def test_a_failure_sends_its_error(name: str, recorder: SignalRecorder) -> None:
    """The signal is sent inside the `except` block of the error, because Django's log needs its traceback."""
    result = getattr(parcels, name).enqueue(1)
    drain(raises=False)

    assert recorder.words == [("enqueued", "READY", 0), ("started", "RUNNING", 0), ("finished", "FAILED", 1)]
    assert [type(error) for error in recorder.errors] == [type(None), type(None), parcels.LostError]
    result.refresh()
    assert recorder.results[-1].errors == result.errors


def test_a_retry_sends_no_finished_signal(recorder: SignalRecorder) -> None:
    parcels.deliver.using(max_retry=5).enqueue(2)
    drain(raises=False, advance=60)

    words = ["enqueued", "started", "started", "finished"]
    assert [word for word, *_ in recorder.words] == words
    assert [each.attempts for each in recorder.results[1:]] == [1, 2, 2]


def test_an_invalid_payload_sends_a_failure(recorder: SignalRecorder) -> None:
    """The function is not called, and the task has failed."""
    taskq.remote("tests.taskq_django.parcels.tasks.weigh", retention=60, max_retry=0).delay(unit="kg")
    drain(raises=False)

    assert recorder.words == [("started", "RUNNING", 0), ("finished", "FAILED", 1)]
    assert recorder.results[1].errors[0].exception_class_path == "taskq_core.errors.PayloadError"


def test_a_snoozed_run_sends_no_finished_signal(recorder: SignalRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def snooze(*_: Any) -> None:
        raise Snooze(3600)

    result = parcels.label.enqueue()
    monkeypatch.setattr(taskq.tasks[parcels.label.module_path], "function", snooze)
    drain(raises=False)
    monkeypatch.undo()

    assert [word for word, *_ in recorder.words] == ["enqueued", "started"]
    result.refresh()
    assert result.status == TaskResultStatus.READY


@rows("word", SIGNALS)
@rows("raised", [ValueError("no"), SystemExit("no")], ids=["error", "exit"])
@rows("name", ["weigh", "track", "lose"])
def test_a_receiver_that_raises_changes_nothing(word: str, raised: BaseException, name: str) -> None:
    calls = []

    def receiver(**_: Any) -> None:
        calls.append(word)
        raise raised

    with connected(SIGNALS[word], receiver):
        result = getattr(parcels, name).enqueue(1)
        drain(raises=False)

    result.refresh()
    assert calls == [word]
    assert result.status == (TaskResultStatus.FAILED if name == "lose" else TaskResultStatus.SUCCESSFUL)
    assert [each.exception_class_path for each in result.errors] == (
        ["tests.taskq_django.parcels.tasks.LostError"] if name == "lose" else []
    )


async def test_receivers_may_be_coroutines() -> None:
    recorder: list[str] = []

    async def receiver(sender: Any, task_result: Any, **_: Any) -> None:
        recorder.append(str(task_result.status))

    with connected(task_enqueued, receiver), connected(task_started, receiver), connected(task_finished, receiver):
        await parcels.track.aenqueue(1)
        await adrain()

    assert recorder == ["READY", "RUNNING", "SUCCESSFUL"]


def test_a_refused_task_sends_no_signal(recorder: SignalRecorder, settings: Any) -> None:
    settings.TASKQ = {"URL": "unix:///nowhere/at/all.sock", "ENQUEUE": "immediate", "ENQUEUE_TIMEOUT": 0.01}

    with pytest.raises(Exception, match="was not enqueued"):
        parcels.label.enqueue()

    assert recorder.words == []


def test_djangos_log_is_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger=PACKAGE)
    result, failed = parcels.label.enqueue(), parcels.lose.enqueue(1)
    drain(raises=False)

    lines = [(each.levelname, each.getMessage()) for each in caplog.records if each.name == PACKAGE]
    path = "tests.taskq_django.parcels.tasks"
    assert {
        ("DEBUG", f"Task id={result.id} path={path}.label enqueued backend=default"),
        ("INFO", f"Task id={result.id} path={path}.label state=RUNNING"),
        ("INFO", f"Task id={result.id} path={path}.label state=SUCCESSFUL"),
        ("ERROR", f"Task id={failed.id} path={path}.lose state=FAILED"),
    } <= set(lines)
    assert "NoneType" not in caplog.text


def test_a_context_that_cannot_read_earlier_attempts_still_counts_attempts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If Redis fails while they are read, the run continues and knows the number of its attempt."""
    result = parcels.deliver.using(max_retry=5).enqueue(2)

    def blind(*_: Any, **__: Any) -> Any:
        from taskq_core import BrokerUnavailableError

        class Blind:
            def refresh(self) -> None:
                raise BrokerUnavailableError("away")

        return Blind()

    monkeypatch.setattr(running, "TaskHandle", blind)
    drain(raises=False, advance=60)
    monkeypatch.undo()

    result.refresh()
    assert result.return_value == [[], 2]
    assert "cannot read the earlier attempts" in caplog.text


def test_an_interruption_in_a_receiver_ends_the_run() -> None:
    """The timeout of a task also ends its run inside a receiver."""

    def receiver(**_: Any) -> None:
        raise TaskInterrupted("context deadline exceeded")

    with connected(task_started, receiver):
        result = parcels.label.enqueue()
        drain(raises=False)

    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    assert Inspector(taskq).task("default", result.id).last_error
