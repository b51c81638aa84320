"""Code of the guides and of the README does what the pages say."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import django
import pytest

from taskq_core import TaskContext, TaskQ
from taskq_core.settings import Settings
from taskq_core.worker import Worker, WorkerConfig
from taskq_migrate import Target, migrate_celery
from taskq_migrate.source import MARK
from tests.docs.pages import ROOT, blocks, environment, files_of, matches, run_python, write_files
from tests.redis_server import RedisServer


def test_a_long_task_goes_on_as_its_page_says(tmp_path: Path) -> None:
    """Its tasks are interrupted after each item, and the test on the page passes."""
    page = ROOT / "docs/how-to/long-tasks.md"
    write_files(page, tmp_path)
    parts = [each.text for each in blocks(page) if each.language == "python"]
    code = """
        from taskq_core.testing import capture, interrupt_after
        for text, name, args in {parts!r}:
            space = {{"__name__": "page"}}
            exec(compile(text, name, "exec"), space)
            with capture(space["taskq"]) as tasks, interrupt_after(1) as stops:
                space[name].delay(*args)
                tasks.run()
            print(name, stops.count)
        """
    calls: dict[str, list[Any]] = {"recompute": [[1, 2]], "replay": [], "copy_pages": [], "render": [3]}
    runs = [(text, name, args) for name, args in calls.items() for text in parts if f"def {name}(" in text]
    printed = run_python(tmp_path, code.format(parts=runs))
    passed = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    expected = ["order 1 is recomputed", "order 2 is recomputed", "recompute 2", "a", "b", "replay 2"]
    assert printed.splitlines() == [*expected, *["['a', 'b']"] * 3, "copy_pages 3", "render 0"]
    assert "1 passed" in passed.stdout, passed.stdout


@pytest.mark.redis
def test_the_django_code_of_the_readme_runs(tmp_path: Path, redis_server: RedisServer) -> None:
    """A request enqueues the task, a worker runs it, and the mail is sent."""
    write_files(ROOT / "README.md", tmp_path)
    (tmp_path / "shop" / "__init__.py").touch()

    output = run_python(
        tmp_path,
        """
        import django
        from django.conf import settings

        settings.configure(
            SECRET_KEY="docs",
            ALLOWED_HOSTS=["testserver"],
            INSTALLED_APPS=["taskq_django", "shop"],
            ROOT_URLCONF="urls",
            EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend",
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            TASKQ={"QUEUES": {"critical": 6, "default": 3}},
        )
        django.setup()
        import sys, types
        from django.core import mail
        from django.core.management import call_command
        from django.test import Client
        from django.urls import path
        from shop.views import signup

        sys.modules["urls"] = types.SimpleNamespace(urlpatterns=[path("signup/", signup)])
        answer = Client().post("/signup/", {"email": "a@b.c"})
        assert answer.status_code == 200 and answer.json()["task"], answer.content
        mail.outbox = []
        call_command("runworker", "--burst", verbosity=0)
        print([message.to for message in mail.outbox])
        """,
        TASKQ_URL=redis_server.unix_url,
    )

    assert output.strip() == "[['a@b.c']]"


def test_the_tests_of_the_pages_on_durable_tasks_pass(tmp_path: Path) -> None:
    for page in ("durable-tasks", "run-an-agent", "undo-steps", "fan-out"):
        write_files(ROOT / f"docs/how-to/{page}.md", tmp_path)
    (tmp_path / "test_orders.py").write_text(TEST_OF_ORDERS, encoding="utf-8")
    done = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    assert "6 passed" in done.stdout, done.stdout


TEST_OF_ORDERS = """
from shop.follow import follow_order
from shop.photos import taskq
from shop.trips import book
from shop.trips import taskq as trips
from taskq_core.testing import capture


def test_an_order_continues_with_the_signal_that_arrives_first() -> None:
    with capture(taskq) as tasks:
        paid, cancelled, late = (follow_order.delay(order) for order in (1, 2, 3))
        tasks.run()
        cancelled.signal("cancelled", "too late")
        cancelled.signal("paid", {"amount": "9.99"})
        paid.signal("paid", {"amount": "9.99"})
        tasks.run(advance=3 * 86_400)

        assert [paid.result(), cancelled.result(), late.result()] == [
            "order 1: paid 9.99",
            "order 2: cancelled, too late",
            "order 3: nobody paid in time",
        ]


