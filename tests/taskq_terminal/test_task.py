"""One task in a terminal."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.widgets import Static

from taskq_core import TaskHandle, TaskQ
from taskq_core.inspector import AsyncInspector
from taskq_core.wire import TaskState
from taskq_terminal.task import LINES_MAX, SHOWN_BYTES, TaskScreen
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import put
from tests.taskq_terminal.conftest import Open, Put
from tests.taskq_terminal.person import Person

pytestmark = pytest.mark.redis
ATTEMPT = {
    "attempt": 1,
    "worker": "c0ffee",
    "started": 1_700_000_000_000,
    "ended": 1_700_000_002_500,
    "error": "smtplib.SMTPRecipientsRefused",
    "traceback": 'Traceback (most recent call last):\n  File "tasks.py", line 41, in send\n    mailbox full',
}


@asynccontextmanager
async def at(opened: Open, handle: TaskHandle[Any], **more: Any) -> AsyncIterator[Person]:
    """Look at a task, on a terminal that is long enough for all of it."""
    more.setdefault("size", (100, 60))
    async with opened(**more) as person:
        person.look.go("task", handle.queue, handle.id)
        await person.until(lambda: isinstance(person.look, TaskScreen) and person.look.found is not None)
        yield person


@pytest.fixture
def failing(enqueued: Put, redis_server: RedisServer) -> TaskHandle[Any]:
    """A task that has failed and waits for another attempt."""
    handle = enqueued("order-7", arguments={"to": "grace@example.com", "lines": [1, 2]}, headers={"tenant": "acme"})
    put(redis_server, handle, "retry", score=4_000_000_000, retried=3, error_msg="452 mailbox full")
    fields: dict[str, Any] = {"taskq_attempts": json.dumps(ATTEMPT), "result": '{"tried": true}'}
    fields["taskq_progress"] = json.dumps(
        {"done": 3, "total": 10, "message": "third recipient", "at": 1_700_000_000_000}
    )
    redis_server.client.hset(f"asynq:{{mail}}:t:{handle.id}", mapping=fields)
    return handle


async def test_the_screen_of_a_task_shows_all_its_fields(opened: Open, failing: TaskHandle[Any]) -> None:
    async with at(opened, failing) as person:
        await person.sees(
            *("mail:send", "retry", "order-7", "3/25", "tenant", "acme"),
            *("3 of 10 (30 %)", "third recipient", "452 mailbox full", "next run"),
            *("smtplib.SMTPRecipientsRefused", "took 2.5s", 'File "tasks.py", line 41, in send', "mailbox full"),
            *('"to": "grace@example.com"', '"tried": true'),
        )


async def test_the_error_of_a_completed_task_is_shown_as_history(
    opened: Open, failing: TaskHandle[Any], redis_server: RedisServer
) -> None:
    async with at(opened, failing) as person:
        red = person.look.palette["bad"]
        assert red in {str(each.style) for each in person.look.text(person.look.found).spans}
    put(redis_server, failing, "completed", score=4_000_000_000)

    async with at(opened, failing) as person:
        await person.sees("Error of an earlier run", "452 mailbox full")
        assert red not in {str(each.style) for each in person.look.text(person.look.found).spans}


@pytest.mark.nightly
async def test_a_result_that_was_too_large_is_explained(opened: Open, enqueued: Put, redis_server: RedisServer) -> None:
    handle = enqueued("order-8")
    put(redis_server, handle, "completed", score=4_000_000_000)
    redis_server.client.hset(f"asynq:{{mail}}:t:{handle.id}", "taskq_oversized", b"20000000 16777216")

    async with at(opened, handle) as person:
        await person.sees("Not stored: the result has 20,000,000 bytes, and the limit is 16,777,216")
        person.look.go("tasks", handle.queue, TaskState.COMPLETED)
        await person.sees("20,000,000 bytes are")


@pytest.mark.nightly
async def test_payloads_can_be_hidden(opened: Open, failing: TaskHandle[Any]) -> None:
    """Results, tracebacks, progress messages and limit headers are hidden too, because they may contain arguments."""
    async with at(opened, failing, payloads=False) as person:
        await person.sees("Payload", "hidden", "acme")
        for secret in ("grace@example.com", '"tried"', "line 41", "third recipient"):
            assert secret not in person.text
        await person.press("escape", "enter")
        await person.sees("page 1 of 1", "hidden")
        assert "grace@example.com" not in person.text
        await person.press("slash")
        await person.types("payload:grace")
        await person.sees("hidden payloads cannot be searched")


@pytest.mark.nightly
async def test_the_screen_scrolls_on_a_small_terminal(opened: Open, failing: TaskHandle[Any]) -> None:
    async with at(opened, failing, size=(80, 24)) as person:
        await person.sees("Attempts, the latest first")  # the layout is done: before that, End has no target
        assert "acme" not in person.text
        await person.press("end")
        await person.sees("acme")
        await person.press("home", "j")
        await person.misses("acme")


async def test_the_offered_keys_depend_on_the_state(opened: Open, failing: TaskHandle[Any], enqueued: Put) -> None:
    async with at(opened, failing) as person:
        await person.until(lambda: "Run" in person.foot)  # the keys are drawn a moment after what they are for
        assert "Delete" in person.foot
        assert "Cancel" not in person.foot
        assert "Workflow" not in person.foot


@pytest.mark.parametrize(
    ("key", "told", "after"), [("r", "1 task runs now.", "pending"), ("a", "1 task was archived.", "archived")]
)
async def test_an_action_changes_the_task_and_shows_its_new_state(
    opened: Open, failing: TaskHandle[Any], key: str, told: str, after: str
) -> None:
    async with at(opened, failing) as person:
        await person.press(key)
        await person.sees("the task “order-7” of the queue “mail”")
        await person.press("y")
        await person.sees(told)
        await person.until(lambda: person.look.found.state == after)


@pytest.mark.nightly
async def test_the_deletion_of_a_task_returns_to_the_list(opened: Open, failing: TaskHandle[Any], taskq: TaskQ) -> None:
    async with at(opened, failing) as person:
        await person.press("d")
        await person.sees("Delete the task “order-7”")
        await person.press("y")
        await person.sees("1 task was deleted.", "1 queue, by name")

    assert await AsyncInspector(taskq).count("mail", TaskState.RETRY) == 0


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Actions on tasks wait until this is set."""
    gate = asyncio.Event()
    act_on = AsyncInspector.act_on

    async def slowly(self: AsyncInspector, *args: Any, **more: Any) -> Any:
        await gate.wait()
        return await act_on(self, *args, **more)

    monkeypatch.setattr(AsyncInspector, "act_on", slowly)
    return gate


