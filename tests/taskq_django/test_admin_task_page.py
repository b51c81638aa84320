"""Test the page of one task in the admin, where its arguments can be changed."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from html import unescape
from typing import Any, Literal

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import call_command
from django.test import Client

from taskq_core import Answer, TaskContext
from taskq_core.inspector import Inspector
from taskq_core.testing import drain
from taskq_django import taskq
from tests.hostile import HOSTILE, assert_escaped
from tests.publishing import publish_task
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.admin_pages import (
    TASKS,
    enqueue,
    errors,
    fields,
    key,
    messages,
    page_of,
    payload_of,
    put,
    user,
)

pytestmark = [pytest.mark.redis, pytest.mark.django_db, pytest.mark.usefixtures("at_once")]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
FORM = '<form method="post" id="task_form"'


@pytest.fixture
def operator(client: Client, redis: RedisServer) -> Client:
    """Return the browser of a user who may change tasks."""
    client.force_login(user("ada", "view_task", "view_payload", "change_task"))
    return client


@pytest.fixture
def pages(operator: Client) -> Callable[..., str]:
    """Return the text of a page."""

    def page(path: str) -> str:
        response = operator.get(path)
        assert response.status_code == 200
        return response.content.decode()

    return page


def form_of(html: str) -> dict[str, list[str]]:
    return fields(html, '<form method="post" id="task_form"') if FORM in html else fields(html, 'id="task_form"')


def edit(client: Client, handle: Any, arguments: str, **more: Any) -> Any:
    """Open the page, change the arguments and save."""
    data = form_of(client.get(page_of(handle)).content.decode())
    return client.post(page_of(handle), {**data, "arguments": arguments, "_save": "Save", **more}, follow=True)


# --- looking ----------------------------------------------------------------------------------------------------------


def test_the_times_of_a_task_are_shown_in_order(pages: Callable[..., str], redis: RedisServer) -> None:
    handle = enqueue()
    put(
        redis,
        handle,
        "retry",
        score=4_000_000_000,
        last_failed_at=1_700_000_000,
        deadline=4_100_000_000,
        headers={"taskq-enqueued": "1699999999000", "x": "y"},
    )

    html = pages(page_of(handle))
    lines = re.findall(r'<li class="taskq-(past|ahead)"><strong>(.*?)</strong> <time datetime="([^"]*)"', html)

    assert lines == [
        ("past", "enqueued", "2023-11-14T22:13:19+00:00"),
        ("past", "failed", "2023-11-14T22:13:20+00:00"),
        ("ahead", "next attempt", "2096-10-02T07:06:40+00:00"),
        ("ahead", "deadline", "2099-12-03T16:53:20+00:00"),
    ]
    assert re.search(
        '<table class="taskq-pairs"><tbody><tr><th scope="row">x</th><td>y</td></tr></tbody></table>', html
    )
    assert "taskq-enqueued" not in html


def test_the_times_of_a_task_have_the_same_labels_as_in_the_dashboard(pages: Callable[..., str], settings: Any) -> None:
    handle = taskq.remote("email:deliver", expires=timedelta(hours=1)).delay()

    assert "expires, unless a worker has started it" in pages(page_of(handle))
    settings.LANGUAGE_CODE = "zh-hans"
    assert "过期，除非已有 worker 开始执行" in pages(page_of(handle))


def test_attempts_are_shown_with_their_tracebacks(pages: Callable[..., str], redis: RedisServer) -> None:
    handle = taskq.remote("email:nobody-runs-this", max_retry=0).delay()
    call_command("runworker", "--burst", verbosity=0)

    html = pages(page_of(handle))

    assert "attempt 1 failed" in html
    assert re.search(r"<details[^>]*><summary>attempt 1 failed, after [0-9.]+ s.*</summary><pre", html)
    assert "Last error:" in html


def test_the_error_of_a_completed_task_is_shown_as_history(pages: Callable[..., str], redis: RedisServer) -> None:
    handle = enqueue()
    put(redis, handle, "completed", error_msg="asynq: task lease expired")

    html = pages(page_of(handle))

    assert "Error of an earlier run:" in html
    assert "asynq: task lease expired" in html
    assert "Last error:" not in html
    assert "lease expired" not in pages(TASKS)


def test_the_progress_of_a_task_is_escaped(pages: Callable[..., str], redis: RedisServer) -> None:
    handle = enqueue()
    put(redis, handle, "active")
    progress = b'{"done":3,"total":10,"at":1700000000000,"message":"<b>page</b>"}'
    redis.client.hset(f"asynq:{{default}}:t:{handle.id}", "taskq_progress", progress)

    html = pages(page_of(handle))

    assert '<progress value="0.3" max="1"></progress> 3 of 10 (30 %): &lt;b&gt;page&lt;/b&gt;' in html


def test_the_intermediate_result_of_a_running_task_is_shown(pages: Callable[..., str], redis: RedisServer) -> None:
    handle = enqueue()
    put(redis, handle, "active")
    redis.client.hset(f"asynq:{{default}}:t:{handle.id}", "result", b'{"done": 3, "of": 10}')

    html = pages(page_of(handle))

    assert "&quot;done&quot;: 3" in html
    assert "Partial result: the task is still running." in html


def test_a_task_links_to_its_trace_if_the_setting_has_a_url(
    pages: Callable[..., str], redis: RedisServer, settings: Any
) -> None:
    handle = enqueue()
    put(redis, handle, "pending", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    assert f"{TRACE}" in pages(page_of(handle))
    assert "TASKQ[&#x27;TRACE&#x27;][&#x27;URL&#x27;]" in pages(page_of(handle))

    settings.TASKQ = {**settings.TASKQ, "TRACE": {"URL": "https://tempo.example/trace/{trace_id}?a=1&b=2"}}
    html = pages(page_of(handle))

    link = f'<a href="https://tempo.example/trace/{TRACE}?a=1&amp;b=2" target="_blank" rel="noopener noreferrer">'
    assert link in html


@pytest.mark.parametrize("permission", ["view_payload", "change_task"])
def test_only_a_user_who_may_see_and_change_arguments_can_save_the_form(
    client: Client, redis: RedisServer, permission: str
) -> None:
    client.force_login(user("eve", "view_task", permission))
    handle = enqueue(to="grace@example.com")

    html = client.get(page_of(handle)).content.decode()
    response = client.post(page_of(handle), {"arguments": "{}", "shown": "", "_save": "Save"})

    assert ("grace@example.com" in html) is (permission == "view_payload")
    assert "<textarea" not in html
    assert response.status_code == 403
    assert payload_of(redis, handle) == b'{"to":"grace@example.com"}'


@pytest.mark.parametrize("state", ["active", "completed"])
def test_only_a_waiting_task_has_a_form(pages: Callable[..., str], redis: RedisServer, state: str) -> None:
    handle = enqueue(to="grace")
    put(redis, handle, state)

    html = pages(page_of(handle))

    assert "grace" in html
    assert "<textarea" not in html
    assert 'name="_save"' not in html


@rows("payload", [b"\xff\xfe", b"x" * 70_000, b"a\0b"])
def test_arguments_that_a_form_cannot_hold_are_shown_without_a_form(pages: Callable[..., str], payload: bytes) -> None:
    handle = taskq.remote("email:deliver").delay(payload)

    assert "<textarea" not in pages(page_of(handle))


def test_all_values_of_a_task_are_escaped_in_the_form(pages: Callable[..., str], redis: RedisServer) -> None:
    handle = taskq.remote("email:deliver", headers={HOSTILE: HOSTILE}).delay(text=HOSTILE)
    of_workflow = {"taskq-workflow": HOSTILE, "taskq-workflow-queue": HOSTILE}
    put(redis, handle, "archived", error_msg=HOSTILE, headers=of_workflow)
    attempt = {"attempt": 1, "ended": 1} | dict.fromkeys(("worker", "error", "traceback"), HOSTILE)
    redis.client.hset(f"asynq:{{default}}:t:{handle.id}", "taskq_attempts", json.dumps(attempt))

    html = pages(page_of(handle))

    assert_escaped(html)
    assert form_of(html)["arguments"] == [json.dumps({"text": HOSTILE}, indent=2)]


# --- changing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["pending", "scheduled", "retry", "archived"])
def test_the_arguments_of_a_waiting_task_can_be_changed(operator: Client, redis: RedisServer, state: str) -> None:
    handle = taskq.tasks["shop:greet"].delay("Grace")
    put(redis, handle, state)

    response = edit(operator, handle, '{\r\n  "name": "Ada"\r\n}')

    assert "was changed successfully" in messages(response.content.decode())[0]
    assert payload_of(redis, handle) == b'{"name":"Ada"}'
    entry = LogEntry.objects.get()
    assert (entry.user.get_username(), entry.object_id, entry.get_change_message()) == (
        "ada",
        key(handle),
        "Changed Arguments.",
    )


@rows(
    ("arguments", "problem"),
    [
        ("{", "The payload is not JSON"),
        ("", "The payload is not JSON"),
        ("[1]", "Expected a JSON object"),
        ("{}", "name"),
        ('{"name": 7}', "expected str"),
        ('{"name": "\ud83d"}', "JSON"),
        ("[" * 50_000, "JSON"),
    ],
)
def test_arguments_that_do_not_fit_the_task_are_refused_and_stay_in_the_form(
    operator: Client, redis: RedisServer, arguments: str, problem: str
) -> None:
    handle = taskq.tasks["shop:greet"].delay("Grace")
    arguments = arguments.encode("utf-8", "replace").decode()

    html = edit(operator, handle, arguments).content.decode()

    if "?" in arguments:
        return
    assert problem in errors(html)
    assert form_of(html)["arguments"] == [arguments]
    assert payload_of(redis, handle) == b'{"name":"Grace"}'
    assert not LogEntry.objects.exists()


def test_arguments_of_an_unregistered_task_must_only_keep_their_format(operator: Client, redis: RedisServer) -> None:
    """JSON stays JSON with unchanged numbers, and other text stays text."""
    number, text = taskq.remote("go:number").delay(b'{"n": 1}'), taskq.remote("go:text").delay(b"plain")

    edit(operator, number, '{"n": 12345678901234567890123, "m": 1e400}')
    assert payload_of(redis, number) == b'{"n":12345678901234567890123,"m":1e400}'
    assert "The payload is not JSON" in errors(edit(operator, number, "plain").content.decode())
    edit(operator, text, "other, plain")
    assert payload_of(redis, text) == b"other, plain"


def test_saving_without_a_change_changes_no_byte(operator: Client, redis: RedisServer) -> None:
    handle = taskq.remote("go:number").delay(b'{ "n" :  1.0 }\n')

    operator.post(page_of(handle), {**form_of(operator.get(page_of(handle)).content.decode()), "_save": "Save"})

    assert payload_of(redis, handle) == b'{ "n" :  1.0 }\n'


def test_an_outdated_page_changes_nothing_and_keeps_the_typed_text(operator: Client, redis: RedisServer) -> None:
    """Two operators edit at once. The second gets a message, and no change is overwritten silently."""
    handle = taskq.tasks["shop:greet"].delay("Grace")
    first, second = (form_of(operator.get(page_of(handle)).content.decode()) for _ in range(2))
    operator.post(page_of(handle), {**first, "arguments": '{"name": "Ada"}', "_save": "Save"})

    html = operator.post(page_of(handle), {**second, "arguments": '{"name": "Bob"}', "_save": "Save"}).content.decode()

    assert "have changed since this page was opened" in errors(html)
    assert form_of(html)["arguments"] == ['{"name": "Bob"}']
    assert payload_of(redis, handle) == b'{"name":"Ada"}'


def test_a_concurrent_change_during_the_save_is_reported(
    operator: Client, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another operator changes the task between the check of the form and the write."""
    handle = taskq.tasks["shop:greet"].delay("Grace")
    update = Inspector.update_payload

    def overtaken(self: Inspector, *args: Any, **options: Any) -> None:
        update(self, "default", handle.id, b'{"name":"Ada"}')
        update(self, *args, **options)

    monkeypatch.setattr(Inspector, "update_payload", overtaken)
    html = edit(operator, handle, '{"name": "Bob"}').content.decode()

    assert "the payload has changed since it was read" in errors(html)
    assert form_of(html)["arguments"] == ['{"name": "Bob"}']
    assert payload_of(redis, handle) == b'{"name":"Ada"}'
    assert not LogEntry.objects.exists()


