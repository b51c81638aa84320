"""Test that the JSON API covers the inspector, has a complete schema, and that responses match it."""

import dataclasses
import inspect
import logging
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings, strategies
from hypothesis.errors import Unsatisfiable
from pydantic import BaseModel
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from taskq_core import TaskInfo, TaskQ
from taskq_core import inspector as inspection
from taskq_core import views as dashboard
from taskq_core.inspector import AsyncInspector
from taskq_core.scheduler.runtime_schedules import named_schedule
from taskq_core.views import AsyncDashboard
from taskq_fastapi.api import models
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_fastapi.api import CHANGES, LOOKS, PREFIX, api_app, populate, requests, send

pytestmark = pytest.mark.redis

EXAMPLES = 25
"""Requests that are made up for each route."""
OPERATIONS = {
    "GET /queues": "queues queue_infos",
    "GET /queues/{queue}": "queue_info memory_usage queue",
    "GET /history": "history",
    "GET /groups": "groups groups_page",
    "GET /count": "count",
    "PATCH /queues/{queue}": "pause resume",
    "DELETE /queues/{queue}": "remove_queue remove_queue_part",
    "GET /tasks": "tasks",
    "GET /tasks/search": "find_tasks search_tasks",
    "GET /tasks/{queue}/{task_id}": "task timeline",
    "POST /tasks/{queue}/{task_id}": "run_task archive_task delete_task retry_task move_task cancel_task",
    "POST /tasks/{queue}/{task_id}/signals/{name}": "signal_task",
    "POST /tasks/{queue}/{task_id}/questions/{number}/answer": "answer_task",
    "GET /questions": "questions",
    "DELETE /tasks/{queue}/{task_id}/steps/{name}": "forget_step",
    "PATCH /tasks/{queue}/{task_id}": "reschedule_task update_payload",
    "GET /limits": "limits",
    "POST /limits": "set_limit",
    "DELETE /limits": "clear_limit",
    "POST /tasks/actions": "act_on act_on_matching run_all archive_all delete_all move_all select_tasks",
    "GET /workers": "servers workers",
    "GET /schedules": "scheduler_entries",
    "GET /schedules/{entry_id}/events": "scheduler_events",
    "POST /schedules": "add_schedule",
    "DELETE /schedules": "remove_schedule",
    "POST /schedules/actions": "pause_schedule resume_schedule",
    "POST /workers/actions": "control_workers",
    "GET /redis": "redis_info store",
    "GET /workflows": "workflows list_workflows",
    "GET /workflows/search": "workflow_counts search_workflows",
    "GET /workflows/{queue}/{workflow_id}": "workflow",
    "GET /workflow-steps/{queue}/{workflow_id}": "workflow_step",
    "GET /samples": "samples",
    "GET /types": "types",
}
"""By route: the operations of the inspector and the dashboard that it does."""


WITHOUT_ROUTE = {"reconcile", "key_slot", "cluster_nodes"}
"""Operations that workers do by themselves, or that `GET /redis` answers."""


def operations(*classes: type) -> set[str]:
    return {
        name
        for each in classes
        for name, function in inspect.getmembers(each, inspect.isfunction)
        if not name.startswith("_") and name != "run_plan"  # `run_plan` executes operations and is not one
    }


@pytest.fixture
def app(taskq: TaskQ) -> FastAPI:
    return api_app(taskq, allow_anonymous=True, show_payloads=True)


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def described(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path.removeprefix(PREFIX)}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_operation_of_the_inspector_and_the_dashboard_has_a_route(document: dict[str, Any]) -> None:
    with_route = {name for names in OPERATIONS.values() for name in names.split()}
    assert with_route | WITHOUT_ROUTE == operations(AsyncInspector, AsyncDashboard)
    assert set(OPERATIONS) <= set(described(document))


async def test_the_response_of_each_route_matches_its_schema(taskq: TaskQ, app: FastAPI) -> None:
    """The requests of other tests (`LOOKS`, `CHANGES`) cover every route."""
    await taskq.remote("note", task_id="1").adelay(number=1)
    seen = set()

    async with requests(app) as web:
        for method, path, body in (*(("GET", path, None) for path in LOOKS), *CHANGES):
            route = next(each for each in _routes(app) if _matches(each, method, path))
            seen.add(f"{method} {route}")
            answer = await send(web, method, path, body)
            assert answer.status_code in (200, 404, 409), answer.text

    assert seen == set(described(app.openapi()))


def _routes(app: FastAPI) -> list[str]:
    return [path.removeprefix(PREFIX) for path in app.openapi()["paths"]]


def _matches(template: str, method: str, path: str) -> bool:
    parts, wanted = path.partition("?")[0].split("/"), template.split("/")
    return len(parts) == len(wanted) and all(
        part == each or (each.startswith("{") and part not in ("actions", "search", "find"))
        for part, each in zip(parts, wanted, strict=True)
    )


