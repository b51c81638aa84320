"""Test the base of all admin pages over Redis: rows, lists, actions with confirmation, and custom ModelAdmins."""

import re
from html import unescape
from typing import Any

import pytest
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import Permission, User
from django.core.exceptions import FieldError
from django.db import models
from django.db.models import Q
from django.http import HttpRequest
from django.test import Client
from django.urls import path
from django.utils.translation import ngettext_lazy

from taskq_django import taskq
from taskq_django.admin import OutboxTaskAdminMixin, PeriodicTaskAdminMixin, QueueAdminMixin
from taskq_django.admin.actions import confirmed_action
from taskq_django.admin.base import BaseAdmin, RedisAdminMixin
from taskq_django.admin.rows import ListRows, Rows
from taskq_django.admin.tasks import TaskAdminMixin
from taskq_django.models import OutboxTask, PeriodicTask, Queue, Task, Worker
from tests.hostile import HOSTILE, assert_escaped
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.admin_pages import offered


@rows("lookups", [{"name__startswith": "a"}, {"pk": "a", "name": "a"}, {"other": 1}])
def test_rows_refuse_queries_that_need_a_database(lookups: dict[str, Any]) -> None:
    with pytest.raises(FieldError, match=r"taskq_django\.Queue cannot be filtered"):
        ListRows(Queue, [Queue(name="a")]).filter(**lookups)
    with pytest.raises(FieldError):
        ListRows(Queue, [Queue(name="a")]).filter(Q(**lookups))


# --- a page made of it ------------------------------------------------------------------------------------------------


class ThemedChangeList(ChangeList):
    """The list page of a theme."""

    theme = "themed list"


class ThemedModelAdmin(BaseAdmin):
    """The `ModelAdmin` of a theme, with its own templates and list page."""

    change_list_template = "theme/list.html"
    change_form_template = "theme/form.html"

    formfield_overrides = {  # noqa: RUF012 - Django's own form
        each: {"widget": forms.TextInput(attrs={"class": "themed"})}
        for each in (models.CharField, models.TextField, models.IntegerField)
    }

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ThemedChangeList


class ThemedTaskAdmin(TaskAdminMixin, ThemedModelAdmin):
    """The admin page on top of the themed `ModelAdmin`, with additional columns of a project."""

    list_display = ("short_id", "arguments")

    @admin.display(description="what for")
    def arguments(self, task: Task) -> str:
        return task.record.payload.decode()  # type: ignore[no-any-return]  # a record of any kind


WORKERS = [f"worker-{number:03}" for number in range(120)]
done: list[Any] = []


class WorkerAdmin(RedisAdminMixin, BaseAdmin):
    """A small page with an action."""

    list_display = ("id",)
    list_per_page = 50
    actions = ("greet",)

    def get_rows(self, request: HttpRequest) -> Rows:
        rows = [Worker(id=name) for name in WORKERS]
        for row in rows:
            row.mark = "busy"  # type: ignore[attr-defined]  # as rows with a state have it
        return ListRows(Worker, rows)

    def has_greet_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, "view")

    @confirmed_action(
        description="Greet selected %(verbose_name_plural)s",
        button="Greet",
        question=ngettext_lazy("Greet %(count)d worker?", "Greet %(count)d workers?", "count"),
        permissions=["greet"],
    )
    def greet(self, request: HttpRequest, rows: Rows, *, shown_marks: dict[str, str]) -> None:
        done.append(([row.id for row in rows], shown_marks))
        self.message_user(request, f"Greeted {rows.count()}", messages.SUCCESS)


@admin.action(description="Wave")
def wave(modeladmin: Any, request: HttpRequest, rows: Rows) -> None:
    done.append(("wave", [row.id for row in rows]))


@confirmed_action(
    description="Praise",
    button="Praise",
    question=ngettext_lazy("Praise %(count)d worker?", "Praise %(count)d workers?", "count"),
    permissions=["view"],
)
def praise(modeladmin: Any, request: HttpRequest, rows: Rows, *, shown_marks: dict[str, str]) -> None:
    done.append(("praise", [row.id for row in rows]))


