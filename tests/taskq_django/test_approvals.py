"""Test links by which people answer waiting tasks, in a Django site."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import include, path
from django.utils.safestring import mark_safe
from django.utils.translation import override

from taskq_core import TaskContext
from taskq_core.testing import drain
from taskq_django import task, taskq
from taskq_django.approvals import approval_url
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

urlpatterns = [path("approvals/", include("taskq_django.approvals"))]


@override("en-us", deactivate=True)  # the language that the middleware activates for a request stays active after it
def test_the_first_post_to_a_link_sends_the_answer(redis: RedisServer, settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
    urls: list[str] = []

    @task(name="publish", retention=60)
    def publish(context: TaskContext) -> bool:
        for valid_for in (timedelta(days=7), 1e-6):
            url = approval_url(
                context,
                "review",
                base_url="https://shop.example.com",
                question=mark_safe("Publish?"),
                valid_for=valid_for,
            )
            urls.append(url.removeprefix("https://shop.example.com"))
        return context.receive("review", bool)

    handle = publish.delay()
    drain(taskq)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "a new secret", [settings.SECRET_KEY]
    browser = Client(enforce_csrf_checks=True)

    shown = browser.get(urls[0] + "?choice=Reject")
    answered = browser.post(urls[0] + "?choice=Reject", headers={"Accept-Language": "zh-hans"})
    again = browser.post(urls[0] + "?choice=Approve")
    expired, changed = browser.get(urls[1]), browser.get(urls[0] + "x")
    drain(taskq)

    assert (shown.status_code, shown.content.count(b"<button")) == (200, 2)
    assert (answered.status_code, "谢谢" in answered.content.decode()) == (200, True)
    assert [each.status_code for each in (again, expired, changed)] == [409, 410, 404]
    assert "<h1>This link is not valid.</h1>\n" in changed.content.decode()
    assert handle.result(timeout=0) is False
