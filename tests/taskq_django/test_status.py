"""Test the status of a task in a page of a site: the view, and the template tag that polls it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.template import Context, Template
from django.test import RequestFactory
from django.urls import path
from django.utils.translation import override

from taskq_core import TaskContext, TaskInfo
from taskq_core.testing import drain
from taskq_django import task, taskq
from taskq_django.status import task_status_view
from tests.redis_server import RedisServer
from tests.taskq_django.shop.tasks import greet

pytestmark = pytest.mark.redis
View = Callable[..., HttpResponse]

urlpatterns = [path("exports/<str:task_id>/status", task_status_view(), name="export-status")]


def is_owner(request: HttpRequest, task: TaskInfo) -> bool:
    return task.headers.get("owner") == request.headers.get("X-User")


@pytest.fixture
def ask(redis: RedisServer, rf: RequestFactory) -> Callable[..., tuple[HttpResponse, Any]]:
    def ask(view: View, task_id: str, user: str = "ann") -> tuple[HttpResponse, Any]:
        answer = view(rf.get("/", headers={"X-User": user}), task_id=task_id)
        return answer, json.loads(answer.content)

    return ask


def test_the_owner_sees_the_status_of_a_task_and_never_its_payload(ask: Any) -> None:
    view = task_status_view(allow=is_owner)
    handle = greet.using(headers={"owner": "ann"}, queue="low").delay("canary")
    before, waiting = ask(view, handle.id)
    drain(taskq)
    _, done = ask(view, handle.id)

    assert before.status_code == 200
    assert "no-store" in before["Cache-Control"]
    assert (waiting["state"], waiting["is_final"], waiting["text"]) == ("pending", False, "Waiting")
    assert "canary" not in json.dumps(waiting)
    assert (done["state"], done["is_final"], done["text"]) == ("completed", True, "Done")
    assert done["result"] == "hello canary"
    assert None not in (done["started_at"], done["ended_at"])


def test_a_task_of_another_user_is_not_found(ask: Any) -> None:
    view = task_status_view(allow=is_owner)
    handle = greet.using(headers={"owner": "ann"}).delay("a")

    refused, status = ask(view, handle.id, user="bob")
    unknown, status_of_unknown = ask(view, "none")

    assert [refused.status_code, unknown.status_code] == [404, 404]
    assert status == status_of_unknown | {"id": handle.id}
    assert (status["state"], status["is_final"]) == ("gone", True)


def test_the_view_refuses_all_requests_without_a_permission_function(
    ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    handle = greet.delay("a")

    answer, status = ask(task_status_view(), handle.id)

    assert (answer.status_code, status) == (
        403,
        {"detail": "access is not configured; the log of the server explains how to allow it"},
    )
    assert "pass allow=" in caplog.text


def test_results_progress_and_errors_are_shown_as_configured(ask: Any) -> None:
    @task(retention=60, max_retry=0)
    def export(context: TaskContext, fails: bool) -> str:
        context.progress(1, 4, "page 1")
        if fails:
            raise ValueError("secret")
        return "/orders.csv"

    handles = [export.delay(fails) for fails in (False, True)]
    drain(taskq, raises=False)

    def shown(**options: bool) -> list[Any]:
        view = task_status_view(allow=lambda request, task: True, **options)
        found = [ask(view, handle.id)[1] for handle in handles]
        return [(each["result"], each["progress"] and each["progress"]["done"], each["error"]) for each in found]

    assert shown() == [("/orders.csv", 1, None), (None, 1, None)]
    assert shown(show_results=False, show_errors=True) == [(None, None, None), (None, None, "ValueError: secret")]


def test_a_task_in_the_outbox_has_a_status(ask: Any, settings: Any, db: None) -> None:
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "outbox"}
    handle = greet.delay("a")  # the transaction of the test is not committed

    _, status = ask(task_status_view(allow=lambda request, task: True), handle.id)

    assert (status["id"], status["state"]) == (handle.id, "pending")


def test_a_redis_outage_is_reported_without_the_address(
    rf: RequestFactory, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.TASKQ = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01}

    answer = task_status_view(allow=is_owner)(rf.get("/"), task_id="1")

    assert (answer.status_code, answer["Retry-After"]) == (503, "2")
    assert json.loads(answer.content) == {"detail": "the queue does not answer"}


def test_the_text_is_in_the_active_language(ask: Any) -> None:
    handle = greet.delay("a")

    with override("zh-hans"):
        _, status = ask(task_status_view(allow=lambda request, task: True), handle.id)

    assert status["text"] == "等待中"


@pytest.mark.urls(__name__)
def test_the_template_tag_draws_a_progress_bar_that_polls_the_view(redis: RedisServer) -> None:
    """The tag sends no request to Redis, because the view decides who may see the task."""
    page = Template('{% load taskq %}{% task_progress "export-status" task_id %}').render(Context({"task_id": "a b"}))

    assert 'data-taskq-status="/exports/a%20b/status"' in page
    assert "<progress" in page
    assert 'src="/static/taskq_django/task_progress.js" defer' in page
