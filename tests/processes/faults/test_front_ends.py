"""Test faults of the user interfaces: the same cases run on the admin, FastAPI's front ends and the command."""

import ast
import io
import logging
import pickle
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User as DjangoUser
from django.test import Client

import taskq_core
import taskq_django
import taskq_fastapi
from taskq_core import LineFormatter, TaskQ
from taskq_core.wire import build_message, encode_message
from taskq_core.worker import Worker, WorkerConfig
from taskq_dashboard import Role
from taskq_django import taskq as django_taskq
from tests.processes.faults.front_ends import (
    FEW_LOOKS,
    admin_addresses,
    admin_looks,
    command,
    command_looks,
    web,
    web_app,
    web_looks,
)
from tests.redis_server import RedisServer
from tests.taskq_fastapi.api import populate
from tests.topologies.test_access import url_of

pytestmark = [pytest.mark.redis, pytest.mark.django_db(databases="__all__")]

PASSWORD = "canary-password"
CANARIES = {what: f"canary-{what}" for what in ("payload", "result", "traceback")}
"""Texts that viewers must not see and logs must not contain."""


@pytest.fixture(scope="module")
def secured() -> Iterator[RedisServer]:
    with RedisServer(tcp=True, password=PASSWORD) as server:
        yield server


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    with closing(TaskQ(redis_server.unix_url, enqueue_timeout=60)) as app:
        populate(app, redis_server)
    return redis_server


@pytest.fixture
def taskq(server: RedisServer) -> Iterator[TaskQ]:
    with closing(TaskQ(server.unix_url, enqueue_timeout=60)) as app:
        yield app


@pytest.fixture
def operator(server: RedisServer, settings: Any, client: Client) -> Iterator[Client]:
    """A superuser of the admin."""
    settings.TASKQ = {"URL": server.unix_url}
    client.force_login(DjangoUser.objects.create_superuser("root"))
    yield client
    django_taskq.close()


# --- 59: secrets ------------------------------------------------------------------------------------------------------


def fill_with_canaries(url: str) -> None:
    """Store completed, failed and waiting tasks that contain canary texts."""
    with closing(TaskQ(url, defaults={"retention": 600}, enqueue_timeout=60)) as app:

        @app.task(name="whisper", max_retry=0)
        def whisper(word: str, fails: bool = False) -> str:
            if fails:
                secret = CANARIES["traceback"]
                raise ValueError(f"it was {secret!r}") from KeyError(secret)
            return CANARIES["result"]

        word = CANARIES["payload"]
        whisper.using(task_id="1").delay(word=word, fails=True)
        whisper.using(task_id="2").delay(word=word)
        whisper.using(run_after=600).delay(word=word)
        assert Worker(app, WorkerConfig(burst=True, concurrency=2)).run() == 0


