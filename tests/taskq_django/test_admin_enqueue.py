"""Enqueueing a registered task from the admin, with its arguments as JSON."""

import json
from collections.abc import Iterator
from datetime import date
from html import unescape
from typing import Annotated, Any

import msgspec
import pytest
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.auth.models import User
from django.test import Client

from taskq_core import TaskContext
from taskq_core.broker.operations.operation import Operation
from taskq_core.errors import BrokerUnavailableError
from taskq_core.inspector import Inspector
from taskq_core.worker import Worker, WorkerConfig
from taskq_django import taskq
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.admin_pages import TASKS, errors, messages, user

pytestmark = [pytest.mark.redis, pytest.mark.django_db, pytest.mark.usefixtures("at_once")]
ADD = f"{TASKS}add/"
got: list[dict[str, Any]] = []


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Register tasks for the duration of a test."""
    before = set(taskq.tasks)
    got.clear()

    @taskq.task(name="try:all", retention=60)
    def all_kinds(
        context: TaskContext,
        text: str,
        number: int,
        day: date,
        *,
        limit: Annotated[int, msgspec.Meta(ge=1)] = 10,
        greeting: str = "hello",
    ) -> None:
        """Take one of each kind.

        And say more of it here.
        """
        got.append({name: value for name, value in locals().items() if name != "context"})

    @taskq.task(name="try:user", retention=60)
    def with_row(user: User) -> None:
        """Take a row."""
        got.append({"user": user})

    @taskq.task(name="try:options", queue="low", max_retry=7)
    def with_options() -> None: ...

    yield
    for name in set(taskq.tasks) - before:
        taskq._tasks.pop(name)


@pytest.fixture
def operator(client: Client, redis: RedisServer) -> Client:
    """Return the browser of a user who may enqueue and view tasks."""
    client.force_login(user("ada", "view_task", "add_task"))
    return client


FULL = {"text": " with spaces ", "number": -7, "day": "2026-11-25"}


def submit(client: Client, name: str, arguments: object = FULL, **data: str) -> Any:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    posted = {"_save": "Save", "queue": "default", "arguments": text, **data}
    return client.post(f"{ADD}?task={name}", posted, follow=True)


def pending() -> list[Any]:
    return list(Inspector(taskq).tasks().tasks)


def test_the_form_offers_the_registered_tasks(operator: Client) -> None:
    html = operator.get(ADD).content.decode()

    assert f'href="{ADD}"' in operator.get(TASKS).content.decode()
    assert '<a href="?task=try%3Aall">try:all</a>' in html
    assert "Take one of each kind." in html
    assert "And say more" not in html
    assert unescape(html).count("(text: str, number: int, day:") == 1
    assert "context" not in html
    assert 'name="_save"' not in html


def test_a_task_is_enqueued_and_run(operator: Client) -> None:
    response = submit(operator, "try:all")
    (task,) = pending()
    Worker(taskq, WorkerConfig(burst=True)).run()

    assert errors(response.content.decode()) == ""
    assert "was added successfully" in messages(response.content.decode())[0]
    assert msgspec.json.decode(task.payload) == FULL
    entry = LogEntry.objects.get()
    assert (entry.user.get_username(), entry.object_id, entry.action_flag) == ("ada", f"default/{task.id}", ADDITION)
    assert got == [{"text": " with spaces ", "number": -7, "day": date(2026, 11, 25), "limit": 10, "greeting": "hello"}]


def test_the_form_offers_the_arguments_without_a_default(operator: Client) -> None:
    html = unescape(operator.get(f"{ADD}?task=try:all").content.decode())

    assert '{\n  "text": null,\n  "number": null,\n  "day": null\n}' in html


def test_empty_option_fields_use_the_options_of_the_task(operator: Client, redis: RedisServer) -> None:
    html = operator.get(f"{ADD}?task=try:options").content.decode()
    assert '<option value="low" selected>low</option>' in html
    assert "Empty: 7." in html

    submit(operator, "try:options", {}, queue="low")
    submit(operator, "try:options", {}, queue="default", run_after="3600", max_retry="0", task_id="order-7")

    plain, other = sorted(pending(), key=lambda task: task.state)
    assert (plain.queue, plain.max_retry, plain.state) == ("low", 7, "pending")
    assert (other.queue, other.max_retry, other.state, other.id) == ("default", 0, "scheduled", "order-7")


@pytest.mark.django_db(transaction=True)
def test_a_model_argument_is_entered_as_a_primary_key(operator: Client) -> None:
    grace = User.objects.create_user("grace")

    submit(operator, "try:user", {"user": grace.pk})
    Worker(taskq, WorkerConfig(burst=True)).run()

    assert got == [{"user": grace}]


def test_tasks_of_djangos_framework_are_enqueued_too(operator: Client) -> None:
    """Such a task takes any number of JSON arguments."""
    label, weigh = (f"tests.taskq_django.parcels.tasks.{name}" for name in ("label", "weigh"))
    html = unescape(operator.get(ADD).content.decode())
    assert f">{label}</a> <code>(*args: Any, **kwargs: Any)</code>" in html

    refused = submit(operator, label, {"args": {"a": 1}})
    submit(operator, label, {"args": ["a", 1], "kwargs": {"b": None}})
    submit(operator, label, {})
    submit(operator, weigh, {"parcel": 7, "exact": True})
    Worker(taskq, WorkerConfig(burst=True)).run()

    assert "expected a list" in errors(refused.content.decode())
    done = {task.payload: task.result for task in pending()}
    assert {payload: msgspec.json.decode(result) for payload, result in done.items()} == {
        b'{"args":["a",1],"kwargs":{"b":null}}': {"args": ["a", 1], "kwargs": {"b": None}},
        b"{}": {"args": [], "kwargs": {}},
        b'{"parcel":7,"exact":true}': [7, "kg", True],
    }


def test_the_next_task_can_be_enqueued_at_once(operator: Client) -> None:
    data = {"_addanother": "1", "queue": "default", "arguments": '{"name": "Grace"}'}

    response = operator.post(f"{ADD}?task=shop:greet", data, follow=True)

    assert response.redirect_chain == [(f"{ADD}?task=shop:greet", 302)]
    assert "You may enqueue another below." in messages(response.content.decode())[0]
    assert len(pending()) == 1


@rows(
    ("given", "problem"),
    [
        ({"arguments": {**FULL, "number": "seven"}}, "number: "),
        ({"arguments": {"text": "x"}}, "missing"),
        ({"arguments": {**FULL, "limit": 0}}, ">= 1"),
        ({"arguments": {**FULL, "nothing": 0}}, "nothing"),
        ({"arguments": [1]}, "expected a JSON object"),
        ({"arguments": "["}, "The payload is not JSON"),
        ({"arguments": "[" * 10_000}, "The payload is not JSON"),
        ({"arguments": ""}, "This field is required."),
        ({"queue": "no such queue"}, "Select a valid choice"),
        ({"run_after": "-1"}, "greater than or equal to 0"),
        ({"run_after": "9" * 20}, "run_after must be at most 100 years"),
        ({"max_retry": "9" * 20}, "max_retry must be"),
        ({"task_id": "x" * 300}, "task id"),
    ],
)
def test_invalid_input_is_refused_and_stays_in_the_form(operator: Client, given: dict[str, Any], problem: str) -> None:
    response = submit(operator, "try:all", **{"arguments": {**FULL, "greeting": "hi"}, **given})

    assert problem.lower() in errors(response.content.decode()).lower()
    assert "arguments" in given or '"greeting": "hi"' in unescape(response.content.decode())
    assert pending() == []
    assert not LogEntry.objects.exists()


@rows("key", ["x", "", None])
def test_an_invalid_primary_key_is_refused(operator: Client, key: object) -> None:
    response = submit(operator, "try:user", {"user": key})

    assert errors(response.content.decode())
    assert pending() == []


def test_a_duplicate_task_id_is_reported(operator: Client) -> None:
    submit(operator, "shop:greet", {"name": "Grace"}, task_id="order-7")

    response = submit(operator, "shop:greet", {"name": "Ada"}, task_id="order-7")

    assert "order-7" in errors(response.content.decode())
    assert '"name": "Ada"' in unescape(response.content.decode())
    assert len(pending()) == 1


def test_a_redis_error_is_reported_and_the_input_stays_in_the_form(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = taskq.runtime.runner.run

    def failing(operation: Operation[Any], **options: Any) -> Any:
        if operation.name == "enqueue":
            raise BrokerUnavailableError("Redis is away")
        return run(operation, **options)

    monkeypatch.setattr(taskq.runtime.runner, "run", failing)
    response = submit(operator, "shop:greet", {"name": "Ada"})

    assert "Redis is away" in errors(response.content.decode())
    assert '"name": "Ada"' in unescape(response.content.decode())
    assert not LogEntry.objects.exists()


@rows("name", ["email:deliver", "", "try:all\0", "x" * 5000])
def test_only_registered_tasks_can_be_enqueued(operator: Client, name: str) -> None:
    response = operator.post(f"{ADD}?task={name}", {"queue": "default", "_save": "Save"})

    assert "Choose a task" in response.content.decode()
    assert pending() == []


def test_a_user_without_the_permission_cannot_enqueue(client: Client, redis: RedisServer) -> None:
    client.force_login(user("eve", "view_task", "change_task", "delete_task", "run_task"))

    assert "/add/" not in client.get(TASKS).content.decode()
    assert client.get(f"{ADD}?task=shop:greet").status_code == 403
    assert client.post(f"{ADD}?task=shop:greet", {"arg_name": "x", "queue": "default"}).status_code == 403
    assert pending() == []


def test_a_task_is_enqueued_at_once_even_with_atomic_requests(
    operator: Client,
) -> None:
    from django.db import connection

    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        response = submit(operator, "shop:greet", {"name": "Grace"}, task_id="order-7")
        again = submit(operator, "shop:greet", {"name": "Ada"}, task_id="order-7")
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False

    assert "was added successfully" in messages(response.content.decode())[0]
    assert "order-7" in errors(again.content.decode())