class ProjectWorkerAdmin(WorkerAdmin):
    """The page with actions of a project: names of methods, and functions."""

    fieldsets = ((None, {"fields": ("id", "buttons")}),)
    actions = ("greet", "nod", wave, praise)

    @admin.action(description="Nod")
    def nod(self, request: HttpRequest, rows: Rows) -> None:
        done.append(("nod", [row.id for row in rows]))


class ThemedQueueAdmin(QueueAdminMixin, ThemedModelAdmin):
    """The page of queues of a theme."""


class ThemedOutboxTaskAdmin(OutboxTaskAdminMixin, ThemedModelAdmin):
    """The page of the outbox of a theme."""

    list_display = ("task_id", "waits")


class ThemedPeriodicTaskAdmin(PeriodicTaskAdminMixin, ThemedModelAdmin):
    """The page of periodic tasks of a theme."""

    list_display = ("name", "upcoming")


class ShortTaskAdmin(TaskAdminMixin, BaseAdmin):
    """The page of tasks with few actions."""

    actions = ("run_now",)


project = admin.AdminSite("project")
project.register(Worker, ProjectWorkerAdmin)
project.register(Task, ShortTaskAdmin)
site = admin.AdminSite("themed")
site.register(Task, ThemedTaskAdmin)
site.register(Worker, WorkerAdmin)
without_tasks = admin.AdminSite("without-tasks")
without_tasks.register(Queue, ThemedQueueAdmin)
without_tasks.register(OutboxTask, ThemedOutboxTaskAdmin)
without_tasks.register(PeriodicTask, ThemedPeriodicTaskAdmin)
urlpatterns = [
    path("admin/", admin.site.urls),
    path("themed/", site.urls),
    path("project/", project.urls),
    path("without-tasks/", without_tasks.urls),
]
LIST = "/themed/taskq_django/worker/"
THEME = {
    "theme/list.html": '{% extends "admin/change_list.html" %}{% block pretitle %}{{ cl.theme }}{% endblock %}'
    '{% block pagination %}{{ block.super }}{% if cl.opts.model_name == "queue" %}'
    '{% include "admin/taskq_django/queue_history.html" %}{% endif %}{% endblock %}',
    "theme/form.html": '{% extends "admin/change_form.html" %}{% block pretitle %}themed form{% endblock %}',
}


@pytest.fixture(autouse=True)
def themed(settings: Any) -> None:
    done.clear()
    settings.ROOT_URLCONF = __name__
    template = {**settings.TEMPLATES[0], "APP_DIRS": False}
    loaders = [("django.template.loaders.locmem.Loader", THEME), "django.template.loaders.app_directories.Loader"]
    template["OPTIONS"] = {**template["OPTIONS"], "loaders": loaders}
    settings.TEMPLATES = [template]


@pytest.fixture
def staff(client: Client) -> Client:
    """Return the browser of a user who may only view."""
    user = User.objects.create_user("ada", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=("view_worker", "view_task", "view_payload")))
    client.force_login(user)
    return client


