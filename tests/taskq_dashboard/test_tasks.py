"""Test the dashboard's pages of tasks and the actions on tasks."""

import asyncio
import html
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from unittest.mock import ANY

import pytest
from httpx import AsyncClient, Response

from taskq_core import Answer, Concurrency, TaskContext, TaskQ, TaskState
from taskq_core.inspector import AsyncInspector, Inspector
from taskq_core.testing import adrain
from taskq_core.wire import decode_message
from taskq_dashboard.pages import task_actions
from tests.publishing import publish_task
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_dashboard.dashboards import TOKEN, Fields, act, dashboard_of, looking, message_of, token_of

pytestmark = pytest.mark.redis

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SECRET = "s3cret-of-a-producer"


def text_of(page: Response) -> str:
    """Return the text of a page without tags."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.text)))


def rows_of(page: Response) -> list[str]:
    """Return the text of each row of the table of tasks."""
    table = re.search(r'<table id="tasks".*?</table>', page.text, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", table[0], re.DOTALL) if table else []
    return [html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", row))).strip() for row in rows[1:]]


def ids_of(page: Response) -> list[str]:
    table = re.search(r'<table id="tasks".*?</table>', page.text, re.DOTALL)
    return [html.unescape(each) for each in re.findall(r'data-copy="([^"]*)"', table[0])] if table else []


def heads_of(page: Response) -> list[str]:
    headings = re.findall(r'<th scope="col"(?: aria-sort="\w+")?>(.*?)</th>', page.text)
    return [re.sub(r"<span.*?</span>|<[^>]*>", "", each) for each in headings]


async def enqueue(
    taskq: TaskQ, *ids: str, name: str = "note", payload: dict[str, Any] | None = None, **options: Any
) -> None:
    for task_id in ids:
        await taskq.remote(name, task_id=task_id, **options).adelay(**(payload or {"number": 1}))


async def in_each_state(taskq: TaskQ) -> None:
    """Create a task in each state except active, with the state as its id."""

    @taskq.task(name="fail", max_retry=0)
    def fail(word: str) -> None:
        raise ValueError("broken\nfor good")

    @taskq.task(name="again", max_retry=3)
    def again(word: str) -> None:
        raise ValueError("broken for now")

    @taskq.task(name="good", retention=3600)
    def good(word: str) -> dict[str, str]:
        return {"answer": word}

    for task, task_id in ((fail, "archived"), (again, "retry"), (good, "completed")):
        await task.using(task_id=task_id).adelay("w")
    await adrain(taskq, raises=False)
    await enqueue(taskq, "pending")
    await enqueue(taskq, "scheduled", run_after=5400)
    await enqueue(taskq, "aggregating", aggregate="g/1")


@pytest.fixture
async def in_all_states(taskq: TaskQ) -> None:
    await in_each_state(taskq)
    await enqueue(taskq, "other", queue="low")


def traced(server: RedisServer, task_id: str) -> None:
    """Add a trace to a stored task, as an instrumented program does when it enqueues."""
    key = f"asynq:{{default}}:t:{task_id}"
    stored: Any = server.client.hget(key, "msg")
    message = decode_message(stored)
    message.headers["traceparent"] = f"00-{TRACE}-00f067aa0ba902b7-01"
    server.client.hset(key, "msg", message.SerializeToString())


async def state_of(taskq: TaskQ, task_id: str, queue: str = "default") -> str:
    return str((await AsyncInspector(taskq).task(queue, task_id)).state)


# --- lists ------------------------------------------------------------------------------------------------------------


@rows(
    ("state", "columns", "expected"),
    [
        ("pending", ["Payload", "Pending since", "Retried"], r'\{"number": 1\} \d+ s ago'),
        ("scheduled", ["Payload", "Starts", "Retried"], "in 1 h"),
        ("retry", ["Payload", "Next attempt", "Last error", "Retried"], "ValueError: broken for now"),
        ("archived", ["Payload", "Archived", "Failed", "Last error", "Retried"], "ValueError: broken 0 of 0"),
        ("completed", ["Payload", "Completed", "Result", "Deleted"], r'\{"answer": "w"\}'),
    ],
)
async def test_tasks_of_a_state_are_listed_with_their_columns(
    in_all_states: None, taskq: TaskQ, state: str, columns: list[str], expected: str
) -> None:
    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/queue", params={"name": "default", "state": state})

    assert page.status_code == 200
    assert heads_of(page)[:-1] == ["Id", "Type", *columns]
    assert ids_of(page) == [state]
    assert re.search(expected, rows_of(page)[0])


async def test_a_group_is_chosen_before_its_tasks_are_listed(taskq: TaskQ) -> None:
    await enqueue(taskq, "1", "2", aggregate="g/1 ü")

    async with looking(dashboard_of(taskq)) as web:
        groups = await web.get("/queue?name=default&state=aggregating")
        link = next(each for each in Fields(groups.text).links if "group=g" in each)
        page = await web.get(f"/{link}")

    assert "1 of 1 groups" in text_of(groups)
    assert sorted(ids_of(page)) == ["1", "2"]
    assert "Aggregating tasks of the group g/1 ü" in text_of(page)
    assert heads_of(page) == ["Id", "Type", "Payload", "Group", "Actions"]


async def test_a_running_task_shows_its_start_and_cannot_be_cancelled_without_a_worker(
    taskq: TaskQ, server: RedisServer
) -> None:
    pages: list[Response] = []
    reached, go_on = asyncio.Event(), asyncio.Event()
    path = "/queue?name=default&state=active"

    @taskq.task(name="busy", max_retry=0)
    async def busy() -> None:
        reached.set()
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):  # the worker ends later
                await go_on.wait()

    await busy.using(task_id="1").adelay()
    draining = asyncio.create_task(adrain(taskq, raises=False))
    await reached.wait()
    async with looking(dashboard_of(taskq)) as web:
        pages.append(await web.get(path))
        server.client.zadd("asynq:{default}:lease", {"1": 1})
        pages.append(await web.get(path))
    go_on.set()
    await draining

    running, orphaned = pages
    assert heads_of(running) == ["Id", "Type", "Payload", "Status", "Started", "Deadline", "Actions"]
    assert ("Running" in rows_of(running)[0], "Cancel" in rows_of(running)[0]) == (True, True)
    assert "Orphaned" in rows_of(orphaned)[0]
    assert "do=cancel&amp;task" not in orphaned.text


async def test_the_length_of_a_page_can_be_chosen(taskq: TaskQ) -> None:
    await enqueue(taskq, *[str(number) for number in range(25)])

    async with looking(dashboard_of(taskq)) as web:
        second = await web.get("/queue?name=default&state=pending&page=2&rows=10")
        beyond = await web.get("/queue?name=default&state=pending&page=999999999")
        huge = await web.get("/queue?name=default&state=pending&page=99999999999")

    assert len(ids_of(second)) == 10
    assert "20 of 25" in text_of(second)
    assert (beyond.status_code, "There are no more" in beyond.text) == (200, True)
    assert huge.status_code == 400


async def test_tasks_of_one_queue_and_state_are_sorted_by_the_time_of_their_state(taskq: TaskQ) -> None:
    for number in (2, 1, 3):
        await enqueue(taskq, str(number), run_after=3600 * number)
    link = re.compile(r'aria-sort="(\w+)"><a href="[^"]*order=(\w+)">Starts')

    async with looking(dashboard_of(taskq)) as web:
        for path in ("/queue?name=default&state=scheduled", "/tasks?queue=default&state=scheduled"):
            first = await web.get(path)
            newest = await web.get(f"{path}&order=newest")
            oldest = await web.get(f"{path}&order=oldest")

            assert ids_of(first) == ids_of(oldest) == ["1", "2", "3"]
            assert ids_of(newest) == ["3", "2", "1"]
            assert link.findall(oldest.text) == [("ascending", "newest")]


# --- finding ----------------------------------------------------------------------------------------------------------


@rows(
    ("query", "found"),
    [
        ({"text": "retry"}, {"retry"}),
        ({"type": "fai"}, {"archived"}),
        ({"error": "for now"}, {"retry"}),
        ({"payload": '"w"'}, {"archived", "retry", "completed"}),
        ({"payload": '"w"', "state": "retry"}, {"retry"}),
        ({"state": "scheduled"}, {"scheduled"}),
        ({"queue": "low"}, {"other"}),
        ({"type": "no such"}, set()),
        ({}, {"archived", "retry", "completed", "pending", "scheduled", "other"}),
    ],
)
async def test_a_search_covers_all_queues(
    in_all_states: None, taskq: TaskQ, query: dict[str, str], found: set[str]
) -> None:
    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/tasks", params=query)

    assert (page.status_code, set(ids_of(page))) == (200, found)


async def test_a_search_continues_from_its_cursor(taskq: TaskQ) -> None:
    await enqueue(taskq, *[f"a{number}" for number in range(25)], name="mail")

    async with looking(dashboard_of(taskq)) as web:
        first = await web.get("/tasks?type=mail&rows=10")
        seen = ids_of(first)
        page = first
        while more := re.search(r'<a class="button" href="([^"]*)">Continue', page.text):
            page = await web.get(f"/{html.unescape(more[1])}")
            seen += ids_of(page)

    assert "Read 10 of 25 tasks, 10 matched so far." in text_of(first)
    assert "All 25 tasks were read, 25 match." in text_of(page)
    assert sorted(seen) == sorted(f"a{number}" for number in range(25))


async def test_failed_tasks_of_all_queues_are_grouped_by_type_and_error(taskq: TaskQ) -> None:
    await in_each_state(taskq)

    async with looking(dashboard_of(taskq)) as web:
        archived = await web.get("/failed")
        retry = await web.get("/failed?state=retry")
        link = next(each for each in Fields(archived.text).links if each.startswith("tasks?"))
        found = await web.get(f"/{link}")

    assert ids_of(archived) == ["archived"]
    assert ids_of(retry) == ["retry"]
    assert "fail ValueError: broken 1" in text_of(archived)
    assert ids_of(found) == ["archived"]


# --- one task ---------------------------------------------------------------------------------------------------------


async def test_the_page_of_a_task_shows_all_fields_and_actions(taskq: TaskQ, server: RedisServer) -> None:
    @taskq.task(name="fail", max_retry=0)
    def fail(word: str) -> None:
        raise ValueError("broken\nfor good")

    await fail.using(task_id="a/b ü", headers={"tenant": "acme"}, timeout=90).adelay("w")
    await adrain(taskq, raises=False)
    traced(server, "a/b ü")

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/task", params={"queue": "default", "id": "a/b ü"})

    text = text_of(page)
    assert page.status_code == 200
    for expected in (
        "a/b ü",
        "archived",
        "tenant acme",
        TRACE,
        "ValueError: broken for good",
        "Attempt 1 failed",
        "1 min 30 s",
    ):
        assert expected in text, expected
    assert "Traceback (most recent call last)" in text
    actions = [each for each in Fields(page.text).links if each.startswith("tasks-act?")]
    assert [re.search(r"do=(\w+)", each)[1] for each in actions] == ["run", "retry", "move", "delete"]  # type: ignore[index]
    assert any(each.startswith("task-edit?") for each in Fields(page.text).links)


async def test_a_trace_id_is_a_link_if_the_settings_have_its_address(server: RedisServer) -> None:
    taskq = TaskQ(server.url, enqueue_timeout=30, trace={"URL": "https://tempo.example/trace/{trace_id}"})
    await enqueue(taskq, "1")
    traced(server, "1")

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/task?queue=default&id=1")

    assert f"https://tempo.example/trace/{TRACE}" in Fields(page.text).links
    await taskq.aclose()


async def test_an_undecodable_task_is_shown_as_unreadable_and_can_be_deleted(taskq: TaskQ, server: RedisServer) -> None:
    await enqueue(taskq, "1")
    server.client.hset("asynq:{default}:t:1", "msg", b"\xff\xff")

    async with looking(dashboard_of(taskq)) as web:
        listed = await web.get("/queue?name=default&state=pending")
        page = await web.get("/task?queue=default&id=1")
        await act(web, "/tasks-act", do="delete", task="pending/default/1")
        gone = await web.get("/task?queue=default&id=1")

    assert "unreadable" in rows_of(listed)[0]
    assert "ffff" in text_of(page)
    assert gone.status_code == 404


# --- acting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "state", "queue", "expected"),
    [
        ({"do": "run"}, "pending", "default", "1 task runs now."),
        ({"do": "retry", "minutes": "10"}, "scheduled", "default", "1 task was put off."),
        ({"do": "retry", "at": "2100-01-01T00:00"}, "scheduled", "default", "1 task was put off."),
        ({"do": "archive"}, "archived", "default", "1 task was archived."),
        ({"do": "move", "to_queue": "low"}, "scheduled", "low", "1 task was moved."),
        ({"do": "delete"}, "gone", "default", "1 task was deleted."),
    ],
)
async def test_an_action_on_a_task_returns_to_the_page_with_its_result(
    taskq: TaskQ, fields: dict[str, str], state: str, queue: str, expected: str
) -> None:
    await enqueue(taskq, "1", run_after=60)

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/task?queue=default&id=1")
        question = next(each for each in Fields(page.text).links if f"do={fields['do']}" in each)
        asked = await web.get(f"/{question}")
        form = Fields(asked.text)
        answer = await web.post(
            f"/{form.forms[-1]}", data={**form.hidden, **fields}, headers={"sec-fetch-site": "same-origin"}
        )
        after = await web.get("/" + answer.headers["location"])

    assert asked.status_code == 200
    assert "the task “1” of the queue “default”" in text_of(asked)
    assert (answer.status_code, message_of(after)) == (303, expected)
    assert after.status_code == 200
    if state == "gone":
        assert "/queue?" in answer.headers["location"].replace("queue?", "/queue?")
    else:
        assert await state_of(taskq, "1", queue) == state


async def test_an_action_on_selected_tasks_is_confirmed_once(taskq: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "taskq.audit")
    await enqueue(taskq, "1", "2", "3")
    await enqueue(taskq, "b", queue="l/ü")
    marks = [
        "pending/default/1",
        "pending/default/2",
        "pending/l%2F%C3%BC/b",
        "archived/default/3",
        "pending/default/no",
    ]

    async with looking(dashboard_of(taskq)) as web:
        asked = await web.get("/tasks-act", params={"do": "delete", "task": marks, "back": "tasks?type=x"})
        answer = await web.post(
            "/tasks-act",
            data={TOKEN: await token_of(web), "do": "delete", "task": marks, "back": "tasks?type=x"},
            headers={"sec-fetch-site": "same-origin"},
        )
        after = await web.get("/" + answer.headers["location"])

    assert "Delete 5 tasks? They will not run any more." in text_of(asked)
    assert asked.text.count('name="task"') == 5
    assert message_of(after) == "3 tasks were deleted. Skipped: 1 is now pending; 1 no longer exists."
    assert answer.headers["location"] == "./tasks?type=x"
    assert sorted((await AsyncInspector(taskq).tasks("default", TaskState.PENDING)).tasks[0].id) == ["3"]
    assert "tasks-act by 'olga': done" in caplog.text
    assert "done=3 skipped=2" in caplog.text


async def test_a_time_must_be_given_in_exactly_one_way(taskq: TaskQ) -> None:
    await enqueue(taskq, "1")
    mark = "pending/default/1"

    async with looking(dashboard_of(taskq)) as web:
        for fields in ({}, {"minutes": "1", "at": "2100-01-01T00:00"}, {"minutes": "-1"}, {"at": "soon"}):
            await act(web, "/tasks-act", do="retry", task=mark, back="tasks", **fields)
            expected = message_of(await web.get("/tasks"))
            assert "minutes" in expected or "time" in expected
        await act(web, "/tasks-act", do="move", task=mark, back="tasks")
        assert message_of(await web.get("/tasks")) == "to_queue is missing"

    assert await state_of(taskq, "1") == "pending"


async def test_a_search_for_an_id_offers_no_action_on_all_tasks(taskq: TaskQ) -> None:
    """If that task is deleted, an action on all tasks would apply to tasks that contain the text."""
    await enqueue(taskq, "abc", "abcdef")

    async with looking(dashboard_of(taskq)) as web:
        by_text = await web.get("/tasks", params={"state": "pending", "text": "abcd"})
        by_id = await web.get("/tasks", params={"state": "pending", "text": "abc"})

    assert "Delete all" in text_of(by_text)
    assert "Delete all" not in text_of(by_id)


async def test_several_requests_change_all_matching_tasks(taskq: TaskQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that runs out of time shows its progress and a form to continue."""
    monkeypatch.setattr(task_actions, "time_left", lambda: lambda: False)
    await enqueue(taskq, *[str(number) for number in range(250)])
    await enqueue(taskq, "other", name="mail")
    pages = []

    async with looking(dashboard_of(taskq)) as web:
        address = {"do": "archive", "queue": "default", "state": "pending", "type": "note", "back": "tasks"}
        asked = await web.get("/tasks-act-all", params=address)
        assert "Archive all matching pending tasks of the queue “default”?" in text_of(asked)
        form = Fields(asked.text)
        while True:
            data = {**form.hidden, "skip": [each for name, each in _hidden(asked) if name == "skip"]}
            answer = await web.post("/tasks-act-all", data=data, headers={"sec-fetch-site": "same-origin"})
            if answer.status_code == 303:
                break
            assert answer.status_code == 200, text_of(answer)
            pages.append(answer)
            asked, form = answer, Fields(answer.text)
            assert len(pages) < 20
        after = await web.get("/" + answer.headers["location"])

    assert "100 tasks were archived." in text_of(pages[0])
    assert "data-go-on" in pages[0].text
    assert message_of(after) == "250 tasks were archived."
    assert await state_of(taskq, "other") == "pending"


