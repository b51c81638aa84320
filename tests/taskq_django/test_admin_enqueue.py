"""Enqueueing a registered task from the admin: the form is built from its signature."""

import enum
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from html import unescape
from typing import Annotated, Any, Literal

import msgspec
import pytest
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from taskq_core import TaskContext
from taskq_core.broker.operations.operation import Operation
from taskq_core.errors import BrokerUnavailableError
from taskq_core.inspector import Inspector
from taskq_core.worker import Worker, WorkerConfig
from taskq_django import taskq
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.admin_pages import TASKS, messages, user

pytestmark = [pytest.mark.redis, pytest.mark.django_db]
ADD = f"{TASKS}add/"
got: list[dict[str, Any]] = []


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass
class Address:
    city: str
    zip: int = 0


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Tasks with all kinds of parameters, registered while a test runs."""
    before = set(taskq.tasks)
    got.clear()

    @taskq.task(name="try:all", retention=60)
    def all_kinds(
        context: TaskContext,
        text: str,
        number: int,
        share: float,
        flag: bool,
        day: date,
        moment: datetime,
        price: Decimal,
        key: uuid.UUID,
        size: Size,
        mode: Literal["fast", "slow"],
        tags: list[str],
        address: Address,
        anything,  # type: ignore[no-untyped-def]
        note: str | None,
        *,
        limit: Annotated[int, msgspec.Meta(ge=1)] = 10,
        greeting: str = "hello",
        extra: dict[str, int] | None = None,
        loud: bool = False,
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


@pytest.fixture(autouse=True)
def at_once(redis: RedisServer, settings: Any) -> None:
    """Tasks are sent at once, because each test is a transaction that never commits."""
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "immediate"}


@pytest.fixture
def operator(client: Client, redis: RedisServer) -> Client:
    """A browser of somebody who may enqueue tasks and see them."""
    client.force_login(user("ada", "view_task", "add_task"))
    return client


FULL = {
    "arg_text": " with spaces ",
    "arg_number": "-7",
    "arg_share": "0.5",
    "arg_flag": "True",
    "arg_day": "2026-11-25",
    "arg_moment_0": "2026-11-25",
    "arg_moment_1": "12:30:00",
    "arg_price": "12.50",
    "arg_key": "6fa459ea-ee8a-3ca4-894e-db77e160355e",
    "arg_size": "LARGE",
    "arg_mode": "slow",
    "arg_tags": '["a", "b"]',
    "arg_address": '{"city": "Turin"}',
    "arg_anything": '{"deep": [1, null]}',
    "arg_note": "",
    "queue": "default",
}


def submit(client: Client, name: str, **data: str) -> Any:
    return client.post(f"{ADD}?task={name}", {"_save": "Save", "queue": "default", **data}, follow=True)


def errors(response: Any) -> str:
    html = response.content.decode()
    return " ".join(unescape(text) for text in re.findall(r'<ul class="errorlist[^>]*>(.*?)</ul>', html, re.DOTALL))


def pending() -> list[Any]:
    return list(Inspector(taskq).tasks().tasks)


def test_the_registered_tasks_are_offered(operator: Client) -> None:
    html = operator.get(ADD).content.decode()

    assert '<a href="?task=try%3Aall">try:all</a>' in html
    assert "Take one of each kind." in html
    assert "And say more" not in html
    assert unescape(html).count("(text: str, number: int,") == 1
    assert "context" not in html
    assert 'name="_save"' not in html


def test_a_task_is_enqueued_with_values_of_every_kind_and_run(operator: Client, settings: Any) -> None:
    settings.TIME_ZONE = "UTC"

    response = submit(operator, "try:all", **FULL)
    Worker(taskq, WorkerConfig(burst=True)).run()

    assert errors(response) == ""
    assert "was added successfully" in messages(response.content.decode())[0]
    assert got == [
        {
            "text": " with spaces ",
            "number": -7,
            "share": 0.5,
            "flag": True,
            "day": date(2026, 11, 25),
            "moment": datetime(2026, 11, 25, 12, 30, tzinfo=UTC),
            "price": Decimal("12.50"),
            "key": uuid.UUID("6fa459ea-ee8a-3ca4-894e-db77e160355e"),
            "size": Size.LARGE,
            "mode": "slow",
            "tags": ["a", "b"],
            "address": Address("Turin"),
            "anything": {"deep": [1, None]},
            "note": None,
            "limit": 10,
            "greeting": "hello",
            "extra": None,
            "loud": False,
        }
    ]


def test_what_is_left_to_its_default_is_not_in_the_payload(operator: Client) -> None:
    submit(operator, "try:all", **FULL, arg_limit="3", arg_loud="True")

    (task,) = pending()
    payload = msgspec.json.decode(task.payload)

    assert (payload["limit"], payload["loud"]) == (3, True)
    assert not {"greeting", "extra"} & set(payload)


def test_the_form_says_what_an_empty_field_stands_for(operator: Client) -> None:
    html = unescape(operator.get(f"{ADD}?task=try:all").content.decode())

    assert "Left empty: 'hello'." in html
    assert "Left empty: None." in html
    assert "As JSON." in html


def test_options_are_those_of_the_task_unless_others_are_given(operator: Client, redis: RedisServer) -> None:
    html = operator.get(f"{ADD}?task=try:options").content.decode()
    assert '<option value="low" selected>low</option>' in html
    assert "Left empty: 7." in html

    submit(operator, "try:options", queue="low")
    submit(operator, "try:options", queue="default", run_after="3600", max_retry="0", task_id="order-7")

    plain, other = sorted(pending(), key=lambda task: task.state)
    assert (plain.queue, plain.max_retry, plain.state) == ("low", 7, "pending")
    assert (other.queue, other.max_retry, other.state, other.id) == ("default", 0, "scheduled", "order-7")


@pytest.mark.django_db(transaction=True)
def test_a_row_is_given_by_its_primary_key(operator: Client) -> None:
    grace = User.objects.create_user("grace")

    submit(operator, "try:user", arg_user=str(grace.pk))
    Worker(taskq, WorkerConfig(burst=True)).run()

    assert got == [{"user": grace}]


def test_tasks_of_djangos_framework_are_enqueued_too(operator: Client) -> None:
    """Whose arguments are JSON, and which may take any number of them."""
    label, weigh = (f"tests.taskq_django.parcels.tasks.{name}" for name in ("label", "weigh"))
    html = unescape(operator.get(ADD).content.decode())
    assert f">{label}</a> <code>(*args: Any, **kwargs: Any)</code>" in html

    refused = submit(operator, label, arg_args='{"a": 1}')
    submit(operator, label, arg_args='["a", 1]', arg_kwargs='{"b": null}')
    submit(operator, label)
    submit(operator, weigh, arg_parcel="7", arg_exact="True")
    Worker(taskq, WorkerConfig(burst=True)).run()

    assert "expected list" in errors(refused)
    done = {task.payload: task.result for task in pending()}
    assert {payload: msgspec.json.decode(result) for payload, result in done.items()} == {
        b'{"args":["a",1],"kwargs":{"b":null}}': {"args": ["a", 1], "kwargs": {"b": None}},
        b"{}": {"args": [], "kwargs": {}},
        b'{"parcel":7,"exact":true}': [7, "kg", True],
    }


def test_it_is_logged_who_enqueued_which_task(operator: Client) -> None:
    submit(operator, "shop:greet", arg_name="Grace")

    (task,), entry = pending(), LogEntry.objects.get()
    assert (entry.user.get_username(), entry.object_id, entry.action_flag) == ("ada", f"default/{task.id}", ADDITION)


def test_the_next_task_can_be_enqueued_at_once(operator: Client) -> None:
    data = {"_addanother": "1", "queue": "default", "arg_name": "Grace"}

    response = operator.post(f"{ADD}?task=shop:greet", data, follow=True)

    assert response.redirect_chain == [(f"{ADD}?task=shop:greet", 302)]
    assert "You may enqueue another below." in messages(response.content.decode())[0]
    assert len(pending()) == 1


@rows(
    ("name", "value", "problem"),
    [
        ("arg_number", "seven", "Enter a whole number."),
        ("arg_number", "", "This field is required."),
        ("arg_share", "nan", "Enter a number."),
        ("arg_flag", "maybe", "Select a valid choice"),
        ("arg_flag", "", "This field is required."),
        ("arg_day", "2026-02-30", "Enter a valid date."),
        ("arg_moment_1", "25:00", "Enter a valid time."),
        ("arg_price", "Infinity", "Enter a number."),
        ("arg_key", "not a key", "Enter a valid UUID."),
        ("arg_size", "MEDIUM", "Select a valid choice"),
        ("arg_mode", "medium", "Select a valid choice"),
        ("arg_tags", "[1]", "expected `str`"),
        ("arg_tags", "[", "not valid JSON"),
        ("arg_address", '{"zip": 1}', "missing required field"),
        ("arg_anything", "[" * 10_000, "nested too deeply"),
        ("arg_limit", "0", ">= 1"),
        ("queue", "no such queue", "Select a valid choice"),
        ("run_after", "-1", "greater than or equal to 0"),
        ("run_after", "9" * 20, "less than or equal to"),
        ("max_retry", "9" * 20, "less than or equal to"),
        ("task_id", "x" * 300, "task id"),
    ],
)
def test_what_does_not_fit_is_refused_and_stays_in_the_form(
    operator: Client, name: str, value: str, problem: str
) -> None:
    response = submit(operator, "try:all", **{**FULL, name: value})

    assert problem.replace("`", "") in errors(response).replace("`", "")
    assert 'value=" with spaces "' in response.content.decode()
    assert pending() == []
    assert not LogEntry.objects.exists()


@rows("key", ["x", "[", "", "null"])
def test_what_is_no_key_of_a_row_is_refused(operator: Client, key: str) -> None:
    response = submit(operator, "try:user", arg_user=key)

    assert errors(response)
    assert pending() == []


def test_an_id_that_is_taken_is_told(operator: Client) -> None:
    submit(operator, "shop:greet", arg_name="Grace", task_id="order-7")

    response = submit(operator, "shop:greet", arg_name="Ada", task_id="order-7")

    assert "order-7" in errors(response)
    assert 'value="Ada"' in response.content.decode()
    assert len(pending()) == 1


def test_redis_that_fails_while_a_task_is_enqueued_is_told_and_the_form_stays(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = taskq.runtime.runner.run

    def failing(operation: Operation[Any], **options: Any) -> Any:
        if operation.name == "enqueue":
            raise BrokerUnavailableError("Redis is away")
        return run(operation, **options)

    monkeypatch.setattr(taskq.runtime.runner, "run", failing)
    response = submit(operator, "shop:greet", arg_name="Ada")

    assert "Redis is away" in errors(response)
    assert 'value="Ada"' in response.content.decode()
    assert not LogEntry.objects.exists()


@rows("name", ["email:deliver", "", "try:all\0", "x" * 5000])
def test_only_registered_tasks_can_be_enqueued(operator: Client, name: str) -> None:
    response = operator.post(f"{ADD}?task={name}", {"queue": "default", "_save": "Save"})

    assert "Choose a task" in response.content.decode()
    assert pending() == []


def test_without_the_permission_nothing_is_offered_and_nothing_enqueued(client: Client, redis: RedisServer) -> None:
    client.force_login(user("eve", "view_task", "change_task", "delete_task", "run_task"))

    assert "/add/" not in client.get(TASKS).content.decode()
    assert client.get(f"{ADD}?task=shop:greet").status_code == 403
    assert client.post(f"{ADD}?task=shop:greet", {"arg_name": "x", "queue": "default"}).status_code == 403
    assert pending() == []


def test_it_is_enqueued_at_once_also_where_each_request_is_a_transaction(
    operator: Client,
) -> None:
    from django.db import connection

    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        response = submit(operator, "shop:greet", arg_name="Grace", task_id="order-7")
        again = submit(operator, "shop:greet", arg_name="Ada", task_id="order-7")
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False

    assert "was added successfully" in messages(response.content.decode())[0]
    assert "order-7" in errors(again)


def test_the_check_of_the_project_has_nothing_against_these_pages() -> None:
    call_command("check", verbosity=0)
