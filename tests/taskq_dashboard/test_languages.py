"""Test the web dashboard in Chinese: valid catalog, no unmarked text, and the choice of the language."""

import ast
import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

from scripts.translations import ADMIN, DASHBOARD, LANGUAGES, Domain, problems, untranslated
from taskq_core import TaskQ
from taskq_core.errors import TaskQError
from taskq_core.inspector import AsyncInspector
from taskq_core.settings.language import translated_with
from taskq_dashboard import labels as wording
from taskq_dashboard.languages import accepted, catalogue
from taskq_dashboard.refusals import _TEXTS, error_text
from tests.browser.dashboard.addresses import ODD, addresses, questions
from tests.browser.scene import Scene, registered_tasks
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_dashboard.dashboards import act, dashboard_of, looking, message_of
from tests.taskq_fastapi.streams import stream

FOLDER = DASHBOARD.folder
CHINESE = "zh-CN,zh;q=0.9,en;q=0.8"
SHOWN_ATTRIBUTES = "aria-label|title|placeholder|alt|data-pause|data-resume|data-gone|data-away"
NAMES = {"worker", "redis", "prometheus", "trace", "json", "english", "taskq"}
"""Words that also appear in Chinese texts."""
STEPS = "alarm charge deliver fulfil hooks order orders pack pick pictures receipt reserve resize"
DATA = {
    "enqueue": "receipt",
    "failed": "answer example full grace hooks https mailbox orders readtimeout smtprecipientsrefused within",
    "queue?name=none": "none",
    "queue?name=mail&state=none": "active aggregating archived completed none pending retry scheduled state",
    "schedule": "nightly",
    "schedule-add": "berlin europe every",
    "schedule-remove": "nightly",
    "schedule-run": "nightly sales",
    "task": "receipt smtplib smtprecipientsrefused",
    "tasks": "reserve",
    "task-edit": "receipt",
    "task-signal": "approved receipt review true",
    "workflow": STEPS,
    "workflow-cancel": "order",
    "workflow-retry": "order",
    "workflow-step": "charge pictures",
}
"""Words of the scene, or of the address, that a page shows, or an address that is not usable."""


# --- which language ---------------------------------------------------------------------------------------------------


