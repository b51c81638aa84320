"""Test that displayed texts are English unless the caller selects another language for a block and a context."""

import asyncio
from gettext import NullTranslations

from taskq_core.settings.language import gettext, marked, ngettext, nmarked, pgettext, pmarked, translated_with


class Shouting(NullTranslations):
    """A language that is English, shouted."""

    def gettext(self, message: str) -> str:
        return message.upper().replace("%(NAME)S", "%(name)s")

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return (msgid1 if n == 1 else msgid2).upper().replace("%(COUNT)S", "%(count)s")

    def pgettext(self, context: str, message: str) -> str:
        return f"{context}: {message.upper()}"


def test_texts_are_english_by_default() -> None:
    assert gettext("95 %") == "95 %"
    assert gettext("no queue %(name)s", name="a%b") == "no queue a%b"
    assert ngettext("%(count)s task", "%(count)s tasks", 1, count=1) == "1 task"
    assert ngettext(*nmarked("%(count)s task", "%(count)s tasks"), 1200, count="1,200") == "1,200 tasks"
    assert pgettext("task state", "retry") == "retry"
    assert (marked("later"), pmarked("task state", "retry")) == ("later", "retry")


def test_texts_use_a_language_inside_the_block() -> None:
    with translated_with(Shouting()):
        assert gettext("no queue %(name)s", name="a") == "NO QUEUE a"
        assert ngettext("%(count)s task", "%(count)s tasks", 2, count=2) == "2 TASKS"
        assert pgettext("task state", "retry") == "task state: RETRY"
        with translated_with(NullTranslations()):
            assert gettext("inside") == "inside"
        assert gettext("after") == "AFTER"
    assert gettext("no queue") == "no queue"


async def test_each_asyncio_task_has_its_own_language() -> None:
    others_turn, mine = asyncio.Event(), asyncio.Event()

    async def shouted() -> str:
        with translated_with(Shouting()):
            others_turn.set()
            await mine.wait()
            return gettext("text")

    async def plain() -> str:
        await others_turn.wait()
        found = gettext("text")
        mine.set()
        return found

    assert await asyncio.gather(shouted(), plain()) == ["TEXT", "text"]