def test_a_change_of_a_task_that_has_started_is_refused_with_a_message(operator: Client, redis: RedisServer) -> None:
    handle = taskq.tasks["shop:greet"].delay("Grace")
    data = form_of(operator.get(page_of(handle)).content.decode())
    put(redis, handle, "active")

    html = operator.post(page_of(handle), {**data, "arguments": '{"name": "Bob"}', "_save": "Save"}).content.decode()

    assert "is not waiting any more" in errors(html)
    assert payload_of(redis, handle) == b'{"name":"Grace"}'
    assert not LogEntry.objects.exists()


def test_a_change_of_a_deleted_task_redirects_to_the_list_with_a_message(operator: Client, redis: RedisServer) -> None:
    handle = taskq.tasks["shop:greet"].delay("Grace")
    data = form_of(operator.get(page_of(handle)).content.decode())
    Inspector(taskq).delete_task("default", handle.id)

    response = operator.post(page_of(handle), {**data, "arguments": "{}", "_save": "Save"}, follow=True)

    assert response.redirect_chain == [(TASKS, 302)]
    assert "does not exist any more" in messages(response.content.decode())[0]


def test_a_form_with_missing_fields_changes_nothing(operator: Client, redis: RedisServer) -> None:
    handle = taskq.tasks["shop:greet"].delay("Grace")

    html = operator.post(page_of(handle), {"_save": "Save"}).content.decode()

    assert "have changed since this page was opened" in errors(html)
    assert payload_of(redis, handle) == b'{"name":"Grace"}'