def post(client: Client, address: str, *keys: str, action: str = "greet", **more: str) -> str:
    data = {ACTION_CHECKBOX_NAME: list(keys), "action": action, "select_across": "0", **more}
    response = client.post(address, data, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def hidden(html: str) -> dict[str, list[str]]:
    """Return the hidden fields of a confirmation page."""
    fields: dict[str, list[str]] = {}
    form = html[html.index("<form method") :]
    for name, value in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', form):
        fields.setdefault(name, []).append(unescape(value))
    fields.pop("csrfmiddlewaretoken", None)
    return fields


@pytest.mark.redis
@pytest.mark.django_db(transaction=True)
def test_the_pages_work_with_another_model_admin_and_its_templates(staff: Client, redis: RedisServer) -> None:
    handle = taskq.remote("email:deliver").delay(to="grace")

    listed = staff.get("/themed/taskq_django/task/").content.decode()
    (address,) = re.findall(r'<th class="field-short_id"><a href="([^"]*)"', listed)
    page = staff.get(address).content.decode()

    assert "themed list" in listed
    assert '<td class="field-arguments">{&quot;to&quot;:&quot;grace&quot;}</td>' in listed
    assert address.startswith("/themed/")
    assert "themed form" in page
    assert handle.id in page


@pytest.mark.redis
@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_site_without_pages_of_tasks_links_to_none(client: Client, redis: RedisServer) -> None:
    client.force_login(User.objects.create_superuser("root"))
    taskq.remote("email:deliver").delay()
    home = "/without-tasks/taskq_django/"

    addresses = [f"{home}{name}/" for name in ("queue", "outboxtask", "periodictask")]
    lists = [client.get(address).content.decode() for address in addresses]
    (address,) = re.findall(r'<th class="field-name"><a href="([^"]*)"', lists[0])
    page = client.get(address).content.decode()

    assert all("themed list" in html for html in lists)
    assert "0 runs in 30 days" in lists[0]
    assert "themed form" in page
    assert f"{home}queue/default/act/pause/" in page
    assert "/taskq_django/task/" not in lists[0] + page


@pytest.mark.redis
@pytest.mark.django_db(transaction=True)
def test_form_fields_use_the_widgets_of_the_other_model_admin(client: Client, redis: RedisServer) -> None:
    client.force_login(User.objects.create_superuser("root"))
    handle = taskq.remote("email:deliver").delay()
    page = f"/themed/taskq_django/task/default_2F{handle.id}"

    def themed_fields(address: str) -> list[str]:
        html = client.get(address).content.decode()
        return [
            name[1]
            for tag in re.findall(r'<input [^>]*class="themed[^>]*>', html)
            if (name := re.search(r'name="([^"]*)"', tag))
        ]

    assert themed_fields(f"{page}/change/") == ["arguments"]
    assert themed_fields(f"{page}/act/retry_later/") == ["after"]
    assert themed_fields("/themed/taskq_django/task/add/?task=shop:restock") == [
        *("arguments", "run_after", "max_retry", "task_id"),
    ]


@pytest.mark.django_db
def test_an_action_asks_for_confirmation_before_it_changes_the_selected_rows(staff: Client) -> None:
    asked = post(staff, LIST, "worker-007", "worker-003", index="0")

    assert "Greet 2 workers?" in asked
    assert f'<a href="{LIST}worker-007/change/">worker-007</a>' in asked
    assert done == []
    result = staff.post(LIST, hidden(asked), follow=True).content.decode()
    assert done == [(["worker-007", "worker-003"], {"worker-007": "busy", "worker-003": "busy"})]
    assert "Greeted 2" in result


@pytest.mark.django_db
@pytest.mark.parametrize("across", ["1", "true"])
def test_the_confirmation_of_all_matching_rows_lists_no_keys(staff: Client, across: str) -> None:
    """Django's list accepts both values of `select_across` as "all rows"."""
    asked = post(staff, LIST, "worker-007", index="0", select_across=across)

    assert "Greet 120 workers?" in asked
    assert "and 100 more" in asked
    assert len(hidden(asked)[ACTION_CHECKBOX_NAME]) == 1
    staff.post(LIST, hidden(asked))
    assert done == [(WORKERS, {})]


@pytest.mark.django_db
def test_the_confirmation_reports_rows_that_were_deleted(staff: Client) -> None:
    assert "No rows match any more." in post(staff, LIST, "gone", index="0")
    assert done == []


@pytest.mark.django_db
@pytest.mark.parametrize("model_admin_page", ["add/", "worker-007/delete/"])
def test_an_action_without_a_permission_of_the_model_is_refused(client: Client, model_admin_page: str) -> None:
    """A superuser passes every permission check, even for permissions that the model does not have."""
    client.force_login(User.objects.create_superuser("root"))

    assert client.get(LIST + model_admin_page).status_code == 403
    assert 'name="_save"' not in client.get(f"{LIST}worker-007/change/").content.decode()
    assert f"{LIST}add/" not in client.get(LIST).content.decode()


@pytest.mark.django_db
def test_an_action_can_be_started_from_the_page_of_one_row(staff: Client) -> None:
    asked = staff.get(f"{LIST}worker-007/act/greet/").content.decode()
    response = staff.post(f"{LIST}worker-007/act/greet/", hidden(asked))

    assert done == [(["worker-007"], {"worker-007": "busy"})]
    assert response.headers["Location"] == f"{LIST}worker-007/change/"
    assert staff.get(f"{LIST}gone/act/greet/").headers["Location"] == LIST


@pytest.mark.django_db
@pytest.mark.parametrize("action", ["greet", "delete_selected", "no such action"])
def test_an_action_that_is_not_offered_is_refused(client: Client, action: str) -> None:
    """Django's own delete action needs a database and is not offered to any user."""
    client.force_login(User.objects.create_user("eve", is_staff=True))
    data = {ACTION_CHECKBOX_NAME: ["worker-007"], "action": action, "post": "yes"}

    assert client.post(LIST, data).status_code == 403
    assert client.post(f"{LIST}worker-007/act/{action}/", data).status_code == 403
    if action != "greet":
        client.force_login(User.objects.create_superuser("root"))
        client.post(LIST, data)
        assert client.post(f"{LIST}worker-007/act/{action}/", data).status_code == 403
    assert done == []


@pytest.mark.django_db
def test_the_page_of_a_row_offers_the_actions_with_a_button_and_takes_functions(staff: Client) -> None:
    row = "/project/taskq_django/worker/worker-007/"

    html = staff.get(f"{row}change/").content.decode()
    staff.post(f"{row}act/praise/", {"post": "yes"})

    assert re.findall(r'taskq-action" href="([^"]*)"', html) == [f"{row}act/greet/", f"{row}act/praise/"]
    assert done == [("praise", ["worker-007"])]
    for plain in ("nod", "wave"):
        assert staff.post(f"{row}act/{plain}/").status_code == 403
        post(staff, "/project/taskq_django/worker/", "worker-003", action=plain, index="0")
    assert done[1:] == [("nod", ["worker-003"]), ("wave", ["worker-003"])]


@pytest.mark.redis
@pytest.mark.django_db(transaction=True)
def test_djangos_own_deletion_is_not_offered_for_rows_of_redis(client: Client, redis: RedisServer) -> None:
    client.force_login(User.objects.create_superuser("root"))
    handle = taskq.remote("email:deliver").delay()
    address = "/project/taskq_django/task/"

    assert offered(client.get(address).content.decode()) == ["run_now"]
    post(client, address, f"default/{handle.id}", action="delete_selected", index="0")


@pytest.mark.django_db
@rows("query", ["p=0", "p=-1", "p=999", "p=x", "p=" + "9" * 5000, "e=1", "id=1", "id__in=1", "o=9", "q=a"])
def test_an_invalid_query_string_shows_the_list(staff: Client, query: str) -> None:
    assert staff.get(f"{LIST}?{query}").status_code == 200


@pytest.mark.django_db
def test_a_page_number_beyond_the_end_shows_the_last_page(staff: Client) -> None:
    html = staff.get(f"{LIST}?p=999").content.decode()

    assert re.findall(r'<th class="field-id"><a [^>]*>([^<]*)</a>', html) == WORKERS[100:]


@pytest.mark.django_db
def test_the_confirmation_keeps_the_shown_state_and_escapes_rows(staff: Client) -> None:
    WORKERS.append(HOSTILE)
    try:
        asked = post(staff, LIST, HOSTILE, index="0")
    finally:
        WORKERS.pop()

    assert_escaped(asked)
    assert hidden(asked)["marks"] == [f"busy:{HOSTILE}"]