def _hidden(page: Response) -> list[tuple[str, str]]:
    return [
        (str(attrs.get("name")), attrs.get("value") or "")
        for tag, attrs in Fields(page.text).tags
        if tag == "input" and attrs.get("type") == "hidden"
    ]


# --- editing ----------------------------------------------------------------------------------------------------------


async def edit(web: AsyncClient, text: str, **fields: str) -> Response:
    form = Fields((await web.get("/task-edit?queue=default&id=1")).text)
    return await web.post(
        "/task-payload", data={**form.hidden, "payload": text, **fields}, headers={"sec-fetch-site": "same-origin"}
    )


async def test_a_payload_is_edited_if_it_is_valid_for_the_task(taskq: TaskQ) -> None:
    @taskq.task(name="note")
    def note(number: int) -> None:
        pass

    await note.using(task_id="1", run_after=600).adelay(1)

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/task-edit?queue=default&id=1")
        no_json = await edit(web, '{"number": ')
        wrong = await edit(web, '{"number": "x<y"}')
        done = await edit(web, '{\r\n  "number": 2\r\n}')
        after = await web.get("/" + done.headers["location"])

    assert '"number": 1' in html.unescape(page.text)
    assert (no_json.status_code, "the payload is not JSON" in no_json.text) == (422, True)
    assert (wrong.status_code, "number:" in wrong.text) == (422, True)
    assert "x&lt;y" in wrong.text  # the typed text is kept
    assert message_of(after) == "The payload was changed."
    record: Any = await AsyncInspector(taskq).task("default", "1")
    assert record.payload == b'{"number":2}'