def test_every_route_has_a_description_examples_and_problems(document: dict[str, Any]) -> None:
    for name, operation in described(document).items():
        assert operation["description"], name
        assert {"401", "403", "422", "503"} <= set(operation["responses"]), name
        for status, response in operation["responses"].items():
            if status != "200":
                problem = response["content"]["application/problem+json"]
                assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}, name
                assert problem["example"]["status"] == int(status), name
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description") or "$ref" in str(parameter["schema"]), (name, parameter["name"])
            if parameter["in"] == "path":
                assert parameter["schema"]["examples"], (name, parameter["name"])
    for schema in ("TaskChange", "BulkAction", "QueueRow", "Task", "Problem", "QueueChange", "PayloadText"):
        assert "examples" in str(document["components"]["schemas"][schema]), schema


RECORDS: dict[type, type[BaseModel]] = {
    inspection.QueueInfo: models.QueueRow,
    TaskInfo: models.Task,
    inspection.UnreadableTask: models.Task,
    inspection.PeriodicEntryInfo: models.Schedule,
    dashboard.StepDetail: models.StepDetail,
}


@rows("record", RECORDS, ids=lambda record: record.__name__)
def test_a_response_has_every_field_of_its_record_with_the_description(record: type) -> None:
    fields = {field.name for field in dataclasses.fields(record)}
    fields |= {name for name, _ in inspect.getmembers(record, lambda each: isinstance(each, property))}

    assert fields <= set(RECORDS[record].model_fields)
    if RECORDS[record] is not models.Task:
        assert all(RECORDS[record].model_fields[name].description for name in fields)


def test_a_router_adds_paths_only_below_its_prefix(app: FastAPI, document: dict[str, Any]) -> None:
    assert all(path.startswith(f"{PREFIX}/") for path in document["paths"])


def _can_be_wrong(operation: Any) -> bool:
    """Return whether a request can violate the schema. Every text is a valid name of a queue or task."""
    return bool(operation.body) or any(parameter.location != "path" for parameter in operation.iter_parameters())


def _name_what_is_there(case: Any) -> None:
    """Make a generated request name existing queues, tasks, workflows and entries, and possible actions."""
    there = {"queue": "default", "task_id": models.ID, "workflow_id": models.ID, "entry_id": "nightly", "page": 1}
    there["step"] = "note"
    for part in (case.path_parameters, case.query, case.body):
        if isinstance(part, dict):
            part.update({name: there[name] for name in part.keys() & there.keys()})
    if "state" in case.query and "workflows" not in case.operation.label:
        case.query["state"] = "pending"  # which needs no group
    for name in ("cursor", "group"):
        case.query.pop(name, None)
    if case.operation.label.endswith("/tasks/actions"):
        chosen = {"tasks": [{"queue": "default", "id": models.ID}]}
        case.body = {"action": "delete", **(chosen if case.body.get("filter") is None else _filter(case.body))}
    if case.operation.label == f"DELETE {PREFIX}/schedules":
        case.query["id"] = "added"
    if case.operation.label == f"POST {PREFIX}/limits":
        case.body = {"queue": "default", "name": "note", "concurrency": 5}
    if case.operation.label == f"POST {PREFIX}/workers/actions":
        case.body = {"action": "quiet"}
    if case.method == "DELETE":
        case.query["force"] = True


def _filter(body: dict[str, Any]) -> dict[str, Any]:
    return {"filter": {**body["filter"], "queue": "default", "state": "scheduled", "group": None}}


@pytest.mark.nightly
@pytest.mark.parametrize("mode", GenerationMode)
def test_responses_to_generated_requests_match_the_schema(
    taskq: TaskQ,
    server: RedisServer,
    app: FastAPI,
    mode: GenerationMode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Schemathesis sends valid and invalid requests, and checks every response against the schema."""
    caplog.set_level(logging.CRITICAL)
    tried: dict[str, list[int]] = {}

    for result in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        operation = result.ok()
        server.flushall()  # each route gets fresh data
        populate(taskq, server)
        added = named_schedule(taskq, "added", "@daily", "note", remote=True)
        inspection.Inspector(taskq).add_schedule(added)

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=mode), is_there=strategies.booleans())
        def attempt(case: Any, is_there: bool) -> None:
            if mode.is_positive and is_there:
                _name_what_is_there(case)
            answer = case.call_and_validate(excluded_checks=[positive_data_acceptance])
            tried.setdefault(case.operation.label, []).append(answer.status_code)
            if mode.is_positive and answer.status_code == 422:
                # A rule between parts of a request, such as a state and an action, which a schema cannot express.
                assert answer.json().get("errors") is None, (case, answer.text)

        try:
            attempt()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE
            assert not _can_be_wrong(operation), operation.label
            tried[operation.label] = []

    assert set(tried) == {f"{name.split()[0]} {PREFIX}{name.split()[1]}" for name in described(app.openapi())}
    assert sum(map(len, tried.values())) > 200
    if mode.is_positive:
        assert [label for label, statuses in tried.items() if 200 not in statuses] == []
