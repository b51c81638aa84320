"""Test routes that return the handle of a task: the response, and its OpenAPI schema."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from taskq_core import TaskContext, TaskHandle, TaskNotSentError, TaskQ
from taskq_core.testing import drain
from taskq_fastapi import ClientDep
from taskq_fastapi.testing import capture

taskq = TaskQ("redis://nowhere.invalid", defaults={"retention": 60})


@taskq.task(name="double")
def double(context: TaskContext, number: int) -> int:
    context.progress(1, 2, "half")
    return 2 * number


def app_of(**options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.post("/double/{number}", status_code=202)
    async def enqueue(number: int, client: ClientDep) -> TaskHandle[int]:
        return await client.enqueue(double.s(number))

    @app.get("/tasks/{task_id}", response_model_exclude_none=True)
    async def look(task_id: str) -> TaskHandle[Any]:
        return await taskq.aget(task_id)

    @app.post("/later/{number}")
    async def later(number: int, failed: bool = False) -> TaskHandle[int]:
        handle = await double.adelay(number)
        handle.mark_deferred()
        if failed:
            handle.mark_sent(ConnectionError("away"))
        return handle

    return app


def test_a_returned_handle_is_sent_without_arguments_and_result() -> None:
    app = app_of()
    with capture(app, taskq):
        web = TestClient(app)
        accepted = web.post("/double/4321")
        drain(taskq)
        ended = web.get(f"/tasks/{accepted.json()['id']}").json()

    response = accepted.json()
    assert accepted.status_code == 202
    assert response == {"id": response["id"], "queue": "default", "name": "double", "state": "pending"} | dict.fromkeys(
        ("progress", "started_at", "ended_at")
    )
    assert (ended["state"], ended["progress"]["message"]) == ("completed", "half")
    assert {"started_at", "ended_at"} < ended.keys()
    assert not {"4321", "8642"} & {str(each) for each in (*response.values(), *ended.values())}


def test_the_handle_of_an_unsent_task_has_no_state_and_a_failed_send_is_an_error() -> None:
    app = app_of()
    with capture(app, taskq):
        web = TestClient(app)

        assert web.post("/later/1").json()["state"] == "deferred"
        with pytest.raises(TaskNotSentError, match="away"):  # no error of an enqueue, so no client can correct it
            web.post("/later/1", params={"failed": True})


@pytest.mark.parametrize("separate", [True, False])
def test_the_schema_describes_the_handle(separate: bool) -> None:
    schema = app_of(separate_input_output_schemas=separate).openapi()

    answer = schema["paths"]["/double/{number}"]["post"]["responses"]["202"]["content"]["application/json"]["schema"]
    summary = schema["components"]["schemas"]["TaskSummary"]
    assert answer == {"$ref": "#/components/schemas/TaskSummary"}
    assert summary["required"] == ["id", "queue", "name", "state"]
    assert "deferred" in summary["description"]