async def test_a_payload_that_changed_since_the_page_was_loaded_is_not_overwritten(taskq: TaskQ) -> None:
    await enqueue(taskq, "1")
    await enqueue(taskq, "2")

    async with looking(dashboard_of(taskq)) as web:
        stale = await edit(web, '{"number":5}', shown_digest="0" * 64)
        await AsyncInspector(taskq).delete_task("default", "1")
        gone = await edit_of_gone(web)

    assert (stale.status_code, "has changed since" in stale.text) == (409, True)
    assert gone.status_code in (303, 404)


async def edit_of_gone(web: AsyncClient) -> Response:
    return await act(web, "/task-payload", queue="default", id="1", payload="{}", shown_digest="x")


@pytest.mark.parametrize("payload", [b"\xff\xfe", b"x" * 70_000])
async def test_only_a_short_text_payload_can_be_edited(taskq: TaskQ, payload: bytes) -> None:
    await taskq.remote("note", task_id="1").adelay(payload)

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/task?queue=default&id=1")
        form = await web.get("/task-edit?queue=default&id=1")

    assert "Edit payload" not in page.text
    assert form.status_code == 400


# --- enqueueing -------------------------------------------------------------------------------------------------------


@pytest.fixture
def send(taskq: TaskQ) -> Any:
    @taskq.task(name="mail:send", queue="mail")
    def send(to: str, number: int = 1) -> None:
        """Send a mail."""

    return send


