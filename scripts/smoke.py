"""Use an installed taskq once from end to end: core and command, Django, FastAPI. Run by `check_wheel.py`."""

import asyncio
import importlib.metadata
import io
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from taskq_core import TaskQ
from taskq_core.cli import main
from taskq_core.telemetry import configure
from taskq_core.worker import Worker, WorkerConfig


def core(folder: str) -> None:
    """Run a plain function and a coroutine on an embedded Redis."""
    taskq = TaskQ(f"embedded://{folder}", defaults={"retention": 60})

    @taskq.task(name="smoke:add")
    def add(a: int, b: int) -> int:
        return a + b

    @taskq.task(name="smoke:double")
    async def double(a: int) -> int:
        await asyncio.sleep(0)
        return 2 * a

    handles = [add.delay(1, b=2), *taskq.client.enqueue_many(double.s(each) for each in range(3))]
    status = Worker(taskq, WorkerConfig.from_settings(taskq.settings, burst=True)).run()
    results = [handle.result(timeout=5) for handle in handles]
    taskq.close()
    if status != 0 or results != [3, 0, 2, 4]:
        raise SystemExit(f"the worker ended with {status}, the results are {results}")


def django() -> None:
    """Set up a Django site with the app, and run its checks, migrations and templates."""
    import django
    from django.conf import settings
    from django.core.management import call_command
    from django.template.loader import get_template

    settings.configure(
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
            "taskq_django",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ],
                },
            }
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        SECRET_KEY="smoke",
    )
    django.setup()
    call_command("check", fail_level="WARNING", verbosity=0)
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
    call_command("migrate", verbosity=0)
    for template in files("taskq_django").joinpath("templates/admin/taskq_django").iterdir():
        get_template(f"admin/taskq_django/{template.name}")


def fastapi() -> None:
    """Create an app with routes, run a task with a dependency, and enqueue a task in a transaction."""
    from fastapi import Depends, FastAPI
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    from taskq_fastapi import ClientDep, enable_depends, task_router, taskq_lifespan
    from taskq_sqlalchemy import enqueue_after_commit

    taskq = TaskQ()
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(task_router())

    @app.get("/")
    async def home(client: ClientDep) -> None: ...

    app.openapi()
    enable_depends(taskq)

    @taskq.task
    def seven(n: int = Depends(lambda: 7)) -> int:
        return n

    if seven() != 7:
        raise SystemExit("a task did not receive its dependency")
    engine = create_engine("sqlite://")
    with Session(engine) as session:
        if enqueue_after_commit(session).enqueue(seven.s()).is_sent:
            raise SystemExit("a task was sent before the commit")
        session.begin()
        session.rollback()  # also drops the task, which was not sent yet
    engine.dispose()


async def dashboard() -> None:
    """Request pages and files of the web dashboard without a test client, whose packages are not installed."""
    from taskq_dashboard import taskq_dashboard
    from taskq_dashboard.assets import Assets
    from taskq_dashboard.serving import local_app

    local_app(TaskQ(), read_only=True)
    taskq = TaskQ("unix:///nowhere/at/all.sock")
    paths = ["/settings", "/", *(f"/{path}" for path in Assets().paths.values())]
    for is_open, expected in ((False, [403] * 6), (True, [200, 503, 200, 200, 200, 200])):
        app = taskq_dashboard(taskq, allow_anonymous=is_open)
        found = [await _status(app, path) for path in paths]
        if found != expected:
            raise SystemExit(f"the dashboard with allow_anonymous={is_open} answers {found}")


async def terminal() -> None:
    """Draw the terminal dashboard once, with its style sheet, for a Redis that does not run."""
    from taskq_terminal.app import DashApp

    app = DashApp(TaskQ("unix:///nowhere/at/all.sock", enqueue_timeout=0.1))
    async with app.run_test(size=(80, 24)) as pilot:
        async with asyncio.timeout(30):
            while not app.shared.trouble:
                await pilot.pause(0.02)
        if "cannot reach" not in app.shared.trouble or "Queues" not in app.export_screenshot():
            raise SystemExit(f"the terminal dashboard says {app.shared.trouble!r}")


async def _status(app: Any, path: str) -> int:
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if "status" in message:
            statuses.append(message["status"])

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
    await app(scope | {"headers": [], "root_path": "", "scheme": "http", "client": None, "server": None}, receive, send)
    return statuses[0]


def smoke() -> None:
    """Run all checks, and print the versions that they used."""
    # Ignore cleanup errors, because the private Redis may still write into the folder while it stops.
    with tempfile.TemporaryDirectory(prefix="taskq-", ignore_cleanup_errors=True) as folder:
        core(str(Path(folder) / "data"))
    try:
        main(["--version"], stdout=io.StringIO())
    except SystemExit as end:
        if end.code:
            raise
    configure(service_name="smoke").shutdown()
    django()
    fastapi()
    asyncio.run(dashboard())
    asyncio.run(terminal())
    names = (
        "taskq-asynq",
        "redis",
        "protobuf",
        "msgspec",
        "croniter",
        "opentelemetry-sdk",
        "django",
        "fastapi",
        "jinja2",
        "textual",
    )
    print("used: " + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names))


if __name__ == "__main__":
    smoke()
