"""Read the admin's pages as a browser does: the rows of lists, the fields of forms, and the messages of actions."""

import re
from collections.abc import Callable, Mapping
from html import unescape
from typing import Any

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from taskq_core import TaskHandle
from taskq_core.wire import ServerInfo, WorkerInfo, decode_message
from taskq_django import taskq
from taskq_django.admin.formats import key_of
from tests.redis_server import RedisServer

TASKS = "/admin/taskq_django/task/"
QUEUES = "/admin/taskq_django/queue/"
WORKERS = "/admin/taskq_django/worker/"
WORKFLOWS = "/admin/taskq_django/workflow/"
PERIODIC = "/admin/taskq_django/periodictask/"
OUTBOX = "/admin/taskq_django/outboxtask/"
LATER_S = 4_000_000_000


def user(name: str, *codenames: str) -> User:
    """Create a staff user with these permissions."""
    made = User.objects.create_user(name, is_staff=True)
    found = Permission.objects.filter(content_type__app_label="taskq_django", codename__in=codenames)
    assert len(found) == len(codenames)
    made.user_permissions.set(found)
    return made


def sign_in(client: Client, *codenames: str) -> Client:
    """Sign a new staff user with these permissions in, and return the browser."""
    client.force_login(user("ada", *codenames))
    return client


def html_of(client: Client, address: str, **query: Any) -> str:
    """Return the text of a page."""
    response = client.get(address, query)
    assert response.status_code == 200
    return response.content.decode()


def enqueue(name: str = "email:deliver", *, queue: str = "default", **arguments: object) -> TaskHandle[Any]:
    return taskq.remote(name, queue=queue).delay(**arguments)


def key(handle: TaskHandle[Any]) -> str:
    return key_of(handle.queue, handle.id)


def page_of(handle: TaskHandle[Any], page: str = "change", *more: str) -> str:
    return reverse(f"admin:taskq_django_task_{page}", args=[quote(key(handle)), *more])


def put(redis: RedisServer, handle: TaskHandle[Any], state: str, *, score: int = 1_700_000_000, **fields: Any) -> None:
    """Move a pending task to another state and write the fields that a worker writes."""
    prefix = f"asynq:{{{handle.queue}}}:"
    stored: Any = redis.client.hget(f"{prefix}t:{handle.id}", "msg")
    message = decode_message(stored)
    message.headers.update(fields.pop("headers", {}))
    for name, value in fields.items():
        setattr(message, name, value)
    redis.client.hset(f"{prefix}t:{handle.id}", mapping={"state": state, "msg": message.SerializeToString()})
    redis.client.lrem(f"{prefix}pending", 0, handle.id)
    if state in ("pending", "active"):
        redis.client.lpush(f"{prefix}{state}", handle.id)
    if state != "pending":
        redis.client.zadd(f"{prefix}{'lease' if state == 'active' else state}", {handle.id: score})


def state_of(redis: RedisServer, handle: TaskHandle[Any], queue: str | None = None) -> str | None:
    word: Any = redis.client.hget(f"asynq:{{{queue or handle.queue}}}:t:{handle.id}", "state")
    return None if word is None else word.decode()


def payload_of(redis: RedisServer, handle: TaskHandle[Any]) -> bytes:
    stored: Any = redis.client.hget(f"asynq:{{{handle.queue}}}:t:{handle.id}", "msg")
    return decode_message(stored).payload


def appear(
    redis: RedisServer, host: str = "box", *, pid: int = 7, running: Mapping[str, Any] | None = None, **facts: Any
) -> str:
    """Write the presence record of a worker in the format of Go and Python workers, and return its id."""
    server_id = f"{host}-{pid}"
    name = f"{{{host}:{pid}:{server_id}}}"
    info = ServerInfo(host=host, pid=pid, server_id=server_id, **{"concurrency": 10, **facts})
    redis.client.set(f"asynq:servers:{name}", info.encode())
    redis.client.zadd("asynq:servers", {f"asynq:servers:{name}": LATER_S})
    redis.client.zadd("asynq:workers", {f"asynq:workers:{name}": LATER_S})
    for task_id, times in (running or {}).items():
        task = WorkerInfo(
            host=host, pid=pid, server_id=server_id, task_id=task_id, task_type=f"ship:{task_id}", queue="low", **times
        )
        redis.client.hset(f"asynq:workers:{name}", task_id, task.encode())
    return server_id