async def test_a_registered_task_is_enqueued_with_valid_arguments(taskq: TaskQ, send: Any) -> None:
    async with looking(dashboard_of(taskq)) as web:
        offered = await web.get("/enqueue")
        form = await web.get("/enqueue?task=mail:send")
        answer = await act(
            web,
            "/task-enqueue",
            "/enqueue?task=mail:send",
            task="mail:send",
            queue="mail",
            arguments='{"to": "a@b"}',
            run_after="60",
            task_id="x",
        )
        after = await web.get("/" + answer.headers["location"])

    assert "mail:send (to: str, number: int = 1) Send a mail." in text_of(offered)
    assert '"to": null' in html.unescape(form.text)
    assert message_of(after) == "The task was enqueued to the queue “mail”."
    record: Any = await AsyncInspector(taskq).task("mail", "x")
    assert (record.state, record.payload) == (TaskState.SCHEDULED, b'{"to":"a@b"}')


@pytest.fixture
async def taken(taskq: TaskQ) -> None:
    """Create a task in the queue `mail` with the id `taken`."""
    await enqueue(taskq, "taken", queue="mail")


@rows(
    ("fields", "expected", "marked"),
    [
        ({"arguments": "{"}, "the payload is not JSON", ["arguments"]),
        ({"arguments": "[]"}, "object", ["arguments"]),
        ({"arguments": "{}"}, "to", ["arguments"]),
        ({"arguments": '{"to": 5}'}, "to", ["arguments"]),
        ({"arguments": '{"to": "a", "more": 1}'}, "more", ["arguments"]),
        ({"arguments": '{"to": "a"}', "run_after": "-1"}, "run_after must be a whole number", ["run_after"]),
        ({"arguments": '{"to": "a"}', "max_retry": "x"}, "max_retry must be a whole number", ["max_retry"]),
        ({"arguments": '{"to": "a"}', "task_id": "a\nb"}, "control character", []),
        ({"arguments": '{"to": "a"}', "task_id": "taken"}, "taken", []),
        ({"arguments": '{"to": "a"}', "queue": "}"}, "queue name", []),
    ],
)
async def test_invalid_input_is_shown_in_the_form_and_nothing_is_enqueued(
    taken: None, taskq: TaskQ, send: Any, fields: dict[str, str], expected: str, marked: list[str]
) -> None:
    async with looking(dashboard_of(taskq)) as web:
        page = await act(web, "/task-enqueue", task="mail:send", **{"queue": "mail", **fields})

    assert page.status_code == 422
    problem = re.search(r'id="problem">(.*?)</p>', page.text, re.DOTALL)
    assert problem is not None
    assert expected in html.unescape(problem[1])
    assert re.findall(r'<\w+ id="(\w+)"[^>]* aria-invalid="true"', page.text) == marked
    assert fields["arguments"] in html.unescape(page.text)
    assert (await AsyncInspector(taskq).queue_info("mail")).size == 1


