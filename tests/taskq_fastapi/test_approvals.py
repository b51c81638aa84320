"""Test links by which people answer waiting tasks."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from taskq_core import Answer, ConfigurationError, TaskContext, TaskQ
from taskq_core.errors import StepError
from taskq_core.testing import drain
from taskq_core.views.approvals import _signed
from taskq_fastapi import taskq_lifespan
from taskq_fastapi.approvals import approval_router, approval_url
from tests.redis_server import RedisServer
from tests.rows import rows

pytestmark = pytest.mark.redis

SECRET = "a secret of enough characters"


@pytest.fixture
def urls() -> list[str]:
    return []


@pytest.fixture
def publish(taskq: TaskQ, urls: list[str]) -> Any:
    @taskq.task(retention=60)
    def publish(context: TaskContext) -> list[str]:
        answers = []
        for _ in range(2):
            where = {"base_url": "http://testserver/approvals/", "secret": SECRET}
            choices = {"Yes": "published", "<No>": "rejected"}
            url = approval_url(context, "review", question="Publish <7>?", choices=choices, **where)
            urls.append(context.step("mail", lambda url=url: url))
            answers.append(context.receive("review", str, timeout=timedelta(days=7)))
        return answers

    return publish


@pytest.fixture
def web(taskq: TaskQ) -> Any:
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(approval_router(secret=SECRET), prefix="/approvals")
    with TestClient(app) as web:
        yield web


def test_the_first_post_to_a_link_sends_the_answer_and_a_get_changes_nothing(
    taskq: TaskQ, server: RedisServer, web: TestClient, publish: Any, urls: list[str]
) -> None:
    handle = publish.delay()
    drain(taskq)
    before = server.contents()

    shown = [web.get(urls[0], params={"choice": "Yes"}), web.head(urls[0])]
    unchanged = server.contents() == before
    answered = web.post(urls[0], params={"choice": "<No>"})
    again = [web.post(urls[0], params={"choice": "Yes"}), web.get(urls[0])]
    drain(taskq)
    handle.signal("review", "by an admin")
    late = web.post(urls[-1], params={"choice": "Yes"})
    drain(taskq)
    ended = web.post(urls[-1], params={"choice": "Yes"})

    assert [each.status_code for each in shown] == [200, 200]
    assert "<h1>Publish &lt;7&gt;?</h1>" in shown[0].text
    assert 'formaction="?choice=%3CNo%3E">&lt;No&gt;</button>' in shown[0].text
    assert (shown[0].headers["referrer-policy"], shown[0].headers["cache-control"]) == ("no-referrer", "no-store")
    assert unchanged
    assert (answered.status_code, "recorded" in answered.text) == (200, True)
    assert [(each.status_code, "already answered" in each.text) for each in (*again, late)] == [(409, True)] * 3
    assert handle.result(timeout=0) == ["rejected", "by an admin"]
    assert (ended.status_code, "has ended" in ended.text) == (410, True)


def test_a_link_of_an_earlier_wait_does_not_answer_a_later_one(
    taskq: TaskQ, web: TestClient, publish: Any, urls: list[str]
) -> None:
    handle = publish.delay()
    drain(taskq)
    web.post(urls[0], params={"choice": "Yes"})
    drain(taskq)

    old, new = (web.post(url, params={"choice": "Yes"}).status_code for url in (urls[0], urls[-1]))
    drain(taskq)

    assert (old, new) == (409, 200)
    assert handle.result(timeout=0) == ["published", "published"]


def test_a_link_works_before_the_task_waits(taskq: TaskQ, web: TestClient) -> None:
    @taskq.task(retention=60)
    def hasty(context: TaskContext) -> bool:
        url = approval_url(context, "review", question="?", secret=SECRET, base_url="http://testserver/approvals")
        statuses = [web.post(url, params={"choice": choice}).status_code for choice in ("Reject", "Approve")]
        assert statuses == [200, 409]
        return context.receive("review", bool)

    handle = hasty.delay()
    drain(taskq)

    assert handle.result(timeout=0) is False


@dataclass
class Refund:
    """An answer with fields."""

    approved: bool
    share: Literal["all", "half"]
    days: int = 14
    note: str | None = None


def test_a_link_shows_the_question_with_a_form_and_answers_only_this_question(taskq: TaskQ, web: TestClient) -> None:
    urls: list[str] = []
    answers: list[Refund] = []

    def mail(url: str) -> None:
        urls.append(url)
        assert "has not asked yet" in web.post(url, data={"choice": "Approve"}).text

    @taskq.task(retention=60)
    def refund(context: TaskContext) -> list[str]:
        got: list[Answer[Refund]] = []
        for order in (1, 2):
            url = approval_url(context, "refund", by="boss", secret=SECRET, base_url="http://testserver/approvals")
            context.step("mail", mail, url)
            got.append(context.receive("refund", Answer[Refund], ask={"order": order, "<b>": "9.99"}))
        answers.extend(each.value for each in got)
        return [each.by for each in got]

    handle = refund.delay()
    drain(taskq)
    shown = web.get(urls[0])
    assert shown.status_code == 200
    for html in (
        "<h1>refund</h1>",
        "<dt>order<dd>1<dt>&lt;b&gt;<dd>9.99",
        '<select name="share"><option value="&quot;all&quot;">all<option value="&quot;half&quot;">half</select>',
        '<input type="number" name="days" value="14">',
        '<button name="choice" value="Approve">Approve</button> <button name="choice" value="Reject">Reject</button>',
        '<input type="hidden" name="number" value="1">',
    ):
        assert html in shown.text
    wrong = [
        {"choice": "Approve", "number": "1"},
        {"choice": "Approve", "number": "1", "share": '"most"'},
        {"choice": "Approve", "number": "1", "share": '"all"', "days": "x"},
    ]
    assert [web.post(urls[0], data=each).status_code for each in wrong] == [400] * 3
    fields = {"number": "1", "share": '"half"', "days": "7", "note": ""}
    assert web.post(urls[0], data={"choice": "Reject", **fields}).status_code == 200
    assert web.post(urls[0], data={"choice": "Approve", **fields}).status_code == 409
    drain(taskq)
    assert web.post(urls[0], data={"choice": "Approve", **fields}).status_code == 409
    assert web.post(urls[1], data={"choice": "Approve", **fields}).status_code == 409, "the number of the first"
    assert web.post(urls[1], data={"choice": "Approve", "number": "2", "share": '"all"'}).status_code == 200
    drain(taskq)
    assert handle.result(timeout=0) == ["boss", "boss"]
    assert answers == [Refund(approved=False, share="half", days=7), Refund(approved=True, share="all")]


def test_a_link_from_before_the_code_asked_still_answers(taskq: TaskQ, web: TestClient) -> None:
    """Also its first wait, which was for a signal."""
    urls: list[str] = []
    asks: dict[str, Any] = {}

    @taskq.task(retention=60)
    def review(context: TaskContext) -> list[bool]:
        got = []
        for _ in range(2):
            url = approval_url(context, "review", question="?", secret=SECRET, base_url="http://testserver/approvals")
            context.step("mail", urls.append, without_number_of_the_question(url))
            got.append(context.receive("review", bool, **asks))
        return got

    handle = review.delay()
    drain(taskq)
    asks["ask"] = {"photo": 7}
    assert web.post(urls[0], params={"choice": "Reject"}).status_code == 200
    drain(taskq)
    assert web.post(urls[0], params={"choice": "Reject"}).status_code == 409
    assert "photo" in web.get(urls[1]).text
    assert web.post(urls[1], params={"choice": "Approve"}).status_code == 200
    drain(taskq)
    assert handle.result(timeout=0) == [False, True]


def without_number_of_the_question(url: str) -> str:
    """Return the link as an earlier release made it."""
    base, _, token = url.rpartition("/")
    content = json.loads(urlsafe_b64decode(token.partition(".")[0]))
    del content["asked"]
    return f"{base}/{_signed(urlsafe_b64encode(json.dumps(content).encode()), SECRET.encode()).decode()}"


@pytest.mark.parametrize("steps_first", [False, True], ids=["first", "after a step"])
def test_a_link_does_not_answer_a_later_task_with_the_same_id(taskq: TaskQ, web: TestClient, steps_first: bool) -> None:
    urls = []

    @taskq.task(retention=60)
    async def approve(context: TaskContext) -> bool:
        if steps_first:
            await context.astep("begin", str)
        urls.append(
            approval_url(context, "review", question="?", secret=SECRET, base_url="http://testserver/approvals")
        )
        return await context.areceive("review", bool)

    first = approve.using(task_id="order").delay()
    drain(taskq)
    assert web.get(urls[0]).status_code == 200
    first.delete()
    second = approve.using(task_id="order").delay()
    drain(taskq)

    late = [web.get(urls[0]), web.post(urls[0], params={"choice": "Approve"})]

    assert [each.status_code for each in late] == [410, 410]
    assert second.refresh().wait is not None
    assert web.post(urls[1], params={"choice": "Approve"}).status_code == 200
    drain(taskq)
    assert second.result(timeout=0) is True


def test_an_invalid_or_expired_link_changes_nothing(taskq: TaskQ, server: RedisServer, web: TestClient) -> None:
    urls = []

    @taskq.task
    def ask(context: TaskContext) -> None:
        for secret in (SECRET, "another secret of enough characters"):
            where: Any = {"base_url": "http://testserver/approvals", "secret": secret}
            urls.append(approval_url(context, "review", question="?", valid_for=timedelta(microseconds=1), **where))
        context.receive("review")

    ask.delay()
    drain(taskq)
    before = server.contents()

    answers = [web.post(url, params={"choice": "Approve"}) for url in (*urls, urls[0] + "x", "/approvals/é.é")]

    assert [each.status_code for each in answers] == [410, 404, 404, 404]
    assert "<h1>This link is not valid.</h1>" in answers[1].text
    assert server.contents() == before


def test_the_page_shows_a_message_while_redis_is_down(
    taskq: TaskQ, server: RedisServer, web: TestClient, publish: Any, urls: list[str]
) -> None:
    publish.delay()
    drain(taskq)
    taskq.runtime.source.timeout_s = 0.1
    server.pause()
    try:
        away = [web.get(urls[0]), web.post(urls[0], params={"choice": "Yes"})]
    finally:
        server.resume()

    assert [each.status_code for each in away] == [503, 503]


def test_a_link_needs_a_worker_and_choices() -> None:
    context = TaskContext(id="1", name="publish", queue="default")
    where: Any = {"base_url": "http://testserver", "secret": SECRET, "question": "?"}

    with pytest.raises(StepError, match="approval_url needs a worker, or the eager or inline mode in tests"):
        approval_url(context, "review", **where)
    with pytest.raises(ConfigurationError, match="approval_url needs at least one choice"):
        approval_url(context, "review", choices={}, **where)


@rows("secret", ["", None, "short"])
def test_approval_links_are_refused_without_a_secret(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match="approval links need a secret of at least 16 characters"):
        approval_router(secret=secret)
