"""Test the answers to requests whose task was refused. They are the same wherever the refusal becomes known."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from taskq_core import (
    BrokerUnavailableError,
    CircuitOpenError,
    DuplicateTaskError,
    EnqueueError,
    EnqueueUnknownError,
    QueueFullError,
    TaskHandle,
    TaskIdConflictError,
    TaskNotSentError,
    TaskQ,
)
from taskq_fastapi import AcceptedDep, TaskAccepted, answer_refusal, task_router
from tests.rows import rows

taskq = TaskQ("redis://nowhere.invalid")


@taskq.task(name="note")
def note() -> None: ...


def away(kind: type[EnqueueError], cause: Exception) -> EnqueueError:
    error = kind("note", "default", "2", "no answer from redis://secret")
    error.__cause__ = cause
    return error


def app_of(error: BaseException) -> FastAPI:
    """Return an app whose routes learn of a refusal in three ways."""
    app = FastAPI()
    app.include_router(task_router(allow_anonymous=True), prefix="/tasks")
    app.add_exception_handler(EnqueueError, answer_refusal)

    def failed() -> TaskHandle[Any]:
        handle = taskq.runtime.preparer.handle(note, "2")
        handle.mark_deferred()
        handle.mark_sent(error)
        return handle

    @app.post("/raised")
    async def raised() -> None:
        raise error

    @app.post("/accepted", status_code=202)
    async def accepted(accepted: AcceptedDep) -> TaskAccepted:
        return accepted(failed())

    @app.post("/handle")
    async def returned() -> TaskHandle[Any]:
        return failed()

    return app


@rows(
    ("error", "existing"),
    [
        (DuplicateTaskError("note", "default", "2", existing_id="1"), "1"),
        (TaskIdConflictError("note", "default", "2"), "2"),
        (DuplicateTaskError("note", "default", "2"), None),
    ],
)
def test_a_conflict_is_answered_409_with_the_existing_task(error: EnqueueError, existing: str | None) -> None:
    """So a client looks at the existing task instead of repeating the request for ever."""
    web = TestClient(app_of(error))
    url = existing and f"/tasks/status/default/{existing}"

    for path in ("/raised", "/accepted", "/handle"):
        answer = web.post(path)
        # A returned handle does not know the app, and therefore no address.
        expected_url = None if path == "/handle" else url
        assert answer.status_code == 409
        assert answer.json()["detail"] == {
            "message": str(error),
            "queue": "default",
            "existing_id": existing,
            "status_url": expected_url,
        }
        assert answer.headers.get("location") == expected_url


@rows(
    ("error", "after_s"),
    [
        (QueueFullError("note", "default", "2", 5, 5), "30"),
        (away(EnqueueError, BrokerUnavailableError("away")), "5"),
        (away(EnqueueUnknownError, BrokerUnavailableError("away")), "5"),
        (away(EnqueueError, CircuitOpenError("redis://secret", 5, 2.1, "away")), "3"),
    ],
)
def test_a_refusal_that_may_pass_is_answered_503(error: EnqueueError, after_s: str) -> None:
    web = TestClient(app_of(error))

    for path in ("/raised", "/accepted", "/handle"):
        answer = web.post(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, after_s)
        assert "secret" not in answer.text


def test_other_errors_are_not_answered() -> None:
    web = TestClient(app_of(EnqueueError("note", "default", "2", "a mistake")))

    with pytest.raises(EnqueueError, match="a mistake"):
        web.post("/raised")
    for path in ("/accepted", "/handle"):
        with pytest.raises(TaskNotSentError, match="a mistake"):
            web.post(path)


def test_a_route_whose_transaction_was_rolled_back_accepts_no_task() -> None:
    app = FastAPI()

    @app.post("/handle")
    async def returned() -> TaskHandle[Any]:
        handle = taskq.runtime.preparer.handle(note, "2")
        handle.mark_rolled_back()
        return handle

    with pytest.raises(TaskNotSentError, match="its transaction was rolled back"):
        TestClient(app).post("/handle")
