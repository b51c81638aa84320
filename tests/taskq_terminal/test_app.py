"""The terminal dashboard as a whole: going around, keys, small terminals, Redis away, and who may change nothing."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from taskq_core import TaskQ
from taskq_core.errors import ConfigurationError
from taskq_core.inspector import AsyncInspector
from taskq_core.wire import TaskState
from taskq_terminal.app import DashApp
from taskq_terminal.queues import QueuesScreen
from taskq_terminal.screen import TOPS
from taskq_terminal.state import DashConfig
from taskq_terminal.tasks import TasksScreen
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.worker.conftest import until
from tests.taskq_terminal.conftest import Open, Put
from tests.taskq_terminal.person import open_terminal

pytestmark = pytest.mark.redis
VIEWER = "resetchannels ~asynq:* ~taskq:* +@all -@dangerous -@write +info"
"""The rights that the page on the dashboard gives to who looks."""


async def test_digits_open_screens_and_q_goes_back_and_quits(opened: Open) -> None:
    async with opened() as person:
        await person.press("2", "q")
        await person.until(lambda: not person.app.is_running or person.app._exit)


@pytest.mark.nightly
async def test_a_click_opens_a_screen(opened: Open) -> None:
    async with opened() as person:
        await person.click("#nav", offset=(12, 0))
        await person.until(lambda: isinstance(person.look, TasksScreen))


@pytest.mark.nightly
async def test_each_screen_has_its_keys_and_its_help(opened: Open, enqueued: Put) -> None:
    enqueued("a")

    async with opened(size=(80, 50)) as person:
        for number, name in enumerate(TOPS, 1):
            await person.press(str(number))
            await person.sees(f"{number} {name.capitalize()}")
            await person.until(lambda name=name: person.look.found is not None and name == person.look.TOP)
            await person.until(lambda: "Help" in person.foot)
            assert "Back" in person.foot
            await person.press("question_mark")
            await person.until(lambda: bool(person.app.screen.query("HelpPanel")))
            await person.sees(str(person.look.HELP).split()[0])
            await person.press("escape")
            await person.until(lambda: not person.app.screen.query("HelpPanel"))


async def test_every_screen_fits_a_narrow_terminal(opened: Open, enqueued: Put) -> None:
    """What does not fit is left out or cut, and no line is longer."""
    enqueued("a-task-with-a-rather-long-id-that-does-not-fit", name="reports:of-a-rather-long-name-too")

    async with opened(size=(40, 24)) as person:
        for number, name in enumerate(TOPS, 1):
            await person.press(str(number))
            await person.until(lambda name=name: person.look.found is not None and name == person.look.TOP)
            for width in (80, 40):
                await person.pilot.resize_terminal(width, 24)
                await person.until(lambda width=width: len(person.lines) == 24 and max(map(len, person.lines)) <= width)
        await person.press("1", "enter")
        await person.until(lambda: isinstance(person.look, TasksScreen) and person.look.found is not None)
        await person.sees("a-task-w", "…")
        await person.pilot.resize_terminal(80, 24)
        await person.sees("a-task-w", "…")


@pytest.mark.parametrize(
    ("size", "line"), [((20, 24), "taskq dash needs"), ((80, 5), "taskq dash needs 40x10, this is 80x5")]
)
async def test_a_terminal_that_is_too_small_shows_only_a_message(
    opened: Open, size: tuple[int, int], line: str
) -> None:
    async with opened(size=size) as person:
        await person.sees(line)
        assert "Queues" not in person.text
        if size[0] == 20:
            assert [each.strip() for each in person.lines if each.strip()] == [
                "taskq dash needs",
                "40x10, this is 20x24",
                "(q quits)",
            ]

        await person.pilot.resize_terminal(80, 24)
        await person.sees("1 Queues")


@pytest.mark.nightly
async def test_a_confirmation_is_shown_on_a_small_terminal(opened: Open, enqueued: Put) -> None:
    enqueued("a")

    async with opened(size=(40, 12)) as person:
        await person.press("d")
        await person.sees("Delete the queue", "mail", "(y)", "(n)")


async def test_the_screen_refreshes_automatically(opened: Open, enqueued: Put, clock: Clock) -> None:
    async with opened(refresh=timedelta(seconds=2)) as person:
        await person.sees("There is no queue yet")
        enqueued("a")
        await person.sees("mail", "pend 1", meanwhile=lambda: clock.skip(1))


async def test_one_refresh_ends_before_the_next_begins(
    opened: Open, enqueued: Put, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """This holds however slow Redis is."""
    enqueued("a")
    at_once = looks = held = 0
    answers = asyncio.Event()
    answers.set()
    read = QueuesScreen.read

    async def slowly(self: QueuesScreen) -> object:
        nonlocal at_once, looks, held
        at_once += 1
        looks += 1
        try:
            held += 1
            await answers.wait()
            held -= 1
            return await read(self)
        finally:
            at_once -= 1

    monkeypatch.setattr(QueuesScreen, "read", slowly)
    async with opened(refresh=timedelta(seconds=2)) as person:
        answers.clear()
        await person.until(lambda: held == 1, meanwhile=lambda: clock.skip(1))
        before = looks
        for _ in range(5):
            clock.skip(10)
            await person.settle()
        assert (at_once, looks) == (1, before)

        answers.set()
        await person.until(lambda: looks > before, meanwhile=lambda: clock.skip(1))


@pytest.mark.nightly
async def test_a_new_screen_does_not_wait_for_the_previous_one(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened() as person:

        async def for_ever(self: QueuesScreen) -> object:
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(QueuesScreen, "read", for_ever)
        await person.press("f5", "3")
        await person.sees("No worker runs.")


async def test_a_redis_outage_is_reported_and_the_last_data_stay_on_screen(
    redis_server: RedisServer, enqueued: Put, tmp_path: Path, clock: Clock
) -> None:
    enqueued("a")
    socket = tmp_path / "redis.sock"
    socket.symlink_to(redis_server.socket_path)
    taskq = TaskQ(f"unix://{socket}", enqueue_timeout=30)
    async with open_terminal(taskq, (80, 24), refresh=timedelta(seconds=2)) as person:
        await person.sees("mail")
        socket.unlink()
        redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await person.sees("Redis does not answer since", "Data of", "mail", meanwhile=lambda: clock.skip(1))
        assert person.look.has_class("-stale")
        await person.until(lambda: "Pause" not in person.foot)  # who answers next may be another

        await person.press("enter")
        await person.until(lambda: isinstance(person.look, TasksScreen))
        await person.press("3", "1")
        await person.sees("Redis does not answer since", meanwhile=lambda: clock.skip(1))

        socket.symlink_to(redis_server.socket_path)
        await person.misses("Redis does not answer since", meanwhile=lambda: clock.skip(1))
        await person.until(lambda: not person.look.has_class("-stale") and person.look.found is not None)
        await person.until(lambda: "Pause" in person.foot)
    await taskq.aclose()


async def test_a_refusal_by_redis_is_not_reported_as_an_outage(redis_server: RedisServer, enqueued: Put) -> None:
    enqueued("a")
    redis_server.command("ACL", "SETUSER", "bob", "on", ">secret", "+@all", "&*", "~asynq:{other}:*")
    taskq = TaskQ(redis_server.unix_url.replace("unix://", "unix://bob:secret@"), enqueue_timeout=30)
    try:
        async with open_terminal(taskq, (120, 30)) as person:
            await person.sees("Redis refuses requests since", "NOPERM")
            assert "does not answer" not in person.text
            redis_server.command("ACL", "SETUSER", "bob", "~*")
            await person.press("f5")
            await person.sees("mail")
            await person.misses("refuses requests")
    finally:
        await taskq.aclose()
        redis_server.command("ACL", "DELUSER", "bob")


async def test_it_starts_while_redis_is_down_and_recovers(
    redis_server: RedisServer, tmp_path: Path, clock: Clock
) -> None:
    socket = tmp_path / "redis.sock"
    taskq = TaskQ(f"unix://{socket}", enqueue_timeout=1)
    async with open_terminal(taskq, (80, 24), refresh=timedelta(seconds=2)) as person:
        await person.sees("Redis does not answer since", "cannot reach", meanwhile=lambda: clock.skip(1))
        socket.symlink_to(redis_server.socket_path)
        await person.sees("There is no queue yet", meanwhile=lambda: clock.skip(1))
    await taskq.aclose()


async def test_an_action_on_a_silent_redis_is_reported_and_blocks_nothing_else(
    redis_server: RedisServer, enqueued: Put, clock: Clock
) -> None:
    enqueued("a")
    with Relay(redis_server.socket_path) as relay:
        taskq = TaskQ(relay.url, enqueue_timeout=30)
        async with open_terminal(taskq, (80, 24)) as person:
            await person.press("p")
            await person.sees("Pause the queue “mail”?")
            relay.cut()
            relay.refuse()
            await person.press("y")
            await person.sees("is Redis running?", meanwhile=lambda: clock.skip(1))
            relay.forward()
            await person.press("f5")
            await person.until(
                lambda: not person.look.has_class("-stale") and "Pause" in person.foot,
                meanwhile=lambda: clock.skip(1),
            )
            await person.press("p")
            await person.sees("Pause the queue “mail”?")
        await taskq.aclose()


async def test_read_only_mode_offers_no_actions(opened: Open, enqueued: Put, taskq: TaskQ) -> None:
    enqueued("a")

    async with opened(read_only=True) as person:
        await person.sees("read-only")
        assert "Pause" not in person.foot
        assert "Delete" not in person.foot
        await person.press("d", "p", "y")
        await person.press("enter")
        await person.until(lambda: isinstance(person.look, TasksScreen) and person.look.found is not None)
        await person.press("d", "a", "x", "y")
        await person.sees("a")
        assert len(person.app.screen_stack) == 3, "no question is asked"

    assert await AsyncInspector(taskq).count("mail", TaskState.PENDING) == 1


async def test_a_redis_user_without_write_permission_sees_no_actions(redis_server: RedisServer, enqueued: Put) -> None:
    enqueued("a")
    redis_server.command("ACL", "SETUSER", "reader", "on", ">secret", *VIEWER.split())
    taskq = TaskQ(redis_server.unix_url.replace("unix://", "unix://reader:secret@"), enqueue_timeout=30)
    try:
        async with open_terminal(taskq, (80, 24)) as person:
            await person.sees("read-only", "mail")
            assert "Pause" not in person.foot
            await person.press("7")
            await person.sees("no: the Redis user may not write", "reader")
    finally:
        await taskq.aclose()
        redis_server.command("ACL", "DELUSER", "reader")


def test_the_documentation_lists_the_required_permissions() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "terminal-dashboard.md"

    assert f"ACL SETUSER viewer on >password {VIEWER}\n" in page.read_text(encoding="utf-8")


async def test_revoked_permissions_are_noticed_at_the_first_refusal(redis_server: RedisServer, enqueued: Put) -> None:
    enqueued("a")
    redis_server.command("ACL", "SETUSER", "ada", "on", ">secret", "~*", "&*", "+@all")
    taskq = TaskQ(redis_server.unix_url.replace("unix://", "unix://ada:secret@"), enqueue_timeout=30)
    try:
        async with open_terminal(taskq, (80, 24)) as person:
            await person.until(lambda: "Pause" in person.foot)
            redis_server.command("ACL", "SETUSER", "ada", "-@write")
            await person.press("p")
            await person.sees("Pause the queue")
            await person.press("y")
            await person.sees("refused", "read-only")
            await person.until(lambda: "Pause" not in person.foot)
    finally:
        await taskq.aclose()
        redis_server.command("ACL", "DELUSER", "ada")


async def test_colors_suit_light_and_dark_backgrounds(opened: Open, enqueued: Put) -> None:
    enqueued("a")

    backgrounds = []
    for theme in ("light", "dark"):
        async with opened(theme=theme) as person:
            assert person.app.current_theme.dark is (theme == "dark")
            backgrounds.append(person.app.screen.styles.background)
            await person.sees("mail")

    assert backgrounds[0] != backgrounds[1]


async def test_all_information_is_readable_without_colors(
    opened: Open, enqueued: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    enqueued("a")

    async with opened() as person:
        assert person.app.no_color is not None
        strips = person.app.screen._compositor.render_strips()
        shades = {
            colour.get_truecolor()
            for strip in strips
            for segment in strip.apply_filter(person.app._filters[-1], person.app.screen.styles.background)
            if segment.style is not None
            for colour in (segment.style.color, segment.style.bgcolor)
            if colour is not None and not colour.is_default
        }
        assert shades
        assert all(shade.red == shade.green == shade.blue for shade in shades)
        await person.sees("mail", "pend 1", "█")


async def test_the_refresh_interval_has_bounds() -> None:
    with pytest.raises(ConfigurationError, match=r"refresh must be 0\.2 to 3600 seconds, got 0"):
        DashConfig(refresh=timedelta(0))


async def test_connections_are_closed_at_the_end(taskq: TaskQ, redis_server: RedisServer) -> None:
    def clients() -> set[str]:
        return {client["id"] for client in redis_server.client.client_list()}

    before = clients()  # those of earlier tests may go at any time
    app = DashApp(taskq)
    async with app.run_test():
        await until(lambda: app.shared.read_at is not None)
        assert not clients() <= before

    await until(lambda: clients() <= before)


async def test_results_that_arrive_during_the_exit_are_not_shown(opened: Open) -> None:
    """The parts of a screen go one by one, before the screen does."""
    async with opened() as person:
        look = person.look
        ending = asyncio.create_task(person.app._shutdown())
        while not ending.done():
            await asyncio.sleep(0)
            look.show_message("told too late")

        await look._load()
        assert not look.has_parts
