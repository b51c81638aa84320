"""Test access to the dashboard: closed by default, roles, forgery protection, headers, audit log."""

import base64
import logging
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import RedirectResponse

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from taskq_dashboard import User, basic_login, taskq_dashboard
from taskq_dashboard.registry import ACTIONS, PAGES
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_dashboard.dashboards import TOKEN, act, dashboard_of, looking, message_of, token_of

pytestmark = pytest.mark.redis
CHANGES = [each for each in ACTIONS.values() if not each.for_viewers]


@pytest.fixture
def filled(taskq: TaskQ) -> TaskQ:
    taskq.remote("note").delay(word="w")
    return taskq


def is_paused(taskq: TaskQ) -> bool:
    return Inspector(taskq).queue_info("default").is_paused


# --- closed -----------------------------------------------------------------------------------------------------------


async def test_the_dashboard_is_closed_by_default(filled: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    async with looking(taskq_dashboard(filled)) as web:
        paths = [f"/{each.path}" for each in (*PAGES.values(), *ACTIONS.values())]
        for path in (*paths, "/nowhere", "/static/dashboard.css", "/../x", "//evil.example"):
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
                assert (await web.request(method, path)).status_code == 403, (method, path)

    assert "login=" in caplog.text
    assert "allow_anonymous=True" in caplog.text


async def test_the_dashboard_can_be_opened_for_everybody(filled: TaskQ) -> None:
    async with looking(taskq_dashboard(filled, allow_anonymous=True), user="") as web:
        assert (await act(web, "/queue-pause", queue="default")).status_code == 303

    assert is_paused(filled)


# --- the login --------------------------------------------------------------------------------------------------------


async def test_a_login_can_refuse_access(filled: TaskQ) -> None:
    async with looking(dashboard_of(filled), user="") as web:
        for path in ("/", "/nowhere", "/queue-pause"):
            assert (await web.get(path)).status_code == 403
            assert (await web.post(path)).status_code == 403


@rows("kind", ["plain", "coroutine", "object"])
async def test_a_login_can_redirect_to_the_login_of_the_app(filled: TaskQ, kind: str) -> None:
    def plain(request: Request) -> Any:
        return RedirectResponse("/login", 303)

    async def coroutine(request: Request) -> Any:
        return plain(request)

    class Hook:
        async def __call__(self, request: Request) -> Any:
            return plain(request)

    login: Any = {"plain": plain, "coroutine": coroutine, "object": Hook()}[kind]

    async with looking(taskq_dashboard(filled, login=login)) as web:
        answer = await web.get("/")

    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


async def test_a_login_with_an_invalid_return_value_refuses_access(filled: TaskQ) -> None:
    login: Any = lambda request: True  # noqa: E731

    async with looking(taskq_dashboard(filled, login=login)) as web:
        with pytest.raises(TypeError, match="must return a User"):
            await web.get("/")


@rows(
    ("authorization", "status"),
    [
        ("", 401),
        ("Basic b2xnYTpzZWNyZXQ=", 200),  # olga:secret
        ("basic b2xnYTpzZWNyZXQ=", 200),
        ("Basic b2xnYTp3cm9uZw==", 401),  # olga:wrong
        ("Basic b2xnYQ==", 401),
        ("Basic ///", 401),
        ("Basic /w==", 401),
        ("Bearer b2xnYTpzZWNyZXQ=", 401),
    ],
)
async def test_a_browser_prompts_for_name_and_password(filled: TaskQ, authorization: str, status: int) -> None:
    app = taskq_dashboard(filled, login=basic_login(lambda n, p: User(n) if (n, p) == ("olga", "secret") else None))

    async with looking(app, user="", authorization=authorization) as web:
        answer = await web.get("/")

    assert answer.status_code == status
    if status == 401:
        assert answer.headers["www-authenticate"] == 'Basic realm="taskq", charset="UTF-8"'


async def test_a_password_can_contain_any_characters(filled: TaskQ) -> None:
    given: list[tuple[str, str]] = []

    async def check(name: str, password: str) -> User:
        given.append((name, password))
        return User(name, "operator")  # type: ignore[arg-type]  # the name of a role is accepted too

    header = "Basic " + base64.b64encode("ölga:a:b c".encode()).decode()
    async with looking(taskq_dashboard(filled, login=basic_login(check)), user="", authorization=header) as web:
        assert (await web.get("/")).status_code == 200

    assert given == [("ölga", "a:b c")]


# --- roles ------------------------------------------------------------------------------------------------------------


@rows("action", CHANGES, ids=lambda each: each.path)
async def test_viewers_change_nothing(filled: TaskQ, action: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "taskq.audit")
    async with looking(dashboard_of(filled), user="vera:viewer") as web:
        answer = await act(web, f"/{action.path}", queue="default", id="1")
        assert answer.status_code == 403
        assert "only operators" in answer.text
        if action.ask is not None:
            assert (await web.get(f"/{action.path}?queue=default")).status_code == 403

    assert f"{action.path} by 'vera': refused" in caplog.text


@rows("action", CHANGES, ids=lambda each: each.path)
async def test_a_read_only_dashboard_refuses_changes(filled: TaskQ, action: Any) -> None:
    async with looking(dashboard_of(filled, read_only=True)) as web:
        answer = await act(web, f"/{action.path}", queue="default", id="1")

    assert answer.status_code == 403
    assert "read-only" in answer.text


@rows(("user", "options"), [("vera:viewer", {}), ("olga:operator", {"read_only": True})])
async def test_a_viewer_sees_no_actions(filled: TaskQ, user: str, options: Any) -> None:
    async with looking(dashboard_of(filled, **options), user=user) as web:
        page = await web.get("/")

    assert 'method="post"' not in page.text
    assert "queue-delete" not in page.text


# --- forgery ----------------------------------------------------------------------------------------------------------


async def test_a_form_of_another_browser_or_user_is_refused(filled: TaskQ) -> None:
    app = dashboard_of(filled)
    async with looking(app) as web, looking(app) as other, looking(app, user="otto:operator") as otto:
        mine = await token_of(web)
        await token_of(other)
        otto.cookies.set("taskq_secret", web.cookies["taskq_secret"])
        for who, token in ((other, mine), (otto, mine), (web, "x"), (web, ""), (web, "ü")):
            answer = await who.post("/queue-pause", data={TOKEN: token, "queue": "default"})
            assert answer.status_code == 403
        web.cookies.clear()
        assert (await web.post("/queue-pause", data={TOKEN: mine, "queue": "default"})).status_code == 403

    assert not is_paused(filled)


async def test_an_invalid_secret_cookie_is_replaced(filled: TaskQ) -> None:
    async with looking(dashboard_of(filled), cookie="taskq_secret=known") as web:
        answer = await web.get("/")

    assert "taskq_secret=" in answer.headers["set-cookie"]


@rows(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "http://test"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": "http://test.evil.example"}, 403),
        ({"origin": "http://test"}, 303),
        ({"sec-fetch-site": "same-origin", "origin": "https://public.example"}, 303),
        ({"origin": "https://ops.example"}, 303),
        ({}, 303),
    ],
)
async def test_a_page_of_another_site_changes_nothing(filled: TaskQ, headers: dict[str, str], status: int) -> None:
    async with looking(dashboard_of(filled, trusted_origins=["https://ops.example"])) as web:
        form = {TOKEN: await token_of(web), "queue": "default"}
        answer = await web.post("/queue-pause", data=form, headers=headers)

    assert answer.status_code == status
    assert is_paused(filled) is (status == 303)