# --- steps ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a task that waits for the signal `review`."""
    monkeypatch.setattr(taskq, "_tasks", {})
    handle = publish_task(taskq).delay(photo_id=7)
    drain(taskq)
    return handle


def act(client: Client, handle: Any, action: str, **fields_of_form: str) -> tuple[str, Callable[[], list[str]]]:
    """Open the confirmation page of an action. Return it, and a function that confirms it and returns the messages."""
    address = page_of(handle, "act", action)
    asked = client.get(address).content.decode()
    data = {**fields(asked, '<form method="post" novalidate'), **fields_of_form}
    return unescape(asked), lambda: messages(client.post(address, data, follow=True).content.decode())


def test_a_task_that_waits_for_the_first_of_several_signals_gets_the_chosen_one(
    client: Client, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taskq, "_tasks", {})

    @taskq.task(name="orders:wait", retention=60)
    def wait(context: TaskContext) -> tuple[str, Any]:
        return context.receive_any({"paid": bool, "cancelled": str})

    handle = wait.delay()
    drain(taskq)
    client.force_login(user("ann", "view_task", "view_payload", "view_workflow", "signal_task"))
    page = unescape(client.get(page_of(handle)).content.decode())
    asked, send = act(client, handle, "send_signal", value='"too late"', signal="cancelled")
    sent = send()
    drain(taskq)

    assert "waiting for paid | cancelled" in page
    assert re.findall(r'/act/(\w+)/"', page) == ["send_signal"]
    assert re.findall(r'<option value="(\w+)"', asked) == ["paid", "cancelled"]
    assert sent == ["1 signal was sent."]
    assert handle.result(timeout=30) == ("cancelled", "too late")


