"""Test `taskq_django.testing` in separate runs of Django's and pytest's runners, with several processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.postgres_server import PostgresServer
from tests.processes.taskq_django.project import Project
from tests.redis_server import RedisServer

SETTINGS = """
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TASKQ["URL"] = "redis://127.0.0.1:1/0"
"""
HEAD = """
import os
import time
from pathlib import Path
from django.db import transaction
from kiosk.tasks import work

def note(name):
    here = Path(__file__).parent
    (here / f"pid-{os.getpid()}").touch()
    while len(list(here.glob("pid-*"))) < 2:  # neither process runs all tests before the other has begun
        time.sleep(0.01)
"""
CASE = """
from django.test import TestCase
from taskq_django.testing import TaskQTestMixin

class Base(TaskQTestMixin):
    def check(self, name):
        note(name)
        flag = Path(__file__).with_name(name)
        flag.touch()
        with transaction.atomic():
            handle = work.delay(str(flag))
        self.assert_enqueued(work, flag=str(flag), count=1)
        self.drain()
        self.assertEqual(handle.result(), "first")
        self.assertEqual(len(self.tasks.enqueued), 1)

    def test_one(self): self.check("one")
    def test_two(self): self.check("two")
    def test_three(self): self.check("three")
"""
CASES = HEAD + CASE + "".join(f"\nclass Case{number}(Base, TestCase): pass\n" for number in range(4))
FIXTURES = (
    HEAD
    + """
import pytest
from taskq_django.testing import Captured

@pytest.mark.django_db
@pytest.mark.parametrize("number", range(8))
def test_capture(taskq_capture, number):
    note(number)
    with transaction.atomic():
        work.delay(str(number))
        taskq_capture.assert_nothing_enqueued()
    taskq_capture.assert_enqueued(work, str(number), count=1)
    assert len(taskq_capture.enqueued) == 1

@pytest.mark.django_db
def test_eager(taskq_eager, tmp_path):
    (tmp_path / "flag").touch()
    assert work.delay(str(tmp_path / "flag")).result() == "first"

@pytest.mark.django_db(transaction=True)
def test_drain(taskq_drain, tmp_path):
    (tmp_path / "flag").touch()
    handle = work.delay(str(tmp_path / "flag"))
    assert [run.id for run in taskq_drain()] == [handle.id]

@pytest.mark.django_db(transaction=True)
async def test_adrain(taskq_adrain, tmp_path):
    (tmp_path / "flag").touch()
    handle = await work.adelay(str(tmp_path / "flag"))
    assert [run.id for run in await taskq_adrain()] == [handle.id]

@pytest.mark.django_db
class TestWaiting:
    @pytest.fixture
    def taskq_as_committed(self):
        return False

    def test_it(self, taskq_capture, django_capture_on_commit_callbacks):
        with django_capture_on_commit_callbacks(execute=True):
            work.delay("x")
            taskq_capture.assert_nothing_enqueued()
        taskq_capture.assert_enqueued(work)
"""
)
DRAIN = (
    HEAD
    + """
from django.test import TransactionTestCase
from taskq_django import task
from taskq_django.models import OutboxTask
from taskq_django.testing import TaskQTestMixin

@task(name="count")
def count() -> None:
    OutboxTask.objects.count()

@task(name="acount")
async def acount() -> None:
    await OutboxTask.objects.acount()

class Case(TaskQTestMixin, TransactionTestCase):
    def check(self, task):
        task.delay()
        self.assertEqual([run.outcome for run in self.drain()], ["completed"])

    def test_function(self): self.check(count)
    def test_coroutine(self): self.check(acount)
"""
)
INI = """
[pytest]
DJANGO_SETTINGS_MODULE = kiosk_settings
asyncio_mode = auto
"""


@pytest.fixture
def project(tmp_path: Path, redis: RedisServer) -> Project:
    return Project(tmp_path, redis, SETTINGS)


def run(project: Project, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("enqueue", ["on_commit", "outbox"])
def test_processes_of_djangos_runner_do_not_share_what_they_capture(project: Project, enqueue: str) -> None:
    project.configure(f'TASKQ["ENQUEUE"] = {enqueue!r}\n')
    in_two_processes(project)


@pytest.mark.parametrize("enqueue", ["on_commit", "outbox"])
def test_on_postgres(project: Project, postgres_server: PostgresServer, enqueue: str) -> None:
    database = postgres_server.create(f"kiosk_{enqueue}")
    project.configure(f'TASKQ["ENQUEUE"] = {enqueue!r}\nDATABASES["default"] = {database!r}\n')
    in_two_processes(project)


def test_drain_leaves_the_database_free_to_be_dropped(project: Project, postgres_server: PostgresServer) -> None:
    """This is so for threads of plain functions and of coroutines, whose connections `CONN_MAX_AGE` keeps open."""
    database = {**postgres_server.create("kiosk_drain"), "CONN_MAX_AGE": 600}
    project.configure(f'DATABASES["default"] = {database!r}\n')
    (project.folder / "kiosk" / "tests.py").write_text(DRAIN)

    assert "Ran 2 tests" in run(project, "manage.py", "test", "--noinput")


def in_two_processes(project: Project) -> None:
    (project.folder / "kiosk" / "tests.py").write_text(CASES)

    output = run(project, "manage.py", "test", "--parallel", "2", "--shuffle", "1")

    assert "Ran 12 tests" in output
    assert len(list(project.folder.glob("kiosk/pid-*"))) == 2


def test_fixtures_in_processes_of_pytest_xdist(project: Project) -> None:
    (project.folder / "conftest.py").write_text('pytest_plugins = ["taskq_django.testing.plugin"]\n')
    (project.folder / "pytest.ini").write_text(INI)
    (project.folder / "test_fixtures.py").write_text(FIXTURES)
    (project.folder / "test_cases.py").write_text(CASES)

    output = run(project, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", "-q")

    assert "24 passed" in output
    assert len(list(project.folder.glob("pid-*"))) == 2