@rows(
    ("header", "language"),
    [
        ("", "en"),
        ("zh", "zh-Hans"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans"),
        ("ZH-hans-sg", "zh-Hans"),
        ("de, zh-CN;q=0.5", "zh-Hans"),
        ("en-GB,zh;q=0.9", "en"),
        ("zh-TW,zh-Hant;q=0.9", "en"),
        ("zh-TW,zh;q=0.9", "zh-Hans"),
        ("zh-Hans-HK", "zh-Hans"),
        ("*", "en"),
        ("fr, *;q=0.1", "en"),
        ("en; q=0, zh", "zh-Hans"),
        (";;;,=,q=1;", "en"),
        ("de," * 10_000 + "zh", "en"),
    ],
)
def test_the_language_is_the_first_supported_one_of_the_browser(header: str, language: str) -> None:
    assert accepted(header) == language


@pytest.mark.redis
async def test_the_language_depends_on_the_request_and_vary_names_the_header(taskq: TaskQ) -> None:
    async with looking(dashboard_of(taskq), accept_language=CHINESE) as web:
        page = await web.get("/")
    async with looking(dashboard_of(taskq)) as web:
        english = await web.get("/")

    assert (page.headers["content-language"], english.headers["content-language"]) == ("zh-Hans", "en")
    assert "Accept-Language" in page.headers["vary"]
    assert '<html lang="zh-Hans"' in page.text
    assert '<html lang="en"' in english.text
    assert "<h1>队列</h1>" in page.text
    assert "<h1>Queues</h1>" in english.text


@pytest.mark.redis
async def test_a_chosen_language_overrides_that_of_the_browser(taskq: TaskQ) -> None:
    async with looking(dashboard_of(taskq), accept_language=CHINESE) as web:
        answer = await act(web, "/settings-save", theme="dark", interval="5", rows="20", language="en")
        english = await web.get("/settings")
        back = await act(web, "/settings-save", theme="dark", interval="5", rows="20", language="")
        asked_for = await web.get("/settings")
        odd = await act(web, "/settings-save", language="tlh")

    assert answer.status_code == 303
    assert "<h1>Settings</h1>" in english.text
    assert message_of(await follow(answer, dashboard_of(taskq))) == "Saved in this browser."
    assert message_of(await follow(back, dashboard_of(taskq))) == "已保存在此浏览器中。"
    assert '<option value="en" lang="en" selected>' in english.text
    assert "<h1>设置</h1>" in asked_for.text
    assert (
        message_of(await follow(odd, dashboard_of(taskq))) == "language 必须是 en, zh-Hans 之一，得到的是 &#39;tlh&#39;"
    )


async def follow(answer: Any, app: Any) -> Any:
    """Load the page after a form with the cookies of its response."""
    cookie = "; ".join(f"{name}={value}" for name, value in answer.cookies.items())
    async with looking(app, accept_language=CHINESE, cookie=cookie) as web:
        return await web.get("/settings")


# --- nothing is left in English ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_translation_has_the_placeholders_of_its_text_and_is_compiled(language: str) -> None:
    assert problems(DASHBOARD, language) == []


def test_admin_and_dashboard_have_the_same_chinese_translations() -> None:
    admin, dashboard = _catalog(ADMIN), _catalog(DASHBOARD)
    differing = {
        message.id: (message.string, other.string)
        for message in dashboard
        if message.id and (other := admin.get(message.id, message.context)) and message.string != other.string
    }
    assert differing == {}


def _catalog(domain: Domain) -> Catalog:
    with domain.catalog_path("zh_Hans").open("rb") as file:
        return read_po(file, locale="zh_Hans")


def test_no_text_of_a_page_is_unmarked_in_python() -> None:
    """Titles, questions, answers and refusals are translated, unless they come from the user."""
    telling = {
        "BadRequestError",
        "NotFoundError",
        "HTTPException",
        "Done",
        "Question",
        "Blob",
        "PlainTextResponse",
        "page",
    }
    found = []
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in telling:
                named = [each.value for each in node.keywords if each.arg in ("text", "title", "button", "detail")]
                found += [f"{path.name}: {text}" for each in (*node.args, *named) if (text := _literal(each))]
    assert found == []


def _literal(node: ast.expr) -> str:
    """Return the literal words of a text in the source."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    text = "".join(str(each.value) for each in parts if isinstance(each, ast.Constant))
    return text if re.search(r"[a-z]{2} [a-z]", text) else ""


@pytest.fixture
def shop(session_redis_server: RedisServer) -> Iterator[tuple[TaskQ, Scene]]:
    """Return the queue application and the scene of a busy shop."""
    session_redis_server.client.flushall()
    taskq = TaskQ(session_redis_server.unix_url, queues={"default": 3, "low": 1}, enqueue_timeout=30)
    with registered_tasks(taskq):
        scene = Scene(session_redis_server, taskq)
        scene.build()
        yield taskq, scene
    taskq.close()


def words(page: str) -> set[str]:
    """Return the English words that a page shows, except those in code or from Redis."""
    attributes = re.findall(rf'(?:{SHOWN_ATTRIBUTES})="([^"]*)"', page)
    left_out = r"<(script|code|pre|textarea|option|bdi)\b.*?</\1>|<span class=\"(error-line|unseen|quiet)\">.*?</span>"
    shown = unescape(re.sub(r"<[^>]+>", " ", re.sub(left_out, " ", page, flags=re.DOTALL)))
    return {word for text in (shown, *attributes) for word in re.findall(r"[a-z]{4,}", text.lower())} - NAMES


@pytest.mark.redis
async def test_a_page_in_chinese_shows_english_only_for_missing_translations(shop: tuple[TaskQ, Scene]) -> None:
    taskq, scene = shop
    there = {"default", "images", "mail", "reports"}  # names of queues and the like, which appear in button labels
    there |= words(" ".join(untranslated(DASHBOARD, "zh_Hans")))
    found: dict[str, set[str]] = {}
    async with looking(dashboard_of(taskq), accept_language=CHINESE) as web:
        paths = [each for page in addresses(scene).values() for each in page]
        for path in (*paths, *questions(scene), *ODD, "a/b", "task-payload"):
            answer = await web.get(f"/{path.removeprefix('./')}")
            assert 'lang="zh-Hans"' in answer.text
            text = answer.text.replace("appendonly yes", "").replace("appendfsync everysec", "")
            data = {*DATA.get(path, "").split(), *DATA.get(path.partition("?")[0], "").split()}
            found[path] = {word for word in words(text) - there - data if not re.fullmatch(r"[0-9a-f]+", word)}

    assert {path: left for path, left in found.items() if left} == {}


@pytest.mark.redis
async def test_refusals_are_translated(taskq: TaskQ) -> None:
    async def ask(app: Any, user: str = "olga:operator") -> Any:
        async with looking(app, user=user, accept_language=CHINESE) as web:
            return await web.get("/")

    refused = await ask(dashboard_of(taskq), user="")
    limited = dashboard_of(taskq, failed_logins="1/m")
    await ask(limited, user="")
    too_many = await ask(limited)

    assert refused.status_code == 403
    assert "你无权查看此页面" in refused.text
    assert refused.headers["content-language"] == "zh-Hans"
    assert too_many.status_code == 429
    assert too_many.text.startswith("登录失败次数过多：请在 ")


# --- messages ---------------------------------------------------------------------------------------------------------


def test_numbers_and_durations_are_translated() -> None:
    with translated_with(catalogue("zh-Hans")):
        assert wording.span(timedelta(seconds=90_000)) == "1 天 1 小时"
        assert wording.span(timedelta(seconds=-5)) == "-5.0 秒"
        assert wording.duration(timedelta(milliseconds=12)) == "12 毫秒"
    assert wording.span(timedelta(seconds=61)) == "1 min 1 s"


@rows("kind", _TEXTS, ids=lambda kind: kind.__name__)
def test_errors_of_the_core_are_translated_with_their_values(kind: type[TaskQError]) -> None:
    values: dict[str, tuple[Any, ...]] = {
        "QueueNotEmptyError": ("q", 1, 2),
        "TaskStateError": ("q", "t1", "active", "no"),
        "EntryNotFoundError": ("nightly", "there are others"),
        "WorkflowNotFoundError": ("q", "w1", "none"),
        "TaskNotFoundError": ("q", "t1"),
        "DuplicateTaskError": ("mail", "q", "t1", "", "t2"),
        "TaskIdConflictError": ("mail", "q", "t1"),
        "QueueFullError": ("mail", "q", "t1", 5, 7),
    }
    error = kind(*values.get(kind.__name__, ("q",)))

    assert error_text(error) == str(error)
    with translated_with(catalogue("zh-Hans")):
        text = error_text(error)
    assert re.search("[\u4e00-\u9fff]", text) or _TEXTS[kind] in untranslated(DASHBOARD, "zh_Hans")
    assert "%" not in text


@pytest.mark.redis
async def test_messages_are_translated_and_the_audit_log_is_english(
    taskq: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    await taskq.remote("note").adelay(word="w")
    caplog.set_level("INFO", "taskq.audit")
    async with looking(dashboard_of(taskq), accept_language=CHINESE) as web:
        await act(web, "/queue-pause", queue="default")
        first = message_of(await web.get("/"))
        await act(web, "/queue-pause", queue="default")
        again = message_of(await web.get("/"))
        question = await web.get("/tasks-act-all?do=delete&state=pending&queue=default")

    assert first == "队列“default”已暂停：worker 不再从中取任务。"
    assert again == "队列“default”已处于暂停状态"
    assert "删除队列“default”中全部 1 个待处理任务？" in question.text
    assert not re.search("[\u4e00-\u9fff]", caplog.text)


@pytest.mark.redis
async def test_a_stream_uses_the_language_of_its_page(taskq: TaskQ, clock: Clock) -> None:
    """Problems are translated too, even if another user reads the same page in English."""
    await taskq.remote("note").adelay(word="w")
    app = dashboard_of(taskq)
    asked: dict[str, Any] = {"accept": "text/event-stream", "x_user": "olga:operator"}
    asked |= {"cookie": "taskq_settings=interval=2", "clock": clock}
    async with (
        stream(app, "/queue?name=default", **asked) as plain,
        stream(app, "/queue?name=default", **asked, accept_language=CHINESE) as page,
    ):
        first, english = await page.next(), await plain.next()
        await AsyncInspector(taskq).remove_queue("default", force=True)
        last = await page.next()
        while last.kind == "page":
            last = await page.next()

    assert "已处理的任务" in first.data
    assert "Tasks processed" in english.data
    assert (last.kind, last.data) == ("gone", "没有队列“default”")