def test_a_trip_without_hotel_or_payment_is_given_back(capsys) -> None:
    with capture(trips) as tasks:
        paid, sold_out, unpaid = book.delay(2), book.delay(3), book.delay(4)
        tasks.run(raises=False)
        paid.signal("paid", True)
        tasks.run(advance=3600, raises=False)

        assert paid.result() == "flight 2 and hotel 2 are booked"
        assert "no room for trip 3" in sold_out.refresh().last_error
        assert "no signal 'paid'" in unpaid.refresh().last_error
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{each} is given back" for each in ("flight 3", "hotel 4", "flight 4")]
"""


@pytest.mark.redis
def test_people_answer_durable_tasks_as_their_page_says(tmp_path: Path, redis_server: RedisServer) -> None:
    """People answer by a link of a Django site, whose view streams the output, and by a link of a FastAPI app."""
    for page in ("durable-tasks", "approvals"):
        write_files(ROOT / f"docs/how-to/{page}.md", tmp_path)
    (tmp_path / "shop" / "__init__.py").touch()

    django_site = run_python(
        tmp_path,
        """
        import asyncio
        import django
        from django.conf import settings

        settings.configure(
            SECRET_KEY="docs",
            ALLOWED_HOSTS=["testserver"],
            INSTALLED_APPS=["taskq_django", "shop"],
            ROOT_URLCONF="shop.urls",
            EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend",
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            TASKQ={},
        )
        django.setup()
        from django.core import mail
        from django.core.management import call_command
        from django.test import Client, RequestFactory
        from shop.tasks import refund
        from shop.views import refund_log

        mail.outbox = []
        handle = refund.delay(7)
        call_command("runworker", "--burst", verbosity=0)
        path = mail.outbox[0].body.removeprefix("https://shop.example.com")
        print("Refund order 7?" in Client().get(path).text, Client().post(path + "?choice=Approve").status_code)
        call_command("runworker", "--burst", verbosity=0)
        print(handle.result())

        async def read():
            response = await refund_log(RequestFactory().get("/"), handle.id)
            print([each async for each in response.streaming_content][-1].decode().splitlines()[0])

        asyncio.run(read())
        """,
        TASKQ_URL=redis_server.unix_url,
    )
    fastapi_app = run_python(
        tmp_path,
        """
        from shop.main import refund, taskq
        from taskq_core.worker import Worker, WorkerConfig

        refund.delay(7)
        Worker(taskq, WorkerConfig(burst=True)).run()
        """,
        TASKQ_URL=redis_server.unix_url,
        APPROVAL_SECRET="a secret of the docs",
    )
    url = next(line for line in fastapi_app.splitlines() if line.startswith("https://shop.example.com/approvals/"))
    answered = run_python(
        tmp_path,
        f"""
        from fastapi.testclient import TestClient
        from shop.main import app

        with TestClient(app) as web:
            print(web.post({url!r}.removeprefix("https://shop.example.com") + "?choice=Reject").status_code)
        """,
        TASKQ_URL=redis_server.unix_url,
        APPROVAL_SECRET="a secret of the docs",
    )

    assert django_site.splitlines() == ["True 200", "True", "event: end"]
    assert answered.split() == ["200"]


@pytest.mark.redis
def test_the_code_of_the_page_on_djangos_tasks_runs(tmp_path: Path, redis_server: RedisServer) -> None:
    """A request enqueues one task now and one for later. A worker runs the first, and its state is reported."""
    page = ROOT / "docs/how-to/use-django-tasks.md"
    write_files(page, tmp_path)
    (tmp_path / "shop" / "__init__.py").touch()
    package = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"
    code = tmp_path / "shop" / "tasks.py"
    code.write_text(code.read_text(encoding="utf-8").replace("django.tasks", package), encoding="utf-8")
    settings = [block.text for block in blocks(page) if block.text.startswith("# settings.py")]
    using = next(block.text for block in blocks(page) if block.text.startswith("from shop.tasks"))

    output = run_python(
        tmp_path,
        f"""
        import django, json, sys, types
        from django.conf import settings

        def read(text):
            found = {{}}
            exec(text, found)
            return found["TASKS"]

        TASKS, WITH_OPTIONS = map(read, {settings!r})
        settings.configure(
            SECRET_KEY="docs",
            ALLOWED_HOSTS=["testserver"],
            INSTALLED_APPS=["taskq_django", "shop", *(["django_tasks"] if django.VERSION < (6, 0) else [])],
            ROOT_URLCONF="urls",
            EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend",
            DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
            USE_TZ=True,
            TASKQ={{}},
            TASKS=TASKS,
        )
        django.setup()
        from django.core import checks
        from django.core.management import call_command
        from django.test import Client, override_settings
        from django.urls import path
        from shop import tasks, views

        sys.modules["urls"] = types.SimpleNamespace(
            urlpatterns=[path("signup/", views.signup), path("<str:result_id>/", views.state)]
        )
        shipped = tasks.ship.enqueue(7)
        known = Client().post("/signup/", {{"email": "a@b.c"}}).json()["id"]
        call_command("runworker", "--burst", "--no-scheduler", verbosity=0)
        print(json.dumps(Client().get(f"/{{known}}/").json()))
        shipped.refresh()
        print(shipped.return_value)
        with override_settings(TASKS=WITH_OPTIONS):
            print([each.id for each in checks.run_checks() if str(each.id).startswith("taskq.")])
            exec({using!r})
        """,
        TASKQ_URL=redis_server.unix_url,
    )

    state, shipped, *found = output.splitlines()
    assert json.loads(state) == {"status": "SUCCESSFUL", "attempts": 1}
    assert shipped == "order 7 is shipped, attempt 1"
    assert found == ["[]"]


@pytest.mark.redis
def test_the_fastapi_code_of_the_readme_runs(tmp_path: Path, redis_server: RedisServer) -> None:
    """A request enqueues the task, and a worker makes its result."""
    write_files(ROOT / "README.md", tmp_path)
    shutil.rmtree(tmp_path / "shop")  # the Django example's, of the same name

    output = run_python(
        tmp_path,
        """
        from fastapi.testclient import TestClient
        from shop import app, number_receipt, taskq
        from taskq_core.worker import Worker, WorkerConfig

        with TestClient(app) as client:
            answer = client.post("/orders/7")
        assert Worker(taskq, WorkerConfig(burst=True)).run() == 0
        (task,) = [answer.json()["task"]]
        from taskq_core.broker.operations.views import read_task
        stored = taskq.runtime.runner.run(read_task(taskq.runtime.keys.queue("default"), task))
        print(stored.state, stored.result.decode())
        taskq.close()
        """,
        TASKQ_URL=redis_server.unix_url,
    )

    assert output.strip() == 'completed "R-000007"'


@pytest.mark.redis
def test_a_full_queue_and_a_silent_redis_are_answered_as_the_page_says(tmp_path: Path) -> None:
    """FastAPI answers 503 with a time to try again in both cases, and at once if the circuit is open."""
    write_files(ROOT / "docs/how-to/limit-tasks.md", tmp_path)

    with RedisServer() as server:
        output = run_python(
            tmp_path,
            f"""
            import os, signal
            from fastapi.testclient import TestClient
            from shop.main import app
            from shop.queue import taskq
            from dataclasses import replace

            limits = {{**taskq.settings.limits, "images": 2}}
            slow = {{"FIRST_PAUSE": 60, "MAX_PAUSE": 60}}  # so that no try is due while this machine is busy
            def visit(times, patience_s):
                changes = {{"limits": limits, "enqueue_timeout": patience_s, "circuit_breaker": slow}}
                taskq.configure(replace(taskq.settings, url="{server.unix_url}", **changes))
                with TestClient(app) as web:
                    for _ in range(times):
                        answer = web.post("/images?path=x")
                        print(answer.status_code, answer.headers.get("retry-after"))
                    print(taskq.client.circuit_state)
            visit(3, 60)
            os.kill({server.pid}, signal.SIGSTOP)
            visit(6, 1)
            os.kill({server.pid}, signal.SIGCONT)
            """,
        )

    lines = output.splitlines()
    assert lines[:4] == ["202 None", "202 None", "503 30", "closed"]
    assert lines[4:9] == ["503 5"] * 5
    assert re.fullmatch("503 [1-6][0-9]", lines[9])
    assert lines[10:] == ["open"]


@pytest.mark.redis
def test_a_full_queue_is_answered_by_the_middleware_of_the_page(tmp_path: Path, redis_server: RedisServer) -> None:
    write_files(ROOT / "docs/how-to/limit-tasks.md", tmp_path)

    output = run_python(
        tmp_path,
        f"""
        import django
        from django.conf import settings
        from django.http import HttpResponse
        from django.urls import path

        settings.configure(
            INSTALLED_APPS=["taskq_django"], ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"],
            DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
            MIDDLEWARE=["shop.middleware.TryAgainMiddleware"],
            TASKQ={{"URL": "{redis_server.unix_url}", "LIMITS": {{"default": 1}}, "ENQUEUE_TIMEOUT": 30}},
        )
        django.setup()
        from django.test import Client
        from taskq_django import task

        @task(name="resize")
        def resize(): ...

        def upload(request):
            resize.delay()
            return HttpResponse(status=202)

        urlpatterns = [path("images", upload)]
        for _ in range(2):
            answer = Client().post("/images")
            print(answer.status_code, answer.headers.get("Retry-After"))
        """,
    )

    assert output.splitlines() == ["202 None", "503 30"]


def run_blocks(page: str) -> dict[str, Any]:
    """Run the Python of a page, block after block, and return its names."""
    found: dict[str, Any] = {"__name__": "docs"}
    for block in blocks(ROOT / "docs" / page):
        if block.language == "python":
            exec(compile(block.text, page, "exec"), found)
    return found


@pytest.mark.redis
async def test_the_handlers_of_the_how_to_run_what_came_from_elsewhere(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each type goes where the page says, and the failures are seen."""
    page = run_blocks("how-to/share-with-go.md")
    taskq: TaskQ = page["taskq"]
    taskq.configure(Settings(url=redis_server.url, queues={"mail": 1}, enqueue_timeout=30))

    @taskq.on_error
    def alert(error: BaseException, context: TaskContext) -> None:
        print(f"{context.name} failed: {type(error).__name__}")

    for name, arguments in (("email:welcome", {"to": "a@b.c"}), ("image:resize:large", {}), ("report", {})):
        await taskq.remote(name, queue="mail", headers={"tenant": "blue"}).adelay(**arguments)
    await taskq.remote("email:receipt", queue="mail").adelay(to=1)
    assert await Worker(taskq, WorkerConfig(queues={"mail": 1}, burst=True)).arun() == 0
    unknown = [line for line in capsys.readouterr().out.splitlines() if line]
    await taskq.aclose()

    assert sorted(unknown) == sorted(
        [
            "email:welcome to a@b.c",
            "attempt 1, blue",
            "email:receipt failed: PayloadError",
            "report failed: SkipRetry",
        ]
    )


