"""Test the pages of workflows in the admin."""

import re
from html import unescape
from typing import Any

import msgspec
import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.test import Client

from taskq_core import BrokerUnavailableError
from taskq_core.inspector import Inspector
from taskq_core.wire import TaskState
from taskq_core.workflow import Workflow, WorkflowHandle, chain, group, step
from taskq_django import taskq
from taskq_django.admin.formats import key_of
from tests.hostile import HOSTILE, assert_escaped
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import (
    TASKS,
    WORKFLOWS,
    choose,
    confirm,
    fields,
    html_of,
    offered,
    page_of,
    rows_of,
    sign_in,
    text_of,
)

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True)]

LOOKING = ("view_workflow", "view_task", "view_payload", "view_queue")


@pytest.fixture
def viewer(client: Client) -> Client:
    """Return the browser of a user who may view everything."""
    return sign_in(client, *LOOKING)


@pytest.fixture
def operator(client: Client) -> Client:
    """Return the browser of a user who may view everything, and act on workflows."""
    return sign_in(client, *LOOKING, "run_workflow")


def enqueued(name: str = "buy", *, queue: str = "default", count: int = 2) -> WorkflowHandle:
    """Enqueue a chain with this number of steps, named `s0`, `s1` and so on."""
    steps = Workflow(name)
    call = taskq.remote("note", queue=queue)
    for number in range(count):
        steps = steps.step(f"s{number}", call.si(), after=f"s{number - 1}" if number else ())
    return taskq.enqueue_workflow(steps)


def own_page(handle: WorkflowHandle, page: str = "change", *more: str) -> str:
    return "/".join((WORKFLOWS + quote(key_of(handle.queue, handle.id)), page, *more)) + "/"


def hash_of(handle: WorkflowHandle) -> str:
    return taskq.runtime.keys.queue(handle.queue).workflow(handle.id)


