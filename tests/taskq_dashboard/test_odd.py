"""Test that any value in an address or a form of the dashboard gives a page with a message, never a server error."""

import ast
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import taskq_dashboard
from taskq_core import TaskQ
from taskq_dashboard.pages import queues
from taskq_dashboard.registry import ACTIONS, PAGES
from tests.redis_server import RedisServer
from tests.taskq_dashboard.dashboards import TOKEN, dashboard_of, looking, token_of
from tests.taskq_fastapi.api import populate

pytestmark = pytest.mark.redis
ODD = (
    *(
        "",
        " ",
        "0",
        "-1",
        "1.5",
        "1e9",
        "1000000000",
        "99999999999999999999",
        "٣",
        "NaN",
        "null",
        "true",
        "[]",
        "{}",
        "'",
        '"',
    ),
    *("\x00", "\r\nset-cookie: a=b", "../..", "%2e%2e", "}{", "a:b", "💥", "\u202e", "{{7*7}}", "<b>", "x" * 3000),
    *("2026-02-30", "9999-12-31T23:59:59Z", "default", "pending", "note"),
)
OWN = re.compile(r"(\./)?[a-z-]*(\?[!-~]*)?")
"""A link to another page of the dashboard, and to nothing else."""
READERS = ("get", "need", "number", "all")


def asked_for(*files: Path) -> Iterator[str]:
    """Return the names of the query and form fields that the source reads."""
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READERS):
                continue
            of = node.func.value
            name = of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""
            if name in ("query", "form") and node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)


FOLDER = Path(taskq_dashboard.__file__).parent


def names_of(function: Callable[..., Any]) -> list[str]:
    """Return the names of the fields that a page or action may read: in its own module and in shared modules."""
    module = FOLDER / "pages" / f"{function.__module__.rpartition('.')[2]}.py"
    return sorted({*asked_for(module, *FOLDER.glob("*.py"))} - {TOKEN})


USUAL = {"name": "default", "queue": "default", "id": "1"}


@pytest.fixture
def filled(taskq: TaskQ, server: RedisServer) -> TaskQ:
    populate(taskq, server)
    return taskq


def test_the_scan_finds_the_fields_that_pages_read() -> None:
    assert {"days", "sort", "queue", "back", "page"} <= set(names_of(queues.show))
    assert "name" not in names_of(queues.show)


def questions(name: str, function: Callable[..., Any], *, few: int | None) -> Iterator[tuple[str, str]]:
    """Return pairs of name and value for requests: every value for every name, or a few values for each name.

    The choice of values depends on the name, so that every value is used for some name.
    """
    for each in names_of(function):
        begin = zlib.crc32(f"{name} {each}".encode()) % len(ODD)
        yield from ((each, value) for value in [*ODD[begin:], *ODD[:begin]][:few])


HOW_MANY = pytest.mark.parametrize("few", [2, pytest.param(None, marks=pytest.mark.nightly, id="all")])


@HOW_MANY
async def test_pages_with_unusual_query_values_cause_no_server_error(filled: TaskQ, few: int | None) -> None:
    async with looking(dashboard_of(filled)) as web:
        for page in PAGES.values():
            for name, value in questions(page.path, page.show, few=few):
                answer = await web.get(f"/{page.path}", params={**USUAL, name: value})
                assert answer.status_code in (200, 400, 404), (page.path, name, value)
                assert answer.headers["content-type"].startswith("text/html"), (page.path, name, value)
                assert "a=b" not in answer.headers.get("set-cookie", ""), (page.path, name, value)


@HOW_MANY
async def test_actions_with_unusual_form_values_cause_no_server_error(filled: TaskQ, few: int | None) -> None:
    async with looking(dashboard_of(filled), sec_fetch_site="same-origin") as web:
        token = await token_of(web)
        for action in ACTIONS.values():
            for name, value in questions(action.path, action.perform, few=few):
                form = {**USUAL, name: value}
                question = await web.get(f"/{action.path}", params=form)
                assert question.status_code in (200, 400, 404, 405), (action.path, name, value)
                answer = await web.post(f"/{action.path}", data={**form, TOKEN: token})
                assert answer.status_code in (200, 303, 400, 404, 409), (action.path, name, value)
                assert OWN.fullmatch(answer.headers.get("location", "./")), (action.path, name, value)