@pytest.mark.redis
async def test_the_middleware_of_the_how_to_carries_the_tenant(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run gets the tenant of its caller. An enqueue without a tenant is refused."""
    page = run_blocks("how-to/write-middleware.md")
    taskq: TaskQ = page["taskq"]
    seen: list[str] = []

    @taskq.task(name="look", queue="reports")
    def look() -> None:
        seen.append(page["tenant"].get())

    taskq.configure(Settings(url=redis_server.url, enqueue_timeout=30))
    with pytest.raises(PermissionError, match="look needs a tenant"):
        await look.adelay()
    page["tenant"].set("blue")
    await look.adelay()
    await page["build_report"].adelay(year=2033)
    assert await Worker(taskq, WorkerConfig(queues={"reports": 1}, burst=True)).arun() == 0
    await taskq.aclose()

    assert seen == ["blue"]
    assert capsys.readouterr().out == f"{page['build_report'].name} begins\n"


@pytest.mark.redis
def test_the_group_of_the_how_to_becomes_one_task(tmp_path: Path, redis_server: RedisServer) -> None:
    """A hundred notices to a user make one digest, at once."""
    write_files(ROOT / "docs/how-to/aggregate-tasks.md", tmp_path)

    output = run_python(
        tmp_path,
        """
        import os
        from shop.notices import taskq, tell
        from taskq_core import Settings
        from taskq_core.worker import Worker, WorkerConfig

        taskq.configure(Settings(url=os.environ["SHOP_REDIS"], enqueue_timeout=30))
        for number in range(101):
            tell(7, "news")
        assert Worker(taskq, WorkerConfig(burst=True)).run() == 0
        taskq.close()
        """,
        SHOP_REDIS=redis_server.unix_url,
    )

    assert output.strip() == f"to user:7: {', '.join(['news'] * 100)}"


def test_the_entries_of_the_how_to_are_what_the_page_says(tmp_path: Path) -> None:
    """The entries come from the page's first file, its settings, its later blocks and its provider."""
    page = ROOT / "docs/how-to/schedule-periodic-tasks.md"
    write_files(page, tmp_path)
    code = "\n".join(block.text for block in blocks(page) if block.language == "python" and "# shop/" not in block.text)

    output = run_python(
        tmp_path,
        code
        + """
from dataclasses import replace
taskq.configure(replace(settings, url="redis://localhost:1"))
found = [*taskq.periodic_tasks(), *taskq.timetable.providers[0].function()]
for each in sorted(found, key=lambda each: each.id):
    print(each.id.split(":")[0], "|", each.spec, "|", each.schedule("Europe/Berlin").text, "|", each.payload.decode())
""",
    )

    assert output.splitlines() == [
        "backup | 0 2 * * * | CRON_TZ=Europe/Berlin 0 2 * * * | {}",
        'nightly-report | 30 3 * * 1-5 | CRON_TZ=Europe/Berlin 30 3 * * 1-5 | {"kind":"sales"}',
        'report-ada | 0 8 * * * | CRON_TZ=Europe/Berlin 0 8 * * * | {"kind":"ada"}',
        'report-bob | @hourly | CRON_TZ=Europe/Berlin @hourly | {"kind":"bob"}',
        "shop.upkeep.back_up | 0 2 * * * | CRON_TZ=Europe/Berlin 0 2 * * * | {}",
        "shop.upkeep.check_stock | */5 * * * * | CRON_TZ=Europe/Berlin */5 * * * * | {}",
        'shop.upkeep.report | @every 1m | @every 1m | {"kind":"slow"}',
        'shop.upkeep.report | @hourly | CRON_TZ=Europe/Berlin @hourly | {"kind":"sales"}',
        'visits | @every 90s | @every 90s | {"kind":"visits"}',
    ]


@pytest.mark.redis
def test_the_code_of_the_page_on_inspecting_runs(tmp_path: Path, redis_server: RedisServer) -> None:
    """Its blocks work one after another on a queue with an archived task."""
    page = ROOT / "docs/how-to/operate-from-the-command-line.md"
    code = [block.text for block in blocks(page) if block.language == "python"]
    setting = """
from taskq_core import TaskQ
from taskq_core.inspector import Inspector

with_task = TaskQ.from_env()
with_task.client.enqueue(with_task.remote("email:welcome", task_id="welcome-7", run_after=60).s(to="a@b.c"))
with_task.client.enqueue(with_task.remote("email:welcome", task_id="welcome-8").s(to="d@e.f"))
Inspector(with_task).archive_task("default", "welcome-8")
with_task.close()
"""

    output = run_python(tmp_path, "\n".join((setting, *code[:-1])), TASKQ_URL=redis_server.unix_url)

    assert output == "default 2 1 None\n1 of 1\n"
    assert redis_server.client.smembers("asynq:queues") == {b"slow"}
    ast.parse(code[-1])  # of a queue that is gone by now


def test_the_tests_of_the_page_on_tests_pass(tmp_path: Path) -> None:
    """Its files are written and run by pytest; its block for FastAPI runs beside them."""
    page = ROOT / "docs/how-to/test-your-tasks.md"
    write_files(ROOT / "docs/how-to/use-the-outbox.md", tmp_path)  # the app whose outbox the page tests
    write_files(page, tmp_path)
    (options,) = (block.text for block in blocks(page) if block.language == "toml")
    (tmp_path / "pyproject.toml").write_text(options, encoding="utf-8")
    (fastapi,) = (block.text for block in blocks(page) if block.text.startswith("from fastapi"))

    done = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:django"),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    run_python(tmp_path, fastapi)


@pytest.mark.redis
def test_the_page_on_dependencies_says_what_happens(tmp_path: Path, redis_server: RedisServer) -> None:
    """Its tests pass, and a worker runs its tasks: a session that commits, and a client of the lifespan."""
    write_files(ROOT / "docs/how-to/use-depends-in-tasks.md", tmp_path)

    done = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:django"),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    output = run_python(
        tmp_path,
        f"""
        import sqlite3
        from dataclasses import replace
        from shop import clients, tasks, tenants
        from shop.queue import taskq
        from taskq_core.testing import drain

        taskq.configure(replace(taskq.settings, url="{redis_server.unix_url}", enqueue_timeout=30))
        db = sqlite3.connect("shop.db")
        db.execute("CREATE TABLE orders (id INTEGER, paid INTEGER)")
        db.execute("INSERT INTO orders VALUES (7, 0)")
        db.commit()
        handles = [tasks.pay.delay(7), clients.ship.delay(7)]
        tenants.bill.delay()
        print([run.outcome for run in drain(taskq)])
        handles.append(tasks.count.delay())
        drain(taskq)
        print([handle.result() for handle in handles])
        """,
    )

    assert output.splitlines() == ["['completed', 'completed', 'completed']", "[7, 'https://example.com', 1]"]