def test_a_waiting_task_shows_its_steps_and_is_approved_once(client: Client, waiting: Any) -> None:
    client.force_login(user("ann", "view_task", "view_payload", "view_workflow", "signal_task"))

    page = unescape(client.get(page_of(waiting)).content.decode())
    listed = client.get(TASKS).content.decode()
    _, approve = act(client, waiting, "approve")
    asked, reject = act(client, waiting, "reject")
    approved, rejected = approve(), reject()
    drain(taskq)
    again = unescape(client.get(page_of(waiting)).content.decode())
    invalid, _ = act(client, waiting, "send_signal")
    refused = client.post(page_of(waiting, "act", "send_signal"), {"post": "yes", "value": "[" * 9999})
    _, send = act(client, waiting, "send_signal", value='{"approved": false, "note": "blurred"}')
    sent = send()
    drain(taskq)

    assert re.search(r"scheduled, waiting for review, (7 d 0|6 d 23) h left", page)
    assert re.search(r"waiting for review, (7 d 0|6 d 23) h left", listed)
    lines = re.findall(r'<li class="taskq-(past|ahead)"><strong>([\w-]+)</strong> (?:<a [^>]*>)?(\w+)', page)
    assert lines == [("past", "step", "moderate"), ("past", "sub-tasks", "call"), ("ahead", "signal", "review")]
    assert '{"photo":7}' in page
    assert "/taskq_django/workflow/" in page
    assert re.findall(r'/act/(\w+)/"', page) == ["approve", "reject", "send_signal"]
    assert "<p>Reject “review” of the task photos:publish?</p>" in asked
    assert re.search(r"</a>, waiting for review, (7 d 0|6 d 23) h left <pre", asked)
    assert '"photo_id": 7' in asked
    assert approved == ["1 signal was sent."]
    assert rejected == ["1 was skipped: changed since the page was loaded."]
    assert "review#2" in again
    assert '{"approved": true}</textarea>' in invalid
    assert errors(refused.content.decode()) == "Enter a valid JSON."
    assert sent == ["1 signal was sent."]
    assert Inspector(taskq).task("default", waiting.id).result == b"[true,false]"
    assert [(str(entry.user), entry.change_message) for entry in LogEntry.objects.order_by("id")] == [
        ("ann", 'Sent {"approved": true} as the signal “review”.'),
        ("ann", "Sent a value as the signal “review”."),
    ]