@pytest.mark.nightly
@pytest.mark.parametrize(("key", "seen"), [("3", "No worker runs."), ("escape", "1 queue, by name")])
async def test_an_action_continues_after_its_screen_is_closed_and_reports_on_the_next_one(
    opened: Open, failing: TaskHandle[Any], taskq: TaskQ, held: asyncio.Event, key: str, seen: str
) -> None:
    async with at(opened, failing) as person:
        await person.press("d")
        await person.sees("Delete the task “order-7”")
        await person.press("y", key)
        await person.sees(seen)
        shown = person.look

        held.set()
        await person.sees("1 task was deleted.")
        assert person.app.screen is shown, "one stays where one has gone"

    assert await AsyncInspector(taskq).count("mail", TaskState.RETRY) == 0


@pytest.mark.nightly
async def test_quitting_during_an_action_needs_confirmation(
    opened: Open, failing: TaskHandle[Any], taskq: TaskQ, held: asyncio.Event
) -> None:
    async with at(opened, failing) as person:
        await person.press("a")
        await person.sees("Archive the task “order-7”")
        await person.press("y", "escape")
        await person.sees("1 queue, by name")
        await person.press("q")
        await person.sees("A change is still in progress")
        assert not person.app._exit
        await person.press("q")
        await person.until(lambda: not person.app.is_running or person.app._exit)

    held.set()
    assert await AsyncInspector(taskq).count("mail", TaskState.RETRY) == 1, "it was ended"


@pytest.mark.nightly
async def test_quitting_after_an_action_needs_no_confirmation(
    opened: Open, failing: TaskHandle[Any], held: asyncio.Event
) -> None:
    async with at(opened, failing) as person:
        await person.press("a")
        await person.sees("Archive the task “order-7”")
        await person.press("y", "escape")
        await person.sees("1 queue, by name")
        await person.press("q")
        await person.sees("A change is still in progress")
        held.set()
        await person.sees("1 task was archived.")
        await person.press("q")
        await person.until(lambda: not person.app.is_running or person.app._exit)


@pytest.mark.nightly
async def test_a_deleted_task_is_reported_and_its_last_data_stay_on_screen(
    opened: Open, failing: TaskHandle[Any], taskq: TaskQ
) -> None:
    async with at(opened, failing) as person:
        await AsyncInspector(taskq).delete_task("mail", "order-7")
        await person.press("f5")
        await person.sees("no task 'order-7' in queue 'mail'", "452 mailbox full")
        assert person.look.has_class("-stale")


@pytest.mark.nightly
async def test_an_unreadable_task_shows_the_reason(opened: Open, enqueued: Put, redis_server: RedisServer) -> None:
    handle = enqueued("broken")
    redis_server.client.hset("asynq:{mail}:t:broken", "msg", b"\xff\xfe no message")

    async with at(opened, handle) as person:
        await person.sees("broken", "fffe 206e", "Message")
        await person.press("escape", "enter")
        await person.sees("broken")


@pytest.mark.nightly
async def test_a_long_payload_is_truncated_with_a_note(opened: Open, enqueued: Put) -> None:
    handle = enqueued("long", arguments={"text": "x" * 100_000})

    async with at(opened, handle) as person:
        await person.press("end")
        await person.sees("The first 65,536 of 100,")


@pytest.mark.nightly
@pytest.mark.parametrize("payload", [b"[" * 900 + b"]" * 900, b"[" + b"1," * 20_000 + b"1]"], ids=["deep", "long"])
async def test_a_payload_of_many_lines_is_truncated_with_a_note(opened: Open, taskq: TaskQ, payload: bytes) -> None:
    """A terminal is slow for each line, and deeply nested data would have thousands of ever longer lines."""
    handle = taskq.client.enqueue(taskq.remote("go:task", queue="mail", task_id="deep").s(payload))

    async with at(opened, handle) as person:
        assert isinstance(person.look, TaskScreen)
        drawn = str(person.look.query_one("#text", Static).content)
        assert len(drawn.splitlines()) < LINES_MAX + 30
        assert len(drawn) < 10 * SHOWN_BYTES
        if payload.startswith(b"[1"):
            await person.press("end")
            await person.sees("18,003 more lines")


@pytest.mark.nightly
async def test_a_binary_payload_is_shown_as_escaped_bytes(opened: Open, taskq: TaskQ) -> None:
    handle = taskq.client.enqueue(taskq.remote("go:task", queue="mail", task_id="raw").s(b"\x00\xffabc"))

    async with at(opened, handle) as person:
        await person.sees("\\x00\\xffabc")


@pytest.mark.nightly
async def test_the_task_id_can_be_copied(opened: Open, failing: TaskHandle[Any]) -> None:
    async with at(opened, failing) as person:
        await person.press("y")
        await person.sees("The id is on the clipboard")
        assert person.app.clipboard == "order-7"
