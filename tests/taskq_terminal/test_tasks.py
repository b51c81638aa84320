"""Tasks by state in a terminal: listed, found, marked, and changed."""

from collections.abc import Sequence

import pytest

from taskq_core import TaskQ
from taskq_core.inspector import AsyncInspector
from taskq_core.wire import TaskState
from taskq_terminal.tasks import TasksScreen
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import put
from tests.taskq_terminal.conftest import Open, Put
from tests.taskq_terminal.person import Person

pytestmark = pytest.mark.redis
STATES = ("active", "pending", "scheduled", "retry", "archived", "completed")


def ids(person: Person, column: int = 1) -> list[str]:
    return [cells[column] for cells in person.cells]


async def in_queue(person: Person) -> TasksScreen:
    """Open the queue that is chosen."""
    await person.press("enter")
    await person.until(lambda: isinstance(person.look, TasksScreen) and person.look.found is not None)
    assert isinstance(person.look, TasksScreen)
    return person.look


async def stored(taskq: TaskQ, state: TaskState, queue: str = "mail") -> list[str]:
    page = await AsyncInspector(taskq).tasks(queue, state)
    return sorted(task.id for task in page.tasks)


@pytest.fixture
def one_of_each(enqueued: Put, redis_server: RedisServer) -> None:
    """A task in each state, and one in a group."""
    seconds = int(redis_server.client.time()[0])  # type: ignore[index]
    for state in STATES:
        handle = enqueued(f"is-{state}")
        if state != "pending":
            facts = {"error_msg": "ReadTimeout: no answer", "retried": 2, "last_failed_at": seconds - 60}
            fields = facts if state in ("retry", "archived") else {}
            put(redis_server, handle, state, score=seconds + 600, **fields)
    enqueued("is-aggregating", aggregate="shop:1")


@pytest.mark.usefixtures("one_of_each")
async def test_each_state_has_its_list_and_its_count(opened: Open) -> None:
    async with opened(size=(120, 30)) as person:
        look = await in_queue(person)
        seen: dict[str, Sequence[str]] = {}
        for _ in range(7):
            await person.rests()
            seen[str(look.choice)] = ids(person, 0 if look.choice is TaskState.AGGREGATING else 1)
            await person.press("right")

        assert seen == {**{state: [f"is-{state}"] for state in STATES}, "aggregating": ["shop:1"]}
        await person.sees(*(f"{state} 1" for state in (*STATES, "aggregating")))


@pytest.mark.nightly
@pytest.mark.usefixtures("one_of_each")
async def test_each_state_has_its_columns(opened: Open) -> None:
    async with opened(size=(130, 30)) as person:
        look = await in_queue(person)
        look.action_choose_number(4)
        await person.sees("Next retry", "ReadTimeout: no answer", "2/25")
        look.action_choose_number(0)
        await person.sees("Status", "is-active")


@pytest.mark.nightly
@pytest.mark.usefixtures("one_of_each")
async def test_a_click_selects_a_state(opened: Open) -> None:
    async with opened() as person:
        look = await in_queue(person)
        await person.click("#choices", offset=(44, 0))

        await person.until(
            lambda: look.choice is TaskState.ARCHIVED and [each[:9] for each in ids(person)] == ["is-archiv"]
        )


@pytest.mark.nightly
@pytest.mark.usefixtures("one_of_each")
async def test_a_group_is_chosen_before_its_tasks_are_listed(opened: Open) -> None:
    async with opened() as person:
        look = await in_queue(person)
        look.action_choose_number(2)
        await person.until(lambda: ids(person, 0) == ["shop:1"])
        await person.press("enter")
        await person.sees("group shop:1", "is-aggregating")
        await person.press("escape")
        await person.until(lambda: person.look is look)


@pytest.mark.nightly
@pytest.mark.usefixtures("one_of_each")
async def test_tasks_of_all_queues_are_listed_together(opened: Open, enqueued: Put) -> None:
    enqueued("elsewhere", queue="images")

    async with opened(size=(120, 30)) as person:
        await person.press("2")
        await person.until(lambda: isinstance(person.look, TasksScreen) and person.look.found is not None)

        assert {(cells[2], cells[1]) for cells in person.cells} == {
            ("images", "elsewhere"),
            *(("mail", f"is-{state}") for state in STATES),
        }


@pytest.mark.nightly
async def test_the_page_length_fits_the_terminal(opened: Open, enqueued: Put) -> None:
    for number in range(40):
        enqueued(f"t{number:02}")

    async with opened() as person:
        await in_queue(person)
        await person.rests()  # the page is read again once the lines above it are there
        first = ids(person)
        assert 10 <= len(first) < 24
        await person.press("n")
        await person.sees("page 2 of")
        second = ids(person)
        assert not set(first) & set(second)
        await person.press("p")
        await person.sees("page 1 of")
        assert ids(person) == first

        await person.pilot.resize_terminal(80, 50)
        await person.until(lambda: len(ids(person)) > len(first))