def table_of(html: str, region: str) -> list[str]:
    """Return the rows of a table on the page of one workflow, as text."""
    part = html.partition(f'aria-label="{region}"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    return [text_of(row) for row in part.split("</tr>")[:-1]]


def named(html: str) -> list[str]:
    return [row["title"].split()[0] for row in rows_of(html)]


# --- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_shows_the_state_of_each_workflow(viewer: Client, redis: RedisServer) -> None:
    first = enqueued("buy", count=3)
    redis.client.hset(hash_of(first), mapping={"s0": "d", "open": 2})
    second = group([taskq.remote("note", queue="low").si() for _ in range(4)], name="g").delay()
    redis.client.hset(hash_of(second), mapping={"gd0": 2, "gf0": 1})
    first.cancel()

    running, ended = rows_of(html_of(viewer, WORKFLOWS))

    assert (running["title"], running["state"], running["home"]) == (f"g {second.id[:11]}…", "running", "low")
    assert (running["progress"], running["ended"]) == ("3 of 4, 1 failed", "-")
    assert ended["title"] == f"buy {first.id[:11]}…"
    assert (ended["state"], ended["progress"], ended["home"]) == ("cancelled", "3 of 3", "default")
    assert ended["started"].endswith("ago")
    assert ended["ended"].endswith("ago")


def test_the_list_can_be_searched_filtered_and_paged(viewer: Client, redis: RedisServer) -> None:
    handles = [enqueued(f"w{number:02}", queue=("default", "low")[number % 2]) for number in range(60)]
    for number, handle in enumerate(handles):
        queue = taskq.runtime.keys.queue(handle.queue)
        redis.client.zadd(queue.workflows_running, {handle.id: number})
    handles[0].cancel()
    whole = [*range(58, 0, -2), *range(59, 0, -2), 0]
    names = [f"w{number:02}" for number in whole]

    first, second, beyond = (named(html_of(viewer, WORKFLOWS, p=page)) for page in (1, 2, 99))

    assert first + second == names
    assert beyond == second
    assert named(html_of(viewer, WORKFLOWS, q="W07")) == ["w07"]
    assert named(html_of(viewer, WORKFLOWS, q=handles[9].id)) == ["w09"]
    assert named(html_of(viewer, WORKFLOWS, state="cancelled")) == ["w00"]
    assert named(html_of(viewer, WORKFLOWS, state="running", queue="low")) == names[29:][:30]
    assert named(html_of(viewer, WORKFLOWS, state="failed")) == []
    assert "None of 1 workflows matches." in html_of(viewer, WORKFLOWS, state="failed")
    assert "running (59)" in html_of(viewer, WORKFLOWS)
    assert "low (30)" in html_of(viewer, WORKFLOWS)


def test_an_empty_list_shows_the_reason(viewer: Client, redis: RedisServer) -> None:
    assert "No workflows here. An ended workflow is kept for a day, or for its own retention." in html_of(
        viewer, WORKFLOWS
    )


# --- the page of one --------------------------------------------------------------------------------------------------


def test_the_page_draws_the_graph_and_lists_the_steps(viewer: Client, redis: RedisServer) -> None:
    note = taskq.remote("note")
    steps = chain(
        step(note.si(), name="first"), group([note.si()] * 3, name="many"), step(note.si(), name="last")
    ).on_error(step(note.s(), name="alarm"))
    handle = steps.named("buy").delay()
    fields = {"s0": "d", "z0": 1_700_000_000_000, "s1": "p", "gd1": 1, "gf1": 1, "open": 3, "e1": "member 1: no ink"}
    redis.client.hset(hash_of(handle), mapping=fields)

    html = html_of(viewer, own_page(handle))

    assert html.count('class="taskq-box"') == 3
    assert html.count('class="taskq-box taskq-box-callback"') == 1
    assert re.findall(r'class="taskq-step-(\w+)" x=', html) == ["succeeded", "started", "waiting", "waiting"]
    assert 'role="img" aria-label="Graph of the workflow: 6 steps, of which 3 have ended.' in html
    assert ">started 2/3, 1 failed</text>" in html
    first, many, last, alarm = table_of(html, "Steps")
    assert first.startswith("first succeeded - note default")
    assert many == "many started 2 of 3, 1 failed first note - - member 1: no ink"
    assert last == "last waiting many note default -"
    assert "failure of first failure of many failure of last" in alarm
    assert f'href="{page_of_task(handle, "first")}"' in html
    assert f'href="{page_of_task(handle, "last")}"' not in html, "it waits, so there is no task yet"
    assert 'href="?step=many#taskq-step">many</a>' in html


def page_of_task(handle: WorkflowHandle, step_name: str, *, queue: str = "default") -> str:
    return f"{TASKS}{quote(key_of(queue, f'{handle.id}.{step_name}'))}/change/"


def test_a_large_workflow_has_no_graph_and_a_paged_table(viewer: Client, redis: RedisServer) -> None:
    handle = enqueued(count=301)

    first, last = html_of(viewer, own_page(handle)), html_of(viewer, own_page(handle), steps=4)

    assert "301 steps are too many for a drawing. The table lists them all." in first
    assert "<svg class=" not in first.partition('id="taskq-graph"')[2].partition("</div>")[0]
    assert [row.split()[0] for row in table_of(first, "Steps")] == [f"s{number}" for number in range(100)]
    assert [row.split()[0] for row in table_of(last, "Steps")] == ["s300"]
    assert "1 to 100 of 301" in first
    assert '<a href="?steps=2#taskq-steps">Next</a>' in first
    for odd in ("x", "-1", "0", "9" * 40, "²"):
        assert viewer.get(own_page(handle), {"steps": odd, "members": odd, "step": odd}).status_code == 200


def test_the_page_of_a_queue_links_to_its_workflows(viewer: Client, client: Client, redis: RedisServer) -> None:
    enqueued(queue="low & slow")
    page = f"/admin/taskq_django/queue/{quote('low & slow')}/change/"

    (address,) = re.findall(r'<a href="([^"]*)">Workflows of this queue</a>', html_of(viewer, page))
    assert named(html_of(viewer, unescape(address))) == ["buy"]
    User.objects.all().delete()
    sign_in(client, "view_queue")
    assert "orkflow" not in html_of(client, page).partition('id="content"')[2]


def test_members_of_a_group_are_read_page_by_page(viewer: Client, redis: RedisServer) -> None:
    call = taskq.remote("note")
    handle = group((call.si(number=number) for number in range(130)), name="pages").delay()
    key = hash_of(handle)
    redis.client.hset(f"{key}:f0", "51", "no ink")
    redis.client.hset(f"{key}:g0", "50", '{"sheets":7}')
    for number in (50, 51):
        redis.client.setbit(f"{key}:d0", number, 1)
    redis.client.hset(key, "gf0", 1)

    pages = [html_of(viewer, own_page(handle), step="pages", members=page) for page in (1, 2, 3, 9)]
    first, second, third, beyond = [table_of(html, "Members") for html in pages]

    numbers = [int(row.split()[0]) for row in first + second + third]
    assert (numbers, beyond) == ([*range(130)], third)
    assert first[0] == f"0 started {handle.id}.pages.0 default"
    assert second[0] == f'50 succeeded {handle.id}.pages.50 default {{"sheets":7}}'
    assert second[1] == f"51 failed {handle.id}.pages.51 default no ink"
    assert "51 to 100 of 130" in text_of(pages[1])
    assert 'href="?step=pages&amp;members=3#taskq-step"' in pages[1]
    assert 'class="taskq-box taskq-box-shown"' in pages[1]
    assert page_of_task(handle, "pages.50") in pages[1]
    (failed,) = re.findall(r'<a href="([^"]*)">Failed members \(1\)</a>', pages[1])
    html = html_of(viewer, own_page(handle) + unescape(failed))
    assert [row.split()[0] for row in table_of(html, "Members")] == ["51"]
    assert "1 of 1 failed All members" in text_of(html)
    assert "The workflow has no step “others”." in html_of(viewer, own_page(handle), step="others")


def test_a_step_shows_its_result_and_a_long_result_is_truncated(viewer: Client, redis: RedisServer) -> None:
    handle = enqueued()
    redis.client.hset(hash_of(handle), mapping={"s0": "d", "r0": '{"sheets":7}', "r1": f'"{"x" * 70_000}"'})

    short, long = (html_of(viewer, own_page(handle), step=name) for name in ("s0", "s1"))

    assert unescape(short).count('"sheets": 7') == 1
    assert "The first 65536 of 70002 bytes." in long


def test_errors_are_shown_to_users_who_may_view_tasks_and_results_to_those_who_may_view_payloads(
    client: Client, redis: RedisServer
) -> None:
    call = taskq.remote("note")
    handle = chain(call.si(), group([call.si()] * 2, name="g")).delay()
    key = hash_of(handle)
    redis.client.hset(key, mapping={"s0": "f", "e0": "card-4242", "r0": '"card-4243"', "s1": "p", "e1": "card-4244"})
    redis.client.hset(f"{key}:f1", "0", "card-4245")
    redis.client.hset(f"{key}:g1", "1", '"card-4246"')
    addresses = [(own_page(handle), {}), *((own_page(handle), {"step": name}) for name in ("note", "g"))]
    errors, results = {"card-4242", "card-4244", "card-4245"}, {"card-4243", "card-4246"}

    def pages(*codenames: str) -> str:
        User.objects.all().delete()
        sign_in(client, "view_workflow", *codenames)
        return "".join(html_of(client, address, **query) for address, query in addresses) + html_of(client, WORKFLOWS)

    def secrets(html: str) -> set[str]:
        return {each for each in errors | results if each in html}

    hidden, limited, shown = pages(), pages("view_task"), pages("view_task", "view_payload")

    assert secrets(shown) == errors | results
    assert secrets(limited) == errors
    assert "Hidden: you need the permission" in limited
    assert secrets(hidden) == set()
    assert TASKS not in hidden
    assert "/queue/" not in hidden


def test_tasks_and_workflows_link_to_each_other(viewer: Client, client: Client, redis: RedisServer) -> None:
    handle = enqueued()
    task = page_of_task(handle, "s0")

    html = html_of(viewer, task)

    assert f'<a href="{own_page(handle)}">{handle.id}</a>' in html
    assert task in html_of(viewer, own_page(handle))
    other = taskq.remote("note").delay()
    assert "Step of the workflow" not in html_of(viewer, page_of(other))
    User.objects.all().delete()
    sign_in(client, "view_task")
    html = html_of(client, task)
    assert handle.id in html
    assert WORKFLOWS not in html


def test_a_damaged_workflow_is_shown_as_damaged(operator: Client, redis: RedisServer) -> None:
    whole, no_time, no_spec, no_hash = (enqueued(f"w{number}") for number in range(4))
    redis.client.hdel(hash_of(no_time), "created")
    redis.client.hset(hash_of(no_spec), "spec", "odd")
    redis.client.delete(hash_of(no_hash))
    redis.client.set(hash_of(no_hash), "no hash")

    states = {row["title"].split()[0]: row["state"] for row in rows_of(html_of(operator, WORKFLOWS))}
    pages = [html_of(operator, own_page(handle)) for handle in (no_time, no_spec, no_hash)]
    shown_messages = confirm(
        operator,
        choose(operator, "cancel_workflows", *map(_key, (whole, no_time, no_hash)), address=WORKFLOWS),
        address=WORKFLOWS,
    )

    assert states == {"w0": "running", "w1": "damaged", "w2": "running", no_hash.id: "damaged"}
    for page, why in zip(pages, ("field 'created' must be a time", "field 'spec'", "WRONGTYPE"), strict=True):
        assert ("damaged</span>" in page, why in unescape(page)) == (True, True)
        assert "taskq-action" not in page
    assert shown_messages == ["1 workflow was cancelled.", "2 were skipped: damaged."]
    assert set(named(html_of(operator, WORKFLOWS, state="damaged"))) == {"w1", no_hash.id}


def _key(handle: WorkflowHandle) -> str:
    return key_of(handle.queue, handle.id)


def test_all_values_from_redis_are_escaped(viewer: Client, redis: RedisServer) -> None:
    call = taskq.remote("note")
    handle = chain(call.si(), group([call.si()] * 2, name="g")).delay()
    key = hash_of(handle)
    spec: Any = redis.client.hget(key, "spec")
    found = msgspec.json.decode(spec)
    for node in found["nodes"]:
        node[:3] = [node[0] + HOSTILE, HOSTILE, HOSTILE]
    hostile = {"name": HOSTILE, "spec": msgspec.json.encode(found), "s0": "d", "r0": msgspec.json.encode(HOSTILE)}
    redis.client.hset(key, mapping={**hostile, "e0": HOSTILE, "s1": "p"})
    redis.client.hset(f"{key}:f1", "0", HOSTILE)
    redis.client.hset(f"{key}:g1", "1", msgspec.json.encode(HOSTILE))
    redis.client.hset(f"{key}:x1", "n1", HOSTILE)

    for address, query in (
        (WORKFLOWS, {}),
        (WORKFLOWS, {"q": HOSTILE}),
        (own_page(handle), {}),
        *((own_page(handle), {"step": name}) for name in (f"note{HOSTILE}", f"g{HOSTILE}", HOSTILE)),
        (own_page(handle, "history"), {}),
    ):
        html = html_of(viewer, address, **query)
        assert_escaped(html)


# --- actions ----------------------------------------------------------------------------------------------------------


def test_a_workflow_is_cancelled_after_confirmation_and_the_cancel_is_logged(
    operator: Client, redis: RedisServer
) -> None:
    handle = enqueued()
    page = html_of(operator, own_page(handle))
    address = own_page(handle, "act", "cancel_workflows")

    assert f'href="{address}">Cancel the workflow</a>' in page
    asked = html_of(operator, address)
    assert "Cancel 1 workflow? No further step starts" in asked
    assert handle.refresh().state == "running"
    shown_messages = confirm(operator, asked, address=address)

    assert shown_messages == ["1 workflow was cancelled."]
    assert handle.refresh().state == "cancelled"
    (entry,) = LogEntry.objects.all()
    assert (entry.object_id, entry.get_change_message(), str(entry.user)) == (_key(handle), "Cancelled.", "ada")
    assert "Cancelled." in html_of(operator, own_page(handle, "history"))
    page = html_of(operator, own_page(handle))
    assert "taskq-action" not in page


def test_failed_steps_are_retried(operator: Client, redis: RedisServer, inspector: Inspector) -> None:
    handle = enqueued()
    (task,) = inspector.tasks("default", TaskState.PENDING).tasks
    inspector.archive_task(task.queue, task.id)
    redis.client.hset(hash_of(handle), mapping={"s0": "f", "bad": 1})
    address = own_page(handle, "act", "retry_workflows")

    assert f'href="{address}">Retry failed steps</a>' in html_of(operator, own_page(handle))
    shown_messages = confirm(operator, html_of(operator, address), address=address)
    again = confirm(operator, html_of(operator, address), address=address)

    assert shown_messages == ["1 step runs again."]
    assert again == ["1 was skipped: no step can be retried."]
    assert inspector.count("default", TaskState.PENDING) == 1
    assert [entry.get_change_message() for entry in LogEntry.objects.all()] == ["Retried 1 step."]


def test_an_action_on_all_matching_workflows_reports_those_it_could_not_change(
    operator: Client, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = [enqueued(f"w{number}", queue=("default", "low")[number % 2]) for number in range(60)]
    handles[7].cancel()

    asked = choose(operator, "cancel_workflows", _key(handles[0]), address=f"{WORKFLOWS}?q=w", across=True)
    shown_messages = confirm(operator, asked, address=f"{WORKFLOWS}?q=w")

    assert "Cancel 60 workflows?" in asked
    assert shown_messages == ["59 workflows were cancelled.", "1 was skipped: already ended."]
    assert {handle.refresh().state for handle in handles} == {"cancelled"}
    assert LogEntry.objects.count() == 59
    for number in range(3):
        enqueued(f"x{number}")
    monkeypatch.setattr("taskq_django.admin.actions.ACTED_MAX", 2)
    asked = choose(operator, "cancel_workflows", _key(handles[0]), address=f"{WORKFLOWS}?q=x", across=True)
    assert confirm(operator, asked, address=f"{WORKFLOWS}?q=x") == [
        "2 workflows were cancelled.",
        "One request cannot handle all rows. Repeat the action to continue.",
    ]


def test_workflows_that_changed_since_the_page_was_loaded_are_skipped(operator: Client, redis: RedisServer) -> None:
    """The confirmation page is stale: one workflow was cancelled, another was deleted, and a third has failed."""
    first, second, third = enqueued("a"), enqueued("b"), enqueued("c")
    asked = choose(operator, "retry_workflows", *map(_key, (first, second, third)), address=WORKFLOWS)
    first.cancel()
    redis.client.delete(hash_of(second))
    redis.client.hset(hash_of(third), "state", "failed")

    assert confirm(operator, asked, address=WORKFLOWS) == [
        "1 was skipped: deleted in the meantime.",
        "2 were skipped: changed since the page was loaded.",
    ]
    assert LogEntry.objects.count() == 0


@pytest.mark.parametrize("action", ["cancel_workflows", "retry_workflows", "delete_selected"])
def test_a_user_with_view_permission_only_sees_no_action_and_a_forged_post_is_refused(
    viewer: Client, redis: RedisServer, action: str
) -> None:
    handle = enqueued()
    html = html_of(viewer, WORKFLOWS) + html_of(viewer, own_page(handle))
    data = {"_selected_action": _key(handle), "action": action, "post": "yes", "select_across": "0", "index": "0"}

    assert offered(html) == []
    assert "taskq-action" not in html
    viewer.post(WORKFLOWS, data)
    for path in (own_page(handle, "act", action), own_page(handle, "delete"), own_page(handle), f"{WORKFLOWS}add/"):
        assert viewer.post(path, {"action": action, "post": "yes"}).status_code == 403, path
    assert handle.refresh().state == "running"


def test_the_permission_to_change_tasks_does_not_permit_changes_of_workflows(
    client: Client, redis: RedisServer
) -> None:
    handle = enqueued()
    sign_in(client, *LOOKING, "run_task", "change_task", "delete_task")

    assert client.post(own_page(handle, "act", "cancel_workflows"), {"post": "yes"}).status_code == 403
    assert offered(html_of(client, WORKFLOWS)) == []


# --- Redis is away ----------------------------------------------------------------------------------------------------


def test_finished_work_is_logged_when_redis_fails_during_an_action(
    operator: Client, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = [enqueued(f"w{number}") for number in range(3)]
    asked = choose(operator, "cancel_workflows", *map(_key, handles), address=WORKFLOWS)
    real = WorkflowHandle.cancel
    lost = [handles[1].id]

    def cancel(handle: WorkflowHandle) -> bool:
        if handle.id in lost:
            raise BrokerUnavailableError("it went away")
        return real(handle)

    monkeypatch.setattr(WorkflowHandle, "cancel", cancel)
    html = operator.post(WORKFLOWS, fields(asked, '<form method="post" novalidate>')).content.decode()

    assert "The task queue cannot be read right now." in html
    assert [handle.refresh().state for handle in handles] == ["cancelled", "running", "running"]
    assert [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")] == [
        "Cancelled.",
        "Redis did not answer. The action may have been carried out in part.",
    ]
