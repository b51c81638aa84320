"""Test the pages of workflows without a browser: their content, the required roles, and the audit log."""

import logging
import re
from typing import Any

import msgspec
import pytest

from taskq_core import TaskQ
from taskq_core.inspector import AsyncInspector
from taskq_core.testing import adrain
from taskq_core.wire import TaskState
from taskq_core.workflow import Workflow, WorkflowHandle, chain, group, step
from tests.hostile import HOSTILE, assert_escaped
from tests.redis_server import RedisServer
from tests.taskq_dashboard.dashboards import act, dashboard_of, looking, message_of

pytestmark = pytest.mark.redis


def table_rows(html: str, table: str) -> list[str]:
    """Return the rows of a table as text."""
    body = html.split(f'<table id="{table}">')[1].split("<tbody>")[1].split("</tbody>")[0]
    return [re.sub(r"(<[^>]*>|\s)+", " ", row).strip() for row in body.split("</tr>")[:-1]]


async def enqueued(taskq: TaskQ, count: int = 2) -> WorkflowHandle:
    """Enqueue a chain with this number of steps."""
    steps = Workflow("buy")
    for number in range(count):
        steps = steps.step(f"s{number}", taskq.remote("note").si(), after=f"s{number - 1}" if number else ())
    return await taskq.aenqueue_workflow(steps)


async def test_workflows_of_a_queue_are_listed_in_pages(taskq: TaskQ) -> None:
    handles = [await enqueued(taskq) for _ in range(25)]
    await handles[7].acancel()

    async with looking(dashboard_of(taskq)) as web:
        first = table_rows((await web.get("/workflows?queue=default&rows=20")).text, "workflows")
        second = table_rows((await web.get("/workflows?queue=default&rows=20&page=2")).text, "workflows")
        beyond = await web.get("/workflows?queue=default&page=9")

    assert (len(first), len(second)) == (20, 5)
    assert {row.split()[0] for row in first + second} == {handle.id for handle in handles}
    assert second[-1].startswith(f"{handles[7].id} buy cancelled")
    assert "There are no more" in beyond.text


async def test_steps_are_drawn_and_listed_and_too_many_only_listed(taskq: TaskQ) -> None:
    small, large = await enqueued(taskq), await enqueued(taskq, 301)

    async with looking(dashboard_of(taskq)) as web:
        drawn = (await web.get("/workflow", params={"queue": "default", "id": small.id})).text
        listed = (await web.get("/workflow", params={"queue": "default", "id": large.id, "rows": 20, "page": 16})).text

    assert [row.split()[:3] for row in table_rows(drawn, "steps")] == [["s0", "started", "-"], ["s1", "waiting", "s0"]]
    assert drawn.count('class="box"') == 2
    assert 'class="edge edge-success"' in drawn
    assert [row.split()[0] for row in table_rows(listed, "steps")] == ["s300"]
    assert "too many steps or dependencies to draw (301 steps)" in listed
    assert 'class="flow"' in drawn
    assert 'class="flow"' not in listed


async def test_a_retried_step_shows_its_attempts_and_its_error(taskq: TaskQ) -> None:
    """The test covers the list of steps, the page of the step, and a member of a group."""

    @taskq.task(name="fail", max_retry=7)
    def fail() -> None:
        raise ValueError("card is gone")

    one = await taskq.aenqueue_workflow(step(fail.si(), name="charge"))
    many = await taskq.aenqueue_workflow(group([fail.si(), fail.si()], name="charges"))
    await adrain(taskq, raises=False)

    async with looking(dashboard_of(taskq)) as web:
        listed = (await web.get("/workflow", params={"queue": "default", "id": one.id})).text
        alone = (await web.get("/workflow-step", params={"queue": "default", "id": one.id, "step": "charge"})).text
        members = (await web.get("/workflow-step", params={"queue": "default", "id": many.id, "step": "charges"})).text

    (row,) = table_rows(listed, "steps")
    assert row.startswith("charge retrying 1/7")
    assert "ValueError: card is gone" in row
    assert "retrying 1/7" in alone
    assert "ValueError: card is gone" in alone
    assert [" retrying 1/7 " in each for each in table_rows(members, "members")] == [True, True]


