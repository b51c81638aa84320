"""Compare three projects on Celery, with its in-memory broker, and on taskq after `taskq migrate celery --write`.

Each project has at least 15 tasks, which record what they do, and a `drive()` that enqueues them and reads results. No
file is edited between the two runs.
"""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from taskq_core.cli import main

ROOT = Path(__file__).parents[3]
PROJECTS = ROOT / "tests" / "golden" / "celery" / "projects"
PERIODIC = ("count_loaves", "tick", "wash")

WAIT = """
import collections, json, os, time
import drive

def finished():
    with open(os.environ["RECORD"]) as file:
        counts = collections.Counter(json.loads(line)[0] for line in file)
    return all(counts[name] >= number for name, number in drive.DONE.items())

def run():
    results = drive.drive()
    end = time.monotonic() + 60
    while not finished() and time.monotonic() < end:
        time.sleep(0.1)
    assert finished()
    print(json.dumps(results, default=str))
"""
ON_CELERY = (
    WAIT
    + """
from celery.beat import EmbeddedService, Scheduler
from celery.contrib.testing.worker import start_worker

queues = {"bakery": "celery,ovens,mail", "journal": "desk,press", "fleet": "fleet,garage"}[app.main]
beat = EmbeddedService(app, max_interval=1, thread=True, scheduler_cls=Scheduler, schedule_filename="beat")
with start_worker(app, pool="solo", perform_ping_check=False, queues=queues, loglevel="CRITICAL", shutdown_timeout=30):
    beat.start()
    run()
    beat.stop()
"""
)


def environment(folder: Path, **more: str) -> dict[str, str]:
    (folder / "record").touch()
    path = os.pathsep.join((str(folder), str(ROOT)))
    return {**os.environ, "PYTHONPATH": path, "RECORD": str(folder / "record"), **more}


def run(folder: Path, code: str, **variables: str) -> dict[str, object]:
    """Run a program in a project, and return its last output."""
    done = subprocess.run(
        (sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)),
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def recorded(folder: Path) -> list[str]:
    """Return the records of a project's tasks without their order. Periodic tasks count once."""
    lines = (folder / "record").read_text().splitlines()
    once = {line for line in lines if json.loads(line)[0] in PERIODIC}
    return sorted([*once, *(line for line in lines if line not in once)])


@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.parametrize(
    ("project", "target", "app", "settings"),
    [
        ("bakery", "django", "bakery.celery", "bakery.settings"),
        ("journal", "journal.queue:taskq", "journal.app", ""),
        ("fleet", "django", "fleet.celery", "fleet.settings.base"),
    ],
)
def test_a_project_does_the_same_on_taskq_as_on_celery(
    project: str, target: str, app: str, settings: str, tmp_path: Path, redis_server: object
) -> None:
    pytest.importorskip("celery")
    before, after = tmp_path / "before", tmp_path / "after"
    shutil.copytree(PROJECTS / project, before)
    shutil.copytree(PROJECTS / project, after)
    names = {"DJANGO_SETTINGS_MODULE": settings} if settings else {}
    setup = "import django\ndjango.setup()\n" if settings else ""
    expected = run(
        before,
        f"{setup}from {app} import app\napp.conf.get('timezone')  # as its commands do, before tasks are imported\n"
        + ON_CELERY,
        BROKER="memory://",
        DATABASE=":memory:",
        **names,
    )

    assert main(["migrate", "celery", str(after), "--to", target, "--write"]) == 0

    names["BROKER"] = redis_server.unix_url  # type: ignore[attr-defined]  # the fixture's class
    names["DATABASE"] = str(after / "database")
    command = (
        ("-m", "django", "runworker") if settings else ("-m", "taskq_core", "worker", "drive:taskq", "--with-scheduler")
    )
    if not settings:
        (after / "drive.py").write_text((after / "drive.py").read_text() + "\n\nfrom journal.queue import taskq\n")
    worker = subprocess.Popen((sys.executable, *command), cwd=after, env=environment(after, **names))
    try:
        assert run(after, setup + WAIT + "run()\n", **names) == expected
    finally:
        worker.terminate()
        worker.wait(30)
    assert recorded(after) == recorded(before)