def test_a_user_without_the_permission_cannot_approve(client: Client, waiting: Any) -> None:
    client.force_login(user("eve", "view_task", "change_task", "run_task"))

    page = client.get(page_of(waiting)).content.decode()

    assert "/act/approve/" not in page
    assert client.post(page_of(waiting, "act", "approve"), {"post": "yes"}).status_code == 403
    assert waiting.refresh().state == "scheduled"
    _, archive = act(client, waiting, "archive_tasks")
    assert archive() == ["1 task was archived."]


@dataclass
class Refund:
    """An answer with fields."""

    approved: bool
    share: Literal["all", "half"]
    days: int = 14


@pytest.fixture
def asking(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return tasks that ask questions."""
    monkeypatch.setattr(taskq, "_tasks", {})

    @taskq.task(name="shop:refund", retention=60)
    def refund(context: TaskContext) -> list[str]:
        answer = context.receive("refund", Answer[Refund], ask={"card": "X-17"})
        paid = context.receive("paid", Answer[bool], ask={"amount": "9.99"})
        return [f"{answer.by} {answer.value.share} {answer.value.days}", f"{paid.by} {paid.value}"]

    handle = refund.delay()
    drain(taskq)
    return handle


def answering(client: Client, action: str, **fields_of_form: str) -> tuple[str, Callable[[], list[str]]]:
    """Open the form that answers the only question. Return it, and a function that sends it."""
    address = f"{questions_of(client)[0]}act/{action}/"
    asked = client.get(address).content.decode()
    data = {**fields(asked, '<form method="post" novalidate'), **fields_of_form}
    return unescape(asked), lambda: messages(client.post(address, data, follow=True).content.decode())


def questions_of(client: Client) -> list[str]:
    """Return the addresses of the pages of the questions in the inbox."""
    html = client.get("/admin/taskq_django/question/").content.decode()
    return [f"/admin/taskq_django/question/{each}/" for each in re.findall(r'question/([^/"]+)/change/', html)]


def test_the_inbox_shows_questions_with_a_form_and_the_first_answer_counts(client: Client, asking: Any) -> None:
    client.force_login(user("ann", "view_task", "view_payload", "view_question", "signal_task"))

    inbox = unescape(client.get("/admin/taskq_django/question/").content.decode())
    page = unescape(client.get(f"{questions_of(client)[0]}change/").content.decode())
    task_page = unescape(client.get(page_of(asking)).content.decode())
    form, approve = answering(client, "approve", answer_share='"half"', answer_days="7")
    wrong = client.post(f"{questions_of(client)[0]}act/approve/", {"post": "yes", "answer_days": "x"}).content.decode()
    _, late = answering(client, "reject", answer_share='"all"')
    first, second = approve(), late()
    drain(taskq)
    _, pay = act(client, asking, "approve")
    paid = pay()
    drain(taskq)
    ended = unescape(client.get(page_of(asking)).content.decode())

    assert '{"card":"X-17"}' in inbox
    assert '"card": "X-17"' in page
    assert re.findall(r'/act/(\w+)/"', page) == ["approve", "reject"]
    assert re.search(r"question</strong> refund .*waits.*{\"card\":\"X-17\"}", task_page)
    assert "<p>Approve “refund” of the task shop:refund?</p>" in form
    assert [each in form for each in ('<option value=""half"">half', 'name="answer_days" value="14"')] == [True] * 2
    assert "Enter a whole number" in wrong
    assert "This field is required" in wrong
    assert first == ["1 question was answered."]
    assert second == [f"Open question “1 default {asking.id}” does not exist any more."]
    assert paid == ["1 signal was sent."]
    assert Inspector(taskq).task("default", asking.id).result == b'["ann half 7","ann True"]'
    assert "answered by ann" in ended
    assert questions_of(client) == []
    assert [entry.change_message for entry in LogEntry.objects.order_by("id")] == [
        f"Answered the question “refund” of the task {asking.id}: Approve.",
        'Answered the question “paid” with {"approved": true}.',
    ]


def test_the_inbox_hides_what_is_asked_and_answers_nothing_without_the_permissions(client: Client, asking: Any) -> None:
    client.force_login(user("eve", "view_task", "view_question"))

    [question] = questions_of(client)
    pages = [client.get(each).content.decode() for each in ("/admin/taskq_django/question/", f"{question}change/")]

    assert ["X-17" in each or "/act/" in each for each in pages] == [False, False]
    assert client.post(f"{question}act/approve/", {"post": "yes"}).status_code == 403
    assert client.get(page_of(asking)).content.decode().count("X-17") == 0
    client.force_login(user("tom", "view_task"))
    assert client.get("/admin/taskq_django/question/").status_code == 403