@rows("back", ["https://evil.example", "//evil.example", "/\\evil", "javascript:alert(1)", "..//x", "\\x"])
async def test_redirects_never_leave_the_dashboard(filled: TaskQ, back: str) -> None:
    async with looking(dashboard_of(filled)) as web:
        answer = await act(web, "/queue-pause", queue="default", back=back)
        assert answer.headers["location"] == "./"
        question = await web.get("/queue-delete", params={"queue": "default", "back": back})
        assert back not in question.text


async def test_forms_over_the_maximum_size_are_not_read(filled: TaskQ) -> None:
    async with looking(dashboard_of(filled)) as web:
        token = await token_of(web)
        assert (await web.post("/queue-pause", json={TOKEN: token, "queue": "default"})).status_code == 415
        large = {TOKEN: token, "queue": "x" * 2**20}
        assert (await web.post("/queue-pause", data=large)).status_code == 413
        many: Any = {TOKEN: token, "queue": ["x"] * 20_001}
        assert (await web.post("/queue-pause", data=many)).status_code == 400
        odd = await web.post(
            "/queue-pause", content=b"queue=%ff", headers={"content-type": "application/x-www-form-urlencoded"}
        )
        assert odd.status_code == 400


async def test_reading_pages_writes_nothing_to_redis(filled: TaskQ, server: RedisServer) -> None:
    before = server.contents()
    async with looking(dashboard_of(filled)) as web:
        for each in (*PAGES.values(), *ACTIONS.values()):
            await web.get(f"/{each.path}?name=default&queue=default&{TOKEN}={await token_of(web)}")

    assert server.contents() == before


# --- response headers -------------------------------------------------------------------------------------------------


@rows("path", ["/", "/nowhere", "/queue?name=none", "/settings"])
async def test_headers_forbid_foreign_scripts_and_frames(filled: TaskQ, path: str) -> None:
    async with looking(dashboard_of(filled), origin="https://evil.example") as web:
        page = await web.get(path)

    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "same-origin"
    assert page.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in page.headers
    assert "<script>" not in page.text
    assert " style=" not in page.text
    assert " onclick" not in page.text


@rows(("scheme", "secure"), [("http", False), ("https", True)])
async def test_cookies_are_httponly_and_samesite(filled: TaskQ, scheme: str, secure: bool) -> None:
    async with looking(dashboard_of(filled), base=f"{scheme}://test") as web:
        cookie = (await web.get("/")).headers["set-cookie"].lower()

    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert ("secure" in cookie) is secure


# --- the log ----------------------------------------------------------------------------------------------------------


async def test_the_audit_log_has_every_action_with_its_user(filled: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "taskq.audit")
    async with looking(dashboard_of(filled)) as web:
        await act(web, "/queue-pause", queue="default")
        await act(web, "/queue-pause", queue="default")
        await act(web, "/queue-resume", queue="none")
        assert "no queue" in message_of(await web.get("/"))

    lines = [record.getMessage() for record in caplog.records if record.name == "taskq.audit"]
    assert lines == [
        "queue-pause by 'olga': done queue='default'",
        "queue-pause by 'olga': QueuePausedError queue='default'",
        "queue-resume by 'olga': QueueNotFoundError queue='none'",
    ]