def test_secrets_are_shown_nowhere_by_default(
    secured: RedisServer, settings: Any, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """No front end and no log contains the password. Viewers, the JSON API and logs do not get payloads and results."""
    caplog.set_level(logging.DEBUG)
    secured.flushall()
    fill_with_canaries(secured.url)
    logged = [record.getMessage() + str(record.__dict__) for record in caplog.records]
    assert not any(CANARIES[what] in line for line in logged for what in ("payload", "result"))

    settings.TASKQ = {"URL": secured.url}
    client.force_login(DjangoUser.objects.create_superuser("root"))
    with closing(TaskQ(secured.url)) as app:
        shown_to_viewers = web_looks(web_app(app, Role.VIEWER))
        shown_to_operators = web_looks(web_app(app, Role.OPERATOR, show_payloads=True))
        shown_in_admin, output = admin_looks(client), command_looks(secured.url) + command_looks(secured.url, "--json")
    django_taskq.close()

    assert CANARIES["payload"] in shown_to_operators, "there was nothing to find"
    assert CANARIES["payload"] in shown_in_admin
    assert CANARIES["payload"] in output
    for what in ("payload", "result"):
        assert CANARIES[what] not in shown_to_viewers
    for text in (shown_to_viewers, shown_to_operators, shown_in_admin, output, *logged):
        assert PASSWORD not in text


def test_a_password_is_not_shown_when_redis_is_unavailable_or_refuses_it(
    secured: RedisServer, settings: Any, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client.force_login(DjangoUser.objects.create_superuser("root"))
    wrong = f"redis://:wrong-{PASSWORD}@127.0.0.1:{secured.port}/0"
    for url in (wrong, f"redis://user:{PASSWORD}@127.0.0.1:1/0", f"rediss://:{PASSWORD}@127.0.0.1:{secured.port}/0"):
        settings.TASKQ = {"URL": url, "ENQUEUE_TIMEOUT": 0.1}
        with closing(TaskQ(url, enqueue_timeout=0.1)) as app:
            shown = [web_looks(web_app(app), FEW_LOOKS), repr(app), repr(app.settings)]
        shown += [
            admin_looks(client, ["/admin/taskq_django/task/", "/admin/taskq_django/queue/"]),
            command_looks(url, commands=[("stats",), ("doctor",), ("doctor", "--json"), ("worker", "nowhere:app")]),
        ]
        django_taskq.close()

        assert not any(PASSWORD in each for each in shown), url
    assert PASSWORD not in caplog.text


# --- 60: injection into logs and terminals ----------------------------------------------------------------------------

FORGED = "FORGED"
HOSTILE = f'evil\n{FORGED} line\r{FORGED}\x1b[31m\x9b2J\x85{FORGED}\u2028{FORGED}\u202e"}}'
"""A task name that a producer without taskq may choose, because Redis accepts any text."""


def enqueue_raw(server: RedisServer, name: str, task_id: str, *, state: str = "pending", **fields: Any) -> None:
    """Store a task as a producer without any checks does."""
    message = encode_message(build_message(type=name, id=task_id, queue="default", payload=b"{}", **fields))
    client = server.client
    client.sadd("asynq:queues", "default")
    client.hset(f"asynq:{{default}}:t:{task_id}", mapping={"state": state, "msg": message})
    if state == "pending":
        client.lpush("asynq:{default}:pending", task_id)
    else:
        client.zadd(f"asynq:{{default}}:{state}", {task_id: 1_700_000_000})


@pytest.mark.parametrize("more", [(), ("--json",), ("--color", "always")], ids=["plain", "json", "colours"])
def test_no_name_controls_a_terminal_or_starts_a_line(server: RedisServer, more: tuple[str, ...]) -> None:
    enqueue_raw(server, HOSTILE, HOSTILE, state="archived", error_msg=HOSTILE, group_key=HOSTILE)
    server.client.sadd("asynq:queues", f"q{HOSTILE}")

    output = command_looks(server.unix_url, *more)
    output += command("task", "inspect", "-q", "default", "-i", HOSTILE, *more, url=server.unix_url)
    output += command("task", "inspect", "-q", "default", "-i", f"no{HOSTILE}", *more, url=server.unix_url)
    output += command("queue", "inspect", "-q", f"no{HOSTILE}", *more, url=server.unix_url)

    assert output.count("evil") >= 3, "there was nothing to find"
    for line in output.split("\n"):
        assert not line.lstrip().startswith(FORGED), line
        for part in ("\r", "\x9b", "\x85", "\u2028", "\u202e", "\x1b[31m\x9b", "\x1b[31m\\x9b"):
            assert part not in line, line
        if more != ("--color", "always"):
            assert "\x1b" not in line


async def test_no_name_and_no_error_forges_a_log_record(server: RedisServer, taskq: TaskQ) -> None:
    """The texts are in the name of a task, in its error, and in the name of an operator."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s %(message)s"))

    @taskq.task(name="fails", max_retry=0)
    def fails() -> None:
        raise ValueError(HOSTILE)

    loggers = [logging.getLogger(name) for name in ("taskq", "taskq.audit")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.DEBUG)
    loggers[0].addHandler(handler)
    try:
        enqueue_raw(server, HOSTILE, f"id{HOSTILE}")
        await fails.adelay()
        assert await Worker(taskq, WorkerConfig(burst=True)).arun() == 0
    finally:
        loggers[0].removeHandler(handler)
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        await taskq.aclose()

    output = stream.getvalue()
    assert FORGED in output, "there was nothing to find"
    for line in output.splitlines():
        assert line.isprintable(), ascii(line)
        assert not line.startswith(FORGED), line
        assert line.startswith(("DEBUG ", "INFO ", "WARNING ", "ERROR ", "CRITICAL ", "  ")), line


def test_the_audit_log_of_the_front_ends_has_one_line_for_each_action(
    taskq: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "taskq.audit")
    app = web_app(taskq)
    web(app, ("DELETE", "/api/queues/x%0AFORGED", None))
    web(app, ("POST", "/api/tasks/default/x%0AFORGED%1B[31m", {"action": "run"}))
    web(app, ("POST", "/api/limits", {"queue": f"a{HOSTILE}", "name": HOSTILE, "rate": "5/s"}))

    lines = [record.getMessage() for record in caplog.records if record.name == "taskq.audit"]
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


# --- 63: looking changes nothing --------------------------------------------------------------------------------------


def test_reading_changes_nothing(server: RedisServer, taskq: TaskQ, operator: Client) -> None:
    before = server.contents()

    web_looks(web_app(taskq))
    admin_looks(operator)
    command_looks(server.unix_url)

    assert server.contents() == before


# --- 64: anonymous visitors -------------------------------------------------------------------------------------------


def test_an_anonymous_visitor_sees_nothing(server: RedisServer, taskq: TaskQ, settings: Any, client: Client) -> None:
    """This is so for every page and method. The command is only for users with Redis's password."""
    settings.TASKQ = {"URL": server.unix_url}
    before = server.contents()
    for address in admin_addresses():
        for method in (client.get, client.post, client.head, client.delete, client.put):
            answer = method(address)
            assert answer.status_code == 302, address
            assert answer["location"].startswith("/admin/login/?next=/admin/"), address
    client.force_login(DjangoUser.objects.create_user("eve", is_staff=True))
    for address in admin_addresses():
        for answer in (client.get(address), client.post(address, {"action": "run", "post": "yes"})):
            # Django looks for the row before it checks permissions, and redirects to the list if the row is missing.
            is_gone = answer.status_code == 302 and address.endswith("/history/")
            assert answer.status_code == 403 or is_gone, (address, answer)
    django_taskq.close()

    assert server.contents() == before


# --- 65: addresses ----------------------------------------------------------------------------------------------------


def test_the_admin_redirects_to_no_other_site(operator: Client) -> None:
    """The addresses of other sites are in parameters that Django or taskq may redirect to, and in paths."""
    for where in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"):
        for address in admin_addresses():
            answer = operator.get(address, dict.fromkeys(("next", "back", "_changelist_filters", "_popup"), where))
            assert not answer.get("location", "/").startswith(("//", "http", "/\\", "javascript")), answer["location"]
        answer = operator.get(f"/admin/taskq_django/task/{where}/change/")
        assert answer.get("location", "/").startswith("/admin/"), where


# --- 66: hostile pickle and yaml --------------------------------------------------------------------------------------


class Bomb:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "yaml", "jsonpickle"])
def test_nothing_in_redis_is_loaded_as_code(
    server: RedisServer, taskq: TaskQ, operator: Client, tmp_path: Path, kind: str
) -> None:
    """A worker refuses it, and every front end shows it unchanged."""
    struck = tmp_path / "struck"
    payload = {
        "pickle": pickle.dumps(Bomb(struck)),
        "yaml": f"!!python/object/apply:pathlib.Path.touch [!!python/object:pathlib.Path {struck}]".encode(),
        "jsonpickle": f'{{"py/reduce":[{{"py/function":"pathlib.Path.touch"}},{{"py/tuple":["{struck}"]}}]}}'.encode(),
    }[kind]
    ran: list[Any] = []

    @taskq.task(name="open", max_retry=0)
    def open_(value: Any = None) -> None:
        ran.append(value)

    message = encode_message(build_message(type="open", id="bomb", queue="default", payload=payload, retention=3600))
    server.client.hset("asynq:{default}:t:bomb", mapping={"state": "pending", "msg": message, "result": payload})
    server.client.lpush("asynq:{default}:pending", "bomb")
    for _ in range(2):
        (shown,) = web(web_app(taskq, show_payloads=True), ("GET", "/api/tasks/default/bomb", None))
        assert shown.status_code == 200
        (page,) = web(web_app(taskq), ("GET", "/ops/task?queue=default&id=bomb", None))
        assert page.status_code == 200
        assert operator.get("/admin/taskq_django/task/").status_code == 200
        assert operator.get("/admin/taskq_django/task/default_2Fbomb/change/", follow=True).status_code == 200
        assert "bomb" in command("task", "inspect", "-q", "default", "-i", "bomb", url=server.unix_url)
        assert Worker(taskq, WorkerConfig(burst=True, concurrency=1)).run() == 0

    assert not struck.exists()
    assert ran in ([], [None])
    assert pickle.loads(pickle.dumps(Bomb(tmp_path / "proof"))) is None
    assert (tmp_path / "proof").exists(), "unpickling it directly must create the file"