async def test_a_copy_of_a_task_starts_with_its_arguments(taskq: TaskQ, send: Any) -> None:
    await send.using(task_id="1").adelay("a@b", number=7)

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/task?queue=mail&id=1")
        link = next(each for each in Fields(page.text).links if each.startswith("enqueue?") and "like" in each)
        form = await web.get(f"/{link}")

    assert '"number": 7' in html.unescape(form.text)


# --- who may ----------------------------------------------------------------------------------------------------------

PAGES = ("/queue?name=default&state=pending", "/tasks", "/failed", "/task?queue=default&id=1", "/tasks?text=s3cret")
FORMS = (
    ("/tasks-act", {"do": "delete", "task": "pending/default/1"}),
    ("/tasks-act-all", {"do": "delete", "state": "pending", "queue": "default"}),
    ("/task-payload", {"queue": "default", "id": "1", "payload": "{}", "shown_digest": "x"}),
    ("/task-enqueue", {"task": "mail:send", "queue": "mail", "arguments": '{"to": "a"}'}),
)


async def test_viewers_see_no_payloads_and_change_nothing(
    taskq: TaskQ, server: RedisServer, send: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @taskq.task(name="fail", max_retry=0)
    def fail(word: str) -> None:
        raise ValueError("broken")

    await fail.using(task_id="f").adelay(SECRET)
    await adrain(taskq, raises=False)
    await enqueue(taskq, "1", payload={"word": SECRET})
    before = server.contents()

    async with looking(dashboard_of(taskq), user="vera:viewer") as web:
        pages = [await web.get(path) for path in (*PAGES, "/task?queue=default&id=f")]
        found = await web.get("/tasks", params={"text": SECRET})
        refused = [
            await web.get("/tasks?payload=x"),
            await web.get("/enqueue"),
            await web.get("/task-edit?queue=default&id=1"),
        ]
        acted = [await act(web, path, **fields) for path, fields in FORMS]
        asked = [await web.get(path, params=fields) for path, fields in FORMS[:2]]

    assert {page.status_code for page in pages} == {200}
    assert not any(SECRET in page.text for page in pages)
    assert not any("tasks-act" in page.text or "task-edit" in page.text for page in pages)
    assert ids_of(found) == []
    assert [page.status_code for page in refused] == [400, 403, 403]
    assert {answer.status_code for answer in (*acted, *asked)} == {403}
    assert server.contents() == before


async def test_a_redaction_applies_everywhere_and_disables_search_and_edit_of_payloads(taskq: TaskQ) -> None:
    await enqueue(taskq, "1", payload={"word": SECRET})

    def redact(name: str, what: str, value: Any) -> Any:
        return "***" if what == "payload" else value

    async with looking(dashboard_of(taskq, redact=redact)) as web:
        pages = [await web.get(path) for path in PAGES]
        found = await web.get("/tasks", params={"text": SECRET})
        edited = await web.get("/task-edit?queue=default&id=1")
        bulk = await act(web, "/tasks-act-all", do="delete", state="pending", payload="s3")

    assert not any(SECRET in page.text for page in pages)
    assert any("***" in page.text for page in pages)
    assert ids_of(found) == []
    assert edited.status_code == 400
    assert bulk.status_code == 303
    assert Inspector(taskq).queue_info("default").size == 1


@pytest.mark.parametrize("redact", [None, lambda name, what, value: value])
async def test_limits_with_keys_from_payloads_are_hidden_like_payloads(taskq: TaskQ, redact: Any) -> None:
    limit = Concurrency(1, key="word")
    await enqueue(taskq, "1", payload={"word": SECRET}, concurrency=limit, headers={"tenant": "acme"})
    user = "olga:operator" if redact is not None else "vera:viewer"

    async with looking(dashboard_of(taskq, redact=redact), user=user) as web:
        hidden = await web.get("/task?queue=default&id=1")
    async with looking(dashboard_of(taskq)) as web:
        shown = await web.get("/task?queue=default&id=1")

    assert "tenant acme" in text_of(hidden)
    assert "taskq-limit" not in hidden.text
    assert re.search(f"taskq-limit [^<]*{SECRET}", text_of(shown))


async def test_payloads_are_never_in_the_log(taskq: TaskQ, send: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await enqueue(taskq, "1", payload={"word": SECRET})

    async with looking(dashboard_of(taskq)) as web:
        await edit(web, f'{{"word": "{SECRET}2"}}')
        await act(web, "/tasks-act-all", do="archive", state="pending", payload=SECRET, queue="default")
        await act(web, "/task-enqueue", task="mail:send", queue="mail", arguments=f'{{"to": "{SECRET}"}}')
        await act(web, "/task-enqueue", task="mail:send", queue="mail", arguments=f'{{"to": ["{SECRET}"]}}')

    notes = [record for record in caplog.records if record.name == "taskq.audit"]
    assert [record.audit["action"] for record in notes] == [  # type: ignore[attr-defined]
        *("task-payload", "tasks-act-all", "task-enqueue", "task-enqueue")
    ]
    assert "payload='given'" in notes[1].getMessage()
    assert SECRET not in "".join(
        record.getMessage() + str(getattr(record, "audit", ""))
        for record in caplog.records
        if record.name.startswith("taskq")
    )


@pytest.mark.parametrize("redacts", [False, True])
async def test_the_progress_of_a_task_is_escaped(taskq: TaskQ, server: RedisServer, redacts: bool) -> None:
    await enqueue(taskq, "1")
    progress = b'{"done":3,"total":10,"at":1700000000000,"message":"page <b>3</b>"}'
    server.client.hset("asynq:{default}:t:1", "taskq_progress", progress)

    def redact(name: str, what: str, value: Any) -> Any:
        return "***" if what == "progress" else value

    async with looking(dashboard_of(taskq, redact=redact if redacts else None)) as web:
        page = await web.get("/task?queue=default&id=1")

    assert '<progress value="0.3" max="1"' in page.text
    assert "3 of 10 (30 %): " + ("***" if redacts else "page &lt;b&gt;3&lt;/b&gt;") in page.text


async def test_a_result_that_was_too_large_is_explained(taskq: TaskQ, server: RedisServer) -> None:
    await enqueue(taskq, "1")
    server.client.hset("asynq:{default}:t:1", "taskq_oversized", b"20000000 16777216")

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/task?queue=default&id=1")

    assert "Not stored: the result has 20,000,000 bytes, and the limit is 16,777,216" in page.text


async def test_a_task_that_waits_for_a_limit_shows_that_limit(taskq: TaskQ) -> None:
    await enqueue(taskq, "runs", rate_limit="1/h")
    await enqueue(taskq, "waits", rate_limit="1/h")

    async with looking(dashboard_of(taskq)) as web:
        lists = [await web.get(path) for path in ("/queue?name=default&state=scheduled", "/tasks?state=scheduled")]
        page = await web.get("/task?queue=default&id=waits")
        status = await web.get("/task?queue=default&id=runs")

    for each in lists:
        assert "waits for a limit" in each.text
    assert re.search(r"<dt>Waits for</dt><dd>the limit <bdi>[^<]+</bdi></dd>", page.text)
    assert not re.search(r"\b9999\b", "".join(each.text for each in (*lists, page)))
    assert "Waits for" not in status.text


# --- steps ------------------------------------------------------------------------------------------------------------


async def waiting_task(taskq: TaskQ) -> str:
    """Return the id of a task that waits for the signal `review`."""
    handle = await publish_task(taskq).using(task_id="publish-7").adelay(photo_id=7)
    await adrain(taskq)
    return handle.id


async def test_a_waiting_task_shows_its_steps_and_is_approved_once(
    taskq: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    await waiting_task(taskq)
    caplog.set_level(logging.INFO, "taskq.audit")

    async with looking(dashboard_of(taskq)) as web:
        listed = await web.get("/queue?name=default&state=scheduled")
        page = await web.get("/task?queue=default&id=publish-7")
        questions = [each for each in Fields(page.text).links if each.startswith("task-signal?")]

        async def answer(question: str, **fields: str) -> tuple[str, str]:
            asked = await web.get(f"/{question}")
            form = Fields(asked.text)
            done = await web.post(
                f"/{form.forms[-1]}", data={**form.hidden, **fields}, headers={"sec-fetch-site": "same-origin"}
            )
            return text_of(asked), message_of(await web.get("/" + done.headers["location"])) or text_of(done)

        approved, rejected = await answer(questions[0]), await answer(questions[1])
        await adrain(taskq)
        again = await web.get("/task?queue=default&id=publish-7")
        other = next(each for each in Fields(again.text).links if "do=send_signal" in each)
        wrong = await answer(other, value="{approved")
        sent = await answer(other, value='{"approved": false, "note": "blurred"}')
        await adrain(taskq)
        ended = await web.get("/task?queue=default&id=publish-7")

    assert re.search(r"waiting for review, (7 d 0|6 d 23) h left", text_of(listed))
    text = text_of(page)
    assert re.search(r"scheduled waiting for review, (7 d 0|6 d 23) h left", text)
    assert re.search(r'step moderate .* \{"photo": 7\} sub-tasks call .* \[320\] signal review .* waits until', text)
    assert any(each.startswith("workflow?") for each in Fields(page.text).links)
    assert ["approve" in questions[0], "reject" in questions[1], "send_signal" in questions[2]] == [True] * 3
    assert 'Approve “review” of the task photos:publish? { "photo_id": 7 }' in approved[0]
    assert "publish-7" not in approved[0]
    assert approved[1] == "The signal “review” was sent."
    assert rejected[1] == "The task does not wait for the signal “review” any more."
    assert "number=2" in other
    assert "The value is not JSON" in wrong[1]
    assert sent[1] == "The signal “review” was sent."
    assert "[ true, false ]" in text_of(ended)
    assert "task-signal?" not in ended.text
    notes = [record.getMessage() for record in caplog.records if record.name == "taskq.audit"]
    facts = "queue='default' id='publish-7' name='review' do="
    assert notes[0] == f"task-signal by 'olga': done {facts}'approve'"
    assert notes[-1] == f"task-signal by 'olga': done {facts}'send_signal'"
    assert "blurred" not in caplog.text


async def test_a_task_that_waits_for_the_first_of_several_signals_gets_the_chosen_one(taskq: TaskQ) -> None:
    @taskq.task(name="orders:wait", retention=60)
    async def wait(context: TaskContext) -> tuple[str, Any]:
        return await context.areceive_any({"paid": bool, "cancelled": str})

    handle = await wait.adelay()
    await adrain(taskq)
    async with looking(dashboard_of(taskq)) as web:
        page = await web.get(f"/task?queue=default&id={handle.id}")
        questions = [each for each in Fields(page.text).links if each.startswith("task-signal?")]
        form = Fields((await web.get(f"/{questions[1]}")).text)
        data = {**form.hidden, "value": '"too late"'}
        await web.post(f"/{form.forms[-1]}", data=data, headers={"sec-fetch-site": "same-origin"})
    await adrain(taskq)

    assert "Send “paid” Send “cancelled”" in text_of(page)
    assert "waiting for paid | cancelled" in text_of(page)
    assert len(questions) == 2
    assert await handle.aresult(timeout=30) == ("cancelled", "too late")


@dataclass
class Refund:
    """An answer with fields."""

    approved: bool
    share: Literal["all", "half"]


async def test_the_inbox_shows_questions_and_the_first_answer_counts(
    taskq: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    @taskq.task(name="shop:refund", retention=60)
    async def refund(context: TaskContext) -> list[str]:
        got = [await context.areceive("refund", Answer[Refund], ask={"order": order}) for order in (17, 18)]
        return [f"{each.by} {each.value.approved} {each.value.share}" for each in got]

    await refund.using(task_id="refund-1").adelay()
    await adrain(taskq)
    caplog.set_level(logging.INFO, "taskq.audit")

    async with looking(dashboard_of(taskq)) as web:
        inbox = await web.get("/inbox")
        page = await web.get("/task?queue=default&id=refund-1")
        approve, reject = [each for each in Fields(inbox.text).links if each.startswith("task-answer?")]

        async def answer(question: str, **fields: str) -> str:
            asked = await web.get(f"/{question}")
            if asked.status_code != 200:
                return text_of(asked)
            form = Fields(asked.text)
            assert re.search('the task shop:refund\\? { "order": 1[78] }', text_of(asked))
            done = await web.post(
                f"/{form.forms[-1]}", data={**form.hidden, **fields}, headers={"sec-fetch-site": "same-origin"}
            )
            location = done.headers.get("location")
            return text_of(done) if location is None else message_of(await web.get("/" + location))

        wrong = await answer(approve, **{"a.share": '"most"'})
        answers = [await answer(each, **{"a.share": '"half"'}) for each in (reject, approve)]
        await adrain(taskq)
        late = await answer(reject, **{"a.share": '"all"'})
        second = [each for each in Fields((await web.get("/inbox")).text).links if each.startswith("task-answer?")]
        answers.append(await answer(second[0], **{"a.share": '"all"'}))
        await adrain(taskq)
        ended, empty = await web.get("/task?queue=default&id=refund-1"), await web.get("/inbox")

    assert re.search(r'refund shop:refund \{"order": 17\} .* Approve refund Reject refund', text_of(inbox))
    assert "task-answer?" in page.text
    assert re.search(r'question refund .* waits \{"order": 17\}', text_of(page))
    assert "does not fit" in wrong
    assert answers == ["The question “refund” was answered.", ANY, "The question “refund” was answered."]
    assert "already answered" in answers[1]
    assert "already answered" in late
    assert '[ "olga False half", "olga True all" ]' in text_of(ended)
    assert "answered by olga" in text_of(ended)
    assert "No task asks a question." in text_of(empty)
    notes = [record.getMessage() for record in caplog.records if record.name == "taskq.audit"]
    assert notes[1] == "task-answer by 'olga': done queue='default' id='refund-1' number='1' do='Reject'"
    assert "half" not in "".join(notes)


async def test_viewers_see_questions_without_their_data_and_answer_none(taskq: TaskQ) -> None:
    @taskq.task
    async def pay(context: TaskContext) -> None:
        await context.areceive("pay", bool, ask={"card": "secret"})

    await pay.using(task_id="pay-1").adelay()
    await adrain(taskq)
    fields = {"queue": "default", "id": "pay-1", "number": "1", "do": "Approve"}

    async with looking(dashboard_of(taskq), user="vera:viewer") as web:
        pages = [await web.get(path) for path in ("/inbox", "/task?queue=default&id=pay-1")]
        asked = await web.get("/task-answer", params=fields)
        sent = await act(web, "/task-answer", **fields)

    assert [("hidden" in text_of(each), "secret" in each.text, "task-answer?" in each.text) for each in pages] == [
        (True, False, False)
    ] * 2
    assert (asked.status_code, sent.status_code) == (403, 403)


async def test_viewers_see_the_steps_without_results_and_send_no_signals(taskq: TaskQ) -> None:
    await waiting_task(taskq)
    fields = {"queue": "default", "id": "publish-7", "name": "review", "do": "approve"}

    async with looking(dashboard_of(taskq), user="vera:viewer") as web:
        page = await web.get("/task?queue=default&id=publish-7")
        asked = await web.get("/task-signal", params=fields)
        sent = await act(web, "/task-signal", **fields)

    assert re.search(r"step moderate .* hidden sub-tasks call .* hidden signal review", text_of(page))
    assert "320" not in text_of(page)
    assert "task-signal?" not in page.text
    assert (asked.status_code, sent.status_code) == (403, 403)
    assert await state_of(taskq, "publish-7") == "scheduled"
