"""Code of how-to pages does what they say."""

import re
import textwrap
from pathlib import Path

import pytest

from taskq_core.migration import Target, migrate_celery
from taskq_core.migration.source import MARK
from tests.test_docs import ROOT, blocks, run_python, write_files


@pytest.mark.parametrize(
    ("page", "modules", "then", "shown"),
    [
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
            "migrate-from-rq",
            "shop.jobs",
            """
            with capture(shop.jobs.taskq) as tasks:
                shop.jobs.enqueue()
                print([(each.queue, each.run_after) for each in tasks.enqueued])
            """,
            ["[('high', None), ('high', datetime.timedelta(seconds=600))]"],
        ),
        (
            "migrate-from-arq",
            "shop.work",
            """
            with capture(shop.work.taskq) as tasks:
                asyncio.run(shop.work.enqueue())
                print([each.id for each in tasks.enqueued][1:])
            """,
            ["['life-1']"],
        ),
        (
            "migrate-from-huey",
            "shop.tasks",
            """
            with capture(shop.tasks.taskq) as tasks:
                handles = [shop.tasks.add.delay(1, 2), shop.tasks.add.delay(-1, 2)]
                print([run.outcome for run in tasks.run(raises=False)], handles[0].result())
            print([each.spec for each in shop.tasks.taskq.periodic_tasks()])
            """,
            ["['completed', 'archived'] 3", "['0 */2 * * *']"],
        ),
        (
            "come-from-asynq",
            "shop.tasks",
            """
            with capture(shop.tasks.taskq) as tasks:
                shop.tasks.enqueue()
                (task,) = tasks.enqueued
                print(task.queue, task.run_after)
            """,
            ["critical 1 day, 0:00:00"],
        ),
    ],
)
def test_the_code_of_a_page_runs(page: str, modules: str, then: str, shown: list[str], tmp_path: Path) -> None:
    """Its files are written and imported, and what they declare is enqueued and run without Redis."""
    write_files(ROOT / "docs" / "how-to" / f"{page}.md", tmp_path)
    imports = [
        "import asyncio",
        "from taskq_core.testing import capture",
        *(f"import {each}" for each in modules.split()),
    ]

    printed = run_python(tmp_path, "\n".join([*imports, textwrap.dedent(then)]))

    assert printed.splitlines() == shown


def test_the_switch_of_the_page_sends_each_task_to_one_queue(tmp_path: Path) -> None:
    """The old queue is played by an object that notes what it was given."""
    write_files(ROOT / "docs/how-to/run-two-queues.md", tmp_path)
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
        from shop.tasks import send_welcome, taskq
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
    write_files(ROOT / "docs/how-to/migrate-from-django-q2.md", tmp_path)
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


SECRETS = re.compile(
    r"(==|!=)\s*[bf]?[\"']Bearer|(password|secret|token|api_key|authorization)\w*\)?\s*(==|!=)", re.IGNORECASE
)


def test_no_example_compares_a_secret_in_a_time_that_tells_of_it() -> None:
    """Who reads it will copy it; `hmac.compare_digest` takes as long for each guess."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("example_project/**/*.py")]

    found = [
        f"{page.relative_to(ROOT)}: {line.strip()}"
        for page in pages
        for line in page.read_text(encoding="utf-8").splitlines()
        if SECRETS.search(line)
    ]

    assert len(pages) > 50
    assert found == []