FORBIDDEN = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "yaml", "xml"}
"""Modules that can load code from data."""


def test_no_module_of_taskq_can_load_code_from_data() -> None:
    files = [
        file
        for package in (taskq_core, taskq_django, taskq_fastapi)
        for file in Path(str(package.__file__)).parent.rglob("*.py")
    ]
    assert len(files) > 200
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & FORBIDDEN, f"{file}: {names}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), f"{file}:{node.lineno}"


# --- 67: injection into keys ------------------------------------------------------------------------------------------

NAMES = ["*", "asynq:*", "{default}", "}x", "a}b{default", "default:pending", "x\r\nFLUSHALL\r\n", "q" * 10_000, "\x00"]


def test_no_name_of_a_queue_or_task_reaches_other_keys(
    server: RedisServer, taskq: TaskQ, operator: Client, subtests: pytest.Subtests
) -> None:
    """The name is refused or unknown, and existing data does not change."""
    for name in NAMES:
        with subtests.test(ascii(name)[:20]):
            check_name(name, server, taskq, operator)


def check_name(name: str, server: RedisServer, taskq: TaskQ, operator: Client) -> None:
    before = server.contents()
    app = web_app(taskq)
    quoted = "".join(f"%{octet:02X}" for octet in name.encode())
    for answer in web(
        app,
        ("PATCH", f"/api/queues/{quoted}", {"paused": True}),
        ("DELETE", f"/api/queues/{quoted}?force=true", None),
        ("POST", f"/api/tasks/{quoted}/1", {"action": "delete"}),
        ("POST", f"/api/tasks/default/{quoted}", {"action": "delete"}),
        ("POST", "/api/tasks/actions", {"action": "delete", "filter": {"state": "pending", "queue": name}}),
        ("POST", "/api/tasks/default/1", {"action": "move", "to_queue": name if name in ("}x", "\x00") else ""}),
        ("GET", f"/ops/queue?name={quoted}", None),
        ("GET", f"/ops/queue-delete?queue={quoted}", None),
        ("GET", f"/ops/task?queue={quoted}&id={quoted}", None),
    ):
        assert answer.status_code in (400, 403, 404, 409, 422), (answer.request.url, answer.status_code, answer.text)
    for address in (f"queue/{quoted}/act/pause/", f"task/{quoted}/act/delete_selected/", f"queue/{quoted}/change/"):
        for answer in (operator.get(f"/admin/taskq_django/{address}"), operator.post(f"/admin/taskq_django/{address}")):
            assert answer.status_code in (302, 400, 403, 404), (address, answer.status_code)
    if "\x00" not in name:  # an argument of a program cannot contain NUL
        for words in (
            ("queue", "pause", name),
            ("queue", "remove", "-y", "--force", name),
            ("task", "delete", "-q", name, "-i", "1", "-y"),
            ("task", "delete", "-q", "default", "-i", name, "-y"),
        ):
            assert "--help)" not in command(*words, url=server.unix_url), "the test uses a command that does not exist"

    assert server.contents() == before


