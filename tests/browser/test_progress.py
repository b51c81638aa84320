"""Run the sites of docs/how-to/follow-a-task.md in a browser. They show a task from its start to its result."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenBrowser
from tests.docs.pages import ROOT, blocks, environment, write_files
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis
PAGE = ROOT / "docs/how-to/follow-a-task.md"

DJANGO = """
    import sys, threading
    from wsgiref.simple_server import WSGIRequestHandler, make_server
    import django
    from django.conf import settings
    settings.configure(
        SECRET_KEY="docs", DEBUG=True, ALLOWED_HOSTS=["*"], ROOT_URLCONF="shop.urls", STATIC_URL="/static/",
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
                        "django.contrib.staticfiles", "taskq_django", "shop"],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware",
                    "django.contrib.auth.middleware.AuthenticationMiddleware"],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
                    "OPTIONS": {"context_processors": ["django.template.context_processors.request"]}}],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.sqlite3"}},
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        TASKQ={},
    )
    django.setup()
    from django.contrib.auth.models import User
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application
    from django.test import Client
    call_command("migrate", verbosity=0)
    for name in ("ann", "bob"):
        User.objects.create_user(name, password=name)
        client = Client()
        client.login(username=name, password=name)
        print(name, client.cookies["sessionid"].value, flush=True)

    class Quiet(WSGIRequestHandler):
        def log_message(self, *words):
            pass

    server = make_server("127.0.0.1", 0, StaticFilesHandler(get_wsgi_application()), handler_class=Quiet)
    print("port", server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.readline()  # the test lets the worker begin
    from taskq_core.worker import Worker, WorkerConfig
    from taskq_django import taskq
    assert Worker(taskq, WorkerConfig(burst=True)).run() == 0
    sys.stdin.readline()
    """

FASTAPI = """
    import socket
    import uvicorn
    from live.main import app
    listening = socket.create_server(("127.0.0.1", 0))
    print("port", listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)).run(sockets=[listening])
    """


@contextmanager
def serving(folder: Path, code: str, redis: RedisServer) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run a site of files from the page. Yield its process and the values that it printed at its start."""
    write_files(PAGE, folder)
    (folder / "shop" / "__init__.py").touch()
    for block in blocks(PAGE):
        name = re.match(r"(?:\{#|<!--) (\S+) ", block.text) if block.language == "html" else None
        if name is not None:
            (folder / name[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / name[1]).write_text(block.text.partition("\n")[2], encoding="utf-8")
    site = subprocess.Popen(
        (sys.executable, "-c", textwrap.dedent(code)),
        cwd=folder,
        env=environment(folder, TASKQ_URL=redis.url, PYTHONPATH=f"{folder}:{ROOT}"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        printed: dict[str, str] = {}
        assert site.stdout is not None
        while "port" not in printed:
            name, _, value = site.stdout.readline().strip().partition(" ")
            assert name, "the site has ended"
            printed[name] = value
        yield site, printed
    finally:
        site.kill()
        site.communicate()


def test_a_django_page_polls_the_status(redis_server: RedisServer, tmp_path: Path, open_browser: OpenBrowser) -> None:
    with serving(tmp_path, DJANGO, redis_server) as (site, printed):
        origin = f"http://127.0.0.1:{printed['port']}"
        ann, bob = open_browser(origin), open_browser(origin)
        for visitor, name in ((ann, "ann"), (bob, "bob")):
            visitor.context.add_cookies([{"name": "sessionid", "value": printed[name], "url": origin}])
        page = ann.new_page()
        page.goto("/exports/")
        bar, text = page.locator("progress"), page.locator("[role=status]")
        expect(text).to_have_text("Waiting")
        expect(page.get_by_role("link")).to_be_hidden()
        other = bob.new_page()
        bob.expect_errors("404")
        other.goto(page.url)
        expect(other.locator("[role=status]")).to_have_text("Not available any more")

        assert site.stdin is not None
        site.stdin.write("\n")
        site.stdin.flush()

        expect(text).to_have_text("Done")
        expect(bar).to_have_js_property("value", 1000)
        expect(page.get_by_role("link", name="Download")).to_have_attribute("href", "/media/orders.csv")


def test_a_fastapi_page_streams_the_status(
    redis_server: RedisServer, tmp_path: Path, open_browser: OpenBrowser
) -> None:
    with serving(tmp_path, FASTAPI, redis_server) as (_, printed):
        origin = f"http://127.0.0.1:{printed['port']}"
        ann = open_browser(origin)
        ann.context.add_cookies([{"name": "user", "value": "ann", "url": origin}])
        page = ann.new_page()
        page.goto("/")

        page.get_by_role("button").click()

        expect(page.locator("[role=status]")).to_have_text("/media/orders.csv")
        expect(page.locator("progress")).to_have_js_property("value", 1000)