async def test_a_filter_finds_tasks_and_can_be_continued(opened: Open, enqueued: Put) -> None:
    for number in range(60):
        enqueued(f"t{number:02}", name="mail:send" if number % 2 else "mail:receipt")

    async with opened() as person:
        look = await in_queue(person)
        await person.press("slash")
        await person.types("type:receipt")
        await person.sees("filter: type:receipt", "n continues")
        first = ids(person)
        assert all(int(each[1:]) % 2 == 0 for each in first)

        await person.press("n")
        await person.until(lambda: bool(ids(person)) and not set(first) & set(ids(person)))
        await person.press("p")
        await person.until(lambda: ids(person)[: len(first)] == first)  # more, once the table is laid out

        await person.press("escape")
        await person.until(lambda: look.text == "" and len(ids(person)) >= len(first))
        await person.sees("page 1 of")


async def test_a_filter_reads_several_parts_until_the_page_is_full_or_all_is_read(
    opened: Open, enqueued: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq_core.views.tasks.SCAN_BYTES", 1)  # each request reads only a part
    for number in range(3):
        enqueued(f"late{number}", queue="slow")
    for number in range(120):
        enqueued(f"t{number:03}")

    async with opened() as person:
        await person.press("2")
        await person.press("slash")
        await person.types("late")
        await person.until(lambda: sorted(ids(person)) == ["late0", "late1", "late2"])
        await person.sees("All 123 tasks were read, 3 match.")

        await person.press("slash")
        await person.press("ctrl+u")
        await person.types("nothing")
        await person.sees("None of 123 tasks matches.")


@pytest.mark.nightly
async def test_an_invalid_filter_is_reported_and_keeps_the_list(opened: Open, enqueued: Put) -> None:
    enqueued("a")

    async with opened() as person:
        await in_queue(person)
        await person.press("slash")
        await person.types("eror:x")
        await person.sees("did you mean 'error'?")
        assert ids(person) == ["a"]
        await person.press("escape")
        await person.until(lambda: not person.look.query_one("#filter").has_class("-open"))


@pytest.mark.parametrize(
    ("state", "key", "asked", "told", "after"),
    [
        ("scheduled", "r", "Run the task “a” of the queue “mail” now?", "1 task runs now.", "pending"),
        ("pending", "a", "Archive the task “a” of the queue “mail”?", "1 task was archived.", "archived"),
        ("archived", "d", "Delete the task “a” of the queue “mail”?", "1 task was deleted.", None),
    ],
)
async def test_a_task_is_changed_after_confirmation(
    opened: Open,
    enqueued: Put,
    redis_server: RedisServer,
    taskq: TaskQ,
    state: str,
    key: str,
    asked: str,
    told: str,
    after: str | None,
) -> None:
    handle = enqueued("a")
    if state != "pending":
        put(redis_server, handle, state, score=2_000_000_000)

    async with opened() as person:
        await in_queue(person)
        await person.press(key)
        await person.sees(asked)
        await person.press("escape")
        await person.misses(asked)
        assert await stored(taskq, TaskState(state)) == ["a"]

        await person.press(key)
        await person.sees(asked)
        await person.press("y")
        await person.sees(told)
        assert await stored(taskq, TaskState(state)) == []
        if after is not None:
            assert await stored(taskq, TaskState(after)) == ["a"]


async def test_a_running_task_is_cancelled(
    opened: Open, enqueued: Put, redis_server: RedisServer, taskq: TaskQ
) -> None:
    put(redis_server, enqueued("a"), "active", score=2_000_000_000)
    listener = redis_server.client.pubsub()
    listener.subscribe("asynq:cancel")
    listener.get_message(timeout=60)

    async with opened(size=(100, 24)) as person:
        await in_queue(person)
        await person.press("c")
        await person.sees("Ask the worker of the task “a” of the queue “mail” to cancel it?")
        await person.press("y")
        await person.sees("The worker of 1 task was asked to cancel it.")

    heard = listener.get_message(timeout=60)
    listener.close()
    assert heard is not None
    assert heard["data"] == b"a"


@pytest.mark.nightly
async def test_a_task_is_postponed_by_the_typed_duration(opened: Open, enqueued: Put, taskq: TaskQ) -> None:
    enqueued("a")

    async with opened() as person:
        await in_queue(person)
        await person.press("t")
        await person.sees("Run the task “a” of the queue “mail” at a later time?", "Delay, as")
        await person.types("soon")
        await person.sees("'soon' is not a duration")
        await person.types("2h")
        await person.sees("For 2:00:00.")
        await person.press("y")
        await person.sees("1 task was put off.")

    assert await stored(taskq, TaskState.SCHEDULED) == ["a"]


async def test_a_task_is_moved_to_another_queue(opened: Open, enqueued: Put, taskq: TaskQ) -> None:
    enqueued("a")
    enqueued("b", queue="slow")

    async with opened() as person:
        await in_queue(person)
        await person.press("m")
        await person.sees("Move the task “a” of the queue “mail” to another queue?", "mail, slow")
        await person.types("slow")
        await person.sees("To “slow”.")
        await person.press("y")
        await person.sees("1 task was moved.")

    assert await stored(taskq, TaskState.PENDING, "slow") == ["a", "b"]


async def test_an_action_changes_all_marked_tasks(opened: Open, enqueued: Put, taskq: TaskQ) -> None:
    for number in range(8):
        enqueued(f"t{number}")

    async with opened() as person:
        await in_queue(person)
        await person.press("space", "space", "space")
        await person.sees("3 marked")
        marked = sorted(cells[1] for cells in person.cells if cells[0] == "●")
        await person.press("a")
        await person.sees("Archive 3 tasks of the queue “mail”?", *marked)
        await person.press("y")
        await person.sees("3 tasks were archived.")
        await person.misses("3 marked")

    assert await stored(taskq, TaskState.ARCHIVED) == marked


@pytest.mark.nightly
async def test_a_whole_page_can_be_marked(opened: Open, enqueued: Put) -> None:
    for number in range(4):
        enqueued(f"t{number}")

    async with opened() as person:
        look = await in_queue(person)
        await person.press("down", "down", "space")
        await person.until(lambda: [cells[0] for cells in person.cells] == ["·", "·", "●", "·"])
        await person.press("ctrl+a")
        await person.until(lambda: len(look.marked) == 4)
        await person.press("ctrl+a")
        await person.until(lambda: not look.marked)


async def test_tasks_changed_by_another_user_are_skipped_and_reported(
    opened: Open, enqueued: Put, taskq: TaskQ
) -> None:
    enqueued("a")
    enqueued("b")

    async with opened() as person:
        await in_queue(person)
        await person.press("ctrl+a", "d")
        await person.sees("Delete 2 tasks of the queue “mail”?")
        await AsyncInspector(taskq).archive_task("mail", "a")
        await person.press("y")
        await person.sees("1 task was deleted. Skipped: 1 is now archived.")

    assert await stored(taskq, TaskState.ARCHIVED) == ["a"]


async def test_actions_that_the_state_forbids_are_not_offered(opened: Open, enqueued: Put) -> None:
    enqueued("a")

    async with opened() as person:
        await in_queue(person)
        await person.until(lambda: "Archive" in person.foot)
        assert "Cancel" not in person.foot
        await person.press("c")
        assert "Ask the worker" not in person.text

        await person.press("2")
        await person.until(
            lambda: isinstance(person.look, TasksScreen) and person.look.queue is None and bool(person.cells)
        )
        await person.press("c")
        await person.sees("Cancel: not while it is pending.")


async def test_an_action_on_all_changes_tasks_of_all_pages(opened: Open, enqueued: Put, taskq: TaskQ) -> None:
    for number in range(250):
        enqueued(f"t{number:03}")

    async with opened() as person:
        await in_queue(person)
        await person.press("x")
        await person.sees("all 250 tasks marked")
        await person.press("x")
        await person.misses("marked")

        await person.press("x", "a")
        await person.sees("Archive all 250 pending tasks of the queue “mail”?")
        await person.press("y")
        await person.sees("250 tasks were archived.")

    assert await AsyncInspector(taskq).count("mail", TaskState.ARCHIVED) == 250


@pytest.mark.nightly
@pytest.mark.parametrize("text", ["type:receipt", "receipt@"])
async def test_an_action_on_a_filter_changes_only_matching_tasks(
    opened: Open, enqueued: Put, taskq: TaskQ, text: str
) -> None:
    for number in range(4):
        enqueued(f"t{number}", name="mail:send")
    enqueued("receipt", name="mail:receipt")

    async with opened() as person:
        await in_queue(person)
        await person.press("slash")
        await person.types(text)
        await person.until(lambda: ids(person) == ["receipt"])
        await person.press("x")
        await person.sees("all that match marked")
        await person.press("a")
        await person.sees("Archive all pending tasks of the queue “mail” that match the filter (of 5)")
        await person.press("y")
        await person.sees("1 task was archived.")

    assert await stored(taskq, TaskState.ARCHIVED) == ["receipt"]


async def test_an_action_on_a_searched_id_changes_only_that_task(opened: Open, enqueued: Put) -> None:
    """Once it is deleted, an action on all would apply to tasks that contain the text."""
    enqueued("receipt")
    enqueued("receipt-2")

    async with opened() as person:
        await in_queue(person)
        await person.press("slash")
        await person.types("receipt")
        await person.until(lambda: ids(person) == ["receipt"])
        await person.press("x")
        await person.sees("1 marked")


async def test_the_queue_can_be_paused_from_its_list_of_tasks(opened: Open, enqueued: Put, taskq: TaskQ) -> None:
    enqueued("a")

    async with opened() as person:
        await in_queue(person)
        await person.press("P")
        await person.sees("Pause the queue “mail”?")
        await person.press("y")
        await person.sees("Queue “mail” is paused")

    assert (await AsyncInspector(taskq).queue_info("mail")).is_paused


async def test_a_refresh_keeps_the_position_in_the_list(opened: Open, enqueued: Put) -> None:
    for number in range(6):
        enqueued(f"t{number}")

    async with opened() as person:
        look = await in_queue(person)
        await person.press("down", "down")
        chosen = look.meant[0].id
        enqueued("new")
        await person.press("f5")
        await person.until(lambda: "new" in ids(person))

        assert look.meant[0].id == chosen
