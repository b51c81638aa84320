"""Users and addresses of the admin, and helpers for its pages."""

from typing import Any

from django.conf import settings
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from playwright.sync_api import Locator, Page, expect

from taskq_core import TaskHandle
from taskq_core.workflow import WorkflowHandle
from taskq_django import taskq
from taskq_django.admin.formats import key_of
from tests.browser.conftest import OpenBrowser
from tests.browser.visiting import Visitor

TASKS = "/admin/taskq_django/task/"
QUEUES = "/admin/taskq_django/queue/"
WORKERS = "/admin/taskq_django/worker/"
WORKFLOWS = "/admin/taskq_django/workflow/"
PERIODIC = "/admin/taskq_django/periodictask/"
OUTBOX = "/admin/taskq_django/outboxtask/"


def page_of(handle: TaskHandle[Any]) -> str:
    """Return the address of a task's page."""
    return reverse("admin:taskq_django_task_change", args=[quote(key_of(handle.queue, handle.id))])


def workflow_page(handle: WorkflowHandle, page: str = "change/") -> str:
    """Return the address of a workflow's page."""
    return f"{WORKFLOWS}{quote(key_of(handle.queue, handle.id))}/{page}"


def enqueue(name: str = "email:deliver", *, queue: str = "default", **arguments: object) -> TaskHandle[Any]:
    """Enqueue a task that is not registered in this process."""
    return taskq.remote(name, queue=queue).delay(**arguments)


def rows(page: Page) -> Locator:
    """Return the rows of a list."""
    return page.locator("#result_list > tbody > tr")


def row(page: Page, text: str) -> Locator:
    """Return the row of a list that contains this text."""
    return rows(page).filter(has_text=text)


def choose(page: Page, action: str, *texts: str, everything: bool = False) -> None:
    """Select an action for the rows with these texts, or for all that match, and go to the confirmation page.

    Args:
        page: A page with a list.
        action: Label of the action, or a part of it.
        texts: For each row, a text that it contains.
        everything: Select all that match instead, also on other pages.
    """
    for text in texts:
        row(page, text).locator(".action-select").check()
    if everything:
        page.locator("#action-toggle").check()
        if (more := page.locator(".actions .question a")).is_visible():
            more.click()
    choices = page.locator("select[name=action]")
    choices.select_option(value=choices.locator("option", has_text=action).get_attribute("value"))
    page.locator(".actions button[name=index]").click()


def confirm(page: Page, button: str) -> None:
    """Press the button of the confirmation page."""
    page.locator("#content-main").get_by_role("button", name=button, exact=True).click()


def expect_message(page: Page, text: str) -> None:
    """Wait until the page shows this message."""
    expect(page.locator(".messagelist")).to_contain_text(text)


class Site:
    """The admin on a server, and its users.

    Args:
        url: URL of the server.
        open_browser: Function that opens a browser.
    """

    def __init__(self, url: str, open_browser: OpenBrowser) -> None:
        self.url = url
        self._open_browser = open_browser

    def operator(self, name: str = "ada", **options: Any) -> Visitor:
        """Return the browser of a signed-in user with all permissions."""
        visitor = self._open_browser(self.url, **options)
        client = Client()
        client.force_login(User.objects.create_superuser(name))
        cookie = settings.SESSION_COOKIE_NAME
        visitor.context.add_cookies([{"name": cookie, "value": client.cookies[cookie].value, "url": self.url}])
        return visitor
