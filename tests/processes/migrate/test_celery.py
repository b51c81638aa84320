"""Test that code migrated from Celery runs, in processes that cannot import Celery."""

import ast
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.taskq_migrate.test_celery import APP, migrated

ROOT = Path(__file__).parents[3]


GOLDEN = ROOT / "tests" / "golden" / "celery"


def run(folder: Path, code: str, **variables: str) -> str:
    """Run a program in the folder of a migrated project, without Celery, and return its output."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", **variables}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        (sys.executable, "-c", textwrap.dedent(code)),
        cwd=folder,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_migrated_tasks_of_django_run(tmp_path: Path) -> None:
    """Run all translated tasks. The test removes code that was not translated, as a person would do."""
    folder = tmp_path / "project"
    shutil.copytree(GOLDEN / "django" / "after", folder)
    (folder / "shop" / "celery.py").unlink()
    (folder / "shop" / "__init__.py").write_text("")
    settings = folder / "shop" / "settings.py"
    lines = settings.read_text().split("# Celery\n")
    settings.write_text(
        lines[0].replace("from celery.schedules import crontab\n", "") + "TASKQ" + lines[1].split("TASKQ", 1)[1]
    )
    _cut(folder / "shop" / "tasks.py", "special", "careful", "odd")

    output = run(
        folder,
        """
        import django
        django.setup()
        import smtplib
        from django.test import RequestFactory
        from shop import tasks, views
        from taskq_django.app import taskq
        from taskq_core.testing import capture

        with capture(taskq) as tasks_:
            views.signup(RequestFactory().post("/", {"email": "a@b.c"}))
            tasks.total(["a", "bc"])
            tasks.one_after_the_other("abc")
            tasks.side_by_side()
            tasks.build_report.delay("x")
            failing = tasks.send_mail.delay("")
            broken = tasks.tidy.using(task_id="t").delay()
            print(len(tasks_.enqueued))
        print(tasks.send_mail.options.max_retry, tasks.tidy.options.max_retry, tasks.ping.name)
        print(tasks.fetch.options.retry_on, tasks.build_report.options.timeout_s)
        for entry in sorted(taskq.periodic_tasks(), key=lambda each: each.id):
            print(entry.id, entry.spec, entry.payload.decode())
        """,
        DJANGO_SETTINGS_MODULE="shop.settings",
    )

    assert output.splitlines()[1:] == [
        "5 0 ping",
        "(<class 'ConnectionError'>, <class 'TimeoutError'>) 60",
        "ping @every 30s {}",
        'report 0 3 * * * {"kind":"daily","year":2033}',
        "tidy */15 8-18 * * mon-fri {}",
    ]


def _cut(path: Path, *names: str) -> None:
    """Remove functions from a file, with the comments and decorators above them."""
    text = path.read_text()
    lines = text.splitlines()
    for node in reversed(ast.parse(text).body):
        if isinstance(node, ast.FunctionDef) and node.name in names:
            del lines[node.decorator_list[0].lineno - 1 : node.end_lineno]
    path.write_text("\n".join(line for line in lines if not line.startswith("from celery")) + "\n")


@pytest.mark.redis
def test_the_migrated_workflow_runs_in_a_worker(tmp_path: Path, redis_server: object) -> None:
    """Run a chain whose second task is retried twice."""
    folder = tmp_path / "project"
    shutil.copytree(GOLDEN / "core" / "after", folder)

    output = run(
        folder,
        """
        from pipeline.queue import taskq
        from pipeline import work
        from taskq_core.worker import Worker, WorkerConfig

        handle = work.run("a b c")
        assert Worker(taskq, WorkerConfig(burst=True)).run() == 0
        print(handle.result(timeout=5))
        print([(each.id, each.spec, each.payload.decode()) for each in taskq.periodic_tasks()])
        taskq.close()
        """,
        PIPELINE_REDIS=redis_server.unix_url,  # type: ignore[attr-defined] # the fixture's class
    )

    assert output.splitlines() == [
        "5",  # the count of the thread pool
        "6",
        "[('count', '0,30 */2 * * *', '{\"text\":\"a b\"}'), ('often', '@every 90s', '{\"text\":\"c\"}')]",
    ]


def test_a_call_by_name_is_enqueued_as_a_call_of_the_task(tmp_path: Path) -> None:
    text = APP.partition("@app.task(rate")[0].replace(
        'from celery import Celery\n\napp = Celery("shop")\napp.conf.task_default_queue = "shop"\n',
        "from shop.celery import app\n",
    )
    change = migrated(text + "def later():\n    app.send_task('shop.tasks.f', [1])\n", tmp_path)
    change.path.write_text(change.new)
    (tmp_path / "shop" / "queue.py").write_text(
        'from taskq_core import TaskQ\n\ntaskq = TaskQ("redis://localhost:1/0")\n'
    )

    output = run(
        tmp_path,
        """
        from shop.queue import taskq
        from shop.tasks import f, later
        from taskq_core.testing import capture

        with capture(taskq) as calls:
            later()
            f.delay(1)
        for each in calls.enqueued:
            print(each.name, each.queue, each.payload, each.max_retry, each.timeout, each.retention)
        """,
    )

    one, other = output.splitlines()
    assert one == other
