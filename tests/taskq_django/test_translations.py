"""Test that the texts of the admin are marked for translation, and that the translations are valid and compiled."""

import re
from collections import Counter
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.utils.translation import override

from scripts.translations import ADMIN, LANGUAGES, problems, untranslated
from taskq_core.inspector import Skip, TaskAction
from taskq_core.views import labels as telling
from taskq_django import taskq
from taskq_django.admin import formats
from taskq_django.admin.formats import in_active_language
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.admin_pages import enqueue

KEPT = {"worker", "outbox", "default", "other", "admin", "django", "taskq", "enqueue"}
"""Words that also appear in Chinese texts, in any case, and names of a queue, databases, the user and settings."""
PAGES = ("", "task/", "queue/", "queue/default/change/", "worker/", "workflow/", "periodictask/", "outboxtask/")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_translation_has_the_placeholders_of_its_text_and_is_compiled(language: str) -> None:
    assert problems(ADMIN, language) == []


def test_texts_of_the_core_use_djangos_active_language() -> None:
    skipped = Counter({(Skip.CHANGED, "active"): 1, (Skip.GONE, ""): 2_000})

    with override("zh-hans"), in_active_language():
        assert telling.done(TaskAction.RUN, 2) == "2 个任务已立即执行。"
        assert telling.skipped(skipped) == "已跳过：1 个现在是“运行中”；2,000 个已不存在。"
    with override("zh-hans"):
        assert telling.done(TaskAction.RUN, 2) == "2 tasks run now."


@rows(
    ("seconds", "english", "german", "chinese"),
    [
        (1.25, "1.2 s", "1,2 s", "1.2 秒"),
        (61, "1 min 1 s", "1 min 1 s", "1 分 1 秒"),
        (-90_000, "-1 d 1 h", "-1 d 1 h", "-1 天 1 小时"),
    ],
)
def test_durations_use_the_format_of_the_dashboard_and_the_decimal_mark_of_the_language(
    seconds: float, english: str, german: str, chinese: str
) -> None:
    durations = []
    for language in ("en", "de", "zh-hans"):
        with override(language):
            durations.append(formats.span(timedelta(seconds=seconds)))

    assert durations == [english, german, chinese]


def words(page: str) -> set[str]:
    """Return the English words that a page shows, except those in code, in arguments and in ids."""
    shown = re.sub(r"<(script|style|code|pre|option)\b.*?</\1>|<!--.*?-->", " ", page, flags=re.DOTALL)
    found = set(re.findall(r"[a-z]{4,}", unescape(re.sub(r"<[^>]+>", " ", shown)).lower())) - KEPT
    return {word for word in found if not re.fullmatch("[a-f]+", word)}


@pytest.mark.redis
@pytest.mark.django_db(databases=["default", "other"])
@rows("path", PAGES)
def test_a_page_in_chinese_shows_english_only_for_missing_translations(
    path: str, redis: RedisServer, settings: Any, admin_client: Client
) -> None:
    settings.LANGUAGE_CODE = "zh-hans"
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "immediate"}
    handle = enqueue("a:b")
    response = admin_client.get(f"/admin/taskq_django/{path}")

    assert response.status_code == 200
    names = set(re.findall("[a-z]{4,}", " ".join([handle.id, *taskq.tasks]).lower()))
    left_by_django = words(admin_client.get("/admin/auth/group/").content.decode())
    in_english = words(" ".join(untranslated(ADMIN, "zh_Hans")))
    assert words(response.content.decode()) - names - left_by_django - in_english == set()
