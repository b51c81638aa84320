"""Somebody in front of the terminal dashboard: presses keys, clicks, and reads what is there."""

import asyncio
import unicodedata
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from time import monotonic as _MONOTONIC  # noqa: N812 - what a test's clock does not move
from typing import Any

from textual import events
from textual.keys import REPLACED_KEYS, _character_to_key, _get_unicode_name_from_key
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input

from taskq_core import TaskQ
from taskq_terminal.app import DashApp
from taskq_terminal.records import Records
from taskq_terminal.screen import DashScreen
from taskq_terminal.state import DashConfig

PATIENCE_S = 60.0
_LOOK_S = 0.005
"""Pause between two looks at a dashboard that waits for Redis."""


class Person:
    """Uses the dashboard.

    Args:
        app: The dashboard.
        pilot: What presses its keys.
    """

    def __init__(self, app: DashApp, pilot: Pilot[Any]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def look(self) -> DashScreen[Any]:
        """The screen that is shown, under a dialog too."""
        look = self.app.front
        assert look is not None
        return look

    @property
    def text(self) -> str:
        """Return the text on the terminal, including dialogs, followed by the text of a dialog in one line."""
        shown = [*self.app._background_screens, self.app.screen]
        text = "\n".join(line for screen in shown for line in _lines(screen))
        box = self.app.screen.query(".box")
        if not box:
            return text
        region = box.first().region
        inside = [line[region.x + 1 : region.right - 1] for line in _lines(self.app.screen)]
        return f"{text}\n{' '.join(' '.join(inside[region.y + 1 : region.bottom - 1]).split())}"

    @property
    def lines(self) -> list[str]:
        """The lines on the terminal, without blanks at their ends."""
        return [line.rstrip() for line in _lines(self.app.screen)]

    @property
    def foot(self) -> str:
        """The last line, which shows keys."""
        return self.lines[-1]

    @property
    def cells(self) -> list[list[str]]:
        """The rows of the first table, as text."""
        table = self.look.query(Records).first()
        return [[str(cell) for cell in table.get_row_at(number)] for number in range(table.row_count)]

    async def press(self, *keys: str) -> None:
        """Press keys, each once the one before has done what it does."""
        for key in keys:
            driver = self.app._driver
            assert driver is not None
            event = _key(key)
            event.set_sender(self.app)
            driver.send_message(event)
            await self.settle()

    async def click(self, selector: str, offset: tuple[int, int] = (0, 0)) -> None:
        """Click into a part of the screen."""
        await self.settle()
        await self.pilot.click(selector, offset=offset)
        await self.settle()

    async def types(self, text: str) -> None:
        """Type a text into the field that is open, in place of what is there, and press Enter."""
        await self.until(lambda: isinstance(self.app.screen.focused, Input))
        field = self.app.screen.focused
        assert isinstance(field, Input)
        field.value = text
        await self.press("enter")

    async def sees(self, *parts: str, meanwhile: Callable[[], object] | None = None) -> None:
        """Wait until all of these are on the terminal."""
        await self.until(
            lambda: self._shows(*parts) == len(parts),
            lambda: f"{parts} in\n{self.text}",
            meanwhile=meanwhile,
        )

    async def misses(self, *parts: str, meanwhile: Callable[[], object] | None = None) -> None:
        """Wait until the terminal shows no part of `parts`."""
        await self.until(
            lambda: self._shows(*parts) == 0,
            lambda: f"no {parts} in\n{self.text}",
            meanwhile=meanwhile,
        )

    async def until(
        self,
        is_so: Callable[[], bool],
        what: Callable[[], str] | None = None,
        *,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:
        """Wait until a condition is true. Call `meanwhile` repeatedly during the wait, for example to skip time."""
        deadline = _MONOTONIC() + PATIENCE_S
        await self.settle()
        while not is_so():
            assert _MONOTONIC() < deadline, what() if what else self.text
            if meanwhile is not None:
                meanwhile()
            await asyncio.sleep(_LOOK_S)
            await self.settle()

    def _shows(self, *parts: str) -> int:
        """Return how many of these are on the terminal, which takes a while to read."""
        text = self.text
        return sum(part in text for part in parts)

    async def rests(self) -> None:
        """Wait until nothing is read from Redis: a screen that is shown may be read a second time behind the first."""
        await self.until(lambda: not any(worker.group == "reading" for worker in self.app.workers))

    async def settle(self, _delay: float | None = None) -> None:
        """Wait until the dashboard has nothing left to do but to wait for Redis."""
        loop: Any = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0)
            if loop._ready:
                continue
            if self.app._exit or not self.app.screen_stack:
                return
            if not self.app.animator._complete_event.is_set():
                await asyncio.sleep(_LOOK_S)  # it scrolls, in a sixtieth of a second
            elif not _must_draw(screen := self.app.screen):
                return
            else:
                screen._on_timer_update()  # now, instead of at the next sixtieth of a second


def _must_draw(screen: Screen[Any]) -> bool:
    return screen.is_current and bool(
        screen._layout_required
        or screen._scroll_required
        or screen._repaint_required
        or screen._recompose_required
        or screen._dirty_widgets
        or screen._callbacks
    )


def _key(name: str) -> events.Key:
    """Return a key as a terminal sends it."""
    if len(name) == 1 and not name.isalnum():
        name = _character_to_key(name)
    try:
        character: str | None = unicodedata.lookup(_get_unicode_name_from_key(REPLACED_KEYS.get(name, name)))
    except KeyError:
        character = name if len(name) == 1 else None
    return events.Key(name, character)


def _lines(screen: Screen[Any]) -> list[str]:
    return [strip.text for strip in screen._compositor.render_strips()]


@asynccontextmanager
async def open_terminal(taskq: TaskQ, size: tuple[int, int], **config: Any) -> AsyncIterator[Person]:
    """Open the dashboard and wait until it shows queues, unless Redis is away."""
    config.setdefault("refresh", timedelta(hours=1))
    app = DashApp(taskq, DashConfig(**config))
    app.animation_level = "none"
    async with app.run_test(size=size) as pilot:
        person = Person(app, pilot)
        pilot.pause = person.settle  # type: ignore[method-assign]  # what clicks need not wait for the processor to idle
        await person.until(lambda: app.front is not None and (app.front.found is not None or app.shared.trouble != ""))
        yield person
