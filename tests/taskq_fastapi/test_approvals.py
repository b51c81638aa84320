"""Test links by which people answer waiting tasks."""

from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from taskq_core import ConfigurationError, TaskContext, TaskQ
from taskq_core.errors import StepError
from taskq_core.testing import drain
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
    first.cancel()
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
