"""Test that any data from a producer is shown as text: it cannot control the terminal or act as markup."""

import pytest

from taskq_core import TaskQ
from taskq_terminal.screen import TOPS
from taskq_terminal.task import TaskScreen
from taskq_terminal.tasks import TasksScreen
from tests.redis_server import RedisServer
from tests.taskq_core.cli.hostile import STEERS, store_hostile
from tests.taskq_terminal.conftest import Open
from tests.taskq_terminal.person import Person

pytestmark = pytest.mark.redis


def nothing_steers(person: Person) -> None:
    """All text that is drawn is free of characters that a terminal obeys."""
    for strip in person.app.screen._compositor.render_strips():
        for segment in strip:
            assert not STEERS.search(segment.text), repr(segment.text)
            assert "\n" not in segment.text
            assert "\t" not in segment.text
            meta = segment.style.meta if segment.style else {}
            assert "quit" not in str(meta.get("@click", ""))


@pytest.fixture
def hostile(taskq: TaskQ, redis_server: RedisServer) -> None:
    store_hostile(taskq, redis_server)


@pytest.mark.nightly
@pytest.mark.usefixtures("hostile")
async def test_hostile_text_is_escaped_on_every_screen(opened: Open) -> None:
    async with opened(size=(150, 40)) as person:
        for number in range(1, len(TOPS) + 1):
            await person.press(str(number))
            await person.until(
                lambda number=number: person.look.found is not None and TOPS[number - 1] == person.look.TOP
            )
            await person.pilot.pause()
            nothing_steers(person)
        await person.press("5")
        await person.sees("[b]w[/b] [/nope]")
        await person.press("enter")
        await person.sees("[red]one[/]")
        nothing_steers(person)
        await person.press("enter")
        await person.sees("step [red]one[/]")
        nothing_steers(person)
        await person.press("4")
        await person.sees("\\x1b]0;owned\\x07")
        await person.press("enter")
        await person.sees("Enqueued, the latest first")
        nothing_steers(person)


@pytest.mark.usefixtures("hostile")
async def test_hostile_text_is_escaped_in_lists_questions_help_and_details(opened: Open) -> None:
    async with opened(size=(150, 60)) as person:
        await person.sees("[b]q[/b]")
        await person.press("d")
        await person.sees("Delete the queue “[b]q[/b]”")
        nothing_steers(person)
        await person.press("escape", "enter")
        await person.until(lambda: isinstance(person.look, TasksScreen) and person.look.found is not None)
        person.look.action_choose_number(5)  # type: ignore[attr-defined]
        await person.sees("[red]id", "\\x1b[31m[b]x[/b]")
        nothing_steers(person)
        await person.press("d")
        await person.sees("Delete the task “[red]id” of the queue “[b]q[/b]”?")
        nothing_steers(person)
        await person.press("escape", "question_mark")
        await person.sees("queue [b]q[/b]")
        nothing_steers(person)
        await person.press("escape", "enter")
        await person.until(lambda: isinstance(person.look, TaskScreen) and person.look.found is not None)
        await person.sees("[@click=app.quit]q[/]", "[red]id", "\\u202e")
        for _ in range(3):
            nothing_steers(person)
            await person.press("pagedown")