# --- 68: tenants ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tenant(secured: RedisServer) -> Iterator[tuple[str, str, str]]:
    """The URL of a user with access to one queue, a task in this queue, and a task in another queue."""
    url = url_of(secured, "operator", queues=["mail"])
    with closing(TaskQ(secured.url, enqueue_timeout=60)) as app:
        # A task with a chosen id has a generation, so looking at it changes nothing.
        remotes = {queue: app.remote("t", queue=queue, task_id=f"{queue}-{uuid4()}") for queue in ("mail", "bank")}
        own, other = (remote.delay(word=f"canary-{queue}").id for queue, remote in remotes.items())
    before = secured.contents()
    yield url, own, other
    assert secured.contents() == before


def test_a_tenant_cannot_access_another_queue_in_the_admin(
    tenant: tuple[str, str, str], settings: Any, client: Client
) -> None:
    url, own, other = tenant
    settings.TASKQ = {"URL": url}
    client.force_login(DjangoUser.objects.create_superuser("root"))
    address = "/admin/taskq_django"
    output = ""
    for path in (f"task/bank_2F{other}/change/", "task/?queue=bank", "task/?q=canary", "queue/bank/change/"):
        output += client.get(f"{address}/{path}", follow=True).content.decode()
    for path, form in (
        (f"task/bank_2F{other}/act/delete_selected/", {"post": "yes"}),
        ("queue/bank/act/pause/", {"post": "yes", "action": "pause"}),
        ("queue/bank/act/delete_selected/", {"post": "yes", "force": "on"}),
    ):
        output += client.post(f"{address}/{path}", form, follow=True).content.decode()

    assert "canary-mail" in client.get(f"{address}/task/mail_2F{own}/change/").content.decode()
    assert "canary-bank" not in output
    assert "No permissions" in output
    django_taskq.close()