def commands_of(redis: RedisServer, load: Callable[[], object]) -> int:
    """Return how many Redis commands a function causes. Commands inside scripts count too."""

    def total() -> int:
        stats: Any = redis.client.info("commandstats")
        return sum(int(numbers["calls"]) for name, numbers in stats.items() if name != "cmdstat_info")

    before = total()
    load()
    return total() - before


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<title>.*?</title>|<[^>]*>", " ", html)).split())


def rows_of(html: str) -> list[dict[str, str]]:
    """Return the cells of each row of a list by the name of their column, as text."""
    body = html.partition('<table id="result_list"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        {
            name: text_of(cell)
            for name, cell in re.findall(r'<t[dh] class="field-(\w+)[^"]*">(.*?)</t[dh]>', row, re.DOTALL)
        }
        for row in body.split("</tr>")[:-1]
    ]


def errors(html: str) -> str:
    """Return the text of all errors of a form."""
    return " ".join(text_of(found) for found in re.findall(r'<ul class="errorlist[^>]*>(.*?)</ul>', html, re.DOTALL))


def shown_ids(html: str) -> list[str]:
    return re.findall(r'<th class="field-short_id"><a [^>]*><span title="([^"]*)"', html)


def columns(html: str) -> list[str]:
    return re.findall(r'<th scope="col" class="(?:sortable )?column-(\w+)[^"]*"', html)


def offered(html: str) -> list[str]:
    """Return the names of the actions that a list offers."""
    found = re.search(r'<select name="action".*?</select>', html, re.DOTALL)
    return [] if found is None else [name for name in re.findall(r'<option value="([^"]*)"', found[0]) if name]


def fields(html: str, form: str = "<form") -> dict[str, list[str]]:
    """Return the fields of a form with their values, without the CSRF token."""
    part = html[html.index(form) :]
    found: dict[str, list[str]] = {}
    for tag in re.findall(r"<input [^>]*>", part[: part.index("</form>")]):
        name, value = re.search(r' name="([^"]*)"', tag), re.search(r' value="([^"]*)"', tag)
        if name is not None and 'type="submit"' not in tag:
            found.setdefault(name[1], []).append(unescape(value[1]) if value else "")
    for name, value in re.findall(r'<textarea [^>]*name="([^"]*)"[^>]*>(.*?)</textarea>', part, re.DOTALL):
        found.setdefault(name, []).append(unescape(value).removeprefix("\n"))
    found.pop("csrfmiddlewaretoken", None)
    return found


def messages(html: str) -> list[str]:
    found = re.search(r'<ul class="messagelist">(.*?)</ul>', html, re.DOTALL)
    return [] if found is None else [unescape(text) for text in re.findall(r"<li[^>]*>(.*?)</li>", found[1], re.DOTALL)]


def choose(client: Client, action: str, *keys: str, address: str = TASKS, across: bool = False) -> str:
    """Choose an action on a list and return its confirmation page."""
    data = {ACTION_CHECKBOX_NAME: list(keys), "action": action, "select_across": str(int(across)), "index": "0"}
    response = client.post(address, data)
    assert response.status_code == 200, response
    return response.content.decode()


def confirm(client: Client, asked: str, address: str = TASKS, **more: str) -> list[str]:
    """Confirm an action and return the messages of the page that follows."""
    response = client.post(address, {**fields(asked, '<form method="post" novalidate>'), **more}, follow=True)
    assert response.status_code == 200
    return messages(response.content.decode())