def test_the_tests_of_the_page_on_tests_in_django_pass(tmp_path: Path) -> None:
    """Django's own runner and pytest both run the tests of the page."""
    write_files(ROOT / "docs/how-to/test-django-tasks.md", tmp_path)
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop_settings.py").write_text(
        """
SECRET_KEY = "docs"
INSTALLED_APPS = ["taskq_django", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db", "TEST": {"NAME": "test"}}}
DATABASES["default"]["OPTIONS"] = {"timeout": 20}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TASKQ = {"URL": "redis://127.0.0.1:1/0"}
"""
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\npython_files = test*.py\n")
    for words, said in (
        (("django", "test", "shop"), "Ran 6 tests"),
        (("pytest", "-q", "-p", "no:cacheprovider"), "8 passed"),
    ):
        done = subprocess.run(
            (sys.executable, "-m", *words),
            cwd=tmp_path,
            env=environment(tmp_path, DJANGO_SETTINGS_MODULE="shop_settings"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert said in done.stdout


@pytest.mark.redis
def test_the_app_of_the_page_on_the_outbox_with_sqlalchemy_runs(tmp_path: Path, redis_server: RedisServer) -> None:
    """While Redis is away an order is stored with its task, a refused one has none, and a worker sends what waits."""
    page = ROOT / "docs/how-to/use-the-outbox.md"
    write_files(page, tmp_path)
    look = next(each.text for each in blocks(page) if "outbox_tables" in each.text)
    look = look.replace("from taskq_django import taskq", "from api.queue import taskq")
    post = """
        from fastapi.testclient import TestClient
        from api.main import app

        with TestClient(app) as client:
            print(client.post("/orders", params={"email": "ada@example.com"}).status_code)
            print(client.post("/orders").status_code)
        """

    away = run_python(tmp_path, post, TASKQ_URL="unix:///nowhere/at/all.sock", TASKQ_ENQUEUE_TIMEOUT="0.1")
    waiting = run_python(tmp_path, look)
    there = run_python(tmp_path, post, TASKQ_URL=redis_server.unix_url)
    worker = subprocess.run(
        ("taskq", "worker", "api.queue:taskq", "--burst"),
        cwd=tmp_path,
        env=environment(tmp_path, TASKQ_URL=redis_server.unix_url),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert away.split() == there.split() == ["202", "422"]
    name, count, age = waiting.rsplit(maxsplit=2)
    assert (name, count) == (str(tmp_path / "shop.db"), "1")
    assert float(age) >= 0
    assert worker.returncode == 0, worker.stderr
    orders = [f"order {number} is confirmed to ada@example.com" for number in (1, 2)]
    assert sorted(line for line in worker.stdout.splitlines() if line.startswith("order")) == orders
    assert run_python(tmp_path, look).split()[1:] == ["0", "None"]


CONTINUED = ("how-to/build-workflows.md", "how-to/limit-tasks.md", "how-to/share-with-go.md")


WITHOUT_SERVER = (
    "reference/task-options.md",
    "reference/settings.md",
    "how-to/aggregate-tasks.md",
    "how-to/keep-tasks-unique.md",
    "how-to/schedule-periodic-tasks.md",
    "how-to/share-with-go.md",
    "how-to/repair-damage.md",
    "how-to/fastapi.md",
    "how-to/serve-the-json-api.md",
    "how-to/run-the-dashboard.md",
    "how-to/build-workflows.md",
    "how-to/control-tasks.md",
    "how-to/follow-a-task.md",
    "how-to/limit-tasks.md",
    "how-to/log-tasks.md",
    "how-to/retry-tasks.md",
    "how-to/run-a-worker.md",
)
"""Pages whose code, except for that of Django, declares tasks and settings without connecting to Redis."""


def test_code_that_needs_no_server_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decorators, options and settings on these pages are accepted."""
    for number, page in enumerate(WITHOUT_SERVER):
        folder = tmp_path / str(number)
        write_files(ROOT / "docs" / page, folder)
        known: dict[str, object] = {}
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(folder))
            for block in blocks(ROOT / "docs" / page):
                if block.language == "python" and "django" not in block.text:
                    known = {**(known if page in CONTINUED else {}), "__name__": f"docs_{number}"}
                    exec(compile(block.text, page, "exec"), known)
        for name in [name for name in sys.modules if name == "shop" or name.startswith("shop.")]:
            del sys.modules[name]


DJANGO_PAGES = (
    "django",
    "schedule-periodic-tasks",
    "traces-and-metrics",
    "use-the-admin",
    "use-the-outbox",
)


def test_code_for_django_runs_in_a_project(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Run each page in a separate process, because it registers tasks and models."""
    for page in DJANGO_PAGES:
        with subtests.test(page):
            run_in_django_project(page, tmp_path / page)


ELSEWHERE = re.compile(r"^from (unfold|sqlalchemy|taskq_sqlalchemy|api)\b", re.MULTILINE)
"""Begins code that is not for a Django project, or for a theme that is not installed here."""


def run_in_django_project(page: str, tmp_path: Path) -> None:
    """Run the code of a page. Models and tasks of the shop that it does not show are added."""
    write_files(ROOT / f"docs/how-to/{page}.md", tmp_path)
    given = {
        "__init__": "",
        "models": """
            from django.db import models


            class Order(models.Model):
                email = models.EmailField()
            """,
        "tasks": """
            from taskq_django import task


            @task(name="order:confirm")
            def confirm_order(order: int) -> None: ...
            """,
    }
    (tmp_path / "shop").mkdir(parents=True, exist_ok=True)
    for name, text in given.items():
        if not (path := tmp_path / "shop" / f"{name}.py").exists():
            path.write_text(textwrap.dedent(text))
    shown = files_of(ROOT / f"docs/how-to/{page}.md")
    files = [name for name, text in shown.items() if name.endswith(".py") and not ELSEWHERE.search(text)]
    pieces = [
        each.text
        for each in blocks(ROOT / f"docs/how-to/{page}.md")
        if each.language == "python"
        and not each.text.startswith(tuple(f"# {name}\n" for name in shown))
        and not ELSEWHERE.search(each.text)
    ]
    assert files or pieces

    run_python(
        tmp_path,
        f"""
        import importlib

        import django
        from django.conf import settings
        from django.core.management import call_command

        needed = ("auth", "contenttypes", "messages", "admin")
        settings.configure(
            INSTALLED_APPS=[*(f"django.contrib.{{name}}" for name in needed), "taskq_django", "shop"],
            DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
            USE_TZ=True,
            TASKQ={{"ENQUEUE": "outbox"}},
        )
        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        for name in {[name.removesuffix(".py").replace("/", ".") for name in files]!r}:
            importlib.import_module(name)
        for text in {pieces!r}:
            exec(text, {{"__name__": "page"}})
        """,
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
    )


@pytest.mark.redis
def test_the_command_line_page_shows_what_the_commands_say(tmp_path: Path, redis_server: RedisServer) -> None:
    """The commands of the blocks marked so run in order, each as its own process."""
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)

    @app.task(name="shop:ship", max_retry=0)
    def ship(order: int) -> None:
        raise ValueError("no such order")

    app.remote("shop:ship", max_retry=0, task_id="order-7").delay(b'{"order": 7}')
    assert Worker(app, WorkerConfig(burst=True)).run() == 0
    app.remote("shop:ship").delay(order=1)
    app.remote("shop:ship", queue="low").delay(order=2)
    app.close()

    for block in blocks(ROOT / "docs/how-to/operate-from-the-command-line.md"):
        if block.mark != "run":
            continue
        for command, _, expected in (part.partition("\n") for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]):
            done = subprocess.run(
                shlex.split(command),
                cwd=tmp_path,
                env=environment(tmp_path, TASKQ_URL=redis_server.unix_url),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert matches(expected, done.stdout), f"{command}\n{done.stdout}{done.stderr}"
            assert done.returncode == 0, command


CASES = [
    (
        "run-an-agent",
        "helpdesk.agents helpdesk.careful helpdesk.research",
        """
        with capture(helpdesk.agents.taskq) as tasks:
            handle = helpdesk.agents.answer.delay("Where is order 7?")
            careful = helpdesk.careful.careful_answer.delay("Where is order 7?")
            tasks.run()
            handle.answer(1, {"approved": False, "reason": "not yet"})
            careful.answer(1, True)
            tasks.run()
            print(handle.result())
            print("".join(item.value for item in handle.stream()) == handle.result())
            print(careful.result())
        with capture(helpdesk.research.taskq) as tasks:
            handle = helpdesk.research.research.delay("What is new?")
            tasks.run()
            print(handle.result())
        """,
        [
            'May I refund {"number":0}?',
            '{"find_order":"order 0 was shipped on Monday","refund":"not yet"}',
            "True",
            '{"find_order":"order 0 was shipped on Monday","refund":"order 0 is refunded"}',
            '{"search_everywhere":["nothing on site a","nothing on site b"]}',
        ],
    ),
    (
        "durable-tasks",
        "shop.photos shop.trials",
        """
        from taskq_core.testing import eager
        with capture(shop.photos.taskq) as tasks:
            handle = shop.photos.publish.delay(7)
            tasks.run()
            handle.signal("review", True)
            tasks.run(advance=3600)
            print(handle.result(), [item.value for item in handle.stream()])
            trial = shop.trials.end_trial.delay(1)
            tasks.run(advance=7 * 86_400)
            print(trial.refresh().state)
        """,
        [
            "photo 7 is checked",
            "['7-320.jpg', '7-800.jpg'] ['the sizes are ready']",
            "user 1: one day left",
            "scheduled",
        ],
    ),
    (
        "retry-tasks",
        "shop.tasks shop.deciding",
        """
        with capture(shop.tasks.taskq) as tasks:
            handle = shop.deciding.place.using(retention=60).delay(7)
            tasks.run()
            print(handle.result())
            shop.deciding.call_service = lambda order: "unknown order"
            shop.deciding.place.delay(8)
            print([run.outcome for run in tasks.run(raises=False)])
        """,
        ["attempt 1: accepted", "['archived']"],
    ),
    (
        "migrate-from-other-queues",
        "shop.jobs",
        """
        with capture(shop.jobs.taskq) as tasks:
            shop.jobs.enqueue()
            print([(each.queue, each.run_after) for each in tasks.enqueued])
        """,
        ["[('high', None), ('high', datetime.timedelta(seconds=600))]"],
    ),
    (
        "migrate-from-other-queues",
        "shop.work",
        """
        with capture(shop.work.taskq) as tasks:
            asyncio.run(shop.work.enqueue())
            print([each.id for each in tasks.enqueued][1:])
        """,
        ["['life-1']"],
    ),
    (
        "migrate-from-other-queues",
        "shop.numbers",
        """
        with capture(shop.numbers.taskq) as tasks:
            handles = [shop.numbers.add.delay(1, 2), shop.numbers.add.delay(-1, 2)]
            print([run.outcome for run in tasks.run(raises=False)], handles[0].result())
        print([each.spec for each in shop.numbers.taskq.periodic_tasks()])
        """,
        ["['completed', 'archived'] 3", "['0 */2 * * *']"],
    ),
    (
        "share-with-go",
        "shop.tasks",
        """
        with capture(shop.tasks.taskq) as tasks:
            shop.tasks.enqueue()
            (task,) = tasks.enqueued
            print(task.queue, task.run_after)
        """,
        ["critical 1 day, 0:00:00"],
    ),
]
"""Pages, the modules that they show, what is done with these, and what that prints."""


def test_the_code_of_a_page_runs(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Its files are written and imported, and what they declare is enqueued and run without Redis."""
    for page, modules, then, shown in CASES:
        with subtests.test(page):
            write_files(ROOT / "docs" / "how-to" / f"{page}.md", tmp_path / page)
            imports = [
                "import asyncio",
                "from taskq_core.testing import capture",
                *(f"import {each}" for each in modules.split()),
            ]

            printed = run_python(tmp_path / page, "\n".join([*imports, textwrap.dedent(then)]))

            assert printed.splitlines() == shown


def test_the_switch_of_the_page_sends_each_task_to_one_queue(tmp_path: Path) -> None:
    """The old queue is played by an object that notes what it was given."""
    write_files(ROOT / "docs/how-to/migrate-from-other-queues.md", tmp_path)
    (tmp_path / "shop" / "old_queue.py").write_text(
        """
class Old:
    sent = []

    def task(self, name):
        def made(function):
            class Task:
                delay = staticmethod(lambda *args, **kwargs: Old.sent.append((name, args, kwargs)))
            return Task
        return made


app = Old()
"""
    )

    printed = run_python(
        tmp_path,
        """
        import os
        from shop.old_queue import app
        from shop.welcome import send_welcome, taskq
        from taskq_core.testing import capture

        with capture(taskq) as tasks:
            send_welcome.delay("a@b.c")
            print(app.sent, len(tasks.enqueued))
            os.environ["MOVED_TASKS"] = "mail:welcome,mail:other"
            handle = send_welcome.delay("a@b.c", subject="Hi")
            tasks.run()
            print(len(app.sent), handle.name)
        """,
    )

    assert printed.splitlines() == ["[('mail:welcome', ('a@b.c',), {})] 0", "1 mail:welcome"]


def test_the_tasks_of_the_page_on_django_q2_run(tmp_path: Path) -> None:
    write_files(ROOT / "docs/how-to/migrate-from-other-queues.md", tmp_path)
    (tmp_path / "shop" / "__init__.py").touch()

    printed = run_python(
        tmp_path,
        """
        import django
        from django.conf import settings

        settings.configure(INSTALLED_APPS=["taskq_django", "shop"], USE_TZ=True, TASKQ={})
        django.setup()
        from shop import tasks
        from taskq_core.testing import capture
        from taskq_django import taskq

        with capture(taskq) as captured:
            tasks.sign_up("a@b.c")
            print([run.outcome for run in captured.run()])
        print([each.spec for each in taskq.periodic_tasks()])
        """,
    )

    assert printed.splitlines() == ["['completed']", "['0 7 * * *']"]


def test_the_mark_on_the_page_on_celery_is_what_the_command_writes(tmp_path: Path) -> None:
    (mark,) = (
        block.text.strip()
        for block in blocks(ROOT / "docs/how-to/migrate-from-celery.md")
        if block.text.startswith(MARK)
    )
    (tmp_path / "tasks.py").write_text(
        "from celery import shared_task\n\n\n@shared_task(base=Reporter)\ndef special(): ...\n"
    )
    (change,) = migrate_celery([tmp_path], Target.parse("shop.queue:taskq")).changes

    assert mark in change.new.splitlines()