async def test_errors_of_steps_are_redacted(taskq: TaskQ, server: RedisServer) -> None:
    handle = await enqueued(taskq)
    server.client.hset(taskq.runtime.keys.queue("default").workflow(handle.id), mapping={"s0": "f", "e0": "card 4242"})

    def redact(name: str, what: str, value: object) -> object:
        return f"no {what} of {name}" if what == "error" else value

    async with looking(dashboard_of(taskq, redact=redact)) as web:
        page = await web.get("/workflow", params={"queue": "default", "id": handle.id})

    assert "no error of note" in page.text
    assert "card 4242" not in page.text


async def test_members_of_a_group_are_listed_in_pages(taskq: TaskQ, server: RedisServer) -> None:
    handle = await group([taskq.remote("note").si(number=each) for each in range(45)], name="notes").adelay()
    key = taskq.runtime.keys.queue("default").workflow(handle.id)
    server.client.hset(f"{key}:f0", "1", "card 4242 <b>")
    server.client.hset(f"{key}:g0", "2", '{"secret": 7}')
    for number in (1, 2):
        server.client.setbit(f"{key}:d0", number, 1)
    server.client.hset(key, mapping={"gd0": 1, "gf0": 1})
    address = {"queue": "default", "id": handle.id, "step": "notes", "rows": 20}

    async with looking(dashboard_of(taskq)) as web:
        whole = await web.get("/workflow", params={"queue": "default", "id": handle.id})
        pages = [await web.get("/workflow-step", params={**address, "page": page}) for page in (1, 3, 4)]
        failed = (await web.get("/workflow-step", params={**address, "failed": "1"})).text
        missing = await web.get("/workflow-step", params={**address, "step": "others"})
        listed = (await web.get("/workflows?queue=default")).text
    async with looking(dashboard_of(taskq), user="vera:viewer") as web:
        viewed = (await web.get("/workflow-step", params=address)).text

    assert f"workflow-step?queue=default&amp;id={handle.id}&amp;step=notes" in whole.text
    assert "2 of 45, 1 failed" in whole.text
    first, last = table_rows(pages[0].text, "members"), table_rows(pages[1].text, "members")
    assert [row.split()[0] for row in first + last] == [*map(str, range(20)), *map(str, range(40, 45))]
    assert first[0] == f"0 started {handle.id}.notes.0 default"
    assert first[1] == f"1 failed {handle.id}.notes.1 default card 4242 &lt;b&gt;"
    assert first[2] == f"2 succeeded {handle.id}.notes.2 default {{&#34;secret&#34;: 7}}"
    assert "There are no more" in pages[2].text
    assert "Failed members (1)" in pages[0].text
    assert [row.split()[0] for row in table_rows(failed, "members")] == ["1"]
    assert "1 of 1:" in failed
    assert (missing.status_code, "the workflow has no step" in missing.text) == (404, True)
    assert "secret" not in viewed
    assert "You may not see it." in viewed
    assert "2 of 45, 1 failed" in listed


async def test_values_of_group_members_are_redacted(taskq: TaskQ, server: RedisServer) -> None:
    """The task type of a member is unknown, so a redaction by task name cannot apply to its result."""
    handle = await group([taskq.remote("note").si(number=each) for each in range(2)], name="notes").adelay()
    key = taskq.runtime.keys.queue("default").workflow(handle.id)
    server.client.hset(f"{key}:g0", "0", '"card 4242"')
    server.client.hset(f"{key}:f0", "1", "card 4242")

    def redact(name: str, what: str, value: object) -> object:
        return f"no {what} of {name}" if what == "error" else value

    async with looking(dashboard_of(taskq, redact=redact)) as web:
        page = await web.get("/workflow-step", params={"queue": "default", "id": handle.id, "step": "notes"})

    assert "no error of note" in page.text
    assert "card 4242" not in page.text


async def test_the_result_of_a_step_is_shown_only_to_permitted_users(taskq: TaskQ, server: RedisServer) -> None:
    handle = await enqueued(taskq)
    key = taskq.runtime.keys.queue("default").workflow(handle.id)
    server.client.hset(key, mapping={"s0": "d", "r0": '{"secret":7}', "r1": '"' + "x" * 70_000 + '"'})
    address = {"queue": "default", "id": handle.id, "step": "s0"}

    async with looking(dashboard_of(taskq)) as web:
        page = (await web.get("/workflow-step", params=address)).text
        long = (await web.get("/workflow-step", params={**address, "step": "s1"})).text
    async with looking(dashboard_of(taskq), user="vera:viewer") as web:
        viewed = (await web.get("/workflow-step", params=address)).text

    assert "&#34;secret&#34;: 7" in page
    assert f"task?queue=default&amp;id={handle.id}.s0" in page
    assert "The first 65,536 of 70,002 bytes." in long
    assert f"task?queue=default&amp;id={handle.id}.s1" not in long  # the second step waits
    assert "secret" not in viewed
    assert "You may not see it." in viewed