def test_a_tenant_cannot_access_another_queue_in_the_dashboard_and_the_api(tenant: tuple[str, str, str]) -> None:
    url, own, other = tenant
    with closing(TaskQ(url)) as app:
        task_list, task_page, *refused = web(
            web_app(app, show_payloads=True),
            ("GET", f"/ops/task?queue=mail&id={own}", None),
            ("GET", f"/api/tasks/mail/{own}", None),
            ("GET", f"/ops/task?queue=bank&id={other}", None),
            ("GET", "/ops/queue?name=bank", None),
            ("GET", "/ops/tasks?queue=bank&state=pending", None),
            ("GET", f"/api/tasks/bank/{other}", None),
            ("GET", "/api/tasks?queue=bank&state=pending", None),
            ("PATCH", "/api/queues/bank", {"paused": True}),
            ("DELETE", "/api/queues/bank?force=true", None),
            ("POST", f"/api/tasks/bank/{other}", {"action": "delete"}),
            ("POST", "/api/tasks/actions", {"action": "delete", "filter": {"state": "pending", "queue": "bank"}}),
        )

    assert "canary-mail" in task_list.text
    assert "canary-mail" in task_page.text
    for answer in refused:
        assert answer.status_code == 503, answer.request.url
        assert "canary-bank" not in answer.text
        if answer.request.url.path.startswith("/api"):
            assert answer.json()["code"] == "broker-authentication"


def test_a_tenant_cannot_access_another_queue_with_the_command(tenant: tuple[str, str, str]) -> None:
    url, own, other = tenant
    assert "canary-mail" in command("task", "inspect", "-q", "mail", "-i", own, url=url)
    for words in (
        ("task", "inspect", "-q", "bank", "-i", other),
        ("task", "list", "-q", "bank"),
        ("task", "delete", "-q", "bank", "-i", other, "-y"),
        ("queue", "inspect", "bank"),
        ("queue", "pause", "bank"),
        ("queue", "remove", "bank", "-y", "--force"),
    ):
        output = command(*words, url=url)
        assert "No permissions" in output, words
        assert "canary-bank" not in output