async def test_all_values_of_a_workflow_are_escaped(taskq: TaskQ, server: RedisServer) -> None:
    """Taskq allows only plain names of workflows and steps, but others may write to Redis as well."""
    note = taskq.remote("note")
    handle = await chain(note.si(), group([note.si()] * 2, name="g")).adelay()
    key = taskq.runtime.keys.queue("default").workflow(handle.id)
    stored: Any = server.client.hget(key, "spec")
    spec = msgspec.json.decode(stored)
    for node in spec["nodes"]:
        node[:3] = [node[0] + HOSTILE, HOSTILE, HOSTILE]
    values = {"name": HOSTILE, "spec": msgspec.json.encode(spec), "e0": HOSTILE, "r0": msgspec.json.encode(HOSTILE)}
    server.client.hset(key, mapping={**values, "s0": "f", "s1": "p"})
    server.client.hset(f"{key}:f1", "0", HOSTILE)
    server.client.hset(f"{key}:g1", "1", msgspec.json.encode(HOSTILE))
    server.client.hset(f"{key}:x1", "n1", HOSTILE)

    async with looking(dashboard_of(taskq)) as web:
        for path, query in (
            ("/workflows", {}),
            ("/workflow", {}),
            ("/workflow-cancel", {}),
            *(("/workflow-step", {"step": name}) for name in (f"note{HOSTILE}", f"g{HOSTILE}", HOSTILE)),
        ):
            assert_escaped((await web.get(path, params={"queue": "default", "id": handle.id, **query})).text)


async def test_a_damaged_workflow_is_reported(taskq: TaskQ, server: RedisServer) -> None:
    handle, whole = await enqueued(taskq), await enqueued(taskq)
    server.client.hset(taskq.runtime.keys.queue("default").workflow(handle.id), "spec", "odd")
    server.client.hdel(taskq.runtime.keys.queue("default").workflow(handle.id), "created")

    async with looking(dashboard_of(taskq)) as web:
        listed = table_rows((await web.get("/workflows?queue=default")).text, "workflows")
        page = await web.get(f"/workflow?queue=default&id={handle.id}")

    assert f"{handle.id} buy damaged - - -" in listed
    assert any(row.startswith(f"{whole.id} buy running") for row in listed)
    assert page.status_code == 500  # as of other damage
    assert "damaged data in Redis: field &#39;spec&#39;" in page.text


async def test_failed_steps_are_run_again(taskq: TaskQ, server: RedisServer) -> None:
    handle = await enqueued(taskq)
    inspector = AsyncInspector(taskq)
    (task,) = (await inspector.tasks("default", TaskState.PENDING)).tasks
    await inspector.archive_task(task.queue, task.id)
    server.client.hset(taskq.runtime.keys.queue("default").workflow(handle.id), mapping={"s0": "f", "bad": 1})
    fields = {"queue": "default", "id": handle.id, "back": "queue?name=default"}

    async with looking(dashboard_of(taskq)) as web:
        asked = await web.get("/workflow-retry", params=fields)
        await act(web, "/workflow-retry", **fields)
        message = message_of(await web.get("/queue?name=default"))

    assert "(1)" in asked.text
    assert message.startswith("1 step of the workflow")
    assert (await inspector.queue_info("default")).sizes[TaskState.PENDING] == 1


async def test_actions_are_logged_with_the_user_and_failed_ones_are_reported(
    taskq: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    handle = await enqueued(taskq)
    fields = {"queue": "default", "id": handle.id, "back": "queue?name=default"}
    caplog.set_level(logging.INFO, "taskq.audit")

    async with looking(dashboard_of(taskq)) as web:
        await act(web, "/workflow-retry", **fields)
        refused = message_of(await web.get("/queue?name=default"))
        answer = await act(web, "/workflow-cancel", **fields)
        _, audited = [each for each in caplog.records if each.name == "taskq.audit"]
        logged = audited.getMessage() + str(audited.__dict__)

    assert "has no failed step to run again" in refused
    assert (answer.status_code, answer.headers["location"]) == (303, "./queue?name=default")
    assert (await handle.arefresh()).state == "cancelled"
    assert all(word in logged for word in ("workflow-cancel", "olga", handle.id))
